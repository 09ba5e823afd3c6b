"""Hopper: cycles of one KV block of one CTA, pipe by pipe, and how far they overlap.

Notation: one block is ``tile_m`` query rows by ``tile_n`` keys; its ``tile_m * tile_n`` scores are
the elements. All figures are SM cycles for the whole CTA.
"""

from __future__ import annotations

from fa4gen.core.config import Exp2Placement, KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility.sm90_footprint import (
    BOOKKEEPING_REGS,
    ROWS_PER_WARPGROUP,
    accumulator_regs,
    num_consumer_warpgroups,
)
from fa4gen.hardware import Arch
from fa4gen.numerics.exp2_poly import LINE
from fa4gen.perf import calibration as cal
from fa4gen.perf.cost import L2_LATENCY_CYCLES, BlockCost, rescale_share

SLOTS_PER_ELEMENT = 3.5
"""Issue slots of an element besides its exponential: maximum, scale-and-subtract, sum, and half
a conversion (two elements a slot). Source: counted from the template."""

ALU_SLOTS_PER_ELEMENT = 1.5
"""Of these, the ones on the half-rate ALU: maximum and conversion."""

LAZY_SLOTS_SAVED_PER_ELEMENT = 0.5
"""Of both, what testing integer maxima saves: one instruction takes the maximum of three.
Source: counted from the template."""

E4M3_SLOTS_PER_ELEMENT = 0.25
"""Issue slots, on the ALU, that e4m3 adds with one buffer of P: joining two pairs in a word, which
with two buffers the conversion does by itself. Source: counted in the SASS of the kernels for
head_dim 64, 128 and 256."""

TURN_SLOTS_PER_BYTE = 7 * 32 / 512
"""Lane slots in which producer warps turn a byte of V over, in e4m3: ldmatrix, four prmt, an
address and stmatrix for 512 bytes. Source: counted in the SASS, as above."""

POLYNOMIAL_EXTRA_SLOTS = 5
"""Issue slots of a polynomial exponential besides one FMA per degree: round to integer (2),
fraction, shift, add to the exponent. Source: counted from the template."""

LINE_SLOTS = 2
"""The same of a line through each octave (degree 1): an FMA and a shift with an addition; that
which clamps scales as well. Source: as above."""

COMFORTABLE_BOOKKEEPING_REGS = BOOKKEEPING_REGS
"""Registers besides accumulators from which on nothing spills that is felt."""


def block_cost(signature: KernelSignature, config: KernelConfig, arch: Arch) -> BlockCost:
    """The cost of one KV block of one CTA in the steady state."""
    consumers = num_consumer_warpgroups(config)
    elements = config.tile_m * config.tile_n
    pipes = _pipes(signature, config, arch)
    softmax = _softmax(config, pipes, consumers)
    tensor = max(pipes["mma"], pipes["smem"], pipes["l2"])
    turns = config.pingpong and consumers > 1
    hiding = (min(consumers, 3), config.intra_warpgroup_overlap, turns)
    exposed = cal.HIDING_LEAK[hiding] * min(tensor, softmax)
    total = max(tensor, softmax) + exposed + _serial(signature, config, arch)
    total *= _spill_factor(signature, config, arch)
    return BlockCost(
        pipes=pipes,
        softmax=softmax,
        exposed_softmax=exposed,
        total=total + _stage_stall(config, arch, pipes, total),
        mask=elements * cal.MASK_SLOTS_PER_ELEMENT / arch.fma_lanes_per_clk_sm,
    )


def _softmax(config: KernelConfig, pipes: dict[str, float], consumers: int) -> float:
    """Cycles of the softmax of all consumers, alone on the SM."""
    issue = pipes["issue"] / cal.ISSUE_EFFICIENCY
    leak = cal.PIPE_LEAK
    fixed = cal.SOFTMAX_LATENCY_CYCLES[min(consumers, 3)]
    if config.exp2_poly_fraction:
        fixed += cal.POLYNOMIAL_CYCLES
        if config.exp2_poly_placement is not Exp2Placement.SPREAD:
            leak += cal.PLACEMENT_LEAK
    return max(pipes["mufu"], issue, pipes["alu"]) + leak * min(pipes["mufu"], issue) + fixed


