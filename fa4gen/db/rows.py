"""Reading and writing rows inside an open session; domain values on one side, columns on the other.

A row that does not pass the typed values is skipped and reported, never repaired and never fatal:
one knob of a newer fa4gen must not make a whole table useless.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    ColumnElement,
    Label,
    RowMapping,
    Select,
    Text,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import Fa4genError, StoreError
from fa4gen.core.evaluation import MeasurementPolicy, Provenance, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import codec, sqlite
from fa4gen.db.schema import Base, ConfigRow, MeasurementRow, ProblemRow, WinnerRow
from fa4gen.db.values import DispatchRow, Origin, SkippedRow, StoredEvaluation

PROBLEM_FIELDS = tuple(field.name for field in fields(AttentionProblem))
PROVENANCE_FIELDS = tuple(field.name for field in fields(Provenance))
TIMING_FIELDS = tuple(field.name for field in fields(Timing))
PLAIN_FIELDS = ("outcome", "message", "compile_s", "evaluate_s")
JSON_FIELDS = ("reasons", "accuracy", "resources", "details")

CHUNK = 500
"""Values of one ``IN`` or rows of one statement, well below what any database allows."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are asked for; None is all."""

    sku: str | None = None
    source: Source | None = None
    policy: MeasurementPolicy | None = None
    template_hash: str | None = None
    problem: AttentionProblem | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """SQL over the measurements and the problems."""
        if self.sku is not None:
            yield MeasurementRow.sku == self.sku
        if self.source is not None:
            yield MeasurementRow.source == self.source.value
        if self.policy is not None:
            yield MeasurementRow.policy == str(self.policy)
        if self.template_hash is not None:
            yield MeasurementRow.template_hash == self.template_hash
        if self.problem is not None:
            yield ProblemRow.problem_id == self.problem.problem_id


def _labelled(row: type[Base], prefix: str) -> list[Label[Any]]:
    """The columns of a table as ``prefix + name``; JSON as text: bad JSON is one bad row."""
    return [
        (type_coerce(column, Text) if isinstance(column.type, JSON) else column).label(
            f"{prefix}{column.name}"
        )
        for column in row.__table__.columns
    ]


_COLUMNS = (*_labelled(MeasurementRow, "m_"), *_labelled(ProblemRow, "p_"))
_KNOBS = type_coerce(ConfigRow.knobs, Text).label("knobs")


def _measurements(wanted: Filter) -> Select[Any]:
    query = select(*_COLUMNS, _KNOBS).join_from(MeasurementRow, ProblemRow).join(ConfigRow)
    return query.where(*wanted.conditions()).order_by(MeasurementRow.id)


def _winners(wanted: Filter) -> Select[Any]:
    query = select(*_labelled(WinnerRow, "d_"), *_COLUMNS, _KNOBS).join_from(
        WinnerRow, MeasurementRow, WinnerRow.measurement_pk == MeasurementRow.id
    )
    query = query.join(ProblemRow, MeasurementRow.problem_pk == ProblemRow.id).join(ConfigRow)
    return query.where(*wanted.conditions()).order_by(WinnerRow.id)


