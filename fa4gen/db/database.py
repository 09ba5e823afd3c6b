"""One database of any kind: units of work, and errors in fa4gen's words."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from fa4gen.core.canonical import canonical_json
from fa4gen.core.errors import MissingDependency, StoreError, StoreReadOnly
from fa4gen.db import migrate, sqlite


class Database:
    """An engine with the transactions of a store; rows and SQL are the caller's.

    Attributes:
        location: what messages call it: a path, or a URL without its password.
        read_only: whether :meth:`write` refuses at once.
        why_read_only: what it says then.
    """

    def __init__(
        self, engine: Engine, location: str, *, read_only: bool, shared: bool = False
    ) -> None:
        self._engine = engine
        self.location = location
        self.read_only = read_only
        self.why_read_only = "it was opened for reading; open it without read_only"
        self._closed = False
        # A database in memory has a single, shared connection; its users take turns.
        self._turn: AbstractContextManager[object] = threading.RLock() if shared else nullcontext()

    @property
    def is_sqlite(self) -> bool:
        """Whether :mod:`fa4gen.db.sqlite` may be asked about it."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database throughout.

        Raises:
            StoreError: it cannot be read; one of the subclasses where the cause is known.
        """
        with self._unit(write=False) as connection, Session(connection) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are kept together at the end, or not at all.

        Raises:
            StoreReadOnly: the store was opened for reading, or the file cannot be written.
            StoreBusy: another process held the lock for too long.
            StoreError: it cannot be written for another reason.
        """
        if self.read_only:
            raise StoreReadOnly(
                f"tuning database {self.location}: {self.why_read_only}, or {sqlite.OTHER_PLACE}"
            )
        with self._unit(write=True) as connection, Session(connection) as session:
            yield session
            session.commit()

    @contextmanager
    def _unit(self, *, write: bool) -> Iterator[Connection]:
        if self._closed:
            raise StoreError(f"tuning database {self.location}: it was closed; open it again")
        with self._turn, translated(self.location), self._engine.connect() as connection:
            yield connection.execution_options(**{sqlite.WRITE: write})

    def state(self) -> migrate.State:
        """What the database is to this fa4gen.

        Raises:
            StoreError: see :func:`fa4gen.db.migrate.inspect_state`.
        """
        with self.read() as session:
            return migrate.inspect_state(session.connection(), self.location)

    def prepare(self, state: migrate.State = migrate.State.EMPTY) -> None:
        """Create the tables of a database in this state, or upgrade them, if that is needed.

        Raises:
            StoreReadOnly: an older schema that may not be changed.
            StoreError: see :meth:`state` and :meth:`write`.
        """
        if state is migrate.State.CURRENT:
            return
        if self.read_only:
            raise migrate.read_only_and_older(self.location)
        with self.write() as session:
            connection = session.connection()
            # Another process may have done it while this one waited for the lock.
            state = migrate.inspect_state(connection, self.location)
            if state is migrate.State.EMPTY:
                migrate.create(connection)
            elif state is migrate.State.OLDER:
                migrate.upgrade(connection)

    def use_wal(self) -> None:
        """Let readers and a writer work side by side, where this kind of database must be told."""
        if self.is_sqlite and not self.read_only:
            with translated(self.location):
                sqlite.use_wal(self._engine)

    def close(self) -> None:
        """Let go of the connections; every later transaction is refused."""
        self._closed = True
        self._engine.dispose()


@contextmanager
def translated(location: str) -> Iterator[None]:
    """Errors of the database below, in fa4gen's words.

    Raises:
        StoreError: instead of any error of SQLAlchemy or of the driver.
    """
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise sqlite.translate(error.orig, location) from error
        raise StoreError(f"tuning database {location}: {error.orig}") from error
    except sqlite3.Error as error:
        raise sqlite.translate(error, location) from error
    except SQLAlchemyError as error:
        raise StoreError(f"tuning database {location}: {error}") from error


