"""Studies from plan to files, with evaluators that do as they are told."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import EvaluationError, NoFeasibleKernel, ResourceError
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.replay import read_sweep
from fa4gen.hardware import Sku
from fa4gen.study import Ending, Limits, StudyPlan, StudyResult, carry_out, front_of
from fa4gen.study.files import SweepWriter, read_study, write_study
from fa4gen.study.outputs import draw
from fa4gen.testing.fakes import Behaviour, FakeEvaluator
from fa4gen.tune.study import open_storage

Script = Callable[[AttentionProblem, KernelConfig], Behaviour | None]
NO_LIMITS = Limits()


def study(
    plan: StudyPlan,
    sku: Sku,
    script: Script | None = None,
    *,
    limits: Limits = NO_LIMITS,
    source: Source = Source.MEASURED,
    database: Path | None = None,
) -> StudyResult:
    with FakeEvaluator(sku, script, source=source) as evaluator:
        return carry_out(plan, evaluator, database, limits=limits)


def test_every_kernel_is_tried_once_and_the_refused_are_named(
    speed_plan: StudyPlan, sku: Sku
) -> None:
    result = study(speed_plan, sku)
    assert result.ending is Ending.EXHAUSTED
    assert [row.origin for row in result.rows].count("default") == 1
    tried = [row.config_id for row in result.tried]
    assert sorted(tried) == sorted(config.config_id for config in speed_plan.grid.configs)
    assert len(result.refused) == len(speed_plan.grid.refused)
    assert all(row.outcome is Outcome.INFEASIBLE and row.message for row in result.refused)
    assert result.not_tried == 0
    (fastest,) = front_of(result)
    assert fastest.gain == max(row.gain or 0.0 for row in result.timed)


def test_the_default_and_the_peers_come_first(split_plan: StudyPlan, sku: Sku) -> None:
    evaluator = FakeEvaluator(sku)
    carry_out(split_plan, evaluator, limits=NO_LIMITS)
    first = [config for _, config in evaluator.evaluated][: 1 + len(split_plan.marks)]
    marked = [config for _, config, _ in split_plan.marks]
    assert first[0] == split_plan.grid.default
    assert set(first) >= set(marked)
    assert evaluator.prepared[0][0] == split_plan.grid.default


def test_the_front_trades_speed_for_accuracy(split_plan: StudyPlan, sku: Sku) -> None:
    def more_error_is_faster(problem: AttentionProblem, config: KernelConfig) -> Behaviour | None:
        degree = config.exp2_poly_degree if config.exp2_poly_fraction else 5
        return Behaviour(time_us=100.0 + 10 * degree + 5 * (config.rescale_threshold_log2 == 0))

    result = study(split_plan, sku, more_error_is_faster)
    front = front_of(result)
    assert len(front) > 2
    gains = [row.gain or 0.0 for row in front]
    errors = [row.accuracy[result.measure] for row in front]
    assert gains == sorted(gains, reverse=True)
    assert errors == sorted(errors, reverse=True)
    assert {row.timed_in for row in front} == {"shootout"}


def test_a_model_is_not_asked_twice(split_plan: StudyPlan, sku: Sku) -> None:
    result = study(split_plan, sku, source=Source.MODELLED)
    assert {row.timed_in for row in result.timed} == {"trial"}


def test_failures_are_rows_with_their_reason(speed_plan: StudyPlan, sku: Sku) -> None:
    def wide_ones_fail(problem: AttentionProblem, config: KernelConfig) -> Behaviour | None:
        return Behaviour(Outcome.COMPILE_ERROR) if config.tile_n > 128 else None

    result = study(speed_plan, sku, wide_ones_fail)
    failed = [row for row in result.tried if row.gain is None]
    assert {row.knobs["tile_n"] > 128 for row in failed} == {True}
    assert {row.message for row in failed} == {"scripted compile_error"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), EvaluationError("the GPU is gone")])
def test_what_was_found_before_the_end_is_kept(
    speed_plan: StudyPlan, sku: Sku, interruption: BaseException
) -> None:
    seen: list[KernelConfig] = []

    def fourth(problem: AttentionProblem, config: KernelConfig) -> Behaviour | None:
        seen.append(config)
        distinct = len(set(seen))
        return Behaviour(raises=interruption) if distinct == 4 else None

    result = study(speed_plan, sku, fourth)
    assert len(result.timed) == 3
    broken = isinstance(interruption, EvaluationError)
    assert result.ending is (Ending.BROKEN if broken else Ending.INTERRUPTED)
    assert result.message == ("the GPU is gone" if broken else "")
    assert result.not_tried == len(speed_plan.grid.configs) - 3


def test_an_evaluator_that_breaks_at_once_is_an_error(speed_plan: StudyPlan, sku: Sku) -> None:
    def never(problem: AttentionProblem, config: KernelConfig) -> Behaviour | None:
        return Behaviour(raises=EvaluationError("no GPU"))

    with pytest.raises(EvaluationError, match="no GPU"):
        study(speed_plan, sku, never)


def test_the_budget_ends_it(speed_plan: StudyPlan, sku: Sku) -> None:
    def slow(problem: AttentionProblem, config: KernelConfig) -> Behaviour | None:
        return Behaviour(delay_s=0.05)

    result = study(speed_plan, sku, slow, limits=Limits(budget_s=0.2))
    assert result.ending is Ending.BUDGET
    assert 1 <= len(result.timed) < len(speed_plan.grid.configs)


def test_nothing_feasible_is_said(speed_plan: StudyPlan, sku: Sku) -> None:
    empty = replace(speed_plan, grid=replace(speed_plan.grid, configs=()))
    with pytest.raises(NoFeasibleKernel, match="none of 27 combinations is feasible"):
        study(empty, sku)


def test_too_many_combinations_are_searched(problem: AttentionProblem, sku: Sku) -> None:
    from fa4gen.study import knobs_plan

    names = ["tile_m", "tile_n", "exp2_poly_fraction", "pingpong"]
    plan = knobs_plan(problem, sku.arch, names)
    result = study(plan, sku, limits=Limits(trials=30))
    assert result.ending is Ending.TRIALS
    assert len(result.tried) == 30
    assert len({row.config_id for row in result.rows}) == len(result.rows)
    assert {row.origin for row in result.tried} == {"default", "sampler"}
    assert set(result.importance) == set(names)
    assert sum(result.importance.values()) == pytest.approx(1.0)


def test_optuna_keeps_both_objectives(split_plan: StudyPlan, sku: Sku, tmp_path: Path) -> None:
    """In the file that tuning studies of the same database are kept in."""
    database = tmp_path / "tuning.sqlite"
    result = study(split_plan, sku, database=database)
    again = study(split_plan, sku, database=database)
    assert result.storage == "tuning.studies.sqlite"
    assert again.optuna_study == result.optuna_study + "#2"
    storage = open_storage(tmp_path / result.storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = optuna.load_study(study_name=result.optuna_study, storage=storage)
        assert [d.name for d in kept.directions] == ["MINIMIZE", "MINIMIZE"]
        assert kept.metric_names == ["log(time / default time)", "o_error_ratio"]
        assert len(kept.trials) == len(result.timed)
        assert kept.best_trials


def test_the_files_are_the_whole_study(split_plan: StudyPlan, sku: Sku, tmp_path: Path) -> None:
    result = study(split_plan, sku)
    write_study(result, tmp_path / "new" / "folder")
    back = read_study(tmp_path / "new" / "folder")
    assert replace(back, rows=()) == replace(result, rows=())
    for mine, theirs in zip(result.rows, back.rows, strict=True):
        assert theirs.knobs == mine.knobs
        assert theirs.gain == pytest.approx(mine.gain, rel=1e-5)
        assert theirs.accuracy == pytest.approx(mine.accuracy, rel=1e-5)
    assert [row.config_id for row in front_of(back)] == [row.config_id for row in front_of(result)]


def test_rows_without_a_time_survive_the_files(
    speed_plan: StudyPlan, sku: Sku, tmp_path: Path
) -> None:
    result = study(speed_plan, sku)
    write_study(result, tmp_path)
    assert read_study(tmp_path).refused == result.refused


def test_trials_are_written_as_they_come(
    speed_plan: StudyPlan, sku: Sku, tmp_path: Path, listener: object
) -> None:
    with FakeEvaluator(sku) as evaluator:
        writer = SweepWriter(tmp_path, speed_plan.problem, evaluator.policy, listener)
        carry_out(speed_plan, evaluator, limits=NO_LIMITS, listener=writer)
    sweep = read_sweep(tmp_path / "trials.jsonl")
    assert sweep.problems == (speed_plan.problem,)
    assert len(sweep.results) == len(speed_plan.grid.configs)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="--out"):
        SweepWriter(tmp_path / "file", speed_plan.problem, evaluator.policy, listener)


@pytest.mark.parametrize("kind", ["split", "one", "two", "three"])
def test_pages_and_pictures(
    kind: str, split_plan: StudyPlan, problem: AttentionProblem, sku: Sku, tmp_path: Path
) -> None:
    from fa4gen.study import knobs_plan

    names = {
        "one": ["tile_n"],
        "two": ["tile_m", "tile_n"],
        "three": ["tile_m", "tile_n", "pingpong"],
    }
    plan = split_plan if kind == "split" else knobs_plan(problem, sku.arch, names[kind])
    result = study(plan, sku, limits=Limits(trials=40))
    drawn = draw(result, tmp_path)
    assert not drawn.missing
    page = (tmp_path / "index.html").read_text()
    body = page[page.index("<main>") :]
    assert "plotly.js v" in page[: page.index("<main>")]
    assert "src=" not in body
    assert "href=" not in body
    assert str(problem) in body
    assert "measured" in body
    if kind == "split":
        assert "FlashAttention-4" in body
        assert "cudnn-frontend" in body
    else:
        assert "infeasible" in body
    picture = drawn.paths[1].read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_a_study_without_any_time_has_a_page_all_the_same(
    speed_plan: StudyPlan, sku: Sku, tmp_path: Path
) -> None:
    def fails(problem: AttentionProblem, config: KernelConfig) -> Behaviour | None:
        return Behaviour(Outcome.LAUNCH_ERROR)

    result = study(speed_plan, sku, fails)
    assert not result.timed
    draw(result, tmp_path)
    assert "No combination has a time" in (tmp_path / "index.html").read_text()
    write_study(result, tmp_path)
    assert json.loads((tmp_path / "study.json").read_text())["ending"] == "exhausted"
