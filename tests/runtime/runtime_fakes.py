"""Rows, selectors and kernels made by hand; torch only inside functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy, Provenance, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import DispatchRow, Origin
from fa4gen.hardware import load_sku
from fa4gen.runtime.launcher import Kernel
from fa4gen.runtime.selection import Rung, Selection

TEMPLATE = "0123456789abcdef"


def problem(**changes: Any) -> AttentionProblem:
    """b2 s1024 h16 d128 bf16 dense, with changes; keys and KV heads follow the queries."""
    values = {"batch": 2, "seqlen_q": 1024, "num_heads_q": 16, "head_dim": 128, **changes}
    return AttentionProblem.from_dict(values)


def row(
    of: AttentionProblem,
    config: KernelConfig,
    *,
    sku: str = "h200",
    source: Source = Source.MEASURED,
    origin: Origin = Origin.SHIPPED,
    policy: MeasurementPolicy | None = None,
    template: str = TEMPLATE,
) -> DispatchRow:
    timing = Timing(31, 100.0, 0.2, 1.05, 1.04, 1.06)
    provenance = Provenance(source, sku, 1, template, "2026-11-20T00:00:00+00:00", "0.1.0")
    return DispatchRow(
        problem=of,
        sku=sku,
        source=source,
        policy=MeasurementPolicy() if policy is None else policy,
        config=config,
        evaluation=Evaluation(Outcome.OK, provenance, timing=timing),
        record_id=-1 if origin is Origin.SHIPPED else 1,
        origin=origin,
        decided_at="2026-11-20T00:00:00+00:00",
    )


def configs(count: int) -> list[KernelConfig]:
    """Feasible configurations of the usual head dimension 128, all different."""
    return [KernelConfig(tile_n=16 * (1 + each)) for each in range(count)]


class FakeSource:
    """Kernels for an H200 that are Python functions; remembers what it was asked for."""

    def __init__(self, function: Callable[..., None] | None = None) -> None:
        self.arch = load_sku("h200").arch
        self.num_sms = 3
        self.asked: list[AttentionProblem] = []
        self.calls: list[tuple[Any, ...]] = []
        self._function = attention if function is None else function

    def prepare(self, asked: AttentionProblem) -> tuple[Selection, Kernel]:
        self.asked.append(asked)
        config = KernelConfig()
        selection = Selection(asked, config, Rung.MODEL, Source.MODELLED)

        def function(*arguments: Any) -> None:
            self.calls.append(arguments)
            causal = asked.causal
            self._function(*arguments, causal=causal)

        return selection, Kernel(asked.signature, config, function)


def attention(*arguments: Any, causal: bool) -> None:
    """What a compiled kernel does, slowly: writes O and LSE, and insists on what TMA needs."""
    import torch

    q, k, v, out, lse, *descales, scale, num_sms = arguments
    assert type(num_sms) is int
    for tensor in (q, k, v, out):
        assert tensor.data_ptr() % 16 == 0
        assert tensor.stride(3) == 1
        step = 16 // tensor.element_size()
        assert all(stride % step == 0 for stride in tensor.stride()[:3])
    assert type(scale) is float
    assert scale > 0
    group = q.shape[2] // k.shape[2]
    assert len(descales) == (3 if q.element_size() == 1 else 0)
    if descales:
        of_heads = [descale[:, None, :, None] for descale in descales]
        q = q.float() * of_heads[0].repeat_interleave(group, 2)
        k, v = k.float() * of_heads[1], v.float() * of_heads[2]
    queries = q.float().transpose(1, 2)
    keys = k.float().transpose(1, 2).repeat_interleave(group, 1)
    values = v.float().transpose(1, 2).repeat_interleave(group, 1)
    scores = queries @ keys.transpose(2, 3) * scale
    if causal:
        rows, columns = scores.shape[2:]
        hidden = torch.ones(rows, columns, dtype=torch.bool).triu(1 + columns - rows)
        scores = scores.masked_fill(hidden, float("-inf"))
    lse.copy_(scores.logsumexp(3))
    out.copy_((scores.softmax(3).nan_to_num(0.0) @ values).transpose(1, 2))


def draw(of: AttentionProblem, seed: int = 0, device: str = "cpu") -> tuple[Any, Any, Any]:
    """Normal Q, K and V."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, of.dtype.torch_name)

    def one(seqlen: int, heads: int, columns: int) -> Any:
        shape = (of.batch, seqlen, heads, columns)
        return torch.randn(shape, generator=generator).to(dtype).to(device)

    return (
        one(of.seqlen_q, of.num_heads_q, of.head_dim),
        one(of.seqlen_k, of.num_heads_kv, of.head_dim),
        one(of.seqlen_k, of.num_heads_kv, of.head_dim_v),
    )


def reference(q: Any, k: Any, v: Any, scale: float | None = None, causal: bool = False) -> Any:
    """Float64 O and LSE of torch tensors, as torch tensors."""
    import torch

    from fa4gen.numerics.reference import attention_fp64

    arrays = (tensor.detach().cpu().double().numpy() for tensor in (q, k, v))
    out, lse = attention_fp64(*arrays, scale, causal)
    return torch.from_numpy(out), torch.from_numpy(lse)


def views(tensor: Any) -> dict[str, Any]:
    """The same values under several strides and base addresses; name -> view."""
    import torch

    batch, seqlen, heads, columns = tensor.shape

    def inside(shape: tuple[int, ...]) -> Any:
        return torch.full(shape, 7.0, dtype=tensor.dtype, device=tensor.device)

    by_head = tensor.transpose(1, 2).contiguous().transpose(1, 2)
    fused = inside((batch, seqlen, heads, 3 * columns))
    fused[..., columns : 2 * columns] = tensor
    odd = inside((batch, seqlen, heads, columns + 1))
    odd[..., :columns] = tensor
    shifted = inside((tensor.numel() + 1,))[1:].view(tensor.shape).copy_(tensor)
    column_major = tensor.transpose(1, 3).contiguous().transpose(1, 3)
    return {
        "plain": tensor,
        "by_head": by_head,
        "fused": fused[..., columns : 2 * columns],
        "odd_stride": odd[..., :columns],
        "shifted": shifted,
        "column_major": column_major,
        "every_other": inside((batch, 2 * seqlen, heads, columns))[:, ::2].copy_(tensor),
    }


IN_PLACE = frozenset({"plain", "by_head", "fused", "every_other"})
VIEWS = sorted(IN_PLACE | {"odd_stride", "shifted", "column_major"})


def small(**changes: Any) -> AttentionProblem:
    """A problem of a few thousand elements."""
    values = {"batch": 2, "seqlen_q": 5, "seqlen_k": 7, "num_heads_q": 4, "num_heads_kv": 2}
    return AttentionProblem.from_dict({**values, "head_dim": 16, **changes})
