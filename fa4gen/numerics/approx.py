"""Models of the approximate f32 instructions (PTX ISA 9.7.3.7, .8, .13 to .23, 9.7.4.10, .11).

Those of :data:`KNOWN` are what ptxas 13.0 makes of MUFU for sm_90, bit for bit
(:mod:`fa4gen.numerics.mufu`); whether Blackwell has the same tables is not known. Of the others the
tables are not: their model is the correctly rounded result (of float64's libm, which errs too
little to matter but once in about 2^28 times), with the special cases of the ISA, and hardware may
differ by :data:`BOUNDS`. ``ftz`` makes subnormal inputs and results zero with their sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fa4gen.numerics import mufu
from fa4gen.numerics.arrays import F32, F64, U16, HalfName, Mask, some
from fa4gen.numerics.encode import encode
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical, flush, mul32


@dataclass(frozen=True, slots=True)
class Bound:
    """How far hardware may be from the correctly rounded result: the largest of three.

    Attributes:
        ulp: Units in the last place of the model's result.
        relative: Parts of the model's result.
        absolute: As it is.
    """

    ulp: int = 0
    relative: float = 0.0
    absolute: float = 0.0

    def holds(self, model: F64, measured: F64, mantissa: int = 23, lowest: int = -126) -> Mask:
        """Where two results are as close as that; infinities and NaN have to be the same.

        Args:
            model, measured: Values of one shape.
            mantissa, lowest: Bits of the results' mantissa, and their least normal exponent.
        """
        usual = np.isfinite(model) & np.isfinite(measured)
        size = np.abs(np.where(usual, model, 0.0))
        exponent = np.maximum(np.where(size > 0, np.frexp(size)[1] - 1, lowest), lowest)
        unit = self.ulp * np.ldexp(1.0, exponent - mantissa)
        room = np.maximum(np.maximum(unit, self.relative * size), self.absolute)
        same = (model == measured) | (np.isnan(model) & np.isnan(measured))
        distance = np.abs(np.where(usual, model, 0.0) - np.where(usual, measured, 0.0))
        return np.asarray(same | (usual & (distance <= room)))


BOUNDS = {
    "ex2": Bound(ulp=2),
    "lg2": Bound(ulp=2, absolute=2.0**-22),
    "rcp": Bound(ulp=1),
    "rsqrt": Bound(ulp=2),
    "sqrt": Bound(ulp=1),
    "sin": Bound(absolute=2.0**-21),
    "cos": Bound(absolute=2.0**-21),
    "tanh": Bound(relative=2.0**-16),
    "div": Bound(ulp=2),
    "ex2.half": Bound(ulp=1),
    "tanh.half": Bound(ulp=1),
    "rcp.f64": Bound(ulp=1),
    "rsqrt.f64": Bound(ulp=2),
}
"""By function: what was recorded of an H200, 2026-11-21 (``sweep/*`` of tests/emulator/hopper),
rounded up, and for ``div`` the ISA's. Results of ``.f64`` have 20 bits of mantissa."""

KNOWN = frozenset(BOUNDS) - {"sin", "cos", "tanh", "tanh.half"}
"""Functions whose bits are those of that recording."""

_EX2_RANGE, _UP_BITS = np.array(126, np.float32), np.array(24, np.float32)
_TURN = np.array(0x3E22F983, np.uint32).view(np.float32)
_TURN_BITS, _HALF_TURN = 2.0**25, 0.5
_HUGE, _LEAST = np.array(2.0**126, np.float32), np.array(2.0**-126, np.float32)
_UP, _ROOT_UP = np.array(2.0**24, np.float32), np.array(2.0**12, np.float32)
_QUARTER, _HALF, _ONE = (np.array(value, np.float32) for value in (0.25, 0.5, 1))
_F16_INFINITY = 65536.0


def ex2(x: F32, ftz: bool = False) -> F32:
    """``2 ** x``. A subnormal gives 1, -inf gives +0.

    A result that may be subnormal is the square of another one.
    """
    low = x < -_EX2_RANGE
    if ftz or not some(low):
        return mufu.ex2(x)
    root = mufu.ex2(np.where(low, x * _HALF, x))
    return np.where(low, root * root, root)


def lg2(x: F32, ftz: bool = False) -> F32:
    """The binary logarithm.

    Zero of either sign (and a subnormal, under ``ftz``) gives -inf, a negative number NaN.
    """
    small = np.abs(x) < _LEAST
    if ftz or not some(small):
        return mufu.lg2(x)
    result = mufu.lg2(np.where(small, x * _UP, x))
    return canonical(np.where(small, result - _UP_BITS, result))


def rcp(x: F32, ftz: bool = False) -> F32:
    """``1 / x``."""
    if ftz:
        return mufu.rcp(x)
    scale = np.where(np.abs(x) < _LEAST, _UP, np.where(np.abs(x) > _HUGE, _QUARTER, _ONE))
    return canonical(mufu.rcp(x * scale) * scale)


def sqrt(x: F32, ftz: bool = False) -> F32:
    """The square root."""
    small = np.abs(x) < _LEAST
    if ftz or not some(small):
        return mufu.sqrt(x)
    root = mufu.sqrt(np.where(small, x * _UP, x))
    return canonical(np.where(small, root / _ROOT_UP, root))


def rsqrt(x: F32, ftz: bool = False) -> F32:
    """``1 / sqrt(x)``. A zero gives infinity of its sign."""
    small = np.abs(x) < _LEAST
    if ftz or not some(small):
        return mufu.rsqrt(x)
    root = mufu.rsqrt(np.where(small, x * _UP, x))
    return canonical(np.where(small, root * _ROOT_UP, root))


def sin(x: F32, ftz: bool = False) -> F32:
    """The sine. Infinity gives NaN, a subnormal zero; see :func:`_turns`.

    ``ftz`` changes nothing: ptxas 13.0 makes the same instructions without it.
    """
    sine = _sine_of_turns(_turns(x))
    return canonical(np.where(np.signbit(x), -sine, sine))


def cos(x: F32, ftz: bool = False) -> F32:
    """The cosine. Infinity gives NaN; ``ftz`` as for :func:`sin`."""
    return canonical(_sine_of_turns(np.fmod(_turns(x) + 0.25, 1.0)))


def tanh(x: F32) -> F32:
    """The hyperbolic tangent. Subnormals are kept."""
    return canonical(np.tanh(x.astype(np.float64)).astype(np.float32))


def div(a: F32, b: F32, ftz: bool = False) -> F32:
    """``div.approx``: ``a / b``; hardware within 2 ulp while 2^-126 <= abs(b) <= 2^126.

    For 2^126 < abs(b) < inf it gives 0, or NaN where ``a`` is infinite, since it multiplies by a
    reciprocal that is flushed.
    """
    if ftz:
        return mul32(mufu.rcp(b), a, ftz=True)
    scale = np.where(np.abs(b) < _LEAST, _UP, _ONE)
    return canonical(mufu.rcp(b * scale) * (a * scale))


def div_full(a: F32, b: F32, ftz: bool = False) -> F32:
    """``div.full``: ``a / b``; hardware within 2 ulp everywhere."""
    scale = np.where(np.abs(b) > _HUGE, _QUARTER, _ONE)
    if ftz:
        return mul32(mufu.rcp(b * scale), mul32(a, scale, ftz=True), ftz=True)
    scale = np.where(np.abs(b) < _LEAST, _UP, scale)
    return canonical(mufu.rcp(b * scale) * (a * scale))


def ex2_half(x: U16, name: HalfName, ftz: bool = False) -> U16:
    """``ex2.approx`` of f16 or bf16 codes: the result of f32, cut.

    Args:
        x: uint16 codes.
        name: ``f16`` or ``bf16``.
        ftz: subnormal inputs count as zero, which changes nothing here; subnormal results become
            zero.
    """
    result = mufu.ex2(decode(x, name).astype(np.float32))
    if name == "f16":
        result = np.where(result >= _F16_INFINITY, np.float32(np.inf), result)
    least = 2.0**-14 if name == "f16" and ftz else 0.0
    kept = np.where(result < least, np.float32(0), result).astype(np.float64)
    return encode(kept, name, "rz").astype(np.uint16)


def tanh_half(x: U16, name: HalfName) -> U16:
    """``tanh.approx`` of f16 or bf16 codes."""
    return encode(np.tanh(decode(x, name).astype(np.float64)), name).astype(np.uint16)


def _turns(x: F32) -> F64:
    """What the table of sines is asked for: a part of a turn, of the magnitude of ``x``.

    ptxas 13.0 multiplies by a float next to 1 / (2 pi), toward zero (SASS FMUL.RZ and MUFU.SIN), so
    large angles are far off. The part of a turn is cut, to 25 bits as far as an H200 shows.
    """
    turns = np.abs(flush(mul32(x, _TURN, "rz"))).astype(np.float64)
    return np.asarray(np.trunc((turns - np.trunc(turns)) * _TURN_BITS) / _TURN_BITS)


def _sine_of_turns(turns: F64) -> F32:
    """From 0 to 1; folded to a quarter of a turn, so that multiples of one are exact."""
    folded = np.fmod(turns, _HALF_TURN)
    sine = np.sin(2 * np.pi * np.minimum(folded, _HALF_TURN - folded))
    return np.where(turns < _HALF_TURN, sine, 0.0 - sine).astype(np.float32)
