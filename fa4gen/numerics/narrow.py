"""Conversions between f32 and narrower floating point, ``cvt`` of PTX (PTX ISA 9.7.9.21).

Arrays are C-contiguous, of any shape. Two-element forms follow the operand order of PTX: in
``cvt.rn.bf16x2.f32 d, a, b`` the first source becomes the *upper* half of the destination.

NaN: f16, bf16 and tf32 results are 0x7FFF, 0x7FFF and 0x7FFFE000; e4m3 and e5m2 give 0x7F, ue8m0
0xFF; e2m1, e2m3 and e3m2 have none and give their largest positive value. These agree with an H200
(tests/emulator/hopper), and those of less than 16 bits with the host-side code of CUDA's
cuda_fp8.h, cuda_fp6.h and cuda_fp4.h (13.0).
"""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from fa4gen.numerics.arrays import F32, F64, NAN16, U8, U16, U32, HalfName, Rounding, some
from fa4gen.numerics.encode import encode
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import flush, round_and_flush, round_f64_to_f32

NarrowName: TypeAlias = Literal["e4m3", "e5m2", "e2m3", "e3m2", "e2m1"]

_HALF = np.array(16, np.uint32)
_LOW_HALF = np.array(0xFFFF, np.uint32)
_HIGH_HALF = np.array(0xFFFF0000, np.uint32)
_ONE = np.array(1, np.uint32)
_ROUND_BF16 = np.array(0x7FFF, np.uint32)
_NAN_BF16 = np.array(0x7FFF0000, np.uint32)
_TF32_DROPPED = 13
_HALF_TF32, _BELOW_TF32 = np.array(0x1000, np.uint32), np.array(0x1FFF, np.uint32)
_NAN_TF32 = np.array(0x7FFFE000, np.uint32)
_UE8M0_MAX = 0xFE
_EXPONENT_SHIFT = np.array(23, np.uint32)
_MAGNITUDE = np.array(0x7FFFFFFF, np.uint32)
_INFINITY = np.array(0x7F800000, np.uint32)
_LEAST_UE8M0 = np.array(0x00400000, np.uint32)
"""The bits of 2^-127 as a float32."""


def to_half(
    x: F32,
    name: HalfName,
    rounding: Rounding = "rn",
    relu: bool = False,
    satfinite: bool = False,
) -> U16:
    """``cvt.f16.f32`` and ``cvt.bf16.f32``: uint16 codes of ``x``, rounded once.

    Args:
        x: any shape.
        name: ``f16`` or ``bf16``.
        rounding: ``rn``, ``rz``, ``rm`` or ``rp``.
        relu: negative numbers become +0.
        satfinite: overflow and infinity become the largest finite value.
    """
    if rounding != "rn" or relu or satfinite:
        return encode(x.astype(np.float64), name, rounding, satfinite, relu).astype(np.uint16)
    nan = np.isnan(x)
    if name == "f16":
        code: U16 = x.astype(np.float16).view(np.uint16)
    else:
        code = (_round_bf16(x) >> _HALF).astype(np.uint16)
    return np.where(nan, NAN16, code) if some(nan) else code


def to_bf16x2(upper: F32, lower: F32) -> U32:
    """``cvt.rn.bf16x2.f32``: two f32 in one register."""
    both = _interleave(upper, lower)
    rounded = _round_bf16(both)
    nan = np.isnan(both)
    if some(nan):
        rounded = np.where(nan, _NAN_BF16, rounded)
    packed: U32 = (rounded[..., 1] & _HIGH_HALF) | (rounded[..., 0] >> _HALF)
    return packed


def to_f16x2(upper: F32, lower: F32) -> U32:
    """``cvt.rn.f16x2.f32``: two f32 in one register."""
    return to_half(_interleave(upper, lower), "f16").view(np.uint32)[..., 0]


def pack_halves(upper: U16, lower: U16) -> U32:
    """Two 16-bit codes in one register."""
    return (upper.astype(np.uint32) << _HALF) | lower


