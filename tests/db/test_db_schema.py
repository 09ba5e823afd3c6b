"""Schema revisions: old files open, migrations and tables agree, other databases understand it."""

from __future__ import annotations

import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url
from sqlalchemy.schema import CreateTable

from fa4gen.db import TuningStore, migrate, schema

GOLDEN = Path(__file__).resolve().parent / "golden"
GOLDEN_FILES = sorted(GOLDEN.glob("*.sqlite"))
MAX_GOLDEN_BYTES = 50_000


def tables(path: Path) -> dict[str, str]:
    """SQL of every table and index, spaces and order of clauses aside."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: "\n".join(sorted(clauses(sql))) for name, sql in rows}


def clauses(sql: str) -> list[str]:
    """What stands between the outer parentheses, cut at the commas outside inner ones."""
    inner = sql[sql.index("(") + 1 : sql.rindex(")")]
    return [" ".join(part.split()) for part in re.split(r",(?![^(]*\))", inner)]


def migrated(path: Path, revision: str = "head") -> None:
    """An empty file brought to a revision by the migrations alone."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_the_newest_migration_is_the_revision_of_the_tables() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.SCHEMA_REVISION]


def test_every_revision_has_a_golden_file() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    revisions = {s.revision for s in ScriptDirectory.from_config(config).walk_revisions()}
    assert {path.stem for path in GOLDEN_FILES} == {f"v{revision}" for revision in revisions}


def test_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    migrated(tmp_path / "migrated.sqlite")
    TuningStore.open(tmp_path / "created.sqlite").close()
    engine = create_engine(f"sqlite:///{tmp_path}/migrated.sqlite")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, schema.Base.metadata) == []
    engine.dispose()
    assert tables(tmp_path / "migrated.sqlite") == tables(tmp_path / "created.sqlite")


@pytest.mark.parametrize("golden", GOLDEN_FILES, ids=lambda path: path.stem)
def test_a_golden_file_opens_with_all_its_rows(golden: Path, tmp_path: Path) -> None:
    assert golden.stat().st_size < MAX_GOLDEN_BYTES
    copy = tmp_path / golden.name
    shutil.copyfile(golden, copy)
    with TuningStore.open(copy) as store:
        assert store.check() == []
        store.export_jsonl(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == golden.with_suffix(".jsonl").read_text()


@pytest.mark.parametrize("golden", GOLDEN_FILES, ids=lambda path: path.stem)
def test_a_golden_export_can_be_imported(golden: Path, tmp_path: Path) -> None:
    with TuningStore.open(tmp_path / "new.sqlite") as store:
        store.import_jsonl(golden.with_suffix(".jsonl"), strict=True)
        store.export_jsonl(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == golden.with_suffix(".jsonl").read_text()


NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None
def upgrade():
    op.add_column("meta", sa.Column("extra", sa.Text()))
    {then}
"""


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations that fa4gen uses as its own; a test adds revision 0002 there."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder)
    monkeypatch.setattr(schema, "SCHEMA_REVISION", "0002")
    monkeypatch.setattr(migrate, "MIGRATIONS", folder)
    return folder / "versions" / "v0002_next.py"


def columns(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        return {row[1] for row in connection.execute("PRAGMA table_info(meta)")}


def test_an_older_file_is_upgraded_in_place(tmp_path: Path, next_revision: Path) -> None:
    next_revision.write_text(NEXT_REVISION.format(then=""))
    copy = tmp_path / "old.sqlite"
    shutil.copyfile(GOLDEN / "v0001.sqlite", copy)
    with TuningStore.open(copy) as store:
        store.export_jsonl(tmp_path / "out.jsonl")
    assert "extra" in columns(copy)
    assert (tmp_path / "out.jsonl").read_text() == (GOLDEN / "v0001.jsonl").read_text()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, next_revision: Path
) -> None:
    next_revision.write_text(NEXT_REVISION.format(then="op.drop_table('meta'); 1 / 0"))
    copy = tmp_path / "old.sqlite"
    shutil.copyfile(GOLDEN / "v0001.sqlite", copy)
    before = tables(copy)
    with pytest.raises(ZeroDivisionError):
        TuningStore.open(copy)
    assert tables(copy) == before


@pytest.mark.parametrize("name", ["postgresql", "mysql"])
def test_other_databases_accept_the_tables(name: str) -> None:
    dialect = make_url(f"{name}://").get_dialect()()
    for table in schema.Base.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))


def test_migrations_speak_postgresql() -> None:
    output = io.StringIO()
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.attributes["dialect_name"] = "postgresql"
    command.upgrade(config, "head", sql=True)
    assert "CREATE TABLE measurements" in output.getvalue()
    assert "DOUBLE PRECISION" in output.getvalue()


def test_opening_a_current_file_does_not_import_alembic(tmp_path: Path) -> None:
    TuningStore.open(tmp_path / "t.sqlite").close()
    code = (
        "import sys; from fa4gen.db import TuningStore; "
        "TuningStore.open(sys.argv[1]).dispatch_rows(); print('alembic' in sys.modules)"
    )
    path = str(tmp_path / "t.sqlite")
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "False"
