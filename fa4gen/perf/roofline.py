"""Rooflines of one tile: the cycles that each unit of an SM needs if nothing stands in its way.

The formulas of the FlashAttention-4 paper, sections 3 and 3.2, for any tile, head dimension and
machine. They count what has to be done and know nothing of latency or order; how long a tile takes
is :mod:`fa4gen.perf.trace`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fa4gen.core.dtypes import DType
from fa4gen.hardware import Arch

EXCHANGED_TILES = 1.5
"""Tiles of dS that a CTA of a pair moves to and from its peer, through distributed shared memory.

Source: FlashAttention-4 paper, table 4: 384 of the 256 cycles that one tile takes."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Cycles of an SM for one tile."""

    mma: float
    smem: float
    exp: float
    """On the special function units alone."""

    @property
    def bound(self) -> str:
        """The unit that takes longest; the first of mma, smem, exp where several do."""
        return max(("mma", "smem", "exp"), key=lambda name: getattr(self, name))

    @property
    def cycles(self) -> float:
        """What the tile takes at least."""
        return max(self.mma, self.smem, self.exp)


@dataclass(frozen=True, slots=True)
class BackwardTraffic:
    """Cycles of shared memory in one tile of the backward pass, by what they are for."""

    operands: float
    ds_write: float
    ds_exchange: float
    dq: float
    """Writing dQ in float32, and reading it back for the reduction into global memory."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.operands + self.ds_write + self.ds_exchange + self.dq


def forward_roofline(
    tile: tuple[int, int],
    head_dims: tuple[int, int],
    arch: Arch,
    *,
    dtype: DType = DType.BF16,
    cta_group: int = 1,
) -> Roofline:
    """S = Q K^T and O += P V of one CTA.

    Args:
        tile: (M, N): query rows of the CTA, keys of the block.
        head_dims: of Q and K, and of V.
        arch: the SM.
        dtype: of the operands.
        cta_group: CTAs that share an MMA: each holds half of K and V.

    P comes from registers (Hopper) or tensor memory (Blackwell), so that only V counts for the
    second product. Every MMA of ``arch.mma_rows`` rows reads its second operand anew.

    For (192, 128) this gives 1024 cycles of shared memory; the paper's formula for equal head
    dimensions, 3 M N d / 8192, would give 960 with their mean.
    """
    m, n = tile
    d, dv = head_dims
    rate = float(arch.mma_flops_per_clk_sm[dtype])
    macs = m * n * (d + dv)
    instructions = math.ceil(m / arch.mma_rows)
    keys = n / cta_group
    elements = instructions * (arch.mma_rows * d + keys * (d + dv))
    return Roofline(
        mma=2.0 * macs / rate,
        smem=elements * dtype.itemsize / arch.smem_bytes_per_clk_sm,
        exp=m * n / arch.mufu_per_clk_sm,
    )


def backward_roofline(
    tile: tuple[int, int], head_dim: int, arch: Arch, *, cta_group: int = 1
) -> tuple[Roofline, BackwardTraffic]:
    """The five products of the backward pass on Blackwell, 16-bit types, of one CTA.

    Args:
        tile: (M, N): query rows and keys that fall to one CTA.
        head_dim: of Q, K and V.
        arch: the SM.
        cta_group: CTAs that share an MMA; each holds half of Q and dO, sends part of dS to its
            peer, and reduces half of dQ.
    """
    m, n = tile
    rate = arch.mma_flops_per_clk_sm[DType.BF16]
    per_element = DType.BF16.itemsize / arch.smem_bytes_per_clk_sm
    pair = cta_group > 1
    # First operands are K and V, and dS; second ones Q and dO, twice each, and K for dQ.
    elements = 4 * m * head_dim / cta_group + 3 * n * head_dim + m * n
    traffic = BackwardTraffic(
        operands=elements * per_element,
        ds_write=m * n * per_element,
        ds_exchange=EXCHANGED_TILES * m * n * per_element if pair else 0.0,
        dq=8.0 * m * head_dim / arch.smem_bytes_per_clk_sm / cta_group,
    )
    roofline = Roofline(
        mma=10.0 * m * n * head_dim / rate,
        smem=traffic.total,
        exp=m * n / arch.mufu_per_clk_sm,
    )
    return roofline, traffic
