"""``2 ** x`` by a straight line through each octave, as kernels make it of the bits of ``x``.

A float32 is an exponent and a fraction side by side, so ``x`` itself, written in fixed point at
that place, *is* a line from each power of two to the next: whole octaves are the exponent, the rest
of ``x`` the fraction. Two FMA and a shift do it, and no polynomial of the rest is needed. Source:
Schraudolph, A fast, compact approximation of the exponential function, Neural Computation 11, 1999.

The line is exact at powers of two and above ``2 ** x`` between them, up to 6.1 %; half a step of
e4m3, what rounding P may cost, is 6.25 %. Moved down by 0.056 octaves its mean would be right, as
there, but no longer the weight of a row's own maximum: a row that one key dominates would be off by
3 % where it is exact now.
"""

from __future__ import annotations

import numpy as np

from fa4gen.numerics.arrays import F32

STEPS_LOG2 = 15
"""Fixed point: 2 ** 15 steps an octave. ``1.5 * 2**23`` leaves 22 bits on either side of it, enough
for 128 octaves."""

MAX_RELATIVE_ERROR = 6.149e-2
"""Largest relative error, from -125 to 100, roundings of the fixed point included."""

LEAST_EXPONENT = -125.0
"""Below this ``x`` is clamped; the result is a negligible positive number."""

_ROUNDING = np.float32(1.5 * 2**23)


def exp2_line(x: F32) -> F32:
    """``2 ** x`` by the line, bit for bit what the Blackwell kernels compute.

    Hopper's clamp ``x`` in the product that scales it (``fma.sat``), at -112 instead of -125, and
    may differ by a step.

    Args:
        x: up to 100; -inf is clamped.
    """
    clamped = np.maximum(x, np.float32(LEAST_EXPONENT)).astype(np.float64)
    fixed = (clamped * 2.0**STEPS_LOG2 + float(_ROUNDING)).astype(np.float32)
    moved = fixed.view(np.uint32) << np.uint32(23 - STEPS_LOG2)
    return (moved + np.uint32(line_bias(0.0))).view(np.float32)


def line_bias(start: float) -> int:
    """What is added to the shifted bits of ``1.5 * 2**23 + steps``, modulo ``2 ** 32``.

    Args:
        start: the ``x`` at which the steps are 0.
    """
    rounding = int(_ROUNDING.view(np.uint32)) << (23 - STEPS_LOG2)
    return (round((127.0 + start) * 2**23) - rounding) % 2**32
