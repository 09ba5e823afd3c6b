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

from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import (
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

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Callable[["Tensor", "Tensor", "Tensor", "Tensor", "Tensor", float], object]
"""``kernel(q, k, v, out, lse, softmax_scale)`` on torch's current stream."""

GUARD_ELEMENTS = 4096
"""Elements before and after each output that no kernel may touch; keeps its alignment."""

POISON_16 = 0x7FA5
"""A NaN of both bf16 and fp16 that no arithmetic produces (results are quiet NaNs)."""
POISON_32 = 0x7FA5A5A5
"""The same for float32."""

P_SCALES = tuple(2 ** (i / 8) for i in range(8))
"""Factors on P before it is rounded to 16 bits (and taken out again afterwards). A kernel's P is
relative to a running maximum, so its roundings are another draw than softmax's; one draw alone
makes a baseline that a right kernel now and then exceeds twofold.

Source: simulation of 900 problems of 512 x 512 at head_dim 128, bf16, P relative to the maximum of
the last 128 keys, 2026-11-21: the largest error over the allowed one was 1.20 with one draw (above
1 four times), 1.09 with four (once), 0.86 with eight and with sixteen."""

CHUNK_BYTES = 512 << 20
"""Largest float64 score matrix held at once by the reference."""


class Inputs(NamedTuple):
    """Q, K and V of one launch."""

    q: Tensor
    k: Tensor
    v: Tensor


class Reference(NamedTuple):
    """Float64 attention of some (batch, head) slices, and the same-precision computation.

    ``lse`` and ``lse_32`` are ``(slices, seqlen_q)``, the rest ``(slices, seqlen_q, head_dim_v)``.
    """

    o: Tensor
    lse: Tensor
    spread: Tensor
    """Standard deviation of V under the row's softmax weights."""
    lse_32: Tensor
    error_16: Tensor
    """Error of the same-precision O."""
    worst_16: Tensor
    """Largest such error over :data:`P_SCALES`."""


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
        self.out = out.view(getattr(torch, problem.dtype.torch_name))
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
    """Fresh random Q, K and V of the problem's type.

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
    return Inputs(q.to(dtype), k.to(dtype), v.to(dtype))


def reference(
    inputs: Inputs, causal: bool, scale: float, slices: Sequence[tuple[int, int]]
) -> Reference:
    """Float64 attention and the same-precision computation of ``slices``, chunked over rows."""
    import torch

    group = inputs.q.shape[2] // inputs.k.shape[2]
    batches = torch.tensor([b for b, _ in slices], device=inputs.q.device)
    heads = torch.tensor([h for _, h in slices], device=inputs.q.device)
    q = inputs.q[batches, :, heads]
    k = inputs.k[batches, :, heads // group]
    v = inputs.v[batches, :, heads // group]
    rows, keys = q.shape[1], k.shape[1]
    step = max(1, CHUNK_BYTES // (8 * keys * len(slices)))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        parts = []
        for begin in range(0, rows, step):
            chunk = q[:, begin : begin + step]
            row = torch.arange(begin, begin + chunk.shape[1], device=q.device)
            hidden = None
            if causal:
                hidden = torch.arange(keys, device=q.device) > row[:, None] + keys - rows
            exact = _exact(chunk, k, v, scale, hidden)
            parts.append((*exact, *_same((chunk, k, v), scale, hidden, exact[0])))
    finally:
        torch.set_float32_matmul_precision(precision)
    return Reference(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))


def _exact(
    q: Tensor, k: Tensor, v: Tensor, scale: float, hidden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """O, LSE and the spread of V in float64."""
    p, row_sum, lse = _weights(q.double(), k.double(), scale, hidden)
    p = p / row_sum.clamp_min(1e-300).unsqueeze(-1)
    v64 = v.double()
    o = p @ v64
    spread = (p @ v64.square() - o.square()).clamp_min_(0).sqrt_()
    return o, lse, spread


def _same(
    qkv: tuple[Tensor, Tensor, Tensor], scale: float, hidden: Tensor | None, o: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As PyTorch computes it: float32 softmax, P and O rounded to 16 bits.

    Gives the LSE, the error of O against ``o``, and the largest error over :data:`P_SCALES`.
    """
    import torch

    q, k, v = qkv
    p, row_sum, lse = _weights(q.float(), k.float(), scale, hidden)
    p /= row_sum.clamp_min(1e-30).unsqueeze(-1)
    v32 = v.float()
    errors = []
    for factor in P_SCALES:
        rounded = (p * factor).to(v.dtype).float() @ v32
        errors.append(((rounded / factor).to(v.dtype).double() - o).abs())
    return lse, errors[0], torch.stack(errors).amax(0)


def _weights(
    q: Tensor, k: Tensor, scale: float, hidden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """``exp(s - max)``, its row sums and the LSE; a row that sees nothing gives 0, 0, -inf."""
    scores = q @ k.transpose(-1, -2)
    scores *= scale
    if hidden is not None:
        scores.masked_fill_(hidden, -math.inf)
    row_max = scores.amax(-1)
    base = row_max.clamp_min(-1e30)  # -inf would make exp(-inf + inf) a NaN
    p = scores.sub_(base.unsqueeze(-1)).exp_()
    row_sum = p.sum(-1)
    return p, row_sum, base.where(row_max.isfinite(), row_max) + row_sum.log()


def compare(case: CheckCase, output: Output, wanted: Reference, exp2_error: float) -> CaseResult:
    """The rule of :mod:`fa4gen.evaluate.correctness`, over the compared slices."""
    import torch

    slices = case_slices(case)
    o = torch.stack([output.out[b, :, h] for b, h in slices]).double()
    lse = torch.stack([output.lse[b, h] for b, h in slices]).double()
    error = (o - wanted.o).abs().nan_to_num(nan=math.inf)
    roundoff = case.problem.dtype.unit_roundoff
    bound = wanted.spread * exp2_share(exp2_error)
    flat = allowed_error(float(wanted.worst_16.max()), float(wanted.o.abs().max()), roundoff)
    excess = error - bound - flat
    at = int(excess.argmax())
    worst, allowed = float(error.flatten()[at]), float(bound.flatten()[at]) + flat
    if worst > allowed:
        index, row = divmod(at // o.shape[2], o.shape[1])
        return CaseResult(case.kind, worst, allowed, _where("O", case, slices[index], row))
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
    where = _where("LSE", case, case_slices(case)[index], row)
    return CaseResult(case.kind, worst, allowed, where)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _where(name: str, case: CheckCase, place: tuple[int, int], row: int) -> str:
    return f"{case.kind}: {name} at batch {place[0]}, head {place[1]}, row {row}"


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
        launch(lambda: kernel(*inputs, output.out, output.lse, scale))
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
    wanted = reference(inputs, case.problem.causal, scale, case_slices(case))
    return compare(case, output, wanted, exp2_error)
