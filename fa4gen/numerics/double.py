"""f64 arithmetic with every rounding mode of PTX (PTX ISA 9.7.3), by exact rationals.

NumPy rounds to nearest; the other modes work a lane at a time, since kernels hardly use them.
Arguments are float64 arrays of one shape.

An operand that is NaN becomes the result, made quiet: of two the second, but the dividend before
the divisor, and an addend before a factor unless both factors are NaN. What is invalid gives
0xFFF8000000000000. So it was recorded of an H200, 2026-11-21 (``float/nan-*-f64`` of
tests/emulator/hopper). ptxas 13.0 exchanges factors, so an fma whose NaN are a factor and the
addend may give either on hardware.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from fa4gen.numerics.arrays import F64, Rounding
from fa4gen.numerics.ieee import fma64 as fma64_rn

_QUIET = np.uint64(1 << 51)
_INVALID = np.uint64(0xFFF8 << 48)


def quiet(result: F64, *operands: F64) -> F64:
    """``result`` with each NaN replaced by the first of ``operands`` that is one, made quiet, or
    by the NaN of what is invalid."""
    nan = np.isnan(result)
    if not nan.any():
        return result
    found = np.full(result.shape, _INVALID)
    for operand in reversed(operands):
        found = np.where(np.isnan(operand), operand.view(np.uint64) | _QUIET, found)
    return np.where(nan, found, result.view(np.uint64)).view(np.float64)


def add64(a: F64, b: F64, rounding: Rounding = "rn") -> F64:
    """``a + b`` (PTX ISA 9.7.3.3)."""
    total = a + b if rounding == "rn" else fma64(a, np.ones_like(a), b, rounding)
    return quiet(total, b, a)


def sub64(a: F64, b: F64, rounding: Rounding = "rn") -> F64:
    """``a - b`` (PTX ISA 9.7.3.4)."""
    return quiet(add64(a, -b, rounding), b, a)


def mul64(a: F64, b: F64, rounding: Rounding = "rn") -> F64:
    """``a * b`` (PTX ISA 9.7.3.5)."""
    product = quiet(a * b, b, a)
    if rounding == "rn":
        return product
    return _lanewise(lambda x, y: Fraction(x) * Fraction(y), product, rounding, a, b)


def fma64(a: F64, b: F64, c: F64, rounding: Rounding = "rn") -> F64:
    """``a * b + c``, rounded once (PTX ISA 9.7.3.6)."""
    factors = np.where(np.isnan(a) & np.isnan(b), b, c)
    nearest = quiet(fma64_rn(a, b, c), factors, c, b, a)
    if rounding == "rn":
        return nearest
    result = _lanewise(_fused, nearest, rounding, a, b, c)
    if rounding == "rm":
        # An exact zero is -0 under rm, unless it is the sum of two +0.
        lanes = zip(*(s.ravel().tolist() for s in (a, b, c)), strict=True)
        exact = np.array([all(map(math.isfinite, x)) and _fused(*x) == 0 for x in lanes])
        product = a * b
        both = (product == 0) & (c == 0) & ~np.signbit(product) & ~np.signbit(c)
        result = np.where(exact.reshape(a.shape) & ~both, -0.0, result)
    return result


def div64(a: F64, b: F64, rounding: Rounding = "rn") -> F64:
    """``a / b`` (PTX ISA 9.7.3.8)."""
    quotient = quiet(a / b, a, b)
    if rounding == "rn":
        return quotient
    return _lanewise(_quotient, quotient, rounding, a, b)


def sqrt64(a: F64, rounding: Rounding = "rn") -> F64:
    """The square root (PTX ISA 9.7.3.15)."""
    nearest: F64 = quiet(np.sqrt(a), a)
    if rounding == "rn":
        return nearest
    roots = zip(a.ravel().tolist(), nearest.ravel().tolist(), strict=True)
    found = [_root(x, r, rounding) for x, r in roots]
    return np.array(found, np.float64).reshape(a.shape)


def _lanewise(
    exact: Callable[..., Fraction | None], nearest: F64, rounding: Rounding, *sources: F64
) -> F64:
    """``nearest`` moved to a neighbour where ``rounding`` wants it."""
    lanes = zip(nearest.ravel().tolist(), *(s.ravel().tolist() for s in sources), strict=True)
    found = [
        _toward(rounding, result, exact(*values)) if all(map(math.isfinite, values)) else result
        for result, *values in lanes
    ]
    return np.array(found, np.float64).reshape(nearest.shape)


def _toward(rounding: Rounding, nearest: float, exact: Fraction | None) -> float:
    """The float64 on the side of ``exact`` that ``rounding`` asks for; ``nearest`` is on either."""
    if exact is None or exact == 0:
        return nearest
    above = math.isinf(nearest) and nearest > 0
    below = math.isinf(nearest) and nearest < 0
    if not above and not below:
        above, below = Fraction(nearest) > exact, Fraction(nearest) < exact
    if above and (rounding == "rm" or (rounding == "rz" and exact > 0)):
        return math.nextafter(nearest, -math.inf)
    if below and (rounding == "rp" or (rounding == "rz" and exact < 0)):
        return math.nextafter(nearest, math.inf)
    return nearest


def _fused(a: float, b: float, c: float) -> Fraction:
    return Fraction(a) * Fraction(b) + Fraction(c)


def _quotient(a: float, b: float) -> Fraction | None:
    return Fraction(a) / Fraction(b) if b != 0 else None


def _root(x: float, root: float, rounding: Rounding) -> float:
    if not math.isfinite(root) or root == 0:
        return root
    square, exact = Fraction(root) ** 2, Fraction(x)
    if square > exact and rounding != "rp":
        return math.nextafter(root, 0.0)
    if square < exact and rounding == "rp":
        return math.nextafter(root, math.inf)
    return root
