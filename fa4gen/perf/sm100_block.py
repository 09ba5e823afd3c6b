"""Blackwell: cycles of one KV block of one CTA, pipe by pipe, and how far they overlap.

Notation: one block is ``num_q_stages * tile_m`` query rows by ``tile_n`` keys; its scores are the
elements. All figures are SM cycles for the whole CTA.
"""

from __future__ import annotations

from fa4gen.core.config import KernelConfig, MmaOrder
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility.sm100_footprint import rows_per_cta
from fa4gen.hardware import Arch
from fa4gen.numerics.exp2_poly import LINE
from fa4gen.perf import sm100_calibration as cal
from fa4gen.perf.cost import L2_LATENCY_CYCLES, BlockCost, rescale_share

SLOTS_PER_PAIR = 3.5
"""Issue slots of two columns besides their exponentials: three-input maximum, packed
scale-and-subtract and sum, conversion. Source: counted from the template."""

ALU_SLOTS_PER_PAIR = 2.0
"""Of these, the ones on the half-rate ALU: maximum and conversion."""

SLOTS_PER_ROW = 60.0
"""Issue slots of a row and block besides: loads, stores, barriers, maximum. Source: as above."""

POLYNOMIAL_EXTRA_SLOTS = 9.0
"""Issue slots of two polynomial exponentials besides one packed FMA per degree: two clamps, round
to integer, fraction (2), two shifts and two adds. Source: counted from the template."""

LINE_EXTRA_SLOTS = 4.0
"""The same of two exponentials by a line (degree 1): two clamps, two shifts that add. Source: as
above."""

MASK_SLOTS_PER_ELEMENT = 1.0
"""A select by a bit of a mask. Source: counted from the template."""


def block_cost(signature: KernelSignature, config: KernelConfig, arch: Arch) -> BlockCost:
    """The cost of one KV block of one CTA in the steady state."""
    elements = rows_per_cta(config) * config.tile_n
    pipes = _pipes(signature, config, arch)
    issue = pipes["issue"] / cal.ISSUE_EFFICIENCY
    pipe_leak = cal.PIPE_LEAK
    if config.exp2_poly_fraction and config.exp2_poly_last:
        pipe_leak += cal.LAST_FRAGMENT_LEAK
    longest = max(pipes["mufu"], pipes["fma"], pipes["alu"], issue)
    softmax = longest + pipe_leak * min(pipes["mufu"], issue)
    tensor = max(pipes["mma"], pipes["smem"], pipes["l2"])
    exposed = _hiding_leak(config) * min(tensor, softmax)
    total = max(tensor, softmax) + exposed + _serial(signature, config, arch)
    return BlockCost(
        pipes=pipes,
        softmax=softmax,
        exposed_softmax=exposed,
        total=total + _stage_stall(config, pipes, total),
        mask=elements * MASK_SLOTS_PER_ELEMENT / arch.fma_lanes_per_clk_sm,
    )


def _pipes(signature: KernelSignature, config: KernelConfig, arch: Arch) -> dict[str, float]:
    rows, tile_n = rows_per_cta(config), config.tile_n
    head_dim, head_dim_v = signature.head_dim_padded, signature.head_dim_v_padded
    itemsize = signature.dtype.itemsize
    elements, pairs = rows * tile_n, rows * tile_n / 2
    fraction = config.exp2_poly_fraction
    degree, line = config.exp2_poly_degree, config.exp2_poly_degree == LINE
    polynomial = degree + (LINE_EXTRA_SLOTS if line else POLYNOMIAL_EXTRA_SLOTS)
    fixed = SLOTS_PER_PAIR - (0.5 if config.fused_row_max else 0.0)
    slots = pairs * (fixed + 2 * (1.0 - fraction) + fraction * polynomial) + rows * SLOTS_PER_ROW
    alu = pairs * (ALU_SLOTS_PER_PAIR - (0.5 if config.fused_row_max else 0.0))
    alu += pairs * fraction * (4 if line else 6)
    # A packed FMA is two lanes' work.
    fma = elements * (2.0 + fraction * (degree + (0 if line else 3)))
    kv_bytes = tile_n * (head_dim + head_dim_v) * itemsize
    # Each 128-row product reads its Q once and all of K and V; a pair of CTAs reads half of both.
    q_bytes = config.tile_m * head_dim * itemsize
    read = config.num_q_stages * (q_bytes + kv_bytes / config.cta_group)
    loaded = kv_bytes / config.cta_group
    mma_rate = arch.mma_flops_per_clk_sm[signature.dtype] * cal.MMA_EFFICIENCY
    return {
        "mma": 2.0 * elements * (head_dim + head_dim_v) / mma_rate,
        "mufu": (elements * (1.0 - fraction) + rows) / arch.mufu_per_clk_sm,
        "fma": fma / arch.fma_lanes_per_clk_sm,
        "issue": slots / arch.fma_lanes_per_clk_sm,
        "alu": alu / arch.alu_lanes_per_clk_sm,
        "smem": (read + loaded) / arch.smem_bytes_per_clk_sm,
        "l2": loaded / arch.l2_bytes_per_clk_sm,
    }


def _hiding_leak(config: KernelConfig) -> float:
    leak = cal.HIDING_LEAK[config.num_q_stages]
    leak += cal.LATE_P_LEAK * (config.p_publish_columns / config.tile_n - 0.5)
    if config.mma_order is MmaOrder.GROUPED:
        leak += cal.GROUPED_LEAK
    return leak


def _serial(signature: KernelSignature, config: KernelConfig, arch: Arch) -> float:
    """Cycles of a block that nothing hides: barriers, and O between two of its PV products."""
    columns = signature.head_dim_v_padded
    share = rescale_share(config.rescale_threshold_log2) if config.rescale_branch else 1.0
    slabs = columns / config.correction_columns * cal.SLAB_CYCLES
    multiplied = rows_per_cta(config) * columns / 2 / arch.fma_lanes_per_clk_sm
    cycles = cal.RESCALE_EXPOSURE * share * max(slabs, multiplied) / config.num_q_stages
    if config.rescale_branch:
        cycles += cal.BRANCH_CYCLES
    else:  # nothing waits for a multiplication by 1 but the next PV of the same Q tile
        cycles *= 0.25
    if config.softmax_handover:
        cycles += cal.HANDOVER_CYCLES
    return cycles


def _stage_stall(config: KernelConfig, pipes: dict[str, float], block: float) -> float:
    """Cycles a block waits for memory because the ring is short; it takes two slots of it."""
    load = L2_LATENCY_CYCLES + pipes["l2"] / 2
    slack = (config.num_kv_stages - 1) / 2 * block
    return max(0.0, load - slack)