def in_memory(location: str = "memory", *, read_only: bool = False) -> Database:
    """An empty database in memory, with its tables."""
    database = Database(sqlite.memory_engine(), location, read_only=False, shared=True)
    database.prepare()
    database.read_only = read_only
    return database


def open_database(where: str | Path, *, read_only: bool, busy_timeout_s: float) -> Database:
    """The database at a path or a SQLAlchemy URL, created or upgraded if need be.

    Raises:
        StoreError: it cannot be used; the subclass and the message say why.
        MissingDependency: a URL whose driver is not installed.
    """
    path = _sqlite_path(where)
    if path is None:
        database = _open_url(str(where), read_only=read_only)
    elif str(path) == ":memory:":
        return in_memory()
    else:
        database = _open_file(path, read_only=read_only, busy_timeout_s=busy_timeout_s)
    try:
        state = database.state()
        if read_only and state is migrate.State.EMPTY:
            # A tuner that starts right now has made the file and not yet its tables.
            database.close()
            return in_memory(f"{database.location} (empty)", read_only=True)
        database.use_wal()
        database.prepare(state)
    except BaseException:
        database.close()
        raise
    return database


def _sqlite_path(where: str | Path) -> Path | None:
    """The file that ``where`` means; None for a URL of another database."""
    if isinstance(where, Path) or "://" not in where:
        return Path(where).expanduser()
    try:
        url = make_url(where)
    except ArgumentError:
        raise StoreError(
            f"tuning database: got {where!r}, allowed: a path or a SQLAlchemy URL"
        ) from None
    if url.get_backend_name() != "sqlite":
        return None
    if url.query or url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(
            f"tuning database: got {where!r}, allowed for SQLite: sqlite:///PATH without driver "
            f"and options; give the path"
        )
    return Path(url.database or ":memory:")


def _open_url(where: str, *, read_only: bool) -> Database:
    url = make_url(where)
    location = url.render_as_string(hide_password=True)
    try:
        engine = create_engine(url, json_serializer=canonical_json)
    except ImportError as error:
        raise MissingDependency(
            f"tuning database {location}: {error}; install the driver of this kind of database"
        ) from error
    except (NoSuchModuleError, ArgumentError) as error:
        raise StoreError(f"tuning database {location}: {error}") from error
    return Database(engine, location, read_only=read_only)


def _open_file(path: Path, *, read_only: bool, busy_timeout_s: float) -> Database:
    """The file with the most rights it grants."""
    if path.is_dir():
        raise StoreError(f"tuning database {path}: got a folder, allowed: a file; name one in it")
    if read_only and not path.exists():
        raise StoreError(f"tuning database {path}: no such file; check the path, or tune first")
    if not path.exists():
        _make_folder(path)
    asked = [sqlite.Access.READ, sqlite.Access.IMMUTABLE]
    if not read_only:
        asked.insert(0, sqlite.Access.WRITE)
    refusal: StoreError | None = None
    for access in asked:
        if access is sqlite.Access.IMMUTABLE and sqlite.unread_journal(path):
            raise StoreReadOnly(
                f"tuning database {path}: rows wait in {path.name}-wal, which cannot be read in a "
                f"folder that cannot be written; copy both files to one where you may write"
            ) from refusal
        engine = sqlite.file_engine(path, access, busy_timeout_s)
        database = Database(engine, str(path), read_only=access is not sqlite.Access.WRITE)
        try:
            database.state()
        except StoreError as error:
            database.close()
            if not sqlite.is_lack_of_access(error) or not path.exists():
                raise
            refusal = error
        else:
            if not read_only and database.read_only:
                database.why_read_only = "it cannot be written where it lies; change its mode"
            return database
    raise refusal or StoreError(f"tuning database {path}: cannot be opened")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(
            f"tuning database {path}: cannot be created: {error.strerror}; {sqlite.OTHER_PLACE}"
        ) from error
