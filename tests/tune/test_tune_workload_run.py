"""What a tuning run leaves behind: records, winners, reports, and nothing half done."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from dataclasses import replace

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import EvaluationError, NoFeasibleKernel, StoreError, UnknownName
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import TuningStore
from fa4gen.hardware import Sku
from fa4gen.space import SearchSpace, space_for
from fa4gen.testing.fakes import Behaviour, FakeEvaluator, landscape_us
from fa4gen.tune import StopReason, TuneSettings, tune
from fa4gen.tune.study import TunerStudy
from fa4gen.tune.tuner import TURN_S

FAILURES = [outcome for outcome in Outcome if outcome is not Outcome.OK]


def other(problem: AttentionProblem) -> AttentionProblem:
    return replace(problem, seqlen_q=4096, seqlen_k=4096)


def anchor_of(problem: AttentionProblem) -> KernelConfig:
    return space_for("sm90").default(problem.signature)


def test_finds_better_than_default_and_stores_it(problem, sku, store, searching, listener):
    evaluator = FakeEvaluator(sku)
    report = tune(
        [problem], evaluator=evaluator, store=store, settings=searching, listener=listener
    )

    (row,) = store.dispatch_rows(sku="h200", source=Source.MEASURED, policy=evaluator.policy)
    (result,) = report.problems
    assert row.config == result.winner_config != anchor_of(problem)
    assert row.evaluation.timing.proven
    assert report.geomean_gain == pytest.approx(
        landscape_us(problem, anchor_of(problem)) / landscape_us(problem, row.config)
    )
    assert not report.interrupted


def test_anchor_is_first_and_nothing_is_evaluated_twice(problem, sku, store, small, listener):
    evaluator = FakeEvaluator(sku)
    settings = replace(small, effort=replace(small.effort, model_seeds=2))
    tune([problem], evaluator=evaluator, store=store, settings=settings, listener=listener)

    configs = [config.config_id for _, config in evaluator.evaluated]
    assert configs[0] == anchor_of(problem).config_id
    assert len(configs) == len(set(configs)) == small.effort.max_trials
    assert listener.trials[0].origin == "anchor"
    assert {"model", "sampler"} <= {event.origin for event in listener.trials}


def test_every_evaluation_is_in_the_store(problem, sku, store, small):
    evaluator = FakeEvaluator(sku)
    report = tune([problem], evaluator=evaluator, store=store, settings=small)

    stored = {row.config.config_id for row in store.evaluations(problem)}
    assert stored == {config.config_id for _, config in evaluator.evaluated}
    finalists = report.problems[0].finalists
    assert finalists, "and the default beside them"
    assert len(store.evaluations(problem)) == len(evaluator.evaluated) + len(finalists) + 1


def only_tiles(problem: AttentionProblem, *tile_ns: int) -> SearchSpace:
    """A space in which only tile_n can be chosen."""
    space, anchor = space_for("sm90"), anchor_of(problem)
    knobs = tuple(
        replace(knob, values=tile_ns if knob.name == "tile_n" else (getattr(anchor, knob.name),))
        for knob in space.knobs
    )
    return replace(space, knobs=knobs)


@pytest.mark.parametrize("outcome", FAILURES)
def test_failures_are_kept_and_not_tried_again(problem, sku, store, small, outcome):
    """All but the anchor fail: the default stays, the reasons stay, a second run trusts them."""
    space = only_tiles(problem, 64, 96, 112, 128)

    def script(_problem, config):
        return None if config == anchor_of(problem) else Behaviour(outcome)

    def run(settings):
        evaluator = FakeEvaluator(sku, script)
        few = replace(settings, effort=replace(settings.effort, max_free_asks=3))
        report = tune([problem], evaluator=evaluator, store=store, settings=few, space=space)
        return report.problems[0], [config.tile_n for _, config in evaluator.evaluated]

    result, tried = run(small)
    assert sorted(tried) == [64, 96, 112, 128]
    assert result.default_stays
    assert result.progress.failures == {outcome: 3}
    (row,) = store.dispatch_rows()
    assert row.config == anchor_of(problem)
    failed = [r for r in store.evaluations(problem) if r.evaluation.outcome is outcome]
    assert {r.evaluation.message for r in failed} == {f"scripted {outcome.value}"}

    assert run(small)[1] == [128]
    assert run(replace(small, resume=False))[1] == [128]
    assert sorted(run(replace(small, retry_failed=True))[1]) == [64, 96, 112, 128]


def test_unproven_gain_leaves_the_default(problem, sku, store, small):
    """Everything is a little faster, but within the noise."""

    def script(_problem, config):
        return Behaviour(time_us=100.0 if config == anchor_of(problem) else 99.0)

    evaluator = FakeEvaluator(sku, script, uncertainty=0.05)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=small).problems
    assert result.default_stays
    assert result.gain == 1.0
    assert store.dispatch_rows()[0].config == anchor_of(problem)


def test_shootout_overrules_the_search(problem, sku, store, small):
    """What looked fastest fails when it is timed longer: the next best wins."""

    class Sobering(FakeEvaluator):
        def shootout(self, problem, configs, *, budget_s=None):
            default, first, *rest = super().shootout(problem, configs, budget_s=budget_s)
            slower = replace(first.timing, gain=0.9, gain_low=0.89, gain_high=0.91)
            return [default, first.with_timing(slower), *rest]

    order: list[KernelConfig] = []

    def script(_problem, config):
        if config == anchor_of(problem):
            return Behaviour(time_us=100.0)
        order.extend([config] * (config not in order))
        return Behaviour(time_us=80.0 + order.index(config))

    evaluator = Sobering(sku, script)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=small).problems
    ((default, *finalists),) = evaluator.shootouts
    assert default == anchor_of(problem)
    assert len(finalists) == len(result.finalists) == small.effort.finalists
    assert result.winner_config == finalists[1]
    assert store.dispatch_rows()[0].config == finalists[1]


class Settled(FakeEvaluator):
    """The problem's first trial found a card that was not yet in its sustained state."""

    def shootout(self, problem, configs, *, budget_s=None):
        found = super().shootout(problem, configs, budget_s=budget_s)
        later = [replace(each.timing, median_us=1.07 * each.timing.median_us) for each in found]
        return [each.with_timing(timing) for each, timing in zip(found, later, strict=True)]