def to_tf32(
    x: F32,
    rounding: Literal["rna", "rn", "rz"] = "rna",
    relu: bool = False,
    satfinite: bool = False,
) -> U32:
    """``cvt.tf32.f32``: the f32 bits of ``x`` rounded to 10 mantissa bits, the low 13 bits zero.

    A NaN becomes 0x7FFFE000, but for ``rna``, which ptxas 13.0 makes of integer instructions for
    sm_90a: it cuts 13 bits off a NaN, which may leave an infinity, and ``satfinite`` takes one unit
    of the last place away from all that is not finite then. An H200 agrees (2026-11-21).
    """
    if rounding == "rna" and not relu:
        return _tf32_away(x.view(np.uint32), satfinite)
    code = encode(x.astype(np.float64), "tf32", rounding, satfinite, relu)
    bits = code << np.uint32(_TF32_DROPPED)
    return np.where(np.isnan(x), _NAN_TF32, bits)


def _tf32_away(bits: U32, satfinite: bool) -> U32:
    rounded = np.where((bits & _MAGNITUDE) < _INFINITY, bits + _HALF_TF32, bits) & ~_BELOW_TF32
    if satfinite:
        over = (rounded & _MAGNITUDE) >= _INFINITY
        rounded = np.where(over, rounded - (_BELOW_TF32 + _ONE), rounded)
    return rounded


def to_narrow(x: F32, name: NarrowName, relu: bool = False) -> U8:
    """One f32 as e4m3, e5m2, e2m3, e3m2 or e2m1, to nearest, saturating to the finite range.

    That is ``cvt.rn.satfinite`` of one element. f16 and bf16 sources are widened first; that is
    exact, so rounding happens once.

    Args:
        x: any shape.
        name: the format.
        relu: negative numbers become +0.

    Returns:
        uint8 codes in the low bits.
    """
    halves = x.view(np.uint16)
    odd = halves[..., 1::2] | (halves[..., 0::2] != 0)
    codes: U8 = _narrow_table(name, relu).take(odd)
    return codes


def to_narrow_x2(upper: F32, lower: F32, name: NarrowName, relu: bool = False) -> U16:
    """``cvt.rn.satfinite.NAMEx2.f32``: uint16, or for e2m1 the packed byte in its low 8 bits."""
    codes = to_narrow(_interleave(upper, lower), name, relu)
    if name == "e2m1":
        return ((codes[..., 1] << 4) | codes[..., 0]).astype(np.uint16)
    return codes.view(np.uint16)[..., 0]


def from_narrow_x2(raw: U16, name: NarrowName, relu: bool = False) -> U32:
    """``cvt.rn.f16x2.NAMEx2``: exact; uint32 registers, the upper element in the upper half.

    Args:
        raw: uint16; for e2m1 the packed byte is in the low 8 bits.
        name: the format.
        relu: negative numbers become +0.
    """
    shift = np.uint16(4 if name == "e2m1" else 8)
    upper, lower = (
        encode(decode(part.astype(np.uint8), name).astype(np.float64), "f16", relu=relu)
        for part in (raw >> shift & np.uint16(0xFF), raw & np.uint16(0xFF))
    )
    return (upper << _HALF) | lower


def to_ue8m0(x: F32, rounding: Literal["rz", "rp"], satfinite: bool = True) -> U8:
    """One f32 as a power of two, its sign ignored: ``cvt.{rz,rp}{.satfinite}.ue8m0x2``.

    Zero becomes 2^-127, the least value. Without ``satfinite``, infinity (and what ``rp`` rounds
    beyond 2^127) becomes the NaN 0xFF.
    """
    magnitude = x.view(np.uint32) & _MAGNITUDE
    code = magnitude >> _EXPONENT_SHIFT
    if rounding == "rp":
        inexact = (magnitude & np.uint32((1 << 23) - 1)) != 0
        code = code + (inexact & (magnitude > _LEAST_UE8M0) & (magnitude < _INFINITY))
    if satfinite:
        code = np.where(magnitude <= _INFINITY, np.minimum(code, np.uint32(_UE8M0_MAX)), code)
    return code.astype(np.uint8)


