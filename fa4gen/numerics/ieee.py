"""f32 and f64 arithmetic as PTX defines it, bit for bit (PTX ISA 9.7.3).

Everything is elementwise over arrays of any shape. Common arguments:

``rounding``
    ``rn``, ``rz``, ``rm`` or ``rp``; an instruction without a rounding modifier rounds to nearest.
``ftz``
    Subnormal inputs and results become zero with the same sign. A result counts as subnormal if it
    is one when rounded as if exponents had no lower bound. The ISA does not say so; an H200 does
    it (``float/tiny-f32`` of tests/emulator/hopper), and it matters only for results that round up
    to the least normal number.
``sat``
    The result is clamped to [0, 1]; NaN becomes +0.

A NaN that f32 arithmetic makes has the bits 0x7FFFFFFF; payloads are not kept.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.numerics.arrays import F32, F64, NAN32, Mask, Rounding, some
from fa4gen.numerics.encode import to_odd, two_sum

_MIN_NORMAL = np.array(2.0**-126, np.float32)
_SCALE = np.array(2.0**64, np.float32)
_UP, _DOWN = np.array(np.inf, np.float32), np.array(-np.inf, np.float32)
_ZERO, _ONE = np.array(0, np.float32), np.array(1, np.float32)
_BELOW_F32 = np.array((1 << 29) - 1, np.int64)
_HALF_ULP = np.array(1 << 28, np.int64)
"""In the bits of a float64: the part that float32 drops, and the middle of it."""


def canonical(x: F32) -> F32:
    """``x`` with every NaN replaced by 0x7FFFFFFF."""
    nan = np.isnan(x)
    return np.where(nan, NAN32, x) if some(nan) else x


def flush(x: F32) -> F32:
    """``x`` with every subnormal replaced by zero of its sign."""
    small = np.abs(x) < _MIN_NORMAL
    return np.where(small, np.copysign(_ZERO, x), x) if some(small) else x


def saturate(x: F32) -> F32:
    """``x`` clamped to [0, 1]; NaN and -0 become +0."""
    return np.where(x > 0, np.minimum(x, _ONE), _ZERO)


def round_f64_to_f32(x: F64, rounding: Rounding = "rn") -> F32:
    """``x`` rounded once; NaN stays some NaN. ``x`` may be a value rounded to odd."""
    result = x.astype(np.float32)
    if rounding == "rn":
        return result
    wide = result.astype(np.float64)
    if rounding == "rz":
        return np.where(np.abs(wide) > np.abs(x), np.nextafter(result, _ZERO), result)
    if rounding == "rm":
        return np.where(wide > x, np.nextafter(result, _DOWN), result)
    return np.where(wide < x, np.nextafter(result, _UP), result)


def round_and_flush(x: F64, rounding: Rounding = "rn") -> F32:
    """``x`` rounded once, and flushed where it is subnormal even without a least exponent."""
    result = round_f64_to_f32(x, rounding)
    doubtful = np.abs(result) == _MIN_NORMAL
    if some(doubtful):
        scaled = round_f64_to_f32(np.where(doubtful, x, 0.0) * _SCALE, rounding)
        small = doubtful & (np.abs(scaled) < _MIN_NORMAL * _SCALE)
        result = np.where(small, np.copysign(_ZERO, result), result)
    return flush(result)


def add32(a: F32, b: F32, rounding: Rounding = "rn", ftz: bool = False, sat: bool = False) -> F32:
    """``a + b`` (PTX ISA 9.7.3.3)."""
    if ftz:
        a, b = flush(a), flush(b)
    if rounding == "rn":
        return _finish(a + b, ftz, sat)
    return _finish(_directed_sum(a, b, rounding), ftz, sat)


def sub32(a: F32, b: F32, rounding: Rounding = "rn", ftz: bool = False, sat: bool = False) -> F32:
    """``a - b`` (PTX ISA 9.7.3.4)."""
    return add32(a, -b, rounding, ftz, sat)


def mul32(a: F32, b: F32, rounding: Rounding = "rn", ftz: bool = False, sat: bool = False) -> F32:
    """``a * b`` (PTX ISA 9.7.3.5)."""
    if ftz:
        return _finish(round_and_flush(_product(flush(a), flush(b)), rounding), False, sat)
    if rounding == "rn":
        return _finish(a * b, False, sat)
    return _finish(round_f64_to_f32(_product(a, b), rounding), False, sat)


def fma32(
    a: F32, b: F32, c: F32, rounding: Rounding = "rn", ftz: bool = False, sat: bool = False
) -> F32:
    """``a * b + c``, rounded once (PTX ISA 9.7.3.6)."""
    if ftz:
        a, b, c = flush(a), flush(b), flush(c)
    product, addend = _product(a, b), c.astype(np.float64)
    if rounding != "rn":
        total = _odd_sum(product, addend, rounding)
        rounded = round_and_flush if ftz else round_f64_to_f32
        return _finish(rounded(total, rounding), False, sat)
    total = product + addend
    result = total.astype(np.float32)
    # Two roundings to nearest differ from one only where the first makes a tie for the second,
    # which is in the middle of the dropped bits, or elsewhere where the result is subnormal.
    tie = (total.view(np.int64) & _BELOW_F32) == _HALF_ULP
    small = np.abs(result) < _MIN_NORMAL
    if some(tie) or (some(small) and some(small & (total != 0))):
        total = to_odd(*two_sum(product, addend))
        result = total.astype(np.float32)
    return _finish(round_and_flush(total) if ftz else result, False, sat)


def div32(a: F32, b: F32, rounding: Rounding = "rn", ftz: bool = False) -> F32:
    """``a / b``, correctly rounded (PTX ISA 9.7.3.8).

    A quotient of float32 values is either a float32 or further than 2^-49 of itself from one, so
    the float64 quotient lies on the right side of it.
    """
    if not ftz and rounding == "rn":
        return canonical(a / b)
    if ftz:
        a, b = flush(a), flush(b)
    quotient = a.astype(np.float64) / b.astype(np.float64)
    return canonical((round_and_flush if ftz else round_f64_to_f32)(quotient, rounding))


def rcp32(a: F32, rounding: Rounding = "rn", ftz: bool = False) -> F32:
    """``1 / a``, correctly rounded (PTX ISA 9.7.3.13)."""
    return div32(_ONE, a, rounding, ftz)


def sqrt32(a: F32, rounding: Rounding = "rn", ftz: bool = False) -> F32:
    """The square root, correctly rounded (PTX ISA 9.7.3.15); the root of -0 is -0."""
    if ftz:
        a = flush(a)
    if rounding == "rn":
        return _finish(np.sqrt(a), ftz, False)
    return _finish(round_f64_to_f32(np.sqrt(a.astype(np.float64)), rounding), ftz, False)


def copysign32(a: F32, b: F32) -> F32:
    """The magnitude of ``b`` with the sign of ``a``: the order of PTX (PTX ISA 9.7.3.2)."""
    return np.copysign(b, a)


def testp(x: npt.NDArray[np.floating[Any]], test: str) -> Mask:
    """A test of f32 or f64 values (PTX ISA 9.7.3.1).

    Args:
        x: any shape.
        test: ``finite``, ``infinite``, ``number``, ``notanumber``, ``normal`` or ``subnormal``.
            Zero counts as normal, as the ISA says, and not as subnormal.

    Raises:
        UnsupportedInstruction: another test.
    """
    small: Mask = np.abs(x) < np.finfo(x.dtype).smallest_normal
    holds: dict[str, Mask] = {
        "finite": np.isfinite(x),
        "infinite": np.isinf(x),
        "number": ~np.isnan(x),
        "notanumber": np.isnan(x),
        "normal": np.isfinite(x) & (~small | (x == 0)),
        "subnormal": small & (x != 0),
    }
    if test in holds:
        return holds[test]
    raise UnsupportedInstruction(f"testp: got .{test}, allowed: {', '.join(holds)}")


def fma64(a: F64, b: F64, c: F64) -> F64:
    """``a * b + c`` in f64, rounded once to nearest (PTX ISA 9.7.3.6).

    By exact rationals, a lane at a time: f64 is rare in kernels, and NumPy cannot fuse.
    """
    a, b, c = np.broadcast_arrays(a, b, c)
    lanes = zip(a.ravel().tolist(), b.ravel().tolist(), c.ravel().tolist(), strict=True)
    return np.array([_fma64(*lane) for lane in lanes], np.float64).reshape(a.shape)


def _fma64(a: float, b: float, c: float) -> float:
    if a == 0 or b == 0 or not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c  # the product is exact
    if not math.isfinite(c):
        return c
    total = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return total.numerator / total.denominator
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def _product(a: F32, b: F32) -> F64:
    """Exact: 24 by 24 bits fit in 53, and no exponent is out of range."""
    product: F64 = a.astype(np.float64) * b.astype(np.float64)
    return product


def _directed_sum(a: F32, b: F32, rounding: Rounding) -> F32:
    """``a + b`` under rz, rm or rp: the nearest sum, moved where its exact error says so."""
    total = a + b
    if not np.isfinite(total).all() or np.count_nonzero(total) != total.size:
        return _exact_sum(a.astype(np.float64), b.astype(np.float64), rounding)
    share = total - a
    error = (a - (total - share)) + (b - share)
    if rounding == "rm":
        return np.where(error < _ZERO, np.nextafter(total, _DOWN), total)
    if rounding == "rp":
        return np.where(error > _ZERO, np.nextafter(total, _UP), total)
    outward = (error != _ZERO) & (np.signbit(error) != np.signbit(total))
    return np.where(outward, np.nextafter(total, _ZERO), total)


def _exact_sum(a: F64, b: F64, rounding: Rounding) -> F32:
    return round_f64_to_f32(_odd_sum(a, b, rounding), rounding)


def _odd_sum(a: F64, b: F64, rounding: Rounding) -> F64:
    """``a + b`` rounded to odd; a zero has the sign that ``rounding`` gives it."""
    total, error = two_sum(a, b)
    if rounding == "rm":
        # Under rm an exact zero is -0 unless both addends are +0; float64 says otherwise.
        zero = (total == 0) & (np.signbit(a) | np.signbit(b))
        total = np.where(zero, -0.0, total)
    return to_odd(total, error)


def _finish(x: F32, ftz: bool, sat: bool) -> F32:
    if sat:
        return saturate(flush(x) if ftz else x)
    return canonical(flush(x) if ftz else x)
