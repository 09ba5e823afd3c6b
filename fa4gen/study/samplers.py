"""``fa4gen study sampler``: which search strategy finds a good kernel in the fewest timed trials.

Strategies are raced on recorded sweeps by :mod:`fa4gen.tune.replay`, the machinery of ``fa4gen
replay``; here are the summary over problems and seeds, and the verdict on the tuner's own strategy.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fa4gen.core.errors import ConfigError, MissingDependency, ResourceError
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.replay import Sweep
from fa4gen.study.results import Ending
from fa4gen.tune.replay import SEEDED, Race
from fa4gen.tune.samplers import make_sampler

TUNERS_OWN = SEEDED + "tpe"
"""What ``fa4gen tune`` does: the default, the cycle model's favourites, then TPE."""

STRATEGIES = ("random", "nsga2", "cmaes", "tpe", SEEDED + "random", TUNERS_OWN)
"""Raced by default. ``gp`` can be named as well; it thinks for a second before each trial."""

TOLERANCES = (0.01, 0.03)
"""How much slower than the sweep's best still counts as found."""

TARGET_TRIALS = 20
"""The tuner's own strategy is to be within the first of :data:`TOLERANCES` in so many trials."""

FEWEST_CONFIGS = 8
"""Timed configurations of a problem from which on a search among them says something."""


@dataclass(frozen=True, slots=True)
class Course:
    """One problem of a recorded sweep, as a course to race on."""

    recording: str
    """Name of the file."""
    problem: AttentionProblem
    sku: str
    source: Source
    configs: int
    """Recorded configurations."""
    combinations: int
    """Of the values that occur in them, feasible or not: equal to ``configs`` for a full sweep."""
    default_lacks: float | None
    """Time of the default over the sweep's best, minus 1; ``None`` where it was not recorded."""


@dataclass(frozen=True, slots=True)
class RaceRow:
    """One run of one strategy."""

    course: int
    """Position of its course."""
    strategy: str
    seed: int
    regrets: tuple[float, ...]
    """After each trial: time of the best so far over the sweep's best, minus 1."""

    def trials_within(self, tolerance: float) -> int | None:
        """Trials until within ``tolerance`` of the best; ``None`` when it was not reached."""
        return next((i for i, lack in enumerate(self.regrets, 1) if lack <= tolerance), None)


@dataclass(frozen=True, slots=True)
class Spread:
    """Quartiles of trials over runs; infinite where so many runs did not find it."""

    low: float
    median: float
    high: float
    found: int
    runs: int


@dataclass(frozen=True)
class SamplerResult:
    """All of a study of samplers."""

    courses: tuple[Course, ...]
    rows: tuple[RaceRow, ...]
    strategies: tuple[str, ...]
    seeds: int
    trials: int
    """Most trials of a run."""
    ending: Ending
    left_out: tuple[tuple[str, str], ...] = ()
    """(strategy or problem, why it takes no part)."""
    elapsed_s: float = 0.0
    date: str = ""
    fa4gen: str = ""

    @property
    def hard(self) -> tuple[int, ...]:
        """Courses whose default is not already within the first tolerance: there is something to
        search for."""
        return tuple(
            i
            for i, course in enumerate(self.courses)
            if course.default_lacks is None or course.default_lacks > TOLERANCES[0]
        )

    def spread(
        self, strategy: str, tolerance: float, courses: Iterable[int] | None = None
    ) -> Spread:
        """Over all runs of a strategy on these courses; on all by default."""
        chosen = set(range(len(self.courses)) if courses is None else courses)
        counts = [
            row.trials_within(tolerance)
            for row in self.rows
            if row.strategy == strategy and row.course in chosen
        ]
        return spread_of(counts)

    @property
    def misses(self) -> tuple[int, ...]:
        """Courses on which the tuner's own strategy misses the target (median over seeds)."""
        return tuple(
            i
            for i in range(len(self.courses))
            if self.spread(TUNERS_OWN, TOLERANCES[0], [i]).median > TARGET_TRIALS
        )


def spread_of(counts: Sequence[int | None]) -> Spread:
    """Quartiles of counts of which some are missing, which count as infinite.

    A quartile is one of the counts, never a mean of a count and infinity.
    """
    if not counts:
        return Spread(math.inf, math.inf, math.inf, 0, 0)
    numbers = np.array([math.inf if count is None else float(count) for count in counts])
    low, median, high = (float(np.quantile(numbers, q, method="higher")) for q in (0.25, 0.5, 0.75))
    found = int(np.isfinite(numbers).sum())
    return Spread(low, median, high, found, len(counts))


