"""From the tape of a kernel to what the SM has to issue, and what each step waits for.

ptxas has moved instructions within straight-line code before the SM sees them, so the order of the
PTX is kept only where it has to be: at branches and waits, and among instructions that others can
see. In between an instruction needs its operands, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fa4gen.emulator.decode import Program
from fa4gen.perf.trace.folding import LANES
from fa4gen.perf.trace.kinds import Kind, kinds_of, operand_bytes, reads_a_from_smem
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
    warps = tuple(_steps_of_warp(warp, tape.program, kinds) for warp in tape.warps)
    untimed: Counter[str] = Counter()
    for warp in tape.warps:
        untimed.update(kinds[at].opcode for at in warp.code if not kinds[at].timed)
    return ClusterSteps(warps, tape.contributions, tape.executed, dict(untimed))


def _steps_of_warp(tape: WarpTape, program: Program, kinds: tuple[Kind, ...]) -> WarpSteps:
    """The steps of a warp; what is folded hands its operands on."""
    makers: dict[int, tuple[int, ...]] = {}
    steps: list[Step] = []
    for position, code in enumerate(tape.code):
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
