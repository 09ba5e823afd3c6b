"""Views drawn as Rich tables that fit 80 columns and use more when there are more."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fa4gen.core.config import KnobValue
from fa4gen.core.outcome import Outcome, Source
from fa4gen.report.views import (
    BenchView,
    CheckView,
    DoctorView,
    Finding,
    Health,
    KernelView,
    KnobView,
    ReplayView,
    RowView,
    SelectionView,
    SkuView,
    TableView,
    TimingView,
    TransferView,
    TuneView,
)

WIDE = 112
"""Columns from which a table of rows also has room for the knobs."""

SOURCE_STYLES = {Source.MEASURED: "green", Source.EMULATED: "cyan", Source.MODELLED: "yellow"}
HEALTH_STYLES = {Health.OK: "green", Health.NOTE: "yellow", Health.MISSING: "red"}

MODELLED_NOTICE = (
    "modelled: these times come from a cycle model, not from a GPU. They rank kernels; "
    "they are not measurements."
)


def grid(*headers: str, right: frozenset[str] = frozenset()) -> Table:
    """An empty table in the one style of fa4gen."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left")
    return table


def gain_text(timing: TimingView, *, interval: bool = True) -> Text:
    """``1.083x ±0.012``: the gain, with half the width of its interval where there is one."""
    text = f"{timing.gain:.3f}x"
    if interval and timing.gain_low != timing.gain_high:
        text += f" ±{(timing.gain_high - timing.gain_low) / 2:.3f}"
    style = "green" if timing.gain_low > 1 else "red" if timing.gain_high < 1 else ""
    return Text(text, style=style)


def source_text(source: Source) -> Text:
    """The source in its colour."""
    return Text(source.value, style=SOURCE_STYLES[source])


