"""One compile: a rendered module in, a host object with its PTX and resources out.

The only module of ``compile`` that imports CuTe-DSL, and that inside functions. CuTe-DSL is not
thread-safe, so compiles of one process take turns.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import re
import shlex
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from fa4gen.codegen import ENTRY_POINT, GeneratedKernel
from fa4gen.compile.artifact import FUNCTION_NAME, Artifact, CompiledKernel, artifact_key
from fa4gen.compile.cache import ArtifactCache
from fa4gen.compile.cubin import embedded_cubin, kernel_facts
from fa4gen.core.errors import CompileError, MissingDependency
from fa4gen.core.evaluation import ResourceUse
from fa4gen.versions import cutlass_dsl_note

LOCK_WAIT_S = 60.0
"""How long to wait for another process that compiles the same kernel."""

_MESSAGE_CHARS = 2000
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
ONE_AT_A_TIME = threading.Lock()


def compile_kernel(generated: GeneratedKernel, cache: ArtifactCache | None = None) -> Artifact:
    """The artifact of ``generated``: from the cache, or compiled in this process.

    For a process that may import CuTe-DSL, such as the one that launches the kernel; a tuner
    uses :class:`~fa4gen.compile.CompilePool`. Of several processes that ask for the same kernel at
    once, one compiles it.

    Raises:
        CompileError: CuTe-DSL or ptxas refused the kernel.
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    cache = ArtifactCache() if cache is None else cache
    key = artifact_key(generated)
    if (found := cache.get(key)) is not None:
        return found
    with cache.lock(key, LOCK_WAIT_S):
        if (found := cache.get(key)) is not None:
            return found
        compiled = compile_source(generated.source, generated.module_name, generated.target)
        return cache.put(key, compiled)


def require_compiler() -> None:
    """Import all that a compile needs, so that the first one does not pay for it.

    Raises:
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    try:
        importlib.import_module("cutlass.cute")
        importlib.import_module("cutlass.cutlass_dsl.tvm_ffi_provider")
    except (ImportError, AttributeError) as error:  # a broken mix of versions gives the latter
        raise MissingDependency(
            f"CuTe-DSL: cannot be imported ({type(error).__name__}: {error}); "
            "pip install nvidia-cutlass-dsl apache-tvm-ffi"
        ) from error
    _note_untested_version()


@lru_cache(maxsize=1)
def _note_untested_version() -> None:
    """Warn once in a process that this CuTe-DSL has not been tested."""
    if (note := cutlass_dsl_note()) is not None:
        warnings.warn(note, RuntimeWarning, stacklevel=4)


def compile_source(source: str, module_name: str, target: str) -> CompiledKernel:
    """Compile a rendered module for ``target``, e.g. ``sm_90a``; no GPU is needed.

    Raises:
        CompileError: the module cannot be imported, its ``build`` fails, or what it gave has no
            readable resources.
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    require_compiler()
    with ONE_AT_A_TIME, tempfile.TemporaryDirectory(prefix="fa4gen-compile-") as folder:
        # CuTe-DSL reads the source of what it compiles, so it has to be a file.
        path = Path(folder) / f"{module_name}.py"
        path.write_text(source, encoding="utf-8")
        object_path = Path(folder) / "kernel.o"
        start = time.perf_counter()
        with _explained(path), target_arch(target), imported(path) as module:
            options = f"--gpu-arch={target} --keep-ptx --dump-dir={shlex.quote(folder)}"
            compiled = getattr(module, ENTRY_POINT)(options=options)
            compiled.export_to_c(object_file_path=str(object_path), function_name=FUNCTION_NAME)
            ptx: str = compiled.__ptx__.rstrip("\0")
            smem_bytes = _smem_bytes(compiled.ir_module)
            if smem_bytes is None:
                smem_bytes = getattr(module, "SMEM_BYTES", None)
        compile_s = time.perf_counter() - start
        object_bytes = object_path.read_bytes()
        return CompiledKernel(
            object_bytes=object_bytes,
            ptx_gz=gzip.compress(ptx.encode(), mtime=0),
            resources=_resources(object_bytes, smem_bytes),
            compile_s=compile_s,
        )


@contextmanager
def target_arch(target: str) -> Iterator[None]:
    """Make ``target`` the arch that CuTe-DSL traces for, whatever GPU this machine has."""
    from cutlass.cutlass_dsl import CuTeDSL

    environment = CuTeDSL._get_dsl().envar
    environment.arch = target
    try:
        yield
    finally:
        del environment.arch  # back to CUTE_DSL_ARCH or detection


@contextmanager
def imported(path: Path) -> Iterator[ModuleType]:
    """The module at ``path``, known to ``inspect`` and ``dataclasses`` while in use."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CompileError(f"module {path.stem}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[path.stem]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a generated module throws into a CompileError with its line."""
    try:
        yield
    except CompileError:
        raise
    except (Exception, SystemExit) as error:  # generated code may raise anything
        lines = path.read_text(encoding="utf-8").splitlines()
        where = ""
        for frame in extract_tb(error.__traceback__):
            if Path(frame.filename) == path and frame.lineno and frame.lineno <= len(lines):
                where = f" at line {frame.lineno}: {lines[frame.lineno - 1].strip()!r}"
        text = _ANSI.sub("", str(error)).strip()[:_MESSAGE_CHARS]
        raise CompileError(f"kernel {path.stem}{where}: {type(error).__name__}: {text}") from error


def _resources(object_bytes: bytes, smem_bytes: object) -> ResourceUse:
    """Resources of the kernels in an object: the largest of each, and all their code.

    Raises:
        CompileError: they cannot be read.
    """
    facts = kernel_facts(embedded_cubin(object_bytes))
    if not facts:
        raise CompileError("exported object: got no kernel, needed one; launch it in build()")
    if type(smem_bytes) is not int:
        raise CompileError(
            f"dynamic shared memory: got {smem_bytes!r}, allowed: an integer; the launch does not "
            "have a constant, so define SMEM_BYTES in the module"
        )
    return ResourceUse(
        regs_per_thread=max(kernel.regs_per_thread for kernel in facts),
        spill_bytes=max(kernel.frame_bytes for kernel in facts),
        smem_bytes=smem_bytes,
        code_bytes=sum(kernel.code_bytes for kernel in facts),
    )


def _smem_bytes(module: Any) -> int | None:
    """Dynamic shared memory per CTA that the host code asks for, if it is a constant.

    The host code fills a ``cudaLaunchConfig_t``, ``(grid[3], block[3], smem, stream, ...)``, and
    stores the bytes in its member 2. Of several launches the largest counts.

    Source: the LLVM-dialect module of CuTe-DSL 4.8.1.
    """
    found: list[int] = []

    def visit(operation: Any) -> None:
        for region in operation.regions:
            for block in region.blocks:
                for child in block.operations:
                    if child.operation.name == "llvm.store":
                        found.extend(_stored_smem(child.operation))
                    visit(child.operation)

    with module.context:
        visit(module.operation)
    return max(found, default=None)


def _stored_smem(store: Any) -> list[int]:
    """The constant of an ``llvm.store`` into member 2 of a launch configuration, or nothing."""
    value, address = (operand.owner for operand in store.operands)
    if getattr(address, "name", "") != "llvm.getelementptr":
        return []
    config = "struct<(array<3 x i32>, array<3 x i32>, i64, ptr, ptr, i32)>"
    if config not in str(address.attributes["elem_type"]):
        return []
    if list(address.attributes["rawConstantIndices"]) != [0, 2]:
        return []
    if getattr(value, "name", "") != "llvm.mlir.constant":
        return []
    return [int(value.attributes["value"].value)]