def test_a_default_that_stays_has_its_time_from_the_shootout(problem, sku, store, small):
    evaluator = Settled(sku, lambda _problem, _config: Behaviour(time_us=100.0), uncertainty=0.05)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=small).problems
    (row,) = store.dispatch_rows()
    assert result.finalists, "faster than the default by chance, perhaps"
    assert result.default_stays
    assert row.config == anchor_of(problem)
    assert row.evaluation.timing.median_us == pytest.approx(107.0)
    assert result.winner.timing == row.evaluation.timing


def test_winner_is_in_the_table_as_soon_as_it_is_proven(problem, sku, store, small):
    """The row is there when the listener hears of it, long before the end."""
    seen = []

    class Watching:
        def on_problem_start(self, event):
            assert store.dispatch_rows() == []

        def on_trial(self, event):
            seen.append([row.config for row in store.dispatch_rows()])

        def on_incumbent(self, event):
            assert event.stored
            assert [row.config for row in store.dispatch_rows()] == [event.config]

        def on_problem_end(self, report):
            pass

    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=small, listener=Watching())
    assert seen[1] == [anchor_of(problem)]


def test_anchor_that_fails_skips_the_problem_only(problem, sku, store, small):
    def script(asked, config):
        failed = asked == problem
        return Behaviour(Outcome.LAUNCH_ERROR if failed else Outcome.OK, time_by_tile(config))

    def time_by_tile(config):
        return 100.0 if config == anchor_of(other(problem)) else 90.0

    evaluator = FakeEvaluator(sku, script)
    first, second = tune(
        [problem, other(problem)], evaluator=evaluator, store=store, settings=small
    ).problems
    assert first.stop is StopReason.ANCHOR_FAILED
    assert "scripted launch_error" in first.message
    assert second.gain > 1.0
    assert [row.problem for row in store.dispatch_rows()] == [other(problem)]


def test_broken_evaluator_raises_and_keeps_what_was_found(problem, sku, store, small):
    evaluator = FakeEvaluator(sku)

    def script(_problem, _config):
        broken = EvaluationError("no GPU")
        return Behaviour(raises=broken) if len(evaluator.evaluated) > 5 else None

    evaluator.script = script
    with pytest.raises(EvaluationError, match="no GPU"):
        tune([problem], evaluator=evaluator, store=store, settings=small)
    assert len(store.evaluations(problem)) == 5


