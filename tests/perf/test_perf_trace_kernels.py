"""The trace-driven model on whole attention kernels."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from fa4gen.cli.problem_text import parse_problem
from fa4gen.evaluate.traced import predict_by_trace
from fa4gen.hardware import load_sku
from fa4gen.space import space_for

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "blackwell_model.py"


@pytest.mark.slow
def test_published_times_of_flash_attention_4() -> None:
    """docs/trace-model.md has the table, and says how the constants were chosen."""
    spec = importlib.util.spec_from_file_location("blackwell_model", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    points = list(module.points())
    assert len(points) == 20
    errors = [abs(point.error) for point in points]
    assert statistics.median(errors) <= 0.12
    assert max(errors) <= 0.25
    times = {(point.sku, point.causal, point.seqlen): point.predicted for point in points}
    for (sku, causal, seqlen), tflops in times.items():
        assert sku == "gb300" or tflops < times["gb300", causal, seqlen]
        assert not causal or tflops < times[sku, False, seqlen]


@pytest.mark.slow
@pytest.mark.parametrize(("sku", "block"), [("h200", (2048, 3100)), ("b300", (2048, 2500))])
def test_a_kernel_of_ours(sku: str, block: tuple[int, int]) -> None:
    """Between the tensor core's own time and what was measured, or expected, with some room."""
    problem = parse_problem(["b2", "s4096", "h16", "d128"])
    machine = load_sku(sku)
    config = space_for(machine.arch.name).default(problem.signature)
    found = predict_by_trace(problem, config, machine)
    assert block[0] <= found.tile.block <= block[1]
    assert found.tile.next <= found.tile.first
    assert found.prediction.bound_by == "tensor"
    assert found.executed > 10_000
