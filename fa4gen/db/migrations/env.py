"""Alembic's entry point; run by :func:`fa4gen.db.migrate.upgrade` inside its transaction."""

from __future__ import annotations

from alembic import context

from fa4gen.db.schema import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes.get("connection"),
    dialect_name=context.config.attributes.get("dialect_name"),
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
