"""Where a search begins: the cycle model's favourites, and winners of problems like this one.

The space's default is not among them: it is the anchor, and always evaluated first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from fa4gen.core.config import KernelConfig
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db.values import DispatchRow
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Sku
from fa4gen.perf import shortlist
from fa4gen.space import SearchSpace


def model_seeds(
    problem: AttentionProblem, sku: Sku, space: SearchSpace, count: int
) -> list[KernelConfig]:
    """The ``count`` fastest of the space under the cycle model, fastest first.

    A list of look-alikes would teach the search little, so one (tile_m, tile_n) takes no more
    than half of the places, as far as the model's shortlist has others.
    """
    if count < 1:
        return []
    ranked = [entry.config for entry in shortlist(problem, space, sku, limit=8 * count)]
    per_tile = max(1, count // 2)
    used: Counter[tuple[int, int]] = Counter()
    varied = []
    for config in ranked:
        tile = (config.tile_m, config.tile_n)
        used[tile] += 1
        if used[tile] <= per_tile:
            varied.append(config)
    return varied[:count]


def distance(a: AttentionProblem, b: AttentionProblem) -> float:
    """How unlike two problems are for a kernel's knobs; 0 for equal ones, infinite across dims.

    One unit is a factor of 2 in a sequence length. The number of CTAs (batch times heads)
    matters less; another mask or GQA group is worth a factor of 8, another dtype of 2.
    """
    mine, theirs = a.signature, b.signature
    if mine.head_dim_padded != theirs.head_dim_padded:
        return math.inf
    if mine.head_dim_v_padded != theirs.head_dim_v_padded:
        return math.inf

    def octaves(x: float, y: float) -> float:
        return abs(math.log2(x / y))

    return (
        octaves(a.seqlen_q, b.seqlen_q)
        + octaves(a.seqlen_k, b.seqlen_k)
        + 0.25 * octaves(a.batch * a.num_heads_q, b.batch * b.num_heads_q)
        + 3.0 * (a.causal != b.causal)
        + 3.0 * (a.qhead_per_kvhead != b.qhead_per_kvhead)
        + 1.0 * (a.dtype != b.dtype)
    )


def nearest_seeds(
    problem: AttentionProblem,
    here: tuple[Sku, Source],
    rows: Sequence[DispatchRow],
    count: int,
) -> list[KernelConfig]:
    """Winning configurations of the ``count`` nearest problems that can run this one.

    Rows of another SKU count one unit further away, so that a winner found on a B300 is a start
    for a B200, but not before the B200's own; so do rows of another source.
    """
    sku, source = here
    signature, arch = problem.signature, sku.arch
    ranked = []
    for row in rows:
        away = distance(problem, row.problem)
        away += 1.0 * (row.sku != sku.name) + 1.0 * (row.source is not source)
        if math.isfinite(away):
            ranked.append((away, row.config))
    ranked.sort(key=lambda entry: entry[0])
    chosen: dict[str, KernelConfig] = {}
    for _, candidate in ranked:
        config = canonicalise(signature, candidate, arch)
        if len(chosen) < count and check(signature, config, arch):
            chosen.setdefault(config.config_id, config)
    return list(chosen.values())
