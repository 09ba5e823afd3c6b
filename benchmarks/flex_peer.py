"""Triton's attention through torch: FlexAttention, compiled for one problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from fa4gen.core.problem import AttentionProblem


def flex(problem: AttentionProblem, device: str, *, compiled: bool = True) -> Callable[..., Any]:
    """``attention(q, k, v)`` on ``(batch, seqlen, heads, head_dim)``; its first call compiles.

    A causal mask is aligned bottom-right, as everywhere in fa4gen, and blocks that it hides are
    left out.

    Args:
        compiled: else it is computed by plain torch, which is no peer but says what is asked for.
    """
    attend: Callable[..., Any] = flex_attention
    if compiled:
        torch._dynamo.reset()  # or the shapes of many problems count as recompiling too often
        attend = torch.compile(flex_attention, dynamic=False)
    block_mask = None
    if problem.causal:
        ahead = problem.seqlen_k - problem.seqlen_q

        def seen(batch: Any, head: Any, row: Any, key: Any) -> Any:
            return key <= row + ahead

        block_mask = create_block_mask(
            seen, None, None, problem.seqlen_q, problem.seqlen_k, device=device
        )
    groups = problem.qhead_per_kvhead > 1

    def attention(q: Any, k: Any, v: Any) -> Any:
        return attend(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            block_mask=block_mask,
            enable_gqa=groups,
        )

    return attention
