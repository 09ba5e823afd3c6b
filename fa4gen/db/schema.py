"""Tables of the tuning database.

::

    problems   1 ──┐                       one row per AttentionProblem ever seen
    configs    1 ──┼── n  measurements     append-only: one row per trial, with all provenance
    dispatch   n ──┴── 1  measurements     (problem, SKU, source, policy, origin) -> the winner
    meta                                   who created the file, digest of what it was built from
    fa4gen_schema                          one row: the schema revision

Problems and configurations are interned: a row of their own, found by the hash of their canonical
JSON. To change a table, add a migration, raise :data:`SCHEMA_REVISION`, and keep a file of the old
revision under ``tests/db/golden``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_REVISION = "0001"
"""The revision this fa4gen reads and writes; the newest file of ``migrations/versions``."""

VERSION_TABLE = "fa4gen_schema"

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name of its own, so that a migration can speak of it."""

JSON_VALUE = JSON(none_as_null=True)

version_table = Table(
    VERSION_TABLE,
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)
"""Alembic's own table, spelt out so that reading the revision does not import Alembic."""


class Base(DeclarativeBase):
    """Base of all rows."""

    metadata = MetaData(naming_convention=NAMES)


class MetaRow(Base):
    """A fact about the file itself."""

    __tablename__ = "meta"

    key: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class ProblemRow(Base):
    """One attention problem; columns are the fields of ``AttentionProblem``."""

    __tablename__ = "problems"

    id: Mapped[int] = mapped_column(primary_key=True)
    problem_id: Mapped[str] = mapped_column(String(16), unique=True)
    batch: Mapped[int]
    seqlen_q: Mapped[int]
    seqlen_k: Mapped[int]
    num_heads_q: Mapped[int]
    num_heads_kv: Mapped[int]
    head_dim: Mapped[int]
    head_dim_v: Mapped[int]
    dtype: Mapped[str] = mapped_column(String(16))
    causal: Mapped[bool]


class ConfigRow(Base):
    """One kernel configuration: knob name -> value."""

    __tablename__ = "configs"

    id: Mapped[int] = mapped_column(primary_key=True)
    config_id: Mapped[str] = mapped_column(String(16), unique=True)
    knobs: Mapped[dict[str, Any]] = mapped_column(JSON_VALUE)


class MeasurementRow(Base):
    """One trial; never updated, never deleted.

    Column names are the field names of ``Evaluation``, ``Provenance`` and ``Timing``; the six
    columns of ``Timing`` are NULL unless the outcome is ``ok``.
    """

    __tablename__ = "measurements"
    __table_args__ = (
        CheckConstraint("(outcome = 'ok') = (median_us IS NOT NULL)", name="timed_when_ok"),
        Index(None, "problem_pk", "sku", "source", "policy"),
        Index(None, "sku", "source"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    problem_pk: Mapped[int] = mapped_column(ForeignKey("problems.id"))
    config_pk: Mapped[int] = mapped_column(ForeignKey("configs.id"))
    origin: Mapped[str] = mapped_column(String(16))
    policy: Mapped[str] = mapped_column(String(48))
    outcome: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)

    source: Mapped[str] = mapped_column(String(16))
    sku: Mapped[str] = mapped_column(String(32))
    sm_count: Mapped[int]
    template_hash: Mapped[str] = mapped_column(String(64))
    date: Mapped[str] = mapped_column(String(32))
    fa4gen: Mapped[str] = mapped_column(Text)
    cutlass_dsl: Mapped[str] = mapped_column(Text)
    torch: Mapped[str] = mapped_column(Text)
    gpu_name: Mapped[str] = mapped_column(Text)
    gpu_uuid_hash: Mapped[str] = mapped_column(Text)
    driver: Mapped[str] = mapped_column(Text)
    cuda: Mapped[str] = mapped_column(Text)
    model_version: Mapped[str] = mapped_column(Text)
    sm_clock_mhz: Mapped[int | None]
    power_w: Mapped[float | None] = mapped_column(Double)
    throttle: Mapped[str] = mapped_column(Text)

    n: Mapped[int | None]
    median_us: Mapped[float | None] = mapped_column(Double)
    spread_us: Mapped[float | None] = mapped_column(Double)
    gain: Mapped[float | None] = mapped_column(Double)
    gain_low: Mapped[float | None] = mapped_column(Double)
    gain_high: Mapped[float | None] = mapped_column(Double)

    compile_s: Mapped[float | None] = mapped_column(Double)
    evaluate_s: Mapped[float | None] = mapped_column(Double)
    reasons: Mapped[list[Any]] = mapped_column(JSON_VALUE)
    accuracy: Mapped[dict[str, Any] | None] = mapped_column(JSON_VALUE)
    resources: Mapped[dict[str, Any] | None] = mapped_column(JSON_VALUE)
    details: Mapped[dict[str, Any]] = mapped_column(JSON_VALUE)


class WinnerRow(Base):
    """The measurement that won one key of the dispatch table."""

    __tablename__ = "dispatch"
    __table_args__ = (UniqueConstraint("problem_pk", "sku", "source", "policy", "origin"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    problem_pk: Mapped[int] = mapped_column(ForeignKey("problems.id"))
    sku: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(16))
    policy: Mapped[str] = mapped_column(String(48))
    origin: Mapped[str] = mapped_column(String(16))
    measurement_pk: Mapped[int] = mapped_column(ForeignKey("measurements.id"))
    decided_at: Mapped[str] = mapped_column(String(32))
