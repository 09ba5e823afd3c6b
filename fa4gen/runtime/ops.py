"""``fa4gen::fwd``: the forward pass as an operator that torch.compile and export can see.

::

    fa4gen::fwd(Tensor q, Tensor k, Tensor v, float? softmax_scale=None, bool causal=False,
        Tensor? q_descale=None, Tensor? k_descale=None, Tensor? v_descale=None)
        -> (Tensor out, Tensor lse)

Shapes as in :func:`fa4gen.flash_attn_func`; both results are new and contiguous.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from fa4gen.core.errors import InputError
from fa4gen.runtime.engine import Engine, cuda_engine
from fa4gen.runtime.inputs import NUM_DIMS, out_dtype

if TYPE_CHECKING:
    import torch

NAMESPACE = "fa4gen"
SCHEMA = (
    "fwd(Tensor q, Tensor k, Tensor v, float? softmax_scale=None, bool causal=False,"
    " Tensor? q_descale=None, Tensor? k_descale=None, Tensor? v_descale=None)"
    " -> (Tensor out, Tensor lse)"
)


@cache
def engine() -> Engine:
    """The engine behind the operator and the public function; one per process."""
    return cuda_engine()


@cache
def fwd_op() -> Any:
    """The operator ``torch.ops.fa4gen.fwd.default``; the first call registers it."""
    import torch

    registry: Any = torch.library  # parts of it are not annotated
    library = registry.Library(NAMESPACE, "FRAGMENT")
    _LIBRARIES.append(library)
    library.define(SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
    # One body for every device: where no kernel runs, it says so in our words.
    library.impl("fwd", _fwd, "CompositeExplicitAutograd")
    registry.register_fake(f"{NAMESPACE}::fwd", _fwd_fake, lib=library)
    registry.register_autograd(f"{NAMESPACE}::fwd", _no_backward, lib=library)
    return torch.ops.fa4gen.fwd.default


_LIBRARIES: list[Any] = []
"""Keeps the registration alive: a library that is collected takes its operators with it."""


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    *descales: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    if all(descale is None for descale in descales):
        return engine().run(q, k, v, softmax_scale, causal)
    q_descale, k_descale, v_descale = (*descales, None, None)[:3]
    three = (q_descale, k_descale, v_descale)
    return engine().run_scaled(q, k, v, softmax_scale, causal, three)


def _fwd_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    *_descales: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapes, types and strides of the results; refuses shapes that do not fit together."""
    import torch

    check: Any = torch._check  # not annotated
    for tensor in (q, k, v):
        check(tensor.dim() == NUM_DIMS, lambda: "dimensions: got other than 4 in q, k or v")
    batch, seqlen_q, num_heads_q, head_dim = q.shape
    check(k.shape[0] == batch and v.shape[0] == batch, lambda: "batch: got several")
    check(k.shape[1] == v.shape[1], lambda: "seqlen_k: got one in k and another in v")
    check(k.shape[2] == v.shape[2], lambda: "num_heads_kv: got one in k and another in v")
    check(k.shape[3] == head_dim, lambda: "head_dim: got one in q and another in k")
    shape = (batch, seqlen_q, num_heads_q, v.shape[3])
    out = q.new_empty(shape, dtype=out_dtype(q.dtype))
    return out, q.new_empty((batch, num_heads_q, seqlen_q), dtype=torch.float32)


def _no_backward(_context: Any, *_gradients: Any) -> Any:
    """Stands where the gradient of the operator would be.

    Raises:
        InputError: always.
    """
    raise InputError(
        "requires_grad: got a backward pass through fa4gen::fwd, allowed: none yet; fa4gen has no "
        "backward kernel. Run it under torch.no_grad() or detach the inputs; to train, use "
        "torch.nn.functional.scaled_dot_product_attention"
    )
