"""The warm call: facts of the tensors, one dictionary look-up, two allocations, one launch.

Everything a launch depends on is in the key, so nothing about the tensors is checked again: the
shapes and strides of Q, K and V, their element types and device indices (which are -1 on any type
of device but the one that plans are made for), and ``causal``. What may change
under an equal key is the alignment of the base addresses, which is looked at on every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fa4gen.runtime.launcher import KernelFunction

if TYPE_CHECKING:
    import torch

    Run = Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, float | None, bool],
        tuple[torch.Tensor, torch.Tensor],
    ]
    """``run(q, k, v, softmax_scale, causal) -> (out, lse)``."""

MISALIGNED = 15
"""Bits of a base address that must be 0: see :data:`fa4gen.runtime.inputs.TMA_ALIGN_BYTES`."""

PlanKey = tuple[Any, ...]


class Plan(NamedTuple):
    """All that a warm call needs, prepared for one :func:`plan_key`."""

    function: KernelFunction
    softmax_scale: float
    """The default, ``head_dim ** -0.5``."""
    out_like: torch.Tensor
    """Shape, type and device of O. It has one element of memory: ``empty_like`` of it takes half
    the time of ``empty`` with the same facts spelled out."""
    lse_like: torch.Tensor
    num_sms: int
    """Of the device, for persistent kernels."""


def plan_key(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> PlanKey:
    """What a plan is remembered under; the same tuple as :func:`make_run` builds in place."""
    return (
        q.shape,
        k.shape,
        v.shape,
        q.stride(),
        k.stride(),
        v.stride(),
        q.dtype,
        k.dtype,
        v.dtype,
        q.get_device(),
        k.get_device(),
        v.get_device(),
        causal,
    )


def shape_only(shape: tuple[int, ...], like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of this shape and type on the device of ``like``, with memory for one element."""
    element: torch.Tensor = like.new_empty((1,), dtype=dtype)
    return element.expand(shape)


def make_run(plans: dict[PlanKey, Plan], slow: Run) -> Run:
    """The function that serves a call from ``plans``, or hands it to ``slow``.

    It is a closure because a name of an enclosing function costs less than an attribute.
    """
    import torch

    find = plans.get
    empty_like = torch.empty_like
    contiguous = torch.contiguous_format

    def run(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        softmax_scale: float | None,
        causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        plan = find(
            (
                q.shape,
                k.shape,
                v.shape,
                q.stride(),
                k.stride(),
                v.stride(),
                q.dtype,
                k.dtype,
                v.dtype,
                q.get_device(),
                k.get_device(),
                v.get_device(),
                causal,
            )
        )
        if plan is None or (q.data_ptr() | k.data_ptr() | v.data_ptr()) & MISALIGNED:
            return slow(q, k, v, softmax_scale, causal)
        function, scale, out_like, lse_like, num_sms = plan
        if softmax_scale is not None:
            if not softmax_scale > 0:
                return slow(q, k, v, softmax_scale, causal)
            scale = float(softmax_scale)
        out = empty_like(out_like, memory_format=contiguous)
        lse = empty_like(lse_like, memory_format=contiguous)
        function(q, k, v, out, lse, scale, num_sms)
        return out, lse

    return run
