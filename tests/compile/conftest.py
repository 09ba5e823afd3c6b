"""A stand-in kernel to compile, and one pool for the tests that do not break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fa4gen.codegen import GeneratedKernel, render
from fa4gen.compile import ArtifactCache, CompiledKernel, CompilePool
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.evaluation import ResourceUse
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import load_arch

TEMPLATES = Path(__file__).parents[1] / "codegen" / "data" / "templates"

Kernel = Callable[..., GeneratedKernel]


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """``kernel(tile_m=..., prelude="...")``: the stand-in, with code put first in its build()."""

    def make(prelude: str = "", **knobs: object) -> GeneratedKernel:
        signature = KernelSignature(DType.BF16, 64, 64, False, 1)
        config = KernelConfig.from_dict(knobs)
        generated = render(signature, config, load_arch("sm90"), templates=TEMPLATES)
        marker = "    length = cute.sym_int()\n"
        assert marker in generated.source
        lines = "".join(f"    {line}\n" for line in prelude.splitlines())
        return replace(generated, source=generated.source.replace(marker, lines + marker))

    return make


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompilePool]:
    """One process, shared by the session; its cache is empty at first."""
    cache = ArtifactCache(tmp_path_factory.mktemp("pool-cache"))
    with CompilePool(1, 60.0, cache) as made:
        yield made


@pytest.fixture
def compiled() -> CompiledKernel:
    """Something to put into a cache; not a real object."""
    resources = ResourceUse(regs_per_thread=168, spill_bytes=8, smem_bytes=1024, code_bytes=640)
    return CompiledKernel(b"object", b"ptx", resources, 1.5)
