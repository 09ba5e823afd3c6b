"""Opening a store, rows that do not pass the typed values, and what check() sees."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from dataclasses import fields
from pathlib import Path

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import ConfigError, MissingDependency, StoreError, UnknownName
from fa4gen.core.evaluation import Provenance, Timing
from fa4gen.db import TuningStore, default_location, schema
from fa4gen.db.database import Database
from fa4gen.testing.store_contract import POLICY, sample_evaluation, sample_problem


def write(store: TuningStore, tile_n: int = 128) -> int:
    config = KernelConfig(tile_n=tile_n)
    return store.record(sample_problem(), config, sample_evaluation(), POLICY)


def execute(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "odd name ?#%41.sqlite"


def test_the_default_place_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FA4GEN_DB", str(tmp_path / "deep" / "mine.sqlite"))
    with TuningStore.open() as store:
        write(store)
    assert (tmp_path / "deep" / "mine.sqlite").is_file()
    monkeypatch.setenv("FA4GEN_DB", "")
    assert default_location().endswith("tuning.sqlite")


def test_reading_a_default_place_that_is_not_there_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FA4GEN_DB", str(tmp_path / "none" / "mine.sqlite"))
    with TuningStore.open(read_only=True) as store:
        assert store.dispatch_rows() == []
        assert store.read_only
    assert not (tmp_path / "none").exists()


def test_reading_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        TuningStore.open(tmp_path / "none.sqlite", read_only=True)


def test_reading_a_file_that_is_just_being_made_finds_it_empty(path: Path) -> None:
    path.touch()
    with TuningStore.open(path, read_only=True) as store:
        assert store.evaluations() == []
    assert path.read_bytes() == b""


def test_two_that_make_one_file_at_once_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openings = 0
    use_wal = Database.use_wal

    def overtaken(database: Database) -> None:
        """Lets another process make the tables after this one found the file empty."""
        nonlocal openings
        openings += 1
        if openings == 1:
            with TuningStore.open(path) as faster:
                write(faster)
        use_wal(database)

    monkeypatch.setattr(Database, "use_wal", overtaken)
    with TuningStore.open(path) as store:
        assert len(store.evaluations()) == 1
        assert store.check() == []


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("no dialect://x", StoreError, "a path or a SQLAlchemy URL"),
        ("nonsense://host/db", StoreError, "nonsense"),
        ("sqlite:///x.sqlite?mode=ro", StoreError, "give the path"),
        ("postgresql+psycopg2://me:secret@host/db", MissingDependency, "install the driver"),
    ],
)
def test_a_bad_url_says_why(where: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        TuningStore.open(where)
    assert "secret" not in str(caught.value)


def test_a_store_in_memory_serves_many_threads() -> None:
    with TuningStore.open("sqlite://") as store:
        workers = [threading.Thread(target=write, args=(store,)) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(store.evaluations()) == 8
        assert store.check() == []


def test_every_fact_of_the_provenance_has_a_column() -> None:
    columns = set(schema.MeasurementRow.__table__.columns.keys())
    assert {field.name for kind in (Provenance, Timing) for field in fields(kind)} <= columns


def test_problems_and_configs_are_stored_once(path: Path) -> None:
    with TuningStore.open(path) as store:
        for _ in range(3):
            write(store)
        write(store, tile_n=64)
    with sqlite3.connect(path) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("problems", "configs", "measurements")
        ]
    connection.close()
    assert counts == [1, 2, 4]


def knobs(path: Path, config_row: int) -> dict[str, object]:
    with sqlite3.connect(path) as connection:
        query = "SELECT knobs FROM configs WHERE id = ?"
        (text,) = connection.execute(query, (config_row,)).fetchone()
    connection.close()
    values: dict[str, object] = json.loads(text)
    return values


BAD_CONFIGS = {
    "unknown knob": ('{"warp_dance": 3}', UnknownName, "unknown knob: got 'warp_dance'"),
    "illegal value": ('{"tile_n": 7}', ConfigError, "tile_n: got 7"),
    "code": ('{"tile_n": "__import__(\'os\')"}', ConfigError, "tile_n: got"),
    "no JSON": ("{", StoreError, "not JSON"),
    "no mapping": ("[1]", StoreError, "knob names"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_config_costs_its_own_rows_only(
    path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, error, message = BAD_CONFIGS[case]
    with TuningStore.open(path) as store:
        good, bad = write(store), write(store, tile_n=64)
        store.set_winner(bad)
    execute(path, "UPDATE configs SET knobs = ? WHERE id = 2", text)
    with TuningStore.open(path) as store, caplog.at_level(logging.WARNING):
        assert [row.record_id for row in store.evaluations()] == [good]
        assert store.dispatch_rows() == []
        assert [row.record_id for row in store.skipped] == [bad]
        assert message in store.skipped[0].reason
        assert caplog.text.count("left out") == 1
        with pytest.raises(error, match="got"):
            store.evaluation(bad)
        with pytest.raises(error, match="got"):
            store.set_winner(bad)
        assert [line for line in store.check() if message in line]
        store.set_winner(good)
        assert [row.record_id for row in store.dispatch_rows()] == [good]


def test_a_knob_added_since_takes_its_default(path: Path) -> None:
    with TuningStore.open(path) as store:
        write(store, tile_n=64)
    older = {name: value for name, value in knobs(path, 1).items() if name != "pack_gqa"}
    execute(path, "UPDATE configs SET knobs = ?", json.dumps(older))
    with TuningStore.open(path) as store:
        (row,) = store.evaluations()
    assert row.config == KernelConfig(tile_n=64)


BAD_ROWS = {
    "outcome": ("measurements", "outcome", "splendid", "outcome: got 'splendid'"),
    "source": ("measurements", "source", "guessed", "source: got 'guessed'"),
    "policy": ("measurements", "policy", "fast", "policy: got 'fast'"),
    "origin": ("measurements", "origin", "mars", "origin: got 'mars'"),
    "text for a number": ("measurements", "median_us", "quick", "median_us: got 'quick'"),
    "infinity": ("measurements", "gain", float("inf"), "gain: got inf"),
    "timing lost": ("measurements", "gain_low", None, "gain_low: got None"),
    "details": ("measurements", "details", "[]", "details: got"),
    "resources": ("measurements", "resources", '{"tea": 1}', "unknown field tea"),
    "head count": ("problems", "num_heads_kv", 3, "a multiple of num_heads_kv"),
    "text in a size": ("problems", "batch", "two", "batch: got 'two'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_an_edited_row_is_left_out_with_its_reason(path: Path, case: str) -> None:
    table, column, value, message = BAD_ROWS[case]
    with TuningStore.open(path) as store:
        store.set_winner(write(store))
        other = store.record(
            sample_problem(batch=9), KernelConfig(), sample_evaluation(sku="h100"), POLICY
        )
        store.set_winner(other)
    if column == "outcome":
        execute(path, "UPDATE measurements SET median_us = NULL, outcome = 'splendid' WHERE id = 1")
    else:
        execute(path, f"UPDATE {table} SET {column} = ? WHERE id = 1", value)
    with TuningStore.open(path) as store:
        assert [row.record_id for row in store.evaluations()] == [other]
        assert [row.record_id for row in store.dispatch_rows()] == [other]
        assert message in store.skipped[0].reason
        assert [line for line in store.check() if message in line]


def test_check_sees_a_config_that_was_changed_behind_its_identity(path: Path) -> None:
    with TuningStore.open(path) as store:
        write(store)
        changed = {**knobs(path, 1), "tile_n": 64}
        execute(path, "UPDATE configs SET knobs = ?", json.dumps(changed))
        execute(path, "UPDATE problems SET batch = 77")
        found = "\n".join(store.check())
    assert "config 1: got identity" in found
    assert "problem 1: got identity" in found


def test_check_sees_a_dispatch_row_of_another_key(path: Path) -> None:
    with TuningStore.open(path) as store:
        store.set_winner(write(store))
        execute(path, "UPDATE dispatch SET sku = 'b200'")
        assert store.dispatch_rows() == []
        assert [line for line in store.check() if "sku: got 'b200', allowed: 'h200'" in line]


def test_check_sees_a_reference_to_nothing(path: Path) -> None:
    with TuningStore.open(path) as store:
        store.set_winner(write(store))
        execute(path, "DELETE FROM measurements")
        assert [line for line in store.check() if "does not exist" in line]


def test_a_detail_that_is_no_json_is_refused_whole(path: Path) -> None:
    evaluation = sample_evaluation()
    evaluation.details["when"] = object()
    with TuningStore.open(path) as store:
        with pytest.raises(StoreError, match=r"details\.when: got a object, allowed: plain JSON"):
            store.record(sample_problem(), KernelConfig(), evaluation, POLICY)
        assert store.evaluations() == []


def test_a_size_beyond_the_columns_is_refused(path: Path) -> None:
    huge = sample_problem(batch=2**31)
    with TuningStore.open(path) as store, pytest.raises(StoreError, match=r"batch: got 2147483648"):
        store.record(huge, KernelConfig(), sample_evaluation(), POLICY)
