"""Which inputs a kernel must get right, and how far off it may be. No torch.

The rule (per input kind, over all compared elements of O)::

    |o - o64|  <=  2 * e16 + b

``o64`` is float64 attention on the same inputs; ``e16`` the largest error of the same-precision
computation (16-bit inputs, float32 logits and sums, P rounded to 16 bits before PV, O rounded to
16 bits; the worst of a few draws of P's rounding; in e4m3 P is rounded to 8 bits, and on a GPU the
tensor core's short accumulators are simulated); ``b`` what an exp2 with relative error ``eps``
may move this element::

    b = eps / (1 - eps) * sqrt(E[v^2] - E[v]^2)       expectation over the row's softmax weights

which follows from ``o' - o = sum(p d (v - o)) / sum(p (1 + d))`` with ``|d| <= eps`` and Jensen's
inequality. The root mean square over the case obeys the same rule, so that a small error
everywhere cannot hide under one large rounding.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from enum import StrEnum

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem

FACTOR = 2.0
"""How many times the error of the same-precision computation a kernel may have."""

LSE_ROUNDING = 2.0**-17
"""Relative floor of the LSE's allowance: a few dozen float32 roundings of a logit and of a sum,
for the tensor core's own summation order and the hardware's approximate logarithm."""

GROWTH_LOG2_PER_BLOCK = 16.0
"""Rise of the logits over one KV block in the ``growing`` kind, for rows that rise fastest. Twice
the largest rescale threshold; other rows rise by a half, a quarter ... of it, or fall."""


P_SCALES = tuple(2 ** (i / 8) for i in range(8))
"""Factors on P before it is rounded to 16 or 8 bits (and taken out again afterwards). A kernel's P
is relative to a running maximum, so its roundings are another draw than softmax's; one draw alone
makes a baseline that a right kernel now and then exceeds twofold.

Source: simulation of 900 problems of 512 x 512 at head_dim 128, bf16, P relative to the maximum of
the last 128 keys, 2026-11-21: the largest error over the allowed one was 1.20 with one draw (above
1 four times), 1.09 with four (once), 0.86 with eight and with sixteen.

On an H200, 2026-11-22, the largest error of 8266 and 6635 draws of ``normal`` for two kernels is
0.91 and 0.99 of the allowed one, and of the same arithmetic in torch 0.89 and 0.98. Of some 10 000
kernels, seven kinds each, one was refused that is probably right, with 1.03."""

DESCALES = (0.5, 1.5)
"""Between which descales are drawn, uniformly: a kernel that left one out would be wrong."""

E4M3_P_SCALE = 2.0**4
"""P of the row maximum where the same-precision computation rounds P to e4m3: the middle of what a
kernel may choose, whose largest P is 2 ** 8 under a stale maximum and as little as 1 without."""

REFERENCE_LOGITS = 2e8
"""Logits (compared query rows x keys x slices) that the reference of the problem's own shape may
compute, as far as :data:`LARGEST_ROW_STEP` allows.

A logit costs the reference some 300 bytes of passes over score matrices and about ``16 *
head_dim`` operations, half of them in float64: about 0.4 ns (source: trials on an H200,
2026-11-21, where 4 slices of 16384 x 16384 cost 0.4 s beyond their launches). So this many are
0.08 s, as long as 30 launches of 16384 x 16384 with 16 heads."""

E4M3_COST = 32
"""Logits of 16 bits that one of e4m3 counts as: its products are taken one by one, since Hopper's
accumulators cut each of them off (see :mod:`fa4gen.evaluate.gpu_accumulator`). Source: trials on an
H200, 2026-11-22, where a slice of 16384 x 16384 cost 3.5 s."""

MOST_SLICES = 4
"""(batch, head) slices of the problem's own shape that are compared with float64."""

LARGEST_ROW_STEP = 63
"""From a compared row to the next, at most. No query tile is shorter unless it packs heads, so none
is left out. Steps are odd, so that the rows are at every place of a tile."""


class Distribution(StrEnum):
    """How Q and K are drawn; V is always standard normal."""

    NORMAL = "normal"
    """Standard normal: logits of standard deviation 1."""
    LARGE = "large"
    """Logits of standard deviation 9: the row maximum jumps at random keys."""
    GROWING = "growing"
    """Logits rise (some rows fall) steadily along the keys: O is rescaled block after block."""


LARGE_FACTOR = 3.0
"""Factor on Q and on K of :attr:`Distribution.LARGE`."""

GROWTH_SHARES = (1.0, 0.5, 0.25, 0.625, 0.0, -0.5, 0.125, 1.0)
"""Share of the growth by row, cyclic: neighbouring rows disagree on whether to rescale."""


@dataclass(frozen=True, slots=True)
class CheckCase:
    """One input to try a kernel on."""

    kind: str
    problem: AttentionProblem
    distribution: Distribution
    slices: tuple[tuple[int, int], ...] | None = None
    """(batch, query head) pairs compared with float64; ``None`` for all. All elements are checked
    for having been written in any case."""
    rows: tuple[int, ...] | None = None
    """Query rows of those that are compared, in order; ``None`` for all."""


