"""The evaluator that asks the cycle model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.core.evaluation import MeasurementPolicy, Thermal
from fa4gen.core.outcome import Outcome, Source
from fa4gen.evaluate import Evaluator, make_evaluator
from fa4gen.evaluate.model import ModelEvaluator
from fa4gen.hardware import load_sku
from fa4gen.perf import MODEL_VERSION, predict
from fa4gen.testing.evaluator_contract import EvaluatorContract


class TestModelEvaluator(EvaluatorContract):
    """The shared contract, and what is the model's own."""

    def make(self) -> Evaluator:
        return ModelEvaluator(load_sku("h200"))

    def test_answers_are_the_prediction(self, evaluator: Evaluator) -> None:
        config = self.candidate(evaluator)
        evaluation = evaluator.evaluate(self.problem, config)
        assert evaluation.timing is not None
        expected = predict(self.problem, config, evaluator.sku).time_us
        anchor = predict(self.problem, self.anchor(evaluator), evaluator.sku).time_us
        assert evaluation.timing.median_us == expected
        assert evaluation.timing.gain == pytest.approx(anchor / expected)
        assert evaluation.timing.gain_low == evaluation.timing.gain == evaluation.timing.gain_high
        assert evaluation.timing.spread_us == 0.0

    def test_says_that_it_is_modelled(self, evaluator: Evaluator) -> None:
        provenance = evaluator.evaluate(self.problem, self.anchor(evaluator)).provenance
        assert provenance.source is Source.MODELLED
        assert provenance.model_version == MODEL_VERSION
        assert provenance.driver == ""

    def test_infeasible_gives_every_reason(self, evaluator: Evaluator) -> None:
        config = replace(self.impossible(evaluator), regs_producer=256)
        evaluation = evaluator.evaluate(self.problem, config)
        assert evaluation.outcome is Outcome.INFEASIBLE
        assert {reason.rule for reason in evaluation.reasons} == {"smem", "register_pool"}
        assert "smem" in evaluation.message


def test_burst_runs_at_a_higher_clock() -> None:
    sku = load_sku("h200")
    problem = TestModelEvaluator.problem
    burst = make_evaluator("model", sku, MeasurementPolicy(thermal=Thermal.BURST))
    sustained = make_evaluator("model", sku)
    config = TestModelEvaluator().anchor(sustained)
    fast, slow = (e.evaluate(problem, config).timing for e in (burst, sustained))
    assert fast is not None
    assert slow is not None
    assert fast.median_us < slow.median_us


def test_an_arch_without_kernels() -> None:
    sku = load_sku("b200")
    evaluator = ModelEvaluator(replace(sku, arch=replace(sku.arch, name="sm70", family="sm70")))
    anchor = TestModelEvaluator().anchor(ModelEvaluator(load_sku("h200")))
    evaluation = evaluator.evaluate(TestModelEvaluator.problem, anchor)
    assert evaluation.outcome is Outcome.INFEASIBLE
    assert evaluation.reasons[0].rule == "arch"
