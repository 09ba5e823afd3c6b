"""f32 to and from narrower formats: against ml_dtypes and by nearest neighbours, all ties."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from exact_rounding import BF16, EDGES, F16, F32, TF32, f32_bits, round_exact

from fa4gen.numerics import narrow
from fa4gen.numerics.arrays import quiet
from fa4gen.numerics.formats import FORMATS, decode

NARROW = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
HALVES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with quiet():
        yield


def around(values: np.ndarray) -> np.ndarray:
    """float32: finite values, the middles between them, and the neighbours of all, both signs."""
    values = np.unique(values[np.isfinite(values)].astype(np.float64))
    middles = (values[1:] + values[:-1]) / 2
    points = np.concatenate([values, middles]).astype(np.float32)
    up, down = np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))
    return np.concatenate([points, up, down])


def inputs(dtype: type, bits: int) -> np.ndarray:
    codes = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2**32, 50_000, dtype=np.uint32).view(np.float32)
    scaled = rng.standard_normal(50_000).astype(np.float32)
    with_edges = [around(codes.view(dtype).astype(np.float32)), EDGES.view(np.float32)]
    return np.concatenate([*with_edges, noise, scaled, scaled * 100])


@pytest.mark.parametrize("name", HALVES)
def test_f32_to_16_bits_over_every_value_tie_and_neighbour(name: str) -> None:
    x = inputs(HALVES[name], 16)
    expected = x.astype(HALVES[name]).view(np.uint16)
    expected[np.isnan(x)] = 0x7FFF
    np.testing.assert_array_equal(narrow.to_half(x, name), expected)


def test_packed_conversions_put_the_first_source_on_top() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32) for _ in range(2))
    for name, function in (("bf16", narrow.to_bf16x2), ("f16", narrow.to_f16x2)):
        packed = function(a, b)
        np.testing.assert_array_equal(packed >> 16, narrow.to_half(a, name))
        np.testing.assert_array_equal(packed & 0xFFFF, narrow.to_half(b, name))
        np.testing.assert_array_equal(
            packed, narrow.pack_halves(narrow.to_half(a, name), narrow.to_half(b, name))
        )
    one, two = np.float32([1.0]), np.float32([2.0])
    assert narrow.to_bf16x2(one, two).tolist() == [0x3F804000]
    assert narrow.to_narrow_x2(one, two, "e4m3").tolist() == [0x3840]
    assert narrow.to_narrow_x2(one, two, "e2m1").tolist() == [0x24]


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
def test_directed_16_bit_conversions(name: str, mode: str) -> None:
    rng = np.random.default_rng(5)
    bits = rng.integers(0x30000000, 0x48000000, 200, dtype=np.uint32)
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32), EDGES.view(np.float32)])
    for value, code in zip(x.tolist(), narrow.to_half(x, name, mode).tolist(), strict=True):
        if np.isfinite(value) and value != 0:
            target = F16 if name == "f16" else BF16
            exact = round_exact(Fraction(value), target, mode)
            assert FORMATS[name].value(code) == exact


def test_relu_and_satfinite_of_16_bits() -> None:
    x = np.float32([-1.0, -0.0, 1e30, -1e30, np.inf, np.nan])
    assert narrow.to_half(x, "f16", relu=True).tolist() == [0, 0, 0x7C00, 0, 0x7C00, 0x7FFF]
    assert narrow.to_half(x, "f16", satfinite=True).tolist() == [
        0xBC00, 0x8000, 0x7BFF, 0xFBFF, 0x7BFF, 0x7FFF,
    ]  # fmt: skip
    assert narrow.to_half(x, "bf16", relu=True, satfinite=True).tolist()[4:] == [0x7F7F, 0x7FFF]


@pytest.mark.parametrize("name", NARROW)
def test_f32_to_8_bits_and_fewer(name: str) -> None:
    form = FORMATS[name]
    x = inputs(NARROW[name], form.bits)
    largest = form.value(form.max_finite_code)
    clipped = np.clip(x, -largest, largest)
    expected = clipped.astype(NARROW[name]).view(np.uint8)
    expected[np.isnan(x)] = 0x7F if form.bits == 8 else form.max_finite_code
    np.testing.assert_array_equal(narrow.to_narrow(x, name), expected)


@pytest.mark.parametrize("name", NARROW)
def test_relu_of_8_bits_and_fewer(name: str) -> None:
    x = np.float32([-1.0, -0.0, 1.0, -np.inf, np.nan])
    plain = narrow.to_narrow(x, name).tolist()
    assert narrow.to_narrow(x, name, relu=True).tolist() == [0, 0, plain[2], 0, plain[4]]


@pytest.mark.parametrize("name", NARROW)
def test_back_to_f16x2_is_exact(name: str) -> None:
    bits = FORMATS[name].bits
    codes = np.arange(1 << bits, dtype=np.uint16)
    other = codes[::-1].copy()
    packed = (codes << (4 if name == "e2m1" else 8)) | other
    result = narrow.from_narrow_x2(packed, name)
    for half, raw in ((result >> 16, codes), (result & 0xFFFF, other)):
        expected = raw.astype(np.uint8).view(NARROW[name]).astype(np.float16)
        np.testing.assert_array_equal(half.astype(np.uint16).view(np.float16), expected)
        assert (half[np.isnan(expected)] == 0x7FFF).all()
    relu = narrow.from_narrow_x2(packed, name, relu=True)
    assert not (relu & 0x80008000).any()


def test_ue8m0() -> None:
    x = np.concatenate([EDGES.view(np.float32), np.float32(2.0) ** np.arange(-140, 128)])
    x = np.concatenate([x, x * 1.5, -x]).astype(np.float32)
    magnitude = np.abs(x.astype(np.float64))
    for mode, toward in (("rz", np.floor), ("rp", np.ceil)):
        got = narrow.to_ue8m0(x, mode).astype(int)
        exponent = toward(np.log2(np.where(magnitude > 0, magnitude, 1e-50)))
        expected = np.clip(exponent, -127, 127) + 127
        expected = np.where(np.isnan(x), 255, expected).astype(int)
        np.testing.assert_array_equal(got, expected)
    edge = np.float32([np.inf, 3e38, np.nan])
    assert narrow.to_ue8m0(edge, "rp", satfinite=False).tolist() == [255, 255, 255]
    assert narrow.to_ue8m0(edge, "rz", satfinite=False).tolist() == [255, 254, 255]


def test_ue8m0_to_bf16_is_exact() -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    got = narrow.ue8m0_to_bf16(codes)
    np.testing.assert_array_equal(decode(got, "bf16"), expected)
    assert got[0] == 0x0040  # 2^-127, a subnormal
    assert got[255] == 0x7FFF


@pytest.mark.parametrize("mode", ["rna", "rn", "rz"])
def test_tf32(mode: str) -> None:
    rng = np.random.default_rng(6)
    bits = np.concatenate([EDGES, rng.integers(0, 2**32, 1000, dtype=np.uint32)])
    bits = np.concatenate([bits, (bits & 0xFFFFE000) | 0x1000])  # exact ties
    x = bits.view(np.float32)
    got = narrow.to_tf32(x, mode)
    assert not (got[~np.isnan(x)] & 0x1FFF).any()
    for value, code, raw in zip(x.tolist(), got.tolist(), bits.tolist(), strict=True):
        if np.isnan(value):
            assert code == (raw & 0xFFFFE000 if mode == "rna" else 0x7FFFE000)
        elif np.isinf(value) or value == 0:
            assert code == f32_bits(value)
        else:
            assert code == f32_bits(round_exact(Fraction(value), TF32, mode))


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_f64_to_f32(mode: str) -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal(300) * 2.0 ** rng.integers(-160, 135, 300)
    x[::3] = (EDGES.view(np.float32).astype(np.float64).repeat(4)[:100]) * (1 + 2.0**-25)
    for value, got in zip(x.tolist(), narrow.f64_to_f32(x, mode).tolist(), strict=True):
        if np.isfinite(value) and value != 0:
            assert got == round_exact(Fraction(value), F32, mode)
    nan = np.array([0x7FF8 << 48, 0xFFF0000020000001, 0x7FF123456789ABCD], np.uint64)
    kept = narrow.f64_to_f32(nan.view(np.float64), mode).view(np.uint32)
    assert kept.tolist() == [0x7FC00000, 0xFFC00001, 0x7FC91A2B]
    assert narrow.f64_to_f32(np.array([-1e-39]), ftz=True).view(np.uint32).tolist() == [1 << 31]


def test_half_to_half() -> None:
    f16 = np.arange(1 << 16, dtype=np.uint16)
    expected = f16.view(np.float16).astype(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    expected[np.isnan(f16.view(np.float16))] = 0x7FFF
    np.testing.assert_array_equal(narrow.half_to_half(f16, "f16", "bf16"), expected)
    assert narrow.f32_to_f64(np.float32([1e-40]), ftz=True).tolist() == [0.0]
