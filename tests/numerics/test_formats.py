"""Decoding against ml_dtypes, all codes; encoding against exact rationals."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from exact_rounding import BF16, F16, F32, TF32, Target, round_exact
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.core.errors import UnknownName
from fa4gen.numerics.encode import encode, to_odd, two_sum
from fa4gen.numerics.formats import FORMATS, decode, float_format, unpack_nibbles

INDEPENDENT = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "ue8m0": ml_dtypes.float8_e8m0fnu,
}
IEEE = {"f16": F16, "bf16": BF16, "tf32": TF32, "e5m2": Target(3, -14, 15), "f32": F32}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_every_code_decodes_as_ml_dtypes_says(name: str) -> None:
    bits = FORMATS[name].bits
    raw = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    np.testing.assert_array_equal(decode(raw, name), raw.view(INDEPENDENT[name]).astype(np.float32))


@pytest.mark.parametrize("name", [n for n in INDEPENDENT if n != "ue8m0"])
def test_every_number_encodes_to_its_own_code(name: str) -> None:
    form = FORMATS[name]
    raw = np.arange(1 << form.bits, dtype=np.uint16 if form.bits == 16 else np.uint8)
    value = decode(raw, name)  # checked above against ml_dtypes
    raw, value = raw[~np.isnan(value)], value[~np.isnan(value)].astype(np.float64)
    for mode in ("rn", "rz", "rm", "rp", "rna"):
        np.testing.assert_array_equal(encode(value, name, mode), raw)


def test_bits_above_a_format_are_ignored() -> None:
    raw = np.uint8([0x07, 0xF7, 0x2F])
    assert decode(raw, "e2m1").tolist() == [6.0, 6.0, -6.0]
    assert decode(np.uint8([0x38, 0xB8]), "ue4m3").tolist() == [1.0, 1.0]


def test_tf32_drops_the_low_bits() -> None:
    assert decode(np.uint32([0x3F801FFF, 0x3F802000]), "tf32").tolist() == [1.0, 1 + 2.0**-10]
    assert decode(np.uint32([0x3F801FFF]), "f32").view(np.uint32).tolist() == [0x3F801FFF]


def test_nibbles_low_first() -> None:
    assert unpack_nibbles(np.uint8([[0x21, 0x43]])).tolist() == [[1, 2, 3, 4]]


def test_unknown_format() -> None:
    with pytest.raises(UnknownName, match=r"got 'e4m2', known: bf16, e2m1, .*; did you mean"):
        float_format("e4m2")


@pytest.mark.parametrize("name", ["f16", "bf16", "tf32", "e5m2"])
@given(x=st.floats(allow_nan=False, allow_infinity=False, width=32))
@settings(max_examples=40, deadline=None)
def test_encoding_rounds_exactly_in_every_mode(name: str, x: float) -> None:
    if x == 0:
        return
    form = FORMATS[name]
    for mode in ("rn", "rz", "rm", "rp", "rna"):
        (code,) = encode(np.array([x]), name, mode).tolist()
        assert form.value(code) == round_exact(Fraction(x), IEEE[name], mode), mode


def test_rounding_to_odd_survives_a_second_rounding() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal(400) * 2.0 ** rng.integers(-30, 30, 400)
    b = rng.standard_normal(400) * 2.0 ** rng.integers(-90, 30, 400)
    # Half of them: ties of f16 that only b breaks.
    a[::2] = (rng.integers(1 << 10, 1 << 11, 200) + 0.5) * 2.0 ** rng.integers(-12, 4, 200)
    b[::2] *= 2.0**-60
    code = encode(to_odd(*two_sum(a, b)), "f16")
    for x, y, got in zip(a.tolist(), b.tolist(), code.tolist(), strict=True):
        assert FORMATS["f16"].value(got) == round_exact(Fraction(x) + Fraction(y), F16, "rn")


def test_overflow_follows_the_rounding_mode() -> None:
    big = np.array([1e30, -1e30, np.inf, -np.inf])
    expected = {
        "rn": [0x7C00, 0xFC00, 0x7C00, 0xFC00],
        "rz": [0x7BFF, 0xFBFF, 0x7C00, 0xFC00],
        "rm": [0x7BFF, 0xFC00, 0x7C00, 0xFC00],
        "rp": [0x7C00, 0xFBFF, 0x7C00, 0xFC00],
    }
    for mode, codes in expected.items():
        assert encode(big, "f16", mode).tolist() == codes
        assert encode(big, "f16", mode, satfinite=True).tolist() == [0x7BFF, 0xFBFF] * 2
    # The tie between the largest finite value and the next power of two goes to infinity.
    assert encode(np.array([65519.996, 65520.0]), "f16").tolist() == [0x7BFF, 0x7C00]
