"""The pictures beside a study's files, and what is missing to make them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fa4gen.study.results import StudyKind, StudyResult
from fa4gen.study.samplers import SamplerResult

PAGE_NAME = "index.html"
PICTURE_NAMES = {StudyKind.EXP2_SPLIT: "pareto.png", StudyKind.KNOBS: "speed.png"}
SAMPLER_PICTURE = "trials.png"
EXTRA = "plots"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was written, and why something was not."""

    paths: tuple[Path, ...]
    missing: tuple[str, ...]
    """Packages that are not installed."""


def draw(result: StudyResult | SamplerResult, folder: Path) -> Drawn:
    """Write the page and the picture of a study, as far as plotly and matplotlib are installed."""
    name = SAMPLER_PICTURE
    if isinstance(result, StudyResult):
        name = PICTURE_NAMES[result.kind]
    makers: list[tuple[str, str, Callable[[Path], None]]] = [
        ("plotly", PAGE_NAME, lambda path: _page(result, path)),
        ("matplotlib", name, lambda path: _picture(result, path)),
    ]
    paths, missing = [], []
    for package, file_name, make in makers:
        if importlib.util.find_spec(package) is None:
            missing.append(package)
        else:
            make(folder / file_name)
            paths.append(folder / file_name)
    return Drawn(tuple(paths), tuple(missing))


def _page(result: StudyResult | SamplerResult, path: Path) -> None:
    from fa4gen.study import pages, sampler_pages

    text = pages.page(result) if isinstance(result, StudyResult) else sampler_pages.page(result)
    path.write_text(text, encoding="utf-8")


def _picture(result: StudyResult | SamplerResult, path: Path) -> None:
    from fa4gen.study import pictures, sampler_pages

    if isinstance(result, StudyResult):
        pictures.picture(result, path)
    else:
        sampler_pages.picture(result, path)
