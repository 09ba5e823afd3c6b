"""The models of one tensor-core instruction against exact rationals, written apart from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from exact_rounding import F16, exponent_of, f32_bits, round_exact
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.numerics.arrays import quiet
from fa4gen.numerics.formats import FORMATS, decode
from fa4gen.numerics.tensor_core import (
    Accumulation,
    dot_f64,
    fused_dot,
    tcgen05_accumulation,
    wgmma_accumulation,
)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def aligned_exponent(x: float, name: str) -> int:
    if x == 0:
        return -126
    return max(exponent_of(Fraction(x)), FORMATS[name].min_exponent)


def exact_dot(a: list[float], b: list[float], c: float, how: Accumulation) -> float:
    """The published rule, one element at a time, without a floating-point operation."""
    c_name = "f16" if how.output == "f16" else "f32"
    top = aligned_exponent(c, c_name)
    for x, y in zip(a, b, strict=True):
        both = aligned_exponent(x, how.a_format) + aligned_exponent(y, how.b_format)
        top = max(top, both)
    unit = Fraction(2) ** (top - how.fraction_bits)
    count = math.trunc(Fraction(c) / unit)
    for x, y in zip(a, b, strict=True):
        count += math.trunc(Fraction(x) * Fraction(y) / unit)
    total = count * unit
    if total == 0:
        return 0.0
    if how.output == "f16":
        return round_exact(total, F16, "rn")
    digits = {"f32": 24, "e8m13": 14}[how.output]
    step = Fraction(2) ** (max(exponent_of(total), -126) - digits + 1)
    cut = math.trunc(total / step) * step
    return math.copysign(math.inf, cut) if abs(cut) >= 2**128 else float(cut)


def values(rng: np.random.Generator, shape: tuple[int, int], name: str) -> np.ndarray:
    form = FORMATS[name]
    width = {32: np.uint32, 16: np.uint16, 8: np.uint8}[max(form.bits, 8) if name != "tf32" else 32]
    raw = rng.integers(0, np.iinfo(width).max, shape, width, endpoint=True)
    x = decode(raw, name)
    return np.where(np.isfinite(x), x, np.float32(1))


HOWS = [
    wgmma_accumulation("bf16", "bf16", "f32"),
    wgmma_accumulation("f16", "f16", "f32"),
    wgmma_accumulation("f16", "f16", "f16"),
    wgmma_accumulation("e4m3", "e5m2", "f32"),
    wgmma_accumulation("e4m3", "e4m3", "f16"),
    tcgen05_accumulation("tf32", "tf32", "f32"),
    tcgen05_accumulation("e4m3", "e2m1", "f32"),
]


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("spread", ["any bits", "near one"])
def test_fused_dot_of_each_format(how: Accumulation, spread: str) -> None:
    rng = np.random.default_rng(0)
    m, n, k = 5, 4, 16
    a, b = values(rng, (m, k), how.a_format), values(rng, (n, k), how.b_format)
    c = values(rng, (m, n), "f16" if how.output == "f16" else "f32")
    if spread == "near one":
        a, b = (np.where(np.abs(np.log2(np.abs(x) + 1e-99)) < 6, x, x * 0) for x in (a, b))
        c = rng.standard_normal((m, n)).astype(np.float16).astype(np.float32)
    got = fused_dot(a, b, c, how)
    for i in range(m):
        for j in range(n):
            expected = exact_dot(a[i].tolist(), b[j].tolist(), float(c[i, j]), how)
            assert f32_bits(float(got[i, j])) == f32_bits(expected)


BF16 = st.integers(0, 0xFFFF).filter(lambda code: code & 0x7F80 != 0x7F80)


@given(
    st.lists(st.tuples(BF16, BF16), min_size=4, max_size=4),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
@settings(max_examples=80, deadline=None)
def test_fused_dot_of_any_bf16(pairs: list[tuple[int, int]], c: float) -> None:
    a, b = (decode(np.uint16([column]), "bf16") for column in zip(*pairs, strict=True))
    how = wgmma_accumulation("bf16", "bf16", "f32")
    with quiet():
        (got,) = fused_dot(a, b, np.float32([[c]]), how).ravel().tolist()
    assert f32_bits(got) == f32_bits(exact_dot(a[0].tolist(), b[0].tolist(), c, how))


def test_the_sum_is_cut_toward_zero() -> None:
    how = wgmma_accumulation("bf16", "bf16", "f32")
    one = np.float32([[1.0]])
    # 2^-26 lies below the 25 fraction bits under 1 and is lost; 2^-25 is kept, then cut by f32.
    assert fused_dot(one, np.float32([[2.0**-26]]), one, how).tolist() == [[1.0]]
    lost = fused_dot(one, np.float32([[-(2.0**-25)]]), one, how)
    assert lost.view(np.uint32).tolist() == [[0x3F7FFFFF]]
    assert dot_f64(one, np.float32([[-(2.0**-26)]]), one).tolist() == [[1.0]]


def test_subnormal_factors_align_at_their_formats_least_exponent() -> None:
    # 2^-24 is an f16 subnormal of exponent -14, so C is cut at 2^-39 and not at 2^-49.
    a, one = np.float32([[2.0**-24]]), np.float32([[1.0]])
    c = np.float32([[1.5 * 2.0**-40]])
    assert fused_dot(a, one, c, wgmma_accumulation("f16", "f16", "f32")) == [[2.0**-24]]
    assert fused_dot(a, one, c, wgmma_accumulation("bf16", "bf16", "f32")) > 2.0**-24


def test_special_values() -> None:
    how = wgmma_accumulation("bf16", "bf16", "f32")
    inf, nan = np.inf, np.nan
    a = np.float32([[inf, 0.0], [inf, 1.0], [nan, 1.0], [1.0, 1.0]])
    b = np.float32([[1.0, 1.0], [-1.0, inf]])
    c = np.zeros((4, 2), np.float32)
    for function in (lambda *x: fused_dot(*x, how), dot_f64):
        got = function(a, b, c)
        np.testing.assert_array_equal(got, [[inf, nan], [inf, nan], [nan, nan], [2.0, inf]])
        assert (got.view(np.uint32)[np.isnan(got)] == 0x7FFFFFFF).all()
    half = Accumulation(25, "f16", "f16", "f16")
    big = fused_dot(np.float32([[60000.0]]), np.float32([[2.0]]), np.float32([[0.0]]), half)
    assert big.tolist() == [[inf]]


def test_dot_f64_rounds_once() -> None:
    rng = np.random.default_rng(1)
    a, b = (values(rng, (4, 8), "f16") for _ in range(2))
    c = rng.standard_normal((4, 4)).astype(np.float32)
    got = dot_f64(a, b, c)
    for i in range(4):
        for j in range(4):
            exact = sum(
                (
                    Fraction(x) * Fraction(y)
                    for x, y in zip(a[i].tolist(), b[j].tolist(), strict=True)
                ),
                Fraction(float(c[i, j])),
            )
            assert got[i, j] == pytest.approx(float(exact), rel=1e-7)
