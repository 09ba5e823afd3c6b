"""Rendered Hopper kernels on a GPU: random problems and configurations against float64."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fa4gen.codegen import render
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.evaluate.correctness import CheckCase, Distribution, small_cases
from fa4gen.feasibility import canonicalise
from fa4gen.hardware import load_arch
from fa4gen.space import space_for

pytestmark = pytest.mark.gpu

ARCH = load_arch("sm90")
SPACE = space_for("sm90")


def signatures(dtypes: list[DType], *head_dims: int) -> st.SearchStrategy[KernelSignature]:
    """Signatures whose rows are whole multiples of 16 bytes."""
    return st.builds(
        KernelSignature,
        dtype=st.sampled_from(dtypes),
        head_dim=st.sampled_from([16, 64, 80, 96, 128, 192, 256, *head_dims]),
        head_dim_v=st.sampled_from([64, 96, 128, 192, 256, *head_dims]),
        causal=st.booleans(),
        qhead_per_kvhead=st.sampled_from([1, 2, 4, 5, 7, 8]),
    )


SIGNATURES = signatures([DType.BF16, DType.FP16], 40, 72, 136) | signatures([DType.E4M3])


@pytest.fixture(scope="module")
def launch() -> Callable[..., None]:
    """``launch(signature, config, cases)``: compile and hold every case against float64."""
    import torch

    from fa4gen.compile import compile_kernel, launchable, load
    from fa4gen.evaluate.gpu_check import make_inputs, run_case
    from fa4gen.numerics import exp2_error

    num_sms = torch.cuda.get_device_properties(0).multi_processor_count

    def wait(thunk: Callable[[], object]) -> None:
        thunk()
        torch.cuda.synchronize()

    def run(signature: KernelSignature, config: KernelConfig, cases: list[CheckCase]) -> None:
        loaded = load(compile_kernel(render(signature, config, ARCH)))
        function = launchable(loaded, config, signature.dtype)

        def kernel(*arguments: Any) -> None:
            function(*arguments, num_sms)

        error = exp2_error(config)
        for case in cases:
            seed = random.getrandbits(31)
            inputs = make_inputs(case.problem, case.distribution, seed, "cuda", config.tile_n)
            got = run_case(kernel, case, inputs=inputs, launch=wait, exp2_error=error)
            assert not got.message, f"{signature} {config} {case} seed {seed}: {got}"

    return run


def problem(signature: KernelSignature, seqlen_q: int, seqlen_k: int, batch: int = 2) -> Any:
    heads = 2
    return AttentionProblem(
        batch=batch,
        seqlen_q=seqlen_q,
        seqlen_k=seqlen_k,
        num_heads_q=heads * signature.qhead_per_kvhead,
        num_heads_kv=heads,
        head_dim=signature.head_dim,
        head_dim_v=signature.head_dim_v,
        dtype=signature.dtype,
        causal=signature.causal,
    )


@settings(
    max_examples=24,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(signature=SIGNATURES, seed=st.integers(0, 2**31), data=st.data())
def test_random_configurations_match_float64(
    launch: Callable[..., None], signature: KernelSignature, seed: int, data: st.DataObject
) -> None:
    config = SPACE.sample(random.Random(seed), signature, ARCH)
    lengths = st.integers(1, 700)
    cases = [
        CheckCase("drawn", problem(signature, data.draw(lengths), data.draw(lengths)), kind)
        for kind in Distribution
    ]
    launch(signature, config, [*cases, *small_cases(problem(signature, 256, 256), config)])


@pytest.mark.parametrize("dtype", [DType.BF16, DType.E4M3])
@pytest.mark.parametrize("group", [3, 5, 7])
def test_heads_that_divide_no_tile(launch: Callable[..., None], group: int, dtype: DType) -> None:
    """The rows between two queries are the next KV head's, or past the last; none may leave."""
    for causal in (False, True):
        signature = KernelSignature(dtype, 128, 128, causal, group)
        config = SPACE.default(signature).vary(
            {"tile_m": 64, "tile_n": 64, "pack_gqa": True, "num_splits": 3}
        )
        config = canonicalise(signature, config, ARCH)
        cases = small_cases(problem(signature, 300, 300), config)
        short = CheckCase("short", problem(signature, 3, 4096), Distribution.NORMAL)
        launch(signature, config, [*cases, short])


@pytest.mark.parametrize("dtype", [DType.BF16, DType.E4M3])
@pytest.mark.parametrize("head_dim", range(8, 257, 31))
def test_defaults_match_float64(launch: Callable[..., None], head_dim: int, dtype: DType) -> None:
    step = 16 // dtype.itemsize
    head_dim = -(-head_dim // step) * step
    for causal in (False, True):
        signature = KernelSignature(dtype, head_dim, head_dim, causal, 1)
        config = SPACE.default(signature)
        launch(signature, config, list(small_cases(problem(signature, 300, 300), config)))


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("threshold", [0.0, 4.0])
def test_e4m3_holds_whatever_the_threshold_leaves_of_p(
    launch: Callable[..., None], head_dim: int, threshold: float
) -> None:
    signature = KernelSignature(DType.E4M3, head_dim, head_dim, False, 2)
    lazy = threshold > 0
    config = SPACE.default(signature).vary(
        {"rescale_threshold_log2": threshold, "lazy_row_max": lazy}
    )
    long = CheckCase("long", problem(signature, 512, 16384, batch=1), Distribution.NORMAL)
    launch(signature, config, [*small_cases(problem(signature, 300, 300), config), long])


@pytest.mark.parametrize("scheduler", [Scheduler.PERSISTENT, Scheduler.DYNAMIC])
@pytest.mark.parametrize("causal", [False, True])
def test_persistent_waves_cover_every_tile(
    launch: Callable[..., None], causal: bool, scheduler: Scheduler
) -> None:
    """A counter that one launch left above zero would keep tiles from the next."""
    signature = KernelSignature(DType.BF16, 64, 64, causal, 1)
    config = KernelConfig(scheduler=scheduler)
    many = [
        CheckCase("many tiles", problem(signature, rows, rows, batch=40), Distribution.NORMAL)
        for rows in (128, 500, 129)
    ]
    launch(signature, config, many)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_row_sums_do_not_drift_over_many_blocks(launch: Callable[..., None], head_dim: int) -> None:
    """The LSE of hundreds of blocks; see ``tests/codegen/test_ptx_numerics.py``."""
    signature = KernelSignature(DType.BF16, head_dim, head_dim, False, 1)
    long = CheckCase("long", problem(signature, 1024, 75600, batch=1), Distribution.NORMAL)
    launch(signature, SPACE.default(signature), [long])


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("dtype", [DType.BF16, DType.E4M3])
def test_an_exported_file_runs_alone(tmp_path: Path, dtype: DType, num_splits: int) -> None:
    signature = KernelSignature(dtype, 64, 64, True, 1)
    path = tmp_path / "kernel.py"
    config = canonicalise(
        signature, SPACE.default(signature).vary({"num_splits": num_splits}), ARCH
    )
    path.write_text(render(signature, config, ARCH).source, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "CUTE_DSL_ARCH"}
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "TFLOP/s" in done.stdout
