"""What bulk and tensor copies share: where they land, whom they tell, and how they are waited for.

A copy into shared memory signals an mbarrier; its writes carry the barrier's clock, so that waiting
for the phase is what makes them known. A copy out of shared memory belongs to a bulk group of the
thread that issued it; waiting for the group makes known that the source is free again.

Source: PTX ISA 9.1, sections 9.7.9.25.1 to 9.7.9.25.5. The mbarrier is reached through the generic
proxy (9.7.9.25.4.1), so its initialisation needs no proxy fence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.barriers import MBARRIER_BYTES, MBarrier, mbarrier_at
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.shadow import Access, Cells
from fa4gen.emulator.shared import CELL_BYTES, OFFSET_MASK, RANK_SHIFT, RESERVED, target

if TYPE_CHECKING:
    from fa4gen.emulator.clocks import Vector
    from fa4gen.emulator.shared import SharedMemory
    from fa4gen.emulator.warp import Mask, Warp

ALIGNMENT = 16
"""Bytes; of the addresses and sizes of linear copies."""
_GROUPS = "bulk groups"


@dataclass(frozen=True, slots=True)
class Landing:
    """One CTA's share of a copy: where it is written, and the mbarrier that is told."""

    shared: SharedMemory
    offset: int
    barrier: MBarrier

    def complete(
        self, cells: Cells, size: int, vector: Vector, place: Place, atomic: bool = False
    ) -> None:
        """Note the write of ``cells``, whose data are there, and signal ``size`` bytes.

        Args:
            vector: What the copy may rely on: what its warp knew when it was issued.
            atomic: Whether it is a reduction, which may meet others unordered.
        """
        access = Access(self.barrier.stamp, vector, place, proxy=True)
        self.shared.shadow.write(cells, access, strong=atomic)
        self.barrier.copied(place)
        self.barrier.complete_tx(size, None, place)


@dataclass(frozen=True, slots=True)
class Route:
    """How a load names its destination.

    Attributes:
        space: Of the destination: ``shared::cta`` or ``shared::cluster``.
        multicast: Whether it goes to all CTAs of a mask.
        pair: Whether the mbarrier may be in either CTA of a pair (``.cta_group::2``).
    """

    space: str
    multicast: bool = False
    pair: bool = False

    def landings(self, warp: Warp, address: int, barrier: int, ranks: int) -> list[Landing]:
        """Where a copy to ``address`` lands.

        Args:
            barrier: Address of the mbarrier.
            ranks: The CTAs to write to, a bit each; of a multicast only.

        Raises:
            KernelFault: no such CTA or mbarrier, or the mbarrier is in a CTA that it must not be
                in.
        """
        ctas = warp.cta.cluster.ctas
        if not self.multicast:
            shared, offset = target(warp, address, self.space)
            home = shared.cta.rank
            other = barrier >> RANK_SHIFT
            if other != home and not (self.pair and other ^ home == 1):
                raise warp.fault(
                    f"got a destination in CTA {home} of the cluster, an mbarrier in CTA {other}, "
                    f"allowed: {'the same pair' if self.pair else 'the same CTA'}"
                )
            told, at = target(warp, barrier, "shared::cluster")
            return [Landing(shared, offset, mbarrier_at(warp, told, at))]
        if ranks >> len(ctas):
            raise warp.fault(f"got the CTA mask {ranks:#x} in a cluster of {len(ctas)}")
        found = []
        for rank in range(len(ctas)):
            if not ranks >> rank & 1:
                continue
            home = rank & ~1 | barrier >> RANK_SHIFT & 1 if self.pair else rank
            shared, offset = _moved(warp, address, rank)
            told, at = _moved(warp, barrier, home)
            found.append(Landing(shared, offset, mbarrier_at(warp, told, at)))
        return found


def shared_address(warp: Warp, address: int, space: str) -> int:
    """The shared::cluster address of an operand, which may be generic (no ``space``).

    Raises:
        KernelFault: it is in no shared memory that ``space`` allows.
    """
    shared, offset = target(warp, address, space)
    return shared.cta.rank << RANK_SHIFT | offset


def guard(warp: Warp, shared: SharedMemory, low: int, high: int) -> None:
    """Refuse to write offsets ``low`` to ``high`` (exclusive).

    Raises:
        KernelFault: they are not in the memory, or there is an mbarrier.
    """
    shared.check(warp, low, high - 1)
    for at in shared.barriers:
        if low - MBARRIER_BYTES < at < high:
            raise warp.fault(
                f"{shared.name}: got a copy to bytes {low - RESERVED} to {high - 1 - RESERVED}, "
                f"over the mbarrier at byte {at - RESERVED}"
            )


