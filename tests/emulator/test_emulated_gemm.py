"""quack's GEMMs, emulated: they agree with float64, and nothing else is wrong with them."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from peer_kernels import PeerKernel
from peer_suite import GEMM, compile_suite

from fa4gen.emulator.session import run

POLICIES = ("eager", "lazy", "seed:3")
BF16_ROUNDING = 2.0**-8
"""Largest relative error of rounding to bf16, which keeps 8 bits."""
F32_STEP = 2.0**-23
"""Of one addition in float32, also where it truncates."""

F64 = npt.NDArray[np.float64]


@cache
def peers() -> dict[str, PeerKernel]:
    return compile_suite()


def allowed(a: F64, b: F64) -> F64:
    """How far ``A B^T`` may be off: K sums in float32, and one rounding to bf16."""
    sums = a.shape[1] * F32_STEP * (np.abs(a) @ np.abs(b).T)
    return np.asarray(BF16_ROUNDING * (np.abs(a @ b.T) + sums) + sums)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GEMM))
def test_quack_gemm_is_right(name: str) -> None:
    """Known to be right on GPUs, so a finding here is the emulator's mistake."""
    kernel, rng = peers()[name], np.random.default_rng(17)
    shapes = {tensor.name: tensor.shape for tensor in kernel.tensors}
    a, b = (rng.standard_normal(shapes[x]).astype(ml_dtypes.bfloat16) for x in "ab")
    d = np.full(shapes["d"], np.nan, ml_dtypes.bfloat16)
    report = run(kernel.host(), *kernel.bind({"a": a, "b": b, "d": d}), policies=POLICIES)
    assert report.findings == ()
    exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    bound = allowed(exact_a, exact_b)
    assert (np.abs(d.astype(np.float64) - exact_a @ exact_b.T) <= bound).all()
    # The bound is no empty one: it tells a product with one column of K too few.
    short = exact_a[:, 1:] @ exact_b[:, 1:].T
    assert (np.abs(short - exact_a @ exact_b.T) > bound).mean() > 0.5
