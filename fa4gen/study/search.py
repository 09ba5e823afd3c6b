"""The Optuna side of a study of knobs: what is tried next where not everything can be, and a
history that optuna-dashboard opens."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation
from fa4gen.study.grid import Grid, Refused
from fa4gen.tune.knobs import INDEX_SUFFIX, Knobs
from fa4gen.tune.study import (
    CONSTRAINTS,
    PENALTY,
    SATISFIED,
    constraint_values,
    free_name,
    objective,
    quiet,
)

SPEED = "log(time / default time)"
MAX_FREE_ASKS = 12
"""Asks in a row that may end with something known or infeasible before chance picks instead."""

MOST_DRAWS = 5000
"""Random draws after which a space too large to enumerate counts as exhausted."""

Told = tuple[list[float], dict[str, float]]
"""Objectives and constraints of a trial."""


@dataclass(frozen=True)
class StudyIdentity:
    """What an Optuna study is about."""

    name: str
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class ErrorObjective:
    """The second objective of a study of accuracy."""

    measure: str
    of: Callable[[KernelConfig], float]


class Search:
    """One Optuna study with one objective (time) or two (time and an error), both minimised.

    It is searched in memory, where an ask takes a tenth of what it takes in SQLite, and saved at
    the end.

    Args:
        identity: what it is about.
        grid: what may be asked for.
        error: the second objective, if there is one.
        seed: of the sampler.
    """

    def __init__(
        self, identity: StudyIdentity, grid: Grid, *, error: ErrorObjective | None, seed: int
    ) -> None:
        self.identity, self.grid, self.error = identity, grid, error
        self.knobs = Knobs(grid.knobs, grid.default)
        self.refused: dict[str, Refused] = {}
        self._taken: set[str] = set()
        self._open: dict[str, Trial] = {}
        self._rng = random.Random(seed)
        self._metrics = [SPEED] if error is None else [SPEED, error.measure]
        with quiet():
            self._study = optuna.create_study(
                directions=["minimize"] * len(self._metrics),
                sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            )

    def claim(self, config: KernelConfig) -> bool:
        """Take a configuration for a trial; false when it was taken before."""
        new = config.config_id not in self._taken
        self._taken.add(config.config_id)
        return new

    def ask(self) -> KernelConfig | None:
        """A feasible configuration that was not taken before; ``None`` when none is found."""
        for _ in range(MAX_FREE_ASKS):
            trial = self._study.ask(fixed_distributions=self.knobs.distributions)
            config = self.grid.make(self.knobs.values(trial.params))
            if self._may_be_tried(config) and self.claim(config):
                self._open[config.config_id] = trial
                return config
            self._answer(trial, config)
        fresh = (c for c in self._anywhere() if c.config_id not in self._taken)
        chosen = next((config for config in fresh if self._may_be_tried(config)), None)
        if chosen is not None:
            self.claim(chosen)
        return chosen

    def _may_be_tried(self, config: KernelConfig) -> bool:
        verdict = self.grid.verdict(config)
        if not verdict:
            self.refused.setdefault(config.config_id, Refused(config, verdict))
        return verdict.ok

    def _answer(self, trial: Trial, config: KernelConfig) -> None:
        """End an ask that needs no trial: tell the sampler that it cannot run, or forget it.

        A result told again and again would make every later ask slower, with two objectives by
        the square of their number.
        """
        if (refused := self.refused.get(config.config_id)) is not None:
            constraints = dict.fromkeys(CONSTRAINTS, SATISFIED)
            constraints["feasibility"] = max(1e-6, sum(r.excess for r in refused.verdict.reasons))
            self._finish(trial, (self._objectives(config, PENALTY), constraints))
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _anywhere(self) -> Iterator[KernelConfig]:
        """Configurations at random."""
        if self.grid.enumerated:
            yield from self._rng.sample(self.grid.configs, len(self.grid.configs))
        else:
            for _ in range(MOST_DRAWS):
                chosen = {k.name: self._rng.choice(k.values) for k in self.grid.knobs}
                yield self.grid.make(chosen)

    def tell(self, config: KernelConfig, evaluation: Evaluation) -> None:
        """What came of it; a failure carries the constraint it violates."""
        told = self._objectives(config, objective(evaluation)), constraint_values(evaluation)
        if (trial := self._open.pop(config.config_id, None)) is not None:
            trial.set_user_attr("config_id", config.config_id)
            self._finish(trial, told)
        elif (params := self._params(config)) is not None:
            # Not asked for by the sampler; a value outside of the space has no parameters at all.
            self._study.add_trial(
                optuna.create_trial(
                    values=told[0],
                    params=params,
                    distributions=self.knobs.distributions,
                    user_attrs={"config_id": config.config_id},
                    constraints=told[1],
                )
            )

    def _params(self, config: KernelConfig) -> dict[str, Any] | None:
        """Parameters that mean this kernel; ``None`` where a value is not in its list.

        The canonical form may differ from the default in knobs that the study is not about.
        """
        values = {knob.name: getattr(config, knob.name) for knob in self.grid.knobs}
        if self.grid.make(values) != config:
            return None
        return self.knobs.params(self.grid.default.vary(values))

    def _objectives(self, config: KernelConfig, speed: float) -> list[float]:
        return [speed] if self.error is None else [speed, self.error.of(config)]

    def _finish(self, trial: Trial, told: Told) -> None:
        values, constraints = told
        for name, violation in constraints.items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, values)

    def save(self, storage: BaseStorage) -> str:
        """Copy the finished trials to a new study in ``storage``, and give its name.

        Where a study of that name exists it is left alone, and the new one gets a number.
        """
        name = free_name(self.identity.name, storage)
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            saved = optuna.create_study(
                storage=storage, study_name=name, directions=self._study.directions
            )
            saved.set_metric_names(self._metrics)
            for key, value in self.identity.attributes.items():
                saved.set_user_attr(key, value)
            saved.add_trials(self._study.get_trials(states=(TrialState.COMPLETE,)))
        return name

    def importance(self) -> dict[str, float]:
        """Share of each knob in the variance of log time, largest first; empty for a few trials."""
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = optuna.importance.get_param_importances(self._study, target=_first)
            except (ValueError, RuntimeError):
                return {}
        return {name.removesuffix(INDEX_SUFFIX): float(share) for name, share in found.items()}


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])
