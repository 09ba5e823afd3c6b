"""Strategies raced on recorded sweeps, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fa4gen.core.errors import ConfigError, ResourceError, UnknownName
from fa4gen.core.outcome import Source
from fa4gen.evaluate.replay import Sweep, read_sweep
from fa4gen.study import Ending
from fa4gen.study.outputs import draw
from fa4gen.study.sampler_files import (
    is_sampler_study,
    read_sampler_study,
    write_sampler_study,
)
from fa4gen.study.samplers import (
    TARGET_TRIALS,
    TUNERS_OWN,
    Course,
    RaceRow,
    SamplerResult,
    courses_of,
    median_regret,
    run_races,
    spread_of,
    usable,
)
from fa4gen.tune.replay import Race

RECORDED = Path(__file__).parents[1] / "recorded"


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return read_sweep(RECORDED / "h200_sweep.jsonl.gz")


def few(sweep: Sweep, count: int) -> Sweep:
    return replace(sweep, problems=sweep.problems[:count])


def result_of(*runs: tuple[int, str, tuple[float, ...]], lacks: float = 0.1) -> SamplerResult:
    """A result of two courses; the second's default is the best."""
    sweep = read_sweep(RECORDED / "h200_model_hd64.jsonl.gz")
    course = Course("a", sweep.problems[0], "h200", Source.MODELLED, 9, 9, lacks)
    return SamplerResult(
        courses=(course, replace(course, default_lacks=0.0)),
        rows=tuple(RaceRow(c, name, i, regrets) for i, (c, name, regrets) in enumerate(runs)),
        strategies=(TUNERS_OWN,),
        seeds=len(runs),
        trials=30,
        ending=Ending.EXHAUSTED,
    )


def test_the_recorded_sweep_is_packed_and_whole(sweep: Sweep) -> None:
    assert (sweep.sku, sweep.source) == ("h200", Source.MEASURED)
    assert len(sweep.problems) == 24
    assert len(sweep.results) == 645


def test_a_packed_file_that_is_broken_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jsonl.gz"
    path.write_bytes((RECORDED / "h200_sweep.jsonl.gz").read_bytes()[:500])
    with pytest.raises(ResourceError, match=r"half\.jsonl\.gz: cannot be read"):
        read_sweep(path)


def test_quartiles_are_counts_and_what_was_not_found_is_infinite() -> None:
    spread = spread_of([3, None, 1, 5])
    assert (spread.low, spread.median, spread.high) == (3, 5, math.inf)
    assert (spread.found, spread.runs) == (3, 4)
    assert spread_of([None, None]).median == math.inf
    assert spread_of([]).runs == 0


def test_trials_are_counted_to_the_first_that_is_near_enough() -> None:
    row = RaceRow(0, "tpe", 0, (math.inf, 0.2, 0.02, 0.005))
    assert row.trials_within(0.03) == 3
    assert row.trials_within(0.01) == 4
    assert row.trials_within(0.001) is None


def test_the_target_is_missed_where_the_median_is() -> None:
    late = (0.1,) * TARGET_TRIALS + (0.0,)
    result = result_of((0, TUNERS_OWN, late), (1, TUNERS_OWN, (0.0,)))
    assert result.hard == (0,)
    assert result.misses == (0,)
    assert median_regret(result, TUNERS_OWN, result.hard) == list(late)


def test_problems_with_next_to_nothing_recorded_are_left_out(sweep: Sweep) -> None:
    field, left_out = courses_of([("sweep", few(sweep, 2))])
    assert [course.problem for course, _ in field] == [sweep.problems[1]]
    assert [who for who, _ in left_out] == [f"sweep: {sweep.problems[0]}"]
    with pytest.raises(ResourceError, match="none of 1 recorded problems"):
        courses_of([("sweep", few(sweep, 1))])


def test_strategies_that_cannot_run_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName):
        usable(["annealing"])
    with pytest.raises(UnknownName):
        usable(["model+annealing"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    able, left_out = usable(["tpe", "cmaes", "tpe"])
    assert able == ("tpe",)
    assert left_out[0][0] == "cmaes"
    assert "not installed" in left_out[0][1]
    with pytest.raises(ConfigError, match="not installed"):
        usable(["gp"])


def test_a_race_ends_when_all_is_tried_and_has_found_the_best(sweep: Sweep) -> None:
    race = Race(sweep, sweep.problems[1])
    regrets = race.run("random", 0, 500)
    assert len(regrets) == len(race.configs) == 28
    assert regrets[-1] == 0.0
    assert list(regrets) == sorted(regrets, reverse=True)
    assert race.run("random", 0, 500) == regrets
    assert race.run("random", 1, 500) != regrets


def test_seeded_search_begins_with_the_default_and_the_models_favourites(sweep: Sweep) -> None:
    race = Race(sweep, sweep.problems[1])
    assert race.seeds
    assert race.anchor not in race.seeds
    first = {race.run(TUNERS_OWN, seed, 1 + len(race.seeds)) for seed in range(4)}
    assert len(first) == 1  # no seed of the sampler changes them


def test_ctrl_c_keeps_the_runs_that_are_done(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    field, _ = courses_of([("sweep", few(sweep, 3))])
    whole = Race.run

    def third(self: Race, strategy: str, seed: int, trials: int) -> tuple[float, ...]:
        if seed == 2:
            raise KeyboardInterrupt
        return whole(self, strategy, seed, trials)

    monkeypatch.setattr(Race, "run", third)
    rows, ending = run_races(field, ["random"], seeds=5, trials=3)
    assert ending is Ending.INTERRUPTED
    assert [row.seed for row in rows] == [0, 1]


def test_files_and_pages(sweep: Sweep, tmp_path: Path) -> None:
    field, left_out = courses_of([("sweep", few(sweep, 3))])
    rows, ending = run_races(field, ["random", "model+random"], seeds=2, trials=10)
    result = SamplerResult(
        courses=tuple(course for course, _ in field),
        rows=tuple(rows),
        strategies=("random", "model+random"),
        seeds=2,
        trials=10,
        ending=ending,
        left_out=left_out,
    )
    write_sampler_study(result, tmp_path)
    assert is_sampler_study(tmp_path)
    back = read_sampler_study(tmp_path)
    assert replace(back, rows=()) == replace(result, rows=())
    assert back.rows[0].regrets == pytest.approx(result.rows[0].regrets, rel=1e-3)
    draw(back, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert str(sweep.problems[1]) in page
    assert "model+tpe did not run" in page
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_tuners_own_strategy_meets_its_target(sweep: Sweep) -> None:
    """Within 1 % of the best recorded in 20 trials or fewer, median over seeds, on every problem
    whose default is not that near; random search needs more of them."""
    field, _ = courses_of([("sweep", sweep)])
    hard = [pair for pair in field if (pair[0].default_lacks or 1.0) > 0.01]
    assert len(hard) >= 8
    rows, _ = run_races(hard, [TUNERS_OWN, "random"], seeds=3, trials=30)
    medians: dict[str, list[float]] = {TUNERS_OWN: [], "random": []}
    for number in range(len(hard)):
        for strategy, found in medians.items():
            counts = [
                row.trials_within(0.01)
                for row in rows
                if (row.course, row.strategy) == (number, strategy)
            ]
            found.append(spread_of(counts).median)
    assert max(medians[TUNERS_OWN]) <= TARGET_TRIALS
    assert sum(medians[TUNERS_OWN]) < sum(medians["random"])
