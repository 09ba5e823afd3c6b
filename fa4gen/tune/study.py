"""One Optuna study, asked and told from the tuner's process.

Optuna keeps the history its sampler learns from, in its own SQLite file; what is *known* is in
the tuning database. Losing this file costs search efficiency, never a result.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreError
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.verdict import Verdict
from fa4gen.tune import ownership
from fa4gen.tune.knobs import Knobs

CONSTRAINT_OF: dict[Outcome, str] = {
    Outcome.INFEASIBLE: "feasibility",
    Outcome.RENDER_ERROR: "compile",
    Outcome.COMPILE_ERROR: "compile",
    Outcome.LAUNCH_ERROR: "launch",
    Outcome.CRASHED: "launch",
    Outcome.WRONG_RESULT: "accuracy",
    Outcome.TIMEOUT: "timeout",
}
"""The constraint a failure violates; a sampler learns each kind apart."""
CONSTRAINTS: tuple[str, ...] = tuple(dict.fromkeys(CONSTRAINT_OF.values()))
"""Every trial sets all of them, in this order: Optuna's GP sampler needs equal lists."""
SATISFIED, VIOLATED = -1.0, 1.0
PENALTY = math.log(4.0)
"""Objective of a trial without a time: as if 4 times slower than the anchor, finite always."""
LOCK_WAIT_S = 60.0
"""How long to wait for another tuner's write to the study file."""

SAMPLER = "sampler"
"""Origin of what the sampler itself asks for."""
RECORD = "record"
"""Origin of what was evaluated elsewhere or before."""

_OWNER, _ORIGIN, _RESULT = "owner", "origin", "result"


@dataclass(frozen=True)
class StudyKey:
    """What one study is about; trials of another key say nothing about it."""

    problem: AttentionProblem
    sku: str
    source: Source
    policy: MeasurementPolicy
    template_hash: str

    @property
    def name(self) -> str:
        """Unique and readable, without the identity of the space."""
        parts = (self.sku, self.source.value, str(self.policy), self.template_hash)
        return "/".join(("fa4gen", str(self.problem), self.problem.problem_id, *parts))


@dataclass(frozen=True, eq=False)
class Wish:
    """A configuration to evaluate."""

    config: KernelConfig
    origin: str
    """Who came up with it: ``sampler``, ``model``, ..."""

    @property
    def number(self) -> int | None:
        """The trial's number in a study; ``None`` where no study was asked."""
        return None


@dataclass(frozen=True, eq=False)
class Asked(Wish):
    """A configuration that a study wants to know about; it must be told exactly once."""

    trial: Trial

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return self.trial.number


def objective(evaluation: Evaluation) -> float:
    """``log(time / anchor time)``, the value to minimise; :data:`PENALTY` without a time."""
    timing = evaluation.timing
    if timing is None or not (timing.gain > 0 and math.isfinite(timing.gain)):
        return PENALTY
    return -math.log(timing.gain)


def constraint_values(evaluation: Evaluation) -> dict[str, float]:
    """Every constraint by name; at most 0 is satisfied."""
    values = dict.fromkeys(CONSTRAINTS, SATISFIED)
    if evaluation.outcome is not Outcome.OK:
        excess = sum(reason.excess for reason in evaluation.reasons)
        values[CONSTRAINT_OF[evaluation.outcome]] = _violation(excess)
    return values


def _violation(excess: float) -> float:
    return excess if excess > 0 and math.isfinite(excess) else VIOLATED


def open_storage(location: str | Path | None) -> BaseStorage:
    """Optuna's storage: ``None`` in memory, a path for an SQLite file, or a database URL.

    Raises:
        StoreError: the file cannot be made or read.
    """
    if location is None:
        return InMemoryStorage()
    url, options = str(location), {}
    try:
        if "://" not in url:
            path = Path(location).absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            url, options = f"sqlite:///{path}", {"creator": _sqlite_connector(path)}
        for wait_s in (0.1, 0.2, 0.4, 0.8):
            # Two processes that make one file at the same moment: the slower finds it half made.
            with contextlib.suppress(Exception):
                return RDBStorage(url, engine_kwargs=options)
            time.sleep(wait_s)
        return RDBStorage(url, engine_kwargs=options)
    except Exception as error:
        raise StoreError(
            f"study storage {location}: cannot be opened ({error}); name another file, or keep "
            f"studies in memory"
        ) from error


def close_storage(storage: BaseStorage) -> None:
    """Give back a storage's connections."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _sqlite_connector(path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, check_same_thread=False)
        # A power cut may cost the last trials' history, never the file; twice as fast.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return connect


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's line for every study made; its level is restored."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def recorded_trial(
    knobs: Knobs, config: KernelConfig, evaluation: Evaluation, origin: str = RECORD
) -> FrozenTrial | None:
    """A finished trial made of a record; ``None`` when its configuration is not in the space."""
    params = knobs.params(config)
    if params is None:
        return None
    facts = {"config_id": config.config_id, "outcome": evaluation.outcome.value}
    return optuna.create_trial(
        value=objective(evaluation),
        params=params,
        distributions=knobs.distributions,
        user_attrs={_ORIGIN: origin, _RESULT: facts},
        constraints=constraint_values(evaluation),
    )


def free_name(name: str, storage: BaseStorage) -> str:
    """``name``, or with the first number that makes it unused: ``name#2`` and so on."""
    taken = set(optuna.get_all_study_names(storage))
    runs = (f"{name}#{run}" for run in range(2, len(taken) + 3))
    return next(n for n in (name, *runs) if n not in taken)


