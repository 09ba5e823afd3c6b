"""What a launch waits for memory: K and V from DRAM, and results of splits through the L2."""

from __future__ import annotations

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku
from fa4gen.perf import calibration as cal

DRAM_EFFICIENCY = 0.88
"""Share of the stated DRAM bandwidth that reads reach.

Source: measured on an H200, 2026-11-20: 4.15 of 4.8 TB/s for decode, about 4.3 for a copy.
"""


def dram_bytes(problem: AttentionProblem) -> int:
    """Bytes that must cross the DRAM bus: Q, K, V and O once, and the fp32 LSE."""
    rows_q = problem.batch * problem.seqlen_q * problem.num_heads_q
    rows_k = problem.batch * problem.seqlen_k * problem.num_heads_kv
    read = rows_q * problem.head_dim + rows_k * (problem.head_dim + problem.head_dim_v)
    written = rows_q * problem.head_dim_v * problem.dtype.out.itemsize
    return read * problem.dtype.itemsize + written + rows_q * 4


def dram_us(problem: AttentionProblem, sku: Sku) -> float:
    """Least time in which DRAM moves that much."""
    return dram_bytes(problem) / (sku.dram_gbps * DRAM_EFFICIENCY) * 1e-3


def stream_us(problem: AttentionProblem, config: KernelConfig, sku: Sku, num_tiles: int) -> float:
    """Time in which the CTAs of a launch get their data, if they do not have to wait for room.

    No more is on its way than fits in the rings of K and V, for a trip to DRAM and back: few CTAs
    with short rings do not keep DRAM busy (Little's law). Hopper's rings only: on Blackwell nothing
    of the kind was measured.
    """
    busy = dram_us(problem, sku)
    if sku.arch.family != "sm90":
        return busy
    block = config.tile_n * (problem.head_dim + problem.head_dim_v) * problem.dtype.itemsize
    in_flight = min(num_tiles, sku.sm_count) * config.num_kv_stages * block
    return max(busy, dram_bytes(problem) * cal.RING_TRIP_US / in_flight)


def split_us(
    problem: AttentionProblem, config: KernelConfig, sku: Sku, num_tiles: int, clock_mhz: float
) -> float:
    """What splitting the keys of a tile costs: each CTA stores float32 O and LSE, and the second
    kernel follows. The results stay in the L2.

    Args:
        num_tiles: of the launch, splits counted.
    """
    if config.num_splits == 1:
        return 0.0
    rows = problem.batch * problem.seqlen_q * problem.num_heads_q * config.num_splits
    of_cta = rows * (problem.head_dim_v + 1) * 4 / min(num_tiles, sku.sm_count)
    return cal.COMBINE_US + of_cta / (cal.SPLIT_STORE_BYTES_PER_CLK_SM * clock_mhz)
