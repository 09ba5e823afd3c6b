"""``flash_attn_func``: attention on torch tensors, with the kernel the tuning table says.

Imported when the function is first asked for, since it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack, overload

from fa4gen.core.problem import AttentionProblem
from fa4gen.runtime import inputs
from fa4gen.runtime.ops import engine, fwd_op
from fa4gen.runtime.selection import Selection

if TYPE_CHECKING:
    from typing import Literal

    import torch


class _Torch(NamedTuple):
    """What a call asks torch about the state it is in."""

    tensor: type[torch.Tensor]
    tracing: Callable[[], bool]
    """Whether TorchDynamo traces this code; it replaces the function by True."""
    grad_enabled: Callable[[], bool]
    dispatch_modes: Callable[[], int]
    """Number of active dispatch modes: FakeTensorMode, make_fx, FLOP counters ..."""
    transforms: Callable[[], object]
    """The innermost of torch.func's transforms (vmap, grad ...), or None."""
    jit_tracing: Callable[[], bool]


class NamedDescales(TypedDict, total=False):
    """Descales by keyword, float32 ``(batch, num_heads_kv)``."""

    q_descale: torch.Tensor | None
    k_descale: torch.Tensor | None
    v_descale: torch.Tensor | None


def _bind() -> _Torch:
    import torch

    return _Torch(
        torch.Tensor,
        torch.compiler.is_dynamo_compiling,
        torch.is_grad_enabled,
        torch._C._len_torch_dispatch_stack,
        torch._C._functorch.peek_interpreter_stack,
        torch._C._is_tracing,
    )


_Tensor, _tracing, _grad_enabled, _dispatch_modes, _transforms, _jit_tracing = _bind()
_op = fwd_op()
_run = engine().run
_run_scaled = engine().run_scaled


@overload
def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = ...,
    causal: bool = ...,
    *,
    return_lse: Literal[False] = ...,
    **descales: Unpack[NamedDescales],
) -> torch.Tensor: ...


@overload
def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = ...,
    causal: bool = ...,
    *,
    return_lse: Literal[True],
    **descales: Unpack[NamedDescales],
) -> tuple[torch.Tensor, torch.Tensor]: ...


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    return_lse: bool = False,
    **descales: Unpack[NamedDescales],
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """``softmax(softmax_scale * Q K^T + mask) V`` on CUDA tensors in bf16, fp16 or (Hopper) e4m3.

    The kernel is the one the tuning table has for this problem on this GPU, else the nearest, else
    the cycle model's pick; ``fa4gen explain`` shows which and why. The first call of a kernel
    compiles it (seconds), or loads it if any process compiled it before; see
    :func:`fa4gen.runtime.warm_up`. Calls from several threads and inside torch.compile (also
    with ``fullgraph=True``) are fine, and so are calls inside a CUDA graph capture once the
    kernel has run. There is no backward yet.

    Args:
        q: ``(batch, seqlen_q, num_heads_q, head_dim)``, head_dim up to 256.
        k: ``(batch, seqlen_k, num_heads_kv, head_dim)``; ``num_heads_kv`` divides ``num_heads_q``.
        v: ``(batch, seqlen_k, num_heads_kv, head_dim_v)``.
        softmax_scale: by default ``head_dim ** -0.5``.
        causal: row ``i`` sees keys ``j <= i + seqlen_k - seqlen_q`` (aligned bottom-right).
        return_lse: also give the natural logarithm of the sum of exponentials of the scaled
            scores.
        **descales: ``q_descale``, ``k_descale``, ``v_descale``, for ``torch.float8_e4m3fn`` only:
            float32 ``(batch, num_heads_kv)``, positive; the true Q is ``q * q_descale``, K and V
            likewise. Ones by default.

    Any strides are accepted. Views whose rows are contiguous and whose base and other strides are
    multiples of 16 bytes are read in place, e.g. transposed heads; others, and head dimensions
    that are no multiple of 16 bytes, cost a copy of the tensor.

    Returns:
        ``out``, contiguous, ``(batch, seqlen_q, num_heads_q, head_dim_v)`` in the type of q, or in
        bf16 where q is e4m3; or ``(out, lse)`` with ``lse`` float32 ``(batch, num_heads_q,
        seqlen_q)``. A row that sees no key is 0 in ``out`` and -inf in ``lse``.

    Raises:
        InputError: tensors that no kernel accepts, or that require gradients.
        CaptureError: the kernel's first use falls into a CUDA graph capture.
        NoFeasibleKernel: no kernel fits; or there is no exact row and FA4GEN_REQUIRE_EXACT is set.
        CompileError: the kernel cannot be compiled.
    """
    if (
        _tracing()
        or type(q) is not _Tensor
        or type(k) is not _Tensor
        or type(v) is not _Tensor
        or _dispatch_modes()
        or _transforms() is not None
        or _jit_tracing()
    ):
        out, lse = _through_op(q, k, v, softmax_scale, causal, _in_order(descales))
    else:
        if _grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            inputs.refuse_grad(q, k, v)
        if not descales:
            out, lse = _run(q, k, v, softmax_scale, causal)
        else:
            out, lse = _run_scaled(q, k, v, softmax_scale, causal, _in_order(descales))
    return (out, lse) if return_lse else out


def _in_order(descales: NamedDescales) -> inputs.Descales:
    """The descales of Q, K and V.

    Raises:
        TypeError: another name.
    """
    if unknown := sorted(set(descales) - set(inputs.DESCALE_NAMES)):
        raise TypeError(
            f"flash_attn_func: got unknown keyword {', '.join(unknown)}, allowed: softmax_scale, "
            f"causal, return_lse, {', '.join(inputs.DESCALE_NAMES)}"
        )
    return descales.get("q_descale"), descales.get("k_descale"), descales.get("v_descale")


def _through_op(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None,
    causal: bool,
    descales: inputs.Descales,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The call as an operator, for whoever intercepts operators; costs some 10 us more."""
    if not _tracing():
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            inputs.check_is_tensor(name, tensor)
        if _grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            inputs.refuse_grad(q, k, v)
    out, lse = _op(q, k, v, softmax_scale, causal, *descales)
    return out, lse


def warm_up(problems: Iterable[AttentionProblem], device: int | None = None) -> list[Selection]:
    """Compile, load and run once the kernels of these problems, before they are needed.

    Afterwards calls of these problems neither compile nor load, so they may be captured into a
    CUDA graph. Which configuration each problem got is in the selections.

    Args:
        device: index of the CUDA device; by default the current one.

    Raises:
        InputError, NoFeasibleKernel, CompileError: as :func:`flash_attn_func`.
    """
    import torch

    index = torch.cuda.current_device() if device is None else device
    return engine().warm_up(problems, index)


def reset() -> None:
    """Forget selections: the next call reads the tuning table and the environment again.

    Call it after tuning in the same process; kernels already compiled stay loaded.
    """
    engine().reset()
