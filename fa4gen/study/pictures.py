"""The PNG of a study; the only module that imports matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file is all we want; there may be no display
from matplotlib import pyplot as plt

from fa4gen.study.accuracy import MEASURES
from fa4gen.study.front import front_of
from fa4gen.study.labels import value_text
from fa4gen.study.results import StudyKind, StudyResult
from fa4gen.study.series import (
    DEGREE,
    SHARE,
    axis_names,
    curve_name,
    curves,
    marked_rows,
    matrix,
    names_above,
    short_who,
    values_of,
)

COLOURS = {1: "#8d6a9f", 2: "#d08c2a", 3: "#2a7f9e", 4: "#4a9a5d", 5: "#8d6a9f"}
MARKERS = {0: "P", 1: "X", 2: "D", 3: "o", 4: "s", 5: "^"}
ACCENT, MUTED, INK = "#c8553d", "#6b7785", "#1b2733"
DPI = 160


def picture(result: StudyResult, path: Path) -> None:
    """Write the picture of a study."""
    figure = _split(result) if result.kind is StudyKind.EXP2_SPLIT else _speed(result)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _title(result: StudyResult) -> str:
    made = result.setting
    return f"{result.problem} on {made.sku}: times {made.source.value}"


def _split(result: StudyResult) -> Any:
    """The front, and the gain over the share by threshold."""
    found = curves(result)
    thresholds = sorted({curve.threshold for curve in found}) or [0.0]
    figure = plt.figure(figsize=(10.5, 8.2), layout="constrained")
    grid = figure.add_gridspec(2, len(thresholds), height_ratios=[1.5, 1.0])
    _draw_front(figure, figure.add_subplot(grid[0, :]), result)
    first: Any = None
    for place, threshold in enumerate(thresholds):
        axis = figure.add_subplot(grid[1, place], sharey=first)
        first = first or axis
        for curve in (c for c in found if c.threshold == threshold):
            axis.plot(
                [float(row.knobs[SHARE]) for row in curve.rows],
                [row.gain or 0.0 for row in curve.rows],
                ":" if curve.placement in ("front", "back") else "-",
                marker="o",
                ms=3,
                lw=1.4,
                color=COLOURS[curve.degree],
                label=curve_name(curve),
            )
        axis.axhline(1.0, color=MUTED, lw=0.8, ls=":")
        axis.set_title(f"rescale threshold {threshold:g}", fontsize=9)
        axis.set_xlabel(axis_names(result)[SHARE], fontsize=8)
        axis.grid(alpha=0.25)
        if place == 0:
            axis.set_ylabel("gain")
            axis.legend(fontsize=7, frameon=False)
    return figure


def _draw_front(figure: Any, axis: Any, result: StudyResult) -> None:
    measure, drawn = result.measure, None
    for degree, marker in MARKERS.items():
        rows = [
            row
            for row in result.timed
            if (int(row.knobs[DEGREE]) if float(row.knobs[SHARE]) else 0) == degree
        ]
        if not rows:
            continue
        drawn = axis.scatter(
            [row.gain for row in rows],
            [row.accuracy[measure] for row in rows],
            c=[float(row.knobs[SHARE]) for row in rows],
            marker=marker,
            s=34,
            cmap="viridis_r",
            vmin=0.0,
            vmax=max(float(row.knobs[SHARE]) for row in result.timed) or 1.0,
            edgecolors="white",
            linewidths=0.5,
            label=f"degree {degree}" if degree else "all MUFU",
        )
    front = front_of(result)
    axis.step(
        [row.gain for row in front],
        [row.accuracy[measure] for row in front],
        where="pre",
        color=INK,
        lw=1.2,
        ls=":",
        label="Pareto front",
    )
    _draw_marks(axis, result)
    if drawn is not None:
        figure.colorbar(drawn, ax=axis, label=axis_names(result)[SHARE], pad=0.01)
    axis.set_xlabel("speed over the default kernel (gain)")
    axis.set_ylabel(MEASURES[measure].label)
    axis.set_title(_title(result) + ", errors computed in NumPy", fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)


def _draw_marks(axis: Any, result: StudyResult) -> None:
    """Stars with their names."""
    marks = marked_rows(result)
    places = names_above([row for _, row in marks], result.measure)
    for above, (who, row) in zip(places, marks, strict=True):
        spot = (row.gain, row.accuracy[result.measure])
        axis.plot(*spot, "*", ms=14, color=ACCENT, mec="white", mew=0.7, zorder=5)
        axis.annotate(
            short_who(who),
            spot,
            (0, 9 if above else -16),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=ACCENT,
            zorder=6,
        )
    axis.margins(0.06, 0.08)


def _speed(result: StudyResult) -> Any:
    figure, axis = plt.subplots(figsize=(8.5, 4.8), layout="constrained")
    if len(result.knobs) == 1:
        _draw_line(axis, result)
    elif len(result.knobs) == len(("x", "y")):
        _draw_map(figure, axis, result)
    else:
        _draw_importance(axis, result)
    axis.set_title(_title(result), fontsize=10)
    return figure


def _draw_line(axis: Any, result: StudyResult) -> None:
    name = result.knobs[0]
    order = values_of(result.rows, name)
    timed = sorted(result.timed, key=lambda row: order.index(row.knobs[name]))
    gains = [row.gain or 0.0 for row in timed]
    lows = [gain - (row.gain_low or gain) for gain, row in zip(gains, timed, strict=True)]
    highs = [(row.gain_high or gain) - gain for gain, row in zip(gains, timed, strict=True)]
    places = [order.index(row.knobs[name]) for row in timed]
    axis.errorbar(places, gains, [lows, highs], fmt="o-", color=COLOURS[3], ms=5, lw=1.5)
    for row in result.rows:
        if row.gain is None:
            place = order.index(row.knobs[name])
            axis.axvspan(place - 0.4, place + 0.4, color="#eceff1")
            axis.annotate(
                row.outcome.value, (place, 0.02), xycoords=("data", "axes fraction"), fontsize=7,
                rotation=90, ha="center", color=MUTED,
            )  # fmt: skip
    axis.set_xticks(range(len(order)), [value_text(value) for value in order])
    axis.axhline(1.0, color=MUTED, lw=0.8, ls=":")
    axis.set_xlabel(name)
    axis.set_ylabel("speed over the default kernel (gain)")
    axis.grid(alpha=0.25)


def _draw_map(figure: Any, axis: Any, result: StudyResult) -> None:
    down, across = result.knobs
    xs, ys = values_of(result.rows, across), values_of(result.rows, down)
    cells = matrix(result.rows, (across, xs), (down, ys))
    nothing = float("nan")
    gains = [[nothing if c is None or c.gain is None else c.gain for c in line] for line in cells]
    axis.set_facecolor("#d9dde1")
    drawn = axis.imshow(gains, cmap="viridis", aspect="auto", origin="lower")
    timed = [row.gain or 0.0 for row in result.timed] or [1.0]
    middle = (min(timed) + max(timed)) / 2
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if cell is None:
                continue
            bright = cell.gain is not None and cell.gain > middle
            text = cell.outcome.value if cell.gain is None else f"{cell.gain:.3f}"
            colour = MUTED if cell.gain is None else INK if bright else "white"
            axis.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(drawn, ax=axis, label="gain")
    axis.set_xticks(range(len(xs)), [value_text(x) for x in xs])
    axis.set_yticks(range(len(ys)), [value_text(y) for y in ys])
    axis.set_xlabel(across)
    axis.set_ylabel(down)


def _draw_importance(axis: Any, result: StudyResult) -> None:
    shares = sorted(result.importance.items(), key=lambda pair: pair[1])
    axis.barh([name for name, _ in shares], [share for _, share in shares], color=COLOURS[3])
    axis.set_xlabel("share of the variance of log time (PED-ANOVA)")
