"""Shared memory of one CTA, and how CTAs of a cluster address each other's.

A 32-bit shared address carries the CTA's rank in the cluster in bits 24 to 31, and the first KiB is
the system's: ptxas lowers the address of a shared variable to ``(rank << 24) + 0x400 + offset``.

Source: SASS of ptxas 13.4 for ``mapa``, ``getctarank`` and shared symbols; CUTLASS's
``Sm100MmaPeerBitMask`` relies on bit 24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.memory import (
    SHARED_WINDOW,
    WINDOW_MASK,
    Addresses,
    Block,
    Lanes,
    Offsets,
    load,
    store,
)
from fa4gen.emulator.shadow import Access, Shadow

if TYPE_CHECKING:
    from fa4gen.emulator.barriers import MBarrier
    from fa4gen.emulator.machine import Cta
    from fa4gen.emulator.warp import Warp

RESERVED = 0x400
"""Bytes at the start that belong to the system."""
RANK_SHIFT = 24
OFFSET_MASK = (1 << RANK_SHIFT) - 1
CELL_BYTES = 4
"""Granularity of the race checks; two warps writing halves of one cell look like a race."""


class SharedMemory(Block):
    """The shared memory of one CTA.

    Attributes:
        cta: Whose it is.
        shadow: Of its cells of :data:`CELL_BYTES`.
        barriers: Its mbarriers by offset.
    """

    def __init__(self, cta: Cta, size: int) -> None:
        data = np.full(RESERVED + size, 0xA5, np.uint8)
        super().__init__(cta.rank << RANK_SHIFT, data, f"shared memory of CTA {cta.linear_index}")
        self.cta, cluster = cta, cta.cluster
        self.shadow = Shadow(
            -(-len(data) // CELL_BYTES),
            self.name,
            lambda cell: f"byte {cell * CELL_BYTES - RESERVED} of {size}",
            cluster.clocks,
            cluster.report,
        )
        self.barriers: dict[int, MBarrier] = {}

    def cells(self, offsets: Offsets, size: int) -> npt.NDArray[np.intp]:
        """The cells of ``size`` bytes from each of ``offsets`` on."""
        first = offsets // CELL_BYTES
        if size <= CELL_BYTES:
            return first
        return (first[:, None] + np.arange(size // CELL_BYTES)).ravel()

    def read(self, warp: Warp, addresses: Addresses, bits: int, count: int) -> Lanes:
        """An ordinary load of the active lanes: ``(count, 32)``.

        Raises:
            KernelFault: outside the memory, misaligned, or on an mbarrier.
        """
        values, _, offsets = load(warp, self.block_of, addresses, bits, count)
        self.touched(warp, offsets, bits * count // 8, write=False)
        return values

    def write(self, warp: Warp, addresses: Addresses, bits: int, values: Lanes) -> None:
        """An ordinary store of the active lanes' ``(count, 32)`` values.

        Raises:
            KernelFault: as :meth:`read`.
        """
        _, offsets = store(warp, self.block_of, addresses, bits, values)
        self.touched(warp, offsets, bits * len(values) // 8, write=True)

    def check(self, warp: Warp, low: int, high: int) -> None:
        """Refuse offsets outside of what the launch asked for.

        Raises:
            KernelFault: ``low`` or ``high`` (inclusive) is outside.
        """
        if low < RESERVED or high >= len(self.data):
            raise warp.fault(
                f"{self.name}: got bytes {low - RESERVED} to {high - RESERVED}, allowed: 0 to "
                f"{len(self.data) - RESERVED - 1}"
            )

    def block_of(self, warp: Warp, low: int, high: int) -> Block:
        """This memory, for addresses ``low`` to ``high``.

        Raises:
            KernelFault: they are outside.
        """
        self.check(warp, low - self.base, high - self.base)
        return self

    def touched(
        self, warp: Warp, offsets: Offsets, size: int, write: bool, strong: bool = False
    ) -> None:
        """Check and remember that the warp itself touched ``size`` bytes from each offset on.

        Args:
            strong: Whether it may meet another strong access unordered: see :class:`Shadow`.

        Raises:
            KernelFault: it hit an mbarrier, whose bytes only mbarrier instructions may touch
                (PTX ISA 9.7.13.15.1).
        """
        if self.barriers:
            low, high = int(offsets.min()), int(offsets.max()) + size
            for at in self.barriers:
                if low - 8 < at < high and ((offsets < at + 8) & (offsets + size > at)).any():
                    verb = "write" if write else "read"
                    raise warp.fault(
                        f"{self.name}: got an ordinary {verb} of the mbarrier at byte "
                        f"{at - RESERVED}; mbarrier.inval comes first"
                    )
        record = self.shadow.write if write else self.shadow.read
        record(self.cells(offsets, size), ordinary(warp), strong)
        if write:
            warp.cta.cluster.progress += 1


def ordinary(warp: Warp) -> Access:
    """The access a warp makes by itself, now."""
    agent = warp.agent
    return Access(agent.stamp(), agent.vector, warp.place())


def asynchronous(warp: Warp, source: Source, clock: int) -> Access:
    """The access of one of a warp's asynchronous sources, knowing what the warp knows now."""
    agent = warp.agent
    return Access((agent.source(source), clock), agent.vector.copy(), warp.place(), proxy=True)


