"""Which process tunes which problem: they are handed out one by one, to whoever is free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fa4gen.core.problem import AttentionProblem


class Turns:
    """The problems of a workload, each handed out once.

    Processes with the same folder share them: to take a problem is to create a file, which one
    process alone can do.
    """

    def __init__(
        self,
        count: int,
        folder: Path | None = None,
        processes: int = 1,
        order: Sequence[int] | None = None,
    ) -> None:
        """Hand out ``count`` problems.

        Args:
            count: problems of the workload, the same in all processes.
            folder: empty at the start, seen by all processes; ``None`` for one process.
            processes: how many share them.
            order: of the problems' indices, the same in all processes; by default theirs.
        """
        self.count, self.folder, self.processes = count, folder, processes
        self._order = tuple(range(count) if order is None else order)
        self._mine: set[int] = set()

    def next(self) -> int | None:
        """The first that nobody has, which is this process's now; ``None`` when all are taken.

        Raises:
            OSError: the folder cannot be written.
        """
        return next((index for index in self.left() if self._take(index)), None)

    def ahead(self) -> int | None:
        """As :meth:`next`, for the problem after the present one, whose kernels can be compiled.

        ``None`` too where fewer are left than processes: with two problems in hand, one process
        would be at work while another has none.
        """
        return self.next() if len(self.left()) >= self.processes else None

    def likely(self) -> int | None:
        """What :meth:`next` would give; somebody else may take it before."""
        return next(iter(self.left()), None)

    def put_back(self, index: int) -> None:
        """Let anybody have a problem of this process that it has not begun."""
        self._mine.remove(index)
        if self.folder is not None:
            (self.folder / str(index)).unlink()

    def weight_to_come(self, weights: Sequence[float]) -> float:
        """What this process has to expect of those that nobody has."""
        return sum(weights[index] for index in self.left()) / self.processes

    def left(self) -> list[int]:
        """Those that nobody has, in the order of their turns."""
        gone = self._mine
        if self.folder is not None:
            names = [path.name for path in self.folder.iterdir()]
            gone = gone | {int(name) for name in names if name.isdecimal()}
        return [index for index in self._order if index not in gone]

    def _take(self, index: int) -> bool:
        if self.folder is not None:
            try:
                (self.folder / str(index)).touch(exist_ok=False)
            except FileExistsError:
                return False
        self._mine.add(index)
        return True


def longest_first(problems: Sequence[AttentionProblem]) -> list[int]:
    """Indices by work, so that processes that share the problems end at about the same time."""
    return sorted(range(len(problems)), key=lambda index: -problems[index].flops)
