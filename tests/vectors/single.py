"""One warp that executes a few instructions on registers that a test fills and reads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import UNSIGNED, WIDTHS
from fa4gen.emulator.decode import Program, decode
from fa4gen.emulator.findings import FindingLog
from fa4gen.emulator.machine import Cluster, Grid, GridShape
from fa4gen.emulator.memory import PARAM_WINDOW, Block, GlobalMemory
from fa4gen.emulator.policy import Policy
from fa4gen.emulator.warp import Warp
from fa4gen.ptx import parse
from fa4gen.ptx.ir import Module

Lanes = npt.NDArray[np.generic]

_HEADER = ".version 8.8\n.target sm_100a\n.address_size 64\n"


def module(bodies: Iterable[tuple[str, dict[str, str]]]) -> Module:
    """A module with kernels ``k0``, ``k1``... of instructions and registers (name to type)."""
    entries = []
    for number, (body, registers) in enumerate(bodies):
        declared = "\n".join(f".reg .{kind} {name};" for name, kind in registers.items())
        entries.append(f".visible .entry k{number}()\n{{\n{declared}\n{body}\nret;\n}}\n")
    return parse(_HEADER + "".join(entries))


class Single:
    """A decoded kernel and the warp that runs it.

    Attributes:
        slots: Of the registers that its instructions name.
    """

    def __init__(self, program: Program) -> None:
        grid = Grid(
            program=program,
            shape=GridShape((1, 1, 1), (32, 1, 1)),
            memory=GlobalMemory([]),
            params=Block(PARAM_WINDOW, np.zeros(16, np.uint8), "kernel parameters", False),
            policy=Policy.parse("eager"),
            log=FindingLog(),
        )
        self.warp: Warp = Cluster(grid, (0, 0, 0)).warps[0]
        self.slots = {register.name: register.slot for register in program.entry.registers}

    @classmethod
    def of(cls, body: str, registers: dict[str, str]) -> Single:
        """The kernel of a few lines."""
        return cls(decode(module([(body, registers)])))

    def __setitem__(self, name: str, value: object) -> None:
        self.warp.regs[self.slots[name]] = value

    def __getitem__(self, name: str) -> Lanes:
        value: Lanes = self.warp.regs[self.slots[name]]
        return value

    def run(self) -> None:
        """Execute to the end, from the first instruction."""
        self.warp.pc, self.warp.done = 0, False
        with np.errstate(all="ignore"):
            for op in self.warp.program.ops[:-1]:
                op(self.warp)
                self.warp.pc += 1


def lanes(values: list[int], kind: str) -> Lanes:
    """A register of ``kind`` with these 32 values."""
    if kind == "b128":
        pairs = [(v & (1 << 64) - 1, v >> 64) for v in values]
        return np.array(pairs, np.uint64)
    return np.array(values, np.uint64).astype(UNSIGNED[WIDTHS[kind]])


def integers(value: Lanes) -> list[int]:
    """The 32 values of a register."""
    if value.ndim == 2:
        return [int(low) | int(high) << 64 for low, high in value]
    return [int(v) for v in value]
