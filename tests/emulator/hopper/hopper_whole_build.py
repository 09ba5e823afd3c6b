"""Compiling the whole kernels: with CuTe-DSL, no GPU needed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import peer_cache
from hopper_whole_cases import COMPILED, UNFUSED, Case, cases, own_kernel
from peer_kernels import PeerKernel, compile_peers

HERE = Path(__file__).resolve().parent
NO_FUSION = "--ptxas-options '--fmad=false'"


def build(name: str, run: str = COMPILED) -> PeerKernel:
    """Compile a case, or take it from the cache.

    Args:
        run: ``compiled`` or, of a kernel that is not ours, ``unfused``.

    Raises:
        PeerCompileError, CompileError, MissingDependency: it cannot be compiled.
    """
    case = cases()[name]
    return _build_own(case) if case.peer is None else _build_peer(case, run)


def build_alone(name: str, run: str) -> PeerKernel:
    """:func:`build` for a process of a pool: it waits for no other, and leaves no files."""
    with (
        tempfile.TemporaryDirectory(prefix="fa4gen-whole-") as folder,
        mock.patch.object(peer_cache, "FOLDER", Path(folder) / "peers"),
        mock.patch.dict(os.environ, FA4GEN_CACHE_DIR=folder),
    ):
        return build(name, run)


def _build_own(case: Case) -> PeerKernel:
    from fa4gen.codegen import render
    from fa4gen.compile import compile_kernel
    from fa4gen.hardware import load_arch

    assert case.problem is not None
    made = render(case.problem.signature, case.config, load_arch("sm90"))
    artifact = compile_kernel(made)
    return own_kernel(case, artifact.object_path.read_bytes(), artifact.ptx())


def _build_peer(case: Case, run: str) -> PeerKernel:
    request = case.peer
    assert request is not None
    if run == UNFUSED:
        inner = {
            "module": request.module,
            "function": request.function,
            "arguments": request.arguments,
        }
        label = f"{request.label} {run}"
        request = replace(
            request, label=label, module=__name__, function=call_unfused.__name__, arguments=inner
        )
    with _importable_by_compiler():
        return compile_peers([request])[0]


@contextmanager
def _importable_by_compiler() -> Iterator[None]:
    """Let the process that compiles peers find this module."""
    paths = [str(HERE), str(HERE.parents[1] / "peers"), os.environ.get("PYTHONPATH", "")]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths))):
        yield


def call_unfused(module: str, function: str, arguments: Mapping[str, Any]) -> Any:
    """Call a peer as ``module.function`` does, with :data:`NO_FUSION`; for ``peer_compiler``."""
    import importlib

    from cutlass import cute

    compile_: Callable[..., Any] = cute.compile

    def compile_unfused(*given: Any, options: str = "", **named: Any) -> Any:
        return compile_(*given, options=f"{options} {NO_FUSION}", **named)

    entry = getattr(importlib.import_module(module), function)
    with mock.patch.object(cute, "compile", compile_unfused):
        return entry(**arguments)


def versions() -> dict[str, str]:
    """What took part in compiling."""
    from fa4gen.compile import toolchain
    from fa4gen.versions import installed

    names = ("flash-attn-4", "quack-kernels", "torch")
    found = {**toolchain(), **{name: installed(name) for name in names}}
    return {
        "python": sys.version.split()[0],
        **{name: version for name, version in found.items() if version},
    }
