"""The answer to "may this configuration run?": yes, or every reason why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that refuses a configuration."""

    rule: str
    """Short name of the rule, e.g. ``smem``."""
    message: str
    """Subject, got, allowed with the arithmetic, remedy."""
    excess: float
    """How far over the limit, relative to it; above 0. A search uses it as a constraint value."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Truthy when nothing objects; otherwise it carries all reasons, not only the first."""

    reasons: tuple[Reason, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the configuration may run."""
        return not self.reasons

    def __bool__(self) -> bool:
        return self.ok

    @classmethod
    def of(cls, reasons: Iterable[Reason | None]) -> Verdict:
        """The verdict of these rules; a rule that has no objection gives ``None``."""
        return cls(tuple(reason for reason in reasons if reason is not None))

    def __str__(self) -> str:
        if self.ok:
            return "feasible"
        return "; ".join(f"{reason.rule}: {reason.message}" for reason in self.reasons)
