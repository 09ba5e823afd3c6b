"""f16 and bf16 arithmetic, min and max, against exact rationals and NumPy's float16."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from exact_rounding import BF16, EDGES, F16, F32, f32_bits, round_exact

from fa4gen.numerics import half
from fa4gen.numerics.arrays import quiet
from fa4gen.numerics.formats import FORMATS
from fa4gen.numerics.minmax import magnitude16, max32, min32, minmax16, xorsign16

TARGETS = {"f16": F16, "bf16": BF16}
DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def codes(count: int, operands: int, seed: int) -> list[np.ndarray]:
    """Random codes; a third of each column near 1, so that sums and products interact."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(0, 1 << 16, count, dtype=np.uint16) for _ in range(operands)]
    for column in columns:
        column[::3] = rng.integers(0x3800, 0x4200, len(column[::3]))
    return columns


def value(code: int, name: str) -> float:
    return FORMATS[name].value(code)


def canonical(x: np.ndarray, name: str) -> np.ndarray:
    raw = x.view(np.uint16).copy()
    raw[np.isnan(x.astype(np.float32))] = 0x7FFF
    return raw


@pytest.mark.parametrize("operation", ["add", "sub", "mul"])
def test_f16_agrees_with_numpy(operation: str) -> None:
    a, b = codes(60_000, 2, 0)
    function = {"add": half.add16, "sub": half.sub16, "mul": half.mul16}[operation]
    ufunc = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[operation]
    # NumPy computes in float32, whose 24 digits are enough for a second rounding to 11.
    expected = canonical(ufunc(a.view(np.float16), b.view(np.float16)), "f16")
    np.testing.assert_array_equal(function(a, b, "f16"), expected)


@pytest.mark.parametrize("name", TARGETS)
def test_fma_add_mul_are_exact_results_rounded_once(name: str) -> None:
    a, b, c = codes(500, 3, 1)
    c[1::3] = half.neg16(half.mul16(a, b, name), name)[1::3]  # cancellation
    fma, product, total = half.fma16(a, b, c, name), half.mul16(a, b, name), half.add16(a, b, name)
    for i, (x, y, z) in enumerate(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)):
        va, vb, vc = (value(code, name) for code in (x, y, z))
        if not all(map(math.isfinite, (va, vb, vc))):
            continue
        fa, fb, fc = map(Fraction, (va, vb, vc))
        for exact, got in ((fa * fb + fc, fma[i]), (fa * fb, product[i]), (fa + fb, total[i])):
            expected = 0.0 if exact == 0 else round_exact(exact, TARGETS[name], "rn")
            assert value(int(got), name) == expected, (hex(x), hex(y), hex(z))


def test_subnormal_bf16_products_are_not_rounded_twice() -> None:
    # Just above the tie 2^-134: 257 * 2^-142 has 9 bits, of which float32 keeps 7 below it.
    a, b = np.uint16([0x0081]), np.uint16([0x3B80])  # (1 + 2^-7) 2^-126 times 2^-8
    assert half.mul16(a, b, "bf16").tolist() == [1]


def test_a_bf16_tie_broken_below_float64_is_not_rounded_twice() -> None:
    # 1.0625^2 lies halfway between two bf16; c = 2^-60 decides, and float64 cannot hold the sum.
    a, c = np.uint16([0x3F88]), np.uint16([0x2180])
    assert half.fma16(a, a, c, "bf16").tolist() == [0x3F91]
    assert half.fma16(a, a, half.neg16(c, "bf16"), "bf16").tolist() == [0x3F90]


def test_special_values() -> None:
    inf, nan, one = np.uint16([0x7C00]), np.uint16([0xFE01]), np.uint16([0x3C00])
    assert half.add16(inf, half.neg16(inf, "f16"), "f16").tolist() == [0x7FFF]
    assert half.fma16(nan, one, one, "f16").tolist() == [0x7FFF]
    assert half.fma16(half.neg16(inf, "f16"), one, one, "f16", relu=True).tolist() == [0]
    assert half.fma16(nan, one, one, "f16", relu=True).tolist() == [0x7FFF]
    assert half.add16(one, one, "f16", sat=True).tolist() == [0x3C00]
    assert half.add16(nan, one, "f16", sat=True).tolist() == [0]
    assert half.sub16(one, half.add16(one, one, "f16"), "f16", sat=True).tolist() == [0]
    subnormal = np.uint16([0x8001])
    assert half.mul16(subnormal, one, "f16", ftz=True).tolist() == [0x8000]
    assert half.mul16(subnormal, one, "f16").tolist() == [0x8001]


