"""MUFU of Hopper, bit for bit: EX2, LG2, RCP, RSQ and SQRT of f32, RCP64H and RSQ64H.

Each looks up three coefficients by the upper bits of the mantissa and evaluates
``c0 + c1 * d + c2 * d ** 2`` of the lower ones in fixed point, as Oberman and Siu describe it ("A
high-performance area-efficient multifunction interpolator", ARITH-17, 2005). The square drops every
partial product below its 15th bit, the sum is cut. ``mufu.toml`` has the coefficients: integers,
the only ones of their units with which all results of an H200 over whole binades come out. That the
rest of the numbers, special values among them, come out as well is held by tests/emulator/hopper
(``sweep/*``, recorded 2026-11-21).

Subnormal arguments and results are zeros of their sign: forms without ``.ftz`` are made of these by
ptxas, see :mod:`fa4gen.numerics.approx`. A NaN is 0x7FFFFFFF.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fa4gen.numerics.arrays import F32, F64, NAN32, some
from fa4gen.numerics.ieee import round_f64_to_f32

I64 = npt.NDArray[np.int64]

_DATA = Path(__file__).parent / "mufu.toml"
_MANTISSA, _SQUARE_BITS = 23, 15


def _constant(value: int) -> I64:
    return np.array(value, np.int64)


_ROUND, _FRACTION, _TWO_BINADES = map(_constant, (1 << 23, (1 << 23) - 1, (2 << 23) - 1))
_HALF, _ONE, _INFINITY = map(_constant, (0x3F000000, 0x3F800000, 0x7F800000))
_WHOLE = ~_FRACTION
_MAGNITUDE, _SIGN, _NONE = map(_constant, (0x7FFFFFFF, 1 << 31, 0))
_POINT, _FAR = np.array(2.0**23), np.array(1024, np.float32)
_LG2_BITS, _LG2_CUT = 38, 2
"""Bits behind the point of a logarithm's sum, and how many of them are dropped first."""
_NARROWER = 3
"""Bits that results of f64 have less."""
_ROUND64, _FRACTION64, _TWO_BINADES64 = map(_constant, (1 << 20, (1 << 20) - 1, (2 << 20) - 1))
_HALF64, _ONE64, _INFINITY64 = map(_constant, (0x3FE00000, 0x3FF00000, 0x7FF00000))
NAN64 = np.array(0x7FFFFFFF << 32, np.uint64).view(np.float64)
"""The NaN of f64: the lower word is zero as ever."""


@dataclass(frozen=True)
class Table:
    """The interpolants of one function.

    Attributes:
        low_bits, low_mask: Bits of an argument below those that choose the coefficients.
        shift: Bits behind the last one of the result, where the sum is cut.
        c0: With the constant that corrects what is cut.
        c1, c2: Brought to the unit of the sum.
        squares: Of all lower parts.
    """

    low_bits: I64
    shift: I64
    c0: I64
    c1: I64
    c2: I64
    squares: I64
    low_mask: I64

    def sums(self, fraction: I64) -> I64:
        """The interpolated values, not cut yet."""
        row, rest = fraction >> self.low_bits, fraction & self.low_mask
        total = self.c1.take(row) * rest
        total += self.c2.take(row) * self.squares.take(rest)
        total += self.c0.take(row)
        return total

    def at(self, fraction: I64) -> I64:
        """The interpolated values, in units of the result's last place."""
        return self.sums(fraction) >> self.shift


@cache
def table(name: str) -> Table:
    """The table of ``ex2``, ``lg2``, ``rcp``, ``rsqrt`` or ``sqrt``."""
    data = _tables()[name]
    c0, c1, c2 = (np.array(data[column], np.int64) for column in ("c0", "c1", "c2"))
    return Table(
        low_bits=_constant(data["low_bits"]),
        shift=_constant(data["fraction_bits"]),
        low_mask=_constant((1 << data["low_bits"]) - 1),
        c0=(c0 << data["c0_unit_bits"]) + data["bias"],
        c1=c1,
        c2=c2 << data["c2_unit_bits"],
        squares=_squares(data["low_bits"]),
    )


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(_DATA.read_text())


@cache
def _squares(bits: int) -> I64:
    """Squares of all numbers of so many bits, as 15 bits behind the point of ``d / 2 ** bits``.

    A pair of different bits counts once, a place higher; what is below the 15 bits is left out
    before it is added up.
    """
    numbers = np.arange(1 << bits, dtype=np.int64)
    lowest = 2 * bits - _SQUARE_BITS
    total = np.zeros_like(numbers)
    for bit in range(bits):
        above = max(bit + 1, lowest - 1 - bit)
        row = (numbers >> above << above) << (bit + 1)
        if 2 * bit >= lowest:
            row += 1 << 2 * bit
        total += np.where(numbers >> bit & 1, row, 0)
    return total >> lowest


def ex2(x: F32) -> F32:
    """``MUFU.EX2``: the argument is cut to 23 bits behind the point, a negative one complemented
    unless it is a whole number then."""
    codes = exponential(np.fmax(np.fmin(x, _FAR), -_FAR))
    return _finished(np.minimum(codes, _INFINITY), x)


def exponential(x: F32) -> I64:
    """The codes of ``2 ** x``, as if exponents had no bounds; finite ``x``."""
    fixed = (x * _POINT).astype(np.int64)
    fraction = fixed & _FRACTION
    # A fraction of a negative number that is cut toward zero is one place short of the complement.
    fixed -= (fixed < _NONE) & (fraction != _NONE)
    codes = table("ex2").at(fixed & _FRACTION)
    codes += fixed & _WHOLE
    codes += _ONE
    return codes


