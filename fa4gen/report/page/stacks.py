"""On which machines and with which versions the trials were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fa4gen.core.evaluation import Provenance
from fa4gen.db import DispatchRow, StoredEvaluation
from fa4gen.report.page.failures import place_of
from fa4gen.report.page.views import Place, StackView

Key = tuple[Place, tuple[str, ...]]

_NAMES = (
    "gpu_name",
    "driver",
    "cuda",
    "cutlass_dsl",
    "torch",
    "fa4gen",
    "template_hash",
    "model_version",
)
"""Fields of a provenance that make a stack of their own; the order is that of the view."""


def _key(place: Place, made: Provenance) -> Key:
    return place, tuple(getattr(made, name) for name in _NAMES)


def stacks(
    stored: Iterable[StoredEvaluation], winners: Iterable[DispatchRow]
) -> tuple[StackView, ...]:
    """One view for each, the newest first within a place."""
    made: dict[Key, list[Provenance]] = {}
    for row in stored:
        provenance = row.evaluation.provenance
        made.setdefault(_key(place_of(row), provenance), []).append(provenance)
    won = Counter(
        _key(Place(row.sku, row.source, str(row.policy)), row.evaluation.provenance)
        for row in winners
    )
    views = [_view(key, rows, won[key]) for key, rows in made.items()]
    views.sort(key=lambda view: view.last, reverse=True)
    return tuple(sorted(views, key=lambda view: view.place))


def _view(key: Key, rows: Sequence[Provenance], winners: int) -> StackView:
    place, (gpu, driver, cuda, dsl, torch, fa4gen, template_hash, model_version) = key
    clocks = [row.sm_clock_mhz for row in rows if row.sm_clock_mhz]
    powers = [row.power_w for row in rows if row.power_w]
    cards = len({row.gpu_uuid_hash for row in rows if row.gpu_uuid_hash})
    dates = sorted(row.date for row in rows)
    return StackView(
        place=place,
        gpu=f"{gpu} ({cards} cards)" if cards > 1 else gpu,
        driver=driver,
        cuda=cuda,
        cutlass_dsl=dsl,
        torch=torch,
        fa4gen=fa4gen,
        template_hash=template_hash,
        model_version=model_version,
        trials=len(rows),
        winners=winners,
        first=dates[0],
        last=dates[-1],
        clocks_mhz=(min(clocks), max(clocks)) if clocks else None,
        powers_w=(min(powers), max(powers)) if powers else None,
        throttle=tuple(sorted({row.throttle for row in rows if row.throttle})),
    )
