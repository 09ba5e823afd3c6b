"""Is a compiled attention kernel right? Asked of the emulator, with the rule a GPU is held to.

Everything is NumPy; a GPU, torch and CuTe-DSL are not needed once the kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fa4gen.core.dtypes import DType
from fa4gen.core.errors import KernelFault
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.emulate import Options
from fa4gen.emulator.launch import CompiledHost
from fa4gen.emulator.session import POLICIES, Report, run
from fa4gen.evaluate.correctness import (
    DESCALES,
    E4M3_P_SCALE,
    GROWTH_LOG2_PER_BLOCK,
    GROWTH_SHARES,
    LARGE_FACTOR,
    P_SCALES,
    Distribution,
    allowed_error,
    allowed_lse_error,
    exp2_share,
)
from fa4gen.numerics.reference import attention_fp64

Array = npt.NDArray[Any]
NUMPY_DTYPES: dict[DType, Any] = {
    DType.BF16: ml_dtypes.bfloat16,
    DType.FP16: np.float16,
    DType.E4M3: ml_dtypes.float8_e4m3fn,
}
GROWTH_KEYS = 128
"""Keys over which the logits of the ``growing`` inputs rise by one step."""
NO_WORKSPACE = Workspace()
DEFAULT_NUM_SMS = 2
"""CTAs of a persistent kernel: few, so that small problems still give each several tiles."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One input for a kernel."""

    problem: AttentionProblem
    distribution: Distribution = Distribution.NORMAL
    seed: int = 0
    num_sms: int = DEFAULT_NUM_SMS
    """What a persistent kernel is told; few make its CTAs run several tiles each."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One output against float64."""

    name: str
    """``O`` or ``LSE``."""
    max_error: float
    """Absolute; infinite if an element was not written or is no number."""
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the error is allowed."""
        return self.max_error <= self.allowed


@dataclass(frozen=True, slots=True)
class AttentionReport:
    """What the emulator found on one problem."""

    trial: Trial
    report: Report
    accuracies: tuple[Accuracy, ...]

    @property
    def ok(self) -> bool:
        """Whether the numbers are right and nothing else is wrong."""
        return self.report.ok and all(accuracy.ok for accuracy in self.accuracies)


def emulate_attention(
    host: CompiledHost,
    trial: Trial,
    *,
    policies: Sequence[str] = POLICIES,
    exp2_error: float = 0.0,
    options: Options | None = None,
    workspace: Workspace = NO_WORKSPACE,
) -> AttentionReport:
    """Emulate a forward kernel of fa4gen on random inputs and compare it with float64.

    Args:
        host: A compiled kernel of fa4gen's signature
            ``(q, k, v, out, lse, [workspace,] softmax_scale, num_sms)``.
        workspace: What the kernel takes besides.
        exp2_error: Relative error of the kernel's exp2 that is allowed for.

    Raises:
        InputError: the problem is too large to emulate.
        KernelFault: the numbers are right, but the counter of tiles is not zero afterwards.
        EmulationError: the kernel cannot be emulated.
    """
    problem = trial.problem
    inputs = make_inputs(problem, trial.distribution, trial.seed)
    descales = make_descales(problem, trial.seed)
    outputs = poisoned_outputs(problem)
    scale = float(problem.head_dim) ** -0.5
    tensors = kernel_tensors(inputs, outputs, descales, workspace)
    report = run(host, *tensors, scale, trial.num_sms, policies=policies, options=options)
    accuracies = compare(problem, inputs, outputs, scale, exp2_error, descales)
    found = AttentionReport(trial, report, accuracies)
    if found.ok and workspace.tile_counter and tensors[-1].any():
        raise KernelFault(
            f"tile counter: got {int(tensors[-1][0])} after the launch, allowed: 0, where the next "
            f"launch begins; let the last of its answers wrap it"
        )
    return found


def kernel_tensors(
    inputs: tuple[Array, Array, Array],
    outputs: tuple[Array, Array],
    descales: tuple[Array, ...] = (),
    workspace: Workspace = NO_WORKSPACE,
) -> tuple[Array, ...]:
    """The tensors of a kernel's call, in order; 8-bit ones as bytes, as kernels take them."""
    q, k, v = (x.view(np.uint8) if x.dtype.itemsize == 1 else x for x in inputs)
    out, lse = outputs
    shapes = workspace.split_shapes(lse.shape, out.shape[-1])
    splits = [np.full(shape, np.nan, np.float32) for shape in shapes]
    counter = [np.zeros(1, np.int32)] if workspace.tile_counter else []
    return (q, k, v, out, lse, *descales, *splits, *counter)


def make_inputs(
    problem: AttentionProblem, distribution: Distribution, seed: int
) -> tuple[Array, Array, Array]:
    """Q, K and V of a problem: ``(batch, seqlen, num_heads, head_dim)`` in its dtype."""
    rng = np.random.default_rng(seed)
    p = problem
    q = rng.standard_normal((p.batch, p.seqlen_q, p.num_heads_q, p.head_dim), np.float32)
    k = rng.standard_normal((p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim), np.float32)
    v = rng.standard_normal((p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim_v), np.float32)
    if distribution is Distribution.LARGE:
        q, k = q * np.float32(LARGE_FACTOR), k * np.float32(LARGE_FACTOR)
    elif distribution is Distribution.GROWING:
        # Dimension 0 carries the trend: q gives each row its share, k the position.
        steps = np.arange(p.seqlen_k, dtype=np.float32) / GROWTH_KEYS
        k[..., 0] = steps[None, :, None]
        shares = np.resize(np.asarray(GROWTH_SHARES, np.float32), p.seqlen_q)
        rise = GROWTH_LOG2_PER_BLOCK * np.log(2.0) * float(p.head_dim) ** 0.5
        q[..., 0] = np.float32(rise) * shares[None, :, None]
    dtype = NUMPY_DTYPES[p.dtype]
    return q.astype(dtype), k.astype(dtype), v.astype(dtype)