def test_same_seed_same_trials(problem, sku, tmp_path, searching):
    def run(name: str, seed: int) -> list[KernelConfig]:
        evaluator = FakeEvaluator(sku)
        with TuningStore.open(tmp_path / name, with_shipped=False) as store:
            settings = replace(searching, seed=seed)
            tune([problem], evaluator=evaluator, store=store, settings=settings)
        return [config for _, config in evaluator.evaluated]

    assert run("a", 1) == run("b", 1) != run("c", 2)


def test_patience_ends_a_flat_search(problem, sku, store, small):
    settings = replace(small, effort=replace(small.effort, patience=5, max_trials=100))
    evaluator = FakeEvaluator(sku, lambda problem, config: Behaviour(time_us=100.0))
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=settings).problems
    assert result.stop is StopReason.CONVERGED
    assert len(evaluator.evaluated) == 6


@pytest.mark.parametrize("spare", [0, 2])
def test_little_is_asked_for_that_patience_will_not_wait_for(problem, sku, store, small, spare):
    effort = replace(small.effort, patience=5, lookahead=4, beyond_patience=spare, max_trials=100)
    settings = replace(small, effort=effort)

    def flat(_problem: AttentionProblem, _config: KernelConfig) -> Behaviour:
        until = time.monotonic() + 5.0
        while evaluator.ended == 5 and len(evaluator.at) < 6 + spare and time.monotonic() < until:
            time.sleep(0.01)  # the last one: until all that may be asked has been asked
        return Behaviour(time_us=100.0)

    evaluator = Announced(sku, flat)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=settings).problems
    assert result.stop is StopReason.CONVERGED
    announced, evaluated = set(evaluator.at), set(evaluator.evaluated)
    assert announced >= evaluated, "what is announced is compiled"
    assert (len(evaluated), len(announced - evaluated)) == (6, spare)


@pytest.mark.parametrize(("step", "evaluations"), [(1e-4, 6), (2e-3, 20)])
def test_a_search_goes_on_for_gains_that_are_worthwhile(
    problem, sku, store, small, step, evaluations
):
    """Each configuration is better than all before it, by a tenth of what is worthwhile or twice.

    Of the small gains every tenth adds up to a worthwhile one, which patience does not wait for.
    """
    seen: dict[str, int] = {}

    def better_and_better(problem: AttentionProblem, config: KernelConfig) -> Behaviour:
        place = seen.setdefault(config.config_id, len(seen))
        return Behaviour(time_us=100.0 / (1.0 + step * place))

    settings = replace(small, effort=replace(small.effort, patience=5, max_trials=20))
    evaluator = FakeEvaluator(sku, better_and_better)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=settings).problems
    assert result.progress.evaluated == evaluations
    assert result.progress.best_gain == pytest.approx(1.0 + step * (evaluations - 1))


def test_small_space_is_exhausted_not_spun_in(problem, sku, store, small):
    """Three tiles: each is tried once, then it ends by itself."""
    narrow = only_tiles(problem, 64, 96, 128)
    evaluator = FakeEvaluator(sku)
    (result,) = tune(
        [problem], evaluator=evaluator, store=store, settings=small, space=narrow
    ).problems
    assert result.stop is StopReason.EXHAUSTED
    assert sorted(config.tile_n for _, config in evaluator.evaluated) == [64, 96, 128]


class Announced(FakeEvaluator):
    """Notes how many evaluations had ended when a kernel was first announced."""

    def __init__(self, sku, script=None):
        super().__init__(sku, script)
        self.ended = 0
        self.at = {}
        self.log = []

    def prepare(self, problem, configs, *, later=False):
        super().prepare(problem, configs, later=later)
        self.log.append((problem, later))
        for config in configs:
            self.at.setdefault((problem, config), self.ended)

    def evaluate(self, problem, config):
        found = super().evaluate(problem, config)
        self.ended += 1
        return found


def unhurried(_problem, _config):
    """An evaluation that takes longer than some asks."""
    return Behaviour(delay_s=0.2)


