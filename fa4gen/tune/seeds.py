"""Where a search begins: the cycle model's favourites, and winners of problems like this one.

The space's default is not among them: it is the anchor, and always evaluated first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.errors import UnknownName
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db.values import DispatchRow
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Arch, Sku, load_sku
from fa4gen.perf import rank, shortlist
from fa4gen.space import SearchSpace
from fa4gen.tune.effort import Effort

_FAVOURITES = 8
"""Least number of seeds that the model's shortlist is made for."""


def model_seeds(
    problem: AttentionProblem, sku: Sku, space: SearchSpace, count: int
) -> list[KernelConfig]:
    """Fast configurations of the space under the cycle model, of ``count`` different kinds.

    What the model is wrong about it is wrong about for all its favourites, so they are tried in
    every :func:`style`; see :func:`diverse` for the order.
    """
    if count < 1:
        return []
    anchor = space.default(problem.signature)
    found: dict[str, KernelConfig] = {}
    for entry in shortlist(problem, space, sku, limit=4 * max(count, _FAVOURITES)):
        for candidate in _restyled(entry.config, anchor, space):
            config = canonicalise(problem.signature, candidate, sku.arch)
            if check(problem.signature, config, sku.arch):
                found.setdefault(config.config_id, config)
    return seeds_among(found.values(), problem, sku, anchor, count)


def seeds_among(
    configs: Iterable[KernelConfig],
    problem: AttentionProblem,
    sku: Sku,
    anchor: KernelConfig,
    count: int,
) -> list[KernelConfig]:
    """``count`` of these configurations to begin with: fast by the model, of different kinds.

    A style whose best the model sees behind the fastest of all by more than :data:`STYLE_MARGIN`
    is left out.
    """
    ranked = rank(problem, configs, sku)
    best_us: dict[Style, float] = {}
    for entry in ranked:
        best_us.setdefault(style(entry.config, anchor), entry.prediction.time_us)
    limit_us = min(best_us.values(), default=0.0) * STYLE_MARGIN
    hopeful = {each for each, time_us in best_us.items() if time_us <= limit_us}
    chosen = [entry.config for entry in ranked if style(entry.config, anchor) in hopeful]
    return diverse(chosen, anchor, count)


STYLE_MARGIN = 1.05
"""The best of four seeds then is 0.27 % behind the best of the recorded sweep (mean of 23 problems)
and 0.04 % in the recorded trials (63); with every style 0.63 and 0.26 %, with 1.08 0.27 and 0.09 %.
"""
Style = tuple[bool, bool, bool]
"""What sets a kernel apart from the default: another scheduler, a polynomial where the default has
none or none where it has one, and likewise rescales left out."""


def style(config: KernelConfig, anchor: KernelConfig) -> Style:
    """The style of a configuration; all false is plain."""
    return (
        config.scheduler is not anchor.scheduler,
        (config.exp2_poly_fraction > 0.0) is not (anchor.exp2_poly_fraction > 0.0),
        (config.rescale_threshold_log2 > 0.0) is not (anchor.rescale_threshold_log2 > 0.0),
    )


def diverse(ranked: Sequence[KernelConfig], anchor: KernelConfig, count: int) -> list[KernelConfig]:
    """``count`` of ``ranked`` (fastest first) that teach a search more than the fastest few do.

    The best of each style in turn: the plain one first, then those that differ from it in two
    ways, then those that differ in one or three; faster ones earlier. So four seeds are half of a
    factorial design, in which every one of the three choices is tried twice and left twice (where
    ``ranked`` has all styles). One (tile_m, tile_n) takes no more than half of the places, the
    anchor counted, as far as a style has others. The anchor itself is left out.
    """
    waiting: dict[Style, list[KernelConfig]] = {}
    for config in ranked:
        if config != anchor:
            waiting.setdefault(style(config, anchor), []).append(config)
    order = sorted(waiting, key=lambda each: (any(each), sum(each) % 2))
    used = Counter([_tile(anchor)])
    most = max(1, count // 2)
    chosen: list[KernelConfig] = []
    while len(chosen) < count and any(waiting.values()):
        for each in order:
            if len(chosen) == count or not waiting[each]:
                continue
            fresh = (config for config in waiting[each] if used[_tile(config)] < most)
            config = next(fresh, waiting[each][0])
            waiting[each].remove(config)
            used[_tile(config)] += 1
            chosen.append(config)
    return chosen


def _tile(config: KernelConfig) -> tuple[int, int]:
    return config.tile_m, config.tile_n


def _restyled(
    config: KernelConfig, anchor: KernelConfig, space: SearchSpace
) -> Iterator[KernelConfig]:
    """``config`` under every scheduler, with and without its polynomial and a threshold."""
    schedulers = (Scheduler(str(value)) for value in space.knob("scheduler").values)
    widest = max(float(value) for value in space.knob("rescale_threshold_log2").values)
    for scheduler in dict.fromkeys((anchor.scheduler, *schedulers)):
        for fraction in dict.fromkeys((0.0, config.exp2_poly_fraction)):
            for threshold in dict.fromkeys((0.0, config.rescale_threshold_log2 or widest)):
                yield replace(
                    config,
                    scheduler=scheduler,
                    exp2_poly_fraction=fraction,
                    rescale_threshold_log2=threshold,
                )


class Seeder:
    """Seeds for the problems of a run; the model is asked once a problem."""

    def __init__(self, here: tuple[Sku, Source], space: SearchSpace, effort: Effort) -> None:
        self._here, self._space, self._effort = here, space, effort
        self._modelled: dict[str, list[KernelConfig]] = {}

    def seeds(
        self, problem: AttentionProblem, rows: Sequence[DispatchRow]
    ) -> list[tuple[str, KernelConfig]]:
        """(origin, configuration) in the order to try them; ``rows`` are what has been tuned."""
        effort, sku = self._effort, self._here[0]
        key = problem.problem_id
        if key not in self._modelled:
            self._modelled[key] = model_seeds(problem, sku, self._space, effort.model_seeds)
        nearest = nearest_seeds(problem, self._here, rows, effort.nearest_seeds)
        seeds = [("nearest", config) for config in nearest]
        return [*seeds, *(("model", c) for c in self._modelled[key] if c not in nearest)]


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
    for a B200, but not before the B200's own; so do rows of another source. Rows of SKUs with
    another kernel have nothing to say.
    """
    sku, source = here
    signature, arch = problem.signature, sku.arch
    ranked = []
    for row in rows:
        if not _same_kernels(row.sku, arch):
            continue
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


def _same_kernels(sku_name: str, arch: Arch) -> bool:
    try:
        return load_sku(sku_name).arch.family == arch.family
    except UnknownName:  # of a newer fa4gen
        return False
