"""The process that compiles peers: ``python peer_compiler.py FOLDER``.

It reads ``FOLDER/orders.json`` and writes, for order ``i``, ``i.json``, ``i.o``, ``i.ptx`` and
``i.cubin``.

The peer's own entry point is called with torch tensors that have shapes but no storage, and with
``cute.compile`` wrapped: the wrapper keeps the PTX, and what it returns remembers the call instead
of launching. So the arguments and their order are those that the peer itself passes.
"""

from __future__ import annotations

import importlib
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cutlass import cute
from cutlass.cutlass_dsl import CuTeDSL, Numeric
from cutlass.utils import HardwareInfo
from torch._subclasses.fake_tensor import FakeTensorMode

Tensors = Mapping[str, tuple[torch.Tensor, str]]
"""The tensors of a call by name, each with its role."""


@dataclass
class Remembered:
    """Stands for a compiled function; a call is remembered, not made."""

    compiled: Any
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self, *arguments: Any) -> None:
        self.calls.append(arguments)


def main(folder: Path) -> None:
    """Carry out the orders of ``folder``."""
    for i, order in enumerate(json.loads((folder / "orders.json").read_text(encoding="utf-8"))):
        entry = getattr(importlib.import_module(order["module"]), order["function"])
        tensors, launched = record(partial(entry, **order["arguments"]), order)
        _write(folder / str(i), tensors, launched, order["function_name"])


def record(entry: Callable[[], Tensors], order: Mapping[str, Any]) -> tuple[Tensors, Remembered]:
    """Run ``entry``; its tensors, and the one compiled function that it called once."""
    made: list[Remembered] = []
    with tempfile.TemporaryDirectory() as dumps, ExitStack() as stack:
        stack.enter_context(_target(order["target"]))
        stack.enter_context(_compile_keeps(Path(dumps), made))
        stack.enter_context(_pretended_device(order["num_sms"]))
        stack.enter_context(FakeTensorMode())
        tensors = entry()
    launched = [function for function in made if function.calls]
    if len(launched) != 1 or len(launched[0].calls) != 1:
        raise RuntimeError(
            f"{order['module']}.{order['function']}: called {len(launched)} compiled functions, "
            "allowed: one, once; ask for a problem without split keys or a split K"
        )
    return tensors, launched[0]


@contextmanager
def _target(target: str) -> Iterator[None]:
    """Make ``target`` the arch that CuTe-DSL traces and compiles for."""
    with mock.patch.object(CuTeDSL._get_dsl().envar, "arch", target):
        yield


@contextmanager
def _compile_keeps(folder: Path, made: list[Remembered]) -> Iterator[None]:
    """``cute.compile`` keeps PTX and cubin, and what it returns remembers calls."""
    compile_ = cute.compile

    def compile_and_keep(*arguments: Any, options: str = "", **named: Any) -> Remembered:
        keep = f"--keep-ptx --keep-cubin --dump-dir={shlex.quote(str(folder))}"
        compiled = compile_(*arguments, options=f"{options} {keep}", **named)
        made.append(Remembered(compiled))
        return made[-1]

    with mock.patch.object(cute, "compile", compile_and_keep):
        yield


@contextmanager
def _pretended_device(num_sms: int) -> Iterator[None]:
    """Answer what persistent schedulers ask the driver for while they are traced.

    A real device may hold fewer clusters at once than ``num_sms / cluster_size``: they do not
    straddle GPCs. The number only sets the size of a persistent grid; any is correct.
    """

    def clusters(_self: HardwareInfo, cluster_size: int, stream: Any = None) -> int:
        return max(1, num_sms // cluster_size)

    with mock.patch.multiple(
        HardwareInfo,
        __init__=lambda _self, device_id=0: None,
        get_device_multiprocessor_count=lambda _self: num_sms,
        get_max_active_clusters=clusters,
    ):
        yield


def _write(stem: Path, tensors: Tensors, launched: Remembered, function_name: str) -> None:
    compiled = launched.compiled
    names = {tensor.untyped_storage()._cdata: name for name, (tensor, _) in tensors.items()}
    facts = {
        "kernel_names": list(compiled.kernel_info),
        "tensors": [
            {
                "name": name,
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "role": role,
            }
            for name, (tensor, role) in tensors.items()
        ],
        "arguments": [_plain(argument, names) for argument in launched.calls[0]],
    }
    stem.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    stem.with_suffix(".ptx").write_text(compiled.__ptx__.rstrip("\0"), encoding="utf-8")
    stem.with_suffix(".cubin").write_bytes(compiled.__cubin__)
    compiled.export_to_c(object_file_path=str(stem.with_suffix(".o")), function_name=function_name)


def _plain(value: Any, names: Mapping[int, str]) -> Any:
    """An argument as JSON: ``{"tensor": name}``, a number, a string, null, or a list of these."""
    if isinstance(value, torch.Tensor):
        return {"tensor": names[value.untyped_storage()._cdata]}
    if isinstance(value, tuple | list):
        return [_plain(item, names) for item in value]
    if isinstance(value, Numeric):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"argument: got {value!r}, which cannot be passed on as data")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
