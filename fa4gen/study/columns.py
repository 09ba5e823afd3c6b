"""Which columns of a KV block take the polynomial: what the templates' rules come to."""

from __future__ import annotations

from collections.abc import Callable

from fa4gen.core.config import Exp2Placement, KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.feasibility.sm100_footprint import FRAGMENT_COLUMNS
from fa4gen.hardware import Arch

_GROUP = 8
"""Hopper: columns of S that the four threads of a row hold two each of."""


def polynomial_columns(config: KernelConfig, arch: Arch) -> tuple[int, ...]:
    """Columns of a block, ascending, whose exponential is a polynomial in the kernel of ``arch``.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    try:
        rule = _FAMILIES[arch.family]
    except KeyError:
        raise UnknownName("family of kernels", arch.family, _FAMILIES) from None
    return rule(config)


def _sm90(config: KernelConfig) -> tuple[int, ...]:
    """Whole groups of eight columns, by placement (``EXP2_POLY_GROUPS`` of the template)."""
    groups = config.tile_n // _GROUP
    count = round(config.exp2_poly_fraction * groups)
    if config.exp2_poly_placement is Exp2Placement.FRONT:
        chosen = set(range(count))
    elif config.exp2_poly_placement is Exp2Placement.BACK:
        chosen = set(range(groups - count, groups))
    else:
        chosen = {(2 * i + 1) * groups // (2 * count) for i in range(count)}
    return tuple(c for c in range(groups * _GROUP) if c // _GROUP in chosen)


def _sm100(config: KernelConfig) -> tuple[int, ...]:
    """Pairs at the end of every period of a fragment (``polynomial_pairs`` of the template)."""
    period, pairs = config.exp2_poly_frequency // 2, FRAGMENT_COLUMNS // 2
    wanted = round(config.exp2_poly_fraction * config.tile_n / 2)
    last = config.tile_n // FRAGMENT_COLUMNS - (not config.exp2_poly_last)
    fragments = range(config.exp2_poly_start, last)
    inside = pairs - pairs % period
    places = [[i for i in range(inside) if i % period == k] for k in reversed(range(period))]
    chosen: set[int] = set()
    for positions in (*places, list(range(inside, pairs))):
        alike = [fragment * pairs + i for fragment in fragments for i in positions]
        count = min(wanted - len(chosen), len(alike))
        chosen.update(alike[(2 * i + 1) * len(alike) // (2 * count)] for i in range(count))
    return tuple(column for pair in sorted(chosen) for column in (2 * pair, 2 * pair + 1))


_FAMILIES: dict[str, Callable[[KernelConfig], tuple[int, ...]]] = {"sm90": _sm90, "sm100": _sm100}
