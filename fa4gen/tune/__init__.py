"""The search: Optuna asks, an evaluator answers, the database remembers."""

from fa4gen.tune.effort import EFFORTS, FULL, QUICK, Effort, effort
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
from fa4gen.tune.samplers import SAMPLERS
from fa4gen.tune.settings import AUTO, TuneSettings
from fa4gen.tune.tune import tune
from fa4gen.tune.workload import Workload, list_workloads, load_workload

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
    "effort",
    "list_workloads",
    "load_workload",
    "tune",
]
