"""When asynchronous work completes and which warp runs next.

PTX leaves both open. A right kernel gives the same bits under every policy; each policy is one
extreme (or one sample) of what hardware may do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fa4gen.core.errors import UnknownName

T = TypeVar("T")
_REFUSALS, _SLOW = 0.25, 0.125
_QUANTA = (1, 3, 10, 50, 200, 2000)
"""Instructions a warp may run before the next has its turn, for random policies."""
_HASTE = (1.0, 0.3, 0.03)
"""How often asynchronous work gets the chance to complete before it has to."""


@dataclass(frozen=True, slots=True)
class Policy:
    """``eager``: at once. ``lazy``: when somebody waits for it or nothing else can go on.

    ``seed:N``: at random moments (soon, later, or hardly before it has to, by the seed), and warps
    take turns at random; a few hardly get any, as if they were held up until all others wait.
    """

    name: str

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy of that name.

        Raises:
            UnknownName: not ``eager``, ``lazy`` or ``seed:N``.
        """
        if text in ("eager", "lazy") or re.fullmatch(r"seed:\d+", text):
            return cls(text)
        raise UnknownName("policy", text, ["eager", "lazy", "seed:N"])

    @property
    def is_eager(self) -> bool:
        """Whether copies and MMAs complete as they are issued."""
        return self.name == "eager"

    def dice(self) -> Dice:
        """A fresh source of the policy's decisions."""
        return Dice(self)


class Dice:
    """The decisions of one run."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        seed = int(policy.name.partition(":")[2] or 0)
        self._random = random.Random(seed) if policy.name.startswith("seed:") else None
        self._slow: dict[object, bool] = {}
        self._haste = 0.0 if self._random is None else _HASTE[seed % len(_HASTE)]

    def order(self, warps: Sequence[T]) -> list[T]:
        """In which order runnable warps take their turns."""
        turns = list(warps)
        if self._random is not None:
            self._random.shuffle(turns)
        elif self._policy.name == "lazy":
            turns.reverse()
        return turns

    def quantum(self, warp: object) -> int:
        """Instructions ``warp`` may run before the next has its turn."""
        if self._random is None:
            return _QUANTA[-1]
        if warp not in self._slow:
            self._slow[warp] = self._random.random() < _SLOW
        return _QUANTA[0] if self._slow[warp] else self._random.choice(_QUANTA)

    def completions(self, waiting: int) -> int:
        """How many of ``waiting`` outstanding operations complete now, unforced."""
        if self._random is None or not waiting or self._random.random() >= self._haste:
            return 0
        return self._random.choice((0, 0, 0, 1, 1, 2, waiting))

    def refuses(self) -> bool:
        """Whether a request is refused that hardware may grant or refuse."""
        return self._random is not None and self._random.random() < _REFUSALS

    def pick(self, ready: Sequence[T]) -> T:
        """Which of the operations that may complete does so next."""
        if self._random is not None:
            return self._random.choice(ready)
        return ready[-1]
