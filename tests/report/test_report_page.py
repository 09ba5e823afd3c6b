"""The HTML page: what it says of a database, and that nothing in one can harm its reader."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_database import (
    MADE,
    POLICY,
    add_problem,
    default,
    failed,
    fill,
    other,
    problem,
    ran,
)

from fa4gen.core.errors import ReportError
from fa4gen.core.outcome import Outcome, Source
from fa4gen.db import TuningStore
from fa4gen.report.page import words
from fa4gen.report.page.charts import charts
from fa4gen.report.page.failures import MAX_EXAMPLES, MAX_REASON_CHARS
from fa4gen.report.page.gather import gather
from fa4gen.report.page.heatmaps import heat_map
from fa4gen.report.page.render import plotly_js, render, write
from fa4gen.report.page.views import ProblemView, ReportView
from fa4gen.report.plain import to_json

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'


@pytest.fixture
def store() -> Iterator[TuningStore]:
    with TuningStore.open(":memory:", with_shipped=False) as opened:
        yield opened


@pytest.fixture
def report(store: TuningStore) -> ReportView:
    fill(store)
    return gather(store).report


def found(report: ReportView, text: str, source: Source = Source.MEASURED) -> ProblemView:
    (view,) = [
        view
        for view in report.problems
        if str(view.problem) == text and view.place.source is source
    ]
    return view


class Page(HTMLParser):
    """Tags with their attributes, scripts, and the text of each row of the table of problems."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.rows: list[str] = []
        self._script = self._row = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "script":
            self._script = True
            self.scripts.append("")
        if tag == "tbody" and given.get("class") == "problem":
            self._row = True
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = False
        if tag == "tr":
            self._row = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        if self._row:
            self.rows[-1] += " " + data.strip()


def ours(report: ReportView) -> str:
    """The page without plotly.js."""
    return render(report).replace(plotly_js(), "")


def test_every_problem_of_every_place_is_one_row(report: ReportView) -> None:
    rows = Page(ours(report)).rows
    assert len(rows) == len(report.problems) == 5
    name = "b2 s1024 h8 d128 bf16 dense"
    (row,) = [row for row in rows if name in row and "measured" in row]
    for text in ("1.250", "1.240 to 1.260", "default 125.0", "tile_n=64"):
        assert text in row


def test_what_is_said_of_a_problem_is_what_the_database_holds(report: ReportView) -> None:
    view = found(report, "b2 s1024 h8 d128 bf16 dense")
    assert view.timing is not None
    assert (view.timing.gain, view.timing.gain_low, view.timing.gain_high) == (1.25, 1.24, 1.26)
    # 4 * batch * heads * seqlen^2 * head_dim operations in 100 us.
    assert view.timing.tflops == pytest.approx(4 * 2 * 8 * 1024**2 * 128 / 100e-6 / 1e12)
    assert (view.verdict, view.default_us) == ("faster", 125.0)
    assert [(knob.name, knob.value) for knob in view.changed] == [("tile_n", "64")]
    facts = {fact.name: fact.value for fact in view.provenance}
    assert facts["GPU"] == "NVIDIA H200"
    assert facts["SM clock"] == "1700 MHz"
    assert facts["template"] == "template-one"
    assert view.check is not None
    assert view.check.source is Source.MEASURED


def test_verdicts_tell_a_proof_from_a_default_and_from_nothing(store: TuningStore) -> None:
    fill(store)
    add_problem(store, problem(batch=3), 1.005, {"tile_n": 64})
    report = gather(store, sku="h200").report
    assert {str(view.problem).split(" h8")[0]: view.verdict for view in report.problems} == {
        "b2 s1024": "faster",
        "b8 s1024": "default stays",
        "b3 s1024": "not proven",
        "b2 s1x4096": "no winner",
    }
    (place,) = report.places
    # The default that stays counts as 1, the problem without a winner not at all.
    assert place.geomean_gain == pytest.approx((1.25 * 1.0 * 1.10 * 1.005) ** 0.25)
    assert place.trials == {"ok": 7, "timeout": 3, "wrong_result": 3}


def test_sources_are_never_mixed(report: ReportView) -> None:
    assert [(view.place.sku, view.place.source.value) for view in report.places] == [
        ("b200", "modelled"),
        ("h200", "measured"),
    ]
    modelled = found(report, "b2 s1024 h8 d128 bf16 dense", Source.MODELLED)
    assert modelled.check is None
    for row, view in zip(Page(ours(report)).rows, report.problems, strict=True):
        named = [word for word in ("measured", "modelled", "emulated") if word in row]
        expected = {view.place.source.value} | ({view.check.source.value} if view.check else set())
        assert set(named) == expected, row


