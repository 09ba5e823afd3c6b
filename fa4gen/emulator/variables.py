"""Variables that the PTX declares in local, global and constant memory.

Source: PTX ISA 9.1, sections 5.1.5 (local), 5.4.4 (initialisers; without one, zero), 7.1 and
9.7.12.5 (the parameters of a call are per thread, like local memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.memory import LOCAL_WINDOW, Block
from fa4gen.ptx.ir import Entry, Variable

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Grid
    from fa4gen.emulator.warp import Warp

LANES = 32
_GRAIN = 64
"""Bytes that a thread's local memory is a multiple of: more than any access."""
_POISON = 0xA5


class LocalMemory(Block):
    """The local memory of the threads of one warp.

    A local address is the same in every thread and means other bytes in each, so the bytes of lane
    ``i`` lie at ``i * stride``.

    Attributes:
        size: Bytes of one thread.
        written: For each byte, whether anything has written it.
    """

    def __init__(self, warp: Warp) -> None:
        self.size = local_layout(warp.program.entry)[1]
        self.stride = -(-self.size // _GRAIN) * _GRAIN
        data = np.full(LANES * self.stride, _POISON, np.uint8)
        super().__init__(LOCAL_WINDOW, data, f"local memory of warp {warp.index}")
        self.written = np.zeros(len(data), bool)


def local_memory(warp: Warp) -> LocalMemory:
    """The local memory of a warp, made when it is first used."""
    memory = warp.state.get("local memory")
    if not isinstance(memory, LocalMemory):
        memory = warp.state["local memory"] = LocalMemory(warp)
    return memory


def local_layout(entry: Entry) -> tuple[dict[str, int], int]:
    """Offsets of a thread's local variables and call parameters, and the bytes of them all."""
    offsets, at = {}, 0
    for variable in entry.variables:
        if variable.space in {"local", "param"}:
            at = -(-at // variable.align) * variable.align
            offsets[variable.name] = at
            at += variable.size
    return offsets, at


def grid_variable(grid: Grid, name: str) -> Block:
    """The memory of a ``.global`` or ``.const`` variable in this launch, made when first asked for.

    It lies at an address of this process, so global memory's own look-up finds it.

    Raises:
        UnsupportedInstruction: it is ``.extern``, that is in another module.
    """
    block = grid.variables.get(name)
    if block is None:
        program = grid.program
        declared = (*program.entry.variables, *program.module.variables)
        block = _allocate(next(v for v in declared if v.name == name))
        grid.variables[name] = block
        grid.memory.add(block)
    return block


def _allocate(variable: Variable) -> Block:
    if variable.is_extern:
        raise UnsupportedInstruction(
            f"variable {variable.name}: got .extern .{variable.space}, which another module "
            "defines; a kernel is emulated with its own module only"
        )
    room = np.zeros(variable.size + variable.align, np.uint8)
    start = -int(room.__array_interface__["data"][0]) % variable.align
    data = room[start : start + variable.size]
    if variable.initial:
        data[:] = np.frombuffer(variable.initial, np.uint8)
    base = int(data.__array_interface__["data"][0])
    name = f"variable {variable.name}"
    return Block(base, data, name, writable=variable.space == "global")
