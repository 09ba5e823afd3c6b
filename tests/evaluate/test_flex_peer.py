"""FlexAttention as a peer of the benchmarks: asked for the same attention as everybody else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fa4gen.core.problem import AttentionProblem
from fa4gen.numerics import attention_fp64

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize(
    ("heads", "seqlens", "head_dims", "causal"),
    [((2, 2), (70, 130), (64, 64), True), ((8, 2), (1, 90), (32, 64), False)],
)
def test_it_computes_attention_with_the_mask_bottom_right(
    heads: tuple[int, int], seqlens: tuple[int, int], head_dims: tuple[int, int], causal: bool
) -> None:
    import torch

    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    from flex_peer import flex

    problem = AttentionProblem.from_dict(
        {
            "batch": 2,
            "seqlen_q": seqlens[0],
            "seqlen_k": seqlens[1],
            "num_heads_q": heads[0],
            "num_heads_kv": heads[1],
            "head_dim": head_dims[0],
            "head_dim_v": head_dims[1],
            "causal": causal,
        }
    )
    draw = np.random.default_rng(0).standard_normal
    q = draw((2, seqlens[0], heads[0], head_dims[0])).astype(np.float32)
    k = draw((2, seqlens[1], heads[1], head_dims[0])).astype(np.float32)
    v = draw((2, seqlens[1], heads[1], head_dims[1])).astype(np.float32)
    got = flex(problem, "cpu", compiled=False)(*map(torch.from_numpy, (q, k, v)))
    wanted, _ = attention_fp64(q, k, v, head_dims[0] ** -0.5, causal)
    np.testing.assert_allclose(got.transpose(1, 2).numpy(), wanted, atol=1e-5)
