"""Models of the approximate f32 instructions (PTX ISA 9.7.3.7, .8, .13 to .23, 9.7.4.10, .11).

The hardware's tables are not public. The model is the correctly rounded result (of float64's libm,
which errs too little to matter but once in about 2^28 times), with the special cases of the ISA;
hardware may differ by the bound that each function states. ``ftz`` makes subnormal inputs and
results zero with their sign.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fa4gen.numerics.arrays import F32, F64, U16, HalfName, some
from fa4gen.numerics.encode import encode
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical, div32, flush, rcp32, sqrt32

_HUGE = np.array(2.0**126, np.float32)
_ZERO = np.array(0, np.float32)


def ex2(x: F32, ftz: bool = False) -> F32:
    """``2 ** x``; hardware within 2 ulp. A subnormal gives 1, -inf gives +0."""
    # The float64 result of a subnormal already rounds to 1: no need to flush the input.
    result = canonical(np.exp2(x.astype(np.float64)).astype(np.float32))
    return flush(result) if ftz else result


def lg2(x: F32, ftz: bool = False) -> F32:
    """The binary logarithm; hardware within 2^-22, absolute in (0.5, 2), else relative.

    Zero of either sign (and a subnormal, under ``ftz``) gives -inf, a negative number NaN.
    """
    return _through_f64(np.log2, x, ftz)


def rcp(x: F32, ftz: bool = False) -> F32:
    """``1 / x``; hardware within 1 ulp."""
    return rcp32(x, ftz=ftz)


def sqrt(x: F32, ftz: bool = False) -> F32:
    """The square root; hardware within a relative 2^-23."""
    return sqrt32(x, ftz=ftz)


def rsqrt(x: F32, ftz: bool = False) -> F32:
    """``1 / sqrt(x)``; hardware within a relative 2^-22.9. A zero gives infinity of its sign."""
    return _through_f64(_rsqrt, x, ftz)


def sin(x: F32, ftz: bool = False) -> F32:
    """The sine; hardware within an absolute 2^-20.5 in [-2 pi, 2 pi]. Infinity gives NaN."""
    return _through_f64(np.sin, x, ftz)


def cos(x: F32, ftz: bool = False) -> F32:
    """The cosine; hardware within an absolute 2^-20.5 in [-2 pi, 2 pi]. Infinity gives NaN."""
    return _through_f64(np.cos, x, ftz)


def tanh(x: F32) -> F32:
    """The hyperbolic tangent; hardware within a relative 2^-11. Subnormals are kept."""
    return _through_f64(np.tanh, x, False)


def div(a: F32, b: F32, ftz: bool = False) -> F32:
    """``div.approx``: ``a / b``; hardware within 2 ulp while 2^-126 <= abs(b) <= 2^126.

    For 2^126 < abs(b) < inf it gives 0, or NaN where ``a`` is infinite, since it multiplies by a
    reciprocal that is flushed.
    """
    quotient = div32(a, b, ftz=ftz)
    huge = (np.abs(b) > _HUGE) & np.isfinite(b)
    if not some(huge):
        return quotient
    flushed = np.copysign(_ZERO, b)
    return canonical(np.where(huge, a * flushed, quotient))


def div_full(a: F32, b: F32, ftz: bool = False) -> F32:
    """``div.full``: ``a / b``; hardware within 2 ulp everywhere."""
    return div32(a, b, ftz=ftz)


def ex2_half(x: U16, name: HalfName, ftz: bool = False) -> U16:
    """``ex2.approx`` of f16 codes (within a relative 2^-9.9) or bf16 ones (2^-7).

    Args:
        x: uint16 codes.
        name: ``f16`` or ``bf16``.
        ftz: subnormal inputs count as zero, which changes nothing here; subnormal results become
            zero.
    """
    return _half(np.exp2, x, name, ftz)


def tanh_half(x: U16, name: HalfName) -> U16:
    """``tanh.approx`` of f16 codes (within an absolute 2^-10.987) or bf16 ones (2^-8)."""
    return _half(np.tanh, x, name, False)


def _through_f64(function: Callable[[F64], F64], x: F32, ftz: bool) -> F32:
    result = function((flush(x) if ftz else x).astype(np.float64)).astype(np.float32)
    return canonical(flush(result) if ftz else result)


def _half(function: Callable[[F64], F64], x: U16, name: HalfName, ftz: bool) -> U16:
    result = function(decode(x, name).astype(np.float64))
    if ftz:
        result = np.where(np.abs(result) < (2.0**-14 if name == "f16" else 2.0**-126), 0, result)
    return encode(result, name).astype(np.uint16)


def _rsqrt(x: F64) -> F64:
    root: F64 = 1 / np.sqrt(x)
    return root
