"""What the emulator has to say against a kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fa4gen.ptx.ir import Instruction


class FindingKind(StrEnum):
    """What is wrong."""

    RACE = "race"
    """Two accesses of the same bytes, one a write, with nothing that orders them."""
    NOT_COMPLETED = "not_completed"
    """A copy's or an MMA's destination or source touched before its completion was observed."""
    PROXY = "proxy"
    """Ordinary writes read by a copy engine or a tensor core without a proxy fence in between."""
    UNINITIALISED = "uninitialised"
    """Memory read that nothing has written."""
    OUT_OF_BOUNDS = "out_of_bounds"
    MISALIGNED = "misaligned"
    BARRIER = "barrier"
    """A barrier used against its rules: counts, phases, lifetimes."""
    CONVERGENCE = "convergence"
    """An instruction that needs a whole warp, executed by a part of it."""
    RESOURCE = "resource"
    """Tensor memory, registers or groups not given back, or taken wrongly."""
    FAULT = "fault"
    """Anything else that hardware would trap on or leave undefined; the run ended there."""
    DEADLOCK = "deadlock"
    DIVERGED = "diverged"
    """Outputs that depend on when asynchronous work completes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which warp did what."""

    cta: int
    """Linear index of the CTA in the grid."""
    warp: int
    """Index of the warp in its CTA."""
    instruction: Instruction

    def __str__(self) -> str:
        origin = self.instruction.origin
        where = f", inline assembly at line {origin.first_line}" if origin else ""
        return (
            f"CTA {self.cta} warp {self.warp}, PTX line {self.instruction.line}{where}: "
            f"{self.instruction.opcode}"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with where it happened first."""

    kind: FindingKind
    message: str
    place: Place | None = None
    other: Place | None = None
    """The access it collided with."""

    def __str__(self) -> str:
        lines = [f"{self.kind.value}: {self.message}"]
        if self.place:
            lines.append(f"  at {self.place}")
        if self.other:
            lines.append(f"  with {self.other}")
        return "\n".join(lines)


@dataclass(slots=True)
class FindingLog:
    """Findings of one run; the same pair of instructions is reported once and counted."""

    limit: int = 100
    """Different findings kept; later ones are only counted."""
    findings: list[Finding] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    dropped: int = 0
    _seen: dict[tuple[object, ...], int] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Keep ``finding``, or count it if one like it is here."""
        key = (
            finding.kind,
            finding.place and finding.place.instruction.index,
            finding.other and finding.other.instruction.index,
            finding.message if finding.place is None else "",
        )
        at = self._seen.get(key)
        if at is not None:
            self.counts[at] += 1
        elif len(self.findings) < self.limit:
            self._seen[key] = len(self.findings)
            self.findings.append(finding)
            self.counts.append(1)
        else:
            self.dropped += 1
