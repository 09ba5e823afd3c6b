"""Conversions of integers against Python's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from exact_rounding import BF16, EDGES, F16, F32, F64, f32_bits, round_exact

from fa4gen.core.errors import UnknownName
from fa4gen.numerics import integers
from fa4gen.numerics.arrays import quiet
from fa4gen.numerics.formats import FORMATS

TO_INTEGER = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def floats(dtype: type) -> np.ndarray:
    rng = np.random.default_rng(0)
    whole = np.array(
        [2.0**e + d for e in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, -0.5, 0, 0.5)]
    )
    halves = np.arange(-6, 7) / 2
    noise = rng.standard_normal(200) * 2.0 ** rng.integers(-3, 70, 200)
    edges = EDGES.view(np.float32).astype(np.float64)
    return np.concatenate([whole, -whole, halves, noise, edges]).astype(dtype)


def integers_of(name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    limits = np.iinfo(integers.INTEGER_TYPES[name])
    noise = rng.integers(limits.min, limits.max, 300, integers.INTEGER_TYPES[name], endpoint=True)
    powers = [s * 2**e + d for e in range(limits.bits) for d in (-1, 0, 1) for s in (1, -1)]
    inside = [p for p in powers if limits.min <= p <= limits.max]
    return np.concatenate([noise, np.array([*inside, limits.min, limits.max], noise.dtype)])


@pytest.mark.parametrize("target", integers.INTEGER_TYPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_to_integer_rounds_and_clamps(target: str, dtype: type) -> None:
    limits = np.iinfo(integers.INTEGER_TYPES[target])
    x = floats(dtype)
    nan = 1 << (limits.bits - 1) if dtype is np.float64 or limits.bits == 64 else 0
    nan = nan if limits.min == 0 or nan == 0 else -nan
    for mode, function in TO_INTEGER.items():
        got = integers.float_to_integer(x, target, mode)
        assert got.dtype == integers.INTEGER_TYPES[target]
        for value, result in zip(x.tolist(), got.tolist(), strict=True):
            if math.isnan(value):
                assert result == nan
            elif math.isinf(value):
                assert result == (limits.max if value > 0 else limits.min)
            else:
                assert result == min(max(function(value), limits.min), limits.max)


@pytest.mark.parametrize("mode", TO_INTEGER)
def test_round_to_integral(mode: str) -> None:
    x = floats(np.float32)
    x = x[np.isfinite(x)]
    got = integers.round_to_integral(x, mode)
    for value, result in zip(x.tolist(), got.tolist(), strict=True):
        assert result == TO_INTEGER[mode](value)
        assert math.copysign(1, result) == math.copysign(1, value) or result != 0
    nan = integers.round_to_integral(np.float32([np.nan]), mode)
    assert nan.view(np.uint32).tolist() == [0x7FFFFFFF]
    assert integers.round_to_integral(np.float32([2.5]), mode, sat=True).tolist() == [1.0]


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("source", ["u32", "s32", "u64", "s64", "s16", "u8"])
def test_integer_to_float_rounds_once(source: str, mode: str) -> None:
    x = integers_of(source)
    f32, f64 = integers.integer_to_f32(x, mode), integers.integer_to_f64(x, mode)
    halves = {name: integers.integer_to_half(x, name, mode) for name in ("f16", "bf16")}
    for index, value in enumerate(x.tolist()):
        if value == 0:
            continue
        exact = Fraction(value)
        assert f32_bits(float(f32[index])) == f32_bits(round_exact(exact, F32, mode))
        assert float(f64[index]) == round_exact(exact, F64, mode)
        for name, target in (("f16", F16), ("bf16", BF16)):
            code = int(halves[name][index])
            assert FORMATS[name].value(code) == round_exact(exact, target, mode)


def test_integer_to_f32_saturates() -> None:
    got = integers.integer_to_f32(np.int32([-5, 0, 1, 9]), sat=True)
    assert got.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_half_to_integer() -> None:
    codes = np.uint16([0x3E00, 0xBE00, 0x7C00, 0x7FFF])  # 1.5, -1.5, inf, NaN
    assert integers.half_to_integer(codes, "f16", "s32", "rni").tolist() == [2, -2, 2**31 - 1, 0]
    assert integers.half_to_integer(codes, "f16", "u16", "rzi").tolist() == [1, 0, 65535, 0]
    assert integers.half_to_integer(np.uint16([0x4049]), "bf16", "s8", "rzi").tolist() == [3]


@pytest.mark.parametrize("source", integers.INTEGER_TYPES)
@pytest.mark.parametrize("target", integers.INTEGER_TYPES)
def test_integer_to_integer(source: str, target: str) -> None:
    x = integers_of(source)
    limits = np.iinfo(integers.INTEGER_TYPES[target])
    plain, clamped = (integers.convert_integer(x, target, sat) for sat in (False, True))
    for value, chopped, limited in zip(x.tolist(), plain.tolist(), clamped.tolist(), strict=True):
        assert limited == min(max(value, limits.min), limits.max)
        assert limits.min <= chopped <= limits.max
        assert (chopped - value) % (1 << limits.bits) == 0


def test_float_inputs_may_be_flushed() -> None:
    tiny = np.float32([1e-40, -1e-40])
    assert integers.float_to_integer(tiny, "s32", "rpi").tolist() == [1, 0]
    assert integers.float_to_integer(tiny, "s32", "rpi", ftz=True).tolist() == [0, 0]


def test_unknown_integer_type() -> None:
    with pytest.raises(UnknownName, match="got 's128'"):
        integers.convert_integer(np.int32([1]), "s128")
