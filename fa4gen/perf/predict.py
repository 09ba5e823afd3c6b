"""Expected time of one kernel launch, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.feasibility import rows_per_cta
from fa4gen.hardware import Arch, Sku
from fa4gen.perf import calibration as cal
from fa4gen.perf import sm100_calibration
from fa4gen.perf.block import block_cost
from fa4gen.perf.cost import L2_LATENCY_CYCLES, BlockCost
from fa4gen.perf.memory import dram_us, split_us, stream_us
from fa4gen.perf.work import Work, count_work

MODEL_VERSION = "6"
"""Stored with every modelled number; raise it with any change of a prediction."""

LATENCY_BOUND_SHARE = 0.35
"""Where even the busiest pipe works less than this share of the time, latency is the bound."""

PIPES = ("mma", "mufu", "fma", "issue", "alu", "smem", "l2", "dram")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model expects of one kernel launch."""

    time_us: float
    breakdown: dict[str, float]
    """Cycles. How long each pipe that the model of the arch has is busy (``mma mufu fma issue alu
    smem l2 dram``), mean over the SMs; ``block`` and ``tile_overhead``: one KV block and one tile's
    start and end; ``total``: all."""
    bound_by: str
    """The busiest pipe, or ``latency`` where none is busy for long."""
    clock_mhz: float
    """SM clock assumed."""


def predict(
    problem: AttentionProblem,
    config: KernelConfig,
    sku: Sku,
    clock_mhz: float | None = None,
    *,
    skips_blocks: bool | None = None,
) -> Prediction:
    """Expected time of ``problem`` with ``config`` on ``sku``.

    Args:
        problem: what is asked.
        config: which knobs; feasibility is not looked at.
        sku: the machine.
        clock_mhz: SM clock; by default the one the power cap leaves this kernel.
        skips_blocks: as of :func:`fa4gen.perf.work.count_work`, by default today's templates.

    Deterministic and free of state. Never faster than the tensor cores' peak at that clock.
    """
    signature = problem.signature
    block = block_cost(signature, config, sku.arch)
    work = count_work(problem, config, sku.arch, skips_blocks=skips_blocks)
    overhead = _tile_overhead(signature, config, block, sku.arch)
    overhead += work.masked_blocks_per_tile * block.mask
    # A cluster of two CTAs fills two SMs.
    places = sku.sm_count // config.cta_group
    compute = _makespan(work, config, block.total, overhead, places)
    share = work.num_run / places
    busy = work.filled_rows * share * block.pipes["mma"] / compute
    clock = clock_mhz or clock_under_load(sku, busy)
    num_tiles = work.num_tiles
    streamed_us = stream_us(problem, config, sku, num_tiles)
    streamed_us += cal.LAST_BLOCK_SHARE * block.total / clock
    time_us = cal.LAUNCH_US + max(compute / clock, streamed_us)
    time_us += split_us(problem, config, sku, num_tiles, clock)
    breakdown = {pipe: cycles * share for pipe, cycles in block.pipes.items()}
    breakdown["l2"] = block.pipes["l2"] * work.num_loaded / places
    breakdown["dram"] = dram_us(problem, sku) * clock
    busiest = max((pipe for pipe in PIPES if pipe in breakdown), key=breakdown.__getitem__)
    total = time_us * clock
    breakdown |= {"block": block.total, "tile_overhead": overhead, "total": total}
    idle = breakdown[busiest] < LATENCY_BOUND_SHARE * total
    return Prediction(time_us, breakdown, "latency" if idle else busiest, clock)


def _tile_overhead(
    signature: KernelSignature, config: KernelConfig, block: BlockCost, arch: Arch
) -> float:
    """Cycles of a tile besides its blocks: start, first loads, unhidden first softmax, store."""
    itemsize = signature.dtype.itemsize
    rows = rows_per_cta(config, arch)
    q_bytes = rows * signature.head_dim_padded * itemsize
    k_bytes = config.tile_n * signature.head_dim_padded * itemsize / config.cta_group
    out_bytes = rows * signature.head_dim_v_padded * signature.dtype.out.itemsize
    goes_on = config.scheduler is not Scheduler.LPT
    if goes_on:  # the producer fetches K and V of the next tile while this one is stored
        start = cal.NEXT_TILE_CYCLES + q_bytes / arch.l2_bytes_per_clk_sm
    else:
        start = cal.CTA_START_CYCLES + L2_LATENCY_CYCLES
        start += (q_bytes + k_bytes) / arch.l2_bytes_per_clk_sm
    shorter = min(block.softmax, max(block.pipes["mma"], block.pipes["smem"], block.pipes["l2"]))
    fill = max(0.0, shorter - block.exposed_softmax)
    store = cal.STORE_CYCLES + out_bytes / arch.l2_bytes_per_clk_sm
    store += out_bytes / arch.smem_bytes_per_clk_sm
    if config.cta_group > 1:
        start += sm100_calibration.CLUSTER_TILE_CYCLES
    if config.scheduler is Scheduler.CLC:
        start += sm100_calibration.CLC_CYCLES
    shown = cal.PREFETCHED_SHARE if config.q_prefetch else 1.0
    return shown * (start + store) + fill


def clock_under_load(sku: Sku, mma_busy: float) -> float:
    """The SM clock under a load that keeps the tensor cores busy for this share of the time."""
    clock = sku.sustained_clock_mhz * (cal.COOL_CLOCK - cal.CLOCK_DROOP * mma_busy**2)
    return min(clock, sku.max_clock_mhz)


def _makespan(
    work: Work, config: KernelConfig, block: float, overhead: float, places: int
) -> float:
    """Cycles until the last SM is done; one CTA, or cluster, fills a place.

    Tiles that differ go longest first to the place that is free, or in pairs with a fixed walk. A
    dynamic CTA asks for its next tile long before it needs one: that costs nothing here.
    """
    lengths = work.blocks_per_tile
    if work.blocks_per_pair and config.scheduler is Scheduler.PERSISTENT:
        tiles, blocks = work.heaviest_walk(places)
        return tiles * overhead + blocks * block
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest or not work.blocks_per_pair:
        # Without a mask the tiles of a head stand together: a wave has as many shorter ones as any.
        waves = -(-work.num_tiles // places)
        mean = work.num_blocks / work.num_tiles if waves > 1 else longest
        return waves * (overhead + mean * block)
    if work.num_tiles <= places:
        return longest * block + overhead
    mean = (work.num_tiles * overhead + work.num_blocks * block) / places
    # Short tiles fill the gaps, so SMs end part of a shortest tile apart.
    return max(longest * block + overhead, mean + cal.LPT_TAIL * (overhead + shortest * block))
