"""The Plotly figures of an exp2 split, and what all figures share."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from fa4gen.study.accuracy import MEASURES
from fa4gen.study.front import pareto_front
from fa4gen.study.results import ResultRow, StudyResult
from fa4gen.study.series import (
    DEGREE,
    SHARE,
    THRESHOLD,
    Curve,
    axis_names,
    curve_name,
    curves,
    hover,
    marked_rows,
    measured_against_computed,
    names_above,
    short_who,
    values_of,
)

INK, MUTED, GRID = "#1b2733", "#6b7785", "#e6eaee"
ACCENT, FRONT, REFUSED = "#c8553d", "#1b2733", "#c9ced4"
DEGREE_COLOURS = {1: "#8d6a9f", 2: "#d08c2a", 3: "#2a7f9e", 4: "#4a9a5d", 5: "#8d6a9f"}
DEGREE_SYMBOLS = {1: "x", 2: "diamond", 3: "circle", 4: "square", 5: "triangle-up"}
SIZES = (7, 10, 13)
GAIN_TITLE = "speed over the default kernel (gain)"
LOGARITHMIC = {"p32_mean_ulp", "p32_max_ulp", "lse_max"}
"""Measures that differ by orders of magnitude."""


def library() -> str:
    """plotly.js itself, for a page that works without a network."""
    return str(get_plotlyjs())


def html(figure: go.Figure, name: str) -> str:
    """The figure as a ``div`` for a page that has :func:`library`."""
    text = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return str(text)


def styled(figure: go.Figure, height: int) -> go.Figure:
    """The figure in the one style of the pages."""
    figure.update_layout(
        height=height,
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        margin={"l": 70, "r": 30, "t": 50, "b": 60},
        hoverlabel={"align": "left", "font_size": 12},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure


def pareto(result: StudyResult) -> go.Figure:
    """Speed against an error; a menu changes the error, and the front with it."""
    figure, rows = go.Figure(), list(result.timed)
    measures = [m for m in MEASURES if all(m in row.accuracy for row in rows)]
    groups = [rows_of for _, rows_of in _by_degree(rows)]
    for (name, degree), of_degree in zip(_degree_names(rows), groups, strict=True):
        figure.add_trace(_points(result, name, degree, of_degree))
    front = pareto_front(rows, result.measure)
    figure.add_trace(_front_line(front, result.measure))
    marked = [row for _, row in marked_rows(result)]
    figure.add_trace(_marks(result))
    menu = []
    for measure in measures:
        ys: list[list[float]] = [[row.accuracy[measure] for row in group] for group in groups]
        on_front = pareto_front(rows, measure)
        ys += [[row.accuracy[measure] for row in on_front]]
        ys += [[row.accuracy[measure] for row in marked]]
        xs = [[row.gain for row in group] for group in (*groups, on_front, marked)]
        kind = "log" if measure in LOGARITHMIC else "linear"
        axis = {"yaxis.title.text": MEASURES[measure].label, "yaxis.type": kind}
        menu.append({"label": measure, "method": "update", "args": [{"y": ys, "x": xs}, axis]})
    figure.update_layout(
        updatemenus=[
            {
                "buttons": menu,
                "active": measures.index(result.measure),
                "x": 1.0,
                "xanchor": "right",
                "y": 1.1,
                "yanchor": "bottom",
                "bgcolor": "white",
                "bordercolor": GRID,
            }
        ],
        annotations=[
            {
                "text": "faster and more exact ↘",
                "xref": "paper",
                "yref": "paper",
                "x": 0.995,
                "y": 0.01,
                "showarrow": False,
                "font": {"color": MUTED, "size": 12},
            }
        ],
    )
    figure.update_xaxes(title_text=GAIN_TITLE, range=_padded([row.gain or 0.0 for row in rows]))
    figure.update_yaxes(title_text=MEASURES[result.measure].label)
    shares = [float(row.knobs[SHARE]) for row in rows]
    colours = {
        "colorscale": "Viridis",
        "reversescale": True,
        "cmin": 0.0,
        "cmax": max(shares) or 1.0,
        "colorbar": {"title": {"text": "share on the<br>polynomial"}, "thickness": 14},
    }
    return styled(figure, 610).update_layout(coloraxis=colours, margin={"t": 95})


def _padded(values: Sequence[float]) -> list[float]:
    """A range with room for the names of marks at its ends."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.01
    return [low - room, high + room]


def _by_degree(rows: Sequence[ResultRow]) -> list[tuple[int, list[ResultRow]]]:
    """Rows without a polynomial (degree 0), then those of each degree."""
    groups: dict[int, list[ResultRow]] = {}
    for row in rows:
        degree = int(row.knobs[DEGREE]) if float(row.knobs[SHARE]) > 0.0 else 0
        groups.setdefault(degree, []).append(row)
    return sorted(groups.items())


def _degree_names(rows: Sequence[ResultRow]) -> list[tuple[str, int]]:
    return [(f"degree {d}" if d else "all MUFU", d) for d, _ in _by_degree(rows)]