def test_what_bounds_a_kernel_is_the_model_at_the_measured_clock(report: ReportView) -> None:
    bound = found(report, "b2 s1024 h8 d128 bf16 dense").bound
    assert bound is not None
    assert (bound.clock_mhz, bound.clock_source) == (1700.0, Source.MEASURED)
    assert [pipe.share for pipe in bound.pipes] == sorted(
        (pipe.share for pipe in bound.pipes), reverse=True
    )
    critical = [pipe.name for pipe in bound.pipes if pipe.critical]
    assert critical == ([] if bound.bound_by == "latency" else [bound.bound_by])
    modelled = found(report, "b2 s1024 h8 d128 bf16 dense", Source.MODELLED).bound
    assert modelled is not None
    assert modelled.clock_source is Source.MODELLED


def test_a_sku_of_a_newer_fa4gen_is_shown_without_a_model(store: TuningStore) -> None:
    asked = problem()
    record = store.record(asked, default(asked), ran(1.2, made=other(sku="x900")), POLICY)
    store.set_winner(record)
    report = gather(store).report
    (view,) = report.problems
    assert view.bound is None
    assert "x900" in view.bound_note
    assert view.peak_share is None
    assert "not known to this fa4gen" in ours(report)


def test_a_gain_over_another_default_says_so(store: TuningStore) -> None:
    asked = problem()
    older = default(asked).vary({"tile_n": 32})
    store.record(asked, older, ran(1.0, half=0.0), POLICY)
    evaluation = ran(1.3, anchor=older.config_id, anchor_median_us=130.0)
    store.set_winner(store.record(asked, default(asked), evaluation, POLICY))
    (view,) = gather(store).report.problems
    assert view.verdict == "faster"
    assert [(knob.name, knob.default) for knob in view.changed] == [("tile_n", "32")]
    assert "not today's" in view.notes[0]


def test_a_time_of_nought_is_no_winner(store: TuningStore) -> None:
    asked = problem()
    store.set_winner(store.record(asked, default(asked), ran(1.0, median_us=0.0), POLICY))
    (view,) = gather(store).report.problems
    assert view.verdict == "no winner"
    assert ours(gather(store).report)


def test_failures_are_counted_by_reason(store: TuningStore) -> None:
    asked = problem()
    for number in range(8):
        store.record(asked, default(asked), failed(Outcome.CRASHED, f"fault {number}"), POLICY)
    for message in ["often"] * 4 + ["x" * 5000]:
        store.record(asked, default(asked), failed(Outcome.CRASHED, message), POLICY)
    report = gather(store).report
    (view,) = report.failures
    assert (view.outcome, view.count, view.problems, view.reasons) == ("crashed", 13, 1, 10)
    assert len(view.examples) == MAX_EXAMPLES
    assert (view.examples[0].reason, view.examples[0].count) == ("often", 4)
    assert all(len(example.reason) <= MAX_REASON_CHARS + 3 for example in view.examples)
    page = ours(report)
    assert "and 5 other reasons" in page
    assert "No problem has a winner here: no trial ran" in page


def test_machines_and_versions_stand_apart(store: TuningStore) -> None:
    asked = problem()
    for template, card, clock in (("a", "1", 1500), ("a", "2", 1900), ("b", "1", 1600)):
        made = other(template_hash=template, gpu_uuid_hash=card, sm_clock_mhz=clock)
        store.record(asked, default(asked), ran(1.0, made=made), POLICY)
    views = {view.template_hash: view for view in gather(store).report.stacks}
    assert views["a"].gpu == "NVIDIA H200 (2 cards)"
    assert views["a"].clocks_mhz == (1500, 1900)
    assert views["b"].gpu == "NVIDIA H200"
    assert (views["a"].trials, views["a"].winners) == (2, 0)


def test_values_are_counted_for_winners_defaults_and_trials(report: ReportView) -> None:
    (place,) = [view for view in report.places if view.place.sku == "h200"]
    uses = {use.knob: use for use in place.knobs}
    tile_n = {value.value: value for value in uses["tile_n"].values}
    assert tile_n["64"].winners == 2
    assert uses["tile_n"].changed == 2
    assert sum(value.winners for value in uses["tile_n"].values) == 3
    assert sum(value.defaults for value in uses["tile_n"].values) == 3
    assert sum(value.trials for value in uses["tile_n"].values) == 5
    assert "num_kv_stages" not in uses, "only one value was ever tried"


