"""Conversions from, to and between integers, ``cvt`` of PTX (PTX ISA 9.7.9.21).

Integers are NumPy arrays of their own type (``u8`` to ``s64``: ``INTEGER_TYPES``); a register that
is wider than the type is the caller's to extend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnknownName
from fa4gen.numerics.arrays import F32, F64, U16, HalfName, Integers, Rounding
from fa4gen.numerics.encode import encode, to_odd, two_sum
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical, flush, round_f64_to_f32, saturate

IntegerRounding: TypeAlias = Literal["rni", "rzi", "rmi", "rpi"]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]

INTEGER_TYPES: dict[str, np.dtype[Any]] = {
    f"{'u' if kind == 'uint' else 's'}{bits}": np.dtype(f"{kind}{bits}")
    for kind in ("uint", "int")
    for bits in (8, 16, 32, 64)
}
"""Integer types by their name in PTX."""

_WIDE_BITS = 64
_TO_INTEGRAL: dict[IntegerRounding, Callable[[Floats], Floats]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}


def integer_type(name: str) -> np.dtype[Any]:
    """The NumPy type of an integer type of PTX.

    Raises:
        UnknownName: not one.
    """
    if name not in INTEGER_TYPES:
        raise UnknownName("integer type", name, INTEGER_TYPES)
    return INTEGER_TYPES[name]


def round_to_integral(
    x: F32, rounding: IntegerRounding, ftz: bool = False, sat: bool = False
) -> F32:
    """``cvt.rni.f32.f32`` and its like: an integer, as f32; zero keeps the sign of ``x``."""
    result = _integral(flush(x) if ftz else x, rounding).astype(np.float32, copy=False)
    return saturate(result) if sat else canonical(result)


def float_to_integer(
    x: F32 | F64, target: str, rounding: IntegerRounding, ftz: bool = False
) -> Integers:
    """``cvt.rXi.INT.f32`` and ``.f64``: rounded, then clamped to the range of ``target``.

    A NaN becomes 0, or 1 << (width - 1) where the source is f64 or the target has 64 bits.

    Args:
        x: float32 or float64, any shape (f16 and bf16 are widened first, which is exact).
        target: a key of ``INTEGER_TYPES``.
        rounding: ``rni`` (ties to even), ``rzi``, ``rmi`` or ``rpi``.
        ftz: f32 subnormals count as zero.

    Raises:
        UnknownName: no such integer type.
    """
    dtype = integer_type(target)
    limits = np.iinfo(dtype)
    if ftz and x.dtype == np.float32:
        x = flush(x.astype(np.float32, copy=False))
    whole = _integral(x.astype(np.float64), rounding)
    high = 2.0 ** (limits.bits - (limits.kind == "i"))
    inside = (whole >= float(limits.min)) & (whole < high)
    result = np.where(inside, whole, 0.0).astype(dtype)
    result[whole >= high] = limits.max
    result[whole < float(limits.min)] = limits.min
    if x.dtype == np.float64 or limits.bits == _WIDE_BITS:
        lowest = np.array(1 << (limits.bits - 1), np.uint64).astype(dtype)
        result[np.isnan(whole)] = lowest
    return result


def integer_to_f32(x: Integers, rounding: Rounding = "rn", sat: bool = False) -> F32:
    """``cvt.rX.f32.INT``, rounded once."""
    result = round_f64_to_f32(_odd_f64(x), rounding)
    return saturate(result) if sat else result


def integer_to_f64(x: Integers, rounding: Rounding = "rn") -> F64:
    """``cvt.rX.f64.INT``, rounded once; only 64-bit integers can be inexact."""
    total, error = _f64_parts(x)
    if rounding == "rn":
        return total
    toward = {"rm": -np.inf, "rp": np.inf, "rz": 0.0}[rounding]
    too_high = error < 0
    wrong = {"rm": too_high, "rp": error > 0, "rz": (error != 0) & (too_high == (total > 0))}
    return np.where(wrong[rounding], np.nextafter(total, toward), total)


def integer_to_half(x: Integers, name: HalfName, rounding: Rounding = "rn") -> U16:
    """``cvt.rX.f16.INT`` and ``cvt.rX.bf16.INT``: uint16 codes, rounded once."""
    return encode(_odd_f64(x), name, rounding).astype(np.uint16)


def half_to_integer(x: U16, name: HalfName, target: str, rounding: IntegerRounding) -> Integers:
    """``cvt.rXi.INT.f16`` and ``.bf16``; arguments as :func:`float_to_integer`."""
    return float_to_integer(decode(x, name), target, rounding)


def convert_integer(x: Integers, target: str, sat: bool = False) -> Integers:
    """``cvt.INT.INT``: chopped or extended by the type of ``x``; under ``sat`` clamped.

    Raises:
        UnknownName: no such integer type.
    """
    dtype = integer_type(target)
    if sat:
        mine, theirs = np.iinfo(x.dtype), np.iinfo(dtype)
        x = np.clip(x, max(mine.min, theirs.min), min(mine.max, theirs.max))
    return x.astype(dtype)


def _integral(x: Floats, rounding: IntegerRounding) -> Floats:
    return _TO_INTEGRAL[rounding](x)


def _f64_parts(x: Integers) -> tuple[F64, F64]:
    """``x`` as a rounded float64 and its exact error."""
    if x.dtype.itemsize * 8 < _WIDE_BITS:
        return x.astype(np.float64), np.zeros(x.shape)
    low = (x & x.dtype.type(0xFFFFFFFF)).astype(np.float64)
    high = (x >> x.dtype.type(32)).astype(np.float64) * 2.0**32
    return two_sum(high, low)


def _odd_f64(x: Integers) -> F64:
    return to_odd(*_f64_parts(x))
