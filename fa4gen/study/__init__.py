"""Studies: what knobs do to speed and accuracy, and what samplers are worth."""

from fa4gen.study.carry_out import carry_out
from fa4gen.study.front import front_of
from fa4gen.study.plans import DEFAULT_MEASURE, DEFAULT_PROBLEM, exp2_split_plan, knobs_plan
from fa4gen.study.results import (
    Ending,
    Mark,
    NullListener,
    ResultRow,
    Setting,
    StudyKind,
    StudyListener,
    StudyResult,
    TrialEvent,
)
from fa4gen.study.run import Limits, StudyPlan, StudyRun

__all__ = [
    "DEFAULT_MEASURE",
    "DEFAULT_PROBLEM",
    "Ending",
    "Limits",
    "Mark",
    "NullListener",
    "ResultRow",
    "Setting",
    "StudyKind",
    "StudyListener",
    "StudyPlan",
    "StudyResult",
    "StudyRun",
    "TrialEvent",
    "carry_out",
    "exp2_split_plan",
    "front_of",
    "knobs_plan",
]
