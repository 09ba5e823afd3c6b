"""Where warps meet: the named barriers of a CTA, and the barrier of a cluster.

Source: PTX ISA 9.1, sections 9.7.13.1 (bar) and 9.7.13.3 (barrier.cluster).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.clocks import Vector
from fa4gen.emulator.findings import Place
from fa4gen.emulator.ordering import fenced
from fa4gen.emulator.warp import LANES, Wait

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cluster, Cta
    from fa4gen.emulator.warp import Warp


class Round:
    """One use of a named barrier, from its first arrival to its completion."""

    def __init__(self, wanted: int, vector: Vector) -> None:
        self.wanted, self.vector = wanted, vector
        self.everyone = False
        """Whether somebody came without a count: warps that have ended do not matter."""
        self.arrived: dict[int, Place] = {}
        """By warp of the CTA, its last arrival."""
        self.threads = 0
        """Counted by arrival: hardware counts a warp again that arrives and then waits, which is
        how FlashAttention-3 and 4 start the turns of their warpgroups."""
        self.ones, self.voters = 0, 0
        """Of ``barrier.red``: predicates that hold, and how many there were."""
        self.complete = False


class NamedBarrier:
    """One of a CTA's sixteen ``bar`` barriers."""

    def __init__(self, cta: Cta, number: int) -> None:
        self._cta, self.number = cta, number
        self._round: Round | None = None

    def arrive(self, warp: Warp, wanted: int | None, vote: tuple[int, int] = (0, 0)) -> Round:
        """Count the warp in.

        Args:
            wanted: Threads that complete the barrier; ``None`` for all of the CTA that have not
                ended.
            vote: How many of the warp's predicates hold, and how many it has.

        Returns:
            What waiting is for.

        Raises:
            KernelFault: ``wanted`` is no multiple of 32, or differs from the others'.
        """
        total = LANES * len(self._cta.warps)
        threads = total if wanted is None else wanted
        if threads % LANES or not 0 < threads <= total:
            raise warp.fault(
                f"barrier {self.number}: got {threads} threads, must be a multiple of 32 up to "
                f"{total}, the CTA's"
            )
        now = self._round or Round(threads, self._cta.cluster.clocks.zeros())
        if threads != now.wanted:
            raise warp.fault(f"{self}: got {threads} threads, others came for {now.wanted}")
        self._round = now
        now.everyone |= wanted is None
        now.arrived[warp.index] = warp.place()
        now.threads += LANES
        now.ones, now.voters = now.ones + vote[0], now.voters + vote[1]
        np.maximum(now.vector, warp.agent.release(), out=now.vector)
        self._cta.cluster.progress += 1
        self._cta.cluster.trace_signal(now, warp.place())
        self.settle()
        return now

    def settle(self) -> None:
        """Complete the round if everyone is there: also asked when a warp ends."""
        now = self._round
        if now is None:
            return
        here = now.threads >= now.wanted
        if not here and now.everyone:
            here = all(warp.done or warp.index in now.arrived for warp in self._cta.warps)
        if here:
            now.complete, self._round = True, None

    def __str__(self) -> str:
        now = self._round
        if now is None:
            return f"barrier {self.number} (nobody is there)"
        here = ", ".join(map(str, sorted(now.arrived)))
        return (
            f"barrier {self.number} ({now.threads} of {now.wanted} threads are there: warps {here})"
        )


class NamedWait(Wait):
    """For a round that the warp is counted in; then its instruction is executed again."""

    def __init__(self, barrier: NamedBarrier, now: Round) -> None:
        self._barrier, self._round = barrier, now

    def ready(self) -> bool:
        return self._round.complete

    def describe(self) -> str:
        return str(self._barrier)


class ClusterBarrier:
    """``barrier.cluster``: all warps of all CTAs of a cluster arrive, then wait."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.generation = 0
        self.arrived: set[tuple[int, int]] = set()
        self._arriving: Vector = cluster.clocks.zeros()
        self._released: Vector = cluster.clocks.zeros()

    def arrive(self, warp: Warp, relaxed: bool) -> int:
        """Count the warp in; a relaxed arrival releases what a fence before it did.

        Returns:
            The generation that waiting is for.

        Raises:
            KernelFault: the warp has arrived already in this phase.
        """
        key = (warp.cta.rank, warp.index)
        if key in self.arrived:
            raise warp.fault(f"{self}: warp {warp.index} arrives twice in one phase")
        self.arrived.add(key)
        self._cluster.trace_signal(("cluster", self.generation), warp.place())
        handed = fenced(warp) if relaxed else warp.agent.release()
        if handed is not None:
            np.maximum(self._arriving, handed, out=self._arriving)
        self._cluster.progress += 1
        generation = self.generation
        self.settle()
        return generation

    def settle(self) -> None:
        """Complete the phase if everyone alive has arrived: also asked when a warp ends."""
        waiting = {(w.cta.rank, w.index) for w in self._cluster.warps if not w.done}
        if self.arrived and waiting <= self.arrived:
            self.generation += 1
            np.maximum(self._released, self._arriving, out=self._released)
            self.arrived = set()

    def acquire(self, warp: Warp) -> None:
        """Let a warp that has waited know what the others did before."""
        warp.agent.acquire(self._released)

    def __str__(self) -> str:
        alive = {(w.cta.rank, w.index) for w in self._cluster.warps if not w.done}
        missing = ", ".join(f"CTA {c} warp {w}" for c, w in sorted(alive - self.arrived)[:4])
        return (
            f"cluster barrier ({len(self.arrived & alive)} of {len(alive)} warps are there; "
            f"missing, CTAs by rank: {missing or 'none'})"
        )


class ClusterWait(Wait):
    """A ``barrier.cluster.wait``."""

    def __init__(self, barrier: ClusterBarrier, generation: int) -> None:
        self._barrier, self._generation = barrier, generation

    def ready(self) -> bool:
        return self._barrier.generation > self._generation

    def describe(self) -> str:
        return str(self._barrier)
