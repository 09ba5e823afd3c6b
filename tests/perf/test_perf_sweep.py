"""The analytic model beside what was measured on an H200 and it was not fitted on."""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.dtypes import DType
from fa4gen.core.outcome import Source
from fa4gen.evaluate.replay import ReplayEvaluator, read_sweep
from fa4gen.hardware import load_sku
from fa4gen.perf import predict
from fa4gen.space import space_for

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
TRIALS = ROOT / "tests" / "recorded" / "h200_trials.jsonl.gz"
"""Of the tuner, of the first template whose warpgroups skip blocks; see make_trials.py there."""


FULL = TRIALS.with_name("h200_full_sweeps.jsonl.gz")
"""``fa4gen study`` over every value of some knobs, template ``f9317a16``: docs/measurements.md."""

DECODE = TRIALS.with_name("h200_decode.jsonl.gz")
"""Of the tuner, of the template whose splits are combined faster; see make_trials.py there."""


DECODE_HELD = TRIALS.with_name("h200_decode_held.jsonl.gz")
"""Of the tuner, later: all nine problems, kernels that are faster again, nothing fitted to them."""

GROUPS_HELD = TRIALS.with_name("h200_qwen.jsonl.gz")
"""Of the tuner, decode with 28 heads over 4 and 40 over 8, nothing fitted to them."""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return importlib.import_module("sweep_model")


def test_the_order_and_the_times(benchmark: ModuleType) -> None:
    """644 pairs; docs/trace-model.md has the table."""
    scores = benchmark.scores()
    assert sum(score.pairs for score in scores) >= 600
    assert {score.problem.head_dim for score in scores} == {64, 128, 256}
    assert min(score.rank_correlation for score in scores) >= 0.9
    assert statistics.median(score.median_error for score in scores) <= 0.12
    close = [score.regret <= 0.03 for score in scores]
    assert sum(close) >= 0.9 * len(close)


def test_the_trials_of_a_tuner_can_be_replayed() -> None:
    sweep = read_sweep(TRIALS)
    assert (sweep.sku, sweep.source) == ("h200", Source.MEASURED)
    assert (len(sweep.problems), len(sweep.results)) == (63, 602)
    assert {each.provenance.template_hash for each in sweep.results.values()} == {
        "fba42878a0da4119"
    }
    with ReplayEvaluator(sweep) as evaluator:
        for problem in sweep.problems:
            anchor = sweep.anchor(problem)
            assert anchor is not None
            timing = evaluator.evaluate(problem, anchor).timing
            assert timing is not None
            assert timing.gain == 1.0


def test_kernels_that_skip_blocks(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """602 pairs of 63 problems; docs/model-calibration.md has the table.

    A problem has some ten pairs, many with the same tiles, so single orders say little.
    """
    now = benchmark.scores(TRIALS)
    assert sum(score.pairs for score in now) == 602
    assert statistics.median(score.rank_correlation for score in now) >= 0.93
    assert statistics.quantiles([score.rank_correlation for score in now], n=10)[0] >= 0.7
    assert statistics.median(score.own_error for score in now) <= 0.1
    assert statistics.fmean(score.regret for score in now) <= 0.01
    monkeypatch.setattr(benchmark, "skips_blocks", lambda _: False)
    without = benchmark.scores(TRIALS)

    def of_causal(scores: Sequence[Any], name: str) -> float:
        return statistics.median(getattr(each, name) for each in scores if each.problem.causal)

    assert of_causal(now, "rank_correlation") > of_causal(without, "rank_correlation") + 0.04
    assert of_causal(now, "own_error") < of_causal(without, "own_error") - 0.02


def test_full_sweeps(benchmark: ModuleType) -> None:
    """Every kernel of some knobs: all tiles of two problems, all exponentials of two in e4m3."""
    sweep = read_sweep(FULL)
    assert {each.provenance.template_hash for each in sweep.results.values()} == {
        "f9317a16f4762c16"
    }
    scores = benchmark.scores(FULL)
    assert sorted(score.pairs for score in scores) == [49, 49, 90, 164]
    for score in scores:
        assert score.rank_correlation >= 0.9
        assert score.regret <= 0.01  # what the best of the model's first five loses
        if score.problem.dtype is not DType.E4M3:  # whose times nothing was fitted to
            assert score.median_error <= 0.06


def test_first_choices_for_decode(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """37 pairs of 5 problems: a small last block is sooner done, and a short ring soon full."""
    monkeypatch.setattr(benchmark, "BEST", 1)
    scores = benchmark.scores(DECODE)
    assert sorted(score.pairs for score in scores) == [7, 7, 7, 8, 8]
    assert all(score.regret <= 0.03 for score in scores)
    assert statistics.fmean(score.regret for score in scores) <= 0.01
    assert statistics.median(score.own_error for score in scores) <= 0.06


def test_decode_that_nothing_was_fitted_to(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 pairs of 9 problems, chosen and then timed after the model was fixed."""
    monkeypatch.setattr(benchmark, "BEST", 1)
    scores = benchmark.scores(DECODE_HELD)
    assert (len(scores), sum(score.pairs for score in scores)) == (9, 90)
    assert all(score.regret <= 0.01 for score in scores)
    assert statistics.median(score.rank_correlation for score in scores) >= 0.85
    assert statistics.median(score.own_error for score in scores) <= 0.1


def test_groups_of_five_and_seven_heads(benchmark: ModuleType) -> None:
    """Shapes that no kernel packed into tiles when the model was fixed."""
    scores = benchmark.scores(GROUPS_HELD)
    assert (len(scores), sum(score.pairs for score in scores)) == (10, 94)
    assert {score.problem.qhead_per_kvhead for score in scores} == {5, 7}
    assert all(score.regret <= 0.005 for score in scores)
    assert statistics.median(score.rank_correlation for score in scores) >= 0.85
    assert max(score.own_error for score in scores) <= 0.1


@pytest.mark.parametrize(
    ("text", "splits", "stages", "tile_n", "measured_us"),
    [
        ("b1 s1x32768 h32/8 d128", 8, 2, 64, 42.8),
        ("b1 s1x32768 h32/8 d128", 8, 2, 128, 37.9),
        ("b1 s1x32768 h32/8 d128", 8, 4, 64, 39.4),
        ("b1 s1x32768 h32/8 d128", 16, 2, 64, 35.4),
        ("b4 s1x16384 h32/8 d128", 2, 2, 64, 79.8),
        ("b4 s1x16384 h32/8 d128", 2, 2, 128, 69.0),
        ("b2 s16x16384 h32/8 d128", 8, 2, 64, 36.2),
        ("b1 s16x8192 h32/8 d128", 16, 2, 64, 12.7),
    ],
)
def test_few_ctas_with_short_rings_are_slow(
    text: str, splits: int, stages: int, tile_n: int, measured_us: float
) -> None:
    """Measured on an H200, 2026-11-22, docs/model-calibration.md."""
    problem = parse_problem(text.split())
    knobs = {"tile_m": 64, "tile_n": tile_n, "num_kv_stages": stages, "num_splits": splits}
    plain = {"pingpong": False, "scheduler": "persistent", "q_prefetch": False}
    config = space_for("sm90").default(problem.signature).vary(knobs | plain)
    assert predict(problem, config, load_sku("h200")).time_us == pytest.approx(
        measured_us, rel=0.06
    )
