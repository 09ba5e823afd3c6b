"""What the warps of a kernel did and waited for: recorded in the emulator, to be replayed.

A tape holds no times. It has the instructions of each warp in the order they were executed, which
phase of which barrier each of them signals or waits for, and the copies and MMAs it starts. In a
kernel without races that does not depend on the order in which the emulator ran it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fa4gen.core.errors import EvaluationError
from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.decode import Program
from fa4gen.emulator.emulate import Options
from fa4gen.emulator.findings import Place
from fa4gen.emulator.launch import CompiledHost
from fa4gen.emulator.machine import Cluster, GridShape, Observer, PhaseKey
from fa4gen.emulator.session import run
from fa4gen.emulator.warp import Warp
from fa4gen.ptx.ir import Instruction

SYNCHRONOUS = ("tcgen05.ld", "tcgen05.st")
"""What the emulator lets complete late, and a warp waits for by ``tcgen05.wait``."""


@dataclass(slots=True)
class Job:
    """A copy, an MMA or a commit, which goes on beside the warp that issued it."""

    instruction: Instruction
    size: tuple[int, ...]
    """``(m, n, k)`` of an MMA, ``(bytes,)`` of a copy, else empty."""
    signals: list[int] = field(default_factory=list)
    """Phases that hear of its completion."""

    @property
    def opcode(self) -> str:
        """With its modifiers."""
        return self.instruction.opcode


@dataclass(slots=True)
class WarpTape:
    """One warp."""

    cta: int
    """Rank in its cluster."""
    index: int
    """In its CTA."""
    code: list[int]
    """Indices of the instructions executed."""
    waits: dict[int, list[int]] = field(default_factory=dict)
    """By position in :attr:`code`: phases that have to be complete."""
    signals: dict[int, list[int]] = field(default_factory=dict)
    """By position: phases that the instruction itself is an arrival of."""
    jobs: dict[int, list[Job]] = field(default_factory=dict)
    """By position: what it starts."""


@dataclass(frozen=True, slots=True)
class Tape:
    """One cluster of one launch."""

    program: Program
    shape: GridShape
    warps: tuple[WarpTape, ...]
    contributions: tuple[int, ...]
    """How many signals complete each phase."""

    @property
    def num_ctas(self) -> int:
        """CTAs of the cluster."""
        return 1 + max(warp.cta for warp in self.warps)

    @property
    def executed(self) -> int:
        """Warp instructions."""
        return sum(len(warp.code) for warp in self.warps)


class Recorder:
    """Makes a tape of each cluster that runs."""

    def __init__(self) -> None:
        self.tapes: list[tuple[tuple[WarpTape, ...], tuple[int, ...]]] = []
        self._begin()

    def observer(self) -> Observer:
        """To be given to a run."""
        return Observer(
            on_submit=self._on_submit,
            on_signal=self._on_signal,
            on_pass=self._on_pass,
            on_end=self._on_end,
            keep_history=True,
        )

    def _begin(self) -> None:
        self._phases: dict[PhaseKey, int] = {}
        self._counts: list[int] = []
        self._tapes: dict[tuple[int, int], WarpTape] = {}
        self._jobs: dict[int, tuple[AsyncOp, Job]] = {}

    def _on_submit(self, cluster: Cluster, op: AsyncOp) -> None:
        if op.place.instruction.opcode.startswith(SYNCHRONOUS):
            return
        tape, at = self._place(cluster, op.place)
        job = Job(op.place.instruction, op.size)
        tape.jobs.setdefault(at, []).append(job)
        self._jobs[id(op)] = op, job

    def _on_signal(self, cluster: Cluster, key: PhaseKey, place: Place) -> None:
        phase = self._phase(key)
        self._counts[phase] += 1
        running = cluster.engine.completing
        if running is not None and id(running) in self._jobs:
            self._jobs[id(running)][1].signals.append(phase)
            return
        tape, at = self._place(cluster, place)
        tape.signals.setdefault(at, []).append(phase)

    def _on_pass(self, warp: Warp, key: PhaseKey) -> None:
        tape, at = self._tape(warp), len(warp.history or ())
        tape.waits.setdefault(at, []).append(self._phase(key))

    def _on_end(self, cluster: Cluster) -> None:
        for warp in cluster.warps:
            self._tape(warp).code = list(warp.history or ())
        warps = tuple(self._tapes[key] for key in sorted(self._tapes))
        self.tapes.append((warps, tuple(self._counts)))
        self._begin()

    def _phase(self, key: PhaseKey) -> int:
        phase = self._phases.setdefault(key, len(self._counts))
        if phase == len(self._counts):
            self._counts.append(0)
        return phase

    def _place(self, cluster: Cluster, place: Place) -> tuple[WarpTape, int]:
        """The tape of the warp at ``place``, and how far it is."""
        (cta,) = (each for each in cluster.ctas if each.linear_index == place.cta)
        warp = cta.warps[place.warp]
        return self._tape(warp), len(warp.history or ())

    def _tape(self, warp: Warp) -> WarpTape:
        key = warp.cta.rank, warp.index
        if key not in self._tapes:
            self._tapes[key] = WarpTape(*key, code=[])
        return self._tapes[key]


def record(host: CompiledHost, *arguments: object) -> list[Tape]:
    """Emulate a host function, and give the tape of every cluster, launch by launch.

    Args:
        host: From :mod:`fa4gen.compile.emulation`.
        arguments: What it takes; see :func:`fa4gen.emulator.session.run`.

    Raises:
        EvaluationError: a kernel does not come to its end.
        CaptureFailed, PtxError, UnsupportedInstruction, InputError: it cannot be emulated.
    """
    recorder = Recorder()
    options = Options(observer=recorder.observer())
    report = run(host, *arguments, policies=("eager",), options=options)
    if not report.runs[0].completed:
        raise EvaluationError(f"trace: the kernel does not come to its end: {report.findings[0]}")
    tapes = []
    waiting = iter(recorder.tapes)
    for launch in report.runs[0].launches:
        clusters = _num_clusters(launch.shape)
        for _, (warps, counts) in zip(range(clusters), waiting, strict=False):
            tapes.append(Tape(launch.program, launch.shape, warps, counts))
    return tapes


def _num_clusters(shape: GridShape) -> int:
    sizes = zip(shape.grid, shape.cluster, strict=True)
    count = 1
    for ctas, cluster in sizes:
        count *= ctas // cluster
    return count
