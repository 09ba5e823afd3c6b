"""A study from plan to result, its history kept where tuning keeps its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fa4gen.db.store import default_location
from fa4gen.evaluate.contract import Evaluator
from fa4gen.study.results import StudyListener, StudyResult
from fa4gen.study.run import Limits, StudyPlan, StudyRun
from fa4gen.tune.settings import TuneSettings, study_location
from fa4gen.tune.study import close_storage, open_storage


def carry_out(
    plan: StudyPlan,
    evaluator: Evaluator,
    database: str | Path | None = None,
    *,
    limits: Limits,
    listener: StudyListener | None = None,
) -> StudyResult:
    """Try what the plan is about, and give all that was found.

    Ctrl-C and SIGTERM end it early, as does an evaluator that breaks; ``ending`` says so.

    Args:
        plan: what to try.
        evaluator: answers; the caller closes it.
        database: the tuning database; Optuna's file lies beside it. The user's own by default,
            in memory for a server.
        limits: when to stop.
        listener: is told what happens.

    Raises:
        NoFeasibleKernel: no combination may run.
        EvaluationError: the evaluator broke before anything was found.
        StoreError: Optuna's file cannot be made.
    """
    where = str(database or default_location())
    location = study_location(TuneSettings(), None if "://" in where else where, cheap=False)
    storage = open_storage(location)
    try:
        result = StudyRun(plan, evaluator, storage, limits=limits, listener=listener).run()
    finally:
        close_storage(storage)
    return replace(result, storage="" if location is None else Path(location).name)
