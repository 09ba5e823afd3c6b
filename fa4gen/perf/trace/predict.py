"""The time of a launch from what a tile takes: tiles over the grid, in the scheduler's order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku
from fa4gen.perf import calibration as cal
from fa4gen.perf.memory import dram_us
from fa4gen.perf.predict import LATENCY_BOUND_SHARE, Prediction, clock_under_load
from fa4gen.perf.trace.tile import TileTapes, TileTiming
from fa4gen.perf.work import Work, count_work

TRACE_VERSION = "4"
"""Stored with every number of this model; raise it with any change of a prediction."""

NOT_MODELLED = (
    "hits and misses of the L2 (a load takes as long as one that hits)",
    "conflicts of shared-memory banks and of register banks",
    "misses of the instruction cache",
    "the order in which ptxas put instructions elsewhere than in loops without branches",
)
"""What every replay leaves out."""


def left_out(tapes: TileTapes) -> tuple[str, ...]:
    """What the replay of a kernel leaves out: opcodes without a timing, then what all leave out."""
    rows = sorted(tapes.untimed.items(), key=lambda row: (-row[1], row[0]))
    untimed = [
        f"{opcode}: no timing, taken for one issue slot ({count} executed)"
        for opcode, count in rows
    ]
    counts = [tapes.counts] if tapes.counts else []
    if tapes.stall:
        counts = [f"what ptxas made of code outside these loops ({tapes.counts})"]
    return (*untimed, *counts, *NOT_MODELLED)


def predict_traced(
    problem: AttentionProblem,
    config: KernelConfig,
    sku: Sku,
    tile: TileTiming,
    clock_mhz: float | None = None,
) -> Prediction:
    """Expected time of ``problem`` by a kernel whose tiles take ``tile``.

    Args:
        problem: what is asked.
        config: which tiles, in which order.
        sku: the machine.
        tile: from :func:`fa4gen.perf.trace.tile.time_tile`.
        clock_mhz: SM clock; by default the one the power cap leaves this kernel.
    """
    work = count_work(problem, config, sku.arch)
    places = sku.sm_count // config.cta_group
    cycles = _makespan(work, config, tile, places)
    share = work.num_run / places
    busy = {name: each * share for name, each in tile.busy.items()}
    clock = clock_mhz or clock_under_load(sku, work.filled_rows * busy.get("tensor", 0.0) / cycles)
    moved_us = dram_us(problem, sku)
    time_us = cal.LAUNCH_US + max(cycles / clock, moved_us)
    breakdown = {**busy, "dram": moved_us * clock}
    busiest = max(breakdown, key=breakdown.__getitem__)
    total = time_us * clock
    idle = breakdown[busiest] < LATENCY_BOUND_SHARE * total
    breakdown |= {"block": tile.block, "tile_overhead": tile.first, "total": total}
    return Prediction(time_us, breakdown, "latency" if idle else busiest, clock)


def _makespan(work: Work, config: KernelConfig, tile: TileTiming, places: int) -> float:
    """Cycles until the last SM is done.

    A static persistent CTA takes every ``places``-th tile; otherwise the SM that is free first
    takes the next tile, the longest first.
    """
    lengths = work.blocks_per_tile
    if config.scheduler is Scheduler.PERSISTENT and work.blocks_per_pair:
        tiles, blocks = work.heaviest_walk(places)
        return tile.first + (tiles - 1) * tile.next + blocks * tile.block
    if min(lengths) == max(lengths) or not work.blocks_per_pair:
        tiles = -(-work.num_tiles // places)
        mean = work.num_blocks / work.num_tiles if tiles > 1 else max(lengths)
        return tile.first + (tiles - 1) * tile.next + tiles * mean * tile.block
    # All groups have the same tiles: the longest of each, then the next of each, ...
    order = (length for length in lengths for _ in range(work.num_groups))
    return hand_out(order, tile, places)


def hand_out(lengths: Iterable[float], tile: TileTiming, places: int) -> float:
    """Cycles until the last SM is done, if the one that is free first takes the next tile.

    Args:
        lengths: KV blocks of each tile, in the order in which tiles are handed out.
        tile: what they take.
        places: SMs, or pairs of them.
    """
    free = [(0.0, place) for place in range(places)]
    start = [tile.first] * places
    last = 0.0
    for length in lengths:
        now, place = free[0]
        end = now + start[place] + length * tile.block
        start[place] = tile.next
        heapq.heapreplace(free, (end, place))
        last = max(last, end)
    return last
