"""One spelling for configurations that are the same kernel."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility.footprint import full_regs_consumer, num_consumer_warpgroups
from fa4gen.hardware import Arch

_DEFAULTS = {knob.name: knob.default for knob in fields(KernelConfig)}


def canonicalise(
    signature: KernelSignature, config: KernelConfig, arch: Arch | None = None
) -> KernelConfig:
    """``config`` with every knob that has no effect at its neutral value.

    - no polynomial: its degree and placement are the defaults; all polynomial: the placement is;
    - one consumer warpgroup cannot take turns: ``pingpong`` is off;
    - no group of query heads to pack: ``pack_gqa`` is off;
    - with ``arch``, also: ``regs_consumer`` is all the pool leaves. One CTA fills the SM, so
      registers left over would serve nobody.

    Never raises and never judges: a configuration that cannot run stays one, apart from what is
    repaired on the way.
    """
    changes: dict[str, Any] = {}
    if config.exp2_poly_fraction == 0.0:
        changes["exp2_poly_degree"] = _DEFAULTS["exp2_poly_degree"]
    if config.exp2_poly_fraction in (0.0, 1.0):
        changes["exp2_poly_placement"] = _DEFAULTS["exp2_poly_placement"]
    if num_consumer_warpgroups(config) == 1:
        changes["pingpong"] = False
    if signature.qhead_per_kvhead == 1:
        changes["pack_gqa"] = False
    if arch is not None:
        changes["regs_consumer"] = full_regs_consumer(config, arch)
    changed = {name: value for name, value in changes.items() if getattr(config, name) != value}
    return replace(config, **changed) if changed else config
