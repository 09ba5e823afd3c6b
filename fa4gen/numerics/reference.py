"""Attention in float64, the truth every kernel is held against.

Notation: Q ``(batch, seqlen_q, num_heads_q, head_dim)``, K ``(batch, seqlen_k, num_heads_kv,
head_dim)``, V ``(batch, seqlen_k, num_heads_kv, head_dim_v)``, O ``(batch, seqlen_q, num_heads_q,
head_dim_v)``, LSE ``(batch, num_heads_q, seqlen_q)``, natural logarithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import ProblemError

Float64Array = npt.NDArray[np.float64]

MAX_SCORES = 1 << 22
"""Most scores held at a time: 32 MiB of float64."""

_RANK = 4


def attention_fp64(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    softmax_scale: float | None = None,
    causal: bool = False,
) -> tuple[Float64Array, Float64Array]:
    """``O = softmax(softmax_scale * Q K^T + mask) V`` and its LSE, row block by row block.

    Args:
        q: ``(batch, seqlen_q, num_heads_q, head_dim)``, any real dtype.
        k: ``(batch, seqlen_k, num_heads_kv, head_dim)``; ``num_heads_kv`` divides ``num_heads_q``.
        v: ``(batch, seqlen_k, num_heads_kv, head_dim_v)``.
        softmax_scale: factor of the scores; ``head_dim ** -0.5`` by default.
        causal: mask aligned bottom-right: row ``i`` sees keys ``j <= i + seqlen_k - seqlen_q``.

    Returns:
        O and LSE. A row that sees no key has O = 0 and LSE = -inf.

    Raises:
        ProblemError: shapes that do not belong together.
    """
    _check_shapes(q, k, v)
    batch, seqlen_q, num_heads_q, head_dim = q.shape
    seqlen_k, num_heads_kv, head_dim_v = v.shape[1:]
    group = num_heads_q // num_heads_kv
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    out = np.zeros((batch, seqlen_q, num_heads_q, head_dim_v))
    lse = np.full((batch, num_heads_q, seqlen_q), -np.inf)
    rows = max(1, MAX_SCORES // seqlen_k)
    for b in range(batch):
        for head in range(num_heads_q):
            keys = k[b, :, head // group].astype(np.float64)
            values = v[b, :, head // group].astype(np.float64)
            for first in range(0, seqlen_q, rows):
                block = slice(first, min(first + rows, seqlen_q))
                scores = (q[b, block, head].astype(np.float64) @ keys.T) * scale
                if causal:
                    _mask_bottom_right(scores, first + seqlen_k - seqlen_q)
                out[b, block, head], lse[b, head, block] = _softmax_times(scores, values)
    return out, lse


def _mask_bottom_right(scores: Float64Array, offset: int) -> None:
    """Set ``scores[i, j]`` to -inf where ``j > i + offset``."""
    i = np.arange(scores.shape[0])[:, None]
    j = np.arange(scores.shape[1])[None, :]
    scores[j > i + offset] = -np.inf


def _softmax_times(scores: Float64Array, values: Float64Array) -> tuple[Float64Array, Float64Array]:
    """``softmax(scores) @ values`` and the log-sum-exp of each row of ``scores``."""
    row_max = scores.max(axis=1)
    visible = np.isfinite(row_max)
    shift = np.where(visible, row_max, 0.0)
    weights = np.exp(scores - shift[:, None])
    row_sum = weights.sum(axis=1)
    safe_sum = np.where(visible, row_sum, 1.0)
    out = (weights @ values) / safe_sum[:, None]
    return out, np.where(visible, shift + np.log(safe_sum), -np.inf)


def _check_shapes(q: npt.NDArray[Any], k: npt.NDArray[Any], v: npt.NDArray[Any]) -> None:
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.ndim != _RANK:
            raise ProblemError(
                f"{name}: got shape {array.shape}, allowed: (batch, seqlen, num_heads, head_dim)"
            )
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ProblemError(
            f"shapes: got q {q.shape}, k {k.shape}, v {v.shape}, allowed: equal batch, equal "
            "head_dim of q and k, equal seqlen and heads of k and v"
        )
    if q.shape[2] % k.shape[2]:
        raise ProblemError(
            f"num_heads: got {q.shape[2]} of q and {k.shape[2]} of k, allowed: a multiple "
            f"({q.shape[2]} % {k.shape[2]} = {q.shape[2] % k.shape[2]})"
        )
