"""The measuring evaluator on a GPU: what it says of good kernels, and that it survives bad ones.

The bad kernels are CUDA kernels made here, handed to the worker through its loader; the good one
is the same blockwise attention in torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_fakes import NamedBuilds

from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import Evaluation, L2State, MeasurementPolicy, Thermal
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.gpu import GpuEvaluator, GpuSettings
from fa4gen.evaluate.supervisor import Deadlines, Supervisor
from fa4gen.evaluate.timing import TimingPlan
from fa4gen.hardware import Sku, sku_for_gpu

pytestmark = pytest.mark.gpu

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))}
NAMES = (
    "good",
    "good_lazy",
    "row",
    "cuda_one_row",
    "unwritten",
    "outside",
    "cuda_too_wide",
    "cuda_fault",
    "cuda_misaligned",
    "cuda_trap",
    "cuda_hang",
)
SMALL = AttentionProblem(2, 512, 512, 4, 2, 64, 64, DType.BF16, causal=True)
SETTINGS = GpuSettings(
    trial_plan=TimingPlan(min_rounds=8, max_rounds=8, budget_s=0.2),
    deadlines=Deadlines(launch=5.0),
    loader="fake_kernels:load",
    environment=ENVIRONMENT,
)
FAST = MeasurementPolicy(l2=L2State.WARM, thermal=Thermal.BURST)
"""One set of inputs and no warm-up: the torch kernels here are hundreds of launches each."""


@pytest.fixture(scope="module")
def sku() -> Sku:
    """The SKU of the card, as a worker names it."""
    worker = Supervisor([sys.executable, "-m", "fa4gen.evaluate.gpu_worker"])
    identity = worker.start()
    worker.close()
    return sku_for_gpu(identity.gpu_name, identity.sm_count)


@pytest.fixture(scope="module")
def builds() -> NamedBuilds:
    return NamedBuilds(NAMES)


@pytest.fixture(scope="module")
def faked(sku: Sku, builds: NamedBuilds) -> Iterator[GpuEvaluator]:
    with GpuEvaluator(sku, FAST, builds=builds, settings=SETTINGS) as made:
        yield made


def try_kernel(evaluator: GpuEvaluator, builds: NamedBuilds, name: str) -> Evaluation:
    return evaluator.evaluate(SMALL, builds.config(name))


def test_a_right_kernel_has_full_provenance(faked: GpuEvaluator, builds: NamedBuilds) -> None:
    got = try_kernel(faked, builds, "good_lazy")
    assert got.outcome is Outcome.OK, got.message
    made = got.provenance
    assert all((made.gpu_name, made.gpu_uuid_hash, made.driver, made.cuda, made.torch, made.date))
    assert made.sm_clock_mhz is not None
    assert made.sm_clock_mhz > 100
    assert made.power_w is not None
    assert made.power_w > 10
    assert made.sm_count == faked.sku.sm_count
    assert got.accuracy is not None
    assert "masked" in got.accuracy.kinds


@pytest.mark.parametrize(
    ("name", "outcome", "message"),
    [
        ("row", Outcome.WRONG_RESULT, "O at batch"),
        ("cuda_one_row", Outcome.WRONG_RESULT, "LSE at batch 0, head 0, row 3"),
        ("unwritten", Outcome.WRONG_RESULT, "unwritten"),
        ("outside", Outcome.WRONG_RESULT, "written outside O"),
        ("cuda_too_wide", Outcome.LAUNCH_ERROR, "normal: "),
    ],
)
def test_a_harmless_failure_spares_the_worker(
    faked: GpuEvaluator, builds: NamedBuilds, name: str, outcome: Outcome, message: str
) -> None:
    try_kernel(faked, builds, "good")
    starts = faked.worker_starts
    got = try_kernel(faked, builds, name)
    assert (got.outcome, message in got.message) == (outcome, True), got.message
    assert faked.worker_starts == starts


@pytest.mark.parametrize("name", ["cuda_fault", "cuda_misaligned", "cuda_trap", "cuda_hang"])
def test_a_deadly_kernel_costs_a_worker_and_nothing_else(
    faked: GpuEvaluator, builds: NamedBuilds, name: str
) -> None:
    begin = time.monotonic()
    got = try_kernel(faked, builds, name)
    hang = name == "cuda_hang"
    assert got.outcome is (Outcome.TIMEOUT if hang else Outcome.LAUNCH_ERROR), got.message
    assert time.monotonic() - begin < 60
    starts = faked.worker_starts
    after = try_kernel(faked, builds, "good_lazy")
    assert after.outcome is Outcome.OK, after.message
    assert faked.worker_starts == starts + 1
    assert "other_processes" not in after.details, "the dead worker is off the card"


BESIDE = "import sys, torch; x = torch.ones(1, device='cuda'); print('up', flush=True); input()"


def test_another_process_on_the_card_is_noticed(sku: Sku, builds: NamedBuilds) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BESIDE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as beside:
        assert beside.stdout is not None
        assert beside.stdout.readline().strip() == "up"
        with (
            GpuEvaluator(sku, FAST, builds=builds, settings=SETTINGS) as evaluator,
            pytest.raises(EvaluationError, match="beside ours"),
        ):
            try_kernel(evaluator, builds, "good_lazy")
        beside.communicate("\n")
