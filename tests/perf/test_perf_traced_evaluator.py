"""The evaluator that replays, on kernels that nobody compiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import (
    CompileError,
    CompilerUnavailable,
    EvaluationError,
    RenderError,
    UnsupportedInstruction,
)
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import KernelSignature
from fa4gen.evaluate import Evaluator
from fa4gen.evaluate.traced import TraceEvaluator
from fa4gen.hardware import Arch, load_sku
from fa4gen.perf.trace import ClusterSteps, TileTapes, Walk
from fa4gen.perf.trace.dataflow import Step, WarpSteps
from fa4gen.perf.trace.kinds import Kind
from fa4gen.testing.evaluator_contract import EvaluatorContract

MUFU = Kind("ex2.approx", "mufu", 32.0, False, False, False, 0)


def walk(blocks: int, tile_n: int) -> Walk:
    """One warp that has an exponential for each key."""
    steps = WarpSteps(0, 0, tuple(Step(MUFU, ()) for _ in range(blocks * tile_n)))
    return Walk(ClusterSteps((steps,), (), len(steps.steps), {"mma.sync": blocks}), 1, blocks)


class Kernels:
    """Stands in for compiler and emulator."""

    def __init__(self) -> None:
        self.asked: list[KernelConfig] = []
        self.error: Exception | None = None

    def __call__(self, signature: KernelSignature, config: KernelConfig, arch: Arch) -> TileTapes:
        self.asked.append(config)
        if self.error is not None:
            raise self.error
        return TileTapes(walk(4, config.tile_n), walk(8, config.tile_n), None, "counts: none")


class TestTraceEvaluator(EvaluatorContract):
    """The shared contract, and what is the replay's own."""

    def make(self) -> Evaluator:
        return TraceEvaluator(load_sku("h200"), trace=Kernels())

    def test_a_kernel_is_traced_once(self) -> None:
        kernels = Kernels()
        evaluator = TraceEvaluator(load_sku("h200"), trace=kernels)
        longer = replace(self.problem, seqlen_q=1024, seqlen_k=1024)
        for problem in (self.problem, longer, self.problem):
            evaluator.evaluate(problem, self.anchor(evaluator))
        assert kernels.asked == [self.anchor(evaluator)]

    def test_it_says_what_is_not_modelled(self, evaluator: Evaluator) -> None:
        found = evaluator.evaluate(self.problem, self.anchor(evaluator))
        assert found.provenance.source is Source.MODELLED
        assert found.provenance.model_version.startswith("trace ")
        first, second, *_ = found.details["not_modelled"]
        assert first == "mma.sync: no timing, taken for one issue slot (8 executed)"
        assert second == "counts: none"

    def test_infeasible_kernels_are_not_compiled(self) -> None:
        kernels = Kernels()
        evaluator = TraceEvaluator(load_sku("h200"), trace=kernels)
        found = evaluator.evaluate(self.problem, self.impossible(evaluator))
        assert found.outcome is Outcome.INFEASIBLE
        assert kernels.asked == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RenderError("template: a knob is missing"), Outcome.RENDER_ERROR),
        (CompileError("ptxas: too many registers"), Outcome.COMPILE_ERROR),
        (UnsupportedInstruction("line 7: unknown opcode"), Outcome.CRASHED),
        (EvaluationError("trace: the tape is cut off"), Outcome.CRASHED),
    ],
)
def test_a_kernel_that_cannot_be_traced_is_an_outcome(error: Exception, expected: Outcome) -> None:
    kernels = Kernels()
    kernels.error = error
    evaluator = TraceEvaluator(load_sku("h200"), trace=kernels)
    contract = TestTraceEvaluator()
    found = evaluator.evaluate(contract.problem, contract.anchor(evaluator))
    assert found.outcome is expected
    assert str(error) in found.message


def test_no_compiler_is_no_outcome() -> None:
    kernels = Kernels()
    kernels.error = CompilerUnavailable("CuTe-DSL is not installed")
    evaluator = TraceEvaluator(load_sku("h200"), trace=kernels)
    contract = TestTraceEvaluator()
    with pytest.raises(EvaluationError, match="CuTe-DSL is not installed"):
        evaluator.evaluate(contract.problem, contract.anchor(evaluator))
