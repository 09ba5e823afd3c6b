"""What the selector answers: a configuration, the rung it came from, and what was passed over."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fa4gen.core.config import KernelConfig
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem

if TYPE_CHECKING:
    from fa4gen.db import DispatchRow


class Rung(StrEnum):
    """How near the evidence behind a selection is to the problem."""

    EXACT = "exact"
    """A row of this very problem on this SKU."""
    BUCKET = "bucket"
    """The nearest row of the same kernel signature on this SKU."""
    SIBLING = "sibling"
    """As exact or bucket, from another SKU of the same arch."""
    MODEL = "model"
    """No row: the best candidate under the cycle model, or the hand-written default."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that was looked at and not taken."""

    rung: Rung
    candidate: str
    """What it is, for a reader: problem, SKU, source and configuration."""
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The configuration to run for a problem, and why that one."""

    problem: AttentionProblem
    config: KernelConfig
    rung: Rung
    source: Source
    """What stands behind the choice; a modelled row never passes for a measured one."""
    row: DispatchRow | None = None
    """The row of the table; ``None`` on the rung ``model``."""
    distance_log2: float = 0.0
    """From the row's problem to this one; 0 for the same shape."""
    rejected: tuple[Rejected, ...] = ()
    """Nearer or better-founded candidates that were refused, in the order they were tried."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the choice, e.g. that the row is of an older template."""

    @property
    def summary(self) -> str:
        """One line: rung, source, configuration."""
        near = f" at distance {self.distance_log2:.2f}" if self.distance_log2 else ""
        sku = f" of {self.row.sku}" if self.row is not None and self.rung is Rung.SIBLING else ""
        what = "the cycle model" if self.row is None else f"a {self.source.value} row{sku}{near}"
        return f"{self.rung.value}: {what}, config {self.config.config_id}"
