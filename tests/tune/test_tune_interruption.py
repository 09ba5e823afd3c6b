"""Interruption, resuming, and several tuners at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import fa4gen
from fa4gen.db import TuningStore
from fa4gen.space import space_for
from fa4gen.testing.fakes import Behaviour, FakeEvaluator
from fa4gen.tune import AUTO, NullListener, StopReason, records, tune
from fa4gen.tune.interrupts import Interrupts
from fa4gen.tune.study import open_storage

TUNER = Path(__file__).parent / "tuner_process.py"


def states(location: Path) -> list[TrialState]:
    storage = open_storage(location)
    found = []
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        found += [trial.state for trial in study.trials]
    return found


def running(location: Path) -> list[dict[str, object]]:
    """What is said of each trial that is still RUNNING."""
    storage = open_storage(location)
    return [
        trial.user_attrs
        for name in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=name, storage=storage).trials
        if trial.state is TrialState.RUNNING
    ]


def test_ctrl_c_keeps_everything_and_resume_goes_on(problem, sku, store, small, tmp_path):
    studies = tmp_path / "studies.sqlite"
    effort = replace(small.effort, max_trials=9)
    settings = replace(small, study_storage=studies, effort=effort)
    first = FakeEvaluator(sku)

    def script(_problem, _config):
        return Behaviour(raises=KeyboardInterrupt()) if len(first.evaluated) == 7 else None

    first.script = script
    later = replace(problem, batch=4)
    report = tune([problem, later], evaluator=first, store=store, settings=settings)
    assert report.interrupted
    assert report.not_started == (later,)
    assert report.problems[0].stop is StopReason.INTERRUPTED
    assert len(store.evaluations(problem)) == 6
    assert TrialState.RUNNING not in states(studies)
    (row,) = store.dispatch_rows()
    assert row.config == report.problems[0].winner_config

    second = FakeEvaluator(sku)
    report = tune([problem], evaluator=second, store=store, settings=settings)
    assert not report.interrupted
    done = {config for _, config in first.evaluated[:6]}
    again = [config for _, config in second.evaluated]
    assert [config for config in again if config in done] == [first.evaluated[0][1]]
    assert len(again) == 1 + effort.max_trials - 6
    assert report.problems[0].progress.known == effort.max_trials


def test_interrupted_before_the_anchor(problem, sku, store, small):
    evaluator = FakeEvaluator(sku, lambda p, c: Behaviour(raises=KeyboardInterrupt()))
    report = tune([problem], evaluator=evaluator, store=store, settings=small)
    assert report.interrupted
    assert report.problems[0].anchor is None
    assert report.problems[0].winner_config is None


def test_ctrl_c_in_the_shootout_keeps_the_proven_winner(problem, sku, store, small):
    class Impatient(FakeEvaluator):
        def shootout(self, problem, configs, *, budget_s=None):
            raise KeyboardInterrupt

    report = tune([problem], evaluator=Impatient(sku), store=store, settings=small)
    assert report.interrupted
    (row,) = store.dispatch_rows()
    assert row.evaluation.timing.proven
    assert row.config == report.problems[0].winner_config


def test_a_better_find_of_another_tuner_is_respected(problem, sku, store, small, monkeypatch):
    """It comes in while this search runs; lesser finds of this one do not replace it."""
    monkeypatch.setattr(records, "REFRESH_S", 0.0)
    anchor = space_for("sm90").default(problem.signature)
    best = replace(anchor, tile_n=64, rescale_threshold_log2=8.0)

    def script(_problem, config):
        if config == best:
            return Behaviour(time_us=40.0)
        return Behaviour(time_us=100.0 - 0.5 * len(evaluator.evaluated))

    evaluator = FakeEvaluator(sku, script)
    other = FakeEvaluator(sku, lambda p, c: Behaviour(time_us=40.0 if c == best else 100.0))
    rows = []

    class Beside(NullListener):
        def on_trial(self, event):
            if event.progress.evaluated == 4:
                found = other.evaluate(problem, best)
                store.set_winner(store.record(problem, best, found, other.policy))
            rows.append(store.dispatch_rows())

    tune([problem], evaluator=evaluator, store=store, settings=small, listener=Beside())
    assert {row.config for (row,) in rows[4:]} == {best}
    assert best in evaluator.shootouts[0]
    assert best not in [config for _, config in evaluator.evaluated]


def test_finished_tuning_run_again_changes_nothing(problem, sku, store, small):
    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=small)
    (before,) = store.dispatch_rows()
    again = FakeEvaluator(sku)
    (result,) = tune([problem], evaluator=again, store=store, settings=small).problems
    (after,) = store.dispatch_rows()
    assert len(again.evaluated) == 1
    assert again.shootouts == []
    assert result.stop is StopReason.MAX_TRIALS
    assert (after.config, after.record_id) == (before.config, before.record_id)


def test_history_survives_the_loss_of_the_study_file(problem, sku, store, small):
    """Studies in memory: a second run knows the first one's trials from the database."""
    first, second = FakeEvaluator(sku), FakeEvaluator(sku)
    tune([problem], evaluator=first, store=store, settings=small)
    more = replace(small, effort=replace(small.effort, max_trials=20))
    tune([problem], evaluator=second, store=store, settings=more)
    tried = {config for _, config in first.evaluated}
    assert tried & {config for _, config in second.evaluated} == {first.evaluated[0][1]}
    assert len(second.evaluated) == 1 + 20 - small.effort.max_trials


