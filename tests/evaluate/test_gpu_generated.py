"""The measuring evaluator on a GPU with generated kernels: agreement with itself, and the contract.

A module of its own, so that no worker of another test is on the card meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fa4gen.core.dtypes import DType
from fa4gen.core.evaluation import Execution, L2State, MeasurementPolicy, Thermal
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.gpu import GpuEvaluator, GpuSettings
from fa4gen.evaluate.supervisor import Supervisor
from fa4gen.hardware import Sku, sku_for_gpu
from fa4gen.space import space_for
from fa4gen.testing.evaluator_contract import EvaluatorContract

pytestmark = pytest.mark.gpu

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))}
REAL = AttentionProblem(2, 4096, 4096, 16, 16, 128, 128, DType.BF16, causal=True)
SELF_RATIO = 0.003
"""How far from 1 the measured ratio of a kernel to itself may lie."""


def this_sku() -> Sku:
    """The SKU of the card, as a worker names it."""
    worker = Supervisor([sys.executable, "-m", "fa4gen.evaluate.gpu_worker"])
    identity = worker.start()
    worker.close()
    return sku_for_gpu(identity.gpu_name, identity.sm_count)


@pytest.fixture(scope="module")
def sku() -> Sku:
    return this_sku()


@pytest.mark.parametrize(
    "policy",
    [
        MeasurementPolicy(),
        MeasurementPolicy(Execution.EAGER, L2State.WARM, Thermal.BURST),
    ],
    ids=str,
)
def test_a_generated_kernel_against_itself(sku: Sku, policy: MeasurementPolicy) -> None:
    default = space_for(sku.arch.name).default(REAL.signature)
    with GpuEvaluator(sku, policy, settings=GpuSettings(environment=ENVIRONMENT)) as evaluator:
        got = evaluator.evaluate(REAL, default)
        assert got.outcome is Outcome.OK, got.message
        low, ratio, high = got.details["self_ratio"]
        print(f"{policy}: {got.timing} {got.provenance} self {low:.4f} {ratio:.4f} {high:.4f}")
        assert abs(ratio - 1) < SELF_RATIO
        assert got.timing is not None
        assert 100 < REAL.tflops(got.timing.median_us) < sku.peak_tflops


@pytest.fixture(scope="class")
def shared(sku: Sku) -> Iterator[GpuEvaluator]:
    with GpuEvaluator(sku) as made:
        yield made


class TestContractOnGpu(EvaluatorContract):
    """What every evaluator must do, with generated kernels and one worker for all tests."""

    def make(self) -> GpuEvaluator:
        return GpuEvaluator(this_sku())

    @pytest.fixture
    def evaluator(self, shared: GpuEvaluator) -> GpuEvaluator:
        return shared


def test_peers_can_be_timed_side_by_side() -> None:
    code = (
        "import torch\n"
        "from fa4gen.evaluate.gpu_bench import interleave\n"
        "from fa4gen.evaluate.gpu_device import open_bench\n"
        "from fa4gen.evaluate.timing import TimingPlan, summarise\n"
        "bench = open_bench()\n"
        "x = [torch.randn(4096, 4096, device='cuda', dtype=torch.bfloat16) for _ in range(4)]\n"
        "one = lambda i: x[i % 4] @ x[(i + 1) % 4]\n"
        "two = lambda i: (one(i), one(i))\n"
        "plan = TimingPlan(hopeless_below=None)\n"
        "got = interleave([one, two, one], plan, bench, buffers=4)\n"
        "print(summarise(got.times_us[0], got.times_us[1]).gain,"
        " summarise(got.times_us[0], got.times_us[2]).gain, got.conditions.sm_clock_mhz)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    twice, same, clock = map(float, done.stdout.split())
    assert twice == pytest.approx(0.5, abs=0.03)
    assert same == pytest.approx(1.0, abs=SELF_RATIO)
    assert clock > 100


def test_a_shootout_of_generated_kernels_agrees_with_their_trials(sku: Sku) -> None:
    default = space_for(sku.arch.name).default(REAL.signature)
    narrow = replace(default, tile_n=64)
    with GpuEvaluator(sku, settings=GpuSettings(environment=ENVIRONMENT)) as evaluator:
        evaluator.prepare(REAL, [narrow])
        alone = evaluator.evaluate(REAL, narrow)
        assert alone.outcome is Outcome.OK, alone.message
        together, anchor = evaluator.shootout(REAL, [narrow, default])
        assert alone.timing is not None
        assert together.timing is not None
        print(alone.timing, together.timing, anchor.timing)
        assert together.timing.gain == pytest.approx(alone.timing.gain, abs=0.02)
