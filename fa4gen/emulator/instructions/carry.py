"""Integer arithmetic of more than 64 bits: the carry of one instruction goes into the next.

The flag belongs to a thread; it lives in ``warp.state["carry"]``. Source: PTX ISA 9.7.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import Array, sources, target
from fa4gen.emulator.instructions.integer import product, scalar
from fa4gen.emulator.registry import Op, Pipe, instruction

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_STATE = "carry"
_TYPES = ("u32", "s32", "u64", "s64")


def _flag(warp: Warp) -> npt.NDArray[np.bool_]:
    flag: npt.NDArray[np.bool_] | None = warp.state.get(_STATE)
    if flag is None:
        raise warp.fault("carry flag: read before an instruction with .cc has set it")
    return flag


def _finish(warp: Warp, d: int, value: Array, carry: Array | None) -> None:
    """Write the result, and the flag of the active lanes if it is to be set."""
    warp.write(d, value)
    if carry is not None:
        old = warp.state.get(_STATE)
        if warp.mask is not None:
            carry = np.where(warp.mask, carry, False if old is None else old)
        warp.state[_STATE] = carry


def _add(x: Array, y: Array, carry: Array | None) -> tuple[Array, Array]:
    total = x + y
    out = total < x
    if carry is not None:
        total = total + carry
        out |= (total == 0) & carry
    return total, out


def _subtract(x: Array, y: Array, borrow: Array | None) -> tuple[Array, Array]:
    difference, out = x - y, x < y
    if borrow is not None:
        out = out | ((difference == 0) & borrow)
        difference = difference - borrow
    return difference, out


@instruction("add.cc", "addc", "sub.cc", "subc", pipe=Pipe.ALU, isa="9.7.2.1 to 9.7.2.4")
def add_sub(b: Builder) -> Op:
    """Sum or difference, with the flag as carry or borrow."""
    name = b.inst.parts[0]
    reads, sets = name in ("addc", "subc"), name in ("add", "sub") or b.mods.flag("cc")
    bits = scalar(b, b.mods.type(), *_TYPES)
    d, *rest = b.expect(3)
    slot, (x, y) = target(b, d, bits), sources(b, tuple(rest), bits)
    compute = _add if name.startswith("add") else _subtract

    def run(warp: Warp) -> None:
        value, carry = compute(warp.regs[x], warp.regs[y], _flag(warp) if reads else None)
        _finish(warp, slot, value, carry if sets else None)

    return run


@instruction("mad.lo.cc", "mad.hi.cc", "madc", pipe=Pipe.ALU, isa="9.7.2.5, 9.7.2.6")
def mad(b: Builder) -> Op:
    """Lower or upper half of a product plus ``c``, with the flag as carry."""
    name, *rest = b.inst.parts
    reads = name == "madc"
    mode = b.mods.one_of("lo", "hi") if reads else rest[0]
    sets = b.mods.flag("cc") or not reads
    kind = b.mods.type()
    bits = scalar(b, kind, *_TYPES)
    if not mode:
        b.fail("got no .lo or .hi")
    d, *operands = b.expect(4)
    slot, (x, y, z) = target(b, d, bits), sources(b, tuple(operands), bits)
    multiply = product(mode, kind)

    def run(warp: Warp) -> None:
        regs = warp.regs
        part = multiply(regs[x], regs[y])
        value, carry = _add(part, regs[z], _flag(warp) if reads else None)
        _finish(warp, slot, value, carry if sets else None)

    return run
