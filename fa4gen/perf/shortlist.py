"""Ranking configurations by the model."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Sku
from fa4gen.perf.predict import Prediction, predict
from fa4gen.space import SearchSpace

_SEEDS = 24
"""Shapes of the kernel that are carried into the second step of :func:`shortlist`."""

_SAME_TIME = 1.0 + 1e-9
"""Expected times closer than this factor count as one."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A configuration and what the model expects of it."""

    config: KernelConfig
    prediction: Prediction


def rank(
    problem: AttentionProblem, configs: Iterable[KernelConfig], sku: Sku, limit: int | None = None
) -> list[Ranked]:
    """``configs`` by expected time, fastest first; equal times keep the order given."""
    scored = (Ranked(config, predict(problem, config, sku)) for config in configs)
    if limit is None:
        return sorted(scored, key=lambda ranked: ranked.prediction.time_us)
    return heapq.nsmallest(limit, scored, key=lambda ranked: ranked.prediction.time_us)


def shortlist(
    problem: AttentionProblem, space: SearchSpace, sku: Sku, limit: int = 16
) -> list[Ranked]:
    """The best configurations of ``space`` for ``problem`` by the model, fastest first.

    In two steps, since the whole space has some 1e5 feasible configurations: all combinations of
    the knobs that decide feasibility (tiles, stages, registers ...) with the default's other
    knobs, in decode with keys split; then, from the best of them, one free knob after the other to
    its best value. Of configurations with one expected time only the first stays. Empty when
    nothing is feasible.
    """
    signature = problem.signature
    free = space.free_knobs
    anchor = space.default(signature)
    start: dict[str, Any] = {knob.name: getattr(anchor, knob.name) for knob in free}
    start |= _splits_that_fill(problem, space, sku)
    bases = space.feasible_bases(signature, sku.arch)
    if not bases:
        return []
    starts = (canonicalise(signature, base.vary(start), sku.arch) for base in bases)
    seeds = _distinct(rank(problem, starts, sku))[: max(_SEEDS, limit)]
    found = {seed.config: seed for seed in seeds}
    for seed in seeds:
        best = seed
        for knob in free:
            changes: list[dict[str, Any]] = [{knob.name: value} for value in knob.values]
            candidates = [
                canonicalise(signature, best.config.vary(change), sku.arch) for change in changes
            ]
            best = rank(problem, [best.config, *candidates], sku, 1)[0]
        found[best.config] = best
    if anchor not in found and check(signature, anchor, sku.arch):
        found[anchor] = Ranked(anchor, predict(problem, anchor, sku))
    return _distinct(sorted(found.values(), key=lambda ranked: ranked.prediction.time_us))[:limit]


def _splits_that_fill(
    problem: AttentionProblem, space: SearchSpace, sku: Sku
) -> dict[str, KnobValue]:
    """The most splits of the keys with which the smallest tiles do not outnumber the SMs.

    Tiles that look best where a few CTAs do all the work are others than where all SMs share it.
    """
    knobs = {knob.name: knob for knob in space.free_knobs}
    if "num_splits" not in knobs or problem.seqlen_q >= problem.seqlen_k:
        return {}
    rows = problem.seqlen_q * problem.qhead_per_kvhead
    tiles = problem.batch * problem.num_heads_kv * -(-rows // sku.arch.mma_rows)
    fitting = [value for value in knobs["num_splits"].values if tiles * int(value) <= sku.sm_count]
    return {"num_splits": max(fitting, default=1)}


def _distinct(ranked: list[Ranked]) -> list[Ranked]:
    """Without configurations that the model cannot tell from the one before."""
    kept: list[Ranked] = []
    for candidate in ranked:
        if not kept or candidate.prediction.time_us > kept[-1].prediction.time_us * _SAME_TIME:
            kept.append(candidate)
    return kept
