"""Studies made again from the records of a tuning database, for reports and for optuna-dashboard.

The database has every evaluation, so it has every study: also of times that were modelled, whose
studies the tuner keeps in memory, and of rows that were imported from another machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

from fa4gen.core.errors import StoreError, UnknownName
from fa4gen.core.files import write_whole
from fa4gen.db import StoredEvaluation
from fa4gen.hardware import load_sku
from fa4gen.space import space_for
from fa4gen.tune.knobs import Knobs
from fa4gen.tune.study import StudyKey, quiet, recorded_trial


@dataclass(frozen=True)
class History:
    """The trials of one :class:`StudyKey`: of each configuration the newest."""

    key: StudyKey
    knobs: Knobs
    records: tuple[StoredEvaluation, ...]
    """Those whose configuration lies in today's search space."""
    outside: int = 0
    """Configurations left out, since it has not all of their values."""

    @property
    def name(self) -> str:
        """As the tuner names the study."""
        return f"{self.key.name}/{self.knobs.knobs_id}"

    def trials(self) -> list[FrozenTrial]:
        """As Optuna has them, oldest first."""
        made = (recorded_trial(self.knobs, row.config, row.evaluation) for row in self.records)
        return [trial for trial in made if trial is not None]


def histories(stored: Iterable[StoredEvaluation]) -> list[History]:
    """The studies that these evaluations, oldest first, belong to.

    Evaluations for a SKU that this fa4gen does not know belong to none.
    """
    newest: dict[StudyKey, dict[str, StoredEvaluation]] = {}
    for row in stored:
        made = row.evaluation.provenance
        key = StudyKey(row.problem, made.sku, made.source, row.policy, made.template_hash)
        of_key = newest.setdefault(key, {})
        of_key.pop(row.config.config_id, None)  # so that the order is that of the newest
        of_key[row.config.config_id] = row
    knobs = {sku: _knobs(sku) for sku in {key.sku for key in newest}}
    return [
        _history(key, known, of_key.values())
        for key, of_key in newest.items()
        if (known := knobs[key.sku]) is not None
    ]


def _knobs(sku: str) -> Knobs | None:
    try:
        return Knobs(space_for(load_sku(sku).arch.name).knobs)
    except UnknownName:
        return None


def _history(key: StudyKey, knobs: Knobs, rows: Iterable[StoredEvaluation]) -> History:
    every = tuple(rows)
    inside = tuple(row for row in every if knobs.params(row.config) is not None)
    return History(key, knobs, inside, len(every) - len(inside))


def write_studies(studies: Sequence[History], path: Path) -> int:
    """Write the studies as an Optuna database and give their number; the file appears whole.

    Raises:
        StoreError: the file cannot be written.
    """
    # In memory first: on disk each of thousands of small transactions would wait for the disk.
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        with quiet():
            storage = RDBStorage("sqlite://", engine_kwargs={"creator": lambda: connection})
            for history in studies:
                _write(history, storage)
            storage.remove_session()
        write_whole(path, connection.serialize())
    except OSError as error:
        raise StoreError(
            f"studies {path}: cannot be written: {error.strerror}; name another file"
        ) from error
    finally:
        connection.close()
    return len(studies)


def _write(history: History, storage: BaseStorage) -> None:
    study = optuna.create_study(storage=storage, study_name=history.name)
    key = history.key
    study.set_user_attr("problem", str(key.problem))
    study.set_user_attr("sku", key.sku)
    study.set_user_attr("source", key.source.value)
    study.set_user_attr("policy", str(key.policy))
    study.set_user_attr("value", "log(time / default's time)")
    study.add_trials(history.trials())
