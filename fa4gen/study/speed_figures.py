"""The Plotly figures of a study of speed."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from fa4gen.core.config import KnobValue
from fa4gen.study.figures import ACCENT, DEGREE_COLOURS, GAIN_TITLE, MUTED, REFUSED, styled
from fa4gen.study.labels import value_text
from fa4gen.study.results import ResultRow, StudyResult
from fa4gen.study.series import hover, matrix, values_of


def speed(result: StudyResult) -> go.Figure:
    """A study of one knob, of two, or of more."""
    if len(result.knobs) == 1:
        return one_knob(result)
    return two_knobs(result) if len(result.knobs) == len(("x", "y")) else many_knobs(result)


def one_knob(result: StudyResult) -> go.Figure:
    """Gain over the values, with intervals; values that cannot run stand at the foot."""
    name = result.knobs[0]
    order = values_of(result.rows, name)
    timed = sorted(result.timed, key=lambda row: order.index(row.knobs[name]))
    rest = [row for row in result.rows if row.gain is None]
    figure = go.Figure(
        go.Scatter(
            x=[value_text(row.knobs[name]) for row in timed],
            y=[row.gain for row in timed],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [(r.gain_high or 0.0) - (r.gain or 0.0) for r in timed],
                "arrayminus": [(r.gain or 0.0) - (r.gain_low or 0.0) for r in timed],
                "color": MUTED,
            },
            mode="lines+markers",
            name=f"gain ({result.setting.source.value})",
            line={"color": DEGREE_COLOURS[3], "width": 2},
            marker={"size": 9},
            text=[hover(result, row) for row in timed],
            hoverinfo="text",
        )
    )
    if rest:
        low = min((row.gain_low or 1.0 for row in timed), default=1.0)
        figure.add_trace(
            go.Scatter(
                x=[value_text(row.knobs[name]) for row in rest],
                y=[low * 0.98] * len(rest),
                mode="markers",
                name="no time; hover for the reason",
                marker={"symbol": "x", "size": 10, "color": ACCENT},
                text=[f"{value_text(row.knobs[name])}: {row.message}" for row in rest],
                hoverinfo="text",
            )
        )
    figure.add_hline(y=1.0, line={"color": MUTED, "width": 1, "dash": "dot"})
    labels = [value_text(value) for value in order]
    figure.update_xaxes(
        title_text=name, type="category", categoryorder="array", categoryarray=labels
    )
    figure.update_yaxes(title_text=GAIN_TITLE)
    return styled(figure, 460)


def two_knobs(result: StudyResult) -> go.Figure:
    """A heat map of the gain; a cell without a time says why."""
    down, across = result.knobs
    xs, ys = values_of(result.rows, across), values_of(result.rows, down)
    cells = matrix(result.rows, (across, xs), (down, ys))
    gains = [[None if cell is None else cell.gain for cell in line] for line in cells]
    figure = go.Figure(
        go.Heatmap(
            x=[value_text(x) for x in xs],
            y=[value_text(y) for y in ys],
            z=gains,
            text=[["" if g is None else f"{g:.3f}" for g in line] for line in gains],
            customdata=[[_cell_text(result, cell) for cell in line] for line in cells],
            texttemplate="%{text}",
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=True,
            colorscale="Tealrose_r",
            zmid=1.0,
            xgap=2,
            ygap=2,
            colorbar={"title": "gain"},
        )
    )
    figure.update_xaxes(title_text=across, type="category", showgrid=False)
    figure.update_yaxes(title_text=down, type="category", showgrid=False)
    return styled(figure, 160 + 46 * max(5, len(ys))).update_layout(plot_bgcolor=REFUSED)


def _cell_text(result: StudyResult, cell: ResultRow | None) -> str:
    if cell is None:
        return "not tried, or the same kernel as another cell"
    return hover(result, cell) if cell.gain is not None else f"{cell.outcome.value}: {cell.message}"


def many_knobs(result: StudyResult) -> go.Figure:
    """Parallel coordinates, coloured by gain."""
    rows = sorted(result.timed, key=lambda row: row.gain or 0.0)
    dimensions: list[dict[str, Any]] = []
    for name in result.knobs:
        order: list[KnobValue] = values_of(rows, name)
        dimensions.append(
            {
                "label": name,
                "values": [order.index(row.knobs[name]) for row in rows],
                "tickvals": list(range(len(order))),
                "ticktext": [value_text(value) for value in order],
            }
        )
    gains = [row.gain for row in rows]
    dimensions.append({"label": "gain", "values": gains})
    line = {"color": gains, "colorscale": "Tealrose_r", "showscale": False, "cmid": 1.0}
    figure = go.Figure(go.Parcoords(line=line, dimensions=dimensions, labelangle=-12))
    return styled(figure, 480).update_layout(margin={"t": 90, "l": 90, "r": 60})


def importance(result: StudyResult) -> go.Figure:
    """How much of the variance of log time each knob explains."""
    shares = sorted(result.importance.items(), key=lambda pair: pair[1])
    figure = go.Figure(
        go.Bar(
            x=[share for _, share in shares],
            y=[name for name, _ in shares],
            orientation="h",
            marker_color=DEGREE_COLOURS[3],
            text=[f"{share:.0%}" for _, share in shares],
        )
    )
    figure.update_xaxes(title_text="share", tickformat=".0%")
    return styled(figure, 120 + 34 * len(shares)).update_layout(margin={"l": 190})
