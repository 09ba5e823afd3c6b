"""From the tape of a kernel to what the SM has to issue, and what each step waits for.

ptxas has moved instructions within straight-line code before the SM sees them. Where its order is
known, the machine's instructions stand for those of the PTX. Elsewhere the order of the PTX is kept
only where it has to be: at branches and waits, and among instructions that others can see. In
between an instruction needs its operands, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fa4gen.emulator.decode import Program
from fa4gen.perf.trace.folding import LANES
from fa4gen.perf.trace.kinds import (
    Kind,
    kinds_of,
    machine_kind,
    operand_bytes,
    reads_a_from_smem,
)
from fa4gen.perf.trace.machine_code import MachineCode
from fa4gen.perf.trace.tape import Job, Tape, WarpTape


@dataclass(frozen=True, slots=True)
class Begun:
    """A copy, an MMA or a commit that a step starts."""

    opcode: str
    size: tuple[int, ...]
    """``(m, n, k)`` of an MMA, ``(bytes,)`` of a copy, else empty."""
    signals: tuple[int, ...]
    """Phases that hear of its completion."""
    a_in_smem: bool = True
    """Of an MMA: whether A comes from shared memory, as B does."""
    operand_bytes: float = 2.0
    """Of an MMA: of one element of A or B."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction that a warp has executed."""

    kind: Kind
    operands: tuple[int, ...]
    """Steps of the same warp whose results it reads."""
    waits: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    jobs: tuple[Begun, ...] = ()


@dataclass(frozen=True, slots=True)
class WarpSteps:
    """The steps of one warp."""

    cta: int
    index: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ClusterSteps:
    """A tape made ready for replays: plain values, which can be stored."""

    warps: tuple[WarpSteps, ...]
    contributions: tuple[int, ...]
    """How many signals complete each phase."""
    executed: int
    """Warp instructions of the tape."""
    untimed: Mapping[str, int] = field(default_factory=dict)
    """Opcodes that the model has no timing for, and how many of them were executed."""

    @property
    def num_ctas(self) -> int:
        """CTAs of the cluster."""
        return 1 + max(warp.cta for warp in self.warps)


def steps_of(tape: Tape, code: MachineCode | None = None) -> ClusterSteps:
    """The steps of a tape.

    Args:
        tape: What was recorded.
        code: What ptxas made of the kernel, where that is known.
    """
    kinds = kinds_of(tape.program, code)
    loops = machine_steps(tape.program, code)
    warps = tuple(_steps_of_warp(warp, tape.program, kinds, loops) for warp in tape.warps)
    untimed: Counter[str] = Counter()
    for warp in tape.warps:
        untimed.update(kinds[at].opcode for at in warp.code if not kinds[at].timed)
    return ClusterSteps(warps, tape.contributions, tape.executed, dict(untimed))


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop in the machine's order, ready to stand for any of its turns."""

    end: int
    steps: tuple[Step, ...]
    events: Mapping[int, int]
    """By index of the PTX instruction: the step that stands for it."""
    waits: frozenset[int]
    """Those of them that every turn has to come to."""


def machine_steps(program: Program, code: MachineCode | None) -> dict[int, _Loop]:
    """By index of its first PTX instruction: the loops whose order is known."""
    found = {}
    for loop in code.loops if code is not None else ():
        steps = tuple(Step(machine_kind(program, each), ()) for each in loop.instructions)
        events = {each.event: at for at, each in enumerate(loop.instructions) if each.event >= 0}
        waits = frozenset(event for event, at in events.items() if steps[at].kind.closes)
        found[loop.start] = _Loop(loop.end, steps, events, waits)
    return found


def _turn(tape: WarpTape, loop: _Loop, begin: int) -> tuple[int, list[Step]] | None:
    """One turn of a loop: where it ends on the tape, and the machine's steps.

    ``None`` where the warp did not go round as the machine's order has it.
    """
    first = tape.code[begin]
    end = begin + 1
    while end < len(tape.code) and first < tape.code[end] <= loop.end:
        end += 1
    steps, seen = list(loop.steps), set()
    for position in range(begin, end):
        code = tape.code[position]
        seen.add(code)
        waits, signals = tape.waits.get(position, ()), tape.signals.get(position, ())
        jobs = tape.jobs.get(position, [])
        if not (waits or signals or jobs):
            continue
        if code not in loop.events:
            return None
        at = loop.events[code]
        old = steps[at]
        steps[at] = Step(
            old.kind, (), (*old.waits, *waits), (*old.signals, *signals), (*old.jobs, *_begun(jobs))
        )
    return (end, steps) if seen >= loop.waits and tape.code[end - 1] == loop.end else None


def _steps_of_warp(
    tape: WarpTape,
    program: Program,
    kinds: tuple[Kind, ...],
    loops: Mapping[int, _Loop],
) -> WarpSteps:
    """The steps of a warp; what is folded hands its operands on."""
    makers: dict[int, tuple[int, ...]] = {}
    steps: list[Step] = []
    position = 0
    while position < len(tape.code):
        code = tape.code[position]
        turn = _turn(tape, loops[code], position) if code in loops else None
        if turn is not None:
            end, ordered = turn
            steps += ordered
            made = {slot for each in set(tape.code[position:end]) for slot in program.writes[each]}
            makers |= dict.fromkeys(made, (len(steps) - 1,))
            position = end
            continue
        kind = kinds[code]
        operands = tuple({each for slot in program.reads[code] for each in makers.get(slot, ())})
        if kind.folded:
            results = operands
        else:
            results = (len(steps),)
            steps.append(
                Step(
                    kind,
                    operands,
                    tuple(tape.waits.get(position, ())),
                    tuple(tape.signals.get(position, ())),
                    _begun(tape.jobs.get(position, [])),
                )
            )
        for slot in program.writes[code]:
            # A guarded instruction leaves what was there in some lanes.
            guarded = program.entry.instructions[code].guard is not None
            makers[slot] = (*makers.get(slot, ()), *results) if guarded else results
        position += 1
    return WarpSteps(tape.cta, tape.index, tuple(steps))


def _begun(jobs: list[Job]) -> tuple[Begun, ...]:
    """Copies that all lanes of a warp ask for are one instruction of the uniform datapath."""
    if len(jobs) == LANES and len({(job.opcode, job.size) for job in jobs}) == 1:
        signals = [phase for job in jobs for phase in job.signals]
        jobs = [Job(jobs[0].instruction, jobs[0].size, signals)]
    return tuple(
        Begun(
            job.opcode,
            job.size,
            tuple(job.signals),
            reads_a_from_smem(job.instruction),
            operand_bytes(job.opcode),
        )
        for job in jobs
    )
