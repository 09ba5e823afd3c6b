"""What one CTA of the Blackwell forward kernel takes: threads, registers, shared and tensor memory.

One softmax warpgroup for each Q tile, one warpgroup for correction, one for load, MMA and store.
With ``cta_group`` 2 two CTAs work on one block of K and V, and each holds half of it.

Notation, per CTA: a Q tile is ``(tile_m, head_dim_padded)``, its O ``(tile_m, head_dim_v_padded)``,
its S and P ``(tile_m, tile_n)``; K is ``(tile_n, head_dim_padded)``, V ``(tile_n,
head_dim_v_padded)``.
"""

from __future__ import annotations

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility.common import (
    REG_GRANULE,
    aligned,
    share_of_registers,
)
from fa4gen.hardware import Arch
from fa4gen.hardware.arch import WARPGROUP_THREADS

FRAGMENT_COLUMNS = 32
"""Columns of S that a softmax thread turns into P, stores and forgets together."""

SOFTMAX_BOOKKEEPING_REGS = 40
"""Registers of a softmax thread besides its row of S: maximum, sum, offsets, addresses, P on its
way out. assumed: the least with which FlashAttention-4 runs (176 at tile_n 128) leaves 48."""

CORRECTION_BOOKKEEPING_REGS = 44
"""Registers of a correction thread besides the columns of O it holds.

Source: ptxas, CUDA 13: 64 columns spill 40 B with 104 registers, nothing with 152."""

LEAST_REGS_OTHER = 40
"""With fewer the MMA warp spills its descriptors. Source: ptxas, CUDA 13, 32 registers."""

MOST_REGS_OTHER = 128
"""No compiler has given these warps more. assumed."""

LEAST_REGS_SETMAXNREG = 24
"""Smallest operand of ``setmaxnreg``. Source: PTX ISA, setmaxnreg."""

OTHER_WARPGROUPS = 2
"""Correction, and load, MMA and store together."""

STATISTICS_BYTES_PER_ROW = 8
"""Row maximum, and the factor or row sum that goes from softmax to correction, as float32."""

BARRIER_BYTES = 1024
"""Room for mbarriers, the address of tensor memory and the scheduler's answers."""


def num_threads(config: KernelConfig) -> int:
    """Threads of one CTA."""
    return (config.num_q_stages + OTHER_WARPGROUPS) * WARPGROUP_THREADS


def rows_per_cta(config: KernelConfig) -> int:
    """Query rows of one CTA."""
    return config.num_q_stages * config.tile_m


def l2_section_bytes(config: KernelConfig) -> int:
    """K and V that tiles in flight should share in the L2."""
    return config.l2_section_mb << 20


def launch_regs(config: KernelConfig, arch: Arch) -> int:
    """Registers per thread a CTA starts with."""
    return share_of_registers(num_threads(config), arch)


def full_regs_other(config: KernelConfig, arch: Arch) -> int:
    """What the pool leaves the load, MMA and store warps beside softmax and correction, as far as
    it is of use to them.
    """
    warpgroups = config.num_q_stages + OTHER_WARPGROUPS
    pool = launch_regs(config, arch) * warpgroups
    left = pool - config.num_q_stages * config.regs_softmax - config.regs_correction
    left = left // REG_GRANULE * REG_GRANULE
    return max(LEAST_REGS_SETMAXNREG, min(left, MOST_REGS_OTHER))


def softmax_regs_needed(config: KernelConfig) -> int:
    """Least registers of a softmax thread with which nothing spills: it holds a row of S."""
    return config.tile_n + SOFTMAX_BOOKKEEPING_REGS


def correction_regs_needed(config: KernelConfig) -> int:
    """Least registers of a correction thread with which nothing spills."""
    return config.correction_columns + CORRECTION_BOOKKEEPING_REGS


def tmem_columns(signature: KernelSignature, config: KernelConfig) -> int:
    """Columns of tensor memory in use: S, with P in its upper half, and O of each Q tile."""
    return config.num_q_stages * (config.tile_n + signature.head_dim_v_padded)


def tmem_columns_allocated(signature: KernelSignature, config: KernelConfig) -> int:
    """Columns the kernel asks for: a power of two from 32 (PTX ISA, tcgen05.alloc)."""
    return max(32, 1 << (tmem_columns(signature, config) - 1).bit_length())


def polynomial_room(config: KernelConfig) -> int:
    """Columns of a row that may take the polynomial: the fragments from the first to the last."""
    fragments = config.tile_n // FRAGMENT_COLUMNS - (not config.exp2_poly_last)
    return max(0, fragments - config.exp2_poly_start) * FRAGMENT_COLUMNS


def smem_buffers(signature: KernelSignature, config: KernelConfig) -> dict[str, int]:
    """Bytes of each shared buffer.

    K and V take turns in the slots of one ring. O has buffers of its own, or those of Q.
    """
    itemsize = signature.dtype.itemsize
    dims = signature.head_dim_padded, signature.head_dim_v_padded
    q_columns = max(dims) if config.o_aliases_q else dims[0]
    q_tile = config.tile_m * q_columns * itemsize
    o_tile = 0 if config.o_aliases_q else config.tile_m * dims[1] * itemsize
    slot = config.tile_n * max(dims) * itemsize // config.cta_group
    statistics = rows_per_cta(config) * STATISTICS_BYTES_PER_ROW
    return {
        "statistics and barriers": aligned(statistics + BARRIER_BYTES),
        "Q": aligned(config.num_q_stages * q_tile),
        "K and V": aligned(config.num_kv_stages * slot),
        "O": aligned(config.num_q_stages * o_tile),
    }
