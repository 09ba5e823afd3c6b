"""Kernels of other libraries, compiled without a GPU: what the emulator is shown to be right on.

A peer is compiled in a process of its own (:mod:`peer_compiler`), because quack-kernels changes
CuTe-DSL's tensor classes for the whole process, and CuTe-DSL has to be told of another target and
of a GPU that is not there. What comes back is data: nothing of the peer, of CuTe-DSL or of torch
is imported here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import peer_cache

from fa4gen.compile import FUNCTION_NAME
from fa4gen.emulator.launch import CompiledHost, Device
from fa4gen.hardware import Sku, load_sku

TIMEOUT_S = 600.0
"""Longest time for one process of compiles; one kernel takes 2 to 8 s, the imports as much."""

SKUS = {"sm_90a": "h200", "sm_100a": "b200", "sm_103a": "b300"}
"""The product that stands for a target: its SM count is what a persistent kernel believes in."""

_HERE = Path(__file__).resolve().parent
_TAIL_CHARS = 4000

Role: TypeAlias = Literal["input", "output", "counter"]
T = TypeVar("T")


class PeerCompileError(RuntimeError):
    """A peer could not be compiled; the message ends with the last words of its process."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a call: contiguous, row-major, at least 16-byte aligned."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """Name in ``ml_dtypes``, NumPy and torch alike, e.g. ``bfloat16``."""
    role: Role
    """``counter``: read and written, and zero at the start."""


@dataclass(frozen=True)
class TensorArgument:
    """The place of a tensor among the arguments of a call."""

    name: str


Argument: TypeAlias = "TensorArgument | bool | int | float | str | tuple[Argument, ...] | None"
"""What a host function takes. A tuple is one argument (the peers pass ``NamedTuple`` objects)."""


@dataclass(frozen=True)
class PeerRequest:
    """What to compile: a function of a module of this folder, run with tensors without storage.

    ``function(**arguments)`` calls the peer's own entry point and returns the tensors by name,
    each with its role.
    """

    label: str
    target: str
    module: str
    function: str
    arguments: Mapping[str, Any]
    num_sms: int | None = None
    """SMs that a persistent kernel believes in; default: those of :data:`SKUS`."""

    @property
    def sm_count(self) -> int:
        """The SMs that the compiled kernel believes in."""
        return self.num_sms or _sku(self.target).sm_count


@dataclass(frozen=True)
class PeerKernel:
    """A compiled kernel of a peer, and how its host function is called."""

    label: str
    target: str
    object_bytes: bytes
    """Relocatable x86-64 or AArch64 object with the host function, in TVM-FFI form, and the cubin;
    the symbol is ``__tvm_ffi_`` and then ``function_name``."""
    function_name: str
    ptx: str
    cubin: bytes
    kernel_names: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]
    arguments: tuple[Argument, ...]
    """In call order, as the peer's own Python code passes them."""

    def bind(self, tensors: Mapping[str, T]) -> list[Any]:
        """The call's arguments with ``tensors`` in their places.

        Raises:
            KeyError: a tensor of the call is missing.
        """
        return [_bound(argument, tensors) for argument in self.arguments]

    def host(self) -> CompiledHost:
        """The host function as the emulator takes it; ``bind`` gives its arguments."""
        sku = _sku(self.target)
        device = Device(
            sm_count=sku.sm_count,
            smem_optin_bytes=sku.arch.smem_per_cta_bytes,
            compute_capability=sku.arch.compute_capability,
        )
        return CompiledHost(
            object_bytes=self.object_bytes,
            function_name=self.function_name,
            ptx=dict.fromkeys(self.kernel_names, self.ptx),
            device=device,
            target=self.target,
        )

    @property
    def cta_group(self) -> int:
        """CTAs that share one tcgen05 MMA: 2 where the PTX says so, else 1."""
        return 2 if ".cta_group::2" in self.ptx else 1


def compile_peers(requests: Sequence[PeerRequest]) -> list[PeerKernel]:
    """Compile ``requests`` in one process; no GPU is needed.

    What has been compiled before is taken from :mod:`peer_cache`; a second process that wants the
    same waits for it.

    Raises:
        PeerCompileError: a peer is not installed, or refused; or it launched none or several
            compiled functions in one call.
    """
    with peer_cache.locked():
        kernels = [peer_cache.find(request) for request in requests]
        missing = [r for r, kernel in zip(requests, kernels, strict=True) if kernel is None]
        made = iter(_compile(missing) if missing else ())
    return [next(made) if kernel is None else kernel for kernel in kernels]


def compile_peer(request: PeerRequest) -> PeerKernel:
    """Compile one request; see :func:`compile_peers`."""
    return compile_peers([request])[0]


def _compile(requests: Sequence[PeerRequest]) -> list[PeerKernel]:
    orders = [
        {
            "target": request.target,
            "module": request.module,
            "function": request.function,
            "arguments": dict(request.arguments),
            "num_sms": request.sm_count,
            "function_name": FUNCTION_NAME,
        }
        for request in requests
    ]
    with tempfile.TemporaryDirectory(prefix="fa4gen-peers-") as name:
        folder = Path(name)
        (folder / "orders.json").write_text(json.dumps(orders), encoding="utf-8")
        _run_compiler(folder)
        kernels = [_read(folder / str(i), request) for i, request in enumerate(requests)]
    for request, kernel in zip(requests, kernels, strict=True):
        peer_cache.keep(request, kernel)
    return kernels


def _run_compiler(folder: Path) -> None:
    caches_off = {"QUACK_CACHE_ENABLED": "0", "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "0"}
    command = [sys.executable, str(_HERE / "peer_compiler.py"), str(folder)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | caches_off,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerCompileError(
            f"peers: not compiled after {TIMEOUT_S:g} s; compile fewer at a time"
        ) from error
    if done.returncode != 0:
        raise PeerCompileError(
            f"peers: the compiling process ended with status {done.returncode}; "
            f"its last words:\n{done.stderr[-_TAIL_CHARS:]}"
        )


def _read(stem: Path, request: PeerRequest) -> PeerKernel:
    facts = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    return PeerKernel(
        label=request.label,
        target=request.target,
        object_bytes=stem.with_suffix(".o").read_bytes(),
        function_name=FUNCTION_NAME,
        ptx=stem.with_suffix(".ptx").read_text(encoding="utf-8"),
        cubin=stem.with_suffix(".cubin").read_bytes(),
        kernel_names=tuple(facts["kernel_names"]),
        tensors=tuple(
            TensorSpec(t["name"], tuple(t["shape"]), t["dtype"], t["role"])
            for t in facts["tensors"]
        ),
        arguments=tuple(_argument(value) for value in facts["arguments"]),
    )


def _sku(target: str) -> Sku:
    """The product that stands for ``target``."""
    if target not in SKUS:
        raise PeerCompileError(f"target: got {target!r}, allowed: {', '.join(SKUS)}")
    return load_sku(SKUS[target])


def _argument(value: Any) -> Argument:
    """An argument from its JSON form: an object names a tensor, a list is a tuple."""
    if isinstance(value, dict):
        return TensorArgument(value["tensor"])
    if isinstance(value, list):
        return tuple(_argument(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"argument: got {value!r}, allowed: a tensor, a number, a name, none")


def _bound(argument: Argument, tensors: Mapping[str, T]) -> Any:
    if isinstance(argument, TensorArgument):
        return tensors[argument.name]
    if isinstance(argument, tuple):
        return tuple(_bound(item, tensors) for item in argument)
    return argument
