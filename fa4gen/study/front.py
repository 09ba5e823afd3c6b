"""Which results nothing else beats in both speed and accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from fa4gen.study.results import ResultRow, StudyResult

RESOLUTION = 0.01
"""Relative difference of an error below which two kernels count as equally exact: three times what
one draw of P's roundings makes of it."""


class Scored(Protocol):
    """Something with a speed and errors."""

    @property
    def gain(self) -> float | None:
        """Speed over the default's; ``None`` without a time."""

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Errors by measure."""


S = TypeVar("S", bound=Scored)


def error_level(error: float) -> float:
    """The error in steps of :data:`RESOLUTION`."""
    return round(math.log(error) / math.log1p(RESOLUTION)) if error > 0 else -math.inf


def pareto_front(scored: Sequence[S], measure: str) -> list[S]:
    """Those that no other beats, fastest first: of one error level only the fastest.

    What has no time or no such error takes no part.
    """
    ranked = sorted(
        (each for each in scored if each.gain is not None and measure in each.accuracy),
        key=lambda each: (-(each.gain or 0.0), each.accuracy[measure]),
    )
    front: list[S] = []
    least = math.inf
    for each in ranked:
        level = error_level(each.accuracy[measure])
        if level < least:
            front.append(each)
            least = level
    return front


class Timed(Scored, Protocol):
    """Something scored whose speed is known to an interval."""

    @property
    def gain_low(self) -> float | None:
        """Lower bound of the gain."""

    @property
    def gain_high(self) -> float | None:
        """Upper bound of the gain."""


T = TypeVar("T", bound=Timed)


def contenders(rows: Sequence[T], measure: str, most: int) -> list[T]:
    """The rows that the noise of their times may hide from the front, fastest first.

    A row is out when another is as exact and faster beyond doubt. Without a measure all count as
    equally exact.
    """
    timed = [row for row in rows if row.gain is not None]

    def level(row: T) -> float:
        return error_level(row.accuracy[measure]) if measure else 0.0

    hopeful = [
        row
        for row in timed
        if not any(
            level(other) <= level(row) and (other.gain_low or 0.0) > (row.gain_high or 0.0)
            for other in timed
        )
    ]
    return sorted(hopeful, key=lambda row: -(row.gain or 0.0))[:most]


def front_of(result: StudyResult) -> list[ResultRow]:
    """The Pareto front of a study; of a study of speed alone, the fastest."""
    if result.measure:
        return pareto_front(result.timed, result.measure)
    return sorted(result.timed, key=lambda row: -(row.gain or 0.0))[:1]
