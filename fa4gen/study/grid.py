"""The combinations a study is about: distinct kernels, and every combination that cannot run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.errors import ConfigError
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Verdict
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Arch
from fa4gen.space import Knob, SearchSpace

ENUMERABLE = 50_000
"""Combinations up to which all are looked at; some 20 us each."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A combination that feasibility refuses, in canonical form."""

    config: KernelConfig
    verdict: Verdict


@dataclass(frozen=True)
class Grid:
    """All combinations of some knobs, the others as in the default."""

    signature: KernelSignature
    arch: Arch
    knobs: tuple[Knob, ...]
    default: KernelConfig
    configs: tuple[KernelConfig, ...]
    """Feasible ones, canonical and distinct, in the order of the knobs' values; empty when there
    are too many combinations to look at."""
    refused: tuple[Refused, ...]
    combinations: int

    @property
    def enumerated(self) -> bool:
        """Whether :attr:`configs` and :attr:`refused` are complete."""
        return self.combinations <= ENUMERABLE

    def make(self, values: dict[str, KnobValue]) -> KernelConfig:
        """The default with these values, in canonical form."""
        return canonicalise(self.signature, self.default.vary(values), self.arch)

    def verdict(self, config: KernelConfig) -> Verdict:
        """Whether a configuration may run."""
        return check(self.signature, config, self.arch)


def chosen_knobs(space: SearchSpace, names: Iterable[str]) -> tuple[Knob, ...]:
    """The knobs of these names.

    Raises:
        UnknownName: the space has no such knob.
        ConfigError: no name, or one given twice.
    """
    names = tuple(names)
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"knobs: got {', '.join(names) or 'none'}, allowed: one or more, each once, such as "
            "tile_n or tile_n,num_kv_stages"
        )
    return tuple(space.knob(name) for name in names)


def make_grid(
    signature: KernelSignature, arch: Arch, knobs: Sequence[Knob], default: KernelConfig
) -> Grid:
    """The grid of these knobs around a default."""
    combinations = math.prod(len(knob.values) for knob in knobs)
    grid = Grid(signature, arch, tuple(knobs), default, (), (), combinations)
    if not grid.enumerated:
        return grid
    configs: dict[str, KernelConfig] = {}
    refused: dict[str, Refused] = {}
    names = [knob.name for knob in knobs]
    for values in itertools.product(*(knob.values for knob in knobs)):
        config = grid.make(dict(zip(names, values, strict=True)))
        if config.config_id in configs or config.config_id in refused:
            continue
        if verdict := grid.verdict(config):
            configs[config.config_id] = config
        else:
            refused[config.config_id] = Refused(config, verdict)
    found = tuple(configs.values()), tuple(refused.values())
    return Grid(signature, arch, tuple(knobs), default, *found, combinations)