def test_prepare_runs_ahead_of_evaluate(problem, sku, store, small):
    """While a configuration is evaluated, the one after it has been announced already."""
    settings = replace(small, effort=replace(small.effort, lookahead=3))
    evaluator = Announced(sku, unhurried)
    tune([problem], evaluator=evaluator, store=store, settings=settings)
    ahead = [place - evaluator.at[key] for place, key in enumerate(evaluator.evaluated)]
    assert ahead[:4] == [0, 0, 1, 2], "the first trial waits for nothing but its own ask"
    assert set(ahead[4:]) <= {1, 2}, "then one was asked in the course of each trial"
    assert set(evaluator.at) == set(evaluator.evaluated)


def test_seeds_are_announced_before_the_anchor_is_evaluated(problem, sku, store, small):
    settings = replace(small, effort=replace(small.effort, model_seeds=2, max_trials=4))
    evaluator = Announced(sku)
    tune([problem], evaluator=evaluator, store=store, settings=settings)
    at_once = [key for key, ended in evaluator.at.items() if ended == 0]
    assert evaluator.evaluated[:3] == at_once
    whole = tuple(config for _, config in at_once)
    assert evaluator.prepared[:2] == [whole[:1], whole], "the anchor before there are seeds"


def test_a_study_file_that_cannot_be_made_is_named(problem, sku, store, small, tmp_path):
    (tmp_path / "file").touch()
    settings = replace(small, study_storage=tmp_path / "file" / "studies.sqlite")
    evaluator = FakeEvaluator(sku)
    with pytest.raises(StoreError, match=r"studies\.sqlite: cannot be opened .*another file"):
        tune([problem], evaluator=evaluator, store=store, settings=settings)
    assert evaluator.evaluated == []


def test_the_next_problem_is_prepared_behind_this_one(problem, sku, store, small):
    """Its anchor and seeds, for later, after this one's first trials; and this one's winner."""
    following = other(problem)
    settings = replace(small, effort=replace(small.effort, model_seeds=2))
    evaluator = Announced(sku, unhurried)
    report = tune([problem, following], evaluator=evaluator, store=store, settings=settings)

    first_later = evaluator.log.index((following, True))
    before = evaluator.log[:first_later]
    assert len(before) >= 2
    assert set(before) == {(problem, False)}, "this problem's own go first"
    first, *_, last = [configs for asked, configs in evaluator.prepared_later]
    trials = [config for asked, config in evaluator.evaluated if asked == following]
    assert first[0] == anchor_of(following) == trials[0]
    assert evaluator.at[following, trials[0]] < settings.effort.max_trials, "beside the search"
    assert report.problems[0].winner_config in last
    assert set(last) <= set(trials)


def test_the_study_is_asked_while_a_kernel_is_timed(problem, sku, store, small, monkeypatch):
    """Once under way, no evaluation ends before the study was asked again."""
    ask, asks = TunerStudy.ask, threading.Semaphore(0)

    def counted(self):
        asks.release()
        return ask(self)

    def script(_problem, config):
        if len(evaluator.evaluated) not in (4, 5) or config == anchor_of(problem):
            return
        while asks.acquire(blocking=False):
            pass
        asked.append(asks.acquire(timeout=30))
        return

    asked = []
    evaluator = FakeEvaluator(sku, script)
    monkeypatch.setattr(TunerStudy, "ask", counted)
    monkeypatch.setattr(TunerStudy, "tell", slowed(TunerStudy.tell))
    tune([problem], evaluator=evaluator, store=store, settings=small)
    assert asked == [True, True]


def test_threads_that_reckon_hand_over_soon(problem, sku, store, small):
    turns_s = []
    evaluator = FakeEvaluator(sku, lambda p, c: turns_s.append(sys.getswitchinterval()))
    before = sys.getswitchinterval()
    tune([problem], evaluator=evaluator, store=store, settings=small)
    assert max(turns_s) == pytest.approx(TURN_S)
    assert TURN_S < before == sys.getswitchinterval()


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_clock_decides_nothing(problem, sku, small, sampler):
    """However long asks and evaluations take, the same configurations come in the same order."""
    effort = replace(small.effort, lookahead=4, model_seeds=2, startup_trials=3)
    settings = replace(small, effort=effort, sampler=sampler)
    orders = []
    for delay_s in (0.0, 0.15):
        delays = itertools.cycle((delay_s, 0.0))
        evaluator = FakeEvaluator(sku, lambda p, c: Behaviour(delay_s=next(delays)))  # noqa: B023
        with TuningStore.open(":memory:", with_shipped=False) as store:
            tune([problem], evaluator=evaluator, store=store, settings=settings)
        orders.append([config.config_id for _, config in evaluator.evaluated])
    assert orders[0] == orders[1]