def test_without_resume_times_are_taken_again(problem, sku, store, small):
    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=small)
    fresh = FakeEvaluator(sku)
    tune([problem], evaluator=fresh, store=store, settings=replace(small, resume=False))
    assert len(fresh.evaluated) == small.effort.max_trials


def test_fresh_run_that_finds_less_keeps_the_better_winner(problem, sku, store, small):
    """The table's winner takes part in the shoot-out, whatever the new search has seen."""
    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=small)
    (before,) = store.dispatch_rows()
    short = replace(
        small, resume=False, effort=replace(small.effort, max_trials=2, nearest_seeds=0)
    )
    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=short)
    (after,) = store.dispatch_rows()
    assert after.config == before.config
    assert after.record_id != before.record_id


def test_other_templates_start_their_own_search(problem, sku, store, small):
    tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=small)
    changed = FakeEvaluator(sku, template_hash="another")
    tune([problem], evaluator=changed, store=store, settings=small)
    assert len(changed.evaluated) == small.effort.max_trials
    (row,) = store.dispatch_rows()
    assert row.evaluation.provenance.template_hash == "another"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    root = str(Path(fa4gen.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(TUNER), str(folder), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.slow
def test_a_signal_ends_the_process_cleanly(tmp_path):
    """While an evaluation sleeps: the report comes back, the study has nothing RUNNING."""
    processes = {}
    for number in (signal.SIGTERM, signal.SIGINT):  # side by side, for starting takes seconds
        folder = tmp_path / number.name
        folder.mkdir()
        processes[number] = folder, start(folder, "--delay", "0.3", "--trials", "100")
    for number, (folder, process) in processes.items():
        for _ in range(3):
            assert process.stdout.readline().startswith("trial")
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "interrupted=True" in output
        found = states(folder / "tuning.studies.sqlite")
        assert found
        assert TrialState.RUNNING not in found
        with TuningStore.open(folder / "tuning.sqlite", with_shipped=False) as store:
            assert len(store.dispatch_rows()) == 1


@pytest.mark.slow
def test_a_killed_tuner_loses_one_trial(problem, sku, small, tmp_path):
    """Not even SIGKILL: what was recorded is there, and its running trials are reaped."""
    process = start(tmp_path, "--delay", "0.3", "--trials", "100")
    for _ in range(4):
        process.stdout.readline()
    process.kill()
    process.communicate()
    studies = tmp_path / "tuning.studies.sqlite"
    assert TrialState.RUNNING in states(studies)
    settings = replace(small, study_storage=AUTO)
    with TuningStore.open(tmp_path / "tuning.sqlite", with_shipped=False) as store:
        recorded = {row.config for row in store.evaluations()}
        assert len(recorded) >= 4
        evaluator = FakeEvaluator(sku)
        tune([problem], evaluator=evaluator, store=store, settings=settings)
    assert len(evaluator.evaluated) == 1 + small.effort.max_trials - len(recorded)
    # One that was being made when the process died has no owner yet; after a minute it is reaped.
    assert "owner" not in {key for attrs in running(studies) for key in attrs}
    assert len(running(studies)) <= 1


@pytest.mark.slow
def test_two_tuners_share_a_database_and_a_study(tmp_path):
    """Both end well, the work is shared, and hardly anything is done twice."""
    arguments = ("--delay", "0.1", "--trials", "24")
    processes = [start(tmp_path, *arguments, "--seed", seed) for seed in ("0", "1")]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    counts = [int(output.split("evaluated=")[1].split()[0]) for output in outputs]
    with TuningStore.open(tmp_path / "tuning.sqlite", with_shipped=False) as store:
        rows = store.evaluations()
        assert len(store.dispatch_rows()) == 1
    distinct = {row.config.config_id for row in rows}
    assert len(distinct) >= 24
    assert min(counts) > 2
    assert sum(counts) <= len(distinct) + 6
    assert TrialState.RUNNING not in states(tmp_path / "tuning.studies.sqlite")


def test_signals_wait_for_a_safe_moment():
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            pytest.fail("entered although a signal came")
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.allowed():
        signal.raise_signal(signal.SIGTERM)
    with Interrupts():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