def _points(result: StudyResult, name: str, degree: int, rows: Sequence[ResultRow]) -> go.Scatter:
    thresholds = values_of(result.timed, THRESHOLD)
    shares = [float(row.knobs[SHARE]) for row in rows]
    marker = {
        "symbol": DEGREE_SYMBOLS.get(degree, "cross"),
        "size": [SIZES[min(thresholds.index(r.knobs[THRESHOLD]), 2)] for r in rows],
        "color": shares,
        "coloraxis": "coloraxis",
        "line": {"width": 0.7, "color": "white"},
        "opacity": 0.9,
    }
    errors = None
    if any(row.gain_low != row.gain_high for row in rows):
        errors = {
            "type": "data",
            "symmetric": False,
            "array": [(r.gain_high or 0.0) - (r.gain or 0.0) for r in rows],
            "arrayminus": [(r.gain or 0.0) - (r.gain_low or 0.0) for r in rows],
            "color": "rgba(27,39,51,0.22)",
            "thickness": 1,
            "width": 0,
        }
    return go.Scatter(
        x=[row.gain for row in rows],
        y=[row.accuracy[result.measure] for row in rows],
        error_x=errors,
        mode="markers",
        name=name,
        marker=marker,
        text=[hover(result, row) for row in rows],
        hoverinfo="text",
    )


def _front_line(front: Sequence[ResultRow], measure: str) -> go.Scatter:
    return go.Scatter(
        x=[row.gain for row in front],
        y=[row.accuracy[measure] for row in front],
        mode="lines",
        name="Pareto front",
        line={"shape": "vh", "color": FRONT, "width": 1.6, "dash": "dot"},
        hoverinfo="skip",
    )


def _marks(result: StudyResult) -> go.Scatter:
    rows = marked_rows(result)
    return go.Scatter(
        x=[row.gain for _, row in rows],
        y=[row.accuracy[result.measure] for _, row in rows],
        mode="markers+text",
        name="default and hand-set",
        marker={
            "symbol": "star",
            "size": 17,
            "color": ACCENT,
            "line": {"width": 1, "color": "white"},
        },
        text=[short_who(who) for who, _ in rows],
        textposition=[
            "top center" if above else "bottom center"
            for above in names_above([row for _, row in rows], result.measure)
        ],
        textfont={"color": ACCENT, "size": 12},
        customdata=[hover(result, row) for _, row in rows],
        hovertemplate="%{customdata}<extra></extra>",
    )


def split_curves(result: StudyResult) -> go.Figure:
    """Gain, and under it the error, over the share of exp2 on the polynomial; by threshold."""
    found = curves(result)
    thresholds = sorted({curve.threshold for curve in found})
    figure = make_subplots(
        rows=2,
        cols=max(1, len(thresholds)),
        shared_xaxes=True,
        shared_yaxes="rows",
        horizontal_spacing=0.03,
        vertical_spacing=0.06,
        column_titles=[f"rescale threshold {threshold:g}" for threshold in thresholds],
    )
    named: set[str] = set()
    for curve in found:
        column = thresholds.index(curve.threshold) + 1
        for line, ys in enumerate(_both(curve, result.measure), start=1):
            name = curve_name(curve)
            figure.add_trace(_curve(result, curve, ys, name not in named), row=line, col=column)
            named.add(name)
    figure.add_hline(y=1.0, line={"color": MUTED, "width": 1, "dash": "dot"}, row=1, col="all")
    figure.update_yaxes(title_text="gain", row=1, col=1)
    figure.update_yaxes(title_text=result.measure, row=2, col=1)
    figure.update_xaxes(title_text=axis_names(result)[SHARE], row=2)
    return styled(figure, 620).update_layout(legend={"y": 1.07})


def _both(curve: Curve, measure: str) -> tuple[list[float], list[float]]:
    return (
        [row.gain or 0.0 for row in curve.rows],
        [row.accuracy[measure] for row in curve.rows],
    )


def _curve(result: StudyResult, curve: Curve, ys: list[float], named: bool) -> go.Scatter:
    return go.Scatter(
        x=[float(row.knobs[SHARE]) for row in curve.rows],
        y=ys,
        mode="lines+markers",
        name=curve_name(curve),
        legendgroup=curve_name(curve),
        showlegend=named,
        line={
            "color": DEGREE_COLOURS[curve.degree],
            "dash": "dot" if curve.placement in ("front", "back") else "solid",
            "width": 1.8,
        },
        marker={"size": 5},
        text=[hover(result, row) for row in curve.rows],
        hoverinfo="text",
    )


KIND_COLOURS = {"normal": "#2a7f9e", "large": "#d08c2a", "growing": "#4a9a5d"}


def compared(result: StudyResult) -> go.Figure | None:
    """Measured errors of O against computed ones; ``None`` where nothing was measured."""
    pairs = measured_against_computed(result)
    if not pairs:
        return None
    figure = go.Figure()
    for kind, points in pairs.items():
        figure.add_trace(
            go.Scatter(
                x=[computed for _, computed, _ in points],
                y=[measured for _, _, measured in points],
                mode="markers",
                name=kind,
                marker={"size": 7, "color": KIND_COLOURS.get(kind, INK), "opacity": 0.75},
                text=[hover(result, row) for row, _, _ in points],
                hoverinfo="text",
            )
        )
    ends = [value for points in pairs.values() for _, *both in points for value in both]
    line = [min(ends), max(ends)]
    figure.add_trace(
        go.Scatter(
            x=line,
            y=line,
            mode="lines",
            name="equal",
            line={"color": MUTED, "width": 1, "dash": "dot"},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title_text="computed in NumPy")
    figure.update_yaxes(title_text="measured on the GPU")
    return styled(figure, 420)
