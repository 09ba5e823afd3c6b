"""What ptxas made of a kernel: how many machine instructions stand for one of its PTX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Share:
    """Of one PTX instruction, the mean over those of its class in the same loop."""

    slots: float = 1.0
    """Machine instructions, so issue slots."""
    work: float = 1.0
    """By how much its pipe has more, or less, to do."""


UNKNOWN = Share()
"""As if ptxas had made one machine instruction of each of its own."""


@dataclass(frozen=True)
class MachineCode:
    """What is known of the machine code of a kernel."""

    note: str
    """For people: where the counts come from."""
    shares: Mapping[int, Share] = field(default_factory=dict)
    """By index of the instruction, where it is in a loop that was found again."""
    stall: float = 0.0
    """Cycles from one instruction of a warp to its next at least, as ptxas set them: mean over the
    loops with exponentials, or 0 where there is none."""

    def share(self, index: int) -> Share:
        """Of the instruction at ``index``."""
        return self.shares.get(index, UNKNOWN)
