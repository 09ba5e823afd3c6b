"""Stores: ``st`` in every state space.

Source: PTX ISA 9.1, sections 9.7.9.11 (st), 9.4.1 (a wider register gives its low bits).
"""

from __future__ import annotations

import numpy as np

from fa4gen.emulator.access import (
    MEMORY_BITS,
    take_hints,
    take_order,
    take_space,
    take_vector,
    without_policy,
)
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.spaces import write
from fa4gen.emulator.warp import Warp
from fa4gen.ptx.ir import Operand, Register

_WORD, _WIDE = 64, 128

_SPACES = (
    *("global", "local", "param", "param::func"),
    *("shared", "shared::cta", "shared::cluster"),
)


@instruction("st", pipe=Pipe.LSU, isa="9.7.9.11")
def st(b: Builder) -> Op:
    """Store registers or literals to memory."""
    order = take_order(b, "weak", "relaxed", "release", "volatile")
    space = take_space(b, *_SPACES)
    hinted = take_hints(b)
    count = take_vector(b)
    kind = b.mods.type()
    if kind not in MEMORY_BITS:
        b.fail(f"got the type {kind or 'none'}, known: {', '.join(MEMORY_BITS)}")
    target, source = without_policy(b, hinted, 2)
    items = b.items(source)
    if len(items) != count:
        b.fail(f"got {len(items)} sources for {count} elements")
    address, bits = b.address(target), MEMORY_BITS[kind]
    if bits > _WORD:
        slot = wide_source(b, items[0])

        def run_wide(warp: Warp) -> None:
            write(warp, space, address(warp), _WORD, warp.regs[slot].T, order)

        return run_wide
    readers = [b.reader(item, bits) for item in items]
    if count == 1:
        one = readers[0]

        def run_one(warp: Warp) -> None:
            write(warp, space, address(warp), bits, one(warp)[None], order)

        return run_one

    def run(warp: Warp) -> None:
        values = np.stack([value(warp) for value in readers])
        write(warp, space, address(warp), bits, values, order)

    return run


def wide_source(b: Builder, operand: Operand) -> int:
    """The slot of a ``.b128`` register, the only operand there is of that type."""
    if not isinstance(operand, Register):
        b.fail(f"got {operand} as a source of {_WIDE} bits")
    return b.src(operand, _WIDE)
