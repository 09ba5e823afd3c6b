"""Scoring search strategies offline, on a recorded sweep: how many trials until a good one?

The very proposer that tunes is replayed. A trial is an evaluation: infeasible and repeated asks are
free here as they are in tuning. An ask for what the sweep does not hold is answered by the nearest
configuration that it holds and that was not tried; on a full sweep that never happens.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import ResourceError
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.replay import Sweep
from fa4gen.hardware import load_sku
from fa4gen.space import Knob, SearchSpace, space_for
from fa4gen.tune.effort import FULL, QUICK
from fa4gen.tune.forecast import Forecast
from fa4gen.tune.knobs import INDEX_SUFFIX, Knobs
from fa4gen.tune.proposer import Proposer
from fa4gen.tune.samplers import make_sampler
from fa4gen.tune.seeds import seeds_among
from fa4gen.tune.study import StudyKey, TunerStudy, open_storage

SEEDED = "model+"
"""Prefix of a strategy that begins, as the tuner does, with the cycle model's favourites, and tries
nothing that the model sees far behind."""


@dataclass(frozen=True, slots=True)
class SamplerScore:
    """How one strategy did on one problem."""

    sampler: str
    """Name of the sampler, after :data:`SEEDED` when it had the model's seeds."""
    problem: AttentionProblem
    tolerance: float
    """How much slower than the sweep's best still counts as found, e.g. 0.05."""
    runs: tuple[tuple[float, ...], ...]
    """For each seed and after each trial: time of the best so far over the sweep's best, minus 1;
    infinite while nothing ran."""

    @property
    def trials_to(self) -> tuple[int | None, ...]:
        """For each seed: trials until found, ``None`` when it was not."""
        return self.trials_within(self.tolerance)

    def trials_within(self, tolerance: float) -> tuple[int | None, ...]:
        """As :attr:`trials_to`, for another tolerance."""
        return tuple(
            next((i for i, regret in enumerate(run, 1) if regret <= tolerance), None)
            for run in self.runs
        )

    @property
    def regret(self) -> tuple[float, ...]:
        """For each seed: what its best lacks in the end."""
        return tuple(run[-1] if run else math.inf for run in self.runs)

    @property
    def median_trials(self) -> float:
        """Median of :attr:`trials_to`; infinite when most seeds did not find it."""
        return statistics.median(math.inf if n is None else float(n) for n in self.trials_to)


def score_samplers(
    sweep: Sweep,
    samplers: Sequence[str],
    *,
    seeds: Iterable[int],
    trials: int = 100,
    tolerance: float = 0.05,
) -> list[SamplerScore]:
    """The score of every strategy on every problem of the sweep.

    Args:
        sweep: what was recorded.
        samplers: names of samplers, each perhaps after :data:`SEEDED`.
        seeds: one run for each.
        trials: most trials of a run.
        tolerance: see :class:`SamplerScore`.

    Raises:
        UnknownName: a sampler.
        ResourceError: a problem of which no configuration ran.
    """
    seeds = tuple(seeds)
    scores = []
    for problem in sweep.problems:
        race = Race(sweep, problem)
        for sampler in samplers:
            runs = tuple(race.run(sampler, seed, trials) for seed in seeds)
            scores.append(SamplerScore(sampler, problem, tolerance, runs))
    return scores


def recorded_knobs(space: SearchSpace, configs: Iterable[KernelConfig]) -> tuple[Knob, ...]:
    """The knobs of the space, each with the values that occur in ``configs`` only."""
    configs = tuple(configs)
    knobs = []
    for knob in space.knobs:
        used = {getattr(config, knob.name) for config in configs}
        outside = sorted(str(value) for value in used - set(knob.values))
        if outside:
            raise ResourceError(
                f"sweep, knob {knob.name}: got {', '.join(outside)}, allowed by space "
                f"{space.name}: {', '.join(map(str, knob.values))}; record it again"
            )
        knobs.append(replace(knob, values=tuple(v for v in knob.values if v in used)))
    return tuple(knobs)


@dataclass(frozen=True, slots=True)
class _Told:
    evaluation: Evaluation


@dataclass
class _Memory:
    """What a run was told."""

    told: dict[str, _Told] = field(default_factory=dict)

    def get(self, config: KernelConfig) -> _Told | None:
        return self.told.get(config.config_id)


@dataclass(frozen=True)
class _Recorded:
    """The sweep as a place to find configurations."""

    space: SearchSpace
    configs: tuple[KernelConfig, ...]

    def neighbours(self, config: KernelConfig) -> Iterator[KernelConfig]:
        return self.space.neighbours(config)

    def sample(self, rng: random.Random) -> KernelConfig:
        return rng.choice(self.configs)


