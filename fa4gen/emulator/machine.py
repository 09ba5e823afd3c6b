"""Grid, clusters and CTAs, and the loop that runs their warps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from fa4gen.core.errors import Deadlock, InstructionLimit, KernelFault
from fa4gen.emulator.asynchronous import AsyncOp, Engine
from fa4gen.emulator.barriers import MBarrier
from fa4gen.emulator.builder import UNSIGNED
from fa4gen.emulator.clocks import Clocks
from fa4gen.emulator.decode import Program
from fa4gen.emulator.findings import Finding, FindingKind, FindingLog, Place
from fa4gen.emulator.memory import LOCAL_WINDOW, PARAM_WINDOW, Block, GlobalMemory
from fa4gen.emulator.policy import Policy
from fa4gen.emulator.rendezvous import ClusterBarrier, NamedBarrier
from fa4gen.emulator.shared import RESERVED, SharedMemory
from fa4gen.emulator.special import special_value
from fa4gen.emulator.variables import grid_variable, local_layout
from fa4gen.emulator.warp import Wait, Warp
from fa4gen.ptx.ir import Special, Symbol

Index = tuple[int, int, int]
PhaseKey: TypeAlias = Hashable
"""One phase of one barrier, of whatever kind."""
PATIENCE = 3
"""Rounds of time-outs without any progress after which a cluster counts as deadlocked."""


@dataclass(frozen=True, slots=True)
class GridShape:
    """How a kernel is launched."""

    grid: Index
    block: Index
    cluster: Index = (1, 1, 1)
    dynamic_smem: int = 0
    """Bytes."""
    regs_per_thread: int | None = None
    """At launch, from the cubin; ``None`` if unknown, then setmaxnreg is not accounted for."""


@dataclass
class Observer:
    """What a run tells while it goes on; every callback is optional.

    Attributes:
        on_async: An asynchronous operation completed: (cluster, operation).
        on_submit: A warp has issued an asynchronous operation: (cluster, operation).
        on_signal: A barrier was told something: (cluster, key of the phase, where). While an
            asynchronous operation completes (``cluster.engine.completing``), by that.
        on_pass: A wait for a phase is over: (warp, key of the phase).
        on_barrier: A phase of an mbarrier completed.
        on_turn: A warp ran: (warp, first and last moment, what it had waited for).
        on_end: A cluster has ended.
        keep_history: Whether warps record the index of every instruction they execute.
    """

    on_async: Callable[[Cluster, AsyncOp], None] | None = None
    on_submit: Callable[[Cluster, AsyncOp], None] | None = None
    on_signal: Callable[[Cluster, PhaseKey, Place], None] | None = None
    on_pass: Callable[[Warp, PhaseKey], None] | None = None
    on_barrier: Callable[[Cluster, MBarrier], None] | None = None
    on_turn: Callable[[Warp, int, int, Wait | None], None] | None = None
    on_end: Callable[[Cluster], None] | None = None
    keep_history: bool = False


@dataclass
class Grid:
    """One launch."""

    program: Program
    shape: GridShape
    memory: GlobalMemory
    params: Block
    """All parameters, at :data:`PARAM_WINDOW`, each at the offset its alignment gives."""
    policy: Policy
    log: FindingLog
    observer: Observer = field(default_factory=Observer)
    max_instructions: int = 500_000_000
    tensor_core: str = "float64"
    """How MMAs round: see :class:`fa4gen.emulator.emulate.Options`."""
    on_cluster: Callable[[Cluster], None] | None = None
    """Called with each cluster that has ended, or that a fault has stopped."""
    executed: int = 0
    printed: list[str] = field(default_factory=list)
    """What the kernel's printf wrote."""
    variables: dict[str, Block] = field(default_factory=dict)
    """Memory of the ``.global`` and ``.const`` variables that were used, by name."""
    unstarted: list[Index] = field(default_factory=list)
    """First CTA of each cluster that has not begun; cluster launch control takes from here."""

    def run(self) -> None:
        """Execute every cluster to its end.

        Raises:
            KernelFault, Deadlock, InstructionLimit: the run ended early; findings are in the log.
        """
        size, step = self.shape.grid, self.shape.cluster
        self.unstarted = [
            (x, y, z)
            for z in range(0, size[2], step[2])
            for y in range(0, size[1], step[1])
            for x in range(0, size[0], step[0])
        ]
        with np.errstate(all="ignore"):
            while self.unstarted:
                cluster = Cluster(self, self.unstarted.pop(0))
                try:
                    cluster.run()
                finally:
                    if self.on_cluster is not None:
                        self.on_cluster(cluster)


