"""Float64 attention in torch, and the same-precision computation that sets a kernel's allowance.

Q, K and V as in :mod:`fa4gen.evaluate.gpu_check`; a slice is one (batch, query head) pair. In e4m3
the true Q is ``q * q_descale`` and so on, with a descale for each (batch, KV head).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fa4gen.evaluate.correctness import E4M3_P_SCALE, P_SCALES
from fa4gen.evaluate.gpu_accumulator import accumulated

if TYPE_CHECKING:
    from torch import Tensor

    from fa4gen.evaluate.gpu_check import Inputs

CHUNK_BYTES = 512 << 20
"""Largest float64 score matrix held at once by the reference."""


class Reference(NamedTuple):
    """Float64 attention of some (batch, head) slices, and the same-precision computation.

    ``lse`` and ``lse_32`` are ``(slices, rows)``, the rest ``(slices, rows, head_dim_v)``.
    """

    o: Tensor
    lse: Tensor
    spread: Tensor
    """Standard deviation of V under the row's softmax weights."""
    lse_32: Tensor
    error_16: Tensor
    """Error of the same-precision O."""
    worst_16: Tensor
    """Largest such error over :data:`fa4gen.evaluate.correctness.P_SCALES`."""


class _Slices(NamedTuple):
    """Q, K and V ``(slices, rows or keys, columns)``, and what a product of each is worth."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor | float
    """Of a score: the softmax scale, in e4m3 times the descales of Q and K, ``(slices, 1, 1)``."""
    v_scale: Tensor | float

    @property
    def narrow(self) -> bool:
        """Whether elements have 8 bits."""
        return self.q.element_size() == 1


def reference(
    inputs: Inputs,
    causal: bool,
    scale: float,
    slices: Sequence[tuple[int, int]],
    rows: Sequence[int] | None = None,
) -> Reference:
    """Float64 attention and the same-precision computation of ``slices``, chunked over rows.

    Args:
        rows: query rows, in the order that is wanted; all by default.
    """
    import torch

    whole = _slices(inputs, scale, slices)
    offset, keys = whole.k.shape[1] - whole.q.shape[1], whole.k.shape[1]
    places = torch.arange(whole.q.shape[1], device=whole.q.device)
    if rows is not None:
        places = places[list(rows)]
        whole = whole._replace(q=whole.q[:, places])
    step = max(1, CHUNK_BYTES // (8 * keys * len(slices)))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        parts = []
        for begin in range(0, len(places), step):
            chunk = whole._replace(q=whole.q[:, begin : begin + step])
            row = places[begin : begin + step]
            hidden = None
            if causal:
                hidden = torch.arange(keys, device=row.device) > row[:, None] + offset
            exact = _exact(chunk, hidden)
            parts.append((*exact, *_same(chunk, hidden, exact[0])))
    finally:
        torch.set_float32_matmul_precision(precision)
    return Reference(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))


def _slices(inputs: Inputs, scale: float, slices: Sequence[tuple[int, int]]) -> _Slices:
    import torch

    group = inputs.q.shape[2] // inputs.k.shape[2]
    batches = torch.tensor([b for b, _ in slices], device=inputs.q.device)
    heads = torch.tensor([h for _, h in slices], device=inputs.q.device)
    taken = _Slices(
        inputs.q[batches, :, heads],
        inputs.k[batches, :, heads // group],
        inputs.v[batches, :, heads // group],
        scale,
        1.0,
    )
    if not inputs.descales:
        return taken
    q_descale, k_descale, v_descale = (
        descale[batches, heads // group].double()[:, None, None] for descale in inputs.descales
    )
    return taken._replace(scale=scale * q_descale * k_descale, v_scale=v_descale)


def _exact(s: _Slices, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """O, LSE and the spread of V in float64."""
    scores = s.q.double() @ s.k.double().transpose(-1, -2)
    p, row_sum, lse = _weights(scores, s.scale, hidden)
    p = p / row_sum.clamp_min(1e-300).unsqueeze(-1)
    v64 = s.v.double() * s.v_scale
    o = p @ v64
    spread = (p @ v64.square() - o.square()).clamp_min_(0).sqrt_()
    return o, lse, spread


def _same(s: _Slices, hidden: Tensor | None, o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As PyTorch computes it: float32 softmax, P and O rounded to 16 bits.

    In e4m3 P is rounded to 8 bits, relative to the row maximum, and products go through Hopper's
    accumulators. Gives the LSE, the error of O against ``o``, and the largest error over
    :data:`fa4gen.evaluate.correctness.P_SCALES`.
    """
    import torch

    if s.narrow:
        return _same_e4m3(s, hidden, o)
    p, row_sum, lse = _weights(s.q.float() @ s.k.float().transpose(-1, -2), s.scale, hidden)
    p /= row_sum.clamp_min(1e-30).unsqueeze(-1)
    v32 = s.v.float()
    errors = []
    for factor in P_SCALES:
        rounded = (p * factor).to(s.v.dtype).float() @ v32
        errors.append(((rounded / factor).to(s.v.dtype).double() - o).abs())
    return lse, errors[0], torch.stack(errors).amax(0)


def _same_e4m3(s: _Slices, hidden: Tensor | None, o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_same` for 8-bit elements."""
    import torch

    p, row_sum, lse = _weights(accumulated(s.q, s.k.transpose(-1, -2)), s.scale, hidden)
    v32, cut_off, errors = s.v.float(), None, []
    for factor in P_SCALES:
        lift = factor * E4M3_P_SCALE
        rounded = (p * lift).to(s.v.dtype)
        product = rounded.float() @ v32
        if cut_off is None:  # dear, and nearly the same in every draw
            cut_off = (accumulated(rounded, s.v) - product) / lift
        total = row_sum.clamp_min(1e-30).unsqueeze(-1)
        mean = (product / lift + cut_off) / total * s.v_scale
        errors.append((mean.to(torch.bfloat16).double() - o).abs())
    return lse, errors[0], torch.stack(errors).amax(0)


def _weights(
    scores: Tensor, scale: Tensor | float, hidden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """``exp(s - max)``, its row sums and the LSE; a row that sees nothing gives 0, 0, -inf."""
    scores *= scale
    if hidden is not None:
        scores.masked_fill_(hidden, float("-inf"))
    row_max = scores.amax(-1)
    base = row_max.clamp_min(-1e30)  # -inf would make exp(-inf + inf) a NaN
    p = scores.sub_(base.unsqueeze(-1)).exp_()
    row_sum = p.sum(-1)
    return p, row_sum, base.where(row_max.isfinite(), row_max) + row_sum.log()
