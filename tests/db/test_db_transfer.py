"""Export, import and merge: nothing is lost, repeated, or taken on trust."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreError
from fa4gen.core.outcome import Outcome, Source
from fa4gen.db import Origin, TuningStore
from fa4gen.testing.store_contract import (
    BURST,
    POLICY,
    sample_evaluation,
    sample_failure,
    sample_problem,
)


def filled(path: Path, tag: str = "a") -> TuningStore:
    store = TuningStore.open(path, with_shipped=False)
    for batch, gain in ((1, 1.0), (1, 1.2), (2, 1.1)):
        made = sample_evaluation(gain, message=tag)
        record_id = store.record(sample_problem(batch=batch), KernelConfig(), made, POLICY)
        store.set_winner(record_id)
    store.record(sample_problem(), KernelConfig(), sample_failure(Outcome.TIMEOUT), BURST)
    return store


def content(store: TuningStore) -> set[tuple[str, str]]:
    return {(row.uid, repr(row.evaluation)) for row in store.evaluations()}


def winners(store: TuningStore) -> set[tuple[object, ...]]:
    return {
        (str(row.problem), row.sku, row.evaluation.message, row.origin, row.decided_at)
        for row in store.dispatch_rows()
    }


def test_an_export_brings_everything_to_a_new_store(tmp_path: Path) -> None:
    with filled(tmp_path / "a.sqlite") as old, TuningStore.open(tmp_path / "b.sqlite") as new:
        assert old.export_jsonl(tmp_path / "a.jsonl").rows == 4
        report = new.import_jsonl(tmp_path / "a.jsonl", strict=True)
        assert (report.rows, report.known, report.winners) == (4, 0, 2)
        assert content(new) == content(old)
        assert winners(new) == winners(old)
        new.export_jsonl(tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    with filled(tmp_path / "a.sqlite") as store:
        store.export_jsonl(tmp_path / "a.jsonl")
        before = content(store)
        report = store.import_jsonl(tmp_path / "a.jsonl")
        assert (report.rows, report.known, report.winners) == (0, 4, 0)
        assert content(store) == before


def test_an_export_can_be_narrowed(tmp_path: Path) -> None:
    with filled(tmp_path / "a.sqlite") as store:
        out = tmp_path / "out.jsonl"
        assert store.export_jsonl(out, winners_only=True).rows == 2
        assert store.export_jsonl(out, policy=BURST).rows == 1
        assert store.export_jsonl(out, sku="b200").rows == 0
        assert store.export_jsonl(out, source=Source.MEASURED).rows == 4


def test_an_export_of_winners_leaves_out_raw_samples(tmp_path: Path) -> None:
    samples = {"samples_us": {"anchor": [1.0], "candidate": [1.0]}, "seed": 3}
    made = replace(sample_evaluation(1.5), details=samples)
    with TuningStore.open(tmp_path / "a.sqlite", with_shipped=False) as store:
        store.set_winner(store.record(sample_problem(), KernelConfig(), made, POLICY))
        store.export_jsonl(tmp_path / "all.jsonl")
        store.export_jsonl(tmp_path / "winners.jsonl", winners_only=True)
    whole, short = (
        json.loads((tmp_path / f"{name}.jsonl").read_text()) for name in ("all", "winners")
    )
    assert whole["evaluation"]["details"] == samples
    assert short["evaluation"]["details"] == {"seed": 3}
    assert short["uid"] == whole["uid"]


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    with filled(tmp_path / "a.sqlite") as store:
        with pytest.raises(StoreError, match="cannot be written"):
            store.export_jsonl(tmp_path / "missing" / "out.jsonl")
        (tmp_path / "folder").mkdir()
        with pytest.raises(StoreError, match="cannot be written"):
            store.export_jsonl(tmp_path / "folder")
    assert {p.name for p in tmp_path.iterdir()} == {"a.sqlite", "folder"}


def line(**changes: Any) -> dict[str, Any]:
    """A legal line without a uid; keywords replace top-level fields."""
    evaluation = {
        "outcome": "ok",
        "provenance": {
            "source": "measured",
            "sku": "h200",
            "sm_count": 8,
            "template_hash": "ab",
            "date": "2026-01-01T00:00:00+00:00",
            "fa4gen": "0.1.0",
        },
        "timing": {
            "n": 5,
            "median_us": 9.5,
            "spread_us": 0.1,
            "gain": 1.2,
            "gain_low": 1.1,
            "gain_high": 1.3,
        },
    }
    problem = {"batch": 1, "seqlen_q": 128, "num_heads_q": 2, "head_dim": 64}
    legal = {
        "format": 1,
        "problem": problem,
        "config": {"tile_n": 64},
        "policy": "graph-cold-sustained",
        "evaluation": evaluation,
    }
    return {**legal, **changes}


def timed(**changes: Any) -> dict[str, Any]:
    evaluation = line()["evaluation"]
    evaluation["timing"] |= changes
    return line(evaluation=evaluation)


BAD_LINES: dict[str, tuple[Any, str]] = {
    "unknown knob": (line(config={"tile_k": 3}), "unknown knob: got 'tile_k'"),
    "illegal knob": (line(config={"tile_n": True}), "tile_n: got True"),
    "config as code": (line(config="KernelConfig()"), "config: got 'KernelConfig()'"),
    "unknown problem field": (line(problem={"batch": 1, "mood": 2}), "unknown field mood"),
    "missing problem field": (line(problem={"batch": 1}), "missing"),
    "newer format": (line(format=2), "format: got 2, allowed: 1"),
    "unknown field": (line(pickle="gASV"), "unknown field"),
    "bad uid": (line(uid="../../etc"), "uid: got"),
    "bad policy": (line(policy="graph"), "policy: got 'graph'"),
    "bad date": (line(winner_since="yesterday"), "winner_since: got 'yesterday'"),
    "text timing": (timed(gain="1.2"), "gain: got '1.2'"),
    "too large": (timed(n=2**70), "n: got"),
    "infinite timing": (timed(gain=float("inf")), "gain: got inf"),
    "no float": (timed(gain=10**400), "gain: got 1000"),
    "no timing": (line(evaluation={**line()["evaluation"], "timing": None}), "timing must be"),
    "half a character": (
        line(evaluation={**line()["evaluation"], "message": "\ud800"}),
        "message: got",
    ),
    "a list": ([1, 2], "line: got"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_refused_and_the_rest_comes_in(tmp_path: Path, case: str) -> None:
    bad, message = BAD_LINES[case]
    file = tmp_path / "in.jsonl"
    file.write_text(f"{json.dumps(line())}\n\n{json.dumps(bad)}\n{json.dumps(line(config={}))}\n")
    with TuningStore.open(tmp_path / "t.sqlite") as store:
        with pytest.raises(StoreError, match=r"1 lines refused, none imported"):
            store.import_jsonl(file, strict=True)
        assert store.evaluations() == []
        report = store.import_jsonl(file)
        assert report.rows == 2
        assert len(report.skipped) == 1
        assert report.skipped[0].startswith("in.jsonl:3: ")
        assert message in report.skipped[0]
        assert store.check() == []


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_no_bytes_break_an_import(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(raw)
    with TuningStore.open("sqlite://", with_shipped=False) as store:
        report = store.import_jsonl(file)
        assert report.rows == len(store.evaluations())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    value=JSON, place=st.sampled_from(["top", "problem", "config", "evaluation"]), data=st.data()
)
def test_no_value_in_a_line_breaks_an_import(
    tmp_path: Path, value: Any, place: str, data: st.DataObject
) -> None:
    whole = line(uid="ab" * 8, winner_since="2026-01-01T00:00:00Z")
    target = whole if place == "top" else whole[place]
    target[data.draw(st.sampled_from(sorted(target)))] = value
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(whole) + "\n")
    with TuningStore.open("sqlite://", with_shipped=False) as store:
        report = store.import_jsonl(file)
        assert report.rows + len(report.skipped) == 1
        assert len(store.evaluations()) == report.rows
        assert store.check() == []


def test_a_line_without_uid_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(f"{json.dumps(line())}\n{json.dumps(line())}\n{json.dumps(timed(gain=1.25))}\n")
    with TuningStore.open(tmp_path / "t.sqlite") as store:
        assert store.import_jsonl(file).rows == 2
        assert store.import_jsonl(file).rows == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with TuningStore.open("sqlite://") as store, pytest.raises(StoreError, match=r"none\.jsonl"):
        store.import_jsonl(tmp_path / "none.jsonl")


def test_merging_is_the_same_in_either_order(tmp_path: Path) -> None:
    filled(tmp_path / "a.sqlite", "a").close()
    filled(tmp_path / "b.sqlite", "b").close()
    with (
        TuningStore.open(tmp_path / "ab.sqlite") as ab,
        TuningStore.open(tmp_path / "ba.sqlite") as ba,
    ):
        for name in ("a", "b"):
            assert ab.merge(tmp_path / f"{name}.sqlite").rows == 4
        for name in ("b", "a"):
            assert ba.merge(tmp_path / f"{name}.sqlite").rows == 4
        assert content(ab) == content(ba)
        assert winners(ab) == winners(ba)
        assert {message for _, _, message, _, _ in winners(ab)} == {"b"}  # decided later
        assert ab.merge(tmp_path / "a.sqlite").rows == 0
        assert ab.check() == []


def test_merging_changes_nothing_in_the_other(tmp_path: Path) -> None:
    filled(tmp_path / "a.sqlite").close()
    before = (tmp_path / "a.sqlite").read_bytes()
    with TuningStore.open(tmp_path / "b.sqlite") as store:
        store.merge(tmp_path / "a.sqlite")
        with pytest.raises(StoreError, match="no such file"):
            store.merge(tmp_path / "c.sqlite")
    assert (tmp_path / "a.sqlite").read_bytes() == before


def test_merging_keeps_who_said_so(tmp_path: Path) -> None:
    with filled(tmp_path / "a.sqlite") as store:
        store.export_jsonl(tmp_path / "a.jsonl")
    with TuningStore.open(tmp_path / "b.sqlite") as store:
        store.import_jsonl(tmp_path / "a.jsonl", Origin.SHIPPED)
    with TuningStore.open(tmp_path / "c.sqlite") as store:
        store.merge(tmp_path / "b.sqlite")
        assert {row.origin for row in store.dispatch_rows()} == {Origin.SHIPPED}
        assert {row.origin for row in store.evaluations()} == {Origin.SHIPPED}
