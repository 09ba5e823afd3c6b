"""``min`` and ``max`` of PTX (PTX ISA 9.7.3.11, 9.7.3.12, 9.7.4.8, 9.7.4.9).

A NaN loses against a number, two NaN make the canonical one, and -0 is less than +0. Under ``.NaN``
any NaN makes the canonical one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fa4gen.numerics.arrays import F32, NAN16, NAN32, U16, HalfName, some
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical, flush

_SIGN16 = np.array(0x8000, np.uint16)
_MAGNITUDE16 = np.array(0x7FFF, np.uint16)
_EXPONENT16 = np.array(0x7C00, np.uint16)
_SIGN32 = np.array(0x80000000, np.uint32)


def max32(a: F32, b: F32, nan: bool = False, ftz: bool = False, xorsign_abs: bool = False) -> F32:
    """The larger value.

    Args:
        a, b: any shape.
        nan: ``.NaN``.
        ftz: ``.ftz``, of the inputs.
        xorsign_abs: ``.xorsign.abs``: the larger magnitude, with the product of the signs.
    """
    if ftz:
        a, b = flush(a), flush(b)
    if xorsign_abs:
        return _with_sign_of_product(max32(np.abs(a), np.abs(b), nan), a, b)
    result = np.maximum(a, b)
    if np.count_nonzero(result) != result.size:
        # Values that are equal have equal bits, unless they are zeros of either sign.
        both = (a.view(np.uint32) & b.view(np.uint32)).view(np.float32)
        result = np.where(a == b, both, result)
    return _nan_rule(result, a, b, nan)


def min32(a: F32, b: F32, nan: bool = False, ftz: bool = False, xorsign_abs: bool = False) -> F32:
    """The smaller value; arguments as :func:`max32`."""
    if ftz:
        a, b = flush(a), flush(b)
    if xorsign_abs:
        return _with_sign_of_product(min32(np.abs(a), np.abs(b), nan), a, b)
    result = np.minimum(a, b)
    if np.count_nonzero(result) != result.size:
        either = (a.view(np.uint32) | b.view(np.uint32)).view(np.float32)
        result = np.where(a == b, either, result)
    return _nan_rule(result, a, b, nan)


def minmax16(
    operation: Literal["min", "max"],
    a: U16,
    b: U16,
    name: HalfName,
    nan: bool = False,
    ftz: bool = False,
) -> U16:
    """``min`` or ``max`` of f16 or bf16 codes; ``xorsign`` is :func:`xorsign16` of the result.

    Args:
        operation: ``min`` or ``max``.
        a, b: uint16 codes, any shape.
        name: ``f16`` or ``bf16``.
        nan: ``.NaN``.
        ftz: ``.ftz``, of the inputs (f16 only).
    """
    if ftz:
        a, b = flush16(a), flush16(b)
    x, y = decode(a, name), decode(b, name)
    # Of two equal values with different codes, +0 has the smaller code.
    above, below = (x > y) | ((x == y) & (a < b)), (x < y) | ((x == y) & (a > b))
    first = above if operation == "max" else below
    x_nan, y_nan = np.isnan(x), np.isnan(y)
    result = np.where(first | y_nan, a, b)
    return np.where((x_nan | y_nan) if nan else (x_nan & y_nan), NAN16, result)


def xorsign16(magnitude: U16, a: U16, b: U16) -> U16:
    """``.xorsign.abs`` of f16 and bf16: a ``minmax16`` of magnitudes, signed like ``a * b``."""
    signed = (magnitude & _MAGNITUDE16) | ((a ^ b) & _SIGN16)
    return np.where(magnitude == NAN16, NAN16, signed)


def magnitude16(x: U16) -> U16:
    """The code ``x`` without its sign, f16 or bf16."""
    return x & _MAGNITUDE16


def flush16(x: U16) -> U16:
    """f16 codes with subnormals replaced by zero of their sign."""
    return np.where((x & _EXPONENT16) == 0, x & _SIGN16, x)


def _nan_rule(result: F32, a: F32, b: F32, nan: bool) -> F32:
    """``result``, which is NaN where either input is, with the rule for NaN applied.

    ``np.fmax`` would do, but what it makes of a signalling NaN depends on the length of the array.
    """
    undecided = np.isnan(result)
    if not some(undecided):
        return result
    if not nan:
        result = np.where(np.isnan(a), b, np.where(np.isnan(b), a, result))
    return canonical(result)


def _with_sign_of_product(magnitude: F32, a: F32, b: F32) -> F32:
    sign = (a.view(np.uint32) ^ b.view(np.uint32)) & _SIGN32
    signed = (magnitude.view(np.uint32) | sign).view(np.float32)
    return np.where(np.isnan(magnitude), NAN32, signed)
