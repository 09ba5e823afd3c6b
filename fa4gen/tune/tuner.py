"""Tuning a workload, problem after problem."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from optuna.storages import BaseStorage

from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import TuningStore
from fa4gen.db.values import Store
from fa4gen.evaluate.contract import Evaluator
from fa4gen.space import SearchSpace, space_for
from fa4gen.tune.budget import Budget
from fa4gen.tune.interrupts import Interrupts
from fa4gen.tune.results import NullListener, ProblemReport, StopReason, TuneListener, TuneReport
from fa4gen.tune.samplers import make_sampler
from fa4gen.tune.seeds import Seeder
from fa4gen.tune.session import ProblemTuner, Surroundings
from fa4gen.tune.settings import TuneSettings, study_location
from fa4gen.tune.study import close_storage, open_storage
from fa4gen.tune.turns import Turns

TURN_S = 0.0005
"""Longest that a thread computes while another one waits for its turn; Python's default is 0.005.

What drives the GPU asks for its turn some thirty times a trial, whenever the worker or the database
has answered, and each time waits that long for a thread that reckons the next problem's seeds: with
5 ms 0.19 to 0.26 s between trials that are 0.01 apart otherwise (an H200's host, 2026-11-22)."""


def tune(
    workload: Sequence[AttentionProblem],
    *,
    evaluator: Evaluator,
    store: Store,
    settings: TuneSettings | None = None,
    listener: TuneListener | None = None,
    space: SearchSpace | None = None,
    turns: Turns | None = None,
) -> TuneReport:
    """Find the best configuration for every problem, and keep it in ``store``.

    Every evaluation is in the database as soon as it is made, and a winner as soon as it is
    proven, so an interrupted run loses at most the trial that was running; running again goes on
    from there. Each run measures the default once again: it is what every gain refers to, and its
    provenance says which templates are in use. Several tuners may work on one database at once.

    On Ctrl-C or SIGTERM (in the main thread) the report comes back early with
    ``interrupted=True``; a second signal raises ``KeyboardInterrupt``.

    Args:
        workload: the problems, tuned in this order.
        evaluator: answers for one SKU; the caller closes it.
        store: where measurements and winners go; the caller closes it.
        settings: effort, budget, sampler, seed; the defaults of :class:`TuneSettings`.
        listener: is told what happens.
        space: the configurations to search; by default the one of the evaluator's arch.
        turns: hands out the problems, where other processes tune some of them; by default all are
            tuned here. The report is of those tuned here.

    Raises:
        NoFeasibleKernel: a problem's head dimensions are beyond the space; nothing was done.
        UnknownName: the sampler, or no search space for the arch.
        EvaluationError: the evaluator broke; what was found before is recorded.
        StoreError: the database cannot be written.
        ValueError: weights or budget that are not above 0, or not one weight a problem.
    """
    settings, listener = settings or TuneSettings(), listener or NullListener()
    space = space or space_for(evaluator.sku.arch.name)
    weights = settings.weights or (1.0,) * len(workload)
    if len(weights) != len(workload):
        raise ValueError(f"weights: got {len(weights)}, allowed: one a problem = {len(workload)}")
    make_sampler(settings.sampler, settings.seed, settings.effort.startup_trials)
    for problem in workload:
        space.default(problem.signature)
    budget = Budget(settings.budget_s, weights)
    start_s = time.monotonic()
    turns = turns or Turns(len(workload))
    reports: list[ProblemReport] = []
    cheap = evaluator.source is Source.MODELLED
    storage = open_storage(study_location(settings, _file_of(store), cheap=cheap))
    seeder = Seeder((evaluator.sku, evaluator.source), space, settings.effort)
    aside, ahead = (ThreadPoolExecutor(1, f"fa4gen-{name}") for name in ("study", "ahead"))
    with _closing(storage), aside, ahead, _short_turns(), Interrupts() as interrupts:
        around = Surroundings(
            evaluator, store, space, storage, settings, listener, interrupts, seeder, aside, ahead
        )
        with closing(_in_turn(turns, budget)) as hand:
            for index, likely, share_s in hand:
                upcoming = None if likely is None else workload[likely]
                place = (index, len(workload))
                tuner = ProblemTuner(around, workload[index], place, share_s, upcoming)
                reports.append(tuner.run())
                if interrupts.requested or reports[-1].stop is StopReason.INTERRUPTED:
                    break
    interrupted = interrupts.requested or any(
        report.stop is StopReason.INTERRUPTED for report in reports
    )
    return TuneReport(
        problems=tuple(reports),
        interrupted=interrupted,
        not_started=tuple(workload[index] for index in sorted(turns.left())),
        elapsed_s=time.monotonic() - start_s,
    )


def _in_turn(turns: Turns, budget: Budget) -> Generator[tuple[int, int | None, float], None, None]:
    """Problems of this process, each with the one likely to come next and the seconds it may use.

    Whoever stops early closes it, and the one that was to come is anybody's again.
    """
    following = turns.next()
    try:
        while following is not None:
            index, following = following, turns.ahead()
            to_come = turns.weight_to_come(budget.weights)
            if following is not None:
                to_come += budget.weights[following]
            likely = turns.likely() if following is None else following
            yield index, likely, budget.share_s(index, to_come)
            following = turns.next() if following is None else following
    except GeneratorExit:
        if following is not None:
            turns.put_back(following)
        raise


@contextmanager
def _short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _closing(storage: BaseStorage) -> Iterator[None]:
    try:
        yield
    finally:
        close_storage(storage)


def _file_of(store: Store) -> str | None:
    """Path of the database's file; ``None`` for a server, a database in memory, another store."""
    if isinstance(store, TuningStore) and Path(store.location).is_file():
        return store.location
    return None
