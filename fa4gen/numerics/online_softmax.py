"""Online softmax attention of one head in NumPy, step by step as the forward kernels compute it.

Notation: Q ``(seqlen_q, head_dim)``, K ``(seqlen_k, head_dim)``, V ``(seqlen_k, head_dim_v)``, all
16-bit or e4m3 values held as float32; S the scores; P the weights, relative to the row maximum in
use.

What a kernel decides is here as it decides it: KV blocks from last to first, float32 scores, the
maximum that goes stale under a rescale threshold, ``scale * S - scale * max`` in one FMA,
polynomial or MUFU column by column, P rounded to its type before PV (e4m3: lifted first), O
rescaled block by block. What hardware leaves open is idealised: the tensor core's products and sums
are rounded to float32 once a block, the MUFU is the model of :mod:`fa4gen.numerics.approx`
(hardware: within 2 ulp), and a row is summed in NumPy's order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fa4gen.core.dtypes import DType
from fa4gen.numerics.approx import ex2
from fa4gen.numerics.arrays import F32, F64, Mask
from fa4gen.numerics.exp2_by_line import exp2_line
from fa4gen.numerics.exp2_poly import LINE, coefficients, evaluate

LEAST_EXPONENT = -126.0
"""Below this the polynomial's exponent is clamped; the result is a negligible positive number."""

_ROUNDING = np.float32(1.5 * 2**23)
"""Adding it to a float32 of moderate size rounds that to an integer."""

E4M3_PEAK_LOG2 = 8.0
"""In e4m3 P is lifted: under the most stale maximum it reaches 2 ** 8 (the type ends at 448).
Source: templates/sm90/fwd.py.j2."""

_STORAGE: dict[DType, npt.DTypeLike] = {
    DType.BF16: ml_dtypes.bfloat16,
    DType.FP16: np.float16,
    DType.E4M3: ml_dtypes.float8_e4m3fn,
}


@dataclass(frozen=True, slots=True)
class SoftmaxRecipe:
    """The choices of a kernel that decide what it computes."""

    tile_n: int
    """Key columns of one KV block."""
    polynomial_columns: tuple[int, ...]
    """Columns of a block whose exponential is the polynomial; the others use the MUFU."""
    degree: int
    rescale_threshold_log2: float
    """Growth of the row maximum, in log2 units, up to which the old one stays; 0 is always new."""
    dtype: DType
    """Of P."""

    @property
    def lift_log2(self) -> float:
        """What is added to the exponents of P, and taken from the LSE again."""
        return E4M3_PEAK_LOG2 - self.rescale_threshold_log2 if self.dtype is DType.E4M3 else 0.0


@dataclass(frozen=True, slots=True)
class KernelResult:
    """What a kernel of a recipe gives, and the weights on the way."""

    o: F32
    """``(seqlen_q, head_dim_v)``, rounded to the output's type."""
    lse: F32
    """``(seqlen_q,)``, natural logarithm."""
    p: F32
    """``(seqlen_q, seqlen_k)``: P before it is rounded to its type."""
    exponent: F32
    """The same shape: the float32 number whose exponential ``p`` is; -inf where nothing is seen."""
    exact_exponent: F64
    """The same without any rounding after S, relative to the same maximum."""
    rescaled_share: float
    """Share of the (row, KV block) pairs after the first block in which the row's O is rescaled."""


def round_to(x: npt.NDArray[Any], dtype: DType) -> F32:
    """``x`` rounded to nearest even in ``dtype``, as float32."""
    return x.astype(_STORAGE[dtype]).astype(np.float32)


def exp2_polynomial(x: F32, degree: int) -> F32:
    """``2 ** x`` as the kernels' polynomial gives it; the exponent is put in by an integer add.

    Raises:
        UnknownName: no polynomial of this degree.
    """
    if degree == LINE:
        return exp2_line(x)
    clamped = np.maximum(x, np.float32(LEAST_EXPONENT))
    rounded = clamped + _ROUNDING
    rest = clamped - (rounded - _ROUNDING)
    power = evaluate(rest, coefficients(degree))
    moved = (rounded.view(np.uint32) << np.uint32(23)) + power.view(np.uint32)
    return moved.view(np.float32)


def kernel_scores(q: F32, k: F32, *, causal: bool = False) -> F32:
    """S = Q K^T in float32, -inf where the mask, aligned bottom-right, hides a key.

    Args:
        q: ``(seqlen_q, head_dim)``, 16-bit values.
        k: ``(seqlen_k, head_dim)``.
    """
    scores = (q.astype(np.float64) @ k.astype(np.float64).T).astype(np.float32)
    if causal:
        row = np.arange(q.shape[0])[:, None] + k.shape[0] - q.shape[0]
        scores[np.arange(k.shape[0])[None, :] > row] = -np.inf
    return scores


