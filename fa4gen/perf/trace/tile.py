"""What a query tile takes: replays of a few KV blocks, extended to any number of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.emulator.decode import Program
from fa4gen.feasibility import rows_per_cta, rows_per_query
from fa4gen.hardware import Arch
from fa4gen.perf.trace.dataflow import ClusterSteps, steps_of
from fa4gen.perf.trace.machine_code import MachineCode
from fa4gen.perf.trace.replay import replay
from fa4gen.perf.trace.tape import Tape
from fa4gen.perf.trace.timing import Timing
from fa4gen.perf.work import count_work

Record = Callable[[AttentionProblem, int], list[Tape]]
"""``record(problem, num_sms)``: see :func:`fa4gen.perf.trace.tape.record`."""
ReadCode = Callable[[Program], MachineCode]
"""What ptxas made of a kernel: see :func:`fa4gen.perf.trace.refine.machine_code_of`."""

STEADY_BLOCKS = 4
"""Blocks by which the longer tape differs: enough to go round the ring of K and V."""
LEAST_BLOCKS = 8
"""Of the shorter tape: the first blocks and the last have less going on beside them, and two Q
tiles take some blocks to find the order in which they alternate. After 8 a block of
FlashAttention-4's kernels takes as long as any later one, to 0.3 %; after 4, up to 13 % less."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What one CTA, or cluster, did."""

    steps: ClusterSteps
    tiles: int
    """Query tiles that it took."""
    blocks: float
    """KV blocks that all of them take the time of, see :class:`fa4gen.perf.work.Work`."""


@dataclass(frozen=True, slots=True)
class TileTapes:
    """Walks over the same tiles with fewer and more KV blocks, and over twice as many tiles."""

    short: Walk
    long: Walk
    again: Walk | None
    """``None`` where a CTA takes one tile only."""
    counts: str = ""
    """For people: where the counts of instructions come from."""
    stall: float = 0.0
    """Mean stall of its machine instructions; 0 where it is not known."""

    @property
    def walks(self) -> tuple[Walk, ...]:
        """Those that there are."""
        return tuple(walk for walk in (self.short, self.long, self.again) if walk is not None)

    @property
    def executed(self) -> int:
        """Warp instructions of all tapes."""
        return sum(walk.steps.executed for walk in self.walks)

    @property
    def untimed(self) -> dict[str, int]:
        """Opcodes without a timing, and how many of them the longer tape has."""
        return dict(self.long.steps.untimed)


@dataclass(frozen=True, slots=True)
class TileTiming:
    """Cycles of a query tile: ``first + n * block`` of the first of a CTA with ``n`` KV blocks."""

    block: float
    """From one KV block to the next in the steady state, without a mask."""
    first: float
    """Of the first tile of a CTA besides its blocks: loads, the first and last softmax, masked
    blocks, the store of O."""
    next: float
    """The same of a later tile; ``first`` where a CTA takes one tile only."""
    busy: Mapping[str, float]
    """Cycles that each pipe is in use, per block."""


def trace_tiles(
    record: Record,
    signature: KernelSignature,
    config: KernelConfig,
    arch: Arch,
    read_code: ReadCode | None = None,
) -> TileTapes:
    """Record the tapes of a kernel that :func:`time_tile` needs.

    Args:
        record: How to run the kernel in the emulator.
        signature: Of the kernel.
        config: What decides its tiles; of another's kernel, one of ours with the same tiles.
        arch: The architecture.
        read_code: How to count its machine instructions; by default the PTX's count.
    """
    rows = rows_per_cta(config, arch) * config.cta_group
    group = signature.qhead_per_kvhead
    queries = max(1, rows // rows_per_query(signature, config))
    goes_on = config.scheduler is not Scheduler.LPT
    if goes_on and signature.causal and config.scheduler is not Scheduler.DYNAMIC:
        queries *= 2  # a long tile and a short one belong together
    diagonal = math.ceil(queries / config.tile_n) if signature.causal else 0
    least = max(LEAST_BLOCKS, diagonal + 1)

    code: MachineCode | None = None

    def walk(blocks: int, heads: int = 1) -> Walk | None:
        nonlocal code
        problem = AttentionProblem(
            batch=1,
            seqlen_q=queries,
            seqlen_k=blocks * config.tile_n,
            num_heads_q=group * heads,
            num_heads_kv=heads,
            head_dim=signature.head_dim,
            head_dim_v=signature.head_dim_v,
            dtype=signature.dtype,
            causal=signature.causal,
        )
        tapes = record(problem, config.cta_group)
        if code is None and read_code is not None:
            code = read_code(tapes[0].program)
        steps = steps_of(tapes[0], code)
        work = count_work(problem, config, arch)
        if len(tapes) == 1:
            return Walk(steps, work.num_tiles, work.num_blocks)
        # Every CTA has a tile of its own: one of them is enough.
        return None if heads > 1 else Walk(steps, 1, work.num_blocks / len(tapes))

    short, long = walk(least), walk(least + STEADY_BLOCKS)
    assert short is not None
    assert long is not None  # of one head there always is one
    again = walk(least, heads=2) if goes_on else None
    if code is None:
        return TileTapes(short, long, again)
    return TileTapes(short, long, again, code.note, code.stall)


def time_tile(tapes: TileTapes, timing: Timing) -> TileTiming:
    """Replay the tapes of a kernel.

    Raises:
        EvaluationError: a tape is cut off.
    """
    short, long = tapes.short, tapes.long
    timing = replace(timing, stall=tapes.stall or timing.stall)
    few, many = replay(short.steps, timing), replay(long.steps, timing)
    blocks = long.blocks - short.blocks
    block = (many.cycles - few.cycles) / blocks
    overhead = few.cycles + timing.cta_start - short.blocks * block
    if tapes.again is None:
        first = following = overhead / short.tiles
    else:
        again = tapes.again
        more = replay(again.steps, timing).cycles - few.cycles
        following = (more - (again.blocks - short.blocks) * block) / (again.tiles - short.tiles)
        first = overhead - (short.tiles - 1) * following
    busy = {
        name: (many.busy[name] - few.busy.get(name, 0.0)) / blocks for name in sorted(many.busy)
    }
    return TileTiming(block, max(0.0, first), max(0.0, following), busy)
