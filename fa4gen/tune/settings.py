"""What a user can set about a tuning run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fa4gen.tune.effort import QUICK, Effort

AUTO: Final = "auto"
"""Study storage beside the tuning database; in memory where that makes no sense."""


@dataclass(frozen=True)
class TuneSettings:
    """Settings of :func:`fa4gen.tune.tune`."""

    effort: Effort = QUICK
    budget_s: float | None = None
    """Seconds for the whole workload; ``None`` leaves the end to the effort."""
    weights: tuple[float, ...] | None = None
    """Share of the budget for each problem, in the workload's order; equal by default."""
    sampler: str = "tpe"
    seed: int = 0
    """Same seed, evaluator answers and database: same trials, as long as no clock ends it."""
    resume: bool = True
    """Continue earlier studies and believe earlier measurements of the same key."""
    retry_failed: bool = False
    """Try configurations again that failed before."""
    study_storage: str | Path | None = AUTO
    """Optuna's own database: a file, a URL, ``None`` for memory."""


def study_location(
    settings: TuneSettings, database: str | os.PathLike[str] | None, *, cheap: bool
) -> str | Path | None:
    """Where the studies are kept.

    Args:
        settings: the user's wish.
        database: path of the tuning database, ``None`` when it is not a file.
        cheap: whether an evaluation costs less than writing a trial to disk (a modelled one
            does); such studies are made again from the database's records instead.
    """
    if settings.study_storage != AUTO:
        return settings.study_storage
    if cheap or database is None:
        return None
    path = Path(database)
    return path.with_name(f"{path.stem}.studies.sqlite")
