"""The analytic model beside a sweep measured on an H200 that it was not fitted on."""

from __future__ import annotations

import importlib
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


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
