"""Who takes part in a problem's closing shoot-out: whoever may still turn out to be the fastest."""

from __future__ import annotations

from collections.abc import Iterable

from fa4gen.core.config import KernelConfig
from fa4gen.tune.records import Known


def contenders(
    known: Iterable[Known], winner: Known | None, anchor: KernelConfig, most: int
) -> list[Known]:
    """The finalists, fastest first; empty when nothing can beat the default.

    A kernel that was measured to be no faster than the default (the upper bound of its gain is at
    most 1, as for all that were given up early) can become nothing. Of the rest, those count that
    are proven, or whose interval reaches into the interval of the fastest.

    Args:
        known: everything evaluated on this problem.
        winner: what the table holds; always among them unless it is the default.
        anchor: the default's configuration, which takes part in every shoot-out anyway.
        most: largest number of finalists.
    """
    hopeful = {entry.config.config_id: entry for entry in known if entry.gain_high > 1.0}
    if winner is not None and winner.proven:
        hopeful.setdefault(winner.config.config_id, winner)
    hopeful.pop(anchor.config_id, None)
    ranked = sorted(hopeful.values(), key=lambda entry: entry.gain, reverse=True)
    if not ranked:
        return []
    best = ranked[0]
    close = [entry for entry in ranked if entry.proven or entry.gain_high >= best.gain_low]
    chosen = close[:most]
    present = None if winner is None else hopeful.get(winner.config.config_id)
    if present is not None and present not in chosen:
        chosen[-1:] = [present]
    return chosen