class TunerStudy:
    """Ask and tell for one :class:`StudyKey`."""

    def __init__(self, study: optuna.Study, knobs: Knobs) -> None:
        self._study = study
        self.knobs = knobs

    @classmethod
    def open(
        cls, key: StudyKey, knobs: Knobs, *, storage: BaseStorage, resume: bool = True
    ) -> TunerStudy:
        """Continue the study of this key, or begin it; ``resume=False`` always begins a new one.

        Trials that a dead process left RUNNING are ended.
        """
        name = f"{key.name}/{knobs.knobs_id}"
        with quiet():
            if not resume:
                name = free_name(name, storage)
            study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        opened = cls(study, knobs)
        opened.reap()
        return opened

    def use(self, sampler: BaseSampler) -> None:
        """Ask this sampler from now on."""
        self._study.sampler = sampler

    @property
    def num_trials(self) -> int:
        """Trials in any state."""
        return len(self._study.get_trials(deepcopy=False))

    def reap(self) -> int:
        """End RUNNING trials whose process is gone; gives their number."""
        reaped = 0
        for trial in self._trials(TrialState.RUNNING):
            if ownership.abandoned(trial.user_attrs.get(_OWNER), trial.datetime_start):
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                reaped += 1
        return reaped

    def enqueue(self, config: KernelConfig, origin: str) -> bool:
        """Ask ``config`` before anything the sampler likes; false when not in the space or known.

        A trial that was interrupted does not count as known.
        """
        params = self.knobs.params(config)
        if params is None:
            return False
        for trial in self._trials(TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING):
            if trial.system_attrs.get("fixed_params", trial.params) == params:
                return False
        self._study.enqueue_trial(params, user_attrs={_ORIGIN: origin})
        return True

    def ask(self) -> Asked:
        """The next enqueued configuration, else the sampler's wish."""
        trial = self._study.ask(fixed_distributions=self.knobs.distributions)
        trial.set_user_attr(_OWNER, ownership.this_process())
        origin = str(trial.user_attrs.get(_ORIGIN, SAMPLER))
        return Asked(self.knobs.config(trial.params), origin, trial)

    def running(self, *, besides: frozenset[int] = frozenset()) -> list[KernelConfig]:
        """Configurations being evaluated, by any tuner of this study, but for these numbers."""
        running = self._trials(TrialState.RUNNING)
        return [
            self.knobs.config(trial.params)
            for trial in running
            if trial.number not in besides
            and trial.params.keys() == self.knobs.distributions.keys()
        ]

    def tell(self, asked: Asked, evaluation: Evaluation) -> None:
        """What came of it; failures teach the sampler through their constraint."""
        facts = {"config_id": asked.config.config_id, "outcome": evaluation.outcome.value}
        self._finish(asked, objective(evaluation), constraint_values(evaluation), facts)

    def tell_infeasible(self, asked: Asked, verdict: Verdict) -> None:
        """It cannot run, by the rules alone; how far over the limits teaches the sampler."""
        values = dict.fromkeys(CONSTRAINTS, SATISFIED)
        values["feasibility"] = _violation(sum(reason.excess for reason in verdict.reasons))
        facts = {"config_id": asked.config.config_id, "outcome": Outcome.INFEASIBLE.value}
        self._finish(asked, PENALTY, values, facts)

    def prune(self, asked: Asked, expected: float) -> None:
        """It is not worth an evaluation; the sampler learns the objective that is expected."""
        with contextlib.suppress(UpdateFinishedTrialError):
            for name in CONSTRAINTS:
                asked.trial.set_constraint(name, SATISFIED)
            asked.trial.report(expected, step=0)
            self._study.tell(asked.number, state=TrialState.PRUNED, skip_if_finished=True)

    def abandon(self, asked: Asked) -> None:
        """It was not evaluated after all; the sampler forgets it."""
        self._study.tell(asked.number, state=TrialState.FAIL, skip_if_finished=True)

    def add(self, config: KernelConfig, evaluation: Evaluation, origin: str = RECORD) -> bool:
        """Put an evaluation that was not asked for into the history; false when not in the space.

        ``origin``: who wished for it.
        """
        trial = recorded_trial(self.knobs, config, evaluation, origin)
        if trial is None:
            return False
        self._study.add_trial(trial)
        return True

    def known_ids(self) -> set[str]:
        """Identities of the configurations in the history."""
        finished = self._trials(TrialState.COMPLETE)
        return {t.user_attrs[_RESULT]["config_id"] for t in finished if _RESULT in t.user_attrs}

    def _finish(
        self, asked: Asked, value: float, constraints: dict[str, float], facts: dict[str, Any]
    ) -> None:
        # Another host's tuner may have taken this process for dead and reaped the trial.
        with contextlib.suppress(UpdateFinishedTrialError):
            for name, violation in constraints.items():
                asked.trial.set_constraint(name, violation)
            asked.trial.set_user_attr(_RESULT, facts)
            self._study.tell(asked.number, value, skip_if_finished=True)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)
