"""f32 and f64 arithmetic against exact rationals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from exact_rounding import EDGES, F32, F64, f32_bits, f32_from_bits, round_exact
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.numerics import ieee
from fa4gen.numerics.arrays import quiet

MODES = ("rn", "rz", "rm", "rp")
BITS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def f32(bits: object) -> np.ndarray:
    return np.atleast_1d(np.asarray(bits, np.uint32)).view(np.float32)


def bits_of(x: np.ndarray) -> list[int]:
    assert x.dtype == np.float32
    return x.view(np.uint32).tolist()


def exact_fma(a: float, b: float, c: float, mode: str) -> float:
    """IEEE 754 section 6.3 for the signs of zeros, exact rationals for the rest."""
    if any(map(math.isnan, (a, b, c))):
        return math.nan
    sign = math.copysign(1, a) * math.copysign(1, b)
    if math.isinf(a) or math.isinf(b):
        opposed = math.isinf(c) and math.copysign(1, c) != sign
        return math.nan if a == 0 or b == 0 or opposed else sign * math.inf
    if math.isinf(c):
        return c
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total != 0:
        return round_exact(total, F32, mode)
    same_sign = (a == 0 or b == 0) and c == 0 and math.copysign(1, c) == sign
    return math.copysign(0.0, sign) if same_sign else (-0.0 if mode == "rm" else 0.0)


def hard_triples() -> np.ndarray:
    """(n, 3) bits: edges with edges, random bits, near-cancellations and ties."""
    rng = np.random.default_rng(1)
    edges = np.array(list(itertools.product(EDGES[::3], EDGES[1::3], EDGES[2::3])), np.uint32)
    noise = rng.integers(0, 2**32, (400, 3), dtype=np.uint32)
    a, b = (rng.integers(0x30000000, 0x50000000, 400, dtype=np.uint32) for _ in range(2))
    product = f32(a).astype(np.float64) * f32(b)
    near = (-product.astype(np.float32)).view(np.uint32) + rng.integers(0, 3, 400, dtype=np.uint32)
    cancel = np.stack([a, b, near], 1)
    # Short significands make exact ties; a tiny addend breaks them by less than float64 sees.
    short = rng.integers(0x3F800, 0x40000, (400, 2), dtype=np.uint32) << 12
    tiny = (
        rng.integers(0, 0x20000000, 400, dtype=np.uint32)
        | rng.integers(0, 2, 400, dtype=np.uint32) << 31
    )
    ties = np.concatenate([short, tiny[:, None]], 1).astype(np.uint32)
    # Products around the least subnormal.
    deep = rng.integers(0x1F000000, 0x22000000, (400, 2), dtype=np.uint32)
    small = rng.integers(0, 0x01000000, (400, 1), dtype=np.uint32)
    return np.concatenate([edges, noise, cancel, ties, np.concatenate([deep, small], 1)])


@pytest.mark.parametrize("mode", MODES)
def test_fma_is_the_exact_result_rounded_once(mode: str) -> None:
    triples = hard_triples()
    got = bits_of(ieee.fma32(*(f32(column.copy()) for column in triples.T), mode))
    for triple, result in zip(triples.tolist(), got, strict=True):
        expected = f32_bits(exact_fma(*map(f32_from_bits, triple), mode))
        assert result == expected, [hex(x) for x in triple]


@given(BITS, BITS, BITS, st.sampled_from(MODES))
@settings(max_examples=150, deadline=None)
def test_fma_of_any_bits(a: int, b: int, c: int, mode: str) -> None:
    with quiet():
        (got,) = bits_of(ieee.fma32(f32(a), f32(b), f32(c), mode))
    assert got == f32_bits(exact_fma(*map(f32_from_bits, (a, b, c)), mode))


def test_a_tie_broken_below_float64_is_not_rounded_twice() -> None:
    # 1 + 2^-24 is a tie; 2^-80 more breaks it upward, and float64 cannot hold that.
    one_and = ieee.fma32(f32(0x3F800000), f32(0x3F800000), f32(0x33800000))
    assert bits_of(one_and) == [0x3F800000]
    a, b = np.float32([2.0**-40]), np.float32([2.0**-40])
    tie = np.float32(1 + 2**-12)
    product = ieee.fma32(np.float32([tie]), np.float32([tie]), a * b)
    assert bits_of(product) == [f32_bits(1 + 2**-11 + 2**-23)]


def test_a_subnormal_tie_broken_below_float64_is_not_rounded_twice() -> None:
    # c + 2^-150 is a tie of subnormals; the product is 2^-150 - 2^-196, which float64 drops.
    a, b = np.float32([(1 + 2**-23) * 2.0**-75]), np.float32([(1 - 2**-23) * 2.0**-75])
    assert bits_of(ieee.fma32(a, b, f32(0x00400001))) == [0x00400001]


@pytest.mark.parametrize("mode", MODES)
def test_add_sub_mul_round_once(mode: str) -> None:
    rng = np.random.default_rng(2)
    pairs = np.concatenate(
        [
            np.array(list(itertools.product(EDGES, EDGES[::2])), np.uint32),
            rng.integers(0, 2**32, (400, 2), dtype=np.uint32),
            rng.integers(0x3F000000, 0x41000000, (400, 2), dtype=np.uint32),
        ]
    )
    a, b = (f32(column.copy()) for column in pairs.T)
    added, subtracted, multiplied = (
        bits_of(function(a, b, mode)) for function in (ieee.add32, ieee.sub32, ieee.mul32)
    )
    for index, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        assert added[index] == f32_bits(exact_fma(x, 1.0, y, mode))
        assert subtracted[index] == f32_bits(exact_fma(x, 1.0, -y, mode))
        signed_zero = math.copysign(0.0, math.copysign(1, x) * math.copysign(1, y))
        assert multiplied[index] == f32_bits(exact_fma(x, y, signed_zero, mode))


@pytest.mark.parametrize("mode", ["rm", "rp", "rz"])
def test_directed_addition_without_special_values(mode: str) -> None:
    rng = np.random.default_rng(7)
    a, b = (f32(rng.integers(0x3F800000, 0x48000000, 500, dtype=np.uint32)) for _ in range(2))
    got = bits_of(ieee.add32(a, -b, mode))
    for x, y, result in zip(a.tolist(), b.tolist(), got, strict=True):
        assert result == f32_bits(exact_fma(x, 1.0, -y, mode))


def test_exp2_emulation_takes_the_floor() -> None:
    # The magic addition of FlashAttention-4's exp2: the low mantissa bits hold the floor.
    x = np.float32([0.0, 0.5, -0.5, -1.0, -1.25, 3.999, -126.5, -127.0])
    r = ieee.add32(x, np.full_like(x, 12582912.0), "rm")
    assert (r.view(np.uint32) & 0xFF).astype(np.int8).tolist() == [0, 0, -1, -1, -2, 3, -127, -127]


@pytest.mark.parametrize("mode", MODES)
def test_division_and_square_root_round_once(mode: str) -> None:
    rng = np.random.default_rng(3)
    bits = np.concatenate([EDGES, rng.integers(0, 2**32, 400, dtype=np.uint32)])
    a, b = f32(bits), f32(rng.permutation(bits))
    quotients, reciprocals = bits_of(ieee.div32(a, b, mode)), bits_of(ieee.rcp32(a, mode))
    roots = bits_of(ieee.sqrt32(a, mode))
    for index, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        if math.isfinite(x) and math.isfinite(y) and x != 0 and y != 0:
            exact = round_exact(Fraction(x) / Fraction(y), F32, mode)
            assert quotients[index] == f32_bits(exact)
            assert reciprocals[index] == f32_bits(round_exact(1 / Fraction(x), F32, mode))
        if math.isfinite(x) and x > 0:
            assert is_rounded_root(f32_from_bits(roots[index]), Fraction(x), mode)
        elif x < 0 or math.isnan(x):
            assert roots[index] == 0x7FFFFFFF


def is_rounded_root(root: float, square: Fraction, mode: str) -> bool:
    """Whether ``root`` is the square root rounded: by the squares of its neighbours."""
    down, up = (Fraction(float(np.nextafter(np.float32(root), np.float32(d)))) for d in (0, 9e37))
    exact = Fraction(root)
    if mode == "rn":
        return ((down + exact) / 2) ** 2 <= square <= ((exact + up) / 2) ** 2
    return exact**2 == square or (
        exact**2 > square > down**2 if mode == "rp" else exact**2 < square < up**2
    )


def test_special_quotients() -> None:
    one, zero, inf = np.float32([1.0]), np.float32([0.0]), np.float32([np.inf])
    assert bits_of(ieee.div32(one, -zero)) == [0xFF800000]
    assert bits_of(ieee.div32(zero, zero)) == [0x7FFFFFFF]
    assert bits_of(ieee.div32(inf, inf)) == [0x7FFFFFFF]
    assert bits_of(ieee.rcp32(-inf)) == [0x80000000]
    assert bits_of(ieee.sqrt32(-zero)) == [0x80000000]


def test_ftz_keeps_the_sign_and_flushes_both_ends() -> None:
    subnormal, least = f32(0x80400000), f32(0x00800000)
    half = np.float32([0.5])
    assert bits_of(ieee.add32(subnormal, f32(0x80000000), ftz=True)) == [0x80000000]
    assert bits_of(ieee.mul32(least, -half, ftz=True)) == [0x80000000]
    assert bits_of(ieee.mul32(least, -half)) == [0x80400000]
    assert bits_of(ieee.fma32(subnormal, np.float32([2.0**100]), half, ftz=True)) == [0x3F000000]
    assert bits_of(ieee.rcp32(f32(0x80000001), ftz=True)) == [0xFF800000]
    assert bits_of(ieee.rcp32(f32(0x7F000001), ftz=True)) == [0x00000000]


def test_sat_clamps_and_drops_nan() -> None:
    x = np.float32([-3.0, -0.0, 0.25, 7.0, np.nan, np.inf])
    zero = np.zeros_like(x)
    assert bits_of(ieee.mul32(x, zero + 1, sat=True)) == [
        0, 0, 0x3E800000, 0x3F800000, 0, 0x3F800000,
    ]  # fmt: skip
    assert bits_of(ieee.fma32(x, zero + 1, zero, sat=True))[4] == 0


def test_every_nan_is_canonical() -> None:
    nan, one = f32([0xFFC12345, 0x7F800001]), f32([0x3F800000, 0x3F800000])
    for result in (
        ieee.add32(nan, one),
        ieee.add32(one, nan, "rm"),
        ieee.mul32(nan, one, "rz"),
        ieee.fma32(one, one, nan),
        ieee.fma32(one, nan, one, "rp"),
        ieee.div32(one, nan),
        ieee.sqrt32(-one),
    ):
        assert bits_of(result) == [0x7FFFFFFF] * 2


def test_copysign_has_the_order_of_ptx() -> None:
    # The sign comes from the first operand, the magnitude from the second.
    assert ieee.copysign32(np.float32([-1.0]), np.float32([5.0])).tolist() == [-5.0]


def test_testp() -> None:
    x = f32([0, 0x80000001, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000])
    holds = {
        "finite": [1, 1, 1, 1, 0, 0],
        "infinite": [0, 0, 0, 0, 1, 0],
        "number": [1, 1, 1, 1, 1, 0],
        "notanumber": [0, 0, 0, 0, 0, 1],
        "normal": [1, 0, 1, 1, 0, 0],
        "subnormal": [0, 1, 0, 0, 0, 0],
    }
    for test, expected in holds.items():
        assert ieee.testp(x, test).tolist() == [bool(e) for e in expected], test
    with pytest.raises(UnsupportedInstruction, match="zero, allowed: finite"):
        ieee.testp(x, "zero")


@given(*(st.floats(allow_nan=False) for _ in range(3)))
@settings(max_examples=150, deadline=None)
def test_f64_fma(a: float, b: float, c: float) -> None:
    with quiet():
        (got,) = ieee.fma64(*(np.array([x]) for x in (a, b, c))).tolist()
    if not all(map(math.isfinite, (a, b, c))):
        product_infinite = math.isinf(a) or math.isinf(b)
        if not product_infinite:
            assert got == c
        return
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        assert got == 0
        assert math.copysign(1, got) == math.copysign(1, a * b + c if a * b == c == 0 else 0.0)
    else:
        assert got == round_exact(total, F64, "rn")


def test_f64_fma_special_values() -> None:
    inf = math.inf
    cases = [(inf, 0.0, 1.0), (inf, 1.0, -inf), (1e200, 1e200, -inf), (1e300, -1e300, 1.0)]
    got = ieee.fma64(*(np.array(column) for column in zip(*cases, strict=True))).tolist()
    assert math.isnan(got[0])
    assert math.isnan(got[1])
    assert got[2:] == [-inf, -inf]
