"""mbarriers: their phases, counts and clocks.

Source: PTX ISA 9.1, section 9.7.13.15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.clocks import Vector
from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.shared import RESERVED, SharedMemory
from fa4gen.emulator.warp import Wait

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cta
    from fa4gen.emulator.warp import Warp

MAX_COUNT = (1 << 20) - 1
"""Largest count of an mbarrier, and largest absolute tx-count (PTX ISA 9.7.13.15.2)."""
MBARRIER_BYTES = 8


class MBarrier:
    """An mbarrier object.

    Its clock says what a warp knows of it: ``base`` that it is initialised, ``base + n`` that its
    first ``n`` phases are complete.

    Args:
        before: The one that was at the same place, if any; its clock is used further.

    Attributes:
        component: Of its clock. Accesses of copies that signal it carry it, with the phase that
            their completion belongs to.
        phase: How many phases are complete.
        observed: How many of them a wait has seen.
        retired: Where it was invalidated.
    """

    def __init__(
        self, cta: Cta, offset: int, count: int, place: Place, before: MBarrier | None = None
    ) -> None:
        self.cluster, self.shared, self.offset = cta.cluster, cta.shared, offset
        self.label = f"byte {offset - RESERVED} of the {cta.shared.name}"
        self.expected, self.place = count, place
        if before is None:
            self.component, self.base = self.cluster.clocks.component(), 1
        else:
            self.component, self.base = before.component, before.stamp[1] + 1
        self.retired: Place | None = None
        self.phase, self.pending, self.tx, self.observed = 0, count, 0, 0
        self.arrivals: list[Place] = []
        """Of the running phase."""
        self._arriving: Vector | None = None
        self._copied: tuple[int, Place] | None = None
        self.released: Vector = self.cluster.clocks.zeros()
        """What waiting for the last complete phase lets a warp know."""

    @property
    def stamp(self) -> tuple[int, int]:
        """(source, clock) of the accesses of a copy that signals the running phase."""
        return self.component, self.base + self.phase + 1

    def arrive(self, count: int, vector: Vector | None, place: Place) -> None:
        """``count`` arrivals at once, releasing ``vector``."""
        self._check_alive(place)
        if count > self.pending:
            earlier = ", ".join(f"PTX line {p.instruction.line}" for p in self.arrivals[-4:])
            self.cluster.report(
                FindingKind.BARRIER,
                f"{self}: got {count} more arrivals where {self.pending} are pending; this phase "
                f"had: {earlier or 'none'}",
                place,
                self.place,
            )
            count = self.pending
        self._join(vector)
        self.arrivals.append(place)
        self.cluster.trace_signal(self.stamp, place)
        self.pending -= count
        self._advance()

    def drop(self, count: int, place: Place) -> None:
        """``count`` arrivals less are expected from the next phase on (``arrive_drop``)."""
        self.expected -= count
        if self.expected <= 0:
            self.cluster.report(
                FindingKind.BARRIER,
                f"{self}: got {count} arrivals dropped, which leaves {self.expected}; allowed: at "
                "least 1",
                place,
                self.place,
            )
            self.expected = max(self.expected, 0)

    def expect_tx(self, size: int, place: Place | None = None) -> None:
        """``size`` more bytes belong to the running phase."""
        self.tx += size
        self.cluster.progress += 1
        self._check_tx(place)

    def complete_tx(self, size: int, vector: Vector | None, place: Place) -> None:
        """``size`` bytes have arrived; ``vector`` is what their observation releases besides."""
        self._check_alive(place)
        self._join(vector)
        self.cluster.trace_signal(self.stamp, place)
        self.tx -= size
        self._check_tx(place)
        self._advance()

    def done(self, parity: int) -> bool:
        """What ``try_wait.parity`` asks: is the phase of that parity complete?"""
        return (self.phase & 1) != parity

    def known_to(self, vector: Vector) -> bool:
        """Whether somebody who knows ``vector`` knows that this is an mbarrier."""
        return bool(vector[self.component] >= self.base)

    def copied(self, place: Place) -> None:
        """A copy at ``place`` is complete and about to signal; somebody has to notice."""
        if self.retired is not None:
            self.cluster.report(
                FindingKind.BARRIER,
                f"{self}: invalidated before a copy that signals it was complete",
                place,
                self.retired,
            )
        if self._copied is None:
            self.cluster.at_end.append(self._check_copies)
        self._copied = self.stamp[1], place

    def image(self, tx: int) -> int:
        """The 64 bits that ``mbarrier.arrive`` hands out, where the tx-count was ``tx``.

        Bit 63 is the parity of the phase, bits 43 to 62 hold ``2 ** 20`` - pending arrivals, bits 1
        to 20 ``2 ** 20`` - expected arrivals, bits 21 to 41 ``2 ** 21`` - tx-count. So it lies in
        the memory of an H200; an arrival there hands out the upper half alone and leaves in the
        lower one what the register held (recorded 2026-11-21, ``barriers/memory-image``,
        ``barriers/bytes`` and ``barriers/phases`` of tests/emulator/hopper).
        """
        field = 1 << 20
        return (
            (self.phase & 1) << 63
            | (field - self.pending & field - 1) << 43
            | (2 * field - tx & 2 * field - 1) << 21
            | (field - self.expected & field - 1) << 1
        )

    def observe(self, warp: Warp) -> None:
        """A wait of ``warp`` has seen the last complete phase."""
        if self.phase - self.observed > 1:
            self.cluster.report(
                FindingKind.BARRIER,
                f"{self}: phases {self.observed} to {self.phase - 2} passed and nobody waited for "
                "them; every phase has to be waited for before the next one's arrivals (PTX ISA "
                "9.7.13.15.4)",
                warp.place(),
                self.place,
            )
        self.observed = self.phase
        if self.phase:
            self.cluster.trace_pass(warp, (self.component, self.base + self.phase))

    def _check_alive(self, place: Place) -> None:
        """Shared memory of a CTA that has ended may be another's already."""
        if self.shared.cta.ended:
            self.cluster.report(
                FindingKind.RACE,
                f"{self}: signalled after its CTA has ended (let one of its warps wait for that)",
                place,
                self.place,
            )

    def _check_tx(self, place: Place | None) -> None:
        if abs(self.tx) > MAX_COUNT:
            self.cluster.report(
                FindingKind.BARRIER,
                f"{self}: got a tx-count of {self.tx}, allowed: -{MAX_COUNT} to {MAX_COUNT}",
                place,
                self.place,
            )

    def _check_copies(self) -> None:
        """A CTA may end, and its shared memory go to another one, before a copy nobody awaits."""
        if self._copied is None:
            return
        clock, place = self._copied
        if all(warp.agent.vector[self.component] < clock for warp in self.cluster.warps):
            self.cluster.report(
                FindingKind.RESOURCE,
                f"{self}: no warp ever waited for this copy to complete, so its CTA may end while "
                "its shared memory is written",
                place,
                self.place,
            )

    def _join(self, vector: Vector | None) -> None:
        if vector is not None:
            if self._arriving is None:
                self._arriving = self.cluster.clocks.zeros()
            np.maximum(self._arriving, vector, out=self._arriving)

    def _advance(self) -> None:
        self.cluster.progress += 1
        if self.pending or self.tx:
            return
        self.phase += 1
        self.cluster.trace_barrier(self)
        self.pending = self.expected
        self.arrivals = []
        if self._arriving is not None:
            np.maximum(self.released, self._arriving, out=self.released)
        self.released[self.component] = self.base + self.phase
        self._arriving = None

    def __str__(self) -> str:
        return (
            f"mbarrier at {self.label} (phase {self.phase}, {self.pending} of {self.expected} "
            f"arrivals pending, {self.tx} bytes outstanding)"
        )


