"""The models of approximate instructions: special cases of the ISA, and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import pytest

from fa4gen.numerics import approx
from fa4gen.numerics.arrays import quiet
from fa4gen.numerics.formats import decode

INF, NAN, TINY = np.inf, np.nan, 1e-40
CANONICAL = 0x7FFFFFFF


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def results(function: Callable[..., np.ndarray], *x: float, ftz: bool = True) -> list[float]:
    return function(np.float32(x), ftz).tolist()


def test_ex2() -> None:
    assert results(approx.ex2, -INF, INF, TINY, -TINY, 0.0, -3.0, 128.0) == [
        0, INF, 1, 1, 1, 0.125, INF,
    ]  # fmt: skip
    assert results(approx.ex2, -126.5, -126.0) == [0.0, 2.0**-126]
    assert results(approx.ex2, -126.5, -149.0, ftz=False) == [np.float32(2.0**-126.5), 2.0**-149]
    assert approx.ex2(np.float32([NAN])).view(np.uint32).tolist() == [CANONICAL]


def test_lg2() -> None:
    assert results(approx.lg2, 0.0, -0.0, TINY, INF, 8.0) == [-INF, -INF, -INF, INF, 3.0]
    assert results(approx.lg2, 2.0**-149, ftz=False) == [-149.0]
    assert approx.lg2(np.float32([-1.0, NAN])).view(np.uint32).tolist() == [CANONICAL] * 2


def test_rcp_and_roots() -> None:
    assert results(approx.rcp, TINY, -TINY, 0.0, -0.0, INF, -INF, 4.0) == [
        INF, -INF, INF, -INF, 0.0, -0.0, 0.25,
    ]  # fmt: skip
    assert np.signbit(results(approx.rcp, -INF))
    assert results(approx.rcp, 2.0**127) == [0.0]
    assert results(approx.rcp, 2.0**127, ftz=False) == [2.0**-127]
    assert results(approx.rsqrt, 0.0, -0.0, TINY, INF, 16.0) == [INF, -INF, INF, 0.0, 0.25]
    assert results(approx.sqrt, -0.0, INF, 9.0) == [-0.0, INF, 3.0]
    for function in (approx.rsqrt, approx.sqrt):
        assert function(np.float32([-1.0])).view(np.uint32).tolist() == [CANONICAL]


def test_trigonometry() -> None:
    for function in (approx.sin, approx.cos):
        assert function(np.float32([INF])).view(np.uint32).tolist() == [CANONICAL]
    assert results(approx.sin, -0.0, TINY) == [-0.0, 0.0]
    assert results(approx.cos, 0.0) == [1.0]
    assert approx.tanh(np.float32([INF, -INF, 0.0])).tolist() == [1.0, -1.0, 0.0]


def test_division_beyond_the_range_of_the_reciprocal() -> None:
    a, b = np.float32([1e38, INF, 1.0, 6.0]), np.float32([1.5e38, 1.5e38, INF, 2.0])
    assert approx.div(a, b).tolist()[0] == 0.0
    assert approx.div(a, b).view(np.uint32).tolist()[1] == CANONICAL
    assert approx.div(a, b).tolist()[2:] == [0.0, 3.0]
    assert approx.div_full(a, b).tolist()[0] == pytest.approx(1e38 / 1.5e38)


MODELS = [
    (approx.ex2, lambda x: mpmath.mpf(2) ** x, -120, 120),
    (approx.lg2, lambda x: mpmath.log(x, 2), 1e-30, 1e30),
    (approx.rcp, lambda x: 1 / x, 1e-30, 1e30),
    (approx.rsqrt, lambda x: 1 / mpmath.sqrt(x), 1e-30, 1e30),
    (approx.sqrt, mpmath.sqrt, 1e-30, 1e30),
    (approx.sin, mpmath.sin, -6, 6),
    (approx.cos, mpmath.cos, -6, 6),
]


@pytest.mark.parametrize(("model", "truth", "low", "high"), MODELS)
def test_models_are_correctly_rounded(
    model: Callable[..., np.ndarray], truth: Callable[..., object], low: float, high: float
) -> None:
    rng = np.random.default_rng(0)
    if low > 0:
        x = np.exp(rng.uniform(np.log(low), np.log(high), 300)).astype(np.float32)
    else:
        x = rng.uniform(low, high, 300).astype(np.float32)
    with mpmath.workprec(120):
        for value, got in zip(x.tolist(), model(x).tolist(), strict=True):
            exact = truth(mpmath.mpf(value))
            ulp = abs(float(np.nextafter(np.float32(got), np.float32(INF))) - got)
            assert abs(exact - mpmath.mpf(got)) <= ulp * 0.5000001, value


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_half_models(name: str) -> None:
    codes = np.uint16([0x3C00, 0xBC00, 0x0000, 0x7FFF])
    for model, exact in ((approx.ex2_half, np.exp2), (approx.tanh_half, np.tanh)):
        got = model(codes, name)
        x = decode(codes, name).astype(np.float64)[:3]
        digits = 11 if name == "f16" else 8
        error = np.abs(decode(got, name)[:3] - exact(x))
        assert (error <= np.abs(exact(x)) * 2.0**-digits).all()
        assert got[3] == 0x7FFF
    low = np.uint16([0xCBC0])  # f16: -15.5, whose power is subnormal
    assert approx.ex2_half(low, "f16").tolist() == [decode_f16(2.0**-15.5)]
    assert approx.ex2_half(low, "f16", ftz=True).tolist() == [0]


def decode_f16(x: float) -> int:
    return int(np.float16(x).view(np.uint16))
