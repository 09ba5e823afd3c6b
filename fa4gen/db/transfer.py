"""JSON Lines out of and into a database, and one database into another.

One line is one measurement with everything needed to trust it; ``winner_since`` marks the rows
that the dispatch table points at. Lines are sorted, keys too: the same table gives the same bytes,
and a change reads as a small diff. A uid makes imports and merges safe to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fa4gen.core.canonical import canonical_json
from fa4gen.core.errors import Fa4genError, StoreError
from fa4gen.core.files import write_whole
from fa4gen.db import codec
from fa4gen.db.database import Database
from fa4gen.db.rows import Filter, Reader, Writer, known_uids, measurement_columns
from fa4gen.db.values import Origin, StoredEvaluation, TransferReport

Travelling = tuple[codec.Record, Origin, Origin]
"""A record, the origin of its measurement, the origin of its dispatch row."""

SAMPLES = "samples_us"
"""The detail of an evaluation that holds every single time: nine tenths of a line."""


def export_jsonl(
    database: Database, path: Path, wanted: Filter, *, winners_only: bool
) -> TransferReport:
    """Write the rows of ``database`` that match; the file appears whole or not at all.

    With ``winners_only`` the raw samples stay behind: such a file is read and reviewed by people.

    Raises:
        StoreError: the database cannot be read, or the file cannot be written.
    """
    stored, since, skipped = _read(database, wanted)
    if winners_only:
        stored = [row for row in stored if row.record_id in since]
    records = [
        to_record(row, max(since.get(row.record_id, {}).values(), default=None)) for row in stored
    ]
    if winners_only:
        records = [_without_samples(record) for record in records]
    lines = [canonical_json(codec.record_to_line(record)) for record in sorted(records, key=_order)]
    try:
        write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise StoreError(
            f"export {path}: cannot be written: {error.strerror}; name another file"
        ) from error
    winners = sum(record.winner_since is not None for record in records)
    return TransferReport(rows=len(lines), winners=winners, skipped=tuple(skipped))


def _without_samples(record: codec.Record) -> codec.Record:
    details = {k: v for k, v in record.evaluation.details.items() if k != SAMPLES}
    return replace(record, evaluation=replace(record.evaluation, details=details))


def _order(record: codec.Record) -> tuple[object, ...]:
    made = record.evaluation.provenance
    return (made.sku, made.source, record.policy, str(record.problem), made.date, record.uid)


def _read(
    database: Database, wanted: Filter
) -> tuple[list[StoredEvaluation], dict[int, dict[Origin, str]], list[str]]:
    """Measurements, when each was declared a winner and by whom, and what was skipped."""
    with database.read() as session:
        reader = Reader(session)
        stored = list(reader.measurements(wanted))
        skipped = [str(row) for row in reader.skipped]
        since: dict[int, dict[Origin, str]] = {}
        for winner in reader.winners(wanted):
            since.setdefault(winner.record_id, {})[winner.origin] = winner.decided_at
    return stored, since, skipped


def parse_jsonl(path: Path) -> tuple[list[codec.Record], list[str]]:
    """The records of a file, and one message for each line that was refused.

    Raises:
        StoreError: the file cannot be read.
    """
    records: list[codec.Record] = []
    refused: list[str] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise StoreError(
            f"import {path}: cannot be read: {error.strerror}; check the path"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(codec.record_from_line(json.loads(line)))
        except Fa4genError as error:
            refused.append(f"{path.name}:{number}: {error}")
        except (ValueError, RecursionError) as error:
            refused.append(f"{path.name}:{number}: not a line of JSON: {error}")
    return records, refused


def absorb(
    database: Database, records: Sequence[Travelling], refused: Iterable[str] = ()
) -> TransferReport:
    """Add the records that ``database`` does not have, and the winners that are later than its own.

    One transaction: all of it or nothing.

    Raises:
        StoreError: the database cannot be written.
    """
    first = {record.uid: (record, origin) for record, origin, _ in reversed(records)}
    with database.read() as session:
        known = known_uids(session, list(first))
    # The slow part is done before the lock is taken, which others may be waiting for.
    prepared = {
        uid: (record, measurement_columns(record, origin))
        for uid, (record, origin) in first.items()
        if uid not in known
    }
    winners = 0
    messages = list(refused)
    with database.write() as session:
        writer = Writer(session)
        known = known_uids(session, list(prepared))
        fresh = [prepared[uid] for uid in reversed(prepared) if uid not in known]
        writer.add_all(fresh)
        for record, _, origin in records:
            if record.winner_since is None:
                continue
            try:
                winners += writer.declare(record.uid, origin, record.winner_since)
            except StoreError as error:  # the row that is here under this uid is another one
                messages.append(f"uid {record.uid}: {error}")
    return TransferReport(len(fresh), len(first) - len(fresh), winners, tuple(messages))


def import_jsonl(database: Database, path: Path, origin: Origin, *, strict: bool) -> TransferReport:
    """Add the records of a file.

    Raises:
        StoreError: with ``strict``, a line that is refused; or the file cannot be read, or the
            database cannot be written.
    """
    records, refused = parse_jsonl(path)
    if strict and refused:
        raise StoreError(
            f"import {path}: {len(refused)} lines refused, none imported; the first: {refused[0]}"
        )
    return absorb(database, [(record, origin, origin) for record in records], refused)


def merge(database: Database, other: Database) -> TransferReport:
    """Add everything ``other`` has, with its origins; of two winners of a key the later stays.

    Raises:
        StoreError: one cannot be read, or the other not be written.
    """
    stored, since, skipped = _read(other, Filter())
    travelling: list[Travelling] = []
    for row in stored:
        travelling.append((to_record(row), row.origin, row.origin))
        for declared_by, moment in since.get(row.record_id, {}).items():
            travelling.append((to_record(row, moment), row.origin, declared_by))
    return absorb(database, travelling, skipped)


def to_record(row: StoredEvaluation, winner_since: str | None = None) -> codec.Record:
    """A measurement as it travels."""
    return codec.Record(row.uid, row.problem, row.config, row.policy, row.evaluation, winner_since)
