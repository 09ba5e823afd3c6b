"""Rows that come with fa4gen lie beneath the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreError
from fa4gen.db import Origin, TuningStore, build_shipped
from fa4gen.db.shipped import cache_folder
from fa4gen.testing.store_contract import POLICY, sample_evaluation, sample_problem

SHIPPED, MINE = KernelConfig(tile_n=96), KernelConfig(tile_n=64)


@pytest.fixture
def ship(shipped_folder: Path, tmp_path: Path) -> Path:
    """One shipped winner for batch 1 and one for batch 2, on the H200."""
    with TuningStore.open(tmp_path / "author.sqlite", with_shipped=False) as author:
        for batch in (1, 2):
            problem = sample_problem(batch=batch)
            author.set_winner(author.record(problem, SHIPPED, sample_evaluation(1.2), POLICY))
        author.export_jsonl(shipped_folder / "h200.jsonl")
    return shipped_folder


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return tmp_path / "user.sqlite"


def chosen(store: TuningStore, sku: str | None = None) -> dict[int, tuple[KernelConfig, Origin]]:
    rows = store.dispatch_rows(sku=sku)
    return {row.problem.batch: (row.config, row.origin) for row in rows}


@pytest.mark.usefixtures("ship")
def test_shipped_rows_are_seen_beneath_an_empty_store(user: Path) -> None:
    with TuningStore.open(user) as store:
        assert chosen(store) == {1: (SHIPPED, Origin.SHIPPED), 2: (SHIPPED, Origin.SHIPPED)}
        assert chosen(store, sku="b200") == {}
        rows = store.evaluations(sample_problem(batch=1), sku="h200")
        assert [(row.origin, row.record_id < 0) for row in rows] == [(Origin.SHIPPED, True)]
        assert store.evaluation(rows[0].record_id) == rows[0]
    with TuningStore.open(user, with_shipped=False) as store:
        assert chosen(store) == {}


@pytest.mark.usefixtures("ship")
def test_the_default_place_need_not_exist() -> None:
    with TuningStore.open(read_only=True) as store:
        assert len(store.dispatch_rows()) == 2


def test_the_users_row_hides_the_shipped_one_of_its_key_only(ship: Path, user: Path) -> None:
    text = (ship / "h200.jsonl").read_text()
    later = re.sub(r'"winner_since":"\d{4}', '"winner_since":"2999', text)
    assert later != text
    (ship / "h200.jsonl").write_text(later)  # the user's row wins, also over a later decision
    with TuningStore.open(user) as store:
        problem = sample_problem(batch=1)
        slower = sample_evaluation(1.1)
        store.set_winner(store.record(problem, MINE, slower, POLICY))
        other_sku = sample_evaluation(1.1, sku="h100")
        store.set_winner(store.record(sample_problem(batch=2), MINE, other_sku, POLICY))
        assert chosen(store, sku="h200") == {1: (MINE, Origin.USER), 2: (SHIPPED, Origin.SHIPPED)}


@pytest.mark.usefixtures("ship")
def test_a_shipped_measurement_can_be_chosen(user: Path, tmp_path: Path) -> None:
    with TuningStore.open(user) as store:
        (row,) = store.evaluations(sample_problem(batch=1))
        store.set_winner(row.record_id)
        store.set_winner(row.record_id)
        assert chosen(store)[1] == (SHIPPED, Origin.USER)
        (adopted,) = store.evaluations(sample_problem(batch=1))
        assert adopted.record_id > 0
        assert (adopted.uid, adopted.origin) == (row.uid, Origin.SHIPPED)
        assert store.export_jsonl(tmp_path / "out.jsonl").rows == 1


def test_without_a_shipped_table_a_negative_number_is_refused(user: Path) -> None:
    with TuningStore.open(user) as store, pytest.raises(StoreError, match="no shipped table"):
        store.set_winner(-1)


def test_new_text_is_seen_at_the_next_opening(ship: Path, user: Path, tmp_path: Path) -> None:
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 2
    with TuningStore.open(tmp_path / "more.sqlite", with_shipped=False) as author:
        made = sample_evaluation(1.3, sku="b200")
        author.set_winner(author.record(sample_problem(batch=3), SHIPPED, made, POLICY))
        author.export_jsonl(ship / "b200.jsonl")
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 3


@pytest.mark.usefixtures("ship")
def test_the_built_table_is_kept_and_a_bad_one_is_rebuilt(user: Path) -> None:
    with TuningStore.open(user) as store:
        store.dispatch_rows()
    (built,) = cache_folder().glob("shipped-*")
    first = built.stat().st_mtime_ns
    with TuningStore.open(user) as store:
        store.dispatch_rows()
    assert built.stat().st_mtime_ns == first
    built.write_bytes(b"torn" * 1000)
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 2


@pytest.mark.usefixtures("ship")
def test_without_a_cache_folder_it_is_built_in_memory(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FA4GEN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 2


def test_a_table_built_beside_the_text_is_used(ship: Path, user: Path) -> None:
    report = build_shipped()
    assert (report.rows, report.winners) == (2, 2)
    assert sorted(path.name for path in ship.iterdir()) == ["dispatch.sqlite", "h200.jsonl"]
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 2
    assert not cache_folder().exists()
    with TuningStore.open(ship / "dispatch.sqlite", with_shipped=False) as built:
        assert built.check() == []


def test_a_stale_built_table_is_not_used(ship: Path, user: Path) -> None:
    build_shipped()
    lines = (ship / "h200.jsonl").read_text().splitlines(keepends=True)
    (ship / "h200.jsonl").write_text(lines[0])
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 1


def test_a_bad_shipped_line_stops_the_build_and_not_the_reader(ship: Path, user: Path) -> None:
    with (ship / "h200.jsonl").open("a") as file:
        file.write('{"format": 1}\n')
    with pytest.raises(StoreError, match=r"h200\.jsonl:3"):
        build_shipped()
    assert not (ship / "dispatch.sqlite").exists()
    with TuningStore.open(user) as store:
        assert len(store.dispatch_rows()) == 2
