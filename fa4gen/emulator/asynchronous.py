"""Work that goes on while the warp that issued it does something else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from fa4gen.core.errors import KernelFault
from fa4gen.emulator.findings import Place
from fa4gen.emulator.warp import located

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cluster
    from fa4gen.emulator.policy import Dice, Policy


class AsyncOp:
    """A copy, an MMA or a commit on its way.

    Args:
        place: What issued it.
        perform: Does the work, all at once: reads the sources, writes the destinations, signals.
        after: Operations that must be complete before.
        label: For traces: ``tma load 16384 B``.
        size: For cycle models: ``(m, n, k)`` of an MMA, ``(bytes,)`` of a copy.
    """

    __slots__ = ("after", "done", "issued", "label", "perform", "place", "size")

    def __init__(
        self,
        place: Place,
        perform: Callable[[], None],
        after: tuple[AsyncOp, ...] = (),
        label: str = "",
        size: tuple[int, ...] = (),
    ) -> None:
        self.done: bool = False
        self.place, self.perform, self.label, self.size = place, perform, label, size
        self.after = tuple(op for op in after if not op.done)
        self.issued = 0

    @property
    def ready(self) -> bool:
        """Whether nothing it has to follow is outstanding."""
        return all(op.done for op in self.after)


class Engine:
    """The outstanding operations of one cluster, completed as the policy says."""

    def __init__(self, cluster: Cluster, policy: Policy, dice: Dice) -> None:
        self._cluster, self._policy, self._dice = cluster, policy, dice
        self.outstanding: list[AsyncOp] = []
        self.completing: AsyncOp | None = None
        """Whose work is being done right now: what it signals is its own."""

    def submit(self, op: AsyncOp) -> AsyncOp:
        """Take an operation on; an eager policy completes it here."""
        op.issued = self._cluster.now
        self._cluster.progress += 1
        self._cluster.trace_submit(op)
        if self._policy.is_eager and op.ready:
            self._complete(op)
        else:
            self.outstanding.append(op)
        return op

    def force(self, op: AsyncOp) -> None:
        """Complete ``op`` now, and first what it has to follow."""
        todo = deque([op])
        while todo:
            last = todo[-1]
            if last.done:
                todo.pop()
            elif last.ready:
                self._complete(last)
                todo.pop()
            else:
                todo.extend(before for before in last.after if not before.done)

    def tick(self) -> None:
        """Between two turns of warps: complete what the dice say."""
        for _ in range(self._dice.completions(len(self.outstanding))):
            if not self.complete_one():
                return

    def complete_one(self) -> bool:
        """Complete one operation that may; ``False`` if there is none."""
        ready = [op for op in self.outstanding if op.ready]
        if not ready:
            return False
        self._complete(self._dice.pick(ready))
        return True

    def _complete(self, op: AsyncOp) -> None:
        self.completing = op
        try:
            op.perform()
        except KernelFault as error:
            raise located(error, op.place) from error
        finally:
            self.completing = None
        op.done, op.after = True, ()
        if op in self.outstanding:
            self.outstanding.remove(op)
        self._cluster.progress += 1
        self._cluster.trace_async(op)
