"""A look at every row: does it pass the typed values, and do the identities still hold?"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Text, select, type_coerce
from sqlalchemy.orm import Session

from fa4gen.core.errors import Fa4genError
from fa4gen.db import codec, rows, sqlite
from fa4gen.db.database import Database
from fa4gen.db.schema import ConfigRow, ProblemRow


def problems(database: Database) -> list[str]:
    """Everything that is wrong, one line each.

    Raises:
        StoreError: the database cannot be read.
    """
    found: list[str] = []
    with database.read() as session:
        if database.is_sqlite:
            found += sqlite.integrity_problems(session.connection())
        found += _problem_rows(session)
        found += _config_rows(session)
        reader = rows.Reader(session)
        for _ in reader.measurements(rows.Filter()):
            pass
        for _ in reader.winners(rows.Filter()):
            pass
        found += [str(row) for row in reader.skipped]
    return list(dict.fromkeys(found))


def _problem_rows(session: Session) -> Iterator[str]:
    for row in session.execute(select(*ProblemRow.__table__.columns)).mappings():
        values = {name: row[name] for name in rows.PROBLEM_FIELDS}
        try:
            problem = codec.problem_from_dict(values)
        except Fa4genError as error:
            yield f"problem {row['id']}: {error}"
            continue
        if problem.problem_id != row["problem_id"]:
            yield _identity(f"problem {row['id']}", row["problem_id"], problem.problem_id)


def _config_rows(session: Session) -> Iterator[str]:
    knobs = type_coerce(ConfigRow.knobs, Text)
    for number, config_id, text in session.execute(
        select(ConfigRow.id, ConfigRow.config_id, knobs)
    ):
        try:
            config = rows.config_from_json(text)
        except Fa4genError as error:
            yield f"config {number}: {error}"
            continue
        if config.config_id != config_id:
            yield _identity(f"config {number}", config_id, config.config_id)


def _identity(subject: str, got: str, allowed: str) -> str:
    return f"{subject}: got identity {got}, allowed: {allowed} as computed; its row was edited"
