"""Everything that is particular to SQLite; no other module speaks its dialect.

A file is opened in the first of three ways that works: for reading and writing, read-only, and
*immutable*, which a file in WAL mode needs where its ``-shm`` cannot be created (a read-only
directory). Writers take the lock at the start of a transaction (``BEGIN IMMEDIATE``), so none
fails half-way for want of it. One connection per transaction and none between: threads and forks
are safe.

Source: sqlite.org, "Write-Ahead Logging" (sections "Read-Only Databases", "Use Of WAL Without
Shared-Memory"), "Result and Error Codes", "Defense Against The Dark Arts".
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, StaticPool

from fa4gen.core.canonical import canonical_json
from fa4gen.core.errors import StoreBusy, StoreCorrupt, StoreError, StoreReadOnly

log = logging.getLogger(__name__)

WRITE = "fa4gen_write"
"""Execution option of a connection whose transaction will write."""

OTHER_PLACE = "set FA4GEN_DB to a file where you may write, or copy this one there"

Connector = Callable[[], sqlite3.Connection]


class Access(StrEnum):
    """How a file is opened."""

    WRITE = "mode=rwc"
    READ = "mode=ro"
    IMMUTABLE = "mode=ro&immutable=1"


def memory_engine() -> Engine:
    """An empty database in memory, one connection shared by all users of the engine."""
    engine = create_engine(
        "sqlite://",
        creator=_connector(":memory:", busy_timeout_s=0, read_only=False),
        poolclass=StaticPool,
        json_serializer=canonical_json,
    )
    event.listen(engine, "begin", _begin)
    return engine


def file_engine(path: Path, access: Access, busy_timeout_s: float) -> Engine:
    """A database file; nothing is opened or created before the first transaction."""
    uri = f"{path.absolute().as_uri()}?{access.value}"
    engine = create_engine(
        "sqlite://",
        creator=_connector(uri, busy_timeout_s, read_only=access is not Access.WRITE),
        poolclass=NullPool,
        json_serializer=canonical_json,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _connector(uri: str, busy_timeout_s: float, read_only: bool) -> Connector:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            # A file made by others may carry triggers and views; they may call no function.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            # One damaged text must not break the reading of all rows; the typed values judge it.
            connection.text_factory = _forgiving_text
            if read_only:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def _forgiving_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def has_one_writer(connection: Connection) -> bool:
    """Whether the open transaction, being a writer's, shuts out all others.

    Then no savepoint is needed against a row that another inserts first, and none must be used:
    SQLite ends the whole transaction when the disk is full, and the savepoint with it.
    """
    return connection.dialect.name == "sqlite"


def use_wal(engine: Engine) -> None:
    """Let readers and one writer work side by side, where the file system can.

    A refusal leaves the journal mode as it is, which is slower and just as safe.
    """
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            return
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        log.debug("journal mode left as it is: %s", error)
    finally:
        raw.close()


def pack(path: Path) -> None:
    """Make a finished file stand alone: no ``-wal`` beside it, no free pages, readable anywhere."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
    finally:
        connection.close()


def unread_journal(path: Path) -> bool:
    """Whether rows wait in a ``-wal`` beside the file, which an immutable reader would miss."""
    journal = path.with_name(path.name + "-wal")
    try:
        return journal.stat().st_size > 0
    except OSError:
        return False


def is_lack_of_access(error: StoreError) -> bool:
    """Whether opening the file with fewer rights might help."""
    cause = _sqlite_error(error)
    codes = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
    return cause is not None and _primary_code(cause) in codes


def _sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    while error is not None:
        if isinstance(error, sqlite3.Error):
            return error
        error = getattr(error, "orig", None) or error.__cause__
    return None


def _primary_code(error: sqlite3.Error) -> int:
    """The result code without its extension; -1 for an error of the Python module itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else int(code) & 0xFF


LOST = "nothing of this write was kept"

ADVICE: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (
        StoreBusy,
        "another process held the lock for longer than the time-out; wait for it or end it, "
        "then try again",
    ),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnly,
        f"it cannot be written where it lies; {OTHER_PLACE}",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreCorrupt,
        "fa4gen changed nothing in it; move it away and import an export or a back-up into a "
        "new one, or set FA4GEN_DB to another file",
    ),
    sqlite3.SQLITE_FULL: (StoreError, f"{LOST}; free some space and repeat it"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreError,
        f"check that the path exists and may be read; {OTHER_PLACE}",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreError,
        f"the disk failed, is full or over its quota; {LOST}; repeat it, or {OTHER_PLACE}",
    ),
}
"""Result code -> (error of ours, what to do)."""
ADVICE[sqlite3.SQLITE_LOCKED] = ADVICE[sqlite3.SQLITE_BUSY]
ADVICE[sqlite3.SQLITE_NOTADB] = ADVICE[sqlite3.SQLITE_CORRUPT]


def translate(error: sqlite3.Error, location: str) -> StoreError:
    """The error of ours that says what to do about an error of SQLite's."""
    kind, advice = ADVICE.get(_primary_code(error), (StoreError, LOST))
    return kind(f"tuning database {location}: {error}; {advice}")


def integrity_problems(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong, and SQL that somebody hid in the file."""
    found = []
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if line != "ok":
            found.append(f"integrity: {line}")
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        found.append(f"{table} row {row}: points at a row of {parent} that does not exist")
    hidden = "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')"
    for kind, name in connection.exec_driver_sql(hidden):
        found.append(f"{kind} {name}: fa4gen makes none; remove it")
    return found
