"""What one tensor-core instruction computes: D = A B^T + C.

PTX leaves the order and precision of the sums open (PTX ISA 9.7.14, 9.7.15). Two models are here:
:func:`dot_f64`, fast, rounds once at the end; :func:`fused_dot` follows the truncating sum that was
found by experiments on hardware (MMA-Sim, arXiv 2511.10909, github.com/microsoft/MMA-Sim). Its
authors report equal bits for wgmma and one-CTA tcgen05; cta_group::2 and .ws were not covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fa4gen.numerics.arrays import F32, F64, NAN32
from fa4gen.numerics.encode import encode
from fa4gen.numerics.formats import decode, float_format
from fa4gen.numerics.ieee import canonical, round_f64_to_f32
from fa4gen.numerics.narrow import to_half

_NARROW_BITS = 8
_ZERO_EXPONENT = -126
_F32_OVERFLOW = 2.0**128
_PLUS_ZERO = np.array(0, np.float32)
"""Added, it leaves all but -0 as it is."""


@dataclass(frozen=True, slots=True)
class Accumulation:
    """How an instruction adds up.

    Every product keeps its exact significand and the sum of its factors' exponents, whether or not
    the significand reaches 2. Products and C are aligned to the largest exponent, cut toward zero
    to ``fraction_bits`` below it, and added exactly.
    """

    fraction_bits: int
    a_format: str
    b_format: str
    output: Literal["f32", "e8m13", "f16"] = "f32"
    """f32 cut toward zero; f32 cut to 13 mantissa bits; f16 rounded to nearest even."""


def wgmma_accumulation(a_format: str, b_format: str, output: Literal["f32", "f16"]) -> Accumulation:
    """Of wgmma on sm_90: 25 bits, but for 8-bit formats 13 bits and an f32 of 13 mantissa bits."""
    if float_format(a_format).bits > _NARROW_BITS:
        return Accumulation(25, a_format, b_format, output)
    return Accumulation(13, a_format, b_format, "f16" if output == "f16" else "e8m13")


def tcgen05_accumulation(
    a_format: str, b_format: str, output: Literal["f32", "f16"]
) -> Accumulation:
    """Of tcgen05.mma on sm_100 (kinds f16, tf32, f8f6f4), and of mma.sync on sm_90 and sm_100.

    For ``mma.sync`` of 8-bit floats see :func:`mma_of_bytes`.
    """
    return Accumulation(25, a_format, b_format, output)


def dot_f64(a: F32, b: F32, c: F32) -> F32:
    """``a @ b.T + c`` in float64, rounded once to nearest.

    Args:
        a: ``(M, K)`` values.
        b: ``(N, K)`` values.
        c: ``(M, N)``.

    Returns:
        ``(M, N)`` float32; NaN is 0x7FFFFFFF.
    """
    product = a.astype(np.float64) @ b.astype(np.float64).T
    return canonical((product + c).astype(np.float32))


def fused_dot(a: F32, b: F32, c: F32, how: Accumulation) -> F32:
    """``a @ b.T + c`` with the truncating sum of tensor cores; see :class:`Accumulation`.

    K must be that of one instruction, since there is one sum per instruction. A zero factor counts
    with the exponent -126, as in the published model.

    Args:
        a: ``(M, K)`` values, exact in ``how.a_format``.
        b: ``(N, K)`` values, exact in ``how.b_format``.
        c: ``(M, N)``; exact in f16 where the output is f16.

    Returns:
        ``(M, N)`` float32. NaN is 0x7FFFFFFF (0x7FFF as f16). A sum of 2^128 and more is infinite.
        A zero is +0, whatever the signs of all that it is the sum of (an H200, 2026-11-21).
    """
    c_format = "f16" if how.output == "f16" else "f32"
    a_exponent = _exponents(a, float_format(how.a_format).min_exponent)
    b_exponent = _exponents(b, float_format(how.b_format).min_exponent)
    largest = _exponents(c, float_format(c_format).min_exponent)
    for k in range(a.shape[1]):
        np.maximum(largest, a_exponent[:, k, None] + b_exponent[None, :, k], out=largest)
    scale = np.ldexp(1.0, how.fraction_bits - largest)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        total = np.trunc(c * scale)
        for k in range(a.shape[1]):
            total += np.trunc(wide_a[:, k, None] * wide_b[None, :, k] * scale)
        total /= scale
    special = ~np.isfinite(total)
    if special.any():
        total[special] = _special_sum(wide_a, wide_b, c)[special]
    return _round_output(total, how.output)


def mma_of_bytes(a: F32, b: F32, c: F32, output: Literal["f32", "f16"]) -> F32:
    """``a @ b.T + c`` as ``mma.sync`` adds up products of 8-bit floats.

    ptxas 13.0 makes two products of f16 of it, for sm_90a and for sm_100a (SASS
    F2FP.F16.E4M3.UNPACK_B and HMMA): one of the elements with ``k % 4 < 2``, starting from zero,
    and one of the others that starts from its result. C is added in the end (FADD or HADD2), to
    nearest. An H200 gives equal bits (2026-11-21, ``matrix/mma-sums-*`` of
    tests/emulator/hopper).

    Args and result as of :func:`fused_dot`.
    """
    how = Accumulation(25, "f16", "f16", output)
    first = np.arange(a.shape[1]) // 2 % 2 == 0
    total = np.zeros_like(c)
    for half in (first, ~first):
        total = fused_dot(a[:, half], b[:, half], total, how)
    with np.errstate(invalid="ignore", over="ignore"):
        if output == "f32":
            return canonical(total + c)
        # f32 has 2 * 11 + 2 bits: rounding to it and then to f16 is rounding once.
        return decode(to_half(total + c, "f16"), "f16")


def _exponents(x: F32, lowest: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Exponents as an aligner sees them: those of subnormals are the format's least."""
    finite = np.where(np.isfinite(x), x, 1).astype(np.float64)
    exponent = np.maximum(np.frexp(finite)[1] - 1, lowest)
    return np.where(finite == 0, _ZERO_EXPONENT, exponent).astype(np.int32)


def _special_sum(a: F64, b: F64, c: F32) -> F64:
    """The sum where an infinity or a NaN takes part: what IEEE arithmetic makes of it."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = c.astype(np.float64)
        for k in range(a.shape[1]):
            total = total + a[:, k, None] * b[None, :, k]
    return total


def _round_output(total: F64, output: Literal["f32", "e8m13", "f16"]) -> F32:
    if output == "f16":
        return decode(encode(total, "f16").astype(np.uint16), "f16") + _PLUS_ZERO
    result = round_f64_to_f32(total, "rz")
    result = np.where(np.abs(total) >= _F32_OVERFLOW, total, result).astype(np.float32)
    if output == "e8m13":
        bits = result.view(np.uint32) & np.uint32(0xFFFFFC00)
        result = np.where(np.isnan(result), NAN32, bits.view(np.float32))
    return canonical(result + _PLUS_ZERO)