class RaceListener(Protocol):
    """Told how a study of samplers goes."""

    def on_race(self, done: int, total: int, course: Course, strategy: str) -> None:
        """All runs of a strategy on a course are done."""


def usable(strategies: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The strategies that can run here, and why the others cannot.

    Raises:
        UnknownName: no such sampler.
        ConfigError: none is left.
    """
    able, left_out = [], []
    for strategy in dict.fromkeys(strategies):
        try:
            make_sampler(strategy.removeprefix(SEEDED), 0, 1)
        except MissingDependency as error:
            left_out.append((strategy, str(error)))
        else:
            able.append(strategy)
    if not able:
        reasons = "; ".join(reason for _, reason in left_out)
        raise ConfigError(f"strategies: got none that can run here: {reasons}")
    return tuple(able), tuple(left_out)


def courses_of(
    sweeps: Sequence[tuple[str, Sweep]],
) -> tuple[list[tuple[Course, Race]], tuple[tuple[str, str], ...]]:
    """The problems worth racing on, and why others are not.

    Raises:
        ResourceError: not one is.
    """
    found: list[tuple[Course, Race]] = []
    left_out: list[tuple[str, str]] = []
    for name, sweep in sweeps:
        for problem in sweep.problems:
            timed = sum(
                1
                for (problem_id, _), evaluation in sweep.results.items()
                if problem_id == problem.problem_id and evaluation.timing is not None
            )
            if timed < FEWEST_CONFIGS:
                why = f"{timed} timed configurations, needs {FEWEST_CONFIGS}"
                left_out.append((f"{name}: {problem}", why))
                continue
            race = Race(sweep, problem)
            found.append((_course(name, sweep, race), race))
    if not found:
        raise ResourceError(
            f"sampler study: none of {len(left_out)} recorded problems has {FEWEST_CONFIGS} timed "
            "configurations; record more, for example with `fa4gen study tile_m,tile_n --gpu`"
        )
    return found, tuple(left_out)


def _course(name: str, sweep: Sweep, race: Race) -> Course:
    anchor = sweep.get(race.problem, race.anchor)
    lacks = None
    if anchor is not None and anchor.timing is not None:
        lacks = race.best_gain / anchor.timing.gain - 1.0
    combinations = math.prod(len(knob.values) for knob in race.knobs.knobs)
    return Course(
        name, race.problem, sweep.sku, sweep.source, len(race.configs), combinations, lacks
    )


def run_races(
    field: Sequence[tuple[Course, Race]],
    strategies: Sequence[str],
    *,
    seeds: int,
    trials: int,
    listener: RaceListener | None = None,
) -> tuple[list[RaceRow], Ending]:
    """Every strategy on every course with every seed; Ctrl-C keeps the runs that are done."""
    rows: list[RaceRow] = []
    total, done = len(field) * len(strategies), 0
    try:
        for number, (course, race) in enumerate(field):
            for strategy in strategies:
                for seed in range(seeds):
                    regrets = _regrets(race, strategy, seed, trials)
                    rows.append(RaceRow(number, strategy, seed, regrets))
                done += 1
                if listener is not None:
                    listener.on_race(done, total, course, strategy)
    except KeyboardInterrupt:
        return rows, Ending.INTERRUPTED
    return rows, Ending.EXHAUSTED


def _regrets(race: Race, strategy: str, seed: int, trials: int) -> tuple[float, ...]:
    with warnings.catch_warnings():
        # That CMA-ES has no use for the constraints that the tuner sets.
        warnings.filterwarnings("ignore", message="Constraints have been set")
        return race.run(strategy, seed, trials)


def median_regret(result: SamplerResult, strategy: str, courses: Iterable[int]) -> list[float]:
    """After each trial, the median over runs of what the best so far lacks; a search that ended
    keeps its last."""
    chosen = set(courses)
    runs = [
        row.regrets
        for row in result.rows
        if row.strategy == strategy and row.course in chosen and row.regrets
    ]
    if not runs:
        return []
    longest = max(len(run) for run in runs)
    padded = [run + (run[-1],) * (longest - len(run)) for run in runs]
    return [statistics.median(run[i] for run in padded) for i in range(longest)]
