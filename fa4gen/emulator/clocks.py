"""Who has observed what: vector clocks for the race checks.

Every agent (a warp) carries a vector with one component for each *source of accesses*. A warp is
several sources, because its accesses take effect in different ways: what it does itself, what its
copies and MMAs do later, and what of its own writes it has fenced for the asynchronous proxy. Each
mbarrier is a source too: copies that signal it are observed by waiting for its phase.

An access is stamped (source, clock). It is ordered before whatever agent ``a`` does next if
``a.vector[source] >= clock``. Releases (arrivals) hand the vector on, acquires (waits) take it
over.

Source of the ordering rules: PTX ISA 9.1, sections 8 (memory consistency), 9.7.13.15 (mbarrier) and
9.7.16.6 (tcgen05).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Vector: TypeAlias = npt.NDArray[np.int64]


class Source(IntEnum):
    """The sources of accesses that a warp is, as offsets from its first component."""

    SELF = 0
    """Its ordinary loads and stores. The clock goes up at each release."""
    FENCED = 1
    """Its ordinary writes, made visible to the asynchronous proxy by a fence up to this clock."""
    BULK_READ = 2
    """Shared memory read by its bulk stores; the clock is the number of the bulk group."""
    BULK_WRITE = 3
    """Memory written by its bulk stores; likewise."""
    CP_ASYNC = 4
    """Shared memory written by its ``cp.async``; the clock is the number of the group."""
    WGMMA = 5
    """Shared memory read by its ``wgmma``; the clock is the number of the wgmma group."""
    TENSOR = 6
    """Memory read and written by its ``tcgen05.mma`` and ``.cp``; the clock counts them."""
    TMEM_LOAD = 7
    """Tensor memory read by its ``tcgen05.ld``; the clock counts them."""
    TMEM_STORE = 8
    """Tensor memory written by its ``tcgen05.st``; the clock counts them."""


_SOURCES = len(Source)
NOBODY = 0
"""The component of memory that nobody has touched; every vector has it at 0."""


class Clocks:
    """All agents of a cluster, and the numbering of components."""

    def __init__(self, capacity: int = 512) -> None:
        self._count = 1
        self._vectors: list[Agent] = []
        self.capacity = capacity
        self.proxy_view = np.arange(capacity)
        """``vector[proxy_view]`` is what the asynchronous proxy may rely on: of ordinary writes
        only the fenced ones."""
        self.words: dict[int, Vector] = {}
        """What the last release to a word of memory hands on, by address: see
        :mod:`fa4gen.emulator.ordering`."""

    def component(self, count: int = 1) -> int:
        """The first of ``count`` new components."""
        first = self._count
        self._count += count
        if self._count > self.capacity:
            raise MemoryError(f"vector clocks: got {self._count} components of {self.capacity}")
        return first

    def agent(self) -> Agent:
        """A new warp."""
        first = self.component(_SOURCES)
        self.proxy_view[first] = first + Source.FENCED
        return Agent(first, self)

    def zeros(self) -> Vector:
        """A vector that has observed nothing."""
        return np.zeros(self.capacity, np.int64)


class Agent:
    """What one warp has observed, itself included."""

    __slots__ = ("clocks", "first", "vector")

    def __init__(self, first: int, clocks: Clocks) -> None:
        self.first, self.clocks = first, clocks
        self.vector = clocks.zeros()
        self.vector[first] = 1

    def stamp(self) -> tuple[int, int]:
        """(source, clock) of an ordinary access now."""
        return self.first, int(self.vector[self.first])

    def source(self, source: Source) -> int:
        """The component of one of its sources."""
        return self.first + source

    def observed(self, source: Source, clock: int) -> None:
        """Its own asynchronous work up to ``clock`` is complete as far as it can see."""
        at = self.first + source
        self.vector[at] = max(self.vector[at], clock)

    def release(self) -> Vector:
        """What others get to know by an arrival now: a copy of the vector."""
        handed = self.vector.copy()
        self.vector[self.first] += 1
        return handed

    def acquire(self, vector: Vector | None) -> None:
        """Take over what somebody released."""
        if vector is not None:
            np.maximum(self.vector, vector, out=self.vector)

    def fence_proxy(self) -> None:
        """``fence.proxy.async``: ordinary writes known here become visible to the other proxy."""
        view = self.clocks.proxy_view
        fenced = np.flatnonzero(view != np.arange(len(view)))
        targets = view[fenced]
        self.vector[targets] = np.maximum(self.vector[targets], self.vector[fenced])
        self.vector[self.first] += 1  # what it writes from here on is not fenced
