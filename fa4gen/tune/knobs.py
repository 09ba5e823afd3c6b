"""Between configurations and Optuna parameters.

An ordered knob becomes an integer index over its fixed list of values, so that the sampler knows
that 112 lies between 96 and 128; a category or a flag becomes a categorical parameter. The lists
may not change within one study, so their identity is part of the study's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from fa4gen.core.canonical import identity
from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.space import Knob

INDEX_SUFFIX = "_index"
"""Marks a parameter that is a position in a knob's list, not a value."""


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _values(knob: Knob) -> list[Any]:
    return [_plain(value) for value in knob.values]


def _indexed(knob: Knob) -> bool:
    return knob.ordered and not isinstance(knob.values[0], bool)


class Knobs:
    """The knobs of one study, in order.

    Args:
        knobs: what is searched over.
        base: values of all other knobs.
    """

    def __init__(self, knobs: Sequence[Knob], base: KernelConfig | None = None) -> None:
        self.knobs = tuple(knobs)
        self.base = KernelConfig() if base is None else base
        self.distributions: dict[str, BaseDistribution] = {}
        for knob in self.knobs:
            values = _values(knob)
            if _indexed(knob):
                self.distributions[knob.name + INDEX_SUFFIX] = IntDistribution(0, len(values) - 1)
            else:
                self.distributions[knob.name] = CategoricalDistribution(values)

    @property
    def knobs_id(self) -> str:
        """Identity of the lists; a study is only continued under the same one."""
        return identity({knob.name: _values(knob) for knob in self.knobs})

    def config(self, params: Mapping[str, Any]) -> KernelConfig:
        """The configuration these parameters mean; the other knobs are those of the base."""
        return self.base.vary(self.values(params))

    def values(self, params: Mapping[str, Any]) -> dict[str, KnobValue]:
        """The knobs' values that these parameters mean."""
        return {
            knob.name: _values(knob)[params[knob.name + INDEX_SUFFIX]]
            if _indexed(knob)
            else params[knob.name]
            for knob in self.knobs
        }

    def params(self, config: KernelConfig) -> dict[str, Any] | None:
        """The parameters that mean ``config``; ``None`` where a value is not in its list.

        Other knobs must be those of the base.
        """
        plain = config.to_dict()
        params: dict[str, Any] = {}
        for knob in self.knobs:
            values, value = _values(knob), plain.pop(knob.name)
            if value not in values:
                return None
            if _indexed(knob):
                params[knob.name + INDEX_SUFFIX] = values.index(value)
            else:
                params[knob.name] = value
        base = self.base.to_dict()
        if any(value != base[name] for name, value in plain.items()):
            return None
        return params