class Race:
    """One problem of a sweep, ready to be searched again and again."""

    def __init__(self, sweep: Sweep, problem: AttentionProblem) -> None:
        self.sweep, self.problem = sweep, problem
        self.sku = load_sku(sweep.sku)
        best = sweep.best(problem)
        if best is None or best[1].timing is None:
            raise ResourceError(f"sweep: no configuration ran on {problem}; record it again")
        self.best_gain = best[1].timing.gain
        self.template_hash = best[1].provenance.template_hash
        self.configs = tuple(
            config for config in sweep.configs.values() if sweep.get(problem, config) is not None
        )
        space = space_for(self.sku.arch.name)
        self.anchor = sweep.anchor(problem) or space.default(problem.signature)
        self.knobs = Knobs(recorded_knobs(space, self.configs))
        self.explorer = _Recorded(space, self.configs)
        self._params = {
            config.config_id: params
            for config in self.configs
            if (params := self.knobs.params(config)) is not None
        }
        self._seeds: list[KernelConfig] | None = None
        self._forecast = Forecast(problem, self.sku, self.anchor, QUICK.hopeless_above)

    @property
    def seeds(self) -> list[KernelConfig]:
        """The cycle model's favourites among what was recorded, as the tuner would take them."""
        if self._seeds is None:
            count = QUICK.model_seeds
            self._seeds = seeds_among(self.configs, self.problem, self.sku, self.anchor, count)
        return self._seeds

    def run(self, strategy: str, seed: int, trials: int) -> tuple[float, ...]:
        """After each trial, what the best so far lacks of the sweep's best.

        Raises:
            UnknownName: no such sampler.
        """
        memory = _Memory()
        proposer = self._proposer(strategy, seed, memory)
        incumbent, best_gain = self.anchor, 0.0
        regrets: list[float] = []
        while len(regrets) < trials and len(memory.told) < len(self.configs):
            asked = proposer.next([], incumbent)
            if asked is None:
                break
            evaluation = self.sweep.get(self.problem, asked.config)
            if evaluation is None:
                # Not recorded: what is nearest stands in for it, and is asked for next.
                proposer.study.abandon(asked)
                stand_in = self._nearest(asked.config, memory)
                if stand_in is None or not proposer.study.enqueue(stand_in, "nearest"):
                    break
                continue
            proposer.study.tell(asked, evaluation)
            memory.told[asked.config.config_id] = _Told(evaluation)
            gain = 0.0 if evaluation.timing is None else evaluation.timing.gain
            if gain > best_gain:
                incumbent, best_gain = asked.config, gain
            regrets.append(self.best_gain / best_gain - 1.0 if best_gain else math.inf)
        return tuple(regrets)

    def _nearest(self, config: KernelConfig, memory: _Memory) -> KernelConfig | None:
        """The recorded configuration most like ``config`` that was not tried."""
        wish = self.knobs.params(config)
        left = [c for c in self.configs if c.config_id in self._params]
        left = [c for c in left if c.config_id not in memory.told]
        if wish is None or not left:
            return left[0] if left else None

        def away(other: KernelConfig) -> float:
            mine = self._params[other.config_id]
            return sum(self._step(name, wish[name], mine[name]) for name in wish)

        return min(left, key=away)

    def _step(self, name: str, a: object, b: object) -> float:
        """How unlike two values of a parameter are, at most 1."""
        if not name.endswith(INDEX_SUFFIX) or not isinstance(a, int) or not isinstance(b, int):
            return float(a != b)
        span = len(self.explorer.space.knob(name.removesuffix(INDEX_SUFFIX)).values) - 1
        return abs(a - b) / max(1, span)

    def _proposer(self, strategy: str, seed: int, memory: _Memory) -> Proposer:
        sweep = self.sweep
        key = StudyKey(self.problem, sweep.sku, sweep.source, sweep.policy, self.template_hash)
        study = TunerStudy.open(key, self.knobs, storage=open_storage(None))
        study.use(make_sampler(strategy.removeprefix(SEEDED), seed, QUICK.startup_trials))
        study.enqueue(self.anchor, "anchor")
        # In a quick search neighbours soon stand in for a sampler that brings nothing new; where
        # samplers are compared, they are asked again.
        seeded = strategy.startswith(SEEDED)
        if seeded:
            for config in self.seeds:
                study.enqueue(config, "model")
        return Proposer(
            study,
            (self.problem.signature, self.sku.arch),
            memory,
            self.explorer,
            max_free_asks=(QUICK if seeded else FULL).max_free_asks,
            rng=random.Random(seed),
            forecast=self._forecast if seeded else None,
        )
