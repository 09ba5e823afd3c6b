"""The tuning store: measurements and winners of this user, over the rows that come with fa4gen."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import platformdirs

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreCorrupt, StoreError
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import check, codec, shipped, transfer
from fa4gen.db.database import Database, in_memory, open_database
from fa4gen.db.rows import Filter, Reader, Writer, known_uids
from fa4gen.db.schema import SCHEMA_REVISION
from fa4gen.db.values import DispatchRow, Origin, SkippedRow, StoredEvaluation, TransferReport

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another; one write takes milliseconds."""


def default_location() -> str:
    """``$FA4GEN_DB`` (a path or a SQLAlchemy URL), else a file in the user's data folder."""
    given = os.environ.get("FA4GEN_DB")
    return given or str(platformdirs.user_data_path("fa4gen") / "tuning.sqlite")


class TuningStore:
    """A tuning database, with the shipped rows beneath it; made by :meth:`open`.

    Many processes and threads may use one file at once; a write is one transaction, and what it
    returned from survives the death of the process. Rows of the shipped table have negative
    record ids. Rows that do not pass the typed values of this fa4gen are left out, logged, and
    listed in :attr:`skipped`.
    """

    def __init__(self, database: Database, *, with_shipped: bool) -> None:
        self._database = database
        self._with_shipped = with_shipped
        self._shipped: Database | None = None
        self._opening = threading.Lock()
        self._skipped: dict[tuple[int, str], SkippedRow] = {}

    @classmethod
    def open(
        cls,
        url_or_path: str | Path | None = None,
        *,
        read_only: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        with_shipped: bool = True,
    ) -> Self:
        """Open a store; the file is created, or upgraded to this schema, if need be.

        Without an argument, :func:`default_location`; if that file does not exist and
        ``read_only`` is set, the store has the shipped rows only and nothing is created. A file
        that cannot be written where it lies can be read; the first write says why not.

        Raises:
            StoreTooNew: written by a newer fa4gen.
            StoreCorrupt: not a healthy SQLite file; it is left as it is.
            StoreReadOnly: it would have to be created or upgraded, and cannot.
            StoreBusy: another process held the lock for longer than ``busy_timeout_s``.
            StoreError: it cannot be used for another reason.
            MissingDependency: a URL whose driver is not installed.
        """
        where = default_location() if url_or_path is None else url_or_path
        absent = "://" not in str(where) and not Path(where).expanduser().exists()
        if url_or_path is None and read_only and absent:
            database = in_memory(f"{where} (does not exist)", read_only=True)
        else:
            database = open_database(where, read_only=read_only, busy_timeout_s=busy_timeout_s)
        return cls(database, with_shipped=with_shipped)

    @property
    def location(self) -> str:
        """Path of the file, or URL without its password."""
        return self._database.location

    @property
    def read_only(self) -> bool:
        """Whether every write is refused; a file may still turn out to be read-only later."""
        return self._database.read_only

    @property
    def schema_revision(self) -> str:
        """Revision of the tables, the same for every store this fa4gen could open."""
        return SCHEMA_REVISION

    @property
    def skipped(self) -> tuple[SkippedRow, ...]:
        """Rows that reads of this store left out so far."""
        return tuple(self._skipped.values())

    def record(
        self,
        problem: AttentionProblem,
        config: KernelConfig,
        evaluation: Evaluation,
        policy: MeasurementPolicy,
    ) -> int:
        """Append one measurement and give its record id; nothing stored before changes.

        Raises:
            StoreReadOnly: the store cannot be written where it lies.
            StoreBusy: another process held the lock for too long.
            StoreError: a value that cannot be stored, a full disk; nothing of it was kept.
        """
        new = codec.Record(uuid4().hex, problem, config, policy, evaluation)
        with self._database.write() as session:
            return Writer(session).add(new, Origin.USER)

    def evaluations(
        self,
        problem: AttentionProblem | None = None,
        *,
        sku: str | None = None,
        source: Source | None = None,
        policy: MeasurementPolicy | None = None,
        template_hash: str | None = None,
    ) -> list[StoredEvaluation]:
        """Every measurement that matches what is given, shipped ones first, then oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = Filter(sku, source, policy, template_hash, problem)
        mine = self._measurements(self._database, wanted, 1)
        have = {row.uid for row in mine}
        beneath = self._beneath()
        theirs = [] if beneath is None else self._measurements(beneath, wanted, -1)
        return [row for row in theirs if row.uid not in have] + mine

    def evaluation(self, record_id: int) -> StoredEvaluation:
        """The measurement of this number.

        Raises:
            StoreError: there is none, or it does not pass the typed values.
        """
        with self._layer(record_id).read() as session:
            return Reader(session, 1 if record_id > 0 else -1).one(record_id)

    def set_winner(self, record_id: int) -> None:
        """Make the user's dispatch row of (problem, SKU, source, policy) point at a measurement.

        A shipped measurement is copied into the store first. One transaction.

        Raises:
            StoreReadOnly: the store cannot be written where it lies.
            StoreError: no such record, a failed trial, or the store cannot be written.
        """
        chosen = self.evaluation(record_id)
        with self._database.write() as session:
            writer = Writer(session)
            if record_id < 0 and not known_uids(session, [chosen.uid]):
                writer.add(transfer.to_record(chosen), Origin.SHIPPED)
            writer.declare(chosen.uid, Origin.USER, codec.utc_now(), force=True)

    def dispatch_rows(
        self,
        *,
        sku: str | None = None,
        source: Source | None = None,
        policy: MeasurementPolicy | None = None,
    ) -> list[DispatchRow]:
        """The winners that match what is given, one row for each (problem, SKU, source, policy).

        The user's row hides the shipped one; of two shipped ones the later decision counts.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = Filter(sku, source, policy)
        rows = self._winners(self._database, wanted, 1)
        if beneath := self._beneath():
            rows += self._winners(beneath, wanted, -1)
        best: dict[object, DispatchRow] = {}
        for row in rows:
            key = (row.problem, row.sku, row.source, row.policy)
            if key not in best or _rank(row) > _rank(best[key]):
                best[key] = row
        return list(best.values())

    def export_jsonl(
        self,
        path: str | Path,
        *,
        sku: str | None = None,
        source: Source | None = None,
        policy: MeasurementPolicy | None = None,
        winners_only: bool = False,
    ) -> TransferReport:
        """Write this store's rows, not those of the shipped table, as JSON Lines.

        Raises:
            StoreError: the store cannot be read, or the file cannot be written.
        """
        wanted = Filter(sku, source, policy)
        return transfer.export_jsonl(self._database, Path(path), wanted, winners_only=winners_only)

    def import_jsonl(
        self, path: str | Path, origin: Origin = Origin.USER, *, strict: bool = False
    ) -> TransferReport:
        """Add the rows of a JSON-Lines file; those already here, by uid, stay as they are.

        A line that does not pass is left out and reported, or with ``strict`` refuses the file.

        Raises:
            StoreError: the file cannot be read or is refused, or the store cannot be written.
        """
        return transfer.import_jsonl(self._database, Path(path), Origin(origin), strict=strict)

    def merge(self, other: str | Path) -> TransferReport:
        """Add everything another tuning database has; of two winners of a key the later stays.

        Raises:
            StoreError: the other cannot be read, or this one cannot be written.
        """
        source = open_database(other, read_only=True, busy_timeout_s=BUSY_TIMEOUT_S)
        try:
            return transfer.merge(self._database, source)
        finally:
            source.close()

    def check(self) -> list[str]:
        """Everything that is wrong with the stored rows, one line each; empty if healthy.

        Raises:
            StoreError: the store cannot be read for a reason that is not in its rows.
        """
        try:
            return check.problems(self._database)
        except StoreCorrupt as error:
            return [str(error)]

    def close(self) -> None:
        """Let go of the store; every later call raises StoreError."""
        self._database.close()
        if self._shipped is not None:
            self._shipped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _beneath(self) -> Database | None:
        """The shipped table, opened at first use."""
        with self._opening:
            if self._with_shipped and self._shipped is None:
                self._shipped = shipped.shipped_database()
                self._with_shipped = self._shipped is not None
            return self._shipped

    def _layer(self, record_id: int) -> Database:
        beneath = self._beneath() if record_id < 0 else self._database
        if beneath is None:
            raise StoreError(
                f"record: got {record_id}, allowed: above 0; there is no shipped table"
            )
        return beneath

    def _measurements(
        self, database: Database, wanted: Filter, sign: int
    ) -> list[StoredEvaluation]:
        with database.read() as session:
            reader = Reader(session, sign)
            found = list(reader.measurements(wanted))
        self._note(reader.skipped)
        return found

    def _winners(self, database: Database, wanted: Filter, sign: int) -> list[DispatchRow]:
        with database.read() as session:
            reader = Reader(session, sign)
            found = list(reader.winners(wanted))
        self._note(reader.skipped)
        return found

    def _note(self, rows: Iterable[SkippedRow]) -> None:
        """Remember rows that were left out, and say so once for each."""
        for row in rows:
            if self._skipped.setdefault((row.record_id, row.reason), row) is row:
                log.warning("tuning database %s: left out %s", self.location, row)


def _rank(row: DispatchRow) -> tuple[bool, str, bool]:
    """Higher wins its key: the user's, then the later decision, then this store's own row."""
    return (row.origin is Origin.USER, row.decided_at, row.record_id > 0)
