"""The search: Optuna asks, an evaluator answers, the database remembers.

Optuna and SQLAlchemy are imported with the search itself: reading a workload or a report is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fa4gen.core.lazy import lazy_names
from fa4gen.tune.effort import EFFORTS, FULL, QUICK, Effort, effort_named
from fa4gen.tune.results import (
    IncumbentEvent,
    NullListener,
    ProblemReport,
    ProblemStart,
    Progress,
    StopReason,
    TrialEvent,
    TuneListener,
    TuneReport,
)
from fa4gen.tune.settings import AUTO, TuneSettings
from fa4gen.tune.workload import Workload, list_workloads, load_workload

if TYPE_CHECKING:
    from fa4gen.tune.samplers import SAMPLERS
    from fa4gen.tune.tuner import tune

_LAZY = {"SAMPLERS": "fa4gen.tune.samplers", "tune": "fa4gen.tune.tuner"}
"""Public name -> the module that defines it."""

__all__ = [
    "AUTO",
    "EFFORTS",
    "FULL",
    "QUICK",
    "SAMPLERS",
    "Effort",
    "IncumbentEvent",
    "NullListener",
    "ProblemReport",
    "ProblemStart",
    "Progress",
    "StopReason",
    "TrialEvent",
    "TuneListener",
    "TuneReport",
    "TuneSettings",
    "Workload",
    "effort_named",
    "list_workloads",
    "load_workload",
    "tune",
]


__getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