def mbarrier_at(warp: Warp, shared: SharedMemory, offset: int) -> MBarrier:
    """The mbarrier at an offset of a CTA's shared memory, for an operation of ``warp``.

    That the warp cannot know of its initialisation is noted as a race.

    Raises:
        KernelFault: there is none.
    """
    barrier = shared.barriers.get(offset)
    if barrier is None:
        live = ", ".join(str(at - RESERVED) for at in sorted(shared.barriers)) or "none"
        raise warp.fault(
            f"mbarrier: got byte {offset - RESERVED} of the {shared.name}, where nothing has "
            f"initialised one; there are mbarriers at: {live}"
        )
    if not barrier.known_to(warp.agent.vector):
        warp.report(
            FindingKind.RACE,
            f"{barrier}: used, but nothing orders its initialisation before (a fence and a barrier "
            "of the CTA or cluster)",
            barrier.place,
        )
    return barrier


class PhaseWait(Wait):
    """A ``try_wait`` on an mbarrier."""

    times_out = True

    def __init__(self, barrier: MBarrier, phase_done: int) -> None:
        self.barrier, self._parity = barrier, phase_done

    def ready(self) -> bool:
        return self.barrier.done(self._parity)

    def describe(self) -> str:
        barrier = self.barrier
        arrived = ", ".join(f"line {p.instruction.line}" for p in barrier.arrivals[-4:]) or "none"
        return (
            f"parity {self._parity} of the {barrier}, initialised at PTX line "
            f"{barrier.place.instruction.line}; arrivals of this phase: {arrived}"
        )
