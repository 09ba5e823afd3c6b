"""What the cycle model sees far behind is not timed, and nothing good is among it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from optuna.trial import TrialState

from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.core.outcome import Source
from fa4gen.evaluate.replay import read_sweep
from fa4gen.hardware import load_sku
from fa4gen.perf import predict
from fa4gen.space import space_for
from fa4gen.testing.fakes import FakeEvaluator
from fa4gen.tune import QUICK, tune
from fa4gen.tune.forecast import Forecast
from fa4gen.tune.knobs import Knobs
from fa4gen.tune.proposer import Proposer, SpaceExplorer
from fa4gen.tune.samplers import make_sampler
from fa4gen.tune.study import StudyKey, TunerStudy, open_storage

SPACE = space_for("sm90")
SKU = load_sku("h200")
RECORDED = Path(__file__).parent.parent / "recorded"
RECORDINGS = (
    "h200_full_sweeps",
    "h200_tiles",
    "h200_sweep",
    "h200_measured_sweep",
    "h200_trials",
    "h200_quick_trials",
    "h200_decode",
    "h200_decode_held",
    "h200_qwen",
)


def recorded(name):
    """For every problem of a recording, (configuration, gain) of what ran."""
    sweep = read_sweep(RECORDED / f"{name}.jsonl.gz")
    for problem in sweep.problems:
        tried = ((config, sweep.get(problem, config)) for config in sweep.configs.values())
        timed = [(config, one.timing.gain) for config, one in tried if one and one.timing]
        yield problem, SPACE.default(problem.signature), timed


@pytest.mark.parametrize("name", RECORDINGS)
def test_nothing_better_than_a_good_incumbent_is_hopeless(name):
    """Better by half a percent, with an incumbent within a tenth of the best."""
    pairs = 0
    for problem, anchor, timed in recorded(name):
        forecast = Forecast(problem, SKU, anchor, QUICK.hopeless_above)
        best = max(gain for _, gain in timed)
        for (incumbent, gain), (config, other) in product(timed, timed):
            if gain >= 0.9 * best and other > 1.005 * gain:
                pairs += 1
                assert not forecast.hopeless(config, incumbent), (problem, config.config_id)
    assert pairs >= 20


def test_most_of_what_is_slow_is_hopeless():
    """What a search without forecast had timed: 773 trials of 36 problems."""
    slow, hopeless = 0, 0
    for problem, anchor, timed in recorded("h200_quick_trials"):
        forecast = Forecast(problem, SKU, anchor, QUICK.hopeless_above)
        for config, gain in timed:
            slow += gain < 0.8
            hopeless += gain < 0.8 and forecast.hopeless(config, None)
    assert slow > 300
    assert hopeless > 0.9 * slow


@pytest.fixture
def study(problem):
    key = StudyKey(problem, "h200", Source.MEASURED, MeasurementPolicy(), "t")
    opened = TunerStudy.open(key, Knobs(SPACE.knobs), storage=open_storage(None))
    opened.use(make_sampler("random", 0, 1))
    return opened


class Nothing:
    """A memory without answers."""

    def get(self, _config):
        return None


def proposer(study, problem, above, max_free_asks):
    anchor = SPACE.default(problem.signature)
    return Proposer(
        study,
        (problem.signature, SKU.arch),
        Nothing(),
        SpaceExplorer(SPACE, problem.signature, SKU.arch),
        max_free_asks=max_free_asks,
        rng=random.Random(0),
        forecast=Forecast(problem, SKU, anchor, above),
    )


def test_the_sampler_learns_of_hopeless_asks_without_a_trial(study, problem):
    anchor = SPACE.default(problem.signature)
    limit_us = 1.2 * predict(problem, anchor, SKU).time_us
    asking = proposer(study, problem, 1.2, max_free_asks=200)
    asked = [asking.next([], anchor) for _ in range(3)]
    assert all(one and one.origin == "sampler" for one in asked)
    assert all(predict(problem, one.config, SKU).time_us <= limit_us for one in asked)
    pruned = study._trials(TrialState.PRUNED)
    assert len(pruned) == asking.free.hopeless > 10
    assert all(trial.value > math.log(1.2) for trial in pruned)
    assert study.known_ids() == {
        trial.user_attrs["result"]["config_id"] for trial in study._trials(TrialState.COMPLETE)
    }, "what was not timed is not known"


def test_neighbours_that_stand_in_for_the_sampler_are_not_hopeless(study, problem):
    anchor = SPACE.default(problem.signature)
    limit_us = 1.2 * predict(problem, anchor, SKU).time_us
    asking = proposer(study, problem, 1.2, max_free_asks=1)
    asked = [asking.next([], anchor) for _ in range(8)]
    fallback = [one for one in asked if one and one.origin == "fallback"]
    assert len(fallback) >= 5
    assert all(predict(problem, one.config, SKU).time_us <= limit_us for one in fallback)


def test_what_the_model_expects_most_of_around_the_incumbent_is_tried_first(study, problem):
    anchor = SPACE.default(problem.signature)
    asking = proposer(study, problem, math.inf, max_free_asks=0)
    asked = [asking.next([], anchor) for _ in range(12)]
    times_us = [predict(problem, one.config, SKU).time_us for one in asked]
    assert times_us == sorted(times_us)
    assert times_us[0] < times_us[-1]


def test_a_seed_is_tried_whatever_the_model_expects(study, problem):
    anchor = SPACE.default(problem.signature)
    slow = anchor.vary({"tile_m": 64, "tile_n": 64, "pingpong": False})
    forecast = Forecast(problem, SKU, anchor, 1.2)
    assert forecast.hopeless(slow, anchor)
    assert forecast.objective(slow) > math.log(1.2)
    study.enqueue(slow, "nearest")
    asked = proposer(study, problem, 1.2, max_free_asks=5).next([], anchor)
    assert asked.origin == "nearest"


def test_a_better_incumbent_asks_for_more(problem):
    """Splits make decode several times as fast as the default: what is no better is left out."""
    decode = problem.from_dict(
        {"batch": 1, "seqlen_q": 1, "seqlen_k": 32768, "num_heads_q": 32, "head_dim": 128}
    )
    anchor = SPACE.default(decode.signature)
    split = anchor.vary({"num_splits": 8, "scheduler": "persistent", "q_prefetch": False})
    forecast = Forecast(decode, SKU, anchor, 1.2)
    assert not forecast.hopeless(anchor, anchor)
    assert forecast.hopeless(anchor, split)


def test_a_search_says_how_many_were_hopeless(problem, sku, store, searching, listener):
    effort = replace(searching.effort, hopeless_above=1.2, max_trials=6)
    settings = replace(searching, effort=effort)
    (report,) = tune(
        [problem],
        evaluator=FakeEvaluator(sku),
        store=store,
        settings=settings,
        listener=listener,
    ).problems
    assert report.progress.hopeless_asks > 0
    assert report.progress.evaluated >= 6
