"""The kernels' arithmetic in NumPy: against float64, and against what their PTX does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4gen.core.dtypes import DType
from fa4gen.numerics import attention_fp64, max_relative_error
from fa4gen.numerics.online_softmax import (
    KernelResult,
    SoftmaxRecipe,
    attention_as_kernel,
    exp2_polynomial,
    kernel_scores,
    round_to,
    ulp_errors,
)

ROWS, KEYS, DIM = 48, 320, 32
SCALE = DIM**-0.5
Array = npt.NDArray[np.float32]


def inputs(factor: float = 1.0, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shapes = (ROWS, DIM), (KEYS, DIM), (KEYS, DIM)
    q, k, v = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return round_to(q * factor, DType.BF16), round_to(k, DType.BF16), round_to(v, DType.BF16)


def recipe(columns: int = 0, degree: int = 3, threshold: float = 0.0) -> SoftmaxRecipe:
    return SoftmaxRecipe(64, tuple(range(columns)), degree, threshold, DType.BF16)


def run(how: SoftmaxRecipe, factor: float = 1.0, causal: bool = False) -> KernelResult:
    q, k, v = inputs(factor)
    return attention_as_kernel(kernel_scores(q, k, causal=causal), v, how, SCALE)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("columns", [0, 16, 64])
def test_it_is_attention(columns: int, threshold: float, causal: bool) -> None:
    q, k, v = inputs(4.0)
    o, lse = attention_fp64(*(x[None, :, None] for x in (q, k, v)), SCALE, causal)
    got = run(recipe(columns, 4, threshold), 4.0, causal)
    # A stale maximum takes from the heaviest weight that it is exactly 1.
    assert np.abs(got.o - o[0, :, 0]).max() < (2.0**-6 if threshold else 2.0**-7)
    assert np.abs(got.lse - lse[0, 0]).max() < 1e-5


def test_without_a_threshold_the_heaviest_weight_of_a_row_is_1() -> None:
    """But for the rounding of the maximum's product, which the FMA leaves in the exponent."""
    got = run(recipe(), 4.0)
    # Blocks go from last to first, so a maximum that stays is that of the columns after it.
    first_blocks = got.p[:, -64:].max(axis=1)
    assert np.abs(first_blocks - 1.0).max() < 2e-6
    assert got.p.max() < 1.0 + 2e-6


def test_a_threshold_lets_weights_grow_to_its_power_and_rescales_less() -> None:
    plain, lazy = run(recipe(), 8.0), run(recipe(threshold=4.0), 8.0)
    assert 1.0 < lazy.p.max() <= 2.0**4
    assert lazy.rescaled_share < plain.rescaled_share
    assert run(recipe(threshold=8.0), 0.5).rescaled_share == 0.0


def test_only_the_polynomials_columns_have_its_error() -> None:
    got = run(recipe(columns=16, degree=2))
    exact = np.exp2(got.exponent.astype(np.float64))
    error = np.abs(got.p / exact - 1.0).reshape(ROWS, -1, 64)
    assert error[:, :, 16:].max() <= 2 * 2.0**-23
    assert 1e-3 < error[:, :, :16].max() <= max_relative_error(2)


def test_the_mask_hides_what_no_row_may_see() -> None:
    got = run(recipe(), causal=True)
    seen = np.isfinite(got.exponent)
    assert seen.sum(axis=1).tolist() == list(range(KEYS - ROWS + 1, KEYS + 1))
    assert not got.p[~seen].any()


@given(st.floats(-125.0, 8.0, width=32), st.sampled_from([1, 2, 3, 4, 5]))
def test_the_polynomial_keeps_its_bound(x: float, degree: int) -> None:
    got = float(exp2_polynomial(np.array([x], np.float32), degree)[0])
    exact = 2.0 ** float(np.float32(x))
    assert abs(got / exact - 1.0) <= max_relative_error(degree) * (1 + 1e-6)


def test_the_polynomial_of_what_is_too_small_is_negligible_and_of_a_whole_number_exact() -> None:
    tiny = exp2_polynomial(np.array([-np.inf, -1e30, -200.0], np.float32), 3)
    assert (tiny > 0).all()
    assert tiny.max() <= 2.0**-126
    whole = np.arange(-20, 9, dtype=np.float32)
    assert (exp2_polynomial(whole, 3) == np.exp2(whole)).all()


@pytest.mark.parametrize(("digits", "least"), [(7, -126), (10, -14), (23, -126)])
def test_an_ulp_is_the_distance_to_the_next_number(digits: int, least: int) -> None:
    exact = np.array([1.0, 1.5, 2.0, 2.0 ** (least - 3)])
    step = np.array([2.0**-digits, 2.0**-digits, 2.0 ** (1 - digits), 2.0 ** (least - digits)])
    assert ulp_errors(exact + step, exact, digits, least) == pytest.approx(1.0)
