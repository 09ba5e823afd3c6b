"""Schema revisions: recognise a database, create the tables, bring an older one up to date.

Alembic is imported only when an older database has to be changed.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from fa4gen import __version__
from fa4gen.core.errors import StoreCorrupt, StoreError, StoreReadOnly, StoreTooNew
from fa4gen.db import schema

MIGRATIONS = Path(__file__).resolve().parent / "migrations"


class State(Enum):
    """What a database is to this fa4gen."""

    EMPTY = "empty"
    CURRENT = "current"
    OLDER = "older"


def inspect_state(connection: Connection, location: str) -> State:
    """What the database is; refuses what this fa4gen must not touch.

    Raises:
        StoreTooNew: written by a newer fa4gen.
        StoreCorrupt: fa4gen's version table without a readable revision.
        StoreError: a database of some other program.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return State.EMPTY
    subject = f"tuning database {location}"
    if schema.VERSION_TABLE not in tables:
        raise StoreError(
            f"{subject}: got a database with tables {', '.join(sorted(tables)[:5])}, allowed: one "
            f"made by fa4gen, or an empty one; nothing was changed; name another file"
        )
    found = connection.scalar(select(schema.version_table.c.version_num))
    if found == schema.SCHEMA_REVISION:
        return State.CURRENT
    if not isinstance(found, str) or not found.isdigit():
        raise StoreCorrupt(
            f"{subject}: got schema revision {found!r}, allowed: four digits; nothing was changed; "
            f"import an export into a new file"
        )
    if found > schema.SCHEMA_REVISION:
        raise StoreTooNew(
            f"{subject}: got schema revision {found} (written by fa4gen {_writer(connection)}), "
            f"allowed: up to {schema.SCHEMA_REVISION} (this is fa4gen {__version__}); "
            f"upgrade fa4gen, or set FA4GEN_DB to another file"
        )
    return State.OLDER


def _writer(connection: Connection) -> str:
    """Version of fa4gen that made or last upgraded the tables, as far as it can be read."""
    query = select(schema.MetaRow.value).where(schema.MetaRow.key == "fa4gen")
    try:
        return connection.scalar(query) or "unknown"
    except SQLAlchemyError:
        return "unknown"


def read_only_and_older(location: str) -> StoreReadOnly:
    """The error for an older database that may not be upgraded."""
    return StoreReadOnly(
        f"tuning database {location}: got an older schema revision, allowed for reading: "
        f"{schema.SCHEMA_REVISION}; open it once where it may be written, which upgrades it"
    )


def create(connection: Connection) -> None:
    """Make the tables of the current revision in an empty database, in the open transaction."""
    schema.version_table.create(connection)
    schema.Base.metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(schema.version_table).values(version_num=schema.SCHEMA_REVISION))
    set_meta(connection, "fa4gen", __version__)


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, in the open transaction: all of them or none."""
    # An older database is rare, and Alembic takes longer to import than a store to open.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, schema.SCHEMA_REVISION)
    set_meta(connection, "fa4gen", __version__)


def set_meta(connection: Connection, key: str, value: str) -> None:
    """Write one fact about the file."""
    if get_meta(connection, key) is None:
        connection.execute(insert(schema.MetaRow).values(key=key, value=value))
    else:
        change = update(schema.MetaRow).where(schema.MetaRow.key == key)
        connection.execute(change.values(value=value))


def get_meta(connection: Connection, key: str) -> str | None:
    """One fact about the file, or None."""
    return connection.scalar(select(schema.MetaRow.value).where(schema.MetaRow.key == key))
