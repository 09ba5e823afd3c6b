"""A search space: its knobs, its defaults, and walking through what is feasible in it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from fa4gen.core.config import KNOB_NAMES, KernelConfig, KnobValue
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import NoFeasibleKernel, UnknownName
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import canonicalise, check, derived_knobs, rule_knobs, rules
from fa4gen.hardware import Arch, load_arch


@dataclass(frozen=True, slots=True)
class Knob:
    """One knob and the values worth trying."""

    name: str
    ordered: bool
    """Whether neighbouring values are alike, so that a search may step through them."""
    values: tuple[KnobValue, ...]
    meaning: str
    why: str
    """Why the range ends where it does."""


@dataclass(frozen=True, slots=True)
class DefaultRow:
    """One row of the table of defaults; the first that matches a signature and is feasible wins."""

    head_dim_max: int
    """Largest padded ``head_dim`` the row holds for."""
    head_dim_v_max: int
    """Largest padded ``head_dim_v`` the row holds for."""
    causal: bool | None
    """The mask it holds for; ``None`` for both."""
    dtype: DType | None
    """The type it holds for; ``None`` for all."""
    why: str
    config: KernelConfig

    def matches(self, signature: KernelSignature) -> bool:
        """Whether this row is about ``signature``."""
        return (
            signature.head_dim_padded <= self.head_dim_max
            and signature.head_dim_v_padded <= self.head_dim_v_max
            and self.causal in (None, signature.causal)
            and self.dtype in (None, signature.dtype)
        )


@dataclass(frozen=True)
class SearchSpace:
    """The knobs of one kernel family and the values worth trying."""

    name: str
    """Name of the file, e.g. ``sm90_fwd``."""
    arch: str
    """Name of the architecture it is for."""
    direction: str
    """``fwd`` or ``bwd``."""
    knobs: tuple[Knob, ...]
    defaults: tuple[DefaultRow, ...]
    defaults_from: str
    """Whose choice the defaults are, in a few words."""

    @cached_property
    def free_knobs(self) -> tuple[Knob, ...]:
        """The knobs that no rule of feasibility reads."""
        decisive = rule_knobs(load_arch(self.arch))
        return tuple(knob for knob in self.knobs if knob.name not in decisive)

    def knob(self, name: str) -> Knob:
        """The knob ``name``.

        Raises:
            UnknownName: the space has no such knob.
        """
        for knob in self.knobs:
            if knob.name == name:
                return knob
        raise UnknownName("knob", name, (knob.name for knob in self.knobs))

    @property
    def cardinality(self) -> int:
        """Combinations of all values, feasible or not."""
        return math.prod(len(knob.values) for knob in self.knobs)

    def default_row(self, signature: KernelSignature) -> DefaultRow:
        """The row of the table of defaults for ``signature``, with its reason.

        Raises:
            NoFeasibleKernel: the head dimensions are beyond the table.
        """
        matching = [row for row in self.defaults if row.matches(signature)]
        arch = load_arch(self.arch)
        for row in matching:
            if check(signature, row.config, arch):
                return row
        if matching:
            return matching[0]
        largest = max(self.defaults, key=lambda row: (row.head_dim_max, row.head_dim_v_max))
        raise NoFeasibleKernel(
            f"space {self.name}: got head_dim {signature.head_dim} and head_dim_v "
            f"{signature.head_dim_v}, allowed: up to {largest.head_dim_max} and "
            f"{largest.head_dim_v_max}; split the heads"
        )

    def default(self, signature: KernelSignature) -> KernelConfig:
        """The configuration to run without any tuning, and the anchor that gains refer to.

        It is the row of the table for the signature, with ``pack_gqa`` wherever that may run.

        Raises:
            NoFeasibleKernel: the head dimensions are beyond the table.
        """
        return _packed_if_feasible(signature, self.default_row(signature).config, self.arch)

    def contains(self, config: KernelConfig) -> bool:
        """Whether every knob of ``config`` has a value of this space, other knobs their default."""
        return all(getattr(config, name) in values for name, values in self._values.items())

    @cached_property
    def _values(self) -> dict[str, tuple[KnobValue, ...]]:
        """What each knob may be; outside of the space, its default."""
        default = {name: (getattr(KernelConfig(), name),) for name in KNOB_NAMES}
        return default | {knob.name: knob.values for knob in self.knobs}

    def configs(self, signature: KernelSignature, arch: Arch) -> Iterator[KernelConfig]:
        """Every feasible configuration once, in canonical form and in a fixed order."""
        free_choices = _distinct_free_choices(signature, self.free_knobs, arch)
        derived = derived_knobs(arch)
        for base in self.feasible_bases(signature, arch):
            for choice in free_choices:
                config = base.vary(choice)
                canonical = canonicalise(signature, config, arch)
                # Another base may leave a free knob without effect; then it is not canonical.
                if config.vary({name: getattr(canonical, name) for name in derived}) == canonical:
                    yield canonical

    def feasible_bases(self, signature: KernelSignature, arch: Arch) -> tuple[KernelConfig, ...]:
        """The feasible canonical configurations of the knobs that decide feasibility; on an arch
        of another family there are none.

        The other knobs are at the first value of their ranges. :meth:`configs` is the product of
        these and of the other knobs' values.
        """
        if arch.family != load_arch(self.arch).family:
            return ()
        return _feasible_bases(self, signature, arch)

    def neighbours(self, config: KernelConfig) -> Iterator[KernelConfig]:
        """Configurations one knob away: next values of ordered knobs, all others of the rest.

        They may be infeasible, and two may have one canonical form.
        """
        for knob in self.knobs:
            current = getattr(config, knob.name)
            for value in _nearby(knob, current):
                yield config.vary({knob.name: value})

    def sample(self, rng: random.Random, signature: KernelSignature, arch: Arch) -> KernelConfig:
        """A random feasible configuration in canonical form.

        Raises:
            NoFeasibleKernel: the space has none for this signature on this arch.
        """
        bases = self.feasible_bases(signature, arch)
        if not bases:
            raise NoFeasibleKernel(_why_none(self, signature, arch))
        free = {knob.name: rng.choice(knob.values) for knob in self.free_knobs}
        return canonicalise(signature, rng.choice(bases).vary(free), arch)


def _nearby(knob: Knob, current: KnobValue) -> tuple[KnobValue, ...]:
    """Values one step from ``current``; from outside the range, its nearest ends."""
    if not knob.ordered:
        return tuple(value for value in knob.values if value != current)
    below = [value for value in knob.values if _less(value, current)]
    above = [value for value in knob.values if _less(current, value)]
    return (*below[-1:], *above[:1])


def _less(left: KnobValue, right: KnobValue) -> bool:
    return float(left) < float(right)


def _distinct_free_choices(
    signature: KernelSignature, free: tuple[Knob, ...], arch: Arch
) -> list[dict[str, Any]]:
    """Values of the knobs that no rule reads, without those that come to the same kernel."""
    choices: dict[tuple[KnobValue, ...], None] = {}
    for combination in itertools.product(*(knob.values for knob in free)):
        values: dict[str, Any] = {k.name: v for k, v in zip(free, combination, strict=True)}
        canonical = canonicalise(signature, KernelConfig(**values), arch, derive=False)
        choices[tuple(getattr(canonical, knob.name) for knob in free)] = None
    names = [knob.name for knob in free]
    return [dict(zip(names, choice, strict=True)) for choice in choices]


@lru_cache(maxsize=1024)
def _packed_if_feasible(
    signature: KernelSignature, config: KernelConfig, arch_name: str
) -> KernelConfig:
    packed = config.vary({"pack_gqa": True})
    return packed if check(signature, packed, load_arch(arch_name)) else config


@lru_cache(maxsize=64)
def _feasible_bases(
    space: SearchSpace, signature: KernelSignature, arch: Arch
) -> tuple[KernelConfig, ...]:
    """Knob by knob, so that a rule refuses as soon as all the knobs it reads have their values."""
    derived = derived_knobs(arch)
    deciding = [k for k in space.knobs if k not in space.free_knobs and k.name not in derived]
    undecided = {knob.name for knob in space.knobs}
    waiting = list(rules(arch))
    partial = [KernelConfig().vary({knob.name: knob.values[0] for knob in space.knobs})]
    for knob in deciding:
        undecided.remove(knob.name)
        ready = [rule for rule in waiting if undecided.isdisjoint(rule.reads)]
        waiting = [rule for rule in waiting if rule not in ready]
        grown = (config.vary({knob.name: value}) for config in partial for value in knob.values)
        partial = [
            config for config in grown if not any(rule(signature, config, arch) for rule in ready)
        ]
    bases: dict[KernelConfig, None] = {}
    for config in partial:
        canonical = canonicalise(signature, config, arch)
        if any(getattr(canonical, k.name) != getattr(config, k.name) for k in deciding):
            continue  # the canonical form comes by under its own values
        if space.contains(canonical) and check(signature, canonical, arch):
            bases[canonical] = None
    return tuple(bases)


def _why_none(space: SearchSpace, signature: KernelSignature, arch: Arch) -> str:
    anchor = space.defaults[-1].config
    return (
        f"space {space.name} on {arch.name}: nothing is feasible; {check(signature, anchor, arch)}"
    )
