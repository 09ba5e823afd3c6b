"""Scoring samplers offline, on a recorded sweep: how many trials until a good configuration?

The very proposer that tunes is replayed, without seeds from the model, so that the number says
something about the sampler. A trial is an evaluation: infeasible and repeated asks are free here
as they are in tuning, and so are asks for what the sweep does not hold.
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
from fa4gen.evaluate.replay import ReplayEvaluator, Sweep
from fa4gen.hardware import load_sku
from fa4gen.space import Knob, SearchSpace, space_for
from fa4gen.tune.effort import QUICK
from fa4gen.tune.knobs import Knobs
from fa4gen.tune.proposer import Proposer
from fa4gen.tune.samplers import make_sampler
from fa4gen.tune.study import StudyKey, TunerStudy, open_storage


@dataclass(frozen=True, slots=True)
class SamplerScore:
    """How one sampler did on one problem."""

    sampler: str
    problem: AttentionProblem
    tolerance: float
    """How much slower than the sweep's best still counts as found, e.g. 0.05."""
    trials_to: tuple[int | None, ...]
    """For each seed: trials until found, ``None`` when it was not."""
    regret: tuple[float, ...]
    """For each seed: time of its best over the sweep's best, minus 1."""

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
    """The score of every sampler on every problem of the sweep.

    Raises:
        UnknownName: a sampler.
        ResourceError: a problem of which no configuration ran.
    """
    seeds = tuple(seeds)
    scores = []
    for problem in sweep.problems:
        race = _Race(sweep, problem)
        for sampler in samplers:
            runs = [race.run(sampler, seed, trials, tolerance) for seed in seeds]
            found, regret = zip(*runs, strict=True) if runs else ((), ())
            scores.append(SamplerScore(sampler, problem, tolerance, found, regret))
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
    """What a run was told, and that what the sweep does not hold is not to be had.

    So an ask for the latter costs nothing, but counts among the asks after which the proposer
    picks by itself: a search on a sparse sweep ends.
    """

    evaluator: ReplayEvaluator
    problem: AttentionProblem
    told: dict[str, _Told] = field(default_factory=dict)

    def get(self, config: KernelConfig) -> _Told | None:
        if (told := self.told.get(config.config_id)) is not None:
            return told
        if self.evaluator.sweep.get(self.problem, config) is None:
            return _Told(self.evaluator.evaluate(self.problem, config))
        return None


@dataclass(frozen=True)
class _Recorded:
    """The sweep as a place to find configurations."""

    space: SearchSpace
    configs: tuple[KernelConfig, ...]

    def neighbours(self, config: KernelConfig) -> Iterator[KernelConfig]:
        return self.space.neighbours(config)

    def sample(self, rng: random.Random) -> KernelConfig:
        return rng.choice(self.configs)


class _Race:
    """One problem of a sweep, ready to be searched again and again."""

    def __init__(self, sweep: Sweep, problem: AttentionProblem) -> None:
        self.sweep, self.problem = sweep, problem
        self.sku = load_sku(sweep.sku)
        best = sweep.best(problem)
        if best is None or best[1].timing is None:
            raise ResourceError(f"sweep: no configuration ran on {problem}; record it again")
        self.best_gain = best[1].timing.gain
        self.template_hash = best[1].provenance.template_hash
        configs = tuple(
            config for config in sweep.configs.values() if sweep.get(problem, config) is not None
        )
        space = space_for(self.sku.arch.name)
        self.anchor = space.default(problem.signature)
        self.knobs = Knobs(recorded_knobs(space, configs))
        self.explorer = _Recorded(space, configs)

    def run(
        self, sampler: str, seed: int, trials: int, tolerance: float
    ) -> tuple[int | None, float]:
        """(trials until found, regret of the best)."""
        memory = _Memory(ReplayEvaluator(self.sweep), self.problem)
        proposer = self._proposer(sampler, seed, memory)
        incumbent, best_gain, done = self.anchor, 0.0, 0
        found = None
        while done < trials:
            asked = proposer.next([], incumbent)
            if asked is None:
                break
            evaluation = memory.evaluator.evaluate(self.problem, asked.config)
            done += 1
            proposer.study.tell(asked, evaluation)
            memory.told[asked.config.config_id] = _Told(evaluation)
            gain = 0.0 if evaluation.timing is None else evaluation.timing.gain
            if gain > best_gain:
                incumbent, best_gain = asked.config, gain
            if found is None and self.best_gain <= best_gain * (1.0 + tolerance):
                found = done
        return found, self.best_gain / best_gain - 1.0 if best_gain else math.inf

    def _proposer(self, sampler: str, seed: int, memory: _Memory) -> Proposer:
        sweep = self.sweep
        key = StudyKey(self.problem, sweep.sku, sweep.source, sweep.policy, self.template_hash)
        study = TunerStudy.open(key, self.knobs, storage=open_storage(None))
        study.use(make_sampler(sampler, seed, QUICK.startup_trials))
        study.enqueue(self.anchor, "anchor")
        return Proposer(
            study,
            (self.problem.signature, self.sku.arch),
            memory,
            self.explorer,
            max_free_asks=QUICK.max_free_asks,
            rng=random.Random(seed),
        )
