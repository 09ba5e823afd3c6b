"""Factors over shapes: head dimension across, sequence length down, one panel for each mask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from fa4gen.core.problem import AttentionProblem
from fa4gen.report.page.views import CellView, HeatMapView, PanelView

Factor = tuple[AttentionProblem, float]
"""A problem with a factor above 0."""

MASKS = ("dense", "causal")


def geometric_mean(factors: Iterable[float]) -> float | None:
    """The geometric mean of those above 0; ``None`` for none."""
    logs = [math.log(factor) for factor in factors if factor > 0]
    return math.exp(fmean(logs)) if logs else None


def heat_map(factors: Sequence[Factor]) -> HeatMapView | None:
    """The map of these factors; problems that differ in batch alone share a cell.

    ``None`` for none. Self-attention comes first, by length, then what has a ``seqlen_k`` of its
    own; grouped-query attention and other element types have columns of their own.
    """
    several_types = len({problem.dtype for problem, _ in factors}) > 1
    cells: dict[tuple[str, str, str], list[Factor]] = {}
    for problem, factor in factors:
        if math.isfinite(factor) and factor > 0:
            key = (MASKS[problem.causal], _row(problem), _column(problem, several_types))
            cells.setdefault(key, []).append((problem, factor))
    if not cells:
        return None
    shown = [problem for found in cells.values() for problem, _ in found]
    down = tuple(dict.fromkeys(_row(one) for one in sorted(shown, key=_row_order)))
    panels = []
    for mask in MASKS:
        mine = sorted((one for one in shown if MASKS[one.causal] == mask), key=_column_order)
        across = tuple(dict.fromkeys(_column(one, several_types) for one in mine))
        lines = (tuple(_cell(cells.get((mask, row, name))) for name in across) for row in down)
        if across:
            panels.append(PanelView(mask, across, tuple(lines)))
    return HeatMapView(down, tuple(panels))


def _cell(factors: list[Factor] | None) -> CellView | None:
    mean = geometric_mean(factor for _, factor in factors or ())
    if mean is None or factors is None:
        return None
    return CellView(mean, tuple((str(problem), factor) for problem, factor in factors))


def _column(problem: AttentionProblem, with_type: bool) -> str:
    text = f"d{problem.head_dim}"
    if problem.head_dim_v != problem.head_dim:
        text += f",{problem.head_dim_v}"
    if problem.qhead_per_kvhead > 1:
        text += f" gqa{problem.qhead_per_kvhead}"
    return f"{text} {problem.dtype.value}" if with_type else text


def _column_order(problem: AttentionProblem) -> tuple[object, ...]:
    group = problem.qhead_per_kvhead
    return (problem.head_dim, problem.head_dim_v, group, problem.dtype.value)


def _row(problem: AttentionProblem) -> str:
    if problem.seqlen_q == problem.seqlen_k:
        return f"{problem.seqlen_q}"
    return f"{problem.seqlen_q}x{problem.seqlen_k}"


def _row_order(problem: AttentionProblem) -> tuple[object, ...]:
    other = problem.seqlen_q != problem.seqlen_k
    return (other, problem.seqlen_q, problem.seqlen_k)
