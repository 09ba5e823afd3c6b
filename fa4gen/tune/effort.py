"""How hard to search: named profiles, the single source of the tuner's defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fa4gen.core.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Effort:
    """Limits of the search on one problem; the first one reached ends it."""

    name: str
    max_trials: int
    """Configurations evaluated for one problem, those of resumed runs included."""
    patience: int
    """Evaluations in a row without a :attr:`worthwhile` one before the search gives up."""
    finalists: int
    """Configurations in the closing shoot-out."""
    model_seeds: int
    """Configurations the cycle model may put forward."""
    nearest_seeds: int
    """Winners of the nearest tuned shapes to start from."""
    startup_trials: int
    """Trials before the sampler models the objective; seeds count."""
    lookahead: int
    """Configurations asked ahead, so that they compile while others are timed: a compile takes as
    long as nine to twelve trials (2.1 to 3.5 s against 0.23 to 0.28 s where they are shortest,
    hosts of H200s, 2026-11-22). The sampler knows less of what it asks for. In recorded trials
    searches that ask 10, 12, 14 and 16 ahead end 0.08, 0.09, 0.11 and 0.11 % behind the best
    (docs/measurements.md)."""
    beyond_patience: int = 4
    """Configurations asked beyond those that :attr:`patience` will wait for: compiled in vain if
    nothing better comes, but if it does, and late, the search goes on without waiting."""
    max_free_asks: int = 24
    """Asks in a row that may end without an evaluation (infeasible, known or hopeless), 10 to 30 ms
    each; then the neighbours of the best are tried."""
    hopeless_above: float = 1.2
    """How many times the incumbent's time the cycle model may expect of a configuration that the
    sampler asks for. In nine recordings, 2914 times, nothing that was faster than another by half
    a percent, that one within 10 % of the best, was expected to take over 1.12 times as long."""
    worthwhile: float = 1.001
    """Factor on the gain that is worth going on for. A kernel against itself gives up to 1.0015, so
    the best of many equal ones grows with every few of them: where anything better counted, 23
    searches on an H200 (2026-11-22) took a fifth more trials for 0.03 % (mean; 0.6 % once)."""
    shootout_share: float = 0.2
    """Share of a problem's budget kept for the shoot-out."""
    least_trials: int = 3
    """Evaluations of a problem whatever the budget: the default and the two best guesses. Without
    them a workload whose seconds ran out left its last problems at the default, with decode ten
    times as slow as the first guess (an H200, 2026-11-21)."""
    proves: bool = True
    """Whether, without a GPU, kernels are compiled and emulated before their times count."""


QUICK = Effort(
    name="quick",
    max_trials=32,
    patience=14,
    finalists=3,
    model_seeds=8,
    nearest_seeds=2,
    startup_trials=8,
    lookahead=12,
    max_free_asks=1,
)
"""Minutes for a workload: most of the gain."""

GLANCE = replace(QUICK, name="glance", proves=False)
"""Without a GPU seconds, for the cycle model alone decides; with one, as quick."""

FULL = Effort(
    name="full",
    max_trials=300,
    patience=80,
    finalists=8,
    model_seeds=12,
    nearest_seeds=4,
    startup_trials=20,
    lookahead=12,
)
"""For a table that is shipped."""

EFFORTS: dict[str, Effort] = {effort.name: effort for effort in (GLANCE, QUICK, FULL)}
"""Every profile by name."""


def effort_named(name: str) -> Effort:
    """The profile of this name.

    Raises:
        UnknownName: not in :data:`EFFORTS`.
    """
    try:
        return EFFORTS[name]
    except KeyError:
        raise UnknownName("effort", name, EFFORTS) from None
