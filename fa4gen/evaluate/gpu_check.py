"""Runs one kernel on one input and compares it with float64 attention, in torch.

Works on any torch device, so that the rule itself is tested on the CPU. Shapes: Q ``(batch,
seqlen_q, num_heads_q, head_dim)``, K and V likewise with ``seqlen_k`` and ``num_heads_kv``, O like
Q with ``head_dim_v``, LSE ``(batch, num_heads_q, seqlen_q)`` float32, natural log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import (
    DESCALES,
    GROWTH_LOG2_PER_BLOCK,
    GROWTH_SHARES,
    LARGE_FACTOR,
    CaseErrors,
    CheckCase,
    Distribution,
    allowed_error,
    allowed_lse_error,
    exp2_share,
)
from fa4gen.evaluate.gpu_reference import Reference, reference

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Callable[..., object]
"""``kernel(q, k, v, out, lse, softmax_scale)`` on torch's current stream; in e4m3 with ``q_descale,
k_descale, v_descale`` before the scale."""

GUARD_ELEMENTS = 4096
"""Elements before and after each output that no kernel may touch; keeps its alignment."""

POISON_16 = 0x7FA5
"""A NaN of both bf16 and fp16 that no arithmetic produces (results are quiet NaNs)."""
POISON_32 = 0x7FA5A5A5
"""The same for float32."""


class Inputs(NamedTuple):
    """Q, K and V of one launch."""

    q: Tensor
    k: Tensor
    v: Tensor
    descales: tuple[Tensor, ...] = ()
    """In e4m3 those of Q, K and V, float32 ``(batch, num_heads_kv)`` each."""

    def launch(self, kernel: Kernel, output: Output, scale: float) -> object:
        """Run a kernel on these tensors."""
        return kernel(*self[:3], output.out, output.lse, *self.descales, scale)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Outcome of one case: largest error of O, its allowance, and what is wrong."""

    kind: str
    error: float
    allowed: float
    message: str = ""
    """Empty when the kernel is right."""
    errors: CaseErrors | None = None
    """All errors of a kernel that is right."""


class Output:
    """O and LSE of one launch, each between guards, poisoned on demand."""

    def __init__(self, problem: AttentionProblem, device: str) -> None:
        import torch

        out_shape = (problem.batch, problem.seqlen_q, problem.num_heads_q, problem.head_dim_v)
        lse_shape = (problem.batch, problem.num_heads_q, problem.seqlen_q)
        self._out_bits, out = _guarded(out_shape, torch.int16, device)
        self._lse_bits, lse = _guarded(lse_shape, torch.int32, device)
        self.out = out.view(getattr(torch, problem.dtype.out.torch_name))
        self.lse = lse.view(torch.float32)

    def poison(self) -> None:
        """Fill outputs and guards with the poison NaN."""
        self._out_bits.fill_(POISON_16)
        self._lse_bits.fill_(POISON_32)

    def bits(self) -> tuple[Tensor, Tensor]:
        """Copies of the outputs' bits, for comparing two runs."""
        import torch

        return self.out.view(torch.int16).clone(), self.lse.view(torch.int32).clone()

    def fault(self) -> str:
        """What is wrong with the memory itself: unwritten elements, written guards."""
        import torch

        for name, whole, inner, poison in (
            ("O", self._out_bits, self.out.view(torch.int16), POISON_16),
            ("LSE", self._lse_bits, self.lse.view(torch.int32), POISON_32),
        ):
            unwritten = int((inner == poison).sum())
            if unwritten:
                where = (inner == poison).nonzero()[0].tolist()
                return f"{unwritten} of {inner.numel()} elements of {name} unwritten, first {where}"
            outside = torch.cat((whole[:GUARD_ELEMENTS], whole[-GUARD_ELEMENTS:]))
            touched = int((outside != poison).sum())
            if touched:
                return f"{touched} elements written outside {name}"
        return ""