@dataclass(frozen=True, slots=True)
class CaseErrors:
    """How far a kernel that passed was from float64 attention on one input; absolute errors."""

    kind: str
    o_max: float
    """Largest of O."""
    o_rms: float
    """Root mean square of O."""
    lse_max: float
    """Largest of the LSE, in nats; rows that see nothing left out."""


def check_cases(
    problem: AttentionProblem, config: KernelConfig, seed: int
) -> tuple[CheckCase, ...]:
    """Small shapes around the kernel's tiles, then the problem's own shape, sampled."""
    return (*small_cases(problem, config), own_case(problem, seed))


def small_cases(problem: AttentionProblem, config: KernelConfig) -> tuple[CheckCase, ...]:
    """Shapes that cross every edge of the tiling, small enough to compare in full.

    * ``normal``: whole tiles;
    * ``large``, ``growing``: enough KV blocks to go round the ring of stages more than twice;
    * ``ragged``: neither length a multiple of anything;
    * ``short``: one query row, keys that do not fill one block;
    * ``offset``: more keys than queries, so that a causal diagonal starts inside a block;
    * ``masked``, causal only: more queries than keys, a whole query tile sees nothing.
    """
    m, n = config.tile_m, config.tile_n
    blocks = 2 * config.num_kv_stages + 1
    ring = max(5, blocks) * n
    lengths = [
        ("normal", Distribution.NORMAL, 2 * m, max(4 * n, 2 * m)),
        ("large", Distribution.LARGE, m + m // 2, max(ring, m + m // 2)),
        ("growing", Distribution.GROWING, m + m // 2, max(ring, m + m // 2)),
        ("ragged", Distribution.NORMAL, 2 * m + 37, 2 * m + 37),
        ("short", Distribution.LARGE, 1, n // 2 + 3),
        ("offset", Distribution.NORMAL, m - 27, m - 27 + 2 * n + 29),
    ]
    if problem.causal:
        lengths.append(("masked", Distribution.NORMAL, 2 * m + 17 + n // 2, n // 2 + 5))
    small = small_batch(problem)
    return tuple(
        CheckCase(kind, replace(small, seqlen_q=q, seqlen_k=k), distribution)
        for kind, distribution, q, k in lengths
    )


def small_batch(problem: AttentionProblem) -> AttentionProblem:
    """The problem with 2 batches and 2 K/V heads (1 where groups are large)."""
    few, large_group = 2, 8
    group = problem.qhead_per_kvhead
    heads_kv = few if group <= large_group else 1
    return replace(problem, batch=few, num_heads_kv=heads_kv, num_heads_q=heads_kv * group)


def own_case(problem: AttentionProblem, seed: int) -> CheckCase:
    """The problem itself: the first (batch, head), the last and others at random; of a long one
    every so many rows, from a random one on, and the last.

    The last ones lie behind the largest offsets. Whether every element was written, is finite and
    comes out the same twice is looked at everywhere.
    """
    rng = random.Random(seed)
    total = problem.batch * problem.num_heads_q
    count = min(MOST_SLICES, total)
    picked = {divmod(flat, problem.num_heads_q) for flat in (0, total - 1)}
    for flat in rng.sample(range(total), count):
        if len(picked) < count:
            picked.add(divmod(flat, problem.num_heads_q))
    step, rows = row_step(problem), None
    if step > 1:
        every = range(rng.randrange(step), problem.seqlen_q, step)
        rows = tuple(sorted({*every, problem.seqlen_q - 1}))
    return CheckCase("problem", problem, Distribution.NORMAL, tuple(sorted(picked)), rows)


def row_step(problem: AttentionProblem) -> int:
    """How far apart rows of the problem's own shape are that the reference can afford."""
    logits = MOST_SLICES * problem.seqlen_q * problem.seqlen_k
    if problem.dtype is DType.E4M3:
        logits *= E4M3_COST
    return min(LARGEST_ROW_STEP, problem.seqlen_q, math.ceil(logits / REFERENCE_LOGITS)) | 1


def allowed_error(baseline: float, largest: float, unit_roundoff: float) -> float:
    """Allowance for O without the polynomial's share, absolute.

    Args:
        baseline: error of the same-precision computation (largest, or root mean square).
        largest: largest ``|o64|`` (or its root mean square). One rounding of it is the floor: a
            baseline that happens to be exact must not refuse a correctly rounded result.
        unit_roundoff: of the output's type.
    """
    return FACTOR * max(baseline, largest * unit_roundoff / FACTOR)


def allowed_lse_error(baseline: float, largest: float, exp2_error: float) -> float:
    """Allowance for the LSE, absolute, natural log: the sum moves by ``eps``, the LSE as much."""
    return FACTOR * baseline + LSE_ROUNDING * max(1.0, largest) + exp2_share(exp2_error)


def exp2_share(exp2_error: float) -> float:
    """``eps / (1 - eps)``: factor on the spread of V that a relative exp2 error may move O by."""
    return exp2_error / (1.0 - exp2_error)
