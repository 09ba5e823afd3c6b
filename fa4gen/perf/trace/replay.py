"""Replaying a tape on the pipes of an SM: when everything happens, and what was busy how long.

Each SM has four sub-cores. One issues an instruction of one of its warps per clock, to pipes of its
own; shared memory, tensor core, tensor memory and the copy engine have clocks of the whole SM. A
warp has a window of instructions that may go before each other, as ptxas would have put them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass

from fa4gen.core.errors import EvaluationError
from fa4gen.perf.trace.dataflow import Begun, ClusterSteps, Step
from fa4gen.perf.trace.kinds import Kind
from fa4gen.perf.trace.sm import Sm, SubCore, WarpState
from fa4gen.perf.trace.timing import SUBCORES, Timing

FENCE = "FENCE.VIEW.ASYNC.T"
"""Over when the warp's stores to tensor memory are: stands for tcgen05.wait::st."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a tape takes.

    Attributes:
        cycles: From the first instruction to the end of the last warp, and of what it started.
        busy: Cycles that each pipe is in use, of the busiest SM; the mean of its four sub-cores.
        waited: By warp of the first CTA: cycles in which it had nothing to issue because it waited
            for a phase or a group.
        ends: By (CTA, warp): when it ended.
    """

    cycles: float
    busy: dict[str, float]
    waited: tuple[float, ...]
    ends: dict[tuple[int, int], float]


def replay(steps: ClusterSteps, timing: Timing) -> Replay:
    """Times of a tape's steps on one SM for each of its CTAs.

    Raises:
        EvaluationError: a warp waits for what never happens: the tape is cut off.
    """
    return _Machine(steps, timing).run()


class _Machine:
    def __init__(self, steps: ClusterSteps, timing: Timing) -> None:
        self.timing = timing
        self.sms = [Sm() for _ in range(steps.num_ctas)]
        queue = timing.mufu_queue
        self.subcores = [[SubCore(sm, i, queue) for i in range(SUBCORES)] for sm in self.sms]
        self.warps: list[WarpState] = []
        for each in steps.warps:
            subcore = self.subcores[each.cta][each.index % SUBCORES]
            self.warps.append(WarpState(each, subcore, timing.window))
        self.left = list(steps.contributions)
        self.complete = [0.0] * len(self.left)
        self.waiting: dict[int, list[WarpState]] = defaultdict(list)
        self.queue: list[tuple[float, int, int, SubCore]] = []
        self.serial = 0
        self.end = 0.0

    def run(self) -> Replay:
        for warp in self.warps:
            self._advance(warp)
        while self.queue:
            at, _, version, subcore = heapq.heappop(self.queue)
            if version != subcore.version:
                continue
            time, steps = subcore.best()
            if steps is None:
                continue
            if time > at:
                self._push(subcore, time)
                continue
            warp, position = steps.warp, steps.take()
            self._issue(subcore, warp, position, time)
            self._advance(warp)
        return self._result()

    def _result(self) -> Replay:
        stuck = [warp for warp in self.warps if not warp.done]
        if stuck:
            step = stuck[0].steps[stuck[0].head]
            raise EvaluationError(
                f"trace: {len(stuck)} warps wait for what never happens, the first of them warp "
                f"{stuck[0].index} at {step.kind.opcode}; the tape is cut off"
            )
        ends = {(w.cta, w.index): max(w.finish, default=0.0) for w in self.warps}
        cycles = max(self.end, *ends.values())
        busy = max((dict(sm.busy) for sm in self.sms), key=lambda b: b.get("tensor", 0.0))
        waited = tuple(w.waited for w in self.warps if w.cta == 0)
        return Replay(cycles, busy, waited, ends)

    def _push(self, subcore: SubCore, time: float) -> None:
        subcore.version += 1
        self.serial += 1
        heapq.heappush(self.queue, (time, self.serial, subcore.version, subcore))

    # ---- what can go next -----------------------------------------------------------------------

    def _advance(self, warp: WarpState) -> None:
        """Take steps into the warp's window; at a wait or branch, see when it is over."""
        warp.admit()
        if warp.closing == warp.head and warp.here != warp.head:
            self._come(warp)
        time, steps = warp.subcore.best()
        if steps is not None:
            self._push(warp.subcore, time)

    def _come(self, warp: WarpState) -> None:
        """The warp has issued everything before a wait or branch."""
        warp.here = warp.head
        step = warp.steps[warp.head]
        time = warp.came = max(warp.opens, warp.subcore.issue)
        for phase in step.signals:
            self._signal(phase, time + self.timing.arrive)
        self._wait(warp)

    def _wait(self, warp: WarpState) -> None:
        """Offer the wait or branch at the head once it is known when it is over."""
        step = warp.steps[warp.head]
        time = max(warp.opens, warp.cleared(step))
        for each in step.operands:
            time = max(time, warp.finish[each])
        for phase in step.waits:
            if self.left[phase] > 0:
                self.waiting[phase].append(warp)
                return
            time = max(time, self.complete[phase] + self.timing.wake)
        opcode, pending = step.kind.opcode, step.kind.literal
        if opcode.startswith("tcgen05.wait"):
            time = max(time, warp.loads if "ld" in opcode else warp.stores)
        elif opcode.startswith("wgmma.wait_group"):
            time = max(time, _outstanding(warp.groups, pending))
        elif opcode.startswith("cp.async.bulk.wait_group"):
            time = max(time, _outstanding(warp.copies, pending))
        warp.subcore.offer(warp, warp.head, time)

    # ---- what happens then ----------------------------------------------------------------------

    def _issue(self, subcore: SubCore, warp: WarpState, position: int, time: float) -> None:
        step = warp.steps[position]
        kind, timing = step.kind, self.timing
        slots = timing.issue_slots * kind.slots
        subcore.issue, subcore.last = time + slots, warp
        stall = timing.stall * kind.slots if kind.control is None else kind.control.stall
        warp.again = time + max(slots, stall)
        subcore.sm.busy["issue"] += slots / SUBCORES
        if subcore.sm.tensor[subcore.number] > time:
            # Work that is queued keeps its times; what is stolen from it, the next has to bear.
            subcore.sm.tensor[subcore.number] += timing.steal * kind.slots
        if kind.closes:
            warp.waited += max(0.0, time - warp.came)
            warp.finish[position] = warp.opens = time + timing.latency(kind.pipe)
            warp.closing = -1
        else:
            warp.finish[position] = self._execute(subcore, warp, step, time)
            for phase in step.signals:
                self._signal(phase, time + timing.arrive)
        for job in step.jobs:
            self._start(subcore, warp, job, time)
        if kind.control is not None:
            self._take_boards(warp, kind, position, time)
        if kind.opcode.startswith("wgmma.commit_group"):
            warp.groups.append(max(warp.open_group, default=time))
            warp.open_group = []
        elif kind.opcode.startswith("cp.async.bulk.commit_group"):
            warp.copies.append(max(warp.open_copies, default=time))
            warp.open_copies = []
        warp.issued(position)

    def _take_boards(self, warp: WarpState, kind: Kind, position: int, time: float) -> None:
        """Its scoreboards are free when it is over, or has read its operands."""
        control, boards = kind.control, warp.boards
        assert control is not None
        if kind.opcode.startswith(FENCE):
            warp.finish[position] = max(warp.finish[position], warp.stores)
        if control.writes >= 0:
            boards[control.writes] = max(boards[control.writes], warp.finish[position])
        if control.reads >= 0:
            read = time + self.timing.occupancy(kind.pipe, kind.quantity)
            boards[control.reads] = max(boards[control.reads], read)

    def _execute(self, subcore: SubCore, warp: WarpState, step: Step, time: float) -> float:
        """Occupy the pipe of an instruction; when its result is there."""
        kind, timing = step.kind, self.timing
        cycles = timing.occupancy(kind.pipe, kind.quantity)
        if kind.pipe == "lsu":
            return self._access(subcore.sm, time, cycles)
        if kind.pipe == "global":
            return time + timing.load
        over = subcore.pipes[kind.pipe].take(time, cycles) + timing.latency(kind.pipe)
        subcore.sm.busy[kind.pipe] += cycles / SUBCORES
        if kind.pipe == "tmem":
            if kind.opcode.startswith(("tcgen05.ld", "LDTM")):
                warp.loads = max(warp.loads, over)
            else:
                warp.stores = max(warp.stores, over)
        return over

    def _signal(self, phase: int, time: float) -> None:
        self.complete[phase] = max(self.complete[phase], time)
        self.left[phase] -= 1
        if self.left[phase] == 0:
            for warp in self.waiting.pop(phase, ()):
                self._wait(warp)
                self._push(warp.subcore, warp.subcore.best()[0])

    def _start(self, subcore: SubCore, warp: WarpState, job: Begun, time: float) -> None:
        """Put a copy or an MMA into its queue."""
        opcode, timing = job.opcode, self.timing
        if opcode.startswith("tcgen05.mma"):
            over = self._multiply_pair(subcore, job, time)
            warp.products = max(warp.products, over)
        elif opcode.startswith("wgmma"):
            over = self._multiply_part(subcore, job, time)
            warp.open_group.append(over)
        elif opcode.startswith("tcgen05.commit"):
            over = max(time, warp.products) + timing.commit
        elif job.size and opcode.startswith("cp."):
            over = self._copy(subcore, job, time)
            if not job.signals:
                warp.open_copies.append(over)
        else:
            over = time + timing.load
        self.end = max(self.end, over)
        for phase in job.signals:
            self._signal(phase, over)

    def _access(self, sm: Sm, time: float, cycles: float) -> float:
        """A load or store of shared memory by a warp; when its result is there."""
        start = max(time, sm.shared)
        sm.shared = start + cycles
        sm.busy["smem"] += cycles
        for number, operands in enumerate(sm.operands):
            sm.tensor[number] += operands.excess(start, start + cycles, 1.0)
        return start + cycles + self.timing.latency("lsu")

    def _multiply_pair(self, subcore: SubCore, job: Begun, time: float) -> float:
        """``tcgen05.mma``: the whole tensor core, of both SMs where there are two CTAs to it."""
        m, n, k = job.size
        paired = "cta_group::2" in job.opcode
        ctas = 2 if paired else 1
        sms = self.sms if paired else [subcore.sm]
        cycles = m * n * k / ctas / self._macs_per_clk(job)
        # A and B come from shared memory, unless A is in tensor memory; a pair halves B.
        values = k * (n / ctas + (m / ctas if job.a_in_smem else 0))
        reading = values * job.operand_bytes / self.timing.smem_bytes_per_clk
        start = max(time + self.timing.mma_start, *(sm.tensor[0] for sm in sms))
        cycles = max(self._with_operands(sm, 0, (start, cycles, reading)) for sm in sms)
        for sm in sms:
            sm.operands[0].forget(time)
            sm.operands[0].take(start, start + cycles, reading / cycles)
            sm.tensor[0] = start + cycles
            sm.busy["tensor"] += cycles
            sm.busy["mma smem"] += reading
        return start + cycles + self.timing.mma_latency

    def _multiply_part(self, subcore: SubCore, job: Begun, time: float) -> float:
        """One warp's 16 rows of a ``wgmma``, on the tensor core of its sub-core."""
        m, n, k = job.size
        sm, number = subcore.sm, subcore.number
        cycles = m * n * k * SUBCORES / self._macs_per_clk(job)
        # The four warps of a warpgroup share one reading of B; each has its own rows of A.
        values = k * (n + (m * SUBCORES if job.a_in_smem else 0))
        reading = values * job.operand_bytes / self.timing.smem_bytes_per_clk
        start = max(time + self.timing.mma_start, sm.tensor[number])
        cycles = self._with_operands(sm, number, (start, cycles, reading))
        sm.operands[number].forget(time)
        sm.operands[number].take(start, start + cycles, reading / cycles)
        sm.tensor[number] = start + cycles
        sm.busy["tensor"] += cycles / SUBCORES
        sm.busy["mma smem"] += reading / SUBCORES
        return start + cycles + self.timing.mma_latency

    def _macs_per_clk(self, job: Begun) -> float:
        """Half as wide, twice as many."""
        return self.timing.macs_per_clk * 2.0 / (job.operand_bytes or 2.0)

    def _with_operands(self, sm: Sm, number: int, asked: tuple[float, float, float]) -> float:
        """Cycles of an MMA that starts, multiplies and reads its operands as ``asked``."""
        start, multiplying, reading = asked
        cycles = max(multiplying, reading)
        conflict = sm.copied.excess(start, start + cycles, reading / cycles)
        return cycles + self.timing.port_share * conflict

    def _copy(self, subcore: SubCore, job: Begun, time: float) -> float:
        """Between L2 and shared memory, whose port it shares with the operands of MMAs."""
        timing, sm = self.timing, subcore.sm
        cycles = job.size[0] / timing.copy_bytes_per_clk
        start = max(time, sm.copies)
        loads = bool(job.signals)
        there = start + timing.load if loads else start
        share = timing.copy_bytes_per_clk / timing.smem_bytes_per_clk
        conflicts = [each.excess(there, there + cycles, share) for each in sm.operands]
        for number, conflict in enumerate(conflicts):
            sm.tensor[number] += timing.port_share * conflict
        taken = cycles + (1.0 - timing.port_share) * max(conflicts)
        sm.copied.forget(time)
        sm.copied.take(there, there + taken, share * cycles / taken)
        sm.copies = start + taken
        sm.busy["copy"] += taken
        return start + taken + (timing.load if loads else timing.store)


def _outstanding(groups: list[float], pending: int) -> float:
    """When all but the ``pending`` latest groups are over."""
    finished = groups[: len(groups) - pending] if pending else groups
    return max(finished, default=0.0)
