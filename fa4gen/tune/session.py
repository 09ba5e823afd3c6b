"""Tuning one problem: anchor, seeds, search, shoot-out, decision."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

from optuna.storages import BaseStorage

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db.values import DispatchRow, Origin, Store
from fa4gen.evaluate.contract import Evaluator
from fa4gen.space import SearchSpace
from fa4gen.tune.asker import Asker, Seen
from fa4gen.tune.budget import Deadline
from fa4gen.tune.finalists import contenders
from fa4gen.tune.forecast import Forecast
from fa4gen.tune.guesses import guesses
from fa4gen.tune.interrupts import Interrupts
from fa4gen.tune.knobs import Knobs
from fa4gen.tune.proposer import FreeAsks, Proposer, SpaceExplorer
from fa4gen.tune.records import Known, Records
from fa4gen.tune.results import (
    IncumbentEvent,
    ProblemReport,
    ProblemStart,
    Progress,
    StopReason,
    Tally,
    TrialEvent,
    TuneListener,
)
from fa4gen.tune.samplers import make_sampler
from fa4gen.tune.seeds import Seeder
from fa4gen.tune.settings import TuneSettings
from fa4gen.tune.study import StudyKey, TunerStudy, Wish


@dataclass(frozen=True)
class Surroundings:
    """What all problems of a run share."""

    evaluator: Evaluator
    store: Store
    space: SearchSpace
    storage: BaseStorage
    settings: TuneSettings
    listener: TuneListener
    interrupts: Interrupts
    seeder: Seeder
    aside: Executor
    """One thread, for the study's work while kernels are timed."""
    ahead: Executor
    """One thread, for the next problem's seeds."""


