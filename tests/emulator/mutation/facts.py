"""What a kernel was seen to do while it was emulated: the evidence that equivalence is argued from.

An instruction is named by its line and opcode, which editing the kernel does not change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np

from fa4gen.emulator.barriers import MBarrier
from fa4gen.emulator.clocks import Agent, Clocks, Source, Vector
from fa4gen.emulator.decode import Program
from fa4gen.emulator.findings import Place
from fa4gen.emulator.instructions.tcgen05_load_store import transfers_of
from fa4gen.emulator.registry import Op
from fa4gen.emulator.rendezvous import NamedBarrier, Round
from fa4gen.emulator.shadow import Access, Shadow
from fa4gen.emulator.shared import SharedMemory
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.ptx.ir import Instruction, Register

Site = tuple[int, str]
Operands = tuple[tuple[int, int], ...]
"""Numbers of operands with their values."""
Phase = tuple[int, int, int, int]
"""A phase of an mbarrier: run, CTA, clock component, number."""
Thread = tuple[int, int, int, bool]
"""Run, CTA, warp, and whether it is what the warp's tensor core signals that counts."""


def site_of(inst: Instruction) -> Site:
    """The name of an instruction."""
    return inst.line, inst.opcode


@dataclass
class Meeting:
    """One round of a named barrier."""

    cta: tuple[int, int]
    """Run and CTA."""
    number: int
    start: int
    end: int = 1 << 62
    sites: set[Site] = field(default_factory=set)


@dataclass
class Facts:
    """Evidence from one or several runs of one kernel.

    Attributes:
        reached: Instructions executed by at least one lane.
        proper_waits: Waits that saw a phase which somebody had completed, and not only the one
            before the first, which is complete from the start.
        arrivals: The phases that each instruction signalled.
        signals: Arrivals in their order: the run, CTA and warp of the thread, whether it is that of
            a tcgen05.commit, and the phase.
        observed: The phases that some wait saw.
        seen: The phases that each wait saw.
        teaches: Waits and barriers that told a warp, at least once, of an access to memory that it
            did not know to be over.
        awaited: Initialisations of mbarriers of which any phase was seen.
        operands: For MMAs, the values of their operands in registers.
        unequal: Selections between values that differ.
        shows: Proxy fences that found an ordinary write to show.
        brings: Waits for loads of tensor memory that found one outstanding.
        meetings: Rounds of named barriers.
    """

    reached: set[Site] = field(default_factory=set)
    proper_waits: set[Site] = field(default_factory=set)
    arrivals: dict[Site, set[Phase]] = field(default_factory=lambda: defaultdict(set))
    signals: list[tuple[Thread, Phase]] = field(default_factory=list)
    observed: set[Phase] = field(default_factory=set)
    seen: dict[Site, set[Phase]] = field(default_factory=lambda: defaultdict(set))
    teaches: set[Site] = field(default_factory=set)
    awaited: set[Site] = field(default_factory=set)
    operands: dict[Site, set[Operands]] = field(default_factory=lambda: defaultdict(set))
    unequal: set[Site] = field(default_factory=set)
    shows: set[Site] = field(default_factory=set)
    brings: set[Site] = field(default_factory=set)
    meetings: list[Meeting] = field(default_factory=list)


