"""The kernels of peers that fa4gen's emulator is tested on, by name.

The problems are as small as keeps every role of the kernel busy. ``ragged`` has lengths that fill
no tile; ``clc`` takes its tiles by ``clusterlaunchcontrol``.
"""

from __future__ import annotations

from typing import Any

from flash_attention_4 import forward_request
from peer_kernels import PeerKernel, PeerRequest, compile_peers
from quack_gemm import TWO_CTA, GemmProblem, GemmTiling, gemm_request

from fa4gen.core.problem import AttentionProblem


def _attention(head_dim: int, *, causal: bool = False, **fields: Any) -> AttentionProblem:
    return AttentionProblem.from_dict(
        {"batch": 1, "num_heads_q": 1, "head_dim": head_dim, "causal": causal, **fields}
    )


_SQUARE: dict[str, Any] = {"seqlen_q": 256}
_RAGGED: dict[str, Any] = {"seqlen_q": 200, "seqlen_k": 331}
_GQA: dict[str, Any] = {"seqlen_q": 128, "seqlen_k": 256, "num_heads_q": 4, "num_heads_kv": 2}

FA4: dict[str, PeerRequest] = {
    "fa4-sm90-d64-causal": forward_request(_attention(64, causal=True, **_SQUARE), "sm_90a"),
    "fa4-sm90-d128-dense": forward_request(_attention(128, **_SQUARE), "sm_90a"),
    "fa4-sm90-d128-ragged": forward_request(_attention(128, causal=True, **_RAGGED), "sm_90a"),
    "fa4-sm90-d128-gqa": forward_request(_attention(128, **_GQA), "sm_90a"),
    "fa4-sm100-d64-dense": forward_request(_attention(64, **_SQUARE), "sm_100a"),
    "fa4-sm100-d64-causal": forward_request(_attention(64, causal=True, **_SQUARE), "sm_100a"),
    "fa4-sm100-d64-gqa": forward_request(_attention(64, causal=True, **_GQA), "sm_100a"),
    "fa4-sm100-d128-dense": forward_request(_attention(128, **_SQUARE), "sm_100a"),
    "fa4-sm100-d128-causal": forward_request(_attention(128, causal=True, **_SQUARE), "sm_100a"),
    "fa4-sm100-d128-ragged": forward_request(_attention(128, causal=True, **_RAGGED), "sm_100a"),
    "fa4-sm100-d128-gqa": forward_request(_attention(128, **_GQA), "sm_100a"),
    "fa4-sm100-d128-2cta": forward_request(
        _attention(128, seqlen_q=512, seqlen_k=256), "sm_100a", cta_group=2
    ),
    "fa4-sm100-d128-clc": forward_request(
        _attention(128, causal=True, num_heads_q=2, **_SQUARE), "sm_100a", dynamic_persistent=True
    ),
}
"""FlashAttention-4's forward."""

GEMM: dict[str, PeerRequest] = {
    "quack-sm90": gemm_request(GemmProblem(256, 256, 256), "sm_90a", GemmTiling(cluster_m=2)),
    "quack-sm90-pingpong": gemm_request(
        GemmProblem(256, 256, 256), "sm_90a", GemmTiling(tile_m=64, pingpong=True), num_sms=2
    ),
    "quack-sm100": gemm_request(GemmProblem(256, 256, 256), "sm_100a"),
    "quack-sm100-2cta": gemm_request(GemmProblem(512, 256, 256), "sm_100a", TWO_CTA, num_sms=2),
    "quack-sm100-2cta-clc": gemm_request(
        GemmProblem(512, 256, 256),
        "sm_100a",
        GemmTiling(tile_m=256, cluster_m=2, dynamic_persistent=True),
    ),
}
"""quack's GEMM. With few SMs each CTA (or pair) takes several tiles."""

SUITE = FA4 | GEMM


def compile_suite() -> dict[str, PeerKernel]:
    """All kernels of :data:`SUITE`, by name; a minute or two the first time, then at once."""
    return dict(zip(SUITE, compile_peers(list(SUITE.values())), strict=True))
