"""f16 and bf16 arithmetic of PTX, bit for bit (PTX ISA 9.7.4), and its mixes with f32 (9.7.5).

Values are uint16 codes of any shape. A packed ``f16x2`` or ``bf16x2`` register is the same code
seen through ``register.view(np.uint16)``. A NaN that is made has the bits 0x7FFF.
"""

from __future__ import annotations

import numpy as np

from fa4gen.numerics.arrays import F32, F64, NAN16, U16, HalfName, Mask, Rounding, some
from fa4gen.numerics.encode import encode, to_odd, two_sum
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import add32, fma32
from fa4gen.numerics.minmax import flush16

_SIGN = np.array(0x8000, np.uint16)
_MANTISSA, _LEAST_NORMAL, _SHIFT = 10, 0x0400, 8


def add16(a: U16, b: U16, name: HalfName, ftz: bool = False, sat: bool = False) -> U16:
    """``a + b``, to nearest; ``ftz`` and ``sat`` exist for f16 only."""
    return _finish(to_odd(*two_sum(_wide(a, name, ftz), _wide(b, name, ftz))), name, ftz, sat)


def sub16(a: U16, b: U16, name: HalfName, ftz: bool = False, sat: bool = False) -> U16:
    """``a - b``, to nearest."""
    return add16(a, b ^ np.uint16(0x8000), name, ftz, sat)


def mul16(a: U16, b: U16, name: HalfName, ftz: bool = False, sat: bool = False) -> U16:
    """``a * b``, to nearest."""
    return _finish(_wide(a, name, ftz) * _wide(b, name, ftz), name, ftz, sat)


def fma16(
    a: U16, b: U16, c: U16, name: HalfName, ftz: bool = False, sat: bool = False, relu: bool = False
) -> U16:
    """``a * b + c``, rounded once to nearest; ``relu`` makes a negative result +0."""
    product = _wide(a, name, ftz) * _wide(b, name, ftz)
    total = to_odd(*two_sum(product, _wide(c, name, ftz)))
    result = _finish(total, name, ftz, sat)
    if relu:
        result = np.where((result >> 15 == 1) & (result & 0x7FFF <= _infinity(name)), 0, result)
    return result.astype(np.uint16, copy=False)


def neg16(x: U16, name: HalfName) -> U16:
    """``-x``; a NaN becomes the canonical one (an H200, 2026-11-21; SASS HADD2 and HFMA2)."""
    return np.where(x & 0x7FFF > _infinity(name), NAN16, x ^ np.uint16(0x8000))


def abs16(x: U16, name: HalfName) -> U16:
    """``x`` without its sign; a NaN becomes the canonical one."""
    return np.where(x & 0x7FFF > _infinity(name), NAN16, x & np.uint16(0x7FFF))


def add_mixed(a: U16, c: F32, name: HalfName, rounding: Rounding = "rn", sat: bool = False) -> F32:
    """``add.f32.f16`` and ``add.f32.bf16``: ``a + c`` in f32, ``a`` widened exactly."""
    return add32(decode(a, name), c, rounding, sat=sat)


def sub_mixed(a: U16, c: F32, name: HalfName, rounding: Rounding = "rn", sat: bool = False) -> F32:
    """``sub.f32.f16`` and ``sub.f32.bf16``: ``a - c`` in f32, ``a`` widened exactly."""
    return add32(decode(a, name), -c, rounding, sat=sat)


def fma_mixed(
    a: U16, b: U16, c: F32, name: HalfName, rounding: Rounding = "rn", sat: bool = False
) -> F32:
    """``fma.f32.f16`` and ``fma.f32.bf16``: ``a * b + c`` in f32, rounded once."""
    return fma32(decode(a, name), decode(b, name), c, rounding, sat=sat)


def _wide(x: U16, name: HalfName, ftz: bool) -> F64:
    return decode(flush16(x) if ftz else x, name).astype(np.float64)


def _finish(x: F64, name: HalfName, ftz: bool, sat: bool) -> U16:
    code = encode(x, name).astype(np.uint16)
    if ftz:
        code = flush16(np.where(_tiny(x, code), code & _SIGN, code))
    if not sat:
        return code
    one = _one(name)
    clamped = np.where(code >> 15 == 1, 0, np.minimum(code, one))
    return np.where(code == NAN16, 0, clamped).astype(np.uint16)


def _tiny(x: F64, code: U16) -> Mask:
    """Where ``x``, which f16 rounds to ``code``, is subnormal if exponents have no lower bound.

    As :func:`fa4gen.numerics.ieee.round_and_flush` does for f32.
    """
    doubtful: Mask = code & ~_SIGN == _LEAST_NORMAL
    if not some(doubtful):
        return doubtful
    scaled = encode(np.where(doubtful, x, 0.0) * 2.0**_SHIFT, "f16")
    return np.asarray(doubtful & (scaled & 0x7FFF < _LEAST_NORMAL + (_SHIFT << _MANTISSA)))


def _infinity(name: HalfName) -> int:
    return 0x7C00 if name == "f16" else 0x7F80


def _one(name: HalfName) -> np.uint16:
    return np.uint16(0x3C00 if name == "f16" else 0x3F80)
