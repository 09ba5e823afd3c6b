"""Files that cannot be used, or not fully: each case has its own error, and nothing is harmed."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreTooNew,
)
from fa4gen.db import TuningStore
from fa4gen.testing.store_contract import POLICY, sample_evaluation, sample_problem

GOLDEN = Path(__file__).resolve().parent / "golden" / "v0001.sqlite"
NOBODY = 65534


def write(store: TuningStore, batch: int = 1) -> int:
    config = KernelConfig(num_kv_stages=1 + batch % 32)
    return store.record(sample_problem(batch=batch), config, sample_evaluation(), POLICY)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    copy = tmp_path / "tuning.sqlite"
    shutil.copyfile(GOLDEN, copy)
    return copy


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("content", [b"not a database, only text\n" * 100, b"\0" * 8192])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tuning.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"tuning\.sqlite.*import an export or a back-up"):
        TuningStore.open(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_is_left_alone(golden: Path) -> None:
    healthy = golden.read_bytes()
    damaged = healthy[:1024] + b"\xa5" * (len(healthy) - 1024)
    golden.write_bytes(damaged)
    with pytest.raises(StoreCorrupt):
        TuningStore.open(golden)
    assert golden.read_bytes() == damaged


def test_damage_further_in_is_found_by_reading_and_by_check(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    with TuningStore.open(path) as store:
        for batch in range(1, 40):
            write(store, batch)
    raw = bytearray(path.read_bytes())
    with sqlite3.connect(path) as connection:
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'measurements'"
        page = connection.execute(query).fetchone()[0]
    connection.close()
    raw[(page - 1) * page_bytes : page * page_bytes] = b"\xa5" * page_bytes
    path.write_bytes(raw)
    with TuningStore.open(path) as store:
        with pytest.raises(StoreCorrupt):
            store.evaluations()
        assert store.check() != []


def test_a_newer_schema_names_the_versions_and_the_remedy(golden: Path) -> None:
    execute(
        golden,
        "UPDATE fa4gen_schema SET version_num = '0009'",
        "UPDATE meta SET value = '9.8.7' WHERE key = 'fa4gen'",
    )
    before = golden.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreTooNew, match=r"0009.*9\.8\.7.*0001.*upgrade fa4gen"):
            TuningStore.open(golden, read_only=read_only)
    assert golden.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    execute(path, "CREATE TABLE studies (id INTEGER)", "CREATE TABLE alembic_version (v TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"tables alembic_version, studies.*name another file"):
        TuningStore.open(path)
    assert path.read_bytes() == before


def test_an_illegible_revision_is_refused(golden: Path) -> None:
    execute(golden, "UPDATE fa4gen_schema SET version_num = 'beta'")
    with pytest.raises(StoreCorrupt, match="'beta'"):
        TuningStore.open(golden)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="got a folder"):
        TuningStore.open(tmp_path)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere; be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_folder_can_be_read_and_not_written(public_folder: Path) -> None:
    path = public_folder / "tuning.sqlite"
    with TuningStore.open(path) as store:
        record_id = write(store)
        store.set_winner(record_id)
    path.chmod(0o444)
    public_folder.chmod(0o555)
    with without_privileges(), TuningStore.open(path, with_shipped=False) as store:
        assert [row.record_id for row in store.dispatch_rows()] == [record_id]
        with pytest.raises(StoreReadOnly, match="set FA4GEN_DB"):
            write(store)
        with pytest.raises(StoreReadOnly):
            store.set_winner(record_id)
        assert len(store.evaluations()) == 1


def test_a_read_only_file_can_be_read_and_not_written(public_folder: Path) -> None:
    path = public_folder / "tuning.sqlite"
    with TuningStore.open(path) as store:
        write(store)
    path.chmod(0o444)
    public_folder.chmod(0o777)
    with without_privileges(), TuningStore.open(path, with_shipped=False) as store:
        assert len(store.evaluations()) == 1
        with pytest.raises(StoreReadOnly, match="set FA4GEN_DB"):
            write(store)


def test_rows_in_a_journal_that_cannot_be_read_are_not_passed_over(public_folder: Path) -> None:
    path = public_folder / "tuning.sqlite"
    with TuningStore.open(path) as store:
        write(store)
        with sqlite3.connect(path) as reader:  # keeps the journal from being folded in
            reader.execute("SELECT * FROM measurements").fetchall()
            write(store)
            kept = {name: (public_folder / name).read_bytes() for name in os.listdir(public_folder)}
        reader.close()
    assert kept["tuning.sqlite-wal"]
    for name in ("tuning.sqlite", "tuning.sqlite-wal"):
        (public_folder / name).write_bytes(kept[name])
        (public_folder / name).chmod(0o444)
    public_folder.chmod(0o555)
    with without_privileges(), pytest.raises(StoreReadOnly, match=r"tuning\.sqlite-wal"):
        TuningStore.open(path)


def test_a_new_file_in_a_read_only_folder(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    with without_privileges(), pytest.raises(StoreReadOnly, match="cannot be created"):
        TuningStore.open(public_folder / "deeper" / "tuning.sqlite")


def test_opened_for_reading_it_refuses_to_write(golden: Path) -> None:
    before = golden.read_bytes()
    with TuningStore.open(golden, read_only=True) as store:
        assert store.evaluations()
        with pytest.raises(StoreReadOnly, match="opened for reading"):
            write(store)
    assert golden.read_bytes() == before


def write_until_refused(path: Path) -> tuple[int, str]:
    """Fill a store that has one row; how many it has then, and the error that ended it."""
    with TuningStore.open(path) as store:
        for kept in range(1, 2000):
            try:
                write(store, kept + 1)
            except StoreError as error:
                return kept, str(error)
    raise AssertionError("nothing was refused")


def test_a_full_disk_keeps_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    with TuningStore.open(path) as store:
        write(store)
    with sqlite3.connect(path) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")

    event.listen(Engine, "connect", limit)
    try:
        kept, error = write_until_refused(path)
    finally:
        event.remove(Engine, "connect", limit)
    assert re.search("full; nothing of this write was kept; free some space", error)
    with TuningStore.open(path) as store:
        assert len(store.evaluations()) == kept
        assert store.check() == []
        write(store, kept + 1)
    with sqlite3.connect(path) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("problems", "measurements")
        ]
    connection.close()
    assert counts == [kept + 1, kept + 1]


QUOTA_SCRIPT = """
import resource, sys
from test_db_files import write_until_refused
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
print(*write_until_refused(sys.argv[1]))
"""


def test_a_quota_keeps_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    with TuningStore.open(path) as store:
        write(store)
    done = subprocess.run(
        [sys.executable, "-c", QUOTA_SCRIPT, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    kept, _, message = done.stdout.partition(" ")
    assert "nothing of this write was kept" in message
    with TuningStore.open(path) as store:
        assert len(store.evaluations()) == int(kept)
        assert store.check() == []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_lock_held_too_long_is_busy_and_readers_go_on(golden: Path) -> None:
    with TuningStore.open(golden, busy_timeout_s=0.2) as store:
        before = len(store.evaluations())
        with locked(golden):
            started = time.monotonic()
            with pytest.raises(StoreBusy, match="another process held the lock"):
                write(store)
            assert time.monotonic() - started >= 0.15
            assert len(store.evaluations()) == before
            with TuningStore.open(golden, busy_timeout_s=0.2) as second:
                assert len(second.dispatch_rows()) == 3
        write(store)
        assert len(store.evaluations()) == before + 1


def test_a_writer_waits_for_a_short_lock(golden: Path) -> None:
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); time.sleep(0.4); "
        "c.execute('ROLLBACK')"
    )
    with TuningStore.open(golden) as store:
        other = subprocess.Popen([sys.executable, "-c", code, golden], stdout=subprocess.PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        write(store)
        other.communicate(timeout=30)


def test_hidden_sql_is_reported(golden: Path) -> None:
    execute(golden, "CREATE TRIGGER surprise AFTER INSERT ON meta BEGIN SELECT 1; END")
    with TuningStore.open(golden) as store:
        assert [line for line in store.check() if "trigger surprise" in line]


def test_opening_a_current_file_is_fast(golden: Path) -> None:
    TuningStore.open(golden).close()  # the first of a process also builds SQLAlchemy's caches
    started = time.perf_counter()
    for _ in range(5):
        TuningStore.open(golden).close()
    assert (time.perf_counter() - started) / 5 < 0.05