def test_the_first_guesses_do_not_wait_for_the_study(
    problem, sku, store, small, listener, monkeypatch
):
    """It is opened once the anchor and two guesses are evaluated, and learns of them."""
    evaluated, opened = threading.Semaphore(0), []

    def script(_problem, _config):
        evaluated.release()

    def patient(key, knobs, *, storage, resume=True, open_study=TunerStudy.open):
        opened.append([evaluated.acquire(timeout=30) for _ in range(3)])
        opened.append(study := open_study(key, knobs, storage=storage, resume=resume))
        return study

    settings = replace(small, effort=replace(small.effort, lookahead=8, model_seeds=3))
    monkeypatch.setattr(TunerStudy, "open", patient)
    tune(
        [problem],
        evaluator=FakeEvaluator(sku, script),
        store=store,
        settings=settings,
        listener=listener,
    )
    in_time, study = opened
    assert in_time == [True] * 3
    origins = [(event.origin, event.number is None) for event in listener.trials[:4]]
    assert origins == [("anchor", True), ("model", True), ("model", True), ("model", False)]
    tried = {event.config.config_id for event in listener.trials}
    assert study.known_ids() >= tried


def slowed(method):
    """So that the evaluation beside it begins first."""

    def later(*arguments):
        time.sleep(0.05)
        return method(*arguments)

    return later


def test_a_study_that_breaks_loses_no_evaluation(problem, sku, store, small, monkeypatch):
    told = []

    def broken(self, asked, evaluation):
        told.append(asked)
        raise StoreError("disk full")

    monkeypatch.setattr(TunerStudy, "tell", broken)
    evaluator = FakeEvaluator(sku)
    with pytest.raises(StoreError, match="disk full"):
        tune([problem], evaluator=evaluator, store=store, settings=small)
    assert told
    assert len(store.evaluations(problem)) == len(evaluator.evaluated) == 3


def test_a_default_that_nothing_beats_is_timed_alone(problem, sku, store, small):
    """Its time should be of the same kind as that of a kernel which won a shoot-out."""

    def script(_problem, config):
        return Behaviour(time_us=100.0 if config == anchor_of(problem) else 105.0)

    evaluator = Settled(sku, script)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=small).problems
    assert evaluator.shootouts == [(anchor_of(problem),)]
    assert result.finalists == ()
    assert result.default_stays
    (row,) = store.dispatch_rows()
    assert row.config == anchor_of(problem)
    assert row.evaluation.timing.median_us == pytest.approx(107.0)


def test_the_shootout_gets_what_is_left_of_the_budget(problem, sku, store, small):
    evaluator = FakeEvaluator(sku)
    tune([problem], evaluator=evaluator, store=store, settings=small)
    assert evaluator.shootout_budgets_s == [None]
    limited = FakeEvaluator(sku, lambda p, c: Behaviour(delay_s=0.05))
    settings = replace(small, budget_s=1.0, effort=replace(small.effort, max_trials=100))
    tune([other(problem)], evaluator=limited, store=store, settings=settings)
    (left_s,) = limited.shootout_budgets_s
    assert 0 <= left_s <= 1.0 * settings.effort.shootout_share


def test_a_workload_out_of_seconds_still_tries_the_best_guesses(problem, sku, store, small):
    """The first problem takes all of the budget; the second gets its seeds, too."""
    effort = replace(small.effort, max_trials=9, model_seeds=4)
    settings = replace(small, budget_s=0.2, effort=effort)
    evaluator = FakeEvaluator(sku, lambda asked, config: Behaviour(delay_s=0.15))
    report = tune([problem, other(problem)], evaluator=evaluator, store=store, settings=settings)
    last = [config for asked, config in evaluator.evaluated if asked == other(problem)]
    assert len(last) == effort.least_trials == 3
    assert report.problems[1].stop is StopReason.BUDGET


