"""Carrying a study of knobs out: which combinations, in which order, until when."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from optuna.storages import BaseStorage

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import EvaluationError, NoFeasibleKernel
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.contract import Evaluator
from fa4gen.study.accuracy import AccuracyLab, Figures
from fa4gen.study.front import contenders
from fa4gen.study.grid import Grid
from fa4gen.study.results import (
    Ending,
    Mark,
    NullListener,
    ResultRow,
    StudyKind,
    StudyListener,
    StudyResult,
    TrialEvent,
)
from fa4gen.study.rows import refused_row, setting_of, tried_row
from fa4gen.study.search import ErrorObjective, Search, StudyIdentity
from fa4gen.tune.budget import Deadline
from fa4gen.tune.interrupts import Interrupts

SHOOTOUT_SHARE = 0.25
"""Share of the budget kept for timing the candidates for the front once more."""
LOOKAHEAD = 8
"""Configurations the sampler is asked for ahead, so that they compile while others are timed."""


@dataclass(frozen=True)
class StudyPlan:
    """What is studied."""

    kind: StudyKind
    problem: AttentionProblem
    grid: Grid
    marks: tuple[tuple[str, KernelConfig, str], ...] = ()
    """(who, configuration, source) of hand-set points; tried right after the default."""
    measure: str = ""
    """Error that the front is about; empty for a study of speed alone."""


@dataclass(frozen=True)
class Limits:
    """When to stop; whichever comes first."""

    trials: int = 200
    budget_s: float | None = None
    finalists: int = 10
    """Most candidates for the front that are timed again together; 0 for no shoot-out."""
    seed: int = 0


class StudyRun:
    """One study, carried out once by :meth:`run`."""

    def __init__(
        self,
        plan: StudyPlan,
        evaluator: Evaluator,
        storage: BaseStorage,
        *,
        limits: Limits,
        listener: StudyListener | None = None,
    ) -> None:
        self.plan, self.evaluator, self.limits = plan, evaluator, limits
        self.listener = listener or NullListener()
        self._storage = storage
        self._lab = AccuracyLab(plan.problem, plan.grid.arch) if plan.measure else None
        self._figures: dict[str, Future[Figures]] = {}
        self._rows: dict[str, ResultRow] = {}
        self._configs: dict[str, KernelConfig] = {}
        self._first: Evaluation | None = None
        self._search: Search | None = None

    def run(self) -> StudyResult:
        """Try, and give what was found, also when it ends early.

        Raises:
            NoFeasibleKernel: not one combination may run, nor does the default.
        """
        grid = self.plan.grid
        if grid.enumerated and not grid.configs:
            raise NoFeasibleKernel(_why_none(grid))
        start_s, message = time.monotonic(), ""
        with ThreadPoolExecutor(1, thread_name_prefix="fa4gen-accuracy") as aside:
            with Interrupts() as interrupts:
                try:
                    ending = self._try(interrupts, aside)
                    if ending is not Ending.INTERRUPTED:
                        self._decide(interrupts, start_s)
                except KeyboardInterrupt:
                    ending = Ending.INTERRUPTED
                except EvaluationError as error:
                    ending, message = Ending.BROKEN, str(error)
            if self._first is None and ending is Ending.BROKEN:
                raise EvaluationError(message)
            aside.shutdown(wait=True, cancel_futures=True)
        return self._result(ending, message, time.monotonic() - start_s)

    def _try(self, interrupts: Interrupts, aside: ThreadPoolExecutor) -> Ending:
        """The default, then the marks, then everything or what the sampler asks for."""
        grid, limits = self.plan.grid, self.limits
        share = 1.0 if self._repeatable or not limits.finalists else 1.0 - SHOOTOUT_SHARE
        deadline = Deadline.after(float("inf") if limits.budget_s is None else limits.budget_s)
        everything = grid.enumerated and len(grid.configs) <= limits.trials
        total = len(grid.configs) if everything else limits.trials
        self.listener.on_start(total)
        queue = self._queue(everything, aside)
        for origin, config in queue:
            if len(self._rows) >= limits.trials and not everything:
                return Ending.TRIALS
            if deadline.passed(share):
                return Ending.BUDGET
            interrupts.check()
            with interrupts.allowed():
                evaluation = self.evaluator.evaluate(self.plan.problem, config)
            self._keep(origin, config, evaluation)
            self._announce(config, evaluation, total)
        return Ending.EXHAUSTED if grid.enumerated else Ending.TRIALS

    def _queue(
        self, everything: bool, aside: ThreadPoolExecutor
    ) -> Iterator[tuple[str, KernelConfig]]:
        """(origin, configuration), each once; the evaluator hears of them before their turn."""
        grid = self.plan.grid
        marked = [config for _, config, _ in self.plan.marks]
        first = [grid.default, *marked]
        rest = list(grid.configs) if everything else []
        # In no order that a budget could cut off at one side.
        random.Random(self.limits.seed).shuffle(rest)
        todo = dict.fromkeys([*first, *rest])
        self.evaluator.prepare(self.plan.problem, list(todo))
        for config in todo:
            self._look_at(config, aside)
        for config in todo:
            origin = "default" if config == grid.default else "grid"
            yield ("peer" if config in marked and origin == "grid" else origin), config
            if config == grid.default:
                self._open_search(todo)
        if not everything:
            for config in self._asked(aside):
                yield "sampler", config

    def _asked(self, aside: ThreadPoolExecutor) -> Iterator[KernelConfig]:
        """What the sampler wants, a few ahead."""
        window: deque[KernelConfig] = deque()
        search = self._search
        if search is None:
            return
        while True:
            new: list[KernelConfig] = []
            while len(window) < LOOKAHEAD and (config := search.ask()) is not None:
                window.append(config)
                new.append(config)
                self._look_at(config, aside)
            self.evaluator.prepare(self.plan.problem, new)
            if not window:
                return
            yield window.popleft()

    def _look_at(self, config: KernelConfig, aside: ThreadPoolExecutor) -> None:
        """Begin to compute how exact a configuration is."""
        if self._lab is not None and config.config_id not in self._figures:
            self._figures[config.config_id] = aside.submit(self._lab.of, config)

    def _figures_of(self, config: KernelConfig) -> Mapping[str, float]:
        if self._lab is None:
            return {}
        future = self._figures.get(config.config_id)
        return self._lab.of(config) if future is None or future.cancelled() else future.result()

    def _open_search(self, todo: Mapping[KernelConfig, None]) -> None:
        """The Optuna study; its name needs the provenance of the first evaluation."""
        plan, first = self.plan, self._first
        if first is None:
            return
        made = first.provenance
        parts = (
            "fa4gen-study",
            plan.kind.value,
            ",".join(knob.name for knob in plan.grid.knobs),
            str(plan.problem),
            *(made.sku, made.source.value, str(self.evaluator.policy), made.template_hash),
        )
        attributes = {
            "problem": str(plan.problem),
            "sku": made.sku,
            "source": made.source.value,
            "policy": str(self.evaluator.policy),
        }
        measure, error = plan.measure, None
        if measure:
            error = ErrorObjective(measure, lambda config: self._figures_of(config)[measure])
        self._search = Search(
            StudyIdentity("/".join(parts), attributes),
            plan.grid,
            error=error,
            seed=self.limits.seed,
        )
        for config in todo:
            self._search.claim(config)
        self._search.tell(plan.grid.default, first)

    def _keep(self, origin: str, config: KernelConfig, evaluation: Evaluation) -> None:
        row = tried_row(
            origin, self.plan.problem, config, evaluation, [k.name for k in self.plan.grid.knobs]
        )
        row = replace(row, accuracy=self._figures_of(config))
        self._rows[config.config_id] = row
        self._configs[config.config_id] = config
        if self._first is None:
            self._first = evaluation
        elif self._search is not None:
            self._search.tell(config, evaluation)

    def _announce(self, config: KernelConfig, evaluation: Evaluation, total: int) -> None:
        row = self._rows[config.config_id]
        self.listener.on_trial(TrialEvent(config, evaluation, row, len(self._rows), total))

    @property
    def _repeatable(self) -> bool:
        """Whether timing again tells nothing new."""
        return self.evaluator.source is not Source.MEASURED

    def _decide(self, interrupts: Interrupts, start_s: float) -> None:
        """Time the candidates for the front again, longer and together."""
        limits, left_s = self.limits, None
        if self._repeatable or not limits.finalists:
            return
        hopeful = contenders(tuple(self._rows.values()), self.plan.measure, limits.finalists)
        # What the front is compared with deserves times as good as its own.
        ids = [row.config_id for row in hopeful] + [c.config_id for _, c, _ in self.plan.marks]
        rows = [row for i in dict.fromkeys(ids) if (row := self._rows.get(i)) and row.gain]
        if not rows:
            return
        if limits.budget_s is not None:
            left_s = max(0.0, limits.budget_s - (time.monotonic() - start_s))
        self.listener.on_shootout(len(rows))
        configs = [self._configs[row.config_id] for row in rows]
        with interrupts.allowed():
            results = self.evaluator.shootout(self.plan.problem, configs, budget_s=left_s)
        for row, config, evaluation in zip(rows, configs, results, strict=True):
            if evaluation.outcome is not Outcome.OK:
                continue
            again = tried_row(
                row.origin, self.plan.problem, config, evaluation, list(row.knobs), "shootout"
            )
            self._rows[row.config_id] = replace(
                again,
                accuracy=row.accuracy,
                measured_errors={**again.measured_errors, **row.measured_errors},
            )
            self._announce(config, evaluation, len(self._rows))

    def _result(self, ending: Ending, message: str, elapsed_s: float) -> StudyResult:
        plan, grid, search = self.plan, self.plan.grid, self._search
        if self._first is None:
            raise KeyboardInterrupt
        met = [] if search is None else list(search.refused.values())
        refused = {each.config.config_id: each for each in (*grid.refused, *met)}
        names = [knob.name for knob in grid.knobs]
        importance: Mapping[str, float] = {} if search is None else search.importance()
        saved = "" if search is None else search.save(self._storage)
        marks = [Mark("default", grid.default.config_id, "the search space's default")]
        marks += [Mark(who, config.config_id, source) for who, config, source in plan.marks]
        return StudyResult(
            kind=plan.kind,
            problem=plan.problem,
            setting=setting_of(self._first, str(self.evaluator.policy)),
            knobs=tuple(names),
            default=grid.default,
            rows=(
                *self._rows.values(),
                *(refused_row(each, names) for each in refused.values()),
            ),
            marks=tuple(marks),
            ending=ending,
            combinations=grid.combinations,
            candidates=len(grid.configs) if grid.enumerated else None,
            measure=plan.measure,
            message=message,
            elapsed_s=round(elapsed_s, 1),
            importance=importance,
            optuna_study=saved,
        )


def _why_none(grid: Grid) -> str:
    """The commonest reason for which nothing is feasible."""
    names = ", ".join(knob.name for knob in grid.knobs)
    first = grid.refused[0]
    return (
        f"study of {names}: none of {grid.combinations} combinations is feasible, first: "
        f"{first.verdict}; study other knobs with it, or another problem"
    )