class ProblemTuner:
    """Tunes one problem once; :meth:`run` gives the report, whatever happens on the way."""

    def __init__(
        self,
        around: Surroundings,
        problem: AttentionProblem,
        place: tuple[int, int],
        share_s: float,
        upcoming: AttentionProblem | None = None,
    ) -> None:
        self.around, self.problem, self.upcoming = around, problem, upcoming
        self.index, self.count = place
        self.effort = around.settings.effort
        self.whole = self.deadline = Deadline.after(share_s)
        self.arch = around.evaluator.sku.arch
        self.anchor_config = around.space.default(problem.signature)
        self.anchor: Known | None = None
        self.knobs = Knobs(around.space.knobs)
        self.explorer = SpaceExplorer(around.space, problem.signature, self.arch)
        self.tally = Tally()
        self.free = FreeAsks()
        self.known_count = 0
        self.winner: Known | None = None
        self.has_row = False
        self.finalists: tuple[tuple[KernelConfig, Evaluation], ...] = ()
        self.message = ""

    def run(self) -> ProblemReport:
        """Tune; an interruption ends it early, and the report says so.

        Raises:
            EvaluationError: the evaluator is broken; what was found before is recorded.
            StoreError: the database cannot be written.
        """
        start = ProblemStart(
            self.problem,
            self.index,
            self.count,
            self.anchor_config,
            self.effort.max_trials,
            self.whole.seconds,
        )
        self.around.listener.on_problem_start(start)
        try:
            stop = self._run()
        except KeyboardInterrupt:
            stop = StopReason.INTERRUPTED
        report = self._report(stop)
        self.around.listener.on_problem_end(report)
        return report

    def _run(self) -> StopReason:
        prepare = self.around.evaluator.prepare
        prepare(self.problem, [self.anchor_config])  # compiles while the model looks for seeds
        seeds = self.around.seeder.seeds(self.problem, self.around.store.dispatch_rows())
        # The study comes later, for its name needs the anchor's provenance.
        prepare(self.problem, [self.anchor_config, *(config for _, config in seeds)])
        evaluation = self._evaluate(self.anchor_config)
        self._open(evaluation)
        self._recorded(self.anchor_config, evaluation, "anchor", None)
        self.anchor = self.records.get(self.anchor_config)
        self.deadline = self.whole.for_search()
        if evaluation.outcome is not Outcome.OK:
            self.message = f"default kernel: {evaluation.outcome.value}: {evaluation.message}"
            return StopReason.ANCHOR_FAILED
        if not self.has_row:
            self._set_winner(self.anchor)
        for known in self.records.all():
            self.tally.expect(known.gain)
        to_try = guesses(seeds, self.knobs, (self.problem.signature, self.arch), self.records)
        asker = self._asker(to_try.others)
        try:
            stop = self._search(asker, to_try.first)
            self._prepare_upcoming(self.around.store.dispatch_rows())
            self._decide()
        finally:
            asker.join()
        return stop

    def _open(self, anchor: Evaluation) -> None:
        """Records of the anchor's key: its provenance names the template in use."""
        around, settings = self.around, self.around.settings
        evaluator = around.evaluator
        template_hash = anchor.provenance.template_hash
        self.key = StudyKey(
            self.problem, evaluator.sku.name, evaluator.source, evaluator.policy, template_hash
        )
        if (anchor.provenance.source, anchor.provenance.sku) != (self.key.source, self.key.sku):
            raise EvaluationError(
                f"evaluator: got a record of {anchor.provenance.source.value} on "
                f"{anchor.provenance.sku}, allowed: {self.key.source.value} on {self.key.sku}"
            )
        self.records = Records(
            around.store,
            self.key,
            reuse=settings.resume,
            retry_failed=settings.retry_failed,
            checked_only=anchor.accuracy is not None,
        )
        self._adopt_row()

    def _begin_study(
        self, records: Sequence[Known], wishes: Sequence[Wish], seen: Seen
    ) -> Proposer:
        """The study of the key, with what is known told and what to try first enqueued."""
        around, settings = self.around, self.around.settings
        study = TunerStudy.open(
            self.key, self.knobs, storage=around.storage, resume=settings.resume
        )
        history = study.num_trials + len(records)
        text = f"{settings.seed}/{self.problem.problem_id}/{history}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        study.use(make_sampler(settings.sampler, seed, self.effort.startup_trials))
        in_study = study.known_ids()
        for known in records:
            if known.config.config_id not in in_study:
                study.add(known.config, known.evaluation)
        for wish in wishes:
            study.enqueue(wish.config, wish.origin)
        proposer = Proposer(
            study,
            (self.problem.signature, self.arch),
            seen,
            self.explorer,
            max_free_asks=self.effort.max_free_asks,
            rng=random.Random(seed),
            forecast=Forecast(
                self.problem, around.evaluator.sku, self.anchor_config, self.effort.hopeless_above
            ),
        )
        self.free = proposer.free
        return proposer

    def _adopt_row(self) -> None:
        """The table's present winner is to be beaten, if it was found with these templates.

        One found with other templates stays in the table until this search has decided.
        """
        for row in self._rows():
            if row.problem != self.problem or row.origin is not Origin.USER:
                continue
            self.has_row = True
            same = row.evaluation.provenance.template_hash == self.key.template_hash
            if same and self.records.believes(row.evaluation):
                self.winner = Known(row.record_id, row.config, row.evaluation)

    def _rows(self) -> list[DispatchRow]:
        return self.around.store.dispatch_rows(
            sku=self.key.sku, source=self.key.source, policy=self.key.policy
        )

    def _prepare_upcoming(self, rows: list[DispatchRow]) -> None:
        """Have the next problem's anchor and seeds compiled behind everything of this one."""
        if self.upcoming is None:
            return
        seeds = [config for _, config in self.around.seeder.seeds(self.upcoming, rows)]
        anchor = self.around.space.default(self.upcoming.signature)
        self.around.evaluator.prepare(self.upcoming, [anchor, *seeds], later=True)

    def _asker(self, wishes: Sequence[Wish]) -> Asker:
        records = self.records.all()
        seen = Seen(records)
        return Asker(
            lambda: self._begin_study(records, wishes, seen),
            seen,
            lookahead=self.effort.lookahead,
            prepare=lambda config: self.around.evaluator.prepare(self.problem, [config]),
        )

    def _search(self, asker: Asker, first: Sequence[Wish]) -> StopReason:
        """Evaluate ``first`` and what the study asks for, while it is asked for more."""
        upcoming: list[Future[None]] = []
        asker.start(self.around.aside, self._room, first[: max(0, self._room)])
        rows = self.around.store.dispatch_rows()
        try:
            while (stop := self._stop()) is None:
                self.around.interrupts.check()
                for known in self._catch_up():
                    asker.learn(known, self._room)
                if (wish := asker.next()) is None:
                    return self._stop() or StopReason.EXHAUSTED
                # Not before asks of this problem are on their way: they are needed sooner.
                if not upcoming and self.tally.evaluated > self.effort.lookahead // 2:
                    upcoming.append(self.around.ahead.submit(self._prepare_upcoming, rows))
                evaluation = self._evaluate(wish.config)
                # The database first: the study can be made again from it.
                known = self._recorded(wish.config, evaluation, wish.origin, wish.number)
                asker.tell(wish, known, self._room)
            return stop
        finally:
            asker.stop()
            wait(upcoming)

    @property
    def _room(self) -> int:
        """Configurations that may be asked and not told: those that will still be evaluated if none
        of them is better, and a few more in case one is.
        """
        patience_left = self.effort.patience + 1 - self.tally.since_better
        likely = patience_left + self.effort.beyond_patience
        return min(self.effort.max_trials - self.known_count, likely)

    def _stop(self) -> StopReason | None:
        if self.known_count >= self.effort.max_trials:
            return StopReason.MAX_TRIALS
        share = 1.0 if self._repeatable else 1.0 - self.effort.shootout_share
        if self.known_count >= self.effort.least_trials and self.deadline.passed(share):
            return StopReason.BUDGET
        if self.tally.since_better > self.effort.patience:
            return StopReason.CONVERGED
        return None

    def _evaluate(self, config: KernelConfig) -> Evaluation:
        with self.around.interrupts.allowed():
            return self.around.evaluator.evaluate(self.problem, config)

    def _recorded(
        self, config: KernelConfig, evaluation: Evaluation, origin: str, number: int | None
    ) -> Known:
        """Store an evaluation, count it, and tell the listener."""
        known = self.records.add(config, evaluation)
        self.known_count = len(self.records)
        self.tally.count(evaluation)
        better = self.tally.improves(known.gain, self.effort.worthwhile)
        self._announce(known, origin, number)
        stored = known.proven and self._beats_winner(known)
        if stored:
            self._set_winner(known)
        if better or stored:
            self.around.listener.on_incumbent(
                IncumbentEvent(
                    self.problem, self.index, config, evaluation, known.record_id, stored
                )
            )
        return known

    def _beats_winner(self, known: Known) -> bool:
        return self.winner is None or known.gain_low > self.winner.gain_low

    def _set_winner(self, known: Known | None) -> None:
        if known is not None:
            self.around.store.set_winner(known.record_id)
            self.winner = known

    def _catch_up(self) -> list[Known]:
        """What other tuners have evaluated since."""
        new = self.records.refresh()
        self.known_count = len(self.records)
        for known in new:
            self.tally.expect(known.gain)
            if known.proven and self._beats_winner(known):
                self.winner = known  # another tuner's find, which it has put into the table
        return new

    def _decide(self) -> None:
        """The finalists' shoot-out, then the row of the table: the best proven, or the default."""
        final = contenders(
            self.records.all(), self.winner, self.anchor_config, self.effort.finalists
        )
        if self.tally.evaluated > 1 and not self._repeatable:
            final = self._shootout([known.config for known in final])
        proven = [known for known in final if known.proven]
        self._set_winner(max(proven, key=lambda known: known.gain_low, default=self.anchor))

    def _shootout(self, configs: Sequence[KernelConfig]) -> list[Known]:
        """Time finalists, if any, longer; the default's time is that beside them from now on.

        Its first one is of a card that has just come to the problem: 1 to 7 % shorter in most of
        215 searches (H200s, 2026-11-22).
        """
        left_s = None if math.isinf(self.deadline.left_s) else self.deadline.left_s
        timed = [self.anchor_config, *configs]
        with self.around.interrupts.allowed():
            anchor, *results = self.around.evaluator.shootout(self.problem, timed, budget_s=left_s)
        if anchor.outcome is Outcome.OK:
            self.anchor = self.records.add(self.anchor_config, anchor)
        self.finalists = tuple(zip(configs, results, strict=True))
        return [self._recorded_final(config, result) for config, result in self.finalists]

    @property
    def _repeatable(self) -> bool:
        """Whether timing it again tells nothing new, so that there is no shoot-out."""
        return self.key.source is Source.MODELLED

    def _recorded_final(self, config: KernelConfig, evaluation: Evaluation) -> Known:
        known = self.records.add(config, evaluation)
        self._announce(known, "shootout", None)
        return known

    def _announce(self, known: Known, origin: str, number: int | None) -> None:
        trial = (number, origin, known.config, known.evaluation, known.record_id)
        self.around.listener.on_trial(
            TrialEvent(self.problem, self.index, *trial, self._progress())
        )

    def _progress(self) -> Progress:
        return Progress(
            evaluated=self.tally.evaluated,
            known=self.known_count,
            max_trials=self.effort.max_trials,
            since_better=self.tally.since_better,
            patience=self.effort.patience,
            infeasible_asks=self.free.infeasible,
            duplicate_asks=self.free.duplicate,
            hopeless_asks=self.free.hopeless,
            failures=dict(self.tally.failures),
            best_gain=self.tally.best_gain,
            elapsed_s=self.whole.elapsed_s,
            budget_s=self.whole.seconds,
        )

    def _report(self, stop: StopReason) -> ProblemReport:
        winner = self.winner
        return ProblemReport(
            problem=self.problem,
            index=self.index,
            stop=stop,
            anchor_config=self.anchor_config,
            anchor=None if self.anchor is None else self.anchor.evaluation,
            winner_config=None if winner is None else winner.config,
            winner=None if winner is None else winner.evaluation,
            winner_record_id=None if winner is None else winner.record_id,
            finalists=self.finalists,
            progress=self._progress(),
            message=self.message,
        )