def test_nothing_in_a_database_becomes_a_tag_or_a_script(store: TuningStore) -> None:
    asked = problem()
    made = other(gpu_name=EVIL, driver=EVIL, template_hash=EVIL, throttle=EVIL, fa4gen=EVIL)
    store.record(asked, default(asked), failed(Outcome.COMPILE_ERROR, EVIL, made), POLICY)
    store.set_winner(store.record(asked, default(asked), ran(1.2, made=made), POLICY))
    page = ours(gather(store).report)
    parsed = Page(page)
    assert len(parsed.scripts) == 3
    assert "alert" not in "".join(parsed.scripts)
    assert not [tag for tag, _ in parsed.tags if tag == "img"]
    assert not [name for _, given in parsed.tags for name in given if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page


def test_only_the_two_scripts_of_the_page_may_run(report: ReportView) -> None:
    parsed = Page(render(report))
    policy = next(
        given["content"] or ""
        for tag, given in parsed.tags
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    )
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    data, *scripts = parsed.scripts
    digests = {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    }
    assert digests == allowed
    assert len(scripts) == 2
    assert json.loads(data)
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_the_page_asks_nobody_for_anything(report: ReportView) -> None:
    targets = [
        given[name] or ""
        for _, given in Page(ours(report)).tags
        for name in ("src", "href", "action", "data")
        if name in given
    ]
    assert targets
    assert all(target.startswith("#") or target == "data:," for target in targets)


def test_charts_are_figures_that_plotly_knows(report: ReportView) -> None:
    from plotly import graph_objects

    drawn = charts(report)
    assert set(drawn) == {"gains-0", "sorted-0", "gains-1", "sorted-1"}
    for figure in drawn.values():
        graph_objects.Figure(data=figure["data"], layout=figure["layout"])
        assert figure["alt"]
    (dense, causal) = drawn["gains-1"]["data"]
    # Two problems that differ in batch alone share a cell: sqrt(1.25 * 1).
    assert dense["text"] == [["1.118 (2)"]]
    assert causal["text"] == [["1.100"]]


def test_a_heat_map_is_ordered_by_shape() -> None:
    asked = [
        problem(seqlen_q=1, seqlen_k=4096),
        problem(seqlen_q=2048),
        problem(seqlen_q=512, head_dim=64),
        problem(seqlen_q=16384, num_heads_kv=2),
        problem(seqlen_q=512, causal=True, head_dim=64),
    ]
    view = heat_map([(one, 1.0 + number / 10) for number, one in enumerate(asked)])
    assert view is not None
    assert view.rows == ("512", "2048", "16384", "1x4096")
    dense, causal = view.panels
    assert (dense.mask, dense.columns) == ("dense", ("d64", "d128", "d128 gqa4"))
    assert (causal.mask, causal.columns) == ("causal", ("d64",))
    assert dense.cells[0][0] is not None
    assert dense.cells[0][0].factor == pytest.approx(1.2)
    assert causal.cells[1] == (None,)
    assert heat_map([]) is None


def test_a_database_without_rows_has_nothing_to_say(store: TuningStore) -> None:
    report = gather(store).report
    assert (report.problems, report.places, report.failures) == ((), (), ())
    assert Page(ours(report)).rows == []


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    with TuningStore.open(path, with_shipped=False) as store:
        fill(store)
        with store._database.write() as session:
            session.connection().exec_driver_sql(
                "UPDATE configs SET knobs = '{\"tile_q\": 1}' WHERE id = 1"
            )
    with TuningStore.open(path, read_only=True, with_shipped=False) as store:
        report = gather(store).report
    assert report.skipped
    assert "tile_q" in report.skipped[0]
    assert "could not be read and are not in this page" in ours(report)


def test_the_json_of_a_report_is_the_page_in_other_words(report: ReportView) -> None:
    plain = json.loads(to_json(report))
    assert [view["problem"]["text"] for view in plain["problems"]] == [
        str(view.problem) for view in report.problems
    ]


def test_a_page_is_written_whole_or_not_at_all(report: ReportView, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert write(report, path) == path.stat().st_size
    before = path.read_bytes()
    with pytest.raises(ReportError, match=r"cannot be written.*--out"):
        write(report, tmp_path / "nowhere" / "report.html")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_keep_four_digits_and_say_when_there_are_none() -> None:
    assert [words.microseconds(us) for us in (0.5, 22.4169, 219.8, 4125.4, 180711.0)] == [
        "0.500",
        "22.42",
        "219.8",
        "4,125",
        "180,711",
    ]
    dash = words.DASH
    assert [words.factor(None), words.tflops(float("nan")), words.percent(None)] == [dash] * 3
    assert words.percent(0.713) == "71\N{NO-BREAK SPACE}%"
    assert words.percent(0.0031) == "0.3\N{NO-BREAK SPACE}%"
    assert words.when(MADE.date) == "2026-03-04 05:06"
    assert words.when("2026-03-04T05:06:07+02:00") == "2026-03-04 03:06"
    assert words.when("soon") == "soon"
