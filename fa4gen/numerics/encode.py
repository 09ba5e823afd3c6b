"""Rounding to any floating-point format, in any mode, bit for bit.

All narrow conversions go through :func:`encode`, which works on the bits of float64. To compute an
exact result in float64 that float64 cannot hold, round it *to odd* first (:func:`to_odd`): the last
bit then says "inexact", and a second rounding to a format two bits narrower cannot go wrong
(Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from fa4gen.numerics.arrays import F64, U32, U64, Mask, some
from fa4gen.numerics.formats import FloatFormat, float_format

NarrowRounding: TypeAlias = Literal["rn", "rz", "rm", "rp", "rna"]
"""The modes of arithmetic, and to nearest with ties away from zero."""

_MANTISSA = np.array((1 << 52) - 1, np.uint64)
_IMPLICIT = np.array(1 << 52, np.uint64)
_MAGNITUDE = np.array((1 << 63) - 1, np.uint64)
_INFINITY = np.array(0x7FF << 52, np.uint64)
_SIGN_SHIFT = np.array(63, np.uint64)
_EXPONENT_SHIFT = np.array(52, np.uint64)
_BIAS = 1023
_ONE = np.array(1, np.uint64)
_MAX_DROP = 54
"""Dropping more than this of a 53-bit significand changes nothing but the shift count."""


def two_sum(a: F64, b: F64) -> tuple[F64, F64]:
    """The rounded sum and its exact error, ``a + b == sum + error`` (Knuth)."""
    total = a + b
    share = total - a
    return total, (a - (total - share)) + (b - share)


def to_odd(total: F64, error: F64) -> F64:
    """``total + error`` rounded to odd, where ``total`` is that sum rounded to nearest.

    The error of an infinite or NaN sum is a NaN, and leaves the sum alone.
    """
    bits = total.view(np.int64)
    inexact = (np.abs(error) > 0) & ((bits & 1) == 0)
    if not some(inexact):
        return total
    outward = (error > 0) == (total > 0)
    step = np.where(outward, np.int64(1), np.int64(-1))
    return np.where(inexact, bits + step, bits).view(np.float64)


def encode(
    x: F64, name: str, rounding: NarrowRounding = "rn", satfinite: bool = False, relu: bool = False
) -> U32:
    """Codes of ``x`` in a format, rounded once.

    A finite value beyond the largest becomes infinity, or the largest finite value where the
    rounding mode points back or ``satfinite`` is set; so does infinity itself under ``satfinite``.
    A format without infinity always saturates. A NaN becomes the format's positive NaN, and in a
    format without NaN the largest positive value. ``relu`` makes every negative number +0.

    Args:
        x: any shape; exact values, or values rounded to odd.
        name: a key of ``fa4gen.numerics.formats.FORMATS``, but ``ue8m0``.
        rounding: ``rn``, ``rz``, ``rm``, ``rp``, or ``rna`` (ties away from zero).

    Returns:
        uint32 codes, in the low bits.

    Raises:
        UnknownName: no such format.
    """
    form = float_format(name)
    bits = np.ascontiguousarray(x).view(np.uint64)
    magnitude = bits & _MAGNITUDE
    negative = (bits >> _SIGN_SHIFT) != 0
    code = _round(magnitude, negative, form, rounding)
    largest = np.uint64(form.max_finite_code)
    over = code > largest
    if some(over):
        limit = np.where(
            _stays_finite(negative, rounding) & (magnitude < _INFINITY), largest, largest + _ONE
        )
        if satfinite or form.infinity_code is None:
            limit = np.full_like(code, largest)
        code = np.where(over, limit, code)
    code = np.where(negative, code | np.uint64(form.sign_mask), code)
    nan = magnitude > _INFINITY
    if relu:
        code[negative & ~nan] = 0
    code[nan] = form.max_finite_code if form.nan_code is None else form.nan_code
    return code.astype(np.uint32)


def _round(magnitude: U64, negative: Mask, form: FloatFormat, rounding: NarrowRounding) -> U64:
    """Positive codes as if the exponent had no upper bound (an infinity gives a huge one)."""
    exponent = np.maximum(magnitude >> _EXPONENT_SHIFT, _ONE).astype(np.int64) - _BIAS
    implicit = np.where(magnitude >= _IMPLICIT, _IMPLICIT, np.uint64(0))
    significand = (magnitude & _MANTISSA) | implicit
    below = np.maximum(form.min_exponent - exponent, 0)
    drop = np.minimum(52 - form.mantissa_bits + below, _MAX_DROP).astype(np.uint64)
    kept = significand >> drop
    rest = significand & ((_ONE << drop) - _ONE)
    half = _ONE << (drop - _ONE)
    if rounding == "rn":
        up = (rest > half) | ((rest == half) & ((kept & _ONE) != 0))
    elif rounding == "rna":
        up = rest >= half
    elif rounding == "rz":
        up = np.zeros_like(negative)
    else:
        up = (rest != 0) & (negative == (rounding == "rm"))
    above = np.maximum(exponent - form.min_exponent, 0).astype(np.uint64)
    # The implicit bit of a normal significand adds the 1 that the biased exponent lacks here, and
    # a carry out of the mantissa moves on into the exponent.
    code: U64 = (above << np.uint64(form.mantissa_bits)) + kept + up
    return code


def _stays_finite(negative: Mask, rounding: NarrowRounding) -> Mask:
    """Where a finite value beyond the largest is rounded back to the largest."""
    if rounding == "rz":
        return np.ones_like(negative)
    if rounding in {"rn", "rna"}:
        return np.zeros_like(negative)
    back: Mask = negative == (rounding == "rp")
    return back