def _guarded(shape: Sequence[int], dtype: object, device: str) -> tuple[Tensor, Tensor]:
    """A flat buffer with guards, and the view of ``shape`` between them."""
    import torch

    whole = torch.zeros(
        math.prod(shape) + 2 * GUARD_ELEMENTS,
        dtype=torch.int16 if dtype is torch.int16 else torch.int32,
        device=device,
    )
    return whole, whole[GUARD_ELEMENTS:-GUARD_ELEMENTS].view(*shape)


def softmax_scale(problem: AttentionProblem) -> float:
    """The scale every check and timing uses: ``head_dim ** -0.5``."""
    return float(problem.head_dim**-0.5)


def make_inputs(
    problem: AttentionProblem,
    distribution: Distribution,
    seed: int,
    device: str,
    tile_n: int = 128,
) -> Inputs:
    """Fresh random Q, K and V of the problem's type, and their descales where it has any.

    Args:
        tile_n: keys of one KV block; the growth of ``GROWING`` is set per block.
    """
    import torch

    generator = torch.Generator(device=device).manual_seed(seed)
    dtype = getattr(torch, problem.dtype.torch_name)

    def normal(seqlen: int, heads: int, dim: int) -> Tensor:
        shape = (problem.batch, seqlen, heads, dim)
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)

    q = normal(problem.seqlen_q, problem.num_heads_q, problem.head_dim)
    k = normal(problem.seqlen_k, problem.num_heads_kv, problem.head_dim)
    v = normal(problem.seqlen_k, problem.num_heads_kv, problem.head_dim_v)
    if distribution is Distribution.LARGE:
        q, k = q * LARGE_FACTOR, k * LARGE_FACTOR
    elif distribution is Distribution.GROWING:
        # Channel 0 carries the ramp: its logit is share * growth * key / seqlen_k, in nats.
        growth = GROWTH_LOG2_PER_BLOCK * math.log(2) * problem.seqlen_k / tile_n
        amplitude = math.sqrt(growth / softmax_scale(problem))
        shares = torch.tensor(GROWTH_SHARES, device=device)
        rows = torch.arange(problem.seqlen_q, device=device) % len(GROWTH_SHARES)
        q[..., 0] = (amplitude * shares[rows])[None, :, None]
        ramp = torch.arange(problem.seqlen_k, device=device) / problem.seqlen_k
        k[..., 0] = (amplitude * ramp)[None, :, None]
    tensors = q.to(dtype), k.to(dtype), v.to(dtype)
    if problem.dtype is not DType.E4M3:
        return Inputs(*tensors)
    low, high = DESCALES
    drawn = torch.rand((3, problem.batch, problem.num_heads_kv), generator=generator, device=device)
    return Inputs(*tensors, tuple(drawn * (high - low) + low))


