"""The analytic model beside a sweep measured on an H200 that it was not fitted on."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "sweep_model.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_model", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_order_and_the_times(benchmark: ModuleType) -> None:
    """644 pairs; docs/trace-model.md has the table."""
    scores = benchmark.scores()
    assert sum(score.pairs for score in scores) >= 600
    assert {score.problem.head_dim for score in scores} == {64, 128, 256}
    assert min(score.rank_correlation for score in scores) >= 0.9
    assert statistics.median(score.median_error for score in scores) <= 0.12
    close = [score.regret <= 0.03 for score in scores]
    assert sum(close) >= 0.9 * len(close)
