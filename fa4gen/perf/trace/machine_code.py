"""What ptxas made of a kernel: its machine instructions, as counts and, of some loops, in order."""

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


@dataclass(frozen=True, slots=True)
class Control:
    """What ptxas tells the scheduler with every machine instruction, since the SM checks nothing.

    Source: Jia et al., Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking, 2018,
    section 2.1; Huerta et al., Analyzing Modern NVIDIA GPU Cores, 2025.
    """

    stall: int
    """Cycles from it to the next instruction of its warp at least."""
    writes: int = -1
    """The scoreboard that is taken until its result is there; -1 for none."""
    reads: int = -1
    """The scoreboard that is taken until its operands are read; -1 for none."""
    waits: tuple[int, ...] = ()
    """Scoreboards that have to be free before it issues."""


@dataclass(frozen=True, slots=True)
class MachineInstruction:
    """One instruction of a loop, as ptxas put it."""

    opcode: str
    control: Control
    event: int = -1
    """Index of the PTX instruction that it stands for where others can see it: a wait, an arrival,
    a copy, a load or store of tensor memory. -1 for the rest."""


@dataclass(frozen=True, slots=True)
class MachineLoop:
    """A loop without branches but its own, in the order of ptxas."""

    start: int
    end: int
    """Its first and last instruction of the PTX, by index."""
    instructions: tuple[MachineInstruction, ...]


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
    loops: tuple[MachineLoop, ...] = ()
    """Those whose order is known."""

    def share(self, index: int) -> Share:
        """Of the instruction at ``index``."""
        return self.shares.get(index, UNKNOWN)
