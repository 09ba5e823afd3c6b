"""A study through the measuring evaluator, its worker on the CPU with kernels made for the test."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_fakes import NamedBuild, NamedBuilds

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.core.verdict import Verdict
from fa4gen.evaluate.builds import Build
from fa4gen.evaluate.gpu import GpuEvaluator, GpuSettings
from fa4gen.evaluate.supervisor import Deadlines
from fa4gen.evaluate.timing import TimingPlan
from fa4gen.feasibility import check
from fa4gen.hardware import load_sku
from fa4gen.space import space_for
from fa4gen.study import Ending, Limits, carry_out, exp2_split_plan

PROBLEM = AttentionProblem(1, 64, 128, 2, 1, 64, 64, DType.BF16, causal=False)
QUICK = TimingPlan(min_rounds=6, max_rounds=6, budget_s=0.1, sample_us=10.0)
EVALUATE = Path(__file__).parent.parent / "evaluate"
H200 = load_sku("h200")


class GoodBuilds(NamedBuilds):
    """Every configuration is the fake kernel ``good``, those with degree 2 are wrong."""

    def anchor(self, signature: KernelSignature) -> KernelConfig:
        return space_for("sm90").default(signature)

    def verdict(self, signature: KernelSignature, config: KernelConfig) -> Verdict:
        return check(signature, config, H200.arch)

    def submit(
        self,
        signature: KernelSignature,
        config: KernelConfig,
        *,
        urgent: bool = False,
        later: bool = False,
    ) -> Future[Build]:
        future: Future[Build] = Future()
        future.set_result(NamedBuild(config.config_id, Path(self._name(config))))
        return future

    def _name(self, config: KernelConfig) -> str:
        return "unwritten" if config.exp2_poly_degree == 2 else "good"


@pytest.mark.slow
def test_a_measured_study_says_how_exact_the_gpu_was_and_what_failed() -> None:
    settings = GpuSettings(
        trial_plan=QUICK,
        shootout_plan=replace(QUICK, hopeless_below=None),
        deadlines=Deadlines(start=120.0, launch=5.0, warmup=5.0, time=5.0),
        loader="fake_kernels:load",
        environment={"PYTHONPATH": os.pathsep.join((str(EVALUATE), *sys.path))},
        seed=11,
        on_cpu=True,
    )
    plan = exp2_split_plan(PROBLEM, H200.arch)
    few = tuple(c for c in plan.grid.configs if c.exp2_poly_fraction in (0.0, 0.5))[:6]
    plan = replace(plan, marks=(), grid=replace(plan.grid, configs=few))
    with GpuEvaluator(H200, builds=GoodBuilds(["good"]), settings=settings) as evaluator:
        result = carry_out(plan, evaluator, limits=Limits(finalists=2))
    assert result.ending is Ending.EXHAUSTED
    assert result.setting.source is Source.MEASURED
    assert len(result.tried) == len(few)
    wrong = [row for row in result.tried if row.knobs["exp2_poly_degree"] == 2]
    assert wrong
    assert {row.outcome for row in wrong} == {Outcome.WRONG_RESULT}
    assert all("unwritten" in row.message for row in wrong)
    for row in result.timed:
        assert 0.0 < row.measured_errors["large_o_rms"] < row.measured_errors["large_o_max"] < 0.1
        assert row.measured_errors["normal_lse_max"] < 1e-3
        assert row.accuracy["o_error_ratio"] > 0.9
    assert {row.timed_in for row in result.timed} == {"trial", "shootout"}
