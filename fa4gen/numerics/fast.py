"""The commonest float instructions of attention kernels, without modifiers: the same bits, faster.

Arrays are one-dimensional: the lanes of a warp, or twice as many for packed types. What is rare
(NaN, zeros of either sign, ties, subnormals) is looked for cheaply, with false alarms, and left to
:mod:`fa4gen.numerics.ieee` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any

import ml_dtypes
import numpy as np

from fa4gen.numerics import mufu
from fa4gen.numerics.arrays import F32, F64, U16, U32, HalfName, some
from fa4gen.numerics.ieee import add32, canonical, fma32
from fa4gen.numerics.minmax import max32, min32
from fa4gen.numerics.narrow import to_half

_BELOW_ULP = np.array((1 << 29) - 1, np.int64)
_HALF_ULP = np.array(1 << 28, np.int64)
"""In the bits of a float64: what float32 drops, and its highest bit."""
_THREE_ZEROS = b"\x00\x00\x00"
_ZERO = np.array(0, np.float32)
_LEAST_EXPONENT = -126.0
_LEAST, _INFINITY = 2.0**_LEAST_EXPONENT, float("inf")
"""The smallest normal float32, and what is beyond the largest."""
_PAIR = 2
_HALVES: dict[HalfName, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


def clean(x: F32) -> F32:
    """``x`` with every NaN replaced by 0x7FFFFFFF; a little faster than ``ieee.canonical``."""
    # A NaN counts as the largest element.
    return canonical(x) if isnan(x.item(x.argmax())) else x


def fma32_rn(a: F32, b: F32, c: F32) -> F32:
    """``fma.rn.f32``: ``a * b + c``, rounded once.

    The product is exact in float64, and rounding the sum twice, to float64 and to float32, goes
    wrong only where the float64 is inexact and lies halfway between two float32. Then its last
    three bytes are zero, as they are for NaN and for sums with few bits; these get a second look.
    """
    product, addend = a.astype(np.float64), c.astype(np.float64)
    product *= b.astype(np.float64)
    total = product + addend
    result = total.astype(np.float32)
    if _THREE_ZEROS not in total.tobytes():
        return result
    if _exact(total, product, addend):
        return clean(result)
    halfway = (total.view(np.int64) & _BELOW_ULP) == _HALF_ULP
    size = np.abs(result)
    if some(halfway) or not size.item(size.argmin()) >= _LEAST:
        return fma32(a, b, c)
    return result


def fma32_rn_short(a: F32, b: F32, c: F32) -> F32:
    """:func:`fma32_rn` for factors of at most 12 bits: values of f16 or bf16."""
    product = a * b
    size = np.abs(product)
    # In the range of normal numbers the product is exact in float32.
    if not (size.item(size.argmin()) >= _LEAST and size.item(size.argmax()) < _INFINITY):
        return fma32_rn(a, b, c)
    return clean(product + c)


def _exact(total: F64, a: F64, b: F64) -> bool:
    """Whether ``total`` is ``a + b`` in every element, without rounding.

    Taking the larger one away again is exact, so what is left tells; which one is larger differs
    from element to element.
    """
    return (total - a).tobytes() == b.tobytes() and (total - b).tobytes() == a.tobytes()


def add32_rm(a: F32, b: F32) -> F32:
    """``add.rm.f32``: toward -infinity, as the floor of software exponentials is taken."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    total = wide_a + wide_b
    result = total.astype(np.float32)
    # Quick where all is positive and the float64 sum exact.
    if not result.item(result.argmin()) > 0 or not _exact(total, wide_a, wide_b):
        return add32(a, b, "rm")
    above = (result.astype(np.float64) > total).astype(np.int32)
    return (result.view(np.int32) - above).view(np.float32)


def extreme32(name: str, sources: int) -> Callable[..., F32]:
    """``max.f32`` or ``min.f32`` of two or three sources."""
    choose = np.fmax if name == "max" else np.fmin
    exact = max32 if name == "max" else min32

    def of_two(a: F32, b: F32) -> F32:
        result = choose(a, b)
        return clean(result) if np.count_nonzero(result) == result.size else exact(a, b)

    def of_three(a: F32, b: F32, c: F32) -> F32:
        # Which zero a pair gives is of no account unless the whole result is zero.
        result = choose(choose(a, b), c)
        return clean(result) if np.count_nonzero(result) == result.size else exact(exact(a, b), c)

    return of_two if sources == _PAIR else of_three


def ex2_ftz(x: F32) -> F32:
    """``ex2.approx.ftz.f32``, as :func:`fa4gen.numerics.mufu.ex2` has it."""
    # A NaN counts as the smallest element, too.
    if x.item(x.argmin()) >= _LEAST_EXPONENT and x.item(x.argmax()) < -_LEAST_EXPONENT:
        return mufu.exponential(x).astype(np.int32).view(np.float32)
    return mufu.ex2(x)


def half(x: F32, name: HalfName) -> U16:
    """``cvt.rn.f16.f32`` or ``cvt.rn.bf16.f32``."""
    if isnan(x.item(x.argmax())):
        return to_half(x, name)
    return x.astype(_HALVES[name]).view(np.uint16)


def half_pair(upper: F32, lower: F32, name: HalfName) -> U32:
    """``cvt.rn.f16x2.f32`` or ``cvt.rn.bf16x2.f32``."""
    both = np.empty(2 * upper.size, np.float32)
    both[0::2], both[1::2] = lower, upper
    if isnan(both.item(both.argmax())):
        return to_half(both, name).view(np.uint32)
    return both.astype(_HALVES[name]).view(np.uint32)