def compare(case: CheckCase, output: Output, wanted: Reference, exp2_error: float) -> CaseResult:
    """The rule of :mod:`fa4gen.evaluate.correctness`, over the compared slices."""
    import torch

    slices = case_slices(case)
    rows = slice(None) if case.rows is None else list(case.rows)
    o = torch.stack([output.out[b, :, h] for b, h in slices])[:, rows].double()
    lse = torch.stack([output.lse[b, h] for b, h in slices])[:, rows].double()
    error = (o - wanted.o).abs().nan_to_num(nan=math.inf)
    roundoff = case.problem.dtype.out.unit_roundoff
    bound = wanted.spread * exp2_share(exp2_error)
    flat = allowed_error(float(wanted.worst_16.max()), float(wanted.o.abs().max()), roundoff)
    excess = error - bound - flat
    at = int(excess.argmax())
    worst, allowed = float(error.flatten()[at]), float(bound.flatten()[at]) + flat
    if worst > allowed:
        index, row = divmod(at // o.shape[2], o.shape[1])
        where = _where("O", case, slices[index], _row(case, row))
        return CaseResult(case.kind, worst, allowed, where)
    rms_allowed = allowed_error(_rms(wanted.error_16), _rms(wanted.o), roundoff) + _rms(bound)
    if (rms := _rms(error)) > rms_allowed:
        return CaseResult(
            case.kind, rms, rms_allowed, f"{case.kind}: root mean square of the error of O"
        )
    difference = _lse_difference(lse, wanted)
    if (wrong := _compare_lse(case, difference, wanted, exp2_error)) is not None:
        return wrong
    errors = CaseErrors(case.kind, float(error.max()), rms, float(difference.max()))
    return CaseResult(case.kind, worst, allowed, errors=errors)


def _lse_difference(lse: Tensor, wanted: Reference) -> Tensor:
    """Absolute error of the LSE; 0 or infinite where a row sees nothing, which wants -inf."""
    empty = wanted.lse.isinf()
    difference = (lse - wanted.lse).abs().nan_to_num(nan=math.inf)
    difference[empty] = (lse[empty] != wanted.lse[empty]).double() * math.inf
    return difference.nan_to_num_(nan=0.0)  # 0 * inf: -inf as wanted


def _compare_lse(
    case: CheckCase, difference: Tensor, wanted: Reference, exp2_error: float
) -> CaseResult | None:
    """What is wrong with the LSE, if anything."""
    empty = wanted.lse.isinf()
    baseline = (wanted.lse_32.double() - wanted.lse).abs()[~empty]
    finite = wanted.lse[~empty].abs()
    allowed = allowed_lse_error(
        float(baseline.max()) if baseline.numel() else 0.0,
        float(finite.max()) if finite.numel() else 0.0,
        exp2_error,
    )
    at = int(difference.argmax())
    worst = float(difference.flatten()[at])
    if worst <= allowed:
        return None
    index, row = divmod(at, difference.shape[1])
    where = _where("LSE", case, case_slices(case)[index], _row(case, row))
    return CaseResult(case.kind, worst, allowed, where)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _where(name: str, case: CheckCase, place: tuple[int, int], row: int) -> str:
    return f"{case.kind}: {name} at batch {place[0]}, head {place[1]}, row {row}"


def _row(case: CheckCase, compared: int) -> int:
    """Of the problem, for one of those that are compared."""
    return compared if case.rows is None else case.rows[compared]


def case_slices(case: CheckCase) -> tuple[tuple[int, int], ...]:
    """The (batch, head) pairs that are compared."""
    if case.slices is not None:
        return case.slices
    problem = case.problem
    return tuple((b, h) for b in range(problem.batch) for h in range(problem.num_heads_q))


def run_case(
    kernel: Kernel,
    case: CheckCase,
    *,
    inputs: Inputs,
    launch: Callable[[Callable[[], object]], None],
    exp2_error: float,
) -> CaseResult:
    """Launch ``kernel`` twice on ``inputs`` and judge it.

    Args:
        launch: runs a thunk on the device and waits for it; raises what the device reports.

    Two runs must agree bit for bit: a forward kernel has no atomics, so a moving result is a race.
    """
    import torch

    scale = softmax_scale(case.problem)
    output = Output(case.problem, str(inputs.q.device))
    runs = []
    for _ in range(2):
        output.poison()
        launch(lambda: inputs.launch(kernel, output, scale))
        if fault := output.fault():
            return CaseResult(case.kind, math.inf, 0.0, f"{case.kind}: {fault}")
        runs.append(output.bits())
    moving = sum(int((a != b).sum()) for a, b in zip(*runs, strict=True))
    if moving:
        return CaseResult(
            case.kind,
            math.inf,
            0.0,
            f"{case.kind}: {moving} elements differ between two runs on the same inputs, a race",
        )
    if not bool(torch.isfinite(output.out).all()):
        spots = (~torch.isfinite(output.out)).nonzero()
        b, row, head, _ = spots[0].tolist()
        return CaseResult(case.kind, math.inf, 0.0, _where("O not finite,", case, (b, head), row))
    wanted = reference(inputs, case.problem.causal, scale, case_slices(case), case.rows)
    return compare(case, output, wanted, exp2_error)