def split(address: int) -> tuple[int, int]:
    """(rank, offset) of a shared address."""
    return address >> RANK_SHIFT & 0xFF, address & OFFSET_MASK


def target(warp: Warp, address: int, space: str) -> tuple[SharedMemory, int]:
    """The shared memory that one address names, and the offset in it.

    Args:
        space: ``shared::cta`` (or ``shared``), ``shared::cluster``, or empty for a generic address.

    Raises:
        KernelFault: the address is in no CTA of the cluster, or not in the one that may be named.
    """
    if not space:
        if address & WINDOW_MASK != SHARED_WINDOW:
            raise warp.fault(f"got the generic address {address:#x}, which is not in shared memory")
        address &= ~WINDOW_MASK
    rank, offset = address >> RANK_SHIFT, address & OFFSET_MASK
    if rank == warp.cta.rank:
        return warp.cta.shared, offset
    ctas = warp.cta.cluster.ctas
    if rank >= len(ctas):
        raise warp.fault(
            f"shared memory: got address {address:#x}, in CTA {rank} of a cluster of {len(ctas)}"
        )
    if space in {"shared", "shared::cta"}:
        raise warp.fault(
            f"shared memory: got address {address:#x}, in CTA {rank} of the cluster, where "
            f".{space} means the warp's own CTA, {warp.cta.rank}"
        )
    if ctas[rank].ended:
        warp.report(
            FindingKind.RACE,
            f"{ctas[rank].shared.name}: touched by another CTA after its own has ended (wait for "
            "the peers at the end of the kernel)",
        )
    return ctas[rank].shared, offset


def one_cta(warp: Warp, addresses: Addresses) -> SharedMemory:
    """The shared memory that the active lanes' ``shared::cluster`` addresses lie in.

    Raises:
        KernelFault: in more than one CTA's, or in one's that is not in the cluster.
    """
    active = addresses if warp.mask is None else addresses[warp.mask]
    ranks = active >> np.uint64(RANK_SHIFT)
    rank = int(ranks[0])
    if (ranks != ranks[0]).any():
        raise warp.fault(
            f"shared memory: got addresses in CTAs {sorted(set(ranks.tolist()))} at once"
        )
    ctas = warp.cta.cluster.ctas
    if rank >= len(ctas):
        raise warp.fault(
            f"shared memory: got address {int(active[0]):#x}, in CTA {rank} of a cluster of "
            f"{len(ctas)}"
        )
    return ctas[rank].shared