class Recorder:
    """Collects :class:`Facts` while a kernel is emulated."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._run, self._now = 0, 0
        self._writes: dict[Warp, set[int]] = defaultdict(set)
        self._rounds: dict[Round, Meeting] = {}
        self._accesses: dict[Clocks, dict[int, set[int]]] = {}
        self._turn: Warp | None = None

    def watched(self, program: Program) -> Program:
        """``program`` with operations that note what they do."""
        code = program.entry.instructions
        ops = tuple(self._watched(op, inst) for op, inst in zip(program.ops, code, strict=True))
        return replace(program, ops=ops)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note what happens in the block, one run."""
        self._run += 1
        self._writes.clear()
        self._rounds.clear()
        self._accesses.clear()
        with ExitStack() as stack:
            for owner, name, wrapper in (
                (MBarrier, "arrive", self._arrive),
                (MBarrier, "observe", self._observe),
                (SharedMemory, "touched", self._touched),
                (NamedBarrier, "arrive", self._meet),
                (Agent, "acquire", self._acquire),
                (Shadow, "read", self._access),
                (Shadow, "write", self._access),
            ):
                stack.enter_context(mock.patch.object(owner, name, wrapper(getattr(owner, name))))
            yield

    def _watched(self, op: Op, inst: Instruction) -> Op:
        site, guard, facts = site_of(inst), inst.guard, self.facts
        look = self._looks(inst)

        def run(warp: Warp) -> int | Signal | None:
            if guard is not None:
                chosen = warp.regs[guard.register.slot] ^ guard.negated
                if not (warp.active() & chosen).any():
                    return op(warp)
            facts.reached.add(site)
            self._turn = warp
            if look is not None:
                look(warp)
            return op(warp)

        return run

    def _looks(self, inst: Instruction) -> Any:
        """What to note of an instruction besides that it was reached."""
        site, facts = site_of(inst), self.facts
        if inst.opcode.startswith(("tcgen05.mma", "wgmma.mma_async")):
            slots = [
                (at, each.slot)
                for at, each in enumerate(inst.operands)
                if isinstance(each, Register) and each.type in {"b32", "b64"}
            ]
            return lambda warp: facts.operands[site].add(
                tuple((at, int(warp.regs[slot][warp.first()])) for at, slot in slots)
            )
        if inst.opcode.startswith("fence.proxy.async"):
            return lambda warp: facts.shows.add(site) if self._unshown(warp) else None
        if inst.opcode.startswith("tcgen05.wait::ld"):
            return lambda warp: facts.brings.add(site) if transfers_of(warp).loads else None
        if inst.parts[0] == "selp":
            return lambda warp: self._select(warp, inst)
        return None

    def _select(self, warp: Warp, inst: Instruction) -> None:
        first, second = inst.operands[1:3]
        if not (isinstance(first, Register) and isinstance(second, Register)):
            differ = first != second
        else:
            differ = bool((warp.regs[first.slot] != warp.regs[second.slot])[warp.active()].any())
        if differ:
            self.facts.unequal.add(site_of(inst))

    def _unshown(self, warp: Warp) -> bool:
        """Whether ``warp`` knows of an ordinary write that it has not fenced."""
        vector = warp.agent.vector
        for writer, clocks in self._writes.items():
            if writer.cta.cluster is warp.cta.cluster:
                first = writer.agent.first
                fenced, known = vector[first + Source.FENCED], vector[first]
                if any(fenced < clock <= known for clock in clocks):
                    return True
        return False

    def _arrive(self, original: Any) -> Any:
        def arrive(barrier: MBarrier, count: int, vector: Vector | None, place: Place) -> None:
            phase = self._phase(barrier, barrier.phase)
            self.facts.arrivals[site_of(place.instruction)].add(phase)
            commit = place.instruction.opcode.startswith("tcgen05.commit")
            self.facts.signals.append(((self._run, place.cta, place.warp, commit), phase))
            original(barrier, count, vector, place)

        return arrive

    def _observe(self, original: Any) -> Any:
        def observe(barrier: MBarrier, warp: Warp) -> None:
            if barrier.phase:
                self.facts.proper_waits.add(site_of(warp.instruction))
                self.facts.awaited.add(site_of(barrier.place.instruction))
                phase = self._phase(barrier, barrier.phase - 1)
                self.facts.observed.add(phase)
                self.facts.seen[site_of(warp.instruction)].add(phase)
            original(barrier, warp)

        return observe

    def _phase(self, barrier: MBarrier, number: int) -> Phase:
        cta = barrier.shared.cta
        return self._run, cta.linear_index, barrier.component, number

    def _touched(self, original: Any) -> Any:
        def touched(
            memory: SharedMemory, warp: Warp, offsets: Any, size: int, write: bool, **rest: Any
        ) -> None:
            if write and not warp.instruction.opcode.startswith("mbarrier"):
                self._writes[warp].add(int(warp.agent.vector[warp.agent.first]))
            original(memory, warp, offsets, size, write, **rest)

        return touched

    def _access(self, original: Any) -> Any:
        def access(shadow: Shadow, cells: Any, access: Access, strong: bool = False) -> None:
            source, clock = access.stamp
            known = self._accesses.setdefault(shadow._clocks, defaultdict(set))
            known[source].add(clock)
            if not access.proxy:
                known[source + Source.FENCED].add(clock)
            original(shadow, cells, access, strong)

        return access

    def _acquire(self, original: Any) -> Any:
        def acquire(agent: Agent, vector: Vector | None) -> None:
            if vector is not None and self._turn is not None:
                old, accesses = agent.vector, self._accesses.get(agent.clocks, {})
                for source in np.flatnonzero(vector > old).tolist():
                    if any(old[source] < at <= vector[source] for at in accesses.get(source, ())):
                        self.facts.teaches.add(site_of(self._turn.instruction))
            original(agent, vector)

        return acquire

    def _meet(self, original: Any) -> Any:
        def arrive(barrier: NamedBarrier, warp: Warp, *rest: Any) -> Round:
            self._now += 1
            now: Round = original(barrier, warp, *rest)
            meeting = self._rounds.get(now)
            if meeting is None:
                cta = (self._run, warp.cta.linear_index)
                meeting = self._rounds[now] = Meeting(cta, barrier.number, self._now)
                self.facts.meetings.append(meeting)
            meeting.sites.add(site_of(warp.instruction))
            if now.complete:
                meeting.end = self._now
            return now

        return arrive