class Reader:
    """Decodes rows of one session; equal problems and configurations are decoded once.

    Attributes:
        skipped: the rows that were left out, in the order they were met.
    """

    def __init__(self, session: Session, sign: int = 1) -> None:
        self._session = session
        self._sign = sign
        self._problems: dict[int, AttentionProblem] = {}
        self._configs: dict[int, KernelConfig] = {}
        self.skipped: list[SkippedRow] = []

    def measurements(self, wanted: Filter) -> Iterator[StoredEvaluation]:
        """Measurements that match, oldest first.

        Raises:
            StoreError: the database cannot be read.
        """
        return self._decoded(_measurements(wanted), self._measurement)

    def winners(self, wanted: Filter) -> Iterator[DispatchRow]:
        """Dispatch rows that match, one for each key and origin.

        Raises:
            StoreError: the database cannot be read.
        """
        return self._decoded(_winners(wanted), self._winner)

    def one(self, record_id: int) -> StoredEvaluation:
        """The measurement of this number.

        Raises:
            StoreError: there is none.
            Fa4genError: it does not pass the typed values.
        """
        query = _measurements(Filter()).where(MeasurementRow.id == abs(record_id))
        row = self._session.execute(query).mappings().one_or_none()
        if row is None:
            raise StoreError(
                f"record: got {record_id}, allowed: the number of a stored measurement; use what "
                f"record() or evaluations() gave"
            )
        return self._measurement(row)

    def _decoded(self, query: Select[Any], decode: Callable[[RowMapping], T]) -> Iterator[T]:
        for row in self._session.execute(query).mappings():
            try:
                yield decode(row)
            except Fa4genError as error:
                origin = Origin.SHIPPED if row["m_origin"] == Origin.SHIPPED else Origin.USER
                record_id = self._sign * row["m_id"]
                self.skipped.append(SkippedRow(record_id, origin, str(error)))

    def _measurement(self, row: RowMapping) -> StoredEvaluation:
        return StoredEvaluation(
            record_id=self._sign * row["m_id"],
            uid=row["m_uid"],
            problem=self._problem(row),
            config=self._config(row),
            evaluation=codec.evaluation_from_dict(_evaluation_dict(row)),
            policy=codec.policy_from_text(row["m_policy"]),
            origin=_origin(row["m_origin"]),
        )

    def _winner(self, row: RowMapping) -> DispatchRow:
        stored = self._measurement(row)
        for name in ("problem_pk", "sku", "source", "policy"):
            if row[f"d_{name}"] != row[f"m_{name}"]:
                raise StoreError(
                    f"dispatch row {row['d_id']}: {name}: got {row[f'd_{name}']!r}, allowed: "
                    f"{row[f'm_{name}']!r} as in its measurement; set the winner again"
                )
        if stored.evaluation.timing is None:
            raise StoreError(f"dispatch row {row['d_id']}: points at a failed trial")
        return DispatchRow(
            problem=stored.problem,
            sku=row["d_sku"],
            source=stored.evaluation.provenance.source,
            policy=stored.policy,
            config=stored.config,
            evaluation=stored.evaluation,
            record_id=stored.record_id,
            origin=_origin(row["d_origin"]),
            decided_at=codec.utc(row["d_decided_at"], "decided_at"),
        )

    def _problem(self, row: RowMapping) -> AttentionProblem:
        key = row["m_problem_pk"]
        if key not in self._problems:
            values = {name: row[f"p_{name}"] for name in PROBLEM_FIELDS}
            self._problems[key] = codec.problem_from_dict(values)
        return self._problems[key]

    def _config(self, row: RowMapping) -> KernelConfig:
        key = row["m_config_pk"]
        if key not in self._configs:
            self._configs[key] = config_from_json(row["knobs"])
        return self._configs[key]


def config_from_json(text: Any) -> KernelConfig:
    """The configuration a row of ``configs`` holds.

    Raises:
        UnknownName: a knob this fa4gen does not have.
        ConfigError: an illegal value.
        StoreError: not a mapping.
    """
    values = from_json(text, "config")
    if not isinstance(values, Mapping):
        raise StoreError(f"config: got {values!r}, allowed: knob names to values")
    return KernelConfig.from_dict(values)


