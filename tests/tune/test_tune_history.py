"""Studies made again from records, and what they say of the knobs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreError
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy, Provenance, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import Origin, StoredEvaluation, TuningStore
from fa4gen.hardware import Sku
from fa4gen.space import space_for
from fa4gen.testing.fakes import FakeEvaluator
from fa4gen.tune import TuneSettings, importance, tune
from fa4gen.tune.history import histories, write_studies
from fa4gen.tune.importance import MIN_TRIALS, knob_importance
from fa4gen.tune.settings import study_location

SPACE = space_for("sm90")
POLICY = MeasurementPolicy()


def stored(
    problem: AttentionProblem, config: KernelConfig, gain: float, **made: str
) -> StoredEvaluation:
    """A record with this gain; 0 is a failure."""
    given = {"sku": "h200", "template_hash": "t", "date": "2026-01-01T00:00:00+00:00", **made}
    provenance = Provenance(source=Source.MEASURED, sm_count=1, fa4gen="0", **given)
    if gain:
        timing = Timing(9, 100.0 / gain, 0.1, gain, gain, gain)
        evaluation = Evaluation(Outcome.OK, provenance, timing=timing)
    else:
        evaluation = Evaluation(Outcome.TIMEOUT, provenance, message="no answer")
    return StoredEvaluation(1, "0" * 16, problem, config, evaluation, POLICY, Origin.USER)


def searched(
    problem: AttentionProblem, gain: Callable[[KernelConfig], float], count: int
) -> list[StoredEvaluation]:
    """So many different random configurations."""
    rng, found = random.Random(1), dict[str, KernelConfig]()
    base = SPACE.default(problem.signature)
    while len(found) < count:
        config = base.vary({knob.name: rng.choice(knob.values) for knob in SPACE.knobs})
        found[config.config_id] = config
    return [stored(problem, config, gain(config)) for config in found.values()]


@pytest.fixture
def two(problem: AttentionProblem) -> list[AttentionProblem]:
    other = AttentionProblem.from_dict({**problem.to_dict(), "batch": 7})
    return [problem, other]


def test_the_newest_evaluation_of_a_configuration_counts(problem: AttentionProblem) -> None:
    one, other = KernelConfig(), KernelConfig(tile_n=64)
    rows = [stored(problem, one, 1.0), stored(problem, other, 1.1), stored(problem, one, 2.0)]
    (history,) = histories(rows)
    assert [row.config for row in history.records] == [other, one]
    values = [trial.value for trial in history.trials()]
    assert values == pytest.approx([-math.log(1.1), -math.log(2.0)])


def test_what_may_not_be_compared_is_a_study_of_its_own(two: list[AttentionProblem]) -> None:
    config = KernelConfig()
    rows = [
        stored(two[0], config, 1.0),
        stored(two[1], config, 1.0),
        stored(two[0], config, 1.0, template_hash="u"),
        stored(two[0], config, 1.0, sku="h100_sxm5"),
        stored(two[0], config, 1.0, sku="x900"),
    ]
    assert len(histories(rows)) == 4, "of an unknown SKU there is none"


def test_configurations_outside_the_space_are_counted(problem: AttentionProblem) -> None:
    strange = KernelConfig(num_kv_stages=32)
    (history,) = histories([stored(problem, KernelConfig(), 1.0), stored(problem, strange, 1.0)])
    assert (len(history.records), history.outside) == (1, 1)


def test_rebuilt_studies_are_those_of_the_tuner(
    sku: Sku, problem: AttentionProblem, small: TuneSettings, tmp_path: Path
) -> None:
    """The same names and the same best values, so optuna-dashboard shows the same either way."""
    database, rebuilt = tmp_path / "tuning.sqlite", tmp_path / "rebuilt.sqlite"
    kept = TuneSettings(effort=small.effort, sampler="random")
    with TuningStore.open(database, with_shipped=False) as store:
        tune([problem], evaluator=FakeEvaluator(sku), store=store, settings=kept)
        assert write_studies(histories(store.evaluations()), rebuilt) == 1
    beside = study_location(kept, str(database), cheap=False)
    summaries = [optuna.get_all_study_summaries(f"sqlite:///{path}") for path in (beside, rebuilt)]
    (theirs,), (ours,) = summaries
    assert ours.study_name == theirs.study_name
    assert ours.best_trial is not None
    assert theirs.best_trial is not None
    assert ours.best_trial.value == theirs.best_trial.value
    # Not the parameters: those of the tuner are as they were asked for, ours in canonical form.
    assert ours.best_trial.user_attrs["result"] == theirs.best_trial.user_attrs["result"]
    assert ours.user_attrs["problem"] == str(problem)


def test_studies_that_cannot_be_written_say_so(problem: AttentionProblem, tmp_path: Path) -> None:
    found = histories([stored(problem, KernelConfig(), 1.0)])
    with pytest.raises(StoreError, match=r"cannot be written.*name another file"):
        write_studies(found, tmp_path / "nowhere" / "studies.sqlite")


def test_the_knob_that_decides_is_named_and_the_others_are_not(
    two: list[AttentionProblem],
) -> None:
    """One problem is ten times as fast as the other, which must not matter."""
    rng = random.Random(2)
    rows = []
    for problem, scale in zip(two, (1.0, 10.0), strict=True):
        rows += searched(
            problem,
            lambda config, scale=scale: (
                scale * (1.2 if config.tile_n in (96, 112) else 1.0) * rng.uniform(0.999, 1.001)
            ),
            60,
        )
    found = knob_importance(histories(rows))
    assert (found.trials, found.sampled, found.studies) == (120, 120, 2)
    assert found.shares[0].knob == "tile_n"
    assert found.shares[0].telling
    assert sum(share.share for share in found.shares) == pytest.approx(1.0)
    assert sum(share.telling for share in found.shares[1:]) <= 2, "1 in 20 is luck"


def test_importance_is_the_same_every_time(problem: AttentionProblem) -> None:
    rows = searched(problem, lambda config: 1.0 + config.tile_n / 1000, MIN_TRIALS)
    assert knob_importance(histories(rows)) == knob_importance(histories(rows))


def test_failures_do_not_count_as_slow(problem: AttentionProblem) -> None:
    rows = searched(problem, lambda config: 0.0 if config.pingpong else 1.1, 80)
    found = knob_importance(histories(rows))
    assert found.trials == sum(row.evaluation.outcome is Outcome.OK for row in rows) < 80
    assert found.shares == ()


@pytest.mark.parametrize("count", [0, 1, MIN_TRIALS - 1])
def test_too_few_trials_say_nothing(problem: AttentionProblem, count: int) -> None:
    rows = searched(problem, lambda config: 1.0 + config.tile_n / 1000, count)
    assert knob_importance(histories(rows)).shares == ()


def test_trials_that_are_all_alike_say_nothing(problem: AttentionProblem) -> None:
    rows = searched(problem, lambda config: 1.1, MIN_TRIALS + 5)
    assert knob_importance(histories(rows)).shares == ()


def test_very_many_trials_are_sampled(
    problem: AttentionProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "MAX_TRIALS", 60)
    rows = searched(problem, lambda config: 1.0 + config.tile_n / 1000, 90)
    found = knob_importance(histories(rows))
    assert (found.trials, found.sampled) == (90, 60)
    assert found.shares[0].knob == "tile_n"
