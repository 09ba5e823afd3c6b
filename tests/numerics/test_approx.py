"""The models of approximate instructions: special cases of the ISA, and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import pytest

from fa4gen.numerics import approx
from fa4gen.numerics.approx import Bound
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
    # The square of 2^-63.25, which is below by itself.
    assert results(approx.ex2, -126.5, -149.0, ftz=False) == [
        pytest.approx(2.0**-126.5, rel=2.0**-21), 2.0**-149,
    ]  # fmt: skip
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


KNOWN = [
    ("ex2", lambda x: mpmath.mpf(2) ** x, -140, 120),
    ("lg2", lambda x: mpmath.log(x, 2), 1e-42, 1e30),
    ("rcp", lambda x: 1 / x, 1e-42, 1e38),
    ("rsqrt", lambda x: 1 / mpmath.sqrt(x), 1e-42, 1e30),
    ("sqrt", mpmath.sqrt, 1e-42, 1e30),
]
MODELS = [
    (approx.sin, lambda x: mpmath.sin(angle(x)), -6, 6),
    (approx.sin, lambda x: mpmath.sin(angle(x)), -1e6, 1e6),
    (approx.cos, lambda x: mpmath.cos(angle(x)), -6, 6),
]


def angle(x: mpmath.mpf) -> mpmath.mpf:
    """What sines are taken of: x / (2 pi) with 24 bits, cut to 25 bits behind the point."""
    turn = mpmath.mpf(0x22F983 + (1 << 23)) * mpmath.mpf(2) ** -26
    product = abs(x) * turn
    unit = mpmath.mpf(2) ** (mpmath.floor(mpmath.log(product, 2)) - 23)
    turns = mpmath.floor(product / unit) * unit
    return mpmath.sign(x) * mpmath.floor(turns % 1 * 2**25) / 2**25 * 2 * mpmath.pi


BOUNDED = [
    (Bound(ulp=2), 1.0, 1 + 2.0**-22, True),
    (Bound(ulp=2), 1.0, 1 + 3 * 2.0**-23, False),
    (Bound(ulp=1), 2.0**-126, 2.0**-126 - 2.0**-149, True),
    (Bound(ulp=1), 0.0, 2.0**-149, True),
    (Bound(ulp=1), 0.0, 2.0**-148, False),
    (Bound(relative=0.25), -4.0, -5.0, True),
    (Bound(relative=0.25), -4.0, -5.1, False),
    (Bound(absolute=0.25), 0.0, -0.25, True),
    (Bound(absolute=0.25), 8.0, 8.3, False),
    (Bound(ulp=2, relative=1.0, absolute=9.0), INF, 3e38, False),
    (Bound(ulp=2, relative=1.0, absolute=9.0), 1.0, NAN, False),
    (Bound(), INF, INF, True),
    (Bound(), NAN, NAN, True),
    (Bound(), -0.0, 0.0, True),
]


@pytest.mark.parametrize(("bound", "model", "measured", "holds"), BOUNDED)
def test_bounds(bound: Bound, model: float, measured: float, holds: bool) -> None:
    found = bound.holds(np.array([model, 1.0]), np.array([measured, 1.0]))
    assert found.tolist() == [holds, True]


def test_a_bound_in_ulp_of_a_narrow_format() -> None:
    one, next_f16 = np.array([1.0]), np.array([1 + 2.0**-10])
    assert Bound(ulp=1).holds(one, next_f16, 10, -14).all()
    assert not Bound(ulp=1).holds(one, next_f16, 11, -14).any()


@pytest.mark.parametrize(("name", "truth", "low", "high"), KNOWN)
def test_known_functions_are_within_their_bounds(
    name: str, truth: Callable[..., object], low: float, high: float
) -> None:
    rng = np.random.default_rng(0)
    if low > 0:
        x = np.exp(rng.uniform(np.log(low), np.log(high), 300)).astype(np.float32)
    else:
        x = rng.uniform(low, high, 300).astype(np.float32)
    with mpmath.workprec(120):
        right = np.array([float(np.float32(float(truth(mpmath.mpf(v))))) for v in x.tolist()])
    got = getattr(approx, name)(x).astype(np.float64)
    assert approx.BOUNDS[name].holds(right, got).all()
    assert (right != got).any()


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
            # pi itself has 120 bits only.
            assert abs(exact - mpmath.mpf(got)) <= ulp * 0.5000001 + 1e-30, value


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_half_models(name: str) -> None:
    codes = np.uint16([0x3C00, 0xBC00, 0x0000, 0x7FFF])
    for model, exact in ((approx.ex2_half, np.exp2), (approx.tanh_half, np.tanh)):
        got = model(codes, name)
        x = decode(codes, name).astype(np.float64)[:3]
        # An exponential is cut, a tangent rounded.
        digits = (10 if name == "f16" else 7) + (model is approx.tanh_half)
        error = np.abs(decode(got, name)[:3] - exact(x))
        assert (error <= np.abs(exact(x)) * 2.0**-digits).all()
        assert got[3] == 0x7FFF
    low = np.uint16([0xCBC0])  # f16: -15.5, whose power is subnormal
    assert approx.ex2_half(low, "f16").tolist() == [decode_f16(2.0**-15.5 - 2.0**-25)]
    assert approx.ex2_half(low, "f16", ftz=True).tolist() == [0]


def decode_f16(x: float) -> int:
    return int(np.float16(x).view(np.uint16))