def rcp(x: F32) -> F32:
    """``MUFU.RCP``."""
    bits = x.view(np.uint32).astype(np.int64)
    magnitude = bits & _MAGNITUDE
    fraction = magnitude & _FRACTION
    codes = table("rcp").at(fraction) + (_HALF + _ONE + fraction - magnitude)
    return _finished(_at_ends(codes, magnitude), x, bits & _SIGN)


def rsqrt(x: F32) -> F32:
    """``MUFU.RSQ``; a power of four is exact."""
    bits = x.view(np.uint32).astype(np.int64)
    above = bits - _ONE
    fraction = above & _TWO_BINADES
    roots = np.where(fraction == 0, _ROUND, table("rsqrt").at(fraction))
    codes = roots + _HALF - (above - fraction >> 1)
    codes = _at_ends(codes, bits & _MAGNITUDE)
    return _rooted(codes, x, bits)


def sqrt(x: F32) -> F32:
    """``MUFU.SQRT``."""
    bits = x.view(np.uint32).astype(np.int64)
    magnitude, above = bits & _MAGNITUDE, bits - _ONE
    fraction = above & _TWO_BINADES
    codes = table("sqrt").at(fraction) + _ONE + (above - fraction >> 1)
    codes = np.where(magnitude < _ROUND, 0, codes)
    return _rooted(np.where(magnitude == _INFINITY, _INFINITY, codes), x, bits)


def lg2(x: F32) -> F32:
    """``MUFU.LG2``; powers of two are exact, a negative sum is complemented."""
    bits = x.view(np.uint32).astype(np.int64)
    fraction = bits & _FRACTION
    sums = np.where(fraction == 0, 0, table("lg2").sums(fraction))
    total = ((bits - _ONE >> _MANTISSA) << _LG2_BITS) + sums >> _LG2_CUT
    total += (total < 0) & (fraction != 0)
    result = round_f64_to_f32(np.ldexp(total.astype(np.float64), _LG2_CUT - _LG2_BITS), "rz")
    magnitude = bits & _MAGNITUDE
    result = np.where(bits == _INFINITY, np.float32(np.inf), result)
    result = np.where(magnitude < _ROUND, np.float32(-np.inf), result)
    wrong = np.isnan(x) | ((bits & _SIGN != 0) & (magnitude >= _ROUND))
    return np.where(wrong, NAN32, result)


def rcp64(x: F64) -> F64:
    """``MUFU.RCP64H``: the upper words of a reciprocal from those of ``x``."""
    magnitude, negative = _upper(x)
    fraction = magnitude & _FRACTION64
    codes = table("rcp").at(fraction << _NARROWER) >> _NARROWER
    codes += _HALF64 + _ONE64 + fraction - magnitude
    return _finished64(codes, magnitude, negative)


def rsqrt64(x: F64) -> F64:
    """``MUFU.RSQ64H``: the upper words of ``1 / sqrt(x)`` from those of ``x``."""
    magnitude, negative = _upper(x)
    above = magnitude - _ONE64
    fraction = above & _TWO_BINADES64
    roots = table("rsqrt").at(fraction << _NARROWER) >> _NARROWER
    codes: I64 = np.where(fraction == 0, _ROUND64, roots) + _HALF64 - (above - fraction >> 1)
    result = _finished64(codes, magnitude, negative)
    wrong = (negative != 0) & (magnitude >= _ROUND64)
    return np.where(wrong, NAN64, result) if some(wrong) else result


def _upper(x: F64) -> tuple[I64, I64]:
    """Magnitude and sign of upper words."""
    words = (x.view(np.uint64) >> np.uint64(32)).astype(np.int64)
    return words & _MAGNITUDE, words & _SIGN


def _finished64(codes: I64, magnitude: I64, sign: I64) -> F64:
    """Numbers of upper words, with the ends as in :func:`_at_ends`, subnormal ones flushed."""
    finite: I64 = np.where(magnitude < _ROUND64, _INFINITY64, codes)
    signed = np.where((magnitude >= _INFINITY64) | (finite < _ROUND64), _NONE, finite) | sign
    result = (signed.astype(np.uint64) << np.uint64(32)).view(np.float64)
    return np.where(magnitude > _INFINITY64, NAN64, result)


def _at_ends(codes: I64, magnitude: I64) -> I64:
    """Results of a reciprocal: of zero infinity, and of infinity zero."""
    codes = np.where(magnitude < _ROUND, _INFINITY, codes)
    return np.where(magnitude >= _INFINITY, 0, codes)


def _rooted(codes: I64, x: F32, bits: I64) -> F32:
    """Results of a root: that of a negative number is NaN, a zero's has its sign."""
    negative = bits & _SIGN
    result = _finished(codes, x, negative)
    wrong = (negative != 0) & (bits & _MAGNITUDE >= _ROUND)
    return np.where(wrong, NAN32, result) if some(wrong) else result


def _finished(codes: I64, x: F32, sign: I64 | int = 0) -> F32:
    """Floats of codes, subnormal ones flushed; NaN where ``x`` is one."""
    codes = np.where(codes < _ROUND, 0, codes) | sign
    result = codes.astype(np.uint32).view(np.float32)
    nan = np.isnan(x)
    return np.where(nan, NAN32, result) if some(nan) else result