def test_a_packed_register_is_two_elements() -> None:
    a, b = np.uint32([0x40003C00]), np.uint32([0x3C004000])  # (2, 1) + (1, 2), upper first
    total = half.add16(a.view(np.uint16), b.view(np.uint16), "f16").view(np.uint32)
    assert total.tolist() == [0x42004200]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("mode", ["rn", "rm"])
def test_mixed_precision_rounds_once_in_f32(name: str, mode: str) -> None:
    a, b = codes(300, 2, 3)
    rng = np.random.default_rng(3)
    c = rng.integers(0x38000000, 0x48000000, 300, dtype=np.uint32).view(np.float32)
    fma = half.fma_mixed(a, b, c, name, mode)
    added, subtracted = half.add_mixed(a, c, name, mode), half.sub_mixed(a, c, name, mode)
    for i, (x, y, z) in enumerate(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)):
        va, vb = value(x, name), value(y, name)
        if not (math.isfinite(va) and math.isfinite(vb)):
            continue
        fa, fb, fc = map(Fraction, (va, vb, z))
        for exact, got in ((fa * fb + fc, fma), (fa + fc, added), (fa - fc, subtracted)):
            assert exact == 0 or float(got[i]) == round_exact(exact, F32, mode)


def pick(operation: str, a: float, b: float, nan: bool) -> float:
    """The rule of the ISA, spelt out."""
    if math.isnan(a) or math.isnan(b):
        return math.nan if nan or (math.isnan(a) and math.isnan(b)) else b if math.isnan(a) else a
    if a == b == 0:
        signs = (math.copysign(1, a), math.copysign(1, b))
        return math.copysign(0.0, max(signs) if operation == "max" else min(signs))
    return max(a, b) if operation == "max" else min(a, b)


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("operation", ["min", "max"])
def test_f32_min_and_max(operation: str, nan: bool) -> None:
    pairs = np.array(list(itertools.product(EDGES, EDGES)), np.uint32)
    a, b = (column.copy().view(np.float32) for column in pairs.T)
    function = max32 if operation == "max" else min32
    got = function(a, b, nan=nan).view(np.uint32).tolist()
    alone = [function(a[i : i + 1], b[i : i + 1], nan=nan).view(np.uint32)[0] for i in range(60)]
    assert got[:60] == alone
    for x, y, result in zip(a.tolist(), b.tolist(), got, strict=True):
        assert result == f32_bits(pick(operation, x, y, nan)), (x, y)


def test_f32_min_and_max_modifiers() -> None:
    a, b = np.float32([-3.0, 2.0, -1e-40, np.nan]), np.float32([2.0, -3.0, 1e-40, -1.0])
    assert max32(a, b, xorsign_abs=True).tolist()[:2] == [-3.0, -3.0]
    assert min32(a, b, xorsign_abs=True).tolist()[:2] == [-2.0, -2.0]
    assert max32(a, b, xorsign_abs=True).tolist()[3] == -1.0  # |-1|, the NaN being positive
    assert max32(a, b, nan=True, xorsign_abs=True).view(np.uint32).tolist()[3] == 0x7FFFFFFF
    assert max32(a, b, ftz=True).view(np.uint32).tolist()[2] == 0
    assert min32(a, b, ftz=True).view(np.uint32).tolist()[2] == 0x80000000


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("operation", ["min", "max"])
def test_16_bit_min_and_max(operation: str, name: str, nan: bool) -> None:
    infinity = FORMATS[name].infinity_code
    special = [0, 0x8000, 1, 0x8001, infinity, infinity | 0x8000, 0x7FFF, 0xFFFF, 0x3C00, 0xBC01]
    pairs = np.array(list(itertools.product(special, special)), np.uint16)
    a, b = pairs.T.copy()
    got = minmax16(operation, a, b, name, nan=nan)
    for x, y, result in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        expected = pick(operation, value(x, name), value(y, name), nan)
        if math.isnan(expected):
            assert result == 0x7FFF
        else:
            assert value(result, name) == expected
            assert math.copysign(1, value(result, name)) == math.copysign(1, expected)


def test_16_bit_xorsign() -> None:
    a, b = np.uint16([0xBC00, 0x4000, 0x7FFF]), np.uint16([0x4000, 0x3C00, 0x7FFF])
    magnitude = minmax16("max", magnitude16(a), magnitude16(b), "f16")
    assert xorsign16(magnitude, a, b).tolist() == [0xC000, 0x4000, 0x7FFF]
    assert minmax16("max", np.uint16([0x8001]), np.uint16([0x8000]), "f16", ftz=True) == [0x8000]
