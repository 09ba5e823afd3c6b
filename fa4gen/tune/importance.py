"""Which knobs decide whether a trial is among the best: Optuna's importance over many studies.

A study of one problem has some twenty trials, far fewer than an evaluator needs. So the trials of
many problems are put into one study whose value is the *regret*: ``log(time / best time)`` of the
trial's own problem. What is left of the problem in it is noise, and how much of a share noise alone
would give is computed beside it, by shuffling the regrets within each problem.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.importance import PedAnovaImportanceEvaluator

from fa4gen.core.outcome import Outcome
from fa4gen.db import StoredEvaluation
from fa4gen.tune.history import History
from fa4gen.tune.knobs import INDEX_SUFFIX, Knobs
from fa4gen.tune.study import objective, quiet, recorded_trial

EVALUATOR = "PED-ANOVA"
"""Name of Optuna's evaluator that is used, its default."""
BEST_SHARE = 0.1
"""What counts as among the best: this share of the trials with the least regret."""
MIN_BEST = 5
"""Trials among the best that the evaluator needs to be stable, by its documentation."""
MIN_TRIALS = math.ceil(MIN_BEST / BEST_SHARE)
MAX_TRIALS = 1000
"""More are sampled: what takes a second for these would take a minute for 10,000."""
SHUFFLES = 19
"""Times that chance is tried: a share above all of them has 1 chance in 20 of being luck."""


@dataclass(frozen=True, slots=True)
class KnobShare:
    """How much one knob matters."""

    knob: str
    share: float
    """Of the importance of all knobs; they add up to 1."""
    chance: float
    """The largest share that shuffled results gave it; below that it says nothing."""

    @property
    def telling(self) -> bool:
        """Whether it is more than chance."""
        return self.share > self.chance


@dataclass(frozen=True, slots=True)
class Importance:
    """How much each knob matters, over some studies."""

    trials: int
    """Trials that ran, of each configuration of a problem the newest."""
    sampled: int
    """Of them, those that were looked at: a sample where there are very many."""
    studies: int
    shares: tuple[KnobShare, ...]
    """Largest first; empty for too few trials, or where every trial is as good as any other."""


@dataclass(frozen=True, slots=True)
class _Ran:
    """A trial that ran."""

    study: int
    knobs: Knobs
    row: StoredEvaluation
    regret: float


def knob_importance(studies: Sequence[History], *, seed: int = 0) -> Importance:
    """Importance of each knob for being among the best of its problem.

    All studies must be of one search space. Failed trials are left out: this is about speed.
    """
    every = [ran for number, history in enumerate(studies) for ran in _ran(number, history)]
    counted = len({ran.study for ran in every})
    rng = random.Random(seed)
    looked_at = every
    if len(every) > MAX_TRIALS:
        looked_at = [every[i] for i in sorted(rng.sample(range(len(every)), MAX_TRIALS))]
    shares: list[KnobShare] = []
    if len(looked_at) >= MIN_TRIALS and any(ran.regret > 0.0 for ran in looked_at):
        shares = _shares(looked_at, rng)
    ordered = sorted(shares, key=lambda share: (-share.share, share.knob))
    return Importance(len(every), len(looked_at), counted, tuple(ordered))


def _ran(number: int, history: History) -> Iterator[_Ran]:
    """The trials of a study that ran, each with its distance from the best."""
    rows = [row for row in history.records if row.evaluation.outcome is Outcome.OK]
    best = min((objective(row.evaluation) for row in rows), default=0.0)
    for row in rows:
        yield _Ran(number, history.knobs, row, objective(row.evaluation) - best)


def _shares(trials: Sequence[_Ran], rng: random.Random) -> list[KnobShare]:
    """Share of each knob, and what chance gives it; none where nothing tells trials apart."""
    with quiet():
        study = optuna.create_study()
        for ran in trials:
            made = recorded_trial(ran.knobs, ran.row.config, ran.row.evaluation)
            if made is not None:
                study.add_trial(made)
        found = _importances(study, [ran.regret for ran in trials])
        chance = dict.fromkeys(found, 0.0)
        for _ in range(SHUFFLES):
            for name, value in _importances(study, _shuffled(trials, rng)).items():
                chance[name] = max(chance[name], value)
    total = sum(found.values())
    if total <= 0.0:
        return []
    return [
        KnobShare(name.removesuffix(INDEX_SUFFIX), value / total, chance[name] / total)
        for name, value in found.items()
    ]


def _shuffled(trials: Sequence[_Ran], rng: random.Random) -> list[float]:
    """The regrets, mixed within each study."""
    by_study: dict[int, list[float]] = {}
    for ran in trials:
        by_study.setdefault(ran.study, []).append(ran.regret)
    for regrets in by_study.values():
        rng.shuffle(regrets)
    return [by_study[ran.study].pop() for ran in trials]


def _importances(study: optuna.Study, regrets: Sequence[float]) -> dict[str, float]:
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    with warnings.catch_warnings():  # that a low value is taken for a good one, which it is
        warnings.simplefilter("ignore", UserWarning)
        found: dict[str, float] = evaluator.evaluate(
            study, target=lambda trial: regrets[trial.number]
        )
    return found
