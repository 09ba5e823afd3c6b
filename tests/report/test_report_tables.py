"""What the tables say, and that they fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from fa4gen.core.config import KernelConfig
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.report import tables
from fa4gen.report.plain import plain, to_json
from fa4gen.report.views import (
    DoctorView,
    Finding,
    Health,
    RowView,
    TableView,
    TimingView,
    TuneRowView,
    TuneView,
)

PROBLEM = AttentionProblem.from_dict(
    {"batch": 16, "seqlen_q": 16384, "num_heads_q": 128, "num_heads_kv": 8, "head_dim": 128}
)
MEASURED = TimingView(1234.5, 612.34, 1.083, 1.071, 1.095, Source.MEASURED)
MODELLED = TimingView(1234.5, 612.34, 1.083, 1.083, 1.083, Source.MODELLED)


def row(timing: TimingView | None, **changes: Any) -> RowView:
    config = KernelConfig(tile_n=96)
    base = RowView(
        PROBLEM, "winner", "h200", "graph-cold-sustained", "user", "2026-01-01T00:00:00+00:00",
        config, {"tile_n": 96}, timing,
    )  # fmt: skip
    return replace(base, **changes)


def text(drawing: Any, width: int = 80) -> str:
    console = Console(width=width, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(drawing)
    return capture.get()


def test_a_measured_gain_has_its_interval_and_a_modelled_one_none() -> None:
    assert tables.gain_text(MEASURED).plain == "1.083x ±0.012"
    assert tables.gain_text(MEASURED, interval=False).plain == "1.083x"
    assert tables.gain_text(MODELLED).plain == "1.083x"


def test_rows_of_other_templates_are_counted() -> None:
    old, new = row(MEASURED, other_template=True), row(MEASURED)
    of_another_sku = row(MEASURED, sku="h100_sxm5")
    drawn = text(tables.table(TableView("x.db", (old, new, old, of_another_sku))), 200)
    assert "2 of 3 rows were found with other templates" in drawn
    assert drawn.count("other templates") == 1
    assert "other templates" not in text(tables.table(TableView("x.db", (new,))))


@pytest.mark.parametrize("width", [80, 120])
def test_a_row_of_ordinary_size_takes_one_line(width: int) -> None:
    lines = text(tables.Rows((row(MEASURED),)), width).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert ("tile_n=96" in lines[2]) == (width == 120)
    assert "612.3" in lines[2]


def test_a_table_with_a_modelled_row_says_what_that_means() -> None:
    with_model = TableView("db.sqlite", (row(MEASURED), row(MODELLED, sku="h100_sxm5")))
    assert "not measurements" in text(tables.table(with_model), 120)
    assert "not measurements" not in text(tables.table(TableView("db", (row(MEASURED),))), 120)


def test_rows_that_may_not_be_compared_stand_apart() -> None:
    rows = (
        row(MEASURED),
        row(MEASURED, policy="eager-warm-burst"),
        row(MEASURED, origin="shipped"),
    )
    shown = text(tables.table(TableView("db", rows)), 120)
    for heading in (
        "h200, graph-cold-sustained, user",
        "h200, eager-warm-burst, user",
        "h200, graph-cold-sustained, shipped",
    ):
        assert heading in shown


def test_a_row_without_a_time_says_why() -> None:
    shown = text(tables.Rows((row(None, note="timeout: no answer within 30 s"),)), 120)
    assert "timeout: no answer within 30 s" in shown


def test_the_closing_table_counts_trials_and_names_failures() -> None:
    good = TuneRowView(PROBLEM, row(MEASURED), {"ok": 9, "timeout": 1}, "converged", "")
    bad = TuneRowView(PROBLEM, None, {"wrong_result": 1}, "anchor_failed", "default is wrong")
    view = TuneView(
        "h200", Source.MEASURED, "graph-cold-sustained", "db", 61.0, False, 1.083, (good, bad)
    )
    shown = text(tables.tuning(view), 120)
    assert "1 of 2 problems have a winner" in shown
    assert "11 trials (9 ok, 1 timeout, 1 wrong_result)" in shown
    assert "default is wrong" in shown
    assert "not measurements" not in shown


def test_doctor_lists_remedies_after_findings() -> None:
    view = DoctorView(
        (
            Finding("torch", Health.OK, "2.13.0"),
            Finding("GPU", Health.NOTE, "none", "buy one"),
        ),
        {"compile kernels": True, "time kernels": False},
    )
    shown = text(tables.doctor(view))
    assert "can compile kernels\ncannot time kernels" in shown
    assert shown.index("buy one") > shown.index("none")
    assert "torch:" not in shown


def test_json_says_the_same_as_the_view() -> None:
    values = json.loads(to_json(TableView("db.sqlite", (row(MEASURED),))))
    (only,) = values["rows"]
    assert only["problem"]["text"] == str(PROBLEM)
    assert only["problem"]["head_dim_v"] == 128
    assert only["config"]["config_id"] == KernelConfig(tile_n=96).config_id
    assert only["timing"]["source"] == "measured"


def test_json_has_no_infinity_and_refuses_what_it_does_not_know() -> None:
    assert plain({"left_s": float("inf")}) == {"left_s": None}
    with pytest.raises(TypeError, match="no plain form for object"):
        plain(object())