def knob_text(value: KnobValue) -> str:
    """A knob value as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def changed_text(changed: Mapping[str, KnobValue]) -> str:
    """Knobs that differ from the default kernel, as ``name=value`` words."""
    words = (f"{name}={knob_text(value)}" for name, value in changed.items())
    return " ".join(words) or "the default"


class Rows:
    """Rows with times, told apart by problem or by label; knobs appear where there is room."""

    def __init__(self, rows: tuple[RowView, ...], *, by_label: bool = False) -> None:
        self.rows, self.by_label = rows, by_label

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        headers = ["kernel" if self.by_label else "problem", "TFLOP/s", "us", "gain", "source"]
        headers += ["checked", "knobs changed"] if wide else []
        table = grid(*headers, right=frozenset({"TFLOP/s", "us"}))
        for row in self.rows:
            cells: list[RenderableType] = [row.label if self.by_label else str(row.problem)]
            cells += _timing_cells(row)
            cells += [_checked_cell(row), changed_text(row.changed)] if wide else []
            table.add_row(*cells)
        yield table


def _timing_cells(row: RowView) -> list[RenderableType]:
    timing = row.timing
    if timing is None:
        return ["-", "-", Text(row.note or "no timing", style="red"), ""]
    return [
        f"{timing.tflops:.1f}",
        f"{timing.time_us:.1f}",
        gain_text(timing),
        source_text(timing.source),
    ]


def _checked_cell(row: RowView) -> Text:
    return Text("no", style="dim") if row.checked is None else source_text(row.checked)


def _with_notice(drawing: RenderableType, rows: tuple[RowView, ...]) -> RenderableType:
    """``drawing``, and the notice under it when a row is modelled."""
    if any(row.timing and row.timing.source is Source.MODELLED for row in rows):
        return Group(drawing, "", Text(MODELLED_NOTICE, style="yellow"), _emulated_note(rows))
    return drawing


def _emulated_note(rows: tuple[RowView, ...]) -> Text:
    modelled = [row for row in rows if row.timing and row.timing.source is Source.MODELLED]
    emulated = sum(row.checked is Source.EMULATED for row in modelled)
    return Text(
        f"emulated: {emulated} of {len(modelled)} kernels with modelled times ran in the emulator, "
        "PTX instruction by PTX instruction, and matched float64 attention with no race, deadlock "
        "or wild access."
        if emulated
        else "None of the kernels with modelled times was run, on a GPU or in the emulator.",
        style="yellow",
    )


def skus(view: tuple[SkuView, ...]) -> RenderableType:
    """All GPU products."""
    numbers = frozenset({"SMs", "MHz", "TFLOP/s", "GB/s", "L2 MiB"})
    table = grid("sku", "arch", "SMs", "MHz", "TFLOP/s", "GB/s", "L2 MiB", "kernels", right=numbers)
    for sku in view:
        table.add_row(
            f"{sku.name} (here)" if sku.here else sku.name,
            sku.arch,
            str(sku.sm_count),
            f"{sku.boost_clock_mhz:.0f}",
            f"{sku.peak_tflops:.0f}",
            f"{sku.dram_gbps:.0f}",
            f"{sku.l2_bytes / 2**20:.0f}",
            "yes" if sku.templates else "not yet",
        )
    return Group(table, "", "TFLOP/s: dense 16-bit tensor-core peak at boost clock.")


def knobs(view: tuple[KnobView, ...]) -> RenderableType:
    """A search space: each knob with its values, its meaning and why its range ends there."""
    blocks: list[RenderableType] = []
    for knob in view:
        values = Text("  ")
        for value in knob.values:
            style = "bold green" if value == knob.default else ""
            values.append(knob_text(value) + ("* " if value == knob.default else " "), style=style)
        blocks += [
            Text(knob.name, style="bold"),
            Padding(knob.meaning, (0, 0, 0, 2)),
            values,
            Padding(Text(knob.why, style="dim"), (0, 0, 1, 2)),
        ]
    return Group(*blocks, "* value of the default kernel.")


def table(view: TableView) -> RenderableType:
    """The dispatch table, one block per SKU, policy and origin."""
    blocks: list[RenderableType] = []
    keys = dict.fromkeys((row.sku, row.policy, row.origin) for row in view.rows)
    for sku, policy, origin in keys:
        rows = tuple(r for r in view.rows if (r.sku, r.policy, r.origin) == (sku, policy, origin))
        blocks += [Text(f"{sku}, {policy}, {origin}", style="bold"), Rows(rows), ""]
        if others := sum(row.other_template for row in rows):
            blocks += [Text(_other_template_note(others, len(rows)), style="yellow"), ""]
    return _with_notice(Group(*blocks[:-1]), view.rows)


def _other_template_note(others: int, rows: int) -> str:
    return (
        f"{others} of {rows} rows were found with other templates than today's: their knobs hold, "
        "their times may not, and other kernels may be faster by now. `fa4gen tune` on that GPU "
        "finds out."
    )


def selection(view: SelectionView) -> RenderableType:
    """Which kernel a problem gets: the answer, what was passed over, the knobs."""
    blocks: list[RenderableType] = [
        Text(f"{view.problem} on {view.sku}", style="bold"),
        view.summary,
    ]
    if view.tuned_for is not None:
        row = f"the {view.origin} row of {view.row_sku} for {view.tuned_for}"
        blocks.append(Text.assemble(row, *_time_words(view.timing)))
    blocks.append(
        f"cycle model: {view.predicted_us:.1f} us, bound by {view.bound_by}; "
        f"the default kernel {view.default_predicted_us:.1f} us"
    )
    blocks += [Text(f"note: {note}", style="yellow") for note in view.notes]
    if view.rejected:
        ladder = grid("rung", "passed over", "because")
        for other in view.rejected:
            ladder.add_row(other.rung, other.candidate, Text(other.reason, style="dim"))
        blocks += ["", ladder]
    facts = grid("knob", "value", "")
    for name, value in view.knobs.items():
        mark = "not the default" if name in view.changed else ""
        facts.add_row(name, knob_text(value), Text(mark, style="green"))
    return Group(*blocks, "", facts)


def _time_words(timing: TimingView | None) -> tuple[str | Text, ...]:
    if timing is None:
        return ()
    return (f": {timing.tflops:.1f} TFLOP/s, {timing.time_us:.1f} us, gain ", gain_text(timing))


def kernel(view: KernelView) -> RenderableType:
    """Where a kernel was written."""
    knobs_changed = changed_text(view.changed)
    return Text(f"{view.path}: {view.target} kernel for {view.problem}, knobs: {knobs_changed}")


def tuning(view: TuneView) -> RenderableType:
    """What a run of the tuner came to."""
    rows = tuple(row.winner for row in view.rows if row.winner is not None)
    failed = [f"{row.problem}: {row.message or row.stop}" for row in view.rows if not row.winner]
    trials: dict[str, int] = {}
    for row in view.rows:
        for outcome, count in row.trials.items():
            trials[outcome] = trials.get(outcome, 0) + count
    closing = (
        f"{len(rows)} of {len(view.rows) + len(view.not_started)} problems have a winner, "
        f"geometric mean of the gains {view.geomean_gain:.3f}x; "
        f"{trials_text(trials)} in {view.elapsed_s:.0f} s."
    )
    heading = Text(f"{view.sku}, {view.policy}", style="bold")
    missing = [Text(line, style="red") for line in failed]
    where = Text(f"Kept in {view.database}", overflow="fold")
    default = f"The default kernel, gain 1, has {view.defaults_from}." if view.defaults_from else ""
    return _with_notice(Group(heading, Rows(rows), *missing, "", closing, default, where), rows)


def trials_text(trials: Mapping[str, int]) -> str:
    """``14 trials (12 ok, 2 compile_error)``."""
    total = sum(trials.values())
    known = [outcome.value for outcome in Outcome]
    order = sorted(trials, key=lambda name: known.index(name) if name in known else len(known))
    parts = ", ".join(f"{trials[name]} {name}" for name in order if trials[name])
    return f"{total} trials ({parts})" if parts else "no trials"


def bench(view: BenchView) -> RenderableType:
    """Kernels of one problem side by side."""
    heading = Text(f"{view.problem} on {view.sku}, {view.policy}", style="bold")
    return _with_notice(Group(heading, "", Rows(view.rows, by_label=True)), view.rows)


def replay(view: ReplayView) -> RenderableType:
    """Samplers compared on a recorded sweep."""
    right = frozenset({"found", "trials", "regret"})
    table = grid("problem", "sampler", "found", "trials", "regret", right=right)
    for row in view.rows:
        trials = "-" if row.median_trials is None else f"{row.median_trials:.1f}"
        found = f"{row.found} of {row.runs}"
        regret = "-" if math.isinf(row.median_regret) else f"{row.median_regret:.2%}"
        table.add_row(str(row.problem), row.sampler, found, trials, regret)
    note = (
        f"{view.recording}: {view.sku}, {view.source.value}. found: runs of {view.trials} trials "
        f"that came within {view.tolerance:.0%} of the sweep's best; trials: median until then; "
        "regret: median distance of the best found from the best there is."
    )
    return Group(table, "", note)


def doctor(view: DoctorView) -> RenderableType:
    """What was found, and after it what to do."""
    found = grid("", "looked at", "found")
    for finding in view.findings:
        found.add_row(_mark(finding), finding.subject, Text(finding.found, overflow="fold"))
    blocks: list[RenderableType] = [found, ""]
    blocks += [f"{'can' if able else 'cannot'} {what}" for what, able in view.can.items()]
    remedies = [finding for finding in view.findings if finding.remedy]
    if remedies:
        blocks += ["", Text("What to do", style="bold")]
        blocks += [Text(f"  {finding.subject}: {finding.remedy}") for finding in remedies]
    return Group(*blocks)


def _mark(finding: Finding) -> Text:
    return Text(finding.health.value, style=HEALTH_STYLES[finding.health])


def transfer(view: TransferView) -> RenderableType:
    """What was moved, and each line that was refused."""
    line = (
        f"{view.verb} {view.rows} rows, {view.winners} winners from {view.source} to {view.target}"
    )
    if view.known:
        line += f"; {view.known} were there already"
    return Group(Text(line), *(Text(f"refused: {reason}", style="red") for reason in view.skipped))


def check(view: CheckView) -> RenderableType:
    """Health of a database."""
    if not view.problems:
        return Text(f"{view.database}: healthy, schema {view.schema_revision}")
    found = (Text(f"{view.database}: {problem}", style="red") for problem in view.problems)
    return Group(*found)
