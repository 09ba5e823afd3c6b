"""What one CTA of the Hopper forward kernel takes: threads, registers, shared memory.

Warpgroup 0 feeds the rings by TMA; each further warpgroup of 128 threads owns 64 query rows.

Notation, per CTA: Q ``(tile_m, head_dim_padded)``, K ``(tile_n, head_dim_padded)``, V ``(tile_n,
head_dim_v_padded)``, S and P ``(tile_m, tile_n)``, O ``(tile_m, head_dim_v_padded)``.
"""

from __future__ import annotations

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility.common import (
    MAX_REGS_SETMAXNREG,
    REG_GRANULE,
    aligned,
    share_of_registers,
)
from fa4gen.hardware import Arch
from fa4gen.hardware.arch import WARPGROUP_THREADS

ROWS_PER_WARPGROUP = 64
"""M of one ``wgmma``. Source: PTX ISA, wgmma.mma_async shapes."""

SMEM_RESERVE_BYTES = 1024
"""Barriers, and what aligning the first tile may cost. assumed: well above the barriers' bytes."""

BOOKKEEPING_REGS = 28
"""Registers of a consumer thread besides accumulators and P: row maxima and sums, addresses,
loop state.

Source: spills and times of 500 kernels, measured on an H200, 2026-11-20. With 24 besides S, O and
P (head_dim 64 at 192x128 and head_dim 96 at 192x160, both with 152 registers) 16 to 408 B spilled,
at a cost of 21 to 67 %; with 28 (head_dim 128, 192x80, 152 registers) nothing; with 32 (head_dim
96, 192x160, and head_dim 128, 192x128, 160 registers and P in shared memory) 16 to 24 B, at a cost
of 0 to 3 %.
"""

WIDEST_MMA_IN_HALF = 192
"""Columns of S and O up to which a CTA can do with half of an SM's registers: ptxas (CUDA 13)
refuses a ``wgmma`` of 208 in a kernel that starts with 128 registers a thread, whatever
``setmaxnreg`` adds.
"""

WIDE_V_COLUMNS = 128
"""Columns of V up to which an e4m3 kernel has as many slots for V as loaded as for its transpose.
Source: templates/sm90/fwd.py.j2."""


def num_consumer_warpgroups(config: KernelConfig) -> int:
    """Warpgroups that compute: one per 64 rows of the query tile."""
    return config.tile_m // ROWS_PER_WARPGROUP


def num_threads(config: KernelConfig) -> int:
    """Threads of one CTA: the producer warpgroup and the consumers."""
    return (1 + num_consumer_warpgroups(config)) * WARPGROUP_THREADS


def rows_per_cta(config: KernelConfig) -> int:
    """Query rows of one CTA."""
    return config.tile_m


def l2_section_bytes(config: KernelConfig) -> int:
    """K and V that causal tiles in flight should share; 0 is one head's, whatever its size.

    Longest first, so of lpt and dynamic, tiles of many heads run side by side. A persistent CTA
    takes them in pairs that are all alike, which would gain nothing by it, nor would tiles without
    a mask: those go head by head under every scheduler. Source: templates/sm90/fwd.py.j2.
    """
    return 0 if config.scheduler is Scheduler.PERSISTENT else 32 << 20


def launch_regs(config: KernelConfig, arch: Arch) -> int:
    """Registers per thread a CTA starts with."""
    return share_of_registers(num_threads(config), arch)


def full_regs_consumer(signature: KernelSignature, config: KernelConfig, arch: Arch) -> int:
    """The largest ``regs_consumer`` that the pool leaves beside ``regs_producer``.

    Where keys are split, half of an SM if that is enough: the other half is for the CTA that
    combines, which is there before it is needed then. Of 12.5 us it saves 0.4 with 16 queries over
    8192 keys, measured on an H200, 2026-11-22 (docs/hopper.md).
    """
    consumers = num_consumer_warpgroups(config)

    def regs(ctas_per_sm: int) -> int:
        start = share_of_registers(ctas_per_sm * num_threads(config), arch)
        left = start * (1 + consumers) - config.regs_producer
        return min(left // consumers // REG_GRANULE * REG_GRANULE, MAX_REGS_SETMAXNREG)

    if regs(2) >= consumer_regs_needed(signature, config):
        half = config.vary({"regs_consumer": regs(2)})
        if ctas_per_sm(signature, half, arch) > 1:
            return regs(2)
    return regs(1)


def ctas_per_sm(signature: KernelSignature, config: KernelConfig, arch: Arch) -> int:
    """CTAs that share the registers of an SM: 2 where a tile with splits takes half of them.

    The other half is for the CTA that combines.
    """
    consumers = num_consumer_warpgroups(config)
    half = share_of_registers(2 * num_threads(config), arch) * (1 + consumers)
    fits = config.regs_producer + consumers * config.regs_consumer <= half
    widest = max(config.tile_n, signature.head_dim_v_padded)
    return 2 if config.num_splits > 1 and fits and widest <= WIDEST_MMA_IN_HALF else 1


def accumulator_regs(signature: KernelSignature, config: KernelConfig) -> int:
    """Registers per consumer thread for S, O and P where they live at the same time.

    A thread holds half a column of its warpgroup's 64 rows: ``columns / 2`` fp32 registers. P is
    packed two to a register, four in e4m3. With overlap the next S exists while P still feeds the
    PV product, and with two buffers the next P as well; without, P grows as S is used up.
    """
    scores = config.tile_n // 2
    out = signature.head_dim_v_padded // 2
    p_beside_scores = config.p_in_registers and config.intra_warpgroup_overlap
    packed = config.p_buffers * config.tile_n * signature.dtype.itemsize // 8
    return scores + out + (packed if p_beside_scores else 0)


def consumer_regs_needed(signature: KernelSignature, config: KernelConfig) -> int:
    """Least registers per consumer thread with which the kernel is worth running."""
    return accumulator_regs(signature, config) + BOOKKEEPING_REGS


def smem_buffers(signature: KernelSignature, config: KernelConfig) -> dict[str, int]:
    """Bytes of each shared buffer, every tile rounded up to its alignment.

    O is written over Q, which is no longer read by then; with ``q_prefetch`` there are two of them.
    In e4m3 the ring of V holds its transpose, and what TMA brings has slots of its own: as many, or
    one where V is wider than :data:`WIDE_V_COLUMNS`.
    """
    itemsize = signature.dtype.itemsize
    k_tile = config.tile_n * signature.head_dim_padded * itemsize
    v_tile = config.tile_n * signature.head_dim_v_padded * itemsize
    q_row = signature.head_dim_padded * itemsize
    o_row = signature.head_dim_v_padded * signature.dtype.out.itemsize
    q_and_o = config.tile_m * max(q_row, o_row)
    q_stages = 2 if config.q_prefetch else 1
    p_tile = 0 if config.p_in_registers else config.tile_m * config.tile_n * itemsize
    v_slots = 0
    if signature.dtype is DType.E4M3:
        wide = signature.head_dim_v_padded > WIDE_V_COLUMNS
        v_slots = 1 if wide else config.num_kv_stages
    return {
        "Q/O": aligned(q_stages * q_and_o),
        "K": aligned(config.num_kv_stages * k_tile),
        "V": aligned(config.num_kv_stages * v_tile),
        "V as loaded": aligned(v_slots * v_tile),
        "P": aligned(p_tile),
        "barriers": SMEM_RESERVE_BYTES,
    }