def _serial(signature: KernelSignature, config: KernelConfig, arch: Arch) -> float:
    """Cycles of a block that nothing hides: barriers, and O between two of its PV products."""
    consumers = num_consumer_warpgroups(config)
    cycles = cal.SYNC_CYCLES_PER_CONSUMER * consumers
    rescaled = config.tile_m * signature.head_dim_v_padded / arch.fma_lanes_per_clk_sm
    share = rescale_share(config.rescale_threshold_log2)
    cycles += cal.RESCALE_EXPOSURE * rescaled * share
    if config.lazy_row_max:
        cycles += cal.LAZY_VOTE_CYCLES
    elif config.rescale_threshold_log2:
        cycles += cal.VOTE_CYCLES
    if not config.p_in_registers:
        cycles += cal.SHARED_P_CYCLES * consumers
    return cycles


def _pipes(signature: KernelSignature, config: KernelConfig, arch: Arch) -> dict[str, float]:
    tile_m, tile_n = config.tile_m, config.tile_n
    dims = signature.head_dim_padded + signature.head_dim_v_padded
    itemsize = signature.dtype.itemsize
    elements = tile_m * tile_n
    fraction = config.exp2_poly_fraction
    degree = config.exp2_poly_degree
    polynomial_slots = LINE_SLOTS if degree == LINE else degree + POLYNOMIAL_EXTRA_SLOTS
    polynomial_alu_slots = 1.0 if degree == LINE else 2.0
    saved = LAZY_SLOTS_SAVED_PER_ELEMENT if config.lazy_row_max else 0.0
    slots = elements * (SLOTS_PER_ELEMENT - saved + (1.0 - fraction) + fraction * polynomial_slots)
    alu_slots = elements * (ALU_SLOTS_PER_ELEMENT - saved + polynomial_alu_slots * fraction)
    kv_bytes = tile_n * dims * itemsize
    turned_bytes = 0
    if signature.dtype is DType.E4M3:
        turned_bytes = tile_n * signature.head_dim_v_padded
        joins = elements * E4M3_SLOTS_PER_ELEMENT if config.p_buffers == 1 else 0.0
        slots += joins + turned_bytes * TURN_SLOTS_PER_BYTE
        alu_slots += joins
    # Every 64-row MMA reads its own rows of Q (and of P) and all of K and V once more.
    a_bytes = ROWS_PER_WARPGROUP * signature.head_dim_padded * itemsize
    p_bytes = 0 if config.p_in_registers else 2 * ROWS_PER_WARPGROUP * tile_n * itemsize
    smem_bytes = (a_bytes + kv_bytes + p_bytes) * num_consumer_warpgroups(config) + kv_bytes
    smem_bytes += 2 * turned_bytes
    mma_rate = arch.mma_flops_per_clk_sm[signature.dtype] * cal.MMA_EFFICIENCY
    return {
        "mma": 2.0 * elements * dims / mma_rate,
        "mufu": (elements * (1.0 - fraction) + tile_m) / arch.mufu_per_clk_sm,
        "issue": slots / arch.fma_lanes_per_clk_sm,
        "alu": alu_slots / arch.alu_lanes_per_clk_sm,
        "smem": smem_bytes / arch.smem_bytes_per_clk_sm,
        "l2": kv_bytes / arch.l2_bytes_per_clk_sm,
    }


def _stage_stall(config: KernelConfig, arch: Arch, pipes: dict[str, float], block: float) -> float:
    """Cycles a block waits for memory because the ring is short.

    A slot is free again about one block before it is needed for each stage beyond the first;
    within that time its load must come in.
    """
    load = L2_LATENCY_CYCLES + pipes["l2"] / 2
    slack = (config.num_kv_stages - 0.5) * block
    return max(0.0, load - slack)


def _spill_factor(signature: KernelSignature, config: KernelConfig, arch: Arch) -> float:
    wanted = accumulator_regs(signature, config) + COMFORTABLE_BOOKKEEPING_REGS
    limit = min(config.regs_consumer, arch.max_regs_per_thread)
    return 1.0 + cal.SPILL_SLOWDOWN * max(0.0, wanted / limit - 1.0)