def make_descales(problem: AttentionProblem, seed: int) -> tuple[Array, ...]:
    """Descales of Q, K and V, float32 ``(batch, num_heads_kv)``; none of 16-bit types."""
    if problem.dtype is not DType.E4M3:
        return ()
    rng = np.random.default_rng((seed, 1))
    shape = (problem.batch, problem.num_heads_kv)
    return tuple(rng.uniform(*DESCALES, shape).astype(np.float32) for _ in range(3))


def poisoned_outputs(problem: AttentionProblem) -> tuple[Array, Array]:
    """O and LSE full of NaN."""
    p = problem
    shape = (p.batch, p.seqlen_q, p.num_heads_q, p.head_dim_v)
    out = np.full(shape, np.nan, NUMPY_DTYPES[p.dtype.out])
    return out, np.full((p.batch, p.num_heads_q, p.seqlen_q), np.nan, np.float32)


def compare(
    problem: AttentionProblem,
    inputs: tuple[Array, Array, Array],
    outputs: tuple[Array, Array],
    scale: float,
    exp2_error: float,
    descales: tuple[Array, ...] = (),
) -> tuple[Accuracy, Accuracy]:
    """O and LSE against float64, by the rule of :mod:`fa4gen.evaluate.correctness`.

    Products count as exactly summed, as the emulator sums them unless told otherwise.
    """
    q, k, v = _true_values(inputs, descales)
    o64, lse64 = attention_fp64(q, k, v, scale, problem.causal)
    square, _ = attention_fp64(q, k, v.astype(np.float64) ** 2, scale, problem.causal)
    spread = np.sqrt(np.maximum(square - o64**2, 0.0))
    worst, lse32 = _same_precision(problem, (q, k, v), scale, o64)
    roundoff = problem.dtype.out.unit_roundoff
    flat = allowed_error(worst, float(np.abs(o64).max()), roundoff)
    bound = spread * exp2_share(exp2_error)
    error = np.nan_to_num(np.abs(outputs[0].astype(np.float64) - o64), nan=np.inf)
    at = int((error - bound).argmax())
    o = Accuracy("O", float(error.flat[at]), float(bound.flat[at]) + flat)
    return o, _compare_lse(outputs[1].astype(np.float64), lse64, lse32, exp2_error)


def _compare_lse(lse: Array, lse64: Array, lse32: Array, exp2_error: float) -> Accuracy:
    empty = np.isinf(lse64)
    wrong = (lse[empty] != lse64[empty]).any() or not np.isfinite(lse[~empty]).all()
    if wrong:
        return Accuracy("LSE", np.inf, 0.0)
    seen = lse64[~empty]
    baseline = float(np.abs(lse32[~empty] - seen).max(initial=0.0))
    largest = float(np.abs(seen).max(initial=0.0))
    error = float(np.abs(lse[~empty] - seen).max(initial=0.0))
    return Accuracy("LSE", error, allowed_lse_error(baseline, largest, exp2_error))


def _true_values(
    inputs: tuple[Array, Array, Array], descales: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    """Q, K and V times their descales."""
    if not descales:
        return inputs
    group = inputs[0].shape[2] // inputs[1].shape[2]
    of_heads = np.repeat(descales[0], group, axis=1), *descales[1:]
    q, k, v = (
        x.astype(np.float64) * descale[:, None, :, None]
        for x, descale in zip(inputs, of_heads, strict=True)
    )
    return q, k, v


def _same_precision(
    problem: AttentionProblem, inputs: tuple[Array, Array, Array], scale: float, o64: Array
) -> tuple[float, Array]:
    """The largest error of O, and the LSE, as PyTorch computes them: float32 softmax, P and O
    rounded to 16 bits; in e4m3 P to 8 bits, relative to its row maximum. The worst of some draws of
    P's rounding, as on a GPU.
    """
    dtype, out_dtype = NUMPY_DTYPES[problem.dtype], NUMPY_DTYPES[problem.dtype.out]
    group = problem.qhead_per_kvhead
    q, k, v = (x.astype(np.float32).transpose(0, 2, 1, 3) for x in inputs)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = (q @ k.transpose(0, 1, 3, 2)) * np.float32(scale)
    if problem.causal:
        offset = problem.seqlen_k - problem.seqlen_q
        rows, keys = np.ogrid[: problem.seqlen_q, : problem.seqlen_k]
        scores = np.where(keys > rows + offset, np.float32(-np.inf), scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = np.maximum(scores.max(-1, keepdims=True), np.float32(-1e30))
        p = np.exp(scores - peak)
        total = p.sum(-1, keepdims=True)
        lse = (peak + np.log(total))[..., 0]
        total = np.maximum(total, np.float32(1e-30))
    lifts = [np.float32(factor) for factor in P_SCALES]
    draws = [(p / total * lift, lift) for lift in lifts]
    if problem.dtype is DType.E4M3:
        lifts = [np.float32(E4M3_P_SCALE) * lift for lift in lifts]
        draws = [(p * lift, lift * total) for lift in lifts]
    exact, worst = o64.transpose(0, 2, 1, 3), 0.0
    for weights, divisor in draws:
        product = weights.astype(dtype).astype(np.float32) @ v
        out = (product / divisor).astype(out_dtype).astype(np.float64)
        worst = max(worst, float(np.abs(out - exact).max()))
    return worst, np.asarray(lse, np.float64)
