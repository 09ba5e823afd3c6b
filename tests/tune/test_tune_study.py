"""The Optuna study: what it is told, what survives, and what dead processes leave."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from fa4gen.core.errors import StoreError, UnknownName
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.feasibility import check
from fa4gen.space import space_for
from fa4gen.testing.fakes import Behaviour, FakeEvaluator
from fa4gen.tune import ownership
from fa4gen.tune.knobs import Knobs
from fa4gen.tune.samplers import SAMPLERS, make_sampler
from fa4gen.tune.study import CONSTRAINTS, PENALTY, StudyKey, TunerStudy, open_storage

SPACE = space_for("sm90")
KNOBS = Knobs(SPACE.knobs)


@pytest.fixture
def key(problem) -> StudyKey:
    return StudyKey(problem, "h200", Source.MEASURED, MeasurementPolicy(), "template")


@pytest.fixture
def anchor(problem):
    return SPACE.default(problem.signature)


def raw(storage) -> optuna.Study:
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def test_knobs_round_trip(problem, sku):
    for number, config in enumerate(SPACE.configs(problem.signature, sku.arch)):
        params = KNOBS.params(config)
        assert KNOBS.config(params) == config
        if number > 300:
            break
    assert isinstance(params["tile_n_index"], int)
    assert params["scheduler"] in ("lpt", "persistent", "dynamic")
    assert params["pingpong"] in (True, False)


def test_config_outside_the_space_has_no_params(anchor):
    assert KNOBS.params(replace(anchor, tile_n=16)) is None
    fewer = Knobs([knob for knob in SPACE.knobs if knob.name != "num_kv_stages"])
    assert fewer.params(replace(anchor, num_kv_stages=3)) is None
    assert fewer.params(replace(anchor, num_kv_stages=2)) is not None


def test_changed_lists_are_another_study(key):
    knobs = tuple(
        replace(knob, values=knob.values[:-1]) if knob.name == "tile_n" else knob
        for knob in SPACE.knobs
    )
    storage = open_storage(None)
    TunerStudy.open(key, KNOBS, storage=storage)
    TunerStudy.open(key, Knobs(knobs), storage=storage)
    assert len(optuna.get_all_study_names(storage)) == 2


@pytest.mark.parametrize("outcome", list(Outcome))
def test_told_values_are_finite_and_kinds_apart(key, problem, sku, anchor, outcome):
    storage = open_storage(None)
    study = TunerStudy.open(key, KNOBS, storage=storage)
    evaluator = FakeEvaluator(sku, lambda problem, config: Behaviour(outcome))
    study.enqueue(replace(anchor, tile_n=96), "test")
    asked = study.ask()
    study.tell(asked, evaluator.evaluate(problem, asked.config))
    (trial,) = raw(storage).trials
    assert trial.state is TrialState.COMPLETE
    assert math.isfinite(trial.value)
    assert tuple(trial.constraints) == CONSTRAINTS
    violated = [name for name, value in trial.constraints.items() if value > 0]
    if outcome is Outcome.OK:
        assert violated == []
    else:
        assert trial.value == PENALTY
        assert len(violated) == 1


def test_infeasible_is_told_with_its_excess(key, problem, sku, anchor):
    storage = open_storage(None)
    study = TunerStudy.open(key, KNOBS, storage=storage)
    big = replace(anchor, tile_m=192, tile_n=192, num_kv_stages=3)
    verdict = check(problem.signature, big, sku.arch)
    assert not verdict
    study.enqueue(big, "test")
    study.tell_infeasible(study.ask(), verdict)
    (trial,) = raw(storage).trials
    excess = sum(reason.excess for reason in verdict.reasons)
    assert trial.constraints["feasibility"] == pytest.approx(excess)


def test_resume_continues_and_fresh_begins_again(key, tmp_path, anchor, problem, sku):
    evaluator = FakeEvaluator(sku)
    for expected, resume in ((1, True), (2, True), (1, False), (1, False), (3, True)):
        storage = open_storage(tmp_path / "studies.sqlite")
        study = TunerStudy.open(key, KNOBS, storage=storage, resume=resume)
        asked = study.ask()
        study.tell(asked, evaluator.evaluate(problem, asked.config))
        assert study.num_trials == expected
    assert len(optuna.get_all_study_names(storage)) == 3


def test_interrupted_seed_is_asked_again(key, anchor):
    study = TunerStudy.open(key, KNOBS, storage=open_storage(None))
    assert study.enqueue(anchor, "seed")
    assert not study.enqueue(anchor, "seed")
    study.abandon(study.ask())
    assert study.enqueue(anchor, "seed")
    assert study.ask().config == anchor


def test_trials_of_dead_processes_are_reaped(key, tmp_path, monkeypatch):
    """Both its trials are ended: the marked one, and not the one of a living process."""
    location = tmp_path / "studies.sqlite"
    study = TunerStudy.open(key, KNOBS, storage=open_storage(location))
    alive = study.ask()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = {**ownership.this_process(), "pid": child.pid}
    mark["started"] = ownership.process_start(child.pid)
    dead = study.ask()
    dead.trial.set_user_attr("owner", mark)
    assert TunerStudy.open(key, KNOBS, storage=open_storage(location)).reap() == 0
    child.kill()
    child.wait()
    reopened = TunerStudy.open(key, KNOBS, storage=open_storage(location))
    states = {trial.number: trial.state for trial in raw(open_storage(location)).trials}
    assert states == {alive.number: TrialState.RUNNING, dead.number: TrialState.FAIL}
    assert [config.config_id for config in reopened.running()] == [alive.config.config_id]


def test_a_pid_that_was_given_to_another_is_dead():
    mark = ownership.this_process()
    assert not ownership.abandoned(mark, None)
    assert ownership.abandoned({**mark, "started": "1"}, None)


def test_other_hosts_get_the_benefit_of_the_doubt():
    mark = {**ownership.this_process(), "host": "elsewhere", "pid": 1}
    assert not ownership.abandoned(mark, None)
    old = {**mark, "asked_at": mark["asked_at"] - ownership.STALE_AFTER_S - 1}
    assert ownership.abandoned(old, None)


def test_telling_a_reaped_trial_does_no_harm(key, problem, sku):
    study = TunerStudy.open(key, KNOBS, storage=open_storage(None))
    asked = study.ask()
    study.abandon(asked)
    study.tell(asked, FakeEvaluator(sku).evaluate(problem, asked.config))
    assert study.known_ids() == set()


def test_history_can_be_made_from_records(key, problem, sku, anchor):
    study = TunerStudy.open(key, KNOBS, storage=open_storage(None))
    evaluation = FakeEvaluator(sku).evaluate(problem, anchor)
    assert study.add(anchor, evaluation)
    assert study.known_ids() == {anchor.config_id}
    assert not study.enqueue(anchor, "seed")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "gp" else n for n in sorted(SAMPLERS)],
)
def test_every_sampler_asks_after_mixed_results(key, problem, sku, name):
    """Failures of every kind and infeasible asks behind it, a sampler still asks."""
    pytest.importorskip("scipy") if name == "gp" else None
    study = TunerStudy.open(key, KNOBS, storage=open_storage(None))
    study.use(make_sampler(name, seed=0, startup_trials=4))
    for outcome in (Outcome.OK, *Outcome):
        asked = study.ask()
        evaluator = FakeEvaluator(sku, lambda p, c, outcome=outcome: Behaviour(outcome))
        study.tell(asked, evaluator.evaluate(problem, asked.config))
    assert SPACE.contains(study.ask().config)


def test_unknown_sampler_names_the_known():
    with pytest.raises(UnknownName, match="did you mean 'tpe'"):
        make_sampler("tpr", 0, 1)


def test_unusable_storage_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    (tmp_path / "broken.sqlite").write_text("not a database" * 100)
    with pytest.raises(StoreError, match="study storage"):
        open_storage(tmp_path / "broken.sqlite")


def test_optuna_keeps_its_log_level(key):
    level = optuna.logging.get_verbosity()
    TunerStudy.open(key, KNOBS, storage=open_storage(None))
    assert optuna.logging.get_verbosity() == level
