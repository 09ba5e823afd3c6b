"""Which instructions of a kernel ran, and which of the opcode table a kernel uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fa4gen.emulator.emulate import Emulation
from fa4gen.emulator.registry import Pipe
from fa4gen.ptx.ir import Instruction


@dataclass(frozen=True, slots=True)
class OpcodeUse:
    """One opcode of a kernel."""

    opcode: str
    pipe: Pipe
    isa: str
    """Section of the PTX ISA."""
    written: int
    """Instructions in the text."""
    reached: int
    """Of those, how many ran at least once."""
    executed: int
    """Warp instructions over all warps."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one or several runs of one kernel reached."""

    opcodes: tuple[OpcodeUse, ...]
    """By executions, most first."""
    missed: tuple[Instruction, ...]
    """Instructions that never ran, in order."""
    instructions: int

    @property
    def fraction(self) -> float:
        """Share of the instructions that ran."""
        return 1.0 - len(self.missed) / max(self.instructions, 1)

    def missed_lines(self) -> list[tuple[int, int]]:
        """PTX lines of runs of instructions that never ran: (first, last)."""
        spans: list[list[Instruction]] = []
        for inst in self.missed:
            if spans and inst.index == spans[-1][-1].index + 1:
                spans[-1].append(inst)
            else:
                spans.append([inst])
        return [(span[0].line, span[-1].line) for span in spans]


def coverage(runs: Sequence[Emulation]) -> Coverage:
    """What ``runs``, all of one kernel, reached together.

    Raises:
        ValueError: no runs, or of different kernels.
    """
    programs = {id(run.program) for run in runs}
    if len(programs) != 1:
        raise ValueError(f"coverage: got runs of {len(programs)} kernels, allowed: 1")
    program = runs[0].program
    counts = np.sum([run.warp_counts.sum(axis=0) for run in runs], axis=0)
    code = program.entry.instructions
    uses: dict[str, list[int]] = {}
    for inst, count in zip(code, counts.tolist(), strict=True):
        use = uses.setdefault(inst.opcode, [inst.index, 0, 0, 0])
        use[1] += 1
        use[2] += count > 0
        use[3] += count
    opcodes = [
        OpcodeUse(opcode, program.specs[at].pipe, program.specs[at].isa, written, reached, executed)
        for opcode, (at, written, reached, executed) in uses.items()
    ]
    missed = tuple(i for i, count in zip(code, counts.tolist(), strict=True) if not count)
    opcodes.sort(key=lambda use: -use.executed)
    return Coverage(tuple(opcodes), missed, len(code))