def test_budget_is_split_and_ends_the_search(problem, sku, store, small, listener):
    effort = replace(small.effort, max_trials=1000, shootout_share=0.25)
    settings = replace(small, effort=effort, budget_s=1.6, weights=(1.0, 3.0))
    evaluator = FakeEvaluator(sku, lambda problem, config: Behaviour(delay_s=0.02))
    report = tune(
        [problem, other(problem)],
        evaluator=evaluator,
        store=store,
        settings=settings,
        listener=listener,
    )
    assert [result.stop for result in report.problems] == [StopReason.BUDGET] * 2
    first, second = (event.budget_s for event in listener.starts)
    assert first == pytest.approx(0.4, abs=0.05)
    assert second == pytest.approx(1.6 - report.problems[0].progress.elapsed_s, abs=0.2)


def test_a_slow_start_does_not_take_the_search_of_the_first_problem(problem, sku, store, small):
    """A worker that starts, a GPU that warms up, a first compile: seconds before any trial."""
    effort = replace(small.effort, max_trials=1000)
    settings = replace(small, effort=effort, budget_s=3.0)
    slow = anchor_of(problem)

    def script(asked, config):
        first = (asked, config) == (problem, slow) and len(evaluator.evaluated) == 1
        return Behaviour(delay_s=1.4 if first else 0.02)

    problems = [problem, other(problem)]
    evaluator = FakeEvaluator(sku, script)
    report = tune(problems, evaluator=evaluator, store=store, settings=settings)
    first, second = (result.progress.evaluated for result in report.problems)
    assert first >= 4
    assert second >= 4
    assert report.elapsed_s < 3.5


def test_modelled_numbers_need_no_shootout(problem, sku, store, small):
    evaluator = FakeEvaluator(sku, source=Source.MODELLED)
    (result,) = tune([problem], evaluator=evaluator, store=store, settings=small).problems
    assert evaluator.shootouts == []
    assert result.gain > 1.0
    assert store.dispatch_rows(source=Source.MODELLED)[0].config == result.winner_config


def test_progress_is_complete_enough_to_draw(problem, sku, store, small, listener):
    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=small, listener=listener)
    (start,), (end,) = listener.starts, listener.ends
    assert (start.index, start.count, start.anchor) == (0, 1, anchor_of(problem))
    assert math.isinf(start.budget_s)
    last = listener.trials[-1].progress
    assert (last.evaluated, last.known, last.max_trials) == (small.effort.max_trials,) * 3
    best = [event.progress.best_gain for event in listener.trials]
    assert best == sorted(best)
    assert best[-1] == pytest.approx(max(e.evaluation.timing.gain for e in listener.incumbents))
    assert end.stop is StopReason.MAX_TRIALS


def test_refuses_before_doing_anything(problem, sku, store, small):
    evaluator = FakeEvaluator(sku)
    huge = replace(problem, head_dim=512, head_dim_v=512)
    with pytest.raises(NoFeasibleKernel, match="head_dim 512"):
        tune([problem, huge], evaluator=evaluator, store=store, settings=small)
    with pytest.raises(UnknownName, match="sampler"):
        tune([problem], evaluator=evaluator, store=store, settings=TuneSettings(sampler="tpr"))
    with pytest.raises(ValueError, match="one a problem = 1"):
        tune([problem], evaluator=evaluator, store=store, settings=TuneSettings(weights=(1, 2)))
    assert evaluator.evaluated == []


def test_seeds_come_from_the_nearest_tuned_problem(problem, sku, store, small, listener):
    """A landscape with a needle: the second problem gets it from the first one's row."""
    needle = replace(anchor_of(problem), tile_n=64, rescale_threshold_log2=8.0)

    def script(_problem, config):
        return Behaviour(time_us=50.0 if config == needle else 100.0)

    evaluator = FakeEvaluator(sku, script)
    done = evaluator.evaluate(problem, needle)
    store.set_winner(store.record(problem, needle, done, evaluator.policy))
    evaluator.evaluated.clear()
    near = other(problem)
    tune([near], evaluator=evaluator, store=store, settings=small, listener=listener)
    assert [(e.origin, e.config) for e in listener.trials[:2]] == [
        ("anchor", anchor_of(near)),
        ("nearest", needle),
    ]


def test_evaluator_with_foreign_provenance_is_refused(problem, sku: Sku, store, small):
    class Foreign(FakeEvaluator):
        def evaluate(self, problem, config):
            found = super().evaluate(problem, config)
            return replace(found, provenance=replace(found.provenance, sku="b200"))

    with pytest.raises(EvaluationError, match="b200"):
        tune([problem], evaluator=Foreign(sku), store=store, settings=small)
    assert store.evaluations(problem) == []
