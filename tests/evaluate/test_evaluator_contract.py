"""Evaluators that need no GPU, under the contract all share; the registry; recorded sweeps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fa4gen.core.errors import EvaluationError, ResourceError, UnknownName
from fa4gen.core.evaluation import MeasurementPolicy, Thermal
from fa4gen.core.outcome import Outcome, Source
from fa4gen.evaluate import EVALUATORS, make_evaluator
from fa4gen.evaluate.replay import NOT_RECORDED, ReplayEvaluator, read_sweep, write_sweep
from fa4gen.hardware import load_sku
from fa4gen.space import space_for
from fa4gen.testing.evaluator_contract import EvaluatorContract
from fa4gen.testing.fakes import Behaviour, FakeEvaluator

H200 = load_sku("h200")
PROBLEM = EvaluatorContract.problem
ANCHOR = space_for("sm90").default(PROBLEM.signature)
CANDIDATE = replace(ANCHOR, tile_n=96)


def fake() -> FakeEvaluator:
    def script(_problem, config):
        return Behaviour(Outcome.INFEASIBLE) if config.num_kv_stages == 32 else None

    return FakeEvaluator(H200, script)


def recorded(tmp_path):
    path = tmp_path / "sweep.jsonl"
    evaluator = fake()
    found = [(PROBLEM, c, evaluator.evaluate(PROBLEM, c)) for c in (ANCHOR, CANDIDATE)]
    assert write_sweep(path, evaluator.policy, found) == 2
    return path


class TestFake(EvaluatorContract):
    def make(self):
        return fake()


class TestModel(EvaluatorContract):
    def make(self):
        return make_evaluator("model", H200)


class TestReplay(EvaluatorContract):
    @pytest.fixture(autouse=True)
    def sweep(self, tmp_path):
        self.path = recorded(tmp_path)

    def make(self):
        return make_evaluator("replay", H200, path=self.path)


def test_every_evaluator_is_made_by_name():
    assert set(EVALUATORS) == {"gpu", "model", "proven", "replay", "traced"}
    with pytest.raises(UnknownName, match="did you mean 'model'"):
        make_evaluator("modle", H200)


def test_policy_is_passed_on():
    burst = MeasurementPolicy(thermal=Thermal.BURST)
    assert make_evaluator("model", H200, burst).policy == burst


def test_replay_answers_what_was_recorded(tmp_path):
    evaluator = ReplayEvaluator(recorded(tmp_path))
    expected = fake().evaluate(PROBLEM, CANDIDATE)
    assert evaluator.evaluate(PROBLEM, CANDIDATE).timing == expected.timing
    assert (evaluator.source, evaluator.sku) == (Source.MEASURED, H200)
    missing = evaluator.evaluate(PROBLEM, replace(CANDIDATE, pingpong=False))
    assert (missing.outcome, missing.message) == (Outcome.INFEASIBLE, NOT_RECORDED)
    other = replace(PROBLEM, batch=8)
    assert evaluator.evaluate(other, ANCHOR).outcome is Outcome.INFEASIBLE


def test_replay_of_another_sku_or_policy_is_refused(tmp_path):
    path = recorded(tmp_path)
    with pytest.raises(EvaluationError, match="sweep of h200"):
        make_evaluator("replay", load_sku("h100_sxm5"), path=path)
    with pytest.raises(EvaluationError, match="sweep of h200"):
        make_evaluator("replay", H200, MeasurementPolicy(thermal=Thermal.BURST), path=path)


def test_later_lines_count(tmp_path):
    path = tmp_path / "twice.jsonl"
    slow = FakeEvaluator(H200, lambda p, c: Behaviour(time_us=70.0))
    fast = FakeEvaluator(H200, lambda p, c: Behaviour(time_us=60.0))
    found = [(PROBLEM, ANCHOR, e.evaluate(PROBLEM, ANCHOR)) for e in (slow, fast)]
    write_sweep(path, slow.policy, found)
    assert read_sweep(path).get(PROBLEM, ANCHOR).timing.median_us == 60.0


def test_best_of_a_sweep(tmp_path):
    sweep = read_sweep(recorded(tmp_path))
    config, evaluation = sweep.best(PROBLEM)
    assert evaluation.timing.gain == max(e.timing.gain for e in sweep.results.values())
    assert sweep.get(PROBLEM, config) == evaluation
    assert sweep.best(replace(PROBLEM, batch=8)) is None


def test_malformed_sweeps_say_where(tmp_path):
    path = recorded(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\nnot json\n")
    with pytest.raises(ResourceError, match="line 2"):
        read_sweep(path)
    path.write_text("")
    with pytest.raises(ResourceError, match="no records"):
        read_sweep(path)
    other = json.loads(lines[1])
    other["evaluation"]["provenance"]["sku"] = "b200"
    path.write_text(lines[0] + "\n" + json.dumps(other) + "\n")
    with pytest.raises(ResourceError, match="exactly one SKU"):
        read_sweep(path)
    with pytest.raises(ResourceError, match="cannot be read"):
        read_sweep(tmp_path / "absent.jsonl")


def test_a_tuners_export_is_a_sweep(tmp_path):
    """What the database exports can be replayed as it is."""
    from fa4gen.db import TuningStore

    evaluator = fake()
    with TuningStore.open(tmp_path / "t.sqlite", with_shipped=False) as store:
        for config in (ANCHOR, CANDIDATE):
            store.record(PROBLEM, config, evaluator.evaluate(PROBLEM, config), evaluator.policy)
        store.export_jsonl(tmp_path / "export.jsonl")
    sweep = read_sweep(tmp_path / "export.jsonl")
    assert sweep.problems == (PROBLEM,)
    assert set(sweep.configs.values()) == {ANCHOR, CANDIDATE}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_fake_plays_every_outcome(outcome):
    evaluator = FakeEvaluator(H200, lambda p, c: Behaviour(outcome))
    assert evaluator.evaluate(PROBLEM, CANDIDATE).outcome is outcome


def test_fake_raises_and_remembers():
    broken = FakeEvaluator(H200, lambda p, c: Behaviour(raises=EvaluationError("gone")))
    with broken, pytest.raises(EvaluationError, match="gone"):
        broken.evaluate(PROBLEM, ANCHOR)
    assert broken.evaluated == [(PROBLEM, ANCHOR)]
    assert broken.closed
