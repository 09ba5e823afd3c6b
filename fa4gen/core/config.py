"""Which knobs: one kernel configuration, stored by knob name with all values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
    DYNAMIC = "dynamic"
    """One CTA per SM, each taking the next tile from a counter in global memory when it is done
    with one, longest tiles first."""
    CLC = "clc"
    """One tile per CTA as launched; running CTAs take over tiles of CTAs that have not started
    (cluster launch control, Blackwell)."""


class Exp2Placement(StrEnum):
    """Which columns of a row take the polynomial instead of the MUFU."""

    FRONT = "front"
    """The first columns of the tile."""
    BACK = "back"
    """The last columns of the tile."""
    SPREAD = "spread"
    """Evenly interleaved with the MUFU columns."""


class MmaOrder(StrEnum):
    """In which order one KV block's products of two Q tiles are issued."""

    ALTERNATE = "alternate"
    """PV and the next QK of one Q tile, then of the other."""
    GROUPED = "grouped"
    """PV of both Q tiles, then the next QK of both."""


def _knob(
    default: Any, low: float | None = None, high: float | None = None, step: float = 1
) -> Any:
    """A dataclass field whose legal values are ``low, low + step, ..., high``."""
    return field(default=default, metadata={"low": low, "high": high, "step": step})


def _later(
    default: Any, low: float | None = None, high: float | None = None, step: float = 1
) -> Any:
    """As :func:`_knob`, for a knob that older configurations lack; it means "as before" there.

    At its default it is no part of :attr:`KernelConfig.config_id`, so that old ids stay.
    """
    return field(default=default, metadata={"low": low, "high": high, "step": step, "later": True})


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
    exp2_poly_fraction: float = _knob(0.0, 0.0, 1.0, 0.03125)
    """Share of the exponentials evaluated by polynomial on the FMA pipe; the rest use the MUFU."""
    exp2_poly_placement: Exp2Placement = _knob(Exp2Placement.SPREAD)
    """Which columns of a row the polynomial takes; no effect at fraction 0."""
    exp2_poly_degree: int = _knob(3, 1, 5)
    """Degree of the polynomial; no effect at fraction 0."""
    rescale_threshold_log2: float = _knob(0.0, 0.0, 64.0, 1.0)
    """Growth of the row maximum, in log2 units, below which O is not rescaled; 0 is always."""
    pack_gqa: bool = _knob(False)
    """Put the query heads of one KV head side by side in the rows of a tile."""
    num_q_stages: int = _later(2, 1, 2)
    """Q tiles of ``tile_m`` rows that a CTA works on at the same time (Blackwell)."""
    cta_group: int = _later(1, 1, 2)
    """CTAs that one MMA spans; two share every block of K and V between them (Blackwell)."""
    o_aliases_q: bool = _later(False)
    """Let O leave through the shared memory of Q, which makes room for K and V (Blackwell)."""
    exp2_poly_frequency: int = _later(16, 4, 32, 2)
    """Columns from one burst of polynomials to the next (Blackwell)."""
    exp2_poly_start: int = _later(1, 0, 3)
    """The first fragment of 32 columns in which there are polynomials (Blackwell)."""
    exp2_poly_last: bool = _later(False)
    """Whether the last fragment may have polynomials: nothing hides their latency there."""
    rescale_branch: bool = _later(True)
    """Branch around O where no factor is below 1; otherwise multiply by 1 (Blackwell)."""
    p_publish_columns: int = _later(96, 32, 128, 32)
    """Columns of P after which PV may start on what is there (Blackwell)."""
    correction_columns: int = _later(16, 8, 64, 8)
    """Columns of O that a correction thread holds at a time (Blackwell)."""
    softmax_handover: bool = _later(False)
    """Let the two softmax warpgroups take turns at their exponentials (Blackwell)."""
    mma_order: MmaOrder = _later(MmaOrder.ALTERNATE)
    """In which order the products of two Q tiles are issued (Blackwell)."""
    l2_section_mb: int = _later(50, 8, 128, 2)
    """MiB of K and V that tiles in flight should share in the L2 (Blackwell)."""
    fused_row_max: bool = _later(False)
    """Take the row maximum while S is loaded from tensor memory (sm_103a)."""
    regs_softmax: int = _later(192, 24, 256, 8)
    """Registers per thread of a softmax warpgroup, set by ``setmaxnreg`` (Blackwell)."""
    regs_correction: int = _later(88, 24, 256, 8)
    """Registers per thread of the correction warpgroup, set by ``setmaxnreg`` (Blackwell)."""
    regs_other: int = _later(40, 24, 256, 8)
    """Registers per thread of the load, MMA and store warps, set by ``setmaxnreg`` (Blackwell)."""
    q_prefetch: bool = _later(False)
    """Load Q of a CTA's next tile while it works on this one (Hopper)."""
    lazy_row_max: bool = _later(False)
    """Test whether any row outgrew the threshold, and find the rows' maxima only then (Hopper)."""
    num_splits: int = _later(1, 1, 32)
    """CTAs that share the keys of a query tile; a second kernel combines their results (Hopper)."""
    p_buffers: int = _later(1, 1, 2)
    """Register buffers that P of successive blocks takes in turns: with two of them P is converted
    while the PV before still reads the other. No effect without ``p_in_registers`` and
    ``intra_warpgroup_overlap`` (Hopper)."""

    def __post_init__(self) -> None:
        for name in KNOB_NAMES:
            value = getattr(self, name)
            if not _has_been_seen(name, value):
                object.__setattr__(self, name, _checked(name, value))

    @cached_property
    def config_id(self) -> str:
        """Identity of the configuration: hash of the canonical JSON of :meth:`to_record`."""
        return identity(self.to_record())

    def to_dict(self) -> dict[str, KnobValue]:
        """Every knob by name, as plain values."""
        values = ((name, getattr(self, name)) for name in KNOB_NAMES)
        return {k: v.value if isinstance(v, StrEnum) else v for k, v in values}

    def to_record(self) -> dict[str, KnobValue]:
        """As :meth:`to_dict`, without knobs that are newer than the first release and at their
        default: records and their identities stay as they are when a knob is added.
        """
        return {
            name: value
            for name, value in self.to_dict().items()
            if name not in _LATER_DEFAULTS or value != _LATER_DEFAULTS[name]
        }

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

    def vary(self, changes: Mapping[str, KnobValue]) -> Self:
        """The configuration with these knobs changed: ``dataclasses.replace``, ten times as fast.

        Raises:
            UnknownName: a knob that does not exist.
            ConfigError: an illegal value.
        """
        values = {name: self.__dict__[name] for name in KNOB_NAMES}
        for name, value in changes.items():
            if name not in values:
                raise UnknownName("knob", name, KNOB_NAMES)
            values[name] = value if _has_been_seen(name, value) else _checked(name, value)
        varied = object.__new__(type(self))
        varied.__dict__.update(values)
        return varied

    def differences(self, other: KernelConfig) -> dict[str, tuple[KnobValue, KnobValue]]:
        """Knobs whose values differ: name -> (mine, theirs)."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


_FIELDS = {knob.name: knob for knob in fields(KernelConfig)}
KNOB_NAMES: tuple[str, ...] = tuple(_FIELDS)
"""Names of all knobs, in the order of their definition."""
_SEEN: set[tuple[str, type, KnobValue]] = set()
"""Legal values of the right type that have come by."""
_LATER_DEFAULTS = {
    name: knob.default for name, knob in _FIELDS.items() if knob.metadata.get("later")
}


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
            return _seen(name, kind(value))
        except ValueError:
            raise ConfigError(f"{name}: got {value!r}, allowed: {', '.join(kind)}") from None
    if isinstance(default, bool):
        if type(value) is not bool:
            raise ConfigError(f"{name}: got {value!r}, allowed: true or false")
        return _seen(name, value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    low, high, step = (knob.metadata[key] for key in ("low", "high", "step"))
    in_range = type(value) is type(default) and low <= value <= high
    if not in_range or (value - low) % step:
        raise ConfigError(
            f"{name}: got {value!r}, allowed: {type(default).__name__} from {low} to {high} "
            f"in steps of {step}"
        )
    return _seen(name, value)


def _has_been_seen(name: str, value: Any) -> bool:
    """Whether a value is known to be legal: searches make configurations by the 100,000."""
    try:
        return (name, type(value), value) in _SEEN
    except TypeError:  # a list or the like, which is legal nowhere
        return False


def _seen(name: str, value: Any) -> Any:
    """Remember a legal value; there are few of them."""
    _SEEN.add((name, type(value), value))
    return value
