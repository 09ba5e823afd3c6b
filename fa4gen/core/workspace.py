"""Memory that a kernel needs beside its inputs and outputs."""

from __future__ import annotations

from fa4gen.core.config import KernelConfig

Shape = tuple[int, ...]


def workspace_shapes(
    config: KernelConfig, lse_shape: Shape, head_dim_v: int
) -> tuple[Shape, Shape] | None:
    """The float32 tensors that a kernel takes between ``lse`` and ``softmax_scale``, if any.

    A kernel with ``num_splits`` above 1 keeps O and LSE of every split there, in
    ``(num_splits, batch, num_heads_q, seqlen_q[, head_dim_v])``. Nothing is expected in them.

    Args:
        lse_shape: ``(batch, num_heads_q, seqlen_q)``.
    """
    if config.num_splits == 1:
        return None
    of_lse = (config.num_splits, *lse_shape)
    return (*of_lse, head_dim_v), of_lse
