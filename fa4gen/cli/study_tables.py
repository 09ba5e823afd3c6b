"""Studies drawn as Rich tables, and as values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fa4gen.cli.output import say
from fa4gen.core.outcome import Source
from fa4gen.report.tables import MODELLED_NOTICE, grid, knob_text, source_text
from fa4gen.study import Ending, ResultRow, StudyKind, StudyResult, front_of
from fa4gen.study.accuracy import MEASURES
from fa4gen.study.labels import ending_text, short_names
from fa4gen.study.sampler_pages import spread_text, summaries, verdict
from fa4gen.study.samplers import TOLERANCES, TUNERS_OWN, SamplerResult

SHOWN = 24
"""Rows of a study of knobs on the screen; all are in the file."""


def study_json(result: StudyResult, folder: Path) -> Mapping[str, Any]:
    """The whole study, with its front."""
    front = [row.config_id for row in front_of(result)]
    return {"study": result, "front": front, "folder": folder}


def drawn(result: StudyResult | SamplerResult, folder: Path) -> bool:
    """Write page and picture; says what is missing, and whether nothing is."""
    from fa4gen.study.outputs import EXTRA, draw

    missing = draw(result, folder).missing
    if missing:
        say(
            f"no page or picture: {', '.join(missing)} not installed; get it with "
            f"pip install 'fa4gen[{EXTRA}]', then run fa4gen study plot {folder}, here or elsewhere"
        )
    return not missing


def study_table(result: StudyResult, folder: Path) -> RenderableType:
    """The front (or the fastest), the marks, and how the study ended."""
    heading = Text(
        f"{result.problem} on {result.setting.sku}, {result.setting.policy}", style="bold"
    )
    split = result.kind is StudyKind.EXP2_SPLIT
    rows = front_of(result) if split else _fastest(result)
    marked = [row for row in _marked(result) if row not in rows]
    blocks: list[RenderableType] = [heading, ""]
    if rows:
        blocks.append(_rows(result, [*rows, *marked]))
    blocks += ["", _closing(result, len(rows))]
    blocks += _failures(result)
    if result.setting.source is Source.MODELLED:
        blocks.append(Text(MODELLED_NOTICE, style="yellow"))
    return Group(*blocks, Text(f"All of it is in {folder}", overflow="fold"))


def _fastest(result: StudyResult) -> list[ResultRow]:
    return sorted(result.timed, key=lambda row: -(row.gain or 0.0))[:SHOWN]


def _marked(result: StudyResult) -> list[ResultRow]:
    ids = {mark.config_id for mark in result.marks}
    return [row for row in result.timed if row.config_id in ids]


def _rows(result: StudyResult, rows: Sequence[ResultRow]) -> RenderableType:
    names = short_names(result.knobs)
    errors = ["o_error_ratio", "p_mean_ulp", "p_max_ulp", "lse_max"] if result.measure else []
    if result.measure and result.measure not in errors:
        errors.insert(0, result.measure)
    headers = ["", *names.values(), "gain", "us", "source", *errors]
    table = grid(*headers, right=frozenset({*names.values(), "us", *errors}))
    front = {row.config_id for row in front_of(result)} if result.measure else set()
    for row in rows:
        who = ", ".join(m.who for m in result.marks if m.config_id == row.config_id)
        on_front = row.config_id in front
        mark = " ".join(word for word in ("front" if on_front else "", who) if word)
        cells: list[RenderableType] = [Text(mark, style="bold" if on_front else "dim")]
        cells += [knob_text(row.knobs[name]) for name in names]
        cells += [_gain(row), f"{row.time_us:.1f}", source_text(result.setting.source)]
        cells += [f"{row.accuracy[name]:.4g}" for name in errors]
        table.add_row(*cells)
    return table


def _gain(row: ResultRow) -> Text:
    low, high, gain = row.gain_low or 0.0, row.gain_high or 0.0, row.gain or 0.0
    text = f"{gain:.3f}x" + (f" ±{(high - low) / 2:.3f}" if low != high else "")
    return Text(text, style="green" if low > 1 else "red" if high < 1 else "")


def _closing(result: StudyResult, shown: int) -> str:
    kinds = f"{len(result.timed)} of {len(result.tried)} tried combinations have a time"
    refused = f", {len(result.refused)} cannot run" if result.refused else ""
    what = ""
    if result.measure:
        measure = MEASURES[result.measure]
        what = (
            f" front: nothing is both faster and more exact by {measure.name} "
            f"({measure.meaning.rstrip('.')}); errors are computed in NumPy as the kernel computes."
        )
    elif shown < len(result.timed):
        what = f" The fastest {shown} are shown."
    return f"{kinds}{refused}; {ending_text(result)}.{what}"


def _failures(result: StudyResult) -> list[RenderableType]:
    failed = [row for row in result.tried if row.gain is None]
    names = short_names(result.knobs)
    lines: list[RenderableType] = []
    for row in [*failed, *result.refused][:SHOWN]:
        values = " ".join(f"{short}={knob_text(row.knobs[n])}" for n, short in names.items())
        lines.append(Text(f"{row.outcome.value}: {values}: {row.message}", style="red"))
    hidden = len(failed) + len(result.refused) - len(lines)
    if hidden > 0:
        lines.append(Text(f"... and {hidden} more, each with its reason in the file", style="red"))
    if result.ending is Ending.BROKEN:
        lines.append(Text(result.message, style="red"))
    return lines


def sampler_json(result: SamplerResult, folder: Path) -> Mapping[str, Any]:
    """The summary of every strategy, the courses and the runs."""
    summary = [
        {
            "strategy": strategy,
            "tolerance": tolerance,
            "all": result.spread(strategy, tolerance),
            "where_the_default_is_not": result.spread(strategy, tolerance, result.hard),
        }
        for strategy in result.strategies
        for tolerance in TOLERANCES
    ]
    return {"summary": summary, "misses": result.misses, "study": result, "folder": folder}


def sampler_table(result: SamplerResult, folder: Path) -> RenderableType:
    """Median trials and quartiles of every strategy, by problem and over all."""
    right = frozenset({"default lacks", *result.strategies})
    table = grid("problem", "default lacks", *result.strategies, right=right)
    for number, course in enumerate(result.courses):
        lacks = "-" if course.default_lacks is None else f"{course.default_lacks:.1%}"
        cells = [
            spread_text(result.spread(strategy, TOLERANCES[0], [number]))
            for strategy in result.strategies
        ]
        table.add_row(str(course.problem), lacks, *cells)
    for label, tolerance, courses in summaries(result):
        cells = [spread_text(result.spread(s, tolerance, courses)) for s in result.strategies]
        table.add_row(Text(label, style="bold"), "", *cells)
    note = (
        f"Trials until within {TOLERANCES[0]:.0%} of the best recorded: median (quartiles) over "
        f"{result.seeds} seeds; - where it was not reached in {result.trials} trials."
    )
    lines = [Text(f"left out: {who}: {why}", style="yellow") for who, why in result.left_out]
    missed = [str(result.courses[i].problem) for i in result.misses]
    if missed and TUNERS_OWN in result.strategies:
        lines.append(Text(f"target missed on: {'; '.join(missed)}", style="red"))
    where = Text(f"All of it is in {folder}", overflow="fold")
    return Group(table, "", note, Text(verdict(result), style="bold"), *lines, where)
