"""The float64 reference against the definition, term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fa4gen.core.errors import ProblemError
from fa4gen.numerics import attention_fp64, reference


def inputs(
    seqlen_q: int, seqlen_k: int, heads: tuple[int, int] = (4, 2), dims: tuple[int, int] = (8, 6)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seqlen_q * 1000 + seqlen_k)
    q = rng.standard_normal((2, seqlen_q, heads[0], dims[0]))
    k = rng.standard_normal((2, seqlen_k, heads[1], dims[0]))
    v = rng.standard_normal((2, seqlen_k, heads[1], dims[1]))
    return q, k, v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(5, 5), (3, 7), (7, 3), (1, 4), (4, 1)])
def test_equals_the_definition(seqlen_q: int, seqlen_k: int, causal: bool) -> None:
    q, k, v = inputs(seqlen_q, seqlen_k)
    out, lse = attention_fp64(q, k, v, softmax_scale=0.7, causal=causal)
    assert out.shape == (2, seqlen_q, 4, 6)
    assert lse.shape == (2, 4, seqlen_q)
    for b, i, head in np.ndindex(2, seqlen_q, 4):
        seen = [j for j in range(seqlen_k) if not causal or j <= i + seqlen_k - seqlen_q]
        weights = [math.exp(0.7 * float(q[b, i, head] @ k[b, j, head // 2])) for j in seen]
        total = sum(weights)
        wanted = np.zeros(6)
        for weight, j in zip(weights, seen, strict=True):
            wanted += weight / total * v[b, j, head // 2]
        np.testing.assert_allclose(out[b, i, head], wanted, atol=1e-13)
        assert lse[b, head, i] == pytest.approx(math.log(total) if seen else -math.inf)


def test_fully_masked_rows_are_zero_and_minus_infinity() -> None:
    q, k, v = inputs(6, 2)
    out, lse = attention_fp64(q, k, v, causal=True)
    assert np.all(out[:, :4] == 0.0)
    assert np.all(lse[:, :, :4] == -np.inf)
    assert np.all(np.isfinite(lse[:, :, 4:]))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(17, 13)
    whole = attention_fp64(q, k, v, causal=True)
    monkeypatch.setattr(reference, "MAX_SCORES", 40)
    chunked = attention_fp64(q, k, v, causal=True)
    np.testing.assert_allclose(chunked[0], whole[0], atol=1e-15)
    np.testing.assert_allclose(chunked[1], whole[1], atol=1e-15)


def test_default_scale_and_large_logits() -> None:
    q, k, v = inputs(4, 4)
    np.testing.assert_array_equal(
        attention_fp64(q, k, v)[0], attention_fp64(q, k, v, softmax_scale=8**-0.5)[0]
    )
    out, lse = attention_fp64(q * 1e4, k, v)
    assert np.all(np.isfinite(out))
    assert np.all(np.isfinite(lse))


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((1, 4, 2, 8), (1, 4, 2, 4), (1, 4, 2, 8)),
        ((1, 4, 3, 8), (1, 4, 2, 8), (1, 4, 2, 8)),
        ((1, 4, 2, 8), (1, 4, 2, 8), (1, 5, 2, 8)),
        ((4, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8)),
    ],
)
def test_shapes_that_do_not_belong_together(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]
) -> None:
    with pytest.raises(ProblemError, match="allowed"):
        attention_fp64(np.zeros(q), np.zeros(k), np.zeros(v))
