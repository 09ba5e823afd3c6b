"""The page's charts as Plotly figures, without colours: the page paints them light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fa4gen.report.page.views import (
    CellView,
    HeatMapView,
    PanelView,
    Place,
    ProblemView,
    ReportView,
)

Figure = dict[str, Any]
"""``data`` and ``layout`` as plotly.js takes them; ``alt``: what it shows, in words; ``widths``:
least and most pixels, or ``None`` for all there is."""

RATIO_LIMIT = 1.25
"""Factor at which the colours of a ratio end; the numbers in the cells do not."""
MIN_GAIN_LIMIT = 1.05
"""Least factor at which the colours of gains end, lest noise look like a find."""

ROW_PX, FRAME_PX, LABELS_PX, LINE_PX = 27, 82, 110, 15
COLUMN_PX = (66, 104)
"""Least and most; between them a map is as wide as there is room."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
"""One for each head dimension, so that colour is not needed to tell them apart."""


def charts(report: ReportView) -> dict[str, Figure]:
    """Every chart of the page by the id of its place in it."""
    found: dict[str, Figure] = {}
    for number, view in enumerate(report.places):
        if view.gains is not None:
            found[f"gains-{number}"] = heat_map(view.gains, "gain", "Gain over the default kernel")
        if view.against_peers is not None:
            found[f"peers-{number}"] = heat_map(
                view.against_peers, "ratio", "Speed over the best peer"
            )
        mine = [problem for problem in report.problems if problem.place == view.place]
        if figure := sorted_gains(mine, view.place):
            found[f"sorted-{number}"] = figure
    return found


def heat_map(view: HeatMapView, scale: str, title: str) -> Figure:
    """One panel for each mask, side by side, with the number written into every cell.

    Args:
        view: what to draw.
        scale: ``gain``, from 1 up, or ``ratio``, around 1.
        title: what the factors are.
    """
    limit = RATIO_LIMIT if scale == "ratio" else max(_largest(view), MIN_GAIN_LIMIT)
    columns = sum(len(panel.columns) for panel in view.panels)
    data, layout = [], _layout(view)
    start = 0
    for number, panel in enumerate(view.panels, 1):
        end = start + len(panel.columns)
        data.append(_panel(view, panel, number, (scale, limit)))
        layout[f"xaxis{number}" if number > 1 else "xaxis"] = {
            **_AXIS,
            "range": [-0.5, len(panel.columns) - 0.5],
            "domain": [start / columns + 0.012 * (number > 1), end / columns],
            "title": {"text": f"<b>{panel.mask}</b>", "standoff": 6},
            "side": "top",
        }
        start = end
    masks = " and ".join(panel.mask for panel in view.panels)
    return {
        "data": data,
        "layout": layout,
        "alt": f"{title} by sequence length and head dimension, {masks}; the same as a table below",
        "widths": [LABELS_PX + width * columns for width in COLUMN_PX],
    }


_AXIS: Figure = {
    "type": "category",
    "fixedrange": True,
    "ticks": "",
    "tickangle": 0,
    "showgrid": False,
}


def _layout(view: HeatMapView) -> Figure:
    lines = max(_lines(name).count("<br>") for panel in view.panels for name in panel.columns)
    frame = FRAME_PX + LINE_PX * max(0, lines - 1)
    return {
        "height": frame + ROW_PX * len(view.rows),
        "margin": {"l": LABELS_PX - 10, "r": 10, "t": frame - 8, "b": 8},
        "yaxis": {**_AXIS, "range": [len(view.rows) - 0.5, -0.5]},
    }


def _largest(view: HeatMapView) -> float:
    cells = (cell for panel in view.panels for row in panel.cells for cell in row)
    return max((cell.factor for cell in cells if cell is not None), default=1.0)


def _panel(view: HeatMapView, panel: PanelView, number: int, colours: tuple[str, float]) -> Figure:
    scale, limit = colours
    top = math.log(limit)
    return {
        "type": "heatmap",
        "x": [_lines(name) for name in panel.columns],
        "y": list(view.rows),
        "z": [[_z(cell, top) for cell in row] for row in panel.cells],
        "zmin": 0.0 if scale == "gain" else -top,
        "zmax": top,
        "text": [[_text(cell) for cell in row] for row in panel.cells],
        "customdata": [[_hover(cell) for cell in row] for row in panel.cells],
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "xaxis": f"x{number}" if number > 1 else "x",
        "yaxis": "y",
        "meta": scale,
    }


def _lines(name: str) -> str:
    """The name of a column on top of it: columns are narrow, and slanted names overlap."""
    return name.replace(",", ",<br>").replace(" ", "<br>")


def _z(cell: CellView | None, top: float) -> float | None:
    """Colours go by the logarithm, so that half and double are equally far from 1."""
    return None if cell is None else max(-top, min(top, math.log(cell.factor)))


def _text(cell: CellView | None) -> str:
    if cell is None:
        return ""
    several = f" ({len(cell.problems)})" if len(cell.problems) > 1 else ""
    return f"{cell.factor:.3f}{several}"


def _hover(cell: CellView | None) -> str:
    if cell is None:
        return ""
    return "<br>".join(f"{name}: {factor:.3f}" for name, factor in cell.problems)


def sorted_gains(problems: Sequence[ProblemView], place: Place) -> Figure | None:
    """Every gain with its interval, the largest first; one symbol for each head dimension."""
    won = [view for view in problems if view.timing is not None]
    won.sort(key=lambda view: -view.timing.gain if view.timing else 0.0)
    if not won:
        return None
    dims = sorted({view.problem.head_dim for view in won})
    data = []
    for index, head_dim in enumerate(dims):
        mine = [
            (rank, str(view.problem), view.timing)
            for rank, view in enumerate(won, 1)
            if view.problem.head_dim == head_dim and view.timing is not None
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"head_dim {head_dim}",
                "x": [rank for rank, _, _ in mine],
                "y": [timing.gain for _, _, timing in mine],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, timing.gain_high - timing.gain) for _, _, timing in mine],
                    "arrayminus": [
                        max(0.0, timing.gain - timing.gain_low) for _, _, timing in mine
                    ],
                    "thickness": 1.2,
                    "width": 2,
                },
                "text": [name for _, name, _ in mine],
                "hovertemplate": "%{text}<br>gain %{y:.3f}<extra></extra>",
                "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
                "meta": index,
            }
        )
    layout = {
        "height": 330,
        "margin": {"l": 60, "r": 10, "t": 40, "b": 44},
        "xaxis": {"title": {"text": "problems, largest gain first"}, "zeroline": False},
        "yaxis": {"title": {"text": "gain over the default"}, "zeroline": False},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": len(dims) > 1,
    }
    alt = f"Gains of {len(won)} problems on {place.sku}, largest first; the table has the numbers"
    return {"data": data, "layout": layout, "alt": alt, "widths": None}
