"""What the terminal says of a page that was written."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fa4gen.report.page.problems import FASTER, NONE, STAYS
from fa4gen.report.page.views import PlaceView, WrittenReport
from fa4gen.report.page.words import factor
from fa4gen.report.tables import grid, source_text

_RIGHT = frozenset({"problems", "faster", "default stays", "no winner", "gain", "best peer"})


def summary(written: WrittenReport) -> RenderableType:
    """Where the page is, and one line for each place in it."""
    table = grid(
        "GPU", "source", "problems", "faster", "default stays", "no winner", "gain", "best peer",
        right=_RIGHT,
    )  # fmt: skip
    for view in written.report.places:
        table.add_row(*_cells(view))
    where = f"{written.path}: {written.size_bytes / 1e6:.1f} MB, needs no network"
    lines: list[RenderableType] = [table, "", Text(where, overflow="fold")]
    if written.studies:
        studies = f"{written.studies}: optuna-dashboard sqlite:///{written.studies}"
        lines.append(Text(studies, overflow="fold"))
    return Group(*lines)


def _cells(view: PlaceView) -> list[str | Text]:
    return [
        view.place.sku,
        source_text(view.place.source),
        str(view.problems),
        *(str(view.verdicts[name]) for name in (FASTER, STAYS, NONE)),
        factor(view.geomean_gain),
        factor(view.geomean_peer),
    ]
