"""fa4gen's own templates compile, and take the shared memory that feasibility foresees."""

from __future__ import annotations

import pytest

from fa4gen.codegen import render
from fa4gen.compile import CompilePool
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import smem_bytes
from fa4gen.hardware import load_arch

SM90 = load_arch("sm90")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signature", "config"),
    [
        (KernelSignature(DType.BF16, 128, 128, True, 1), KernelConfig()),
        (
            KernelSignature(DType.FP16, 64, 64, False, 4),
            KernelConfig(tile_n=64, num_kv_stages=3, p_in_registers=False, exp2_poly_fraction=0.25),
        ),
    ],
)
def test_sm90_forward_compiles(
    pool: CompilePool, signature: KernelSignature, config: KernelConfig
) -> None:
    artifact = pool.submit(render(signature, config, SM90)).result(timeout=120)
    resources = artifact.resources
    assert resources.smem_bytes == smem_bytes(signature, config, SM90)
    assert resources.smem_bytes <= SM90.smem_per_cta_bytes
    assert 0 < resources.regs_per_thread <= SM90.max_regs_per_thread
    assert f".target {SM90.target}" in artifact.ptx()
    assert "wgmma.mma_async" in artifact.ptx()
