"""Which knobs: one kernel configuration, stored by knob name with all values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from fa4gen.core.canonical import identity
from fa4gen.core.errors import ConfigError, UnknownName

KnobValue = bool | int | float | str


class Scheduler(StrEnum):
    """How query tiles are handed to CTAs."""

    LPT = "lpt"
    """One tile per CTA, longest tiles launched first (longest processing time first)."""
    PERSISTENT = "persistent"
    """One CTA per SM, each walking the tiles with a fixed stride."""


class Exp2Placement(StrEnum):
    """Which columns of a row take the polynomial instead of the MUFU."""

    FRONT = "front"
    """The first columns of the tile."""
    BACK = "back"
    """The last columns of the tile."""
    SPREAD = "spread"
    """Evenly interleaved with the MUFU columns."""


def _knob(
    default: Any, low: float | None = None, high: float | None = None, step: float = 1
) -> Any:
    """A dataclass field whose legal values are ``low, low + step, ..., high``."""
    return field(default=default, metadata={"low": low, "high": high, "step": step})


@dataclass(frozen=True)
class KernelConfig:
    """The knobs of a forward kernel; every template reads a subset.

    The ranges here are what the *type* allows; a search space narrows them, and ``feasibility``
    says which combinations fit a problem and an arch. A knob added later gets a default that
    means "as before", so that stored configurations keep their meaning.

    Raises:
        ConfigError: a value of the wrong type, or outside its range.
    """

    tile_m: int = _knob(128, 64, 256, 64)
    """Query rows of one CTA's tile; on Hopper 64 for each consumer warpgroup."""
    tile_n: int = _knob(128, 16, 256, 16)
    """Key columns of one KV block."""
    num_kv_stages: int = _knob(2, 1, 32)
    """Slots of the K ring and of the V ring in shared memory; each slot holds one block."""
    p_in_registers: bool = _knob(True)
    """Feed P to the PV product from registers; otherwise through shared memory."""
    intra_warpgroup_overlap: bool = _knob(True)
    """Issue QK of the next block before the softmax of this one."""
    pingpong: bool = _knob(True)
    """Make consumer warpgroups take turns, so that one's softmax hides under another's MMA."""
    regs_producer: int = _knob(24, 24, 256, 8)
    """Registers per thread of the TMA producer warpgroup, set by ``setmaxnreg``."""
    regs_consumer: int = _knob(240, 24, 256, 8)
    """Registers per thread of each consumer warpgroup, set by ``setmaxnreg``."""
    scheduler: Scheduler = _knob(Scheduler.LPT)
    """How query tiles are handed to CTAs."""
    exp2_poly_fraction: float = _knob(0.0, 0.0, 1.0, 0.0625)
    """Share of the exponentials evaluated by polynomial on the FMA pipe; the rest use the MUFU."""
    exp2_poly_placement: Exp2Placement = _knob(Exp2Placement.SPREAD)
    """Which columns of a row the polynomial takes; no effect at fraction 0."""
    exp2_poly_degree: int = _knob(3, 2, 5)
    """Degree of the polynomial; no effect at fraction 0."""
    rescale_threshold_log2: float = _knob(0.0, 0.0, 8.0, 1.0)
    """Growth of the row maximum, in log2 units, below which O is not rescaled; 0 is always."""
    pack_gqa: bool = _knob(False)
    """Put the query heads of one KV head side by side in the rows of a tile."""

    def __post_init__(self) -> None:
        for knob in fields(self):
            object.__setattr__(self, knob.name, _checked(knob.name, getattr(self, knob.name)))

    @cached_property
    def config_id(self) -> str:
        """Identity of the configuration: hash of its canonical JSON."""
        return identity(self.to_dict())

    def to_dict(self) -> dict[str, KnobValue]:
        """Every knob by name, as plain values."""
        return {k: v.value if isinstance(v, StrEnum) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration with these knobs; knobs left out take their defaults.

        Raises:
            UnknownName: a knob that does not exist.
            ConfigError: an illegal value.
        """
        for name in values:
            if name not in KNOB_NAMES:
                raise UnknownName("knob", name, KNOB_NAMES)
        return cls(**values)

    def differences(self, other: KernelConfig) -> dict[str, tuple[KnobValue, KnobValue]]:
        """Knobs whose values differ: name -> (mine, theirs)."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


_FIELDS = {knob.name: knob for knob in fields(KernelConfig)}
KNOB_NAMES: tuple[str, ...] = tuple(_FIELDS)
"""Names of all knobs, in the order of their definition."""


def _checked(name: str, value: Any) -> Any:
    """``value`` as the type of knob ``name``.

    Raises:
        ConfigError: wrong type, or outside the range.
    """
    knob = _FIELDS[name]
    default = knob.default
    if isinstance(default, StrEnum):
        kind = type(default)
        try:
            return kind(value)
        except ValueError:
            raise ConfigError(f"{name}: got {value!r}, allowed: {', '.join(kind)}") from None
    if isinstance(default, bool):
        if type(value) is not bool:
            raise ConfigError(f"{name}: got {value!r}, allowed: true or false")
        return value
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    low, high, step = (knob.metadata[key] for key in ("low", "high", "step"))
    in_range = type(value) is type(default) and low <= value <= high
    if not in_range or (value - low) % step:
        raise ConfigError(
            f"{name}: got {value!r}, allowed: {type(default).__name__} from {low} to {high} "
            f"in steps of {step}"
        )
    return value
