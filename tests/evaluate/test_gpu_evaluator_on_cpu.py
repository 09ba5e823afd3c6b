"""The measuring evaluator end to end, with its worker on the CPU and kernels made for the test.

Everything but the GPU is real: the worker process, the messages, the checks, the timing rounds,
and what becomes of kernels that hang, crash or are wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_fakes import NamedBuilds

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy, Thermal
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.core.verdict import Verdict
from fa4gen.evaluate.contract import Evaluator
from fa4gen.evaluate.gpu import GpuEvaluator, GpuSettings
from fa4gen.evaluate.protocol import GpuConditions, GpuIdentity, Request, TimeReply
from fa4gen.evaluate.records import CheckedKernel
from fa4gen.evaluate.supervisor import Deadlines
from fa4gen.evaluate.timing import TimingPlan
from fa4gen.feasibility import check
from fa4gen.hardware import load_arch, load_sku
from fa4gen.space import space_for
from fa4gen.testing.evaluator_contract import EvaluatorContract

NAMES = (
    "good",
    "good_lazy",
    "row",
    "unwritten",
    "refuse",
    "unloadable",
    "infeasible",
    "render",
    "compile",
    "no_compiler",
    "hang",
    "abort",
    "segv",
    "late_hang",
    "slow",
)
PROBLEM = AttentionProblem(1, 64, 128, 2, 1, 64, 64, DType.BF16, causal=False)
# A CPU that others use as well times a kernel 10 % slower than itself: no reason to stop early.
QUICK = TimingPlan(min_rounds=8, max_rounds=8, budget_s=0.1, sample_us=10.0, hopeless_below=0.5)
SETTINGS = GpuSettings(
    trial_plan=QUICK,
    shootout_plan=replace(QUICK, hopeless_below=None),
    deadlines=Deadlines(start=120.0, launch=3.0, warmup=5.0, time=5.0),
    loader="fake_kernels:load",
    environment={"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))},
    seed=11,
    on_cpu=True,
)


@pytest.fixture(scope="module")
def builds() -> NamedBuilds:
    return NamedBuilds(NAMES)


@pytest.fixture(scope="module")
def evaluator(builds: NamedBuilds) -> Iterator[GpuEvaluator]:
    with GpuEvaluator(load_sku("h200"), builds=builds, settings=SETTINGS) as made:
        yield made
    assert builds.closed


def try_kernel(evaluator: GpuEvaluator, builds: NamedBuilds, name: str) -> Evaluation:
    return evaluator.evaluate(PROBLEM, builds.config(name))


def test_it_is_an_evaluator(evaluator: GpuEvaluator) -> None:
    assert isinstance(evaluator, Evaluator)
    assert evaluator.source is Source.MEASURED
    assert evaluator.policy == MeasurementPolicy()
    assert evaluator.sku.name == "h200"


def test_a_right_kernel_is_checked_timed_and_has_its_provenance(
    evaluator: GpuEvaluator, builds: NamedBuilds
) -> None:
    got = try_kernel(evaluator, builds, "good_lazy")
    assert got.outcome is Outcome.OK, got.message
    assert got.timing is not None
    assert got.timing.n == 8
    assert got.timing.median_us > 0
    assert got.timing.gain_low <= got.timing.gain <= got.timing.gain_high
    assert got.accuracy is not None
    assert {"normal", "growing", "ragged", "problem"} <= set(got.accuracy.kinds)
    assert 0 < got.accuracy.max_error <= got.accuracy.allowed
    assert got.resources is not None
    assert got.compile_s == 0.5
    made = got.provenance
    assert (made.source, made.sku, made.template_hash) == (Source.MEASURED, "h200", "feed")
    assert made.gpu_name == "CPU"
    assert made.torch
    assert made.date.endswith("+00:00")
    assert len(got.details["samples_us"]["candidate"]) == 8
    assert got.details["seed"] == 11


def test_the_anchor_gains_nothing_over_itself(evaluator: GpuEvaluator, builds: NamedBuilds) -> None:
    timing = try_kernel(evaluator, builds, "good").timing
    assert timing is not None
    assert (timing.gain_low, timing.gain, timing.gain_high) == (1.0, 1.0, 1.0)
    assert not timing.proven


def test_a_hopeless_kernel_is_given_up_early(evaluator: GpuEvaluator, builds: NamedBuilds) -> None:
    got = try_kernel(evaluator, builds, "slow")
    assert got.timing is not None
    assert got.timing.n == QUICK.hopeless_after
    assert got.timing.gain_high < 0.97
    assert got.details["stopped_early"] is True


@pytest.mark.parametrize(
    ("name", "outcome", "message"),
    [
        ("infeasible", Outcome.INFEASIBLE, "smem: got 2"),
        ("render", Outcome.RENDER_ERROR, "template line 3"),
        ("compile", Outcome.COMPILE_ERROR, "ptxas says no"),
        ("unloadable", Outcome.LAUNCH_ERROR, "load: OSError: cannot link"),
        ("refuse", Outcome.LAUNCH_ERROR, "normal: RuntimeError: CUDA error: invalid config"),
        ("row", Outcome.WRONG_RESULT, "normal: O at batch 1, head 3, row 64: error"),
        ("unwritten", Outcome.WRONG_RESULT, "elements of O unwritten"),
    ],
)
def test_failures_become_outcomes_and_spare_the_worker(
    evaluator: GpuEvaluator, builds: NamedBuilds, name: str, outcome: Outcome, message: str
) -> None:
    evaluator.evaluate(PROBLEM, builds.config("good"))
    starts = evaluator.worker_starts
    got = try_kernel(evaluator, builds, name)
    assert got.outcome is outcome
    assert message in got.message
    assert got.timing is None
    assert bool(got.reasons) == (outcome is Outcome.INFEASIBLE)
    ran = outcome in {Outcome.LAUNCH_ERROR, Outcome.WRONG_RESULT}
    assert got.details == ({"seed": SETTINGS.seed} if ran else {}), "of the inputs, to try again"
    assert evaluator.worker_starts == starts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "outcome", "message"),
    [
        ("hang", Outcome.TIMEOUT, "at stage launch (normal)"),
        ("late_hang", Outcome.TIMEOUT, "no answer within"),
        ("abort", Outcome.CRASHED, "SIGABRT"),
        ("segv", Outcome.CRASHED, "SIGSEGV"),
    ],
)
def test_deadly_kernels_cost_a_worker_and_nothing_else(
    evaluator: GpuEvaluator, builds: NamedBuilds, name: str, outcome: Outcome, message: str
) -> None:
    got = try_kernel(evaluator, builds, name)
    assert got.outcome is outcome
    assert message in got.message
    starts = evaluator.worker_starts
    after = try_kernel(evaluator, builds, "good_lazy")
    assert after.outcome is Outcome.OK
    assert evaluator.worker_starts == starts + 1


def test_what_is_not_the_kernels_fault_is_raised(
    evaluator: GpuEvaluator, builds: NamedBuilds
) -> None:
    with pytest.raises(EvaluationError, match="pool is closed"):
        try_kernel(evaluator, builds, "no_compiler")


def test_prepare_builds_the_anchor_and_the_feasible_ones() -> None:
    builds = NamedBuilds(NAMES)
    with GpuEvaluator(load_sku("h200"), builds=builds, settings=SETTINGS) as evaluator:
        evaluator.prepare(PROBLEM, [builds.config("row"), builds.config("infeasible")])
        assert builds.submitted == ["good", "row"]
        evaluator.prepare(PROBLEM, [builds.config("segv")], later=True)
        assert builds.later == ["good", "segv"]
        assert evaluator.worker_starts == 1, "it comes up meanwhile"


def test_small_shapes_are_tried_once_a_kernel_and_the_own_shape_always(
    evaluator: GpuEvaluator, builds: NamedBuilds
) -> None:
    longer = replace(PROBLEM, seqlen_k=192)
    kernel = builds.config("good_lazy")
    evaluator.evaluate(PROBLEM, kernel)
    for problem in (longer, PROBLEM):
        accuracy = evaluator.evaluate(problem, kernel).accuracy
        assert accuracy is not None
        assert accuracy.kinds == ("problem",)
        assert 0 < accuracy.max_error <= accuracy.allowed
    narrow = evaluator.evaluate(replace(longer, head_dim=32), kernel).accuracy
    assert narrow is not None
    assert {"normal", "ragged", "problem"} <= set(narrow.kinds), "another signature"
    for _ in range(2):
        wrong = evaluator.evaluate(PROBLEM, builds.config("row"))
        assert wrong.message.startswith("normal: "), "nothing is remembered of a failure"


def test_a_shootout_keeps_to_its_seconds(
    evaluator: GpuEvaluator, builds: NamedBuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[TimingPlan] = []
    plain = evaluator._time

    def noted(
        problem: AttentionProblem, kernels: Sequence[CheckedKernel], plan: TimingPlan
    ) -> TimeReply:
        plans.append(plan)
        return plain(problem, kernels, plan)

    monkeypatch.setattr(evaluator, "_time", noted)
    for budget_s in (0.06, None):
        evaluator.shootout(PROBLEM, [builds.config("good_lazy")], budget_s=budget_s)
    limited, unlimited = plans
    assert limited.budget_s == pytest.approx(0.03), "two kernels share the seconds"
    assert unlimited == SETTINGS.shootout_plan


def test_shootout_keeps_the_order_and_the_failures(
    evaluator: GpuEvaluator, builds: NamedBuilds
) -> None:
    names = ["slow", "row", "good", "good_lazy", "good_lazy"]
    got = evaluator.shootout(PROBLEM, [builds.config(name) for name in names])
    outcomes = [each.outcome for each in got]
    assert outcomes == [Outcome.OK, Outcome.WRONG_RESULT] + [Outcome.OK] * 3
    slow, _, anchor, lazy, again = [each.timing for each in got]
    assert slow is not None
    assert slow.gain_high < 0.9
    assert slow.n == 8, "nobody is given up early in a shoot-out"
    assert anchor is not None
    assert anchor.gain == 1.0
    assert "self_ratio" not in got[2].details, "one sample twice says nothing of the error"
    assert lazy == again


def test_shootout_of_nothing_and_of_the_anchor_alone(
    evaluator: GpuEvaluator, builds: NamedBuilds
) -> None:
    assert evaluator.shootout(PROBLEM, []) == []
    (alone,) = evaluator.shootout(PROBLEM, [builds.config("good")])
    assert alone.timing is not None
    assert alone.timing.gain == 1.0
    assert len(alone.details["self_ratio"]) == 3


@pytest.mark.slow
def test_a_finalist_that_dies_is_found_and_spares_the_others(
    evaluator: GpuEvaluator, builds: NamedBuilds
) -> None:
    names = ["late_hang", "good_lazy"]
    got = evaluator.shootout(PROBLEM, [builds.config(name) for name in names])
    assert [each.outcome for each in got] == [Outcome.TIMEOUT, Outcome.OK]


@pytest.mark.slow
def test_an_anchor_that_fails_is_an_error_but_evaluating_it_is_not() -> None:
    builds = NamedBuilds(["row", "good"])
    with GpuEvaluator(load_sku("h200"), builds=builds, settings=SETTINGS) as evaluator:
        got = evaluator.evaluate(PROBLEM, builds.config("row"))
        assert got.outcome is Outcome.WRONG_RESULT
        with pytest.raises(EvaluationError, match=r"anchor .* wrong_result"):
            evaluator.evaluate(PROBLEM, builds.config("good"))


class DefaultBuilds(NamedBuilds):
    """Builds for the contract: the real anchor and rules, fake kernels."""

    def anchor(self, signature: KernelSignature) -> KernelConfig:
        return space_for("sm90").default(signature)

    def verdict(self, signature: KernelSignature, config: KernelConfig) -> Verdict:
        return check(signature, config, load_arch("sm90"))

    def _name(self, config: KernelConfig) -> str:
        return "good" if config.tile_n != 96 else "good_lazy"


def contract_evaluator() -> GpuEvaluator:
    settings = replace(SETTINGS, deadlines=Deadlines())
    return GpuEvaluator(load_sku("h200"), builds=DefaultBuilds(NAMES), settings=settings)


@pytest.fixture(scope="module")
def shared() -> Iterator[GpuEvaluator]:
    with contract_evaluator() as made:
        yield made


@pytest.mark.slow
class TestContractOnCpu(EvaluatorContract):
    """What every evaluator must do; one worker serves all tests."""

    problem = AttentionProblem.from_dict(
        {"batch": 1, "seqlen_q": 64, "num_heads_q": 1, "head_dim": 128, "causal": True}
    )

    def make(self) -> GpuEvaluator:
        return contract_evaluator()

    @pytest.fixture
    def evaluator(self, shared: GpuEvaluator) -> GpuEvaluator:
        return shared


class Elsewhere:
    """A worker on another card, or beside another process."""

    def __init__(self, name: str = "NVIDIA H200", others: tuple[int, ...] = ()) -> None:
        self.identity = GpuIdentity(name, "", load_sku("h200").sm_count, 1, "", "", "", "")
        self.others = others

    def start(self) -> GpuIdentity:
        return self.identity

    def call(self, request: Request, scale: float = 1.0) -> TimeReply:
        times = ((1.0,) * 8, (1.0,) * 8)
        return TimeReply(times, 1, 1, False, GpuConditions(other_processes=self.others))

    def close(self) -> None:
        pass


def on(worker: Elsewhere, monkeypatch: pytest.MonkeyPatch, shared: bool) -> Evaluation:
    settings = replace(SETTINGS, on_cpu=False, allow_shared_gpu=shared)
    builds = NamedBuilds(NAMES)
    evaluator = GpuEvaluator(load_sku("h200"), builds=builds, settings=settings)
    monkeypatch.setattr(evaluator, "_worker", worker)

    def passed(problem: AttentionProblem, config: KernelConfig, *, fresh: bool) -> CheckedKernel:
        from fa4gen.core.evaluation import Accuracy
        from fa4gen.evaluate.protocol import KernelRef

        build = builds.submit(problem.signature, config).result()
        ref = KernelRef(build.artifact_id, "", config)
        return CheckedKernel(ref, build, Accuracy(0.0, 1.0), 1)

    monkeypatch.setattr(evaluator, "_check", passed)
    return evaluator.evaluate(PROBLEM, builds.config("good_lazy"))


def test_another_process_on_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match="got processes 77 beside ours"):
        on(Elsewhere(others=(77,)), monkeypatch, shared=False)


def test_another_process_may_be_allowed_and_is_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    got = on(Elsewhere(others=(77,)), monkeypatch, shared=True)
    assert got.details["other_processes"] == [77]


def test_a_card_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match=r"got NVIDIA L4 .* allowed for SKU h200"):
        on(Elsewhere(name="NVIDIA L4"), monkeypatch, shared=False)


@pytest.mark.slow
def test_a_machine_without_a_gpu_says_so() -> None:
    settings = replace(
        SETTINGS, on_cpu=False, environment={**SETTINGS.environment, "CUDA_VISIBLE_DEVICES": ""}
    )
    builds = NamedBuilds(NAMES)
    with (
        GpuEvaluator(load_sku("h200"), builds=builds, settings=settings) as evaluator,
        pytest.raises(EvaluationError, match="did not start: EvaluationError: CUDA device"),
    ):
        evaluator.evaluate(PROBLEM, builds.config("good"))


def test_policies_reach_the_record() -> None:
    policy = MeasurementPolicy(thermal=Thermal.BURST)
    with GpuEvaluator(load_sku("h200"), policy, builds=NamedBuilds(NAMES)) as evaluator:
        assert evaluator.policy == policy


def test_the_parent_imports_neither_torch_nor_cutlass() -> None:
    code = (
        "import sys, fa4gen.evaluate.gpu, fa4gen.evaluate.supervisor, fa4gen.evaluate.gpu_bench\n"
        "print([m for m in ('torch', 'cutlass', 'pynvml', 'tvm_ffi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