def attention_as_kernel(
    scores: F32, v: F32, recipe: SoftmaxRecipe, softmax_scale: float
) -> KernelResult:
    """Attention of one head as a kernel of this recipe computes it.

    Args:
        scores: ``(seqlen_q, seqlen_k)``, see :func:`kernel_scores`; every row must see a key.
        v: ``(seqlen_k, head_dim_v)``, values of ``recipe.dtype``.
        recipe: what the kernel does.
        softmax_scale: factor of the scores, positive.
    """
    rows, keys = scores.shape
    scale = np.float32(softmax_scale * math.log2(math.e))
    state = _State(rows, v.shape[1])
    p = np.zeros((rows, keys), np.float32)
    exponent = np.full((rows, keys), -np.inf, np.float32)
    exact = np.full((rows, keys), -np.inf)
    rescaled = blocks = 0
    for first in range((keys - 1) // recipe.tile_n * recipe.tile_n, -1, -recipe.tile_n):
        block = slice(first, min(first + recipe.tile_n, keys))
        s = scores[:, block]
        if not np.isfinite(s).any():
            continue
        factor = state.new_maximum(s, scale, recipe.rescale_threshold_log2)
        offset = state.base * scale - np.float32(recipe.lift_log2)
        exponent[:, block] = _fma(s, scale, -offset)
        exact[:, block] = (s.astype(np.float64) - state.base[:, None]) * float(scale)
        exact[:, block] += recipe.lift_log2
        p[:, block] = _exponentials(exponent[:, block], recipe)
        state.accumulate(p[:, block], v[block], factor, recipe.dtype)
        rescaled, blocks = rescaled + int((factor < 1).sum()), blocks + 1
    with np.errstate(divide="ignore"):
        lse_log2 = state.row_max * scale + np.log2(state.row_sum)
        lse_log2 -= np.float32(recipe.lift_log2)
    o = round_to(state.o * (np.float32(1) / state.row_sum)[:, None], recipe.dtype.out)
    share = (rescaled - rows) / max(1, rows * (blocks - 1))  # the first factor is always 0
    lse = (lse_log2 * np.float32(math.log(2))).astype(np.float32)
    return KernelResult(o, lse, p, exponent, exact, max(0.0, share))


class _State:
    """Row maximum, row sum and O between two KV blocks."""

    def __init__(self, rows: int, columns: int) -> None:
        self.row_max = np.full(rows, -np.inf, np.float32)
        self.base = np.zeros(rows, np.float32)
        self.row_sum = np.zeros(rows, np.float32)
        self.o = np.zeros((rows, columns), np.float32)

    def new_maximum(self, s: F32, scale: np.float32, threshold: float) -> F32:
        """Moves the maximum on, unless it may stay; gives the factor of what was summed up."""
        old = self.row_max
        new = np.maximum(old, s.max(axis=1))
        self.base = np.where(np.isfinite(new), new, np.float32(0))
        growth = (old - self.base) * scale  # -inf in the first block
        keep = (growth >= -threshold) & (threshold > 0)
        self.row_max = np.where(keep, old, new)
        self.base = np.where(keep, old, self.base)
        return np.where(keep, np.float32(1), ex2(growth, ftz=True)).astype(np.float32)

    def accumulate(self, p: F32, v: F32, factor: F32, dtype: DType) -> None:
        """One block's weights into the row sum, and its PV into O."""
        self.row_sum = self.row_sum * factor + p.sum(axis=1, dtype=np.float32)
        product = round_to(p, dtype).astype(np.float64) @ v.astype(np.float64)
        self.o = (self.o * factor[:, None] + product).astype(np.float32)


def _fma(s: F32, scale: np.float32, minus_offset: F32) -> F32:
    """``s * scale + minus_offset`` rounded once (but for ties that double rounding breaks)."""
    wide = s.astype(np.float64) * float(scale) + minus_offset.astype(np.float64)[:, None]
    return wide.astype(np.float32)


def _exponentials(exponent: F32, recipe: SoftmaxRecipe) -> F32:
    """P of one block: polynomial in its columns, MUFU in the others."""
    columns = np.array([c for c in recipe.polynomial_columns if c < exponent.shape[1]], np.intp)
    p: F32 = ex2(exponent, ftz=True)
    if columns.size:
        p[:, columns] = exp2_polynomial(exponent[:, columns], recipe.degree)
    return p


def ulp_errors(got: npt.NDArray[Any], exact: F64, digits: int, least_exponent: int) -> F64:
    """``|got - exact|`` in units of the last place of ``exact`` in a format.

    Args:
        got: what was computed.
        exact: what should be, positive.
        digits: bits of the format's significand after the point: 7 for bf16, 10 fp16, 23 float32.
        least_exponent: of the format's normal numbers: -126, -14, -126.
    """
    exponents = np.maximum(np.frexp(exact)[1] - 1, least_exponent)
    error: F64 = np.abs(got.astype(np.float64) - exact) / np.exp2(exponents - digits)
    return error


def seen(result: KernelResult) -> Mask:
    """Weights whose key the row sees."""
    return np.isfinite(result.exponent)