def ue8m0_to_bf16(raw: U8) -> U16:
    """``cvt.rn.bf16x2.ue8m0x2`` of one element: exact; 2^-127 is a bf16 subnormal."""
    return encode(decode(raw, "ue8m0").astype(np.float64), "bf16").astype(np.uint16)


def f64_to_f32(x: F64, rounding: Rounding = "rn", ftz: bool = False) -> F32:
    """``cvt.f32.f64``; a NaN keeps its sign and the upper bits of its payload, and becomes quiet.

    So it was recorded of an H200, 2026-11-21 (``float/nan-payload-64-to-32`` and
    ``float/tiny-f64-to-f32`` of tests/emulator/hopper).
    """
    result = (round_and_flush if ftz else round_f64_to_f32)(x, rounding)
    nan = np.isnan(x)
    if some(nan):
        # NumPy converts a NaN in just this way, but what it makes of one is nobody's promise.
        result = np.where(nan, _shorter_nan(x, 23, 32).view(np.float32), result)
    return result


def f64_to_half(x: F64, name: HalfName, rounding: Rounding = "rn") -> U16:
    """``cvt.f16.f64`` and ``cvt.bf16.f64``, rounded once; a NaN as in :func:`f64_to_f32`."""
    code = encode(x, name, rounding).astype(np.uint16)
    nan = np.isnan(x)
    if some(nan):
        kept = _shorter_nan(x, 10 if name == "f16" else 7, 16).astype(np.uint16)
        code = np.where(nan, kept, code)
    return code


def _shorter_nan(x: F64, mantissa: int, bits: int) -> U32:
    """The quiet NaN of so many bits whose sign and payload begin like those of ``x``."""
    code = x.view(np.uint64)
    payload = (code >> np.uint64(52 - mantissa)).astype(np.uint32) & np.uint32((1 << mantissa) - 1)
    sign = (code >> np.uint64(63)).astype(np.uint32) << np.uint32(bits - 1)
    # The highest bit of the mantissa, and the exponent above it.
    quiet = (1 << (bits - 1)) - (1 << (mantissa - 1))
    return np.asarray(sign | payload | np.uint32(quiet))


def f32_to_f64(x: F32, ftz: bool = False) -> F64:
    """``cvt.f64.f32``: exact."""
    return (flush(x) if ftz else x).astype(np.float64)


def half_to_half(x: U16, source: HalfName, target: HalfName, rounding: Rounding = "rn") -> U16:
    """``cvt.f16.bf16`` and ``cvt.bf16.f16``, rounded once."""
    return to_half(decode(x, source), target, rounding)


def _interleave(upper: F32, lower: F32) -> F32:
    """Pairs ``(..., 2)``, the lower element first, as they lie in a packed register."""
    both = np.empty((*upper.shape, 2), np.float32)
    both[..., 0], both[..., 1] = lower, upper
    return both


def _round_bf16(x: F32) -> U32:
    """The bits of ``x`` with bf16 in the upper half; the lower half is left as it falls."""
    bits = x.view(np.uint32)
    rounded: U32 = bits + (_ROUND_BF16 + (bits >> _HALF & _ONE))
    return rounded


@cache
def _narrow_table(name: NarrowName, relu: bool) -> U8:
    """Codes of all upper halves of a float32, the last bit standing for "and something below".

    Seven mantissa bits and that bit decide the rounding to a format of at most three.
    """
    halves = np.arange(1 << 16, dtype=np.uint32) << _HALF
    with np.errstate(invalid="ignore"):
        exact = halves.view(np.float32).astype(np.float64)
    table = encode(exact, name, "rn", True, relu).astype(np.uint8)
    table.flags.writeable = False
    return table
