"""The rows that come with fa4gen: ``tuning_db/*.jsonl``, reviewed text, read through SQLite.

The text is the source of truth. For reading it is built once into a database file, found again by
the digest of the text: beside it (``dispatch.sqlite``, what a release carries), else in the cache
folder, else in memory where no file can be written.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from fa4gen.core.errors import ResourceError, StoreError
from fa4gen.core.paths import data_dir
from fa4gen.db import migrate, sqlite, transfer
from fa4gen.db.database import Database, in_memory, open_database
from fa4gen.db.schema import SCHEMA_REVISION
from fa4gen.db.values import Origin, TransferReport

log = logging.getLogger(__name__)

BUILT_NAME = "dispatch.sqlite"
DIGEST = "shipped_digest"
LOCATION = "shipped rows"


def sources(folder: Path | None = None) -> list[Path]:
    """The JSON-Lines files of the shipped table, by name; none in a bare installation."""
    try:
        folder = folder or data_dir("tuning_db")
    except ResourceError:
        return []
    return sorted(folder.glob("*.jsonl"))


def digest(files: Sequence[Path]) -> str:
    """Identity of the shipped text and of the tables it is read into."""
    state = hashlib.sha256(SCHEMA_REVISION.encode())
    for file in files:
        content = file.read_bytes()
        state.update(f"\n{file.name} {len(content)}\n".encode())
        state.update(content)
    return state.hexdigest()[:32]


def build_shipped(dest: Path | None = None, *, folder: Path | None = None) -> TransferReport:
    """Build the shipped table from ``tuning_db/*.jsonl``; every line must pass.

    ``dest`` defaults to ``dispatch.sqlite`` beside the text; it is replaced in one step.

    Raises:
        ResourceError: there is no ``tuning_db`` folder.
        StoreError: a line is refused, or the file cannot be written.
    """
    folder = folder or data_dir("tuning_db")
    return _build_file(sources(folder), dest or folder / BUILT_NAME, strict=True)


def _build_file(files: Sequence[Path], dest: Path, *, strict: bool) -> TransferReport:
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=dest.parent, prefix=".shipped-")
    except OSError as error:
        raise StoreError(f"shipped table {dest}: cannot be written: {error.strerror}") from error
    with scratch as name:
        new = Path(name) / dest.name
        database = open_database(new, read_only=False, busy_timeout_s=0)
        try:
            report = _fill(database, files, strict=strict)
        finally:
            database.close()
        sqlite.pack(new)
        os.replace(new, dest)
    return report


def _fill(database: Database, files: Sequence[Path], *, strict: bool) -> TransferReport:
    reports = [
        transfer.import_jsonl(database, file, Origin.SHIPPED, strict=strict) for file in files
    ]
    with database.write() as session:
        migrate.set_meta(session.connection(), DIGEST, digest(files))
    for report in reports:
        for line in report.skipped:
            log.warning("shipped row left out: %s", line)
    return TransferReport(
        rows=sum(report.rows for report in reports),
        known=sum(report.known for report in reports),
        winners=sum(report.winners for report in reports),
        skipped=tuple(line for report in reports for line in report.skipped),
    )


def shipped_database() -> Database | None:
    """The shipped table, ready to read; None where none is shipped, or where it cannot be read.

    Trouble with these rows is logged and never stands in the way of the user's own.
    """
    try:
        files = sources()
        wanted = digest(files)
    except OSError as error:
        log.warning("%s: cannot be read: %s; reinstall fa4gen", LOCATION, error)
        return None
    if not files:
        return None
    cached = cache_folder() / f"shipped-{wanted}.sqlite"
    for place in (files[0].parent / BUILT_NAME, cached):
        if database := _open_built(place, wanted):
            return database
    try:
        _build_file(files, cached, strict=False)
        if database := _open_built(cached, wanted):
            return database
    except StoreError as error:
        log.info("shipped table not cached: %s", error)
    database = in_memory(LOCATION)
    _fill(database, files, strict=False)
    database.read_only = True
    return database


def _open_built(path: Path, wanted: str) -> Database | None:
    """The built file if it is healthy and of this text; a bad one is as good as none."""
    if not path.is_file():
        return None
    try:
        database = open_database(path, read_only=True, busy_timeout_s=0)
    except StoreError as error:
        log.info("shipped table %s not used: %s", path, error)
        return None
    try:
        with database.read() as session:
            if migrate.get_meta(session.connection(), DIGEST) == wanted:
                return database
    except StoreError as error:
        log.info("shipped table %s not used: %s", path, error)
    database.close()
    return None


def cache_folder() -> Path:
    """``$FA4GEN_CACHE_DIR``, else the user's cache folder."""
    given = os.environ.get("FA4GEN_CACHE_DIR")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("fa4gen")