class Cta:
    """One CTA.

    Attributes:
        index: ``%ctaid``.
        rank: ``%cluster_ctarank``: x runs fastest.
        state: Room for instruction families to keep what is a CTA's (tensor memory, register pool).
    """

    def __init__(self, cluster: Cluster, index: Index, rank: int) -> None:
        self.cluster: Cluster = cluster
        self.index: Index = index
        self.rank: int = rank
        size = cluster.grid.shape.grid
        self.linear_index: int = index[0] + size[0] * (index[1] + size[1] * index[2])
        self.symbols, static = _place_variables(cluster.grid.program)
        self.shared = SharedMemory(self, static + cluster.grid.shape.dynamic_smem)
        self.named_barriers: dict[int, NamedBarrier] = {}
        self.state: dict[str, Any] = {}
        threads = int(np.prod(cluster.grid.shape.block))
        program = cluster.grid.program
        self.warps: list[Warp] = [
            Warp(self, i, program, min(32, threads - 32 * i)) for i in range(-(-threads // 32))
        ]

    @property
    def ended(self) -> bool:
        """Whether all of its warps have."""
        return all(warp.done for warp in self.warps)

    def named_barrier(self, number: int) -> NamedBarrier:
        """Barrier ``number`` of the sixteen."""
        if number not in self.named_barriers:
            self.named_barriers[number] = NamedBarrier(self, number)
        return self.named_barriers[number]


class Cluster:
    """CTAs that run at once and reach into each other's shared memory.

    Attributes:
        first: ``%ctaid`` of its first CTA.
        progress: Counts everything that may let a waiting warp go on.
        now: Instructions executed so far: the time axis of traces.
    """

    def __init__(self, grid: Grid, first: Index) -> None:
        self.grid: Grid = grid
        self.first: Index = first
        self.progress, self.now = 0, 0
        shape = grid.shape
        count = int(np.prod(shape.cluster))
        warps = count * -(-int(np.prod(shape.block)) // 32)
        self.clocks = Clocks(capacity=10 * warps + 256 * count + 64)
        dice = grid.policy.dice()
        self._dice = dice
        self.engine = Engine(self, grid.policy, dice)
        self.ctas: list[Cta] = []
        for rank, (z, y, x) in enumerate(itertools.product(*map(range, reversed(shape.cluster)))):
            index = (first[0] + x, first[1] + y, first[2] + z)
            self.ctas.append(Cta(self, index, rank))
        self.warps = [warp for cta in self.ctas for warp in cta.warps]
        self.barrier = ClusterBarrier(self)
        self.at_end: list[Callable[[], None]] = []
        """Checks that instruction families want made when all warps have ended."""
        for warp in self.warps:
            _start(warp)

    def run(self) -> None:
        """Run all warps to their end, then complete what is outstanding.

        Raises:
            KernelFault, Deadlock, InstructionLimit: see :meth:`Grid.run`.
        """
        patience, seen = PATIENCE, -1
        while live := [warp for warp in self.warps if not warp.done]:
            moved = False
            for warp in self._dice.order(live):
                if warp.ready():
                    self._turn(warp)
                    moved = True
                    self.engine.tick()
            if moved or self.engine.complete_one():
                continue
            if self.progress != seen:
                patience, seen = PATIENCE, self.progress
            patience -= 1
            # Giving up forgets what was waited for, so the report of a deadlock comes before.
            if patience < 0 or not sum(warp.time_out() for warp in live):  # all, not the first
                raise Deadlock(self._deadlock_text(live))
        while self.engine.complete_one():
            pass
        for check in self.at_end:
            check()
        if self.grid.observer.on_end is not None:
            self.grid.observer.on_end(self)

    def refuses(self) -> bool:
        """Whether a request is refused that hardware may grant or refuse."""
        return self._dice.refuses()

    def report(
        self, kind: FindingKind, message: str, place: Place | None, other: Place | None = None
    ) -> None:
        """Note something wrong that does not end the run."""
        self.grid.log.add(Finding(kind, message, place, other))

    def trace_async(self, op: AsyncOp) -> None:
        """Tell the observer of a completion."""
        if self.grid.observer.on_async is not None:
            self.grid.observer.on_async(self, op)

    def trace_submit(self, op: AsyncOp) -> None:
        """Tell the observer of an operation that was issued."""
        if self.grid.observer.on_submit is not None:
            self.grid.observer.on_submit(self, op)

    def trace_signal(self, key: PhaseKey, place: Place) -> None:
        """Tell the observer of what a barrier was told."""
        if self.grid.observer.on_signal is not None:
            self.grid.observer.on_signal(self, key, place)

    def trace_pass(self, warp: Warp, key: PhaseKey) -> None:
        """Tell the observer of a wait that is over."""
        if self.grid.observer.on_pass is not None:
            self.grid.observer.on_pass(warp, key)

    def trace_barrier(self, barrier: MBarrier) -> None:
        """Tell the observer of a phase that is complete."""
        if self.grid.observer.on_barrier is not None:
            self.grid.observer.on_barrier(self, barrier)

    def _turn(self, warp: Warp) -> None:
        before, waited = self.now, warp.wait
        ran = warp.run(self._dice.quantum(warp))
        self.now += ran
        self.grid.executed += ran
        if warp.done:
            self.progress += 1
            self.barrier.settle()
            for barrier in warp.cta.named_barriers.values():
                barrier.settle()
        if self.grid.observer.on_turn is not None and ran:
            self.grid.observer.on_turn(warp, before, self.now, waited)
        if self.grid.executed > self.grid.max_instructions:
            raise InstructionLimit(self._limit_text())

    def _deadlock_text(self, live: list[Warp]) -> str:
        lines = [f"{len(live)} of {len(self.warps)} warps wait for what cannot happen:"]
        for warp in live:
            for inst, wait in warp.waits():
                lines.append(f"  {Place(warp.cta.linear_index, warp.index, inst)}")
                lines.append(f"    waits for {wait.describe()}")
        return "\n".join(lines)

    def _limit_text(self) -> str:
        counts = np.sum([warp.counts for warp in self.warps], axis=0)
        code = self.grid.program.entry.instructions
        hottest = [
            f"  {int(counts[at])} times PTX line {code[at].line}: {code[at].opcode}"
            for at in counts.argsort()[::-1][:5]
        ]
        return (
            f"kernel {self.grid.program.entry.name}: got more than {self.grid.max_instructions} "
            "warp instructions; it may never end. Hottest in this cluster:\n" + "\n".join(hottest)
        )


def _start(warp: Warp) -> None:
    """Fill the slots that hold constants, special registers and addresses."""
    program = warp.program
    for slot, value in program.constants.items():
        warp.regs[slot] = value
    for slot, (operand, width) in program.environment.items():
        if isinstance(operand, Special):
            value = special_value(operand.name, warp)
        else:
            value = np.full(32, _address(operand, warp), np.uint64)
        warp.regs[slot] = value.astype(UNSIGNED[width])
    if warp.cta.cluster.grid.observer.keep_history:
        warp.history = []


def _address(symbol: Symbol, warp: Warp) -> int:
    name = symbol.name
    if symbol.space == "shared":
        return warp.cta.shared.base + RESERVED + warp.cta.symbols[name]
    if symbol.space == "param" and name in (offsets := param_offsets(warp.program)):
        return PARAM_WINDOW + offsets[name]
    if symbol.space in {"param", "local"}:
        return LOCAL_WINDOW + local_layout(warp.program.entry)[0][name]
    if symbol.space in {"global", "const"}:
        return grid_variable(warp.cta.cluster.grid, name).base
    raise KernelFault(
        f"{name}: got the address of a variable in {symbol.space} memory, emulated: param, shared, "
        "local, global, const"
    )


def param_offsets(program: Program) -> dict[str, int]:
    """Where each parameter of the kernel lies in the parameter block, bytes."""
    offsets, at = {}, 0
    for param in program.entry.params:
        at = -(-at // param.align) * param.align
        offsets[param.name] = at
        at += param.size
    return offsets


def _place_variables(program: Program) -> tuple[dict[str, int], int]:
    """Offsets of shared variables behind the reserved part, and the bytes of the static ones.

    The dynamic part follows the static variables, at its own alignment.
    """
    offsets, at = {}, 0
    variables = [*program.module.variables, *program.entry.variables]
    shared = [v for v in variables if v.space == "shared"]
    for variable in sorted(shared, key=lambda v: v.is_extern):
        at = -(-at // variable.align) * variable.align
        offsets[variable.name] = at
        at += 0 if variable.is_extern else variable.size
    return offsets, at