def from_json(value: Any, name: str) -> Any:
    """A JSON column; some drivers hand over the text, others what it stands for.

    Raises:
        StoreError: not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{name}: got text that is not JSON: {error}") from None


def _origin(text: Any) -> Origin:
    if text not in tuple(Origin):
        raise StoreError(f"origin: got {text!r}, allowed: {' or '.join(Origin)}")
    return Origin(text)


def _evaluation_dict(row: RowMapping) -> dict[str, Any]:
    values = {name: row[f"m_{name}"] for name in PLAIN_FIELDS}
    values["provenance"] = {name: row[f"m_{name}"] for name in PROVENANCE_FIELDS}
    timing = {name: row[f"m_{name}"] for name in TIMING_FIELDS}
    values["timing"] = None if row["m_median_us"] is None else timing
    values |= {name: from_json(row[f"m_{name}"], name) for name in JSON_FIELDS}
    return values


def known_uids(session: Session, uids: Sequence[str]) -> set[str]:
    """Those of ``uids`` that the table has."""
    found: set[str] = set()
    for start in range(0, len(uids), CHUNK):
        chunk = uids[start : start + CHUNK]
        query = select(MeasurementRow.uid).where(MeasurementRow.uid.in_(chunk))
        found.update(session.scalars(query))
    return found


def measurement_columns(record: codec.Record, origin: Origin) -> dict[str, Any]:
    """The columns of a measurement but for its references, which need a session.

    Raises:
        StoreError: a value that the table cannot hold.
    """
    evaluation = codec.evaluation_to_dict(record.evaluation)
    values = {name: evaluation[name] for name in (*PLAIN_FIELDS, *JSON_FIELDS)}
    values |= {name: evaluation["provenance"][name] for name in PROVENANCE_FIELDS}
    values |= {name: (evaluation["timing"] or {}).get(name) for name in TIMING_FIELDS}
    return values | {"uid": record.uid, "origin": origin.value, "policy": str(record.policy)}


class Writer:
    """Appends rows in one session; each problem and configuration is looked up once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._alone = sqlite.has_one_writer(session.connection())
        self._problems: dict[AttentionProblem, int] = {}
        self._configs: dict[KernelConfig, int] = {}

    def add(self, record: codec.Record, origin: Origin) -> int:
        """Append a measurement and give its number.

        Raises:
            StoreError: a value that the table cannot hold.
        """
        row = MeasurementRow(**measurement_columns(record, origin), **self._keys(record))
        self._session.add(row)
        self._session.flush()
        return row.id

    def add_all(self, prepared: Iterable[tuple[codec.Record, Mapping[str, Any]]]) -> None:
        """Append many measurements, each with what :func:`measurement_columns` made of it."""
        values = [{**columns, **self._keys(record)} for record, columns in prepared]
        for start in range(0, len(values), CHUNK):
            self._session.execute(insert(MeasurementRow), values[start : start + CHUNK])

    def _keys(self, record: codec.Record) -> dict[str, int]:
        return {
            "problem_pk": self._problem_pk(record.problem),
            "config_pk": self._config_pk(record.config),
        }

    def declare(self, uid: str, origin: Origin, decided_at: str, *, force: bool = False) -> bool:
        """Point the dispatch row of a measurement's key at it; whether that changed anything.

        Without ``force`` the later of the two decisions stays, and of two at one time the higher
        uid, so that tables merge to the same winners in whatever order.

        Raises:
            StoreError: the measurement is of a failed trial.
        """
        table = MeasurementRow
        names = ("id", "problem_pk", "sku", "source", "policy", "outcome")
        query = select(*(getattr(table, name) for name in names)).where(table.uid == uid)
        new = self._session.execute(query).mappings().one()
        if new["outcome"] != Outcome.OK:
            raise StoreError(
                f"winner: got record {new['id']} with outcome {new['outcome']}, allowed: ok; a "
                f"failed trial cannot win"
            )
        key = {name: new[name] for name in ("problem_pk", "sku", "source", "policy")}
        key["origin"] = origin.value
        same_key = [getattr(WinnerRow, name) == value for name, value in key.items()]
        query = select(WinnerRow.id, WinnerRow.decided_at, table.uid).where(*same_key)
        query = query.join_from(WinnerRow, table, WinnerRow.measurement_pk == table.id)
        old = self._session.execute(query).one_or_none()
        value = {"measurement_pk": new["id"], "decided_at": decided_at}
        if old is None:
            self._session.execute(insert(WinnerRow).values(**key, **value))
            return True
        if not force and (decided_at, uid) <= (old.decided_at, old.uid):
            return False
        self._session.execute(update(WinnerRow).where(WinnerRow.id == old.id).values(**value))
        return True

    def _problem_pk(self, problem: AttentionProblem) -> int:
        if problem not in self._problems:
            codec.check_sizes(problem)
            values = {**problem.to_dict(), "problem_id": problem.problem_id}
            self._problems[problem] = self._intern(ProblemRow, "problem_id", values)
        return self._problems[problem]

    def _config_pk(self, config: KernelConfig) -> int:
        if config not in self._configs:
            values = {"config_id": config.config_id, "knobs": config.to_record()}
            self._configs[config] = self._intern(ConfigRow, "config_id", values)
        return self._configs[config]

    def _intern(
        self, row: type[ProblemRow | ConfigRow], key: str, values: Mapping[str, Any]
    ) -> int:
        """The number of the row with this identity, inserted if it is new."""
        query = select(row.id).where(getattr(row, key) == values[key])
        found = self._session.scalar(query)
        if found is not None:
            return found
        try:
            with nullcontext() if self._alone else self._session.begin_nested():
                new = row(**values)
                self._session.add(new)
                self._session.flush()
                return new.id
        except IntegrityError:  # another writer was first, where the database allows two at once
            return self._session.scalars(query).one()
