"""The last rung: the best of a small, fixed set of candidates under the cycle model."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import NoFeasibleKernel, UnknownName
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.feasibility import canonicalise, check, supported_archs
from fa4gen.hardware import Sku
from fa4gen.perf import predict
from fa4gen.space import SearchSpace, space_for

NUM_SAMPLES = 48
"""Random members of the space that compete besides the default and its neighbours."""

MIN_GAIN = 1.05
"""Predicted gain over the default below which the default stays: less than this is within what
the cycle model misses by, and the default was tuned by hand on a GPU."""

_NUMERIC_KNOBS = (
    "exp2_poly_fraction",
    "exp2_poly_placement",
    "exp2_poly_degree",
    "rescale_threshold_log2",
)
"""Knobs that change how exponentials and rescaling round; no pick departs from the default in
them, because nobody has checked its results on this GPU, as the tuner does."""

_SEED = 0


@dataclass(frozen=True, slots=True)
class ModelPick:
    """What the cycle model prefers. Times are predicted, for :func:`representative`."""

    config: KernelConfig
    predicted_us: float
    default: KernelConfig
    default_us: float
    candidates: int


def representative(problem: AttentionProblem) -> AttentionProblem:
    """The problem with batch and sequence lengths rounded to powers of two.

    Ragged serving asks a new length with every call. Picks are made for the rounded problem, so
    that the number of predictions, and of kernels to compile, stays small.
    """
    return replace(
        problem,
        batch=_power_of_two(problem.batch),
        seqlen_q=_power_of_two(problem.seqlen_q),
        seqlen_k=_power_of_two(problem.seqlen_k),
    )


class ModelPicker:
    """Picks for one SKU; deterministic, and remembered."""

    def __init__(self, sku: Sku, *, num_samples: int = NUM_SAMPLES) -> None:
        self.sku = sku
        self._num_samples = num_samples
        self._picks: dict[AttentionProblem, ModelPick] = {}
        self._candidates: dict[KernelSignature, tuple[KernelConfig, ...]] = {}

    def pick(self, problem: AttentionProblem) -> ModelPick:
        """The candidate with the least predicted time; the default unless it loses clearly.

        Raises:
            NoFeasibleKernel: nothing in the search space fits, with the default's reasons.
        """
        asked = representative(problem)
        found = self._picks.get(asked)
        if found is None:
            found = self._picks[asked] = self._best(asked)
        return found

    def _best(self, problem: AttentionProblem) -> ModelPick:
        candidates = self._candidates.get(problem.signature)
        if candidates is None:
            candidates = self._make_candidates(problem.signature)
            self._candidates[problem.signature] = candidates
        default = candidates[0]
        times = [predict(problem, config, self.sku).time_us for config in candidates]
        best = min(range(len(candidates)), key=times.__getitem__)
        if times[best] * MIN_GAIN > times[0]:
            best = 0
        return ModelPick(candidates[best], times[best], default, times[0], len(candidates))

    def _make_candidates(self, signature: KernelSignature) -> tuple[KernelConfig, ...]:
        """The default first, then its neighbours and seeded samples; feasible, no duplicates."""
        arch = self.sku.arch
        space = _space(self.sku)
        default = canonicalise(signature, space.default(signature), arch, derive=False)
        verdict = check(signature, default, arch)
        if not verdict:
            raise NoFeasibleKernel(f"{signature} on {self.sku.name}: {verdict}")
        numerics: dict[str, Any] = {name: getattr(default, name) for name in _NUMERIC_KNOBS}
        rng = random.Random(_SEED)
        samples = [space.sample(rng, signature, arch) for _ in range(self._num_samples)]
        offered = (
            canonicalise(signature, replace(config, **numerics), arch)
            for config in (*space.neighbours(default), *samples)
        )
        fit = (config for config in offered if check(signature, config, arch))
        return tuple(dict.fromkeys((default, *fit)))


def _space(sku: Sku) -> SearchSpace:
    """The search space of the forward kernel of this SKU's arch.

    Raises:
        NoFeasibleKernel: there is no kernel for the arch.
    """
    try:
        return space_for(sku.arch.name)
    except UnknownName as error:
        raise NoFeasibleKernel(
            f"arch: got {sku.arch.name} ({sku.name}), allowed: {', '.join(supported_archs())}; "
            f"no kernel template is written for {sku.arch.name}"
        ) from error


def _power_of_two(value: int) -> int:
    """The power of two nearest to ``value`` on a log scale."""
    return int(2 ** round(math.log2(value)))
