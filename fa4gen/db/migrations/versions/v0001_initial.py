"""First schema: interned problems and configs, append-only measurements, the dispatch table."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

JSON_VALUE = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Make every table."""
    _interned()
    _measurements()
    _dispatch()


def downgrade() -> None:
    """Drop every table, and all rows with them."""
    for table in ("dispatch", "measurements", "configs", "problems", "meta"):
        op.drop_table(table)


def _interned() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "problems",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("problem_id", sa.String(16), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("seqlen_q", sa.Integer(), nullable=False),
        sa.Column("seqlen_k", sa.Integer(), nullable=False),
        sa.Column("num_heads_q", sa.Integer(), nullable=False),
        sa.Column("num_heads_kv", sa.Integer(), nullable=False),
        sa.Column("head_dim", sa.Integer(), nullable=False),
        sa.Column("head_dim_v", sa.Integer(), nullable=False),
        sa.Column("dtype", sa.String(16), nullable=False),
        sa.Column("causal", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_problems"),
        sa.UniqueConstraint("problem_id", name="uq_problems_problem_id"),
    )
    op.create_table(
        "configs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("config_id", sa.String(16), nullable=False),
        sa.Column("knobs", JSON_VALUE, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_configs"),
        sa.UniqueConstraint("config_id", name="uq_configs_config_id"),
    )


def _provenance() -> list[sa.Column[Any]]:
    texts = ("fa4gen", "cutlass_dsl", "torch", "gpu_name", "gpu_uuid_hash", "driver", "cuda")
    return [
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("sku", sa.String(32), nullable=False),
        sa.Column("sm_count", sa.Integer(), nullable=False),
        sa.Column("template_hash", sa.String(64), nullable=False),
        sa.Column("date", sa.String(32), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("sm_clock_mhz", sa.Integer()),
        sa.Column("power_w", sa.Double()),
        sa.Column("throttle", sa.Text(), nullable=False),
    ]


def _results() -> list[sa.Column[Any]]:
    timings = ("median_us", "spread_us", "gain", "gain_low", "gain_high")
    return [
        sa.Column("n", sa.Integer()),
        *(sa.Column(name, sa.Double()) for name in timings),
        sa.Column("compile_s", sa.Double()),
        sa.Column("evaluate_s", sa.Double()),
        sa.Column("reasons", JSON_VALUE, nullable=False),
        sa.Column("accuracy", JSON_VALUE),
        sa.Column("resources", JSON_VALUE),
        sa.Column("details", JSON_VALUE, nullable=False),
    ]


def _measurements() -> None:
    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("problem_pk", sa.Integer(), nullable=False),
        sa.Column("config_pk", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("policy", sa.String(48), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        *_provenance(),
        *_results(),
        sa.PrimaryKeyConstraint("id", name="pk_measurements"),
        sa.CheckConstraint(
            "(outcome = 'ok') = (median_us IS NOT NULL)", name=op.f("ck_measurements_timed_when_ok")
        ),
        sa.ForeignKeyConstraint(["problem_pk"], ["problems.id"], name="fk_measurements_problem_pk"),
        sa.ForeignKeyConstraint(["config_pk"], ["configs.id"], name="fk_measurements_config_pk"),
        sa.UniqueConstraint("uid", name="uq_measurements_uid"),
    )
    op.create_index(
        "ix_measurements_problem_pk_sku_source_policy",
        "measurements",
        ["problem_pk", "sku", "source", "policy"],
    )
    op.create_index("ix_measurements_sku_source", "measurements", ["sku", "source"])


def _dispatch() -> None:
    key = ("problem_pk", "sku", "source", "policy", "origin")
    op.create_table(
        "dispatch",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("problem_pk", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(32), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("policy", sa.String(48), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("measurement_pk", sa.Integer(), nullable=False),
        sa.Column("decided_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dispatch"),
        sa.ForeignKeyConstraint(["problem_pk"], ["problems.id"], name="fk_dispatch_problem_pk"),
        sa.ForeignKeyConstraint(
            ["measurement_pk"], ["measurements.id"], name="fk_dispatch_measurement_pk"
        ),
        sa.UniqueConstraint(*key, name="uq_dispatch_problem_pk_sku_source_policy_origin"),
    )
