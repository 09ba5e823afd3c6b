"""The page of a study of kernel knobs."""

from __future__ import annotations

from html import escape

from fa4gen.core.outcome import Source
from fa4gen.study import figures, speed_figures
from fa4gen.study.accuracy import MEASURES
from fa4gen.study.front import RESOLUTION, front_of
from fa4gen.study.html import document, facts, heading, section, table, tiles
from fa4gen.study.labels import (
    ending_text,
    gain_text,
    marks_of,
    short_names,
    source_sentence,
    value_text,
)
from fa4gen.study.results import ResultRow, StudyKind, StudyResult

_TABLED = ("o_error_ratio", "lse_max", "p_mean_ulp", "p_max_ulp", "p32_max_ulp")
"""Errors in the table; the file has all."""

MOST_ROWS = 400
"""Rows of the table of what has no time; the file has all."""

FASTEST = 25
"""Rows of the table of a study of speed."""

FEWEST_KNOBS = 2
"""Knobs from which on it is a question which one matters."""


def page(result: StudyResult) -> str:
    """The whole page."""
    split = result.kind is StudyKind.EXP2_SPLIT
    title = "Where exp2 is computed" if split else f"What {', '.join(result.knobs)} does"
    made = result.setting
    subject = f"{result.problem} on {made.sku}, {made.policy}"
    body = [
        heading(title, [made.source.value], subject),
        f"<p>{escape(source_sentence(result))}</p>",
        tiles(_tiles(result)),
    ]
    if not result.timed:
        body.append("<p>No combination has a time.</p>")
    else:
        body += _split_sections(result) if split else _speed_sections(result)
    body += [_failures(result), _footer(result)]
    return document(title, subject, figures.library(), body)


def _split_sections(result: StudyResult) -> list[str]:
    """The front, what the knobs do, whether the computed errors are the measured ones."""
    measure = MEASURES[result.measure]
    text = (
        "Each point is one kernel: its colour the share of exp2 on the polynomial, its shape the "
        "degree, its size the rescale threshold. The dotted line is the Pareto front: nothing is "
        "both faster and more exact (errors within 1 % count as equal). "
        f"{measure.label}: {measure.meaning} The menu changes the error."
    )
    sections = [
        section("Speed against accuracy", text),
        figures.html(figures.pareto(result), "pareto"),
        _points_table(result),
        section(
            "What each knob does",
            "Lines join the fastest kernels over the knobs that are not named.",
        ),
        figures.html(figures.split_curves(result), "curves"),
    ]
    if result.setting.source is Source.MEASURED and (compared := figures.compared(result)):
        text = (
            "RMS error of O by kind of input, over that of the kernel with no polynomial and no "
            "threshold: of the GPU's own output, on fresh inputs for each kernel, against what "
            "NumPy computes on inputs that are the same for all. On the line they agree."
        )
        sections += [
            section("Is the computed error the real one?", text),
            figures.html(compared, "compared"),
        ]
    return [*sections, *_importance(result)]


def _speed_sections(result: StudyResult) -> list[str]:
    return [
        section(
            "Speed over the default kernel",
            "All other knobs are as in the default of this problem.",
        ),
        figures.html(speed_figures.speed(result), "speed"),
        *_importance(result),
        _points_table(result),
    ]


def _importance(result: StudyResult) -> list[str]:
    if len(result.importance) < FEWEST_KNOBS:
        return []
    text = "Share of the variance of log time, by Optuna (PED-ANOVA), over the kernels tried."
    return [
        section("Which knob matters", text),
        figures.html(speed_figures.importance(result), "importance"),
    ]


def _tiles(result: StudyResult) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    by_id = {row.config_id: row for row in result.timed}
    default = by_id.get(result.default.config_id)
    fastest = max(result.timed, key=lambda row: row.gain or 0.0, default=None)
    if default is not None:
        what = f"the default kernel, {default.time_us:.1f} us"
        found.append((f"{default.tflops:.0f} TFLOP/s", what))
    if fastest is not None:
        found.append((gain_text(fastest), "the fastest over the default"))
    if result.measure and default is not None:
        best = max(_as_exact(result, default), key=lambda row: row.gain or 0.0)
        found.append((gain_text(best), "the fastest that is as exact as the default"))
    refused = f", {len(result.refused)} cannot run" if result.refused else ""
    found.append((f"{len(result.tried)}", f"kernels tried{refused}; {ending_text(result)}"))
    return found


def _as_exact(result: StudyResult, default: ResultRow) -> list[ResultRow]:
    """Rows whose error is at most the default's, within the front's resolution."""
    most = default.accuracy[result.measure] * (1.0 + RESOLUTION)
    return [row for row in result.timed if row.accuracy[result.measure] <= most]


def _points_table(result: StudyResult) -> str:
    """The front and the marks of a split; the fastest of a study of speed."""
    marks = marks_of(result)
    front = front_of(result)
    rows = list(front)
    if result.measure:
        rows += [row for row in result.timed if row.config_id in marks and row not in front]
    else:
        rows = sorted(result.timed, key=lambda row: -(row.gain or 0.0))[:FASTEST]
    names = short_names(result.knobs)
    errors = [m for m in _TABLED if rows and m in rows[0].accuracy]
    body = []
    for row in rows:
        cells = [("who", ", ".join(marks.get(row.config_id, [])))]
        cells += [("number", value_text(row.knobs[name])) for name in names]
        cells += [("number", text) for text in (gain_text(row), f"{row.time_us:.1f}")]
        cells += [("number", f"{row.accuracy[name]:.3g}") for name in errors]
        body.append(("front" if result.measure and row in front else "", cells))
    sources = "".join(
        f"<li>{escape(mark.who)}: {escape(mark.source)}</li>" for mark in result.marks
    )
    note = '<p class="muted">Bold rows are on the front.</p>' if result.measure else ""
    head = ["", *names.values(), "gain", "us", *errors]
    return table(head, body) + note + f'<ul class="muted">{sources}</ul>'


def _failures(result: StudyResult) -> str:
    """Everything without a time, with its reason."""
    rows = [row for row in result.rows if row.gain is None]
    if not rows:
        return ""
    names = short_names(result.knobs)
    body = [
        (
            "",
            [
                ("", row.outcome.value),
                *(("number", value_text(row.knobs[name])) for name in names),
                ("", row.message),
            ],
        )
        for row in rows[:MOST_ROWS]
    ]
    more = len(rows) - len(body)
    rest = f'<p class="muted">and {more} more in results.csv</p>' if more else ""
    shown = table(["outcome", *names.values(), "reason"], body)
    return f"<h2>Without a time</h2>{shown}{rest}"


def _footer(result: StudyResult) -> str:
    made = result.setting
    fixed = ", ".join(
        f"{name} {value_text(value)}"
        for name, value in result.default.to_record().items()
        if name not in result.knobs
    )
    return facts(
        {
            "fa4gen": made.fa4gen,
            "template": made.template_hash,
            "GPU": made.gpu_name,
            "driver": made.driver,
            "CUDA": made.cuda,
            "torch": made.torch,
            "CuTe-DSL": made.cutlass_dsl,
            "cycle model": made.model_version,
            "made": made.date,
            "took": f"{result.elapsed_s:.0f} s",
            "Optuna study": result.optuna_study,
        },
        f"Other knobs: {fixed}",
    )
