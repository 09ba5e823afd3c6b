"""The page and the picture of a study of samplers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fa4gen.study.html import document, facts, heading, section, table, tiles
from fa4gen.study.samplers import (
    TARGET_TRIALS,
    TOLERANCES,
    TUNERS_OWN,
    SamplerResult,
    Spread,
    median_regret,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {
    "random": "#9aa5b1",
    "nsga2": "#8d6a9f",
    "cmaes": "#b08d57",
    "gp": "#4a9a5d",
    "tpe": "#2a7f9e",
    "model+random": "#e0a58f",
    TUNERS_OWN: "#c8553d",
}
OTHER = "#6b7785"


def count_text(count: float) -> str:
    """A number of trials; ``-`` where it was not reached."""
    return "-" if math.isinf(count) else f"{count:.0f}"


def spread_text(spread: Spread) -> str:
    """``4 (2 to 11)``: median and quartiles."""
    return f"{count_text(spread.median)} ({count_text(spread.low)} to {count_text(spread.high)})"


def verdict(result: SamplerResult) -> str:
    """Whether the tuner's own strategy meets its target, in a sentence."""
    if TUNERS_OWN not in result.strategies:
        return f"{TUNERS_OWN} did not run, so nothing is said about its target."
    tolerance = TOLERANCES[0]
    overall = result.spread(TUNERS_OWN, tolerance)
    hard = result.spread(TUNERS_OWN, tolerance, result.hard)
    missed = len(result.misses)
    head = (
        f"{TUNERS_OWN}, the tuner's own strategy, is within {tolerance:.0%} of the recorded best "
        f"after {count_text(overall.median)} trials (median over all runs; "
        f"{count_text(hard.median)} where the default is further off than that)"
    )
    where = f"{len(result.courses) - missed} of {len(result.courses)} problems"
    return f"{head}; the target of {TARGET_TRIALS} trials (median) is met on {where}."


def page(result: SamplerResult) -> str:
    """The whole page."""
    from fa4gen.study import figures

    sources = list(dict.fromkeys(course.source.value for course in result.courses))
    skus = ", ".join(dict.fromkeys(course.sku for course in result.courses))
    subject = f"{len(result.courses)} recorded problems, {skus}, {result.seeds} seeds"
    body = [
        heading("Which strategy finds a good kernel soonest", sources, subject),
        f"<p>{verdict(result)}</p>",
        tiles(_tiles(result)),
        section(
            "What is left to gain after each trial",
            "Median over seeds and over the problems whose default is not already within "
            f"{TOLERANCES[0]:.0%} of the best: time of the best so far over the best recorded, "
            "minus 1. A trial is one timed kernel; the first is the default.",
        ),
        figures.html(_courses_figure(result), "regret"),
        section(
            f"Trials to come within {TOLERANCES[0]:.0%}",
            f"Median (quartiles) over {result.seeds} seeds; - where most runs did not, in "
            f"{result.trials} trials at most.",
        ),
        _table(result),
        _left_out(result),
        facts(
            {
                "fa4gen": result.fa4gen,
                "made": result.date,
                "took": f"{result.elapsed_s:.0f} s",
                "ended": result.ending.value,
            },
            "An ask for what a sweep does not hold is answered by the nearest configuration that "
            "it holds and that was not tried.",
        ),
    ]
    return document("Which strategy finds a good kernel soonest", subject, figures.library(), body)


def _tiles(result: SamplerResult) -> list[tuple[str, str]]:
    names = (TUNERS_OWN, "tpe", "random")
    return [
        (
            spread_text(result.spread(name, TOLERANCES[0], result.hard)),
            f"trials of {name} to within {TOLERANCES[0]:.0%}, where the default is not",
        )
        for name in names
        if name in result.strategies
    ]


def _courses_figure(result: SamplerResult) -> go.Figure:
    import plotly.graph_objects as go

    from fa4gen.study.figures import styled

    figure = go.Figure()
    courses = result.hard or tuple(range(len(result.courses)))
    for strategy in result.strategies:
        line = median_regret(result, strategy, courses)
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(line) + 1)),
                y=line,
                mode="lines",
                name=strategy,
                line={
                    "shape": "hv",
                    "width": 3 if strategy == TUNERS_OWN else 1.8,
                    "color": COLOURS.get(strategy, OTHER),
                },
            )
        )
    figure.add_hline(y=TOLERANCES[0], line={"color": OTHER, "width": 1, "dash": "dot"})
    figure.add_vline(x=TARGET_TRIALS, line={"color": OTHER, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="trials")
    figure.update_yaxes(title_text="slower than the best by", tickformat=".1%", rangemode="tozero")
    return styled(figure, 460)


def _table(result: SamplerResult) -> str:
    head = ["problem", "recorded", "default lacks", *result.strategies]
    body: list[tuple[str, list[tuple[str, str]]]] = []
    for number, course in enumerate(result.courses):
        lacks = "-" if course.default_lacks is None else f"{course.default_lacks:.1%}"
        full = f"{course.configs} of {course.combinations}"
        cells = [("", str(course.problem)), ("number", full), ("number", lacks)]
        cells += [
            ("number", spread_text(result.spread(strategy, TOLERANCES[0], [number])))
            for strategy in result.strategies
        ]
        body.append(("front" if number in result.hard else "", cells))
    for label, tolerance, courses in summaries(result):
        cells = [("who", label), ("", ""), ("", "")]
        cells += [
            ("number", spread_text(result.spread(strategy, tolerance, courses)))
            for strategy in result.strategies
        ]
        body.append(("", cells))
    note = "Bold: the default is not already that near the best."
    return table(head, body) + f'<p class="muted">{note}</p>'


def summaries(result: SamplerResult) -> list[tuple[str, float, tuple[int, ...]]]:
    """(label, tolerance, courses) of the lines under the table."""
    everything = tuple(range(len(result.courses)))
    lines = []
    for tolerance in TOLERANCES:
        lines.append((f"all, within {tolerance:.0%}", tolerance, everything))
        if 0 < len(result.hard) < len(everything):
            lines.append((f"default further off, within {tolerance:.0%}", tolerance, result.hard))
    return lines


def _left_out(result: SamplerResult) -> str:
    if not result.left_out:
        return ""
    body = [("", [("", who), ("", why)]) for who, why in result.left_out]
    return "<h2>Left out</h2>" + table(["", "why"], body)


def picture(result: SamplerResult, path: Path) -> None:
    """What is left to gain after each trial, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8.5, 4.8), layout="constrained")
    courses = result.hard or tuple(range(len(result.courses)))
    for strategy in result.strategies:
        _draw(axis, strategy, median_regret(result, strategy, courses))
    axis.axhline(TOLERANCES[0], color=OTHER, lw=0.8, ls=":")
    axis.axvline(TARGET_TRIALS, color=OTHER, lw=0.8, ls=":")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("trials")
    axis.set_ylabel("slower than the best recorded by (median)")
    axis.set_title(
        f"{len(courses)} recorded problems with something to gain, {result.seeds} seeds",
        fontsize=10,
    )
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _draw(axis: Any, strategy: str, line: Sequence[float]) -> None:
    width = 2.4 if strategy == TUNERS_OWN else 1.4
    axis.step(
        range(1, len(line) + 1),
        line,
        where="post",
        lw=width,
        color=COLOURS.get(strategy, OTHER),
        label=strategy,
    )
