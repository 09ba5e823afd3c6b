"""Wall-clock seconds shared over the problems of a workload."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Clock = Callable[[], float]
"""Seconds since any fixed moment, never running backwards."""


SEARCH_SHARE = 0.5
"""Least share of a problem's seconds for what follows its first evaluation, however long that took:
starting a worker, heating the card and a first compile are no search."""


@dataclass
class Budget:
    """Splits what is left by weight, so that time one problem leaves goes to those after it.

    Raises:
        ValueError: a weight or a total that is not above 0.
    """

    total_s: float | None
    """Seconds for all problems together; ``None`` is no limit."""
    weights: Sequence[float]
    """One per problem."""
    clock: Clock = time.monotonic
    _start_s: float = field(init=False)

    def __post_init__(self) -> None:
        if any(not weight > 0 for weight in self.weights):
            raise ValueError(f"weights: got {list(self.weights)}, allowed: numbers above 0")
        if self.total_s is not None and not self.total_s > 0:
            raise ValueError(f"budget_s: got {self.total_s}, allowed: seconds above 0, or none")
        self._start_s = self.clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the budget was made."""
        return self.clock() - self._start_s

    @property
    def left_s(self) -> float:
        """Seconds not used yet; infinite without a limit, never below 0."""
        return math.inf if self.total_s is None else max(0.0, self.total_s - self.elapsed_s)

    def share_s(self, index: int, weight_to_come: float) -> float:
        """Seconds problem ``index`` may use, with others of this weight in all to do after it."""
        weight = self.weights[index]
        return self.left_s * weight / (weight + weight_to_come)


@dataclass(frozen=True)
class Deadline:
    """A moment to stop at."""

    seconds: float
    """Length from the start; may be infinite."""
    start_s: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock = time.monotonic) -> Deadline:
        """A deadline that many seconds from now."""
        return cls(seconds, clock(), clock)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start_s

    @property
    def left_s(self) -> float:
        """Seconds to go; may be infinite, never below 0."""
        return max(0.0, self.seconds - self.elapsed_s)

    def for_search(self) -> Deadline:
        """This one, or a new one where less than :data:`SEARCH_SHARE` of it is left."""
        least_s = self.seconds * SEARCH_SHARE
        return self if self.left_s >= least_s else Deadline.after(least_s, self.clock)

    def passed(self, share: float = 1.0) -> bool:
        """Whether that share of the time is used up."""
        return self.elapsed_s >= self.seconds * share
