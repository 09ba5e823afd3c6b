"""What is remembered of every cell of a memory, to check each access against the ones before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.clocks import NOBODY, Clocks, Vector
from fa4gen.emulator.findings import FindingKind, Place

Cells: TypeAlias = npt.NDArray[np.intp]
"""Indices of cells; each at most once, or repeated without harm."""

Report: TypeAlias = Callable[[FindingKind, str, Place, Place | None], None]


class Access:
    """Who touches the memory, as what, knowing what.

    Attributes:
        stamp: (source, clock): see :mod:`fa4gen.emulator.clocks`.
        vector: What the access may rely on.
        place: For reports.
        proxy: Whether it goes through the asynchronous proxy (TMA, wgmma, tcgen05).
    """

    __slots__ = ("place", "proxy", "stamp", "vector")

    def __init__(
        self, stamp: tuple[int, int], vector: Vector, place: Place, proxy: bool = False
    ) -> None:
        self.stamp, self.vector, self.place, self.proxy = stamp, vector, place, proxy


class Shadow:
    """Last write and last reads of every cell of one memory.

    Args:
        cells: How many there are.
        name: Of the memory: ``shared memory of CTA 3``.
        locate: Text for a cell: ``byte 1024``.
    """

    def __init__(
        self, cells: int, name: str, locate: Callable[[int], str], clocks: Clocks, report: Report
    ) -> None:
        self._name, self._locate, self._clocks, self._report = name, locate, clocks, report
        self._writer = np.full(cells, NOBODY, np.intp)
        self._written = np.zeros(cells, np.int64)
        self._write_place = np.zeros(cells, np.int32)
        self._reads: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]] = {}
        self._async_writer: set[int] = set()
        self._places: list[Place] = []
        self._place_numbers: dict[tuple[int, int, int], int] = {}
        self._strong = np.zeros(cells, bool)
        """Whether the last write was strong."""
        self.initialised = np.zeros(cells, bool)

    def read(self, cells: Cells, access: Access, strong: bool = False) -> None:
        """Check and remember a read of ``cells``.

        Args:
            strong: Relaxed, acquire, volatile or atomic: such a read and such a write of the same
                cell are no race (PTX ISA 8.7.1), so it is checked against weak writes only, and
                not remembered, since atomics follow it.
        """
        known = access.vector[self._clocks.proxy_view] if access.proxy else access.vector
        late = known[self._writer[cells]] < self._written[cells]
        if strong:
            late &= ~self._strong[cells]
        if late.any():
            self._blame_write(int(cells[late.argmax()]), access, "reads")
        if not self.initialised[cells].all():
            cell = int(cells[(~self.initialised[cells]).argmax()])
            self._report(
                FindingKind.UNINITIALISED,
                f"{self._name}, {self._locate(cell)}: read, but nothing has written it",
                access.place,
                None,
            )
        if strong:
            return
        source, clock = access.stamp
        clocks, places = self._reads.get(source) or self._new_reader(source)
        clocks[cells] = clock
        places[cells] = self._number(access.place)

    def write(self, cells: Cells, access: Access, strong: bool = False) -> None:
        """Check and remember a write of ``cells``.

        Args:
            strong: As for :meth:`read`. Of several strong writes only the last is remembered.
        """
        known = access.vector
        late = known[self._writer[cells]] < self._written[cells]
        if strong:
            late &= ~self._strong[cells]
        if late.any():
            self._blame_write(int(cells[late.argmax()]), access, "writes")
        for source, (clocks, places) in self._reads.items():
            late = clocks[cells] > known[source]
            if late.any() and source != access.stamp[0]:
                cell = int(cells[late.argmax()])
                self._report(
                    FindingKind.RACE,
                    f"{self._name}, {self._locate(cell)}: written before the last read of it is "
                    "known to be over",
                    access.place,
                    self._places[places[cell]],
                )
        self._writer[cells], self._written[cells] = access.stamp
        self._write_place[cells] = self._number(access.place)
        self._strong[cells] = strong
        self.initialised[cells] = True
        if access.proxy:
            self._async_writer.add(access.stamp[0])

    def forget(self, cells: Cells) -> None:
        """The cells hold nothing any more: freed, or handed to a barrier."""
        self._writer[cells], self._written[cells] = NOBODY, 0
        self.initialised[cells] = False
        for clocks, _ in self._reads.values():
            clocks[cells] = 0

    def _blame_write(self, cell: int, access: Access, verb: str) -> None:
        source = int(self._writer[cell])
        kind, why = FindingKind.RACE, "a write that nothing orders before it"
        if source in self._async_writer:
            kind, why = (
                FindingKind.NOT_COMPLETED,
                "an asynchronous write not yet observed to be over",
            )
        elif access.proxy and access.vector[source] >= self._written[cell]:
            kind, why = FindingKind.PROXY, "an ordinary write without a proxy fence after it"
        self._report(
            kind,
            f"{self._name}, {self._locate(cell)}: {verb} over {why}",
            access.place,
            self._places[self._write_place[cell]],
        )

    def _new_reader(self, source: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        size = len(self._writer)
        self._reads[source] = np.zeros(size, np.int64), np.zeros(size, np.int32)
        return self._reads[source]

    def _number(self, place: Place) -> int:
        key = (place.cta, place.warp, place.instruction.index)
        number = self._place_numbers.get(key)
        if number is None:
            number = self._place_numbers[key] = len(self._places)
            self._places.append(place)
        return number