def span_cells(low: int, high: int) -> Cells:
    """The cells of offsets ``low`` to ``high`` (exclusive)."""
    return np.arange(low // CELL_BYTES, -(-high // CELL_BYTES))


def check_linear(warp: Warp, size: int, *addresses: int) -> None:
    """Hold a linear copy to multiples of 16 bytes.

    Raises:
        KernelFault: its size or one of its addresses is none.
    """
    for what, value in (("size", size), *(("address", each) for each in addresses)):
        if value % ALIGNMENT:
            raise warp.fault(f"got {what} {value:#x}, allowed: multiples of {ALIGNMENT} bytes")


@dataclass(slots=True)
class _Outgoing:
    """A copy out of shared memory, and its number among those of its warp."""

    serial: int
    op: AsyncOp


class BulkGroups:
    """The copies out of shared memory that one warp has not waited for, in bulk groups by lane."""

    def __init__(self, warp: Warp) -> None:
        self._warp = warp
        self._issued = 0
        self._commits: npt.NDArray[np.int64] = np.zeros(len(warp.alive), np.int64)
        self._open: dict[int, list[_Outgoing]] = {}
        self._groups: dict[int, deque[tuple[int, list[_Outgoing]]]] = {}

    def next_read(self) -> Access:
        """The reads of the copy about to be issued; :data:`Source.BULK_READ` counts copies."""
        agent = self._warp.agent
        stamp = agent.source(Source.BULK_READ), self._issued + 1
        return Access(stamp, agent.vector.copy(), self._warp.place(), proxy=True)

    def issue(self, lane: int, perform: Callable[[], None], label: str, size: int) -> None:
        """Send the copy of ``size`` bytes on its way whose reads were asked for last."""
        self._issued += 1
        op = AsyncOp(self._warp.place(), perform, label=label, size=(size,))
        self._open.setdefault(lane, []).append(_Outgoing(self._issued, op))
        self._warp.cta.cluster.engine.submit(op)

    def commit(self, active: Mask) -> None:
        """Make a group of what each active lane has issued since its last."""
        self._commits += active
        for lane in [lane for lane in self._open if active[lane]]:
            groups = self._groups.setdefault(lane, deque())
            groups.append((int(self._commits[lane]), self._open.pop(lane)))

    def wait(self, active: Mask, keep: int, reads_only: bool) -> None:
        """Have all but the ``keep`` latest groups of each active lane complete."""
        engine = self._warp.cta.cluster.engine
        for lane, groups in self._groups.items():
            while active[lane] and groups and groups[0][0] <= self._commits[lane] - keep:
                for copy in groups.popleft()[1]:
                    engine.force(copy.op)
        left = [copy.serial for copy in self._outstanding()]
        over = min(left) - 1 if left else self._issued
        self._warp.agent.observed(Source.BULK_READ, over)
        if not reads_only:
            self._warp.agent.observed(Source.BULK_WRITE, over)

    def check_end(self) -> None:
        """A CTA that ends gives its shared memory away, read by its copies or not."""
        committed = {id(copy) for groups in self._groups.values() for _, g in groups for copy in g}
        for copy in self._outstanding():
            what = "waited for" if id(copy) in committed else "committed to a bulk group"
            self._warp.cta.cluster.report(
                FindingKind.RESOURCE,
                f"{self._warp.cta.shared.name}: read by a bulk copy that its thread never {what}, "
                "so the CTA may end before it is read",
                copy.op.place,
            )

    def _outstanding(self) -> list[_Outgoing]:
        grouped = [copy for groups in self._groups.values() for _, g in groups for copy in g]
        return grouped + [copy for copies in self._open.values() for copy in copies]


def groups_of(warp: Warp) -> BulkGroups:
    """The bulk groups of a warp."""
    groups = warp.state.get(_GROUPS)
    if groups is None:
        groups = warp.state[_GROUPS] = BulkGroups(warp)
        warp.cta.cluster.at_end.append(groups.check_end)
    assert isinstance(groups, BulkGroups)  # nobody else uses the key
    return groups


def _moved(warp: Warp, address: int, rank: int) -> tuple[SharedMemory, int]:
    """The same byte in another CTA."""
    return target(warp, rank << RANK_SHIFT | address & OFFSET_MASK, "shared::cluster")
