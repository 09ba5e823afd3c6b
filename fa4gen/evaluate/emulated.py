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

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import workspace_shapes
from fa4gen.emulator.emulate import Options
from fa4gen.emulator.launch import CompiledHost
from fa4gen.emulator.session import POLICIES, Report, run
from fa4gen.evaluate.correctness import (
    GROWTH_LOG2_PER_BLOCK,
    GROWTH_SHARES,
    LARGE_FACTOR,
    Distribution,
    allowed_error,
    allowed_lse_error,
    exp2_share,
)
from fa4gen.numerics.reference import attention_fp64

Array = npt.NDArray[Any]
NUMPY_DTYPES: dict[DType, Any] = {DType.BF16: ml_dtypes.bfloat16, DType.FP16: np.float16}
GROWTH_KEYS = 128
"""Keys over which the logits of the ``growing`` inputs rise by one step."""
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
    num_splits: int = 1,
) -> AttentionReport:
    """Emulate a forward kernel of fa4gen on random inputs and compare it with float64.

    Args:
        host: A compiled kernel of fa4gen's signature
            ``(q, k, v, out, lse, [workspace,] softmax_scale, num_sms)``.
        num_splits: The kernel's; above 1 it takes workspace.
        exp2_error: Relative error of the kernel's exp2 that is allowed for.

    Raises:
        InputError: the problem is too large to emulate.
        EmulationError: the kernel cannot be emulated.
    """
    problem = trial.problem
    q, k, v = make_inputs(problem, trial.distribution, trial.seed)
    out, lse = poisoned_outputs(problem)
    scale = float(problem.head_dim) ** -0.5
    arguments = (q, k, v, out, lse, *_workspace(num_splits, lse, out), scale, trial.num_sms)
    report = run(host, *arguments, policies=policies, options=options)
    accuracies = compare(problem, (q, k, v), (out, lse), scale, exp2_error)
    return AttentionReport(trial, report, accuracies)


def _workspace(num_splits: int, lse: Array, out: Array) -> list[Array]:
    config = KernelConfig(num_splits=num_splits)
    shapes = workspace_shapes(config, lse.shape, out.shape[-1]) or ()
    return [np.full(shape, np.nan, np.float32) for shape in shapes]


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


def poisoned_outputs(problem: AttentionProblem) -> tuple[Array, Array]:
    """O and LSE full of NaN."""
    p = problem
    shape = (p.batch, p.seqlen_q, p.num_heads_q, p.head_dim_v)
    out = np.full(shape, np.nan, NUMPY_DTYPES[p.dtype])
    return out, np.full((p.batch, p.num_heads_q, p.seqlen_q), np.nan, np.float32)


def compare(
    problem: AttentionProblem,
    inputs: tuple[Array, Array, Array],
    outputs: tuple[Array, Array],
    scale: float,
    exp2_error: float,
) -> tuple[Accuracy, Accuracy]:
    """O and LSE against float64, by the rule of :mod:`fa4gen.evaluate.correctness`."""
    q, k, v = inputs
    o64, lse64 = attention_fp64(q, k, v, scale, problem.causal)
    square, _ = attention_fp64(q, k, v.astype(np.float64) ** 2, scale, problem.causal)
    spread = np.sqrt(np.maximum(square - o64**2, 0.0))
    o16, lse32 = _same_precision(problem, inputs, scale)
    roundoff = problem.dtype.unit_roundoff
    flat = allowed_error(float(np.abs(o16 - o64).max()), float(np.abs(o64).max()), roundoff)
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


def _same_precision(
    problem: AttentionProblem, inputs: tuple[Array, Array, Array], scale: float
) -> tuple[Array, Array]:
    """As PyTorch computes it: float32 softmax, P and O rounded to 16 bits."""
    dtype = NUMPY_DTYPES[problem.dtype]
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
        p = p / np.maximum(total, np.float32(1e-30))
    out = (p.astype(dtype).astype(np.float32) @ v).astype(dtype).astype(np.float64)
    return out.transpose(0, 2, 1, 3), np.asarray(lse, np.float64)
