"""FlashAttention-4's forward (package ``flash-attn-4``), compiled without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

from peer_kernels import PeerKernel, PeerRequest, compile_peer

from fa4gen.core.problem import AttentionProblem

if TYPE_CHECKING:
    import torch


def compile_forward(
    problem: AttentionProblem,
    target: str,
    *,
    cta_group: int = 1,
    dynamic_persistent: bool = False,
    num_sms: int | None = None,
) -> PeerKernel:
    """Compile the forward of ``problem`` for ``target`` (``sm_90a``, ``sm_100a``).

    Raises:
        PeerCompileError: see :func:`peer_kernels.compile_peers`.
        ValueError: the kernel does not have the ``cta_group`` that was asked for.
    """
    request = forward_request(
        problem,
        target,
        cta_group=cta_group,
        dynamic_persistent=dynamic_persistent,
        num_sms=num_sms,
    )
    kernel = compile_peer(request)
    require_cta_group(kernel, cta_group)
    return kernel


def forward_request(
    problem: AttentionProblem,
    target: str,
    *,
    cta_group: int = 1,
    dynamic_persistent: bool = False,
    num_sms: int | None = None,
) -> PeerRequest:
    """What :func:`compile_forward` compiles, to be compiled together with others.

    Tensors: ``q``, ``k``, ``v``, ``out`` as :class:`AttentionProblem` says, and ``lse`` of
    ``(batch, num_heads_q, seqlen_q)``, natural logarithm, float32.

    Args:
        problem: FlashAttention-4 chooses its kernel by the shapes: the 2-CTA kernel is for dense
            problems of head_dim 128 with more than 256 query rows in a (packed) head.
        target: ``sm_90a`` or ``sm_100a``.
        cta_group: 1 keeps the 2-CTA kernel from being chosen; 2 lets it be.
        dynamic_persistent: take tiles by ``clusterlaunchcontrol`` (sm_100a, causal).
        num_sms: fewer make a persistent kernel take several tiles in small problems.
    """
    shape = "causal" if problem.causal else "dense"
    group = f" gqa{problem.qhead_per_kvhead}" if problem.qhead_per_kvhead > 1 else ""
    return PeerRequest(
        label=f"FlashAttention-4 {target} d{problem.head_dim} {shape}{group} {cta_group}-CTA",
        target=target,
        module=__name__,
        function="call_forward",
        arguments={
            "problem": problem.to_dict(),
            "capability": int(target.strip("sm_a")),
            "cta_group": cta_group,
            "dynamic_persistent": dynamic_persistent,
        },
        num_sms=num_sms,
    )


def require_cta_group(kernel: PeerKernel, cta_group: int) -> None:
    """Raise ValueError unless the MMAs of ``kernel`` are of ``cta_group``."""
    if kernel.cta_group != cta_group:
        raise ValueError(
            f"{kernel.label}: got cta_group {kernel.cta_group}, asked for {cta_group}; "
            "FlashAttention-4 chooses by the problem: dense, head_dim 128, more than 256 rows"
        )


def call_forward(
    problem: dict[str, object], capability: int, cta_group: int, dynamic_persistent: bool
) -> dict[str, tuple[torch.Tensor, str]]:
    """Call FlashAttention-4 with tensors that have no storage; for :mod:`peer_compiler`."""
    import torch
    from cutlass.utils import HardwareInfo
    from flash_attn.cute import interface

    p = AttentionProblem.from_dict(problem)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=getattr(torch, p.dtype.torch_name), device="cuda")

    q = empty(p.batch, p.seqlen_q, p.num_heads_q, p.head_dim)
    k = empty(p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim)
    v = empty(p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim_v)
    out = empty(p.batch, p.seqlen_q, p.num_heads_q, p.head_dim_v)
    lse = torch.empty((p.batch, p.num_heads_q, p.seqlen_q), dtype=torch.float32, device="cuda")
    num_sms = HardwareInfo().get_device_multiprocessor_count()
    with (
        mock.patch.multiple(
            interface,
            # In fake mode it would compile but not call, so not show which arguments it passes.
            is_fake_mode=mock.Mock(return_value=False),
            get_num_sms_for_selection=mock.Mock(return_value=num_sms),
        ),
        mock.patch.multiple(
            interface.utils,
            _get_disable_2cta_default=mock.Mock(return_value=cta_group == 1),
            _get_use_clc_scheduler_default=mock.Mock(return_value=dynamic_persistent),
        ),
    ):
        interface._flash_attn_fwd.compile_cache.clear()
        interface._flash_attn_fwd(q, k, v, causal=p.causal, out=out, lse=lse, _arch=capability)
    return {
        "q": (q, "input"),
        "k": (k, "input"),
        "v": (v, "input"),
        "out": (out, "output"),
        "lse": (lse, "output"),
    }
