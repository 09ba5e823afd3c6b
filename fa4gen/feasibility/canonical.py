"""One spelling for configurations that are the same kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility.common import LEAST_DEGREE_16_BIT
from fa4gen.feasibility.sm90_footprint import full_regs_consumer, num_consumer_warpgroups
from fa4gen.feasibility.sm100_footprint import (
    FRAGMENT_COLUMNS,
    full_regs_other,
    polynomial_room,
)
from fa4gen.hardware import Arch

_DEFAULTS = {knob.name: knob.default for knob in fields(KernelConfig)}
_POLYNOMIAL = ("exp2_poly_degree",)
_PLACEMENT = ("exp2_poly_placement",)
_BURSTS = ("exp2_poly_frequency", "exp2_poly_start", "exp2_poly_last")


def canonicalise(
    signature: KernelSignature, config: KernelConfig, arch: Arch, *, derive: bool = True
) -> KernelConfig:
    """``config`` with every knob that has no effect at its neutral value.

    On every arch: without a polynomial its degree and place are the defaults; without a group
    of query heads ``pack_gqa`` is off. On Hopper: all polynomial has no place; a line through
    each octave is for e4m3 only; one consumer warpgroup cannot take turns; a CTA of one tile
    has no next Q to fetch; what Blackwell's hardware hands out comes from a counter, but splits
    of the keys are alike and few, so that CTAs walk them with a fixed stride; without a
    threshold every row maximum is needed; query heads that do not divide a tile are packed only
    where keys are split; without overlap no PV runs under exponentials and one P is enough. On
    Blackwell: the polynomial takes no more of a row than its fragments hold; P is published
    when it is complete at the latest; one Q tile has nobody to take turns with; the hardware
    hands tiles out, no counter.

    Args:
        derive: also give the registers that are left over to the consumers (Hopper) or to the
            load, MMA and store warps (Blackwell). One CTA fills the SM, so they would serve nobody.

    Never raises and never judges: a configuration that cannot run stays one, apart from what is
    repaired on the way.
    """
    changes: dict[str, Any] = {}
    if signature.qhead_per_kvhead == 1:
        changes["pack_gqa"] = False
    family = _FAMILIES.get(arch.family)
    if family is not None:
        changes |= family(signature, config, arch, derive)
    changed = {name: value for name, value in changes.items() if getattr(config, name) != value}
    return config.vary(changed) if changed else config


def _sm90(
    signature: KernelSignature, config: KernelConfig, arch: Arch, derive: bool
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if config.pack_gqa and config.tile_m % signature.qhead_per_kvhead and config.num_splits == 1:
        changes["num_splits"] = 2
        config = config.vary(changes)
    if config.exp2_poly_fraction == 0.0:
        changes |= _defaults(*_POLYNOMIAL)
    elif signature.dtype is not DType.E4M3:
        changes["exp2_poly_degree"] = max(config.exp2_poly_degree, LEAST_DEGREE_16_BIT)
    if config.exp2_poly_fraction in (0.0, 1.0):
        changes |= _defaults(*_PLACEMENT)
    if num_consumer_warpgroups(config) == 1:
        changes["pingpong"] = False
    if config.scheduler is Scheduler.LPT:
        changes["q_prefetch"] = False
    if config.scheduler in (Scheduler.DYNAMIC, Scheduler.CLC):
        alike = config.num_splits > 1
        changes["scheduler"] = Scheduler.PERSISTENT if alike else Scheduler.DYNAMIC
    if config.rescale_threshold_log2 == 0.0:
        changes["lazy_row_max"] = False
    if not (config.intra_warpgroup_overlap and config.p_in_registers):
        changes["p_buffers"] = 1
    if derive:
        changes["regs_consumer"] = full_regs_consumer(signature, config, arch)
    return changes


def _sm100(
    signature: KernelSignature, config: KernelConfig, arch: Arch, derive: bool
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    room = polynomial_room(config) / config.tile_n
    fraction = min(config.exp2_poly_fraction, room // _STEP * _STEP)
    changes["exp2_poly_fraction"] = fraction
    if fraction == 0.0:
        changes |= _defaults(*_POLYNOMIAL, *_BURSTS)
    elif fraction == room:
        changes |= _defaults("exp2_poly_frequency")
    whole = max(config.tile_n // FRAGMENT_COLUMNS, 1) * FRAGMENT_COLUMNS
    changes["p_publish_columns"] = min(config.p_publish_columns, whole)
    if config.scheduler is Scheduler.DYNAMIC:
        changes["scheduler"] = Scheduler.CLC
    if config.num_q_stages == 1:
        changes |= _defaults("softmax_handover", "mma_order")
    if derive:
        changes["regs_other"] = full_regs_other(config, arch)
    return changes


def _defaults(*names: str) -> dict[str, Any]:
    return {name: _DEFAULTS[name] for name in names}


_STEP = next(k.metadata["step"] for k in fields(KernelConfig) if k.name == "exp2_poly_fraction")
_FAMILIES: dict[str, Callable[[KernelSignature, KernelConfig, Arch, bool], dict[str, Any]]] = {
    "sm90": _sm90,
    "sm100": _sm100,
}
