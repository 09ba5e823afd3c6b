"""Moves and selections: ``mov``, ``selp``, ``slct``, ``prmt``.

Source: PTX ISA 9.1, sections 9.7.9.4, 9.7.9.5, 9.7.9.7, 9.7.6.3, 9.7.6.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import (
    F32,
    RAW,
    Array,
    Function,
    floats,
    lanewise,
    negatable,
    sources,
    store,
    target,
)
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.ptx.ir import Immediate, Operand, Sink, Special, Vector

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_BITS = {
    "pred": 1,
    **{f"{kind}{bits}": bits for kind in "bus" for bits in (16, 32, 64)},
    **{"f32": 32, "f64": 64, "b128": 128},
}
_PARTS = {(16, 8): 2, (32, 16): 2, (32, 8): 4, (64, 32): 2, (64, 16): 4, (128, 64): 2, (128, 32): 4}
"""How many parts of so many bits a register of so many bits has."""
_LANES = 32
_WIDEST = 64
_ALL, _NONE = b"\x01" * _LANES, b"\x00" * _LANES
"""The bytes of predicates that agree, as most do: tiles are masked as a whole or not at all."""
_PAIR = 2

_CLOCKS = ("%clock", "%clock_hi", "%clock64", "%globaltimer", "%globaltimer_lo", "%globaltimer_hi")
"""Special registers that change while a warp runs."""


@instruction("mov", pipe=Pipe.ALU, isa="9.7.9.4, 9.7.9.5")
def mov(b: Builder) -> Op:
    """Copy a register, literal, special register or address; or pack and unpack."""
    kind = b.mods.type()
    if kind not in _BITS:
        b.fail(f"got the type .{kind or '(none)'}, allowed: {', '.join(_BITS)}")
    bits = _BITS[kind]
    d, source = b.expect(2)
    if isinstance(d, Vector):
        return _unpack(b, d, source, bits)
    if isinstance(source, Vector):
        return _pack(b, d, source, bits)
    if isinstance(source, Special) and source.name in _CLOCKS:
        return _clock(b, d, source.name, bits)
    if isinstance(source, Immediate) and kind in ("f32", "f64"):
        (slot,) = floats(b, (source,), bits)
    else:
        slot = b.src(source, bits)
    out = target(b, d, bits)

    def run(warp: Warp) -> None:
        # Registers may share an array, or the stand-in for one that is still to come.
        regs = warp.regs
        if warp.mask is None:
            regs[out] = regs[slot]
        else:
            warp.write(out, regs[slot])

    return run


def _clock(b: Builder, d: Operand, name: str, bits: int) -> Op:
    """Time: warp instructions that the cluster has executed when the warp's turn began."""
    out, raw = target(b, d, bits), RAW[bits]
    shift = 32 if name.endswith("_hi") else 0

    def run(warp: Warp) -> None:
        now = warp.cta.cluster.now >> shift
        warp.write(out, np.full(_LANES, now & ((1 << bits) - 1), raw))

    return run


def _count(b: Builder, vector: Vector, bits: int) -> int:
    """Bits of each part of a vector."""
    count = len(vector.items)
    part = bits // count
    if _PARTS.get((bits, part)) != count:
        b.fail(f"got {count} parts of a register of {bits} bits")
    return part


def _pack(b: Builder, d: Operand, source: Vector, bits: int) -> Op:
    part, out = _count(b, source, bits), target(b, d, bits)
    slots = sources(b, source.items, part)
    b.packs(slots)
    if bits > _WIDEST:
        view = RAW[part]
        return _many(out, slots, lambda parts: np.stack(parts, axis=1).view(RAW[_WIDEST]), view)
    raw, view = RAW[bits], RAW[part]
    if len(slots) != _PAIR:
        return _many(out, slots, lambda parts: np.stack(parts, axis=1).view(raw)[:, 0], view)
    low, high = slots
    offset = part // 8

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = regs[low].astype(raw)
        value.setfield(regs[high], view, offset)
        if warp.mask is None:
            regs[out] = value
        else:
            warp.write(out, value)

    return run


def _many(out: int, slots: tuple[int, ...], join: Function, view: np.dtype[np.generic]) -> Op:
    def run(warp: Warp) -> None:
        regs = warp.regs
        warp.write(out, join([regs[slot].view(view) for slot in slots]))

    return run


def _unpack(b: Builder, d: Vector, source: Operand, bits: int) -> Op:
    part = _count(b, d, bits)
    slot = b.src(source, bits)
    outs = [b.dst(item, part) for item in d.items]
    view = RAW[part]
    wanted = [(at, out) for at, out in enumerate(outs) if out >= 0]
    if not wanted:
        b.fail("got _ for every result")
    if any(isinstance(item, Sink) for item in d.items) or len(outs) != _PAIR or bits > _WIDEST:
        return _unpack_some(slot, wanted, view, len(outs))
    low, high = outs
    offset = part // 8

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = regs[slot]
        first, second = value.astype(view), value.getfield(view, offset).copy()
        if warp.mask is None:
            regs[low], regs[high] = first, second
        else:
            warp.write(low, first)
            warp.write(high, second)

    return run


def _unpack_some(
    slot: int, wanted: list[tuple[int, int]], view: np.dtype[np.generic], count: int
) -> Op:
    size = view.itemsize

    def run(warp: Warp) -> None:
        value = warp.regs[slot]
        for at, out in wanted:
            store(warp, out, value.getfield(view, at * size).copy())

    def run_wide(warp: Warp) -> None:
        value = warp.regs[slot]
        for at, out in wanted:
            store(warp, out, value[:, at].copy())

    return run_wide if count * size > RAW[_WIDEST].itemsize else run


@instruction("selp", pipe=Pipe.ALU, isa="9.7.6.3")
def selp(b: Builder) -> Op:
    """``a`` where the predicate holds, else ``b``."""
    bits = _selectable(b)
    d, x, y, p = b.expect(4)
    read = floats if b.inst.parts[-1] in ("f32", "f64") else sources
    out, (yes, no), chosen = target(b, d, bits), read(b, (x, y), bits), negatable(b, p)

    def run(warp: Warp) -> None:
        regs = warp.regs
        choice = chosen(warp)
        lanes = choice.tobytes()
        if lanes == _ALL:
            value = regs[yes]
        elif lanes == _NONE:
            value = regs[no]
        else:
            value = np.where(choice, regs[yes], regs[no])
        if warp.mask is None:
            regs[out] = value
        else:
            warp.write(out, value)

    return run


@instruction("slct", pipe=Pipe.ALU, isa="9.7.6.4")
def slct(b: Builder) -> Op:
    """``a`` where ``c`` is at least 0, else ``b``; a NaN is not."""
    flushed = b.mods.flag("ftz")
    bits = _selectable(b)
    by = b.mods.one_of("s32", "f32")
    if not by or (flushed and by == "s32"):
        b.fail("got a selector that is not .s32 or .f32, or .ftz of .s32")
    d, x, y, z = b.expect(4)
    slots = (*sources(b, (x, y), bits), *(floats if by == "f32" else sources)(b, (z,), 32))
    # A subnormal below 0 is flushed to -0, which is at least 0.
    least = -np.finfo(F32).smallest_normal if flushed else F32.type(0)

    def function(first: Array, second: Array, selector: Array) -> Array:
        if by == "s32":
            chosen = selector.view(np.int32) >= 0
        else:
            value = selector.view(F32)
            chosen = (value > least) | (value == 0)
        return np.where(chosen, first, second)

    return lanewise(function, target(b, d, bits), slots)


def _selectable(b: Builder) -> int:
    kind = b.mods.type()
    bits = _BITS.get(kind, 0)
    if bits not in RAW or bits < RAW[16].itemsize * 8:
        b.fail(f"got the type .{kind or '(none)'}, allowed: b16 to f64")
    return bits


_MODES = {
    "f4e": ((3, 2, 1, 0), (4, 3, 2, 1), (5, 4, 3, 2), (6, 5, 4, 3)),
    "b4e": ((5, 6, 7, 0), (6, 7, 0, 1), (7, 0, 1, 2), (0, 1, 2, 3)),
    "rc8": ((0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)),
    "ecl": ((3, 2, 1, 0), (3, 2, 1, 1), (3, 2, 2, 2), (3, 3, 3, 3)),
    "ecr": ((0, 0, 0, 0), (1, 1, 1, 0), (2, 2, 1, 0), (3, 2, 1, 0)),
    "rc16": ((1, 0, 1, 0), (3, 2, 3, 2), (1, 0, 1, 0), (3, 2, 3, 2)),
}
"""Which bytes of ``{b, a}`` the result is made of, highest first, by the low bits of ``c``."""


@instruction("prmt", pipe=Pipe.ALU, isa="9.7.9.7")
def prmt(b: Builder) -> Op:
    """Any four bytes of two registers, or their signs."""
    if b.mods.one_of("b32") != "b32":
        b.fail("got no .b32")
    mode = b.mods.one_of(*_MODES)
    d, *rest = b.expect(4)
    nibbles = np.array([0, 4, 8, 12], np.uint32)
    table = np.array(_MODES[mode], np.intp)[:, ::-1] if mode else None

    def function(x: Array, y: Array, selector: Array) -> Array:
        both = np.stack([x, y], axis=1).view(np.uint8)
        if table is not None:
            return _bytes(both, table[selector & np.uint32(3)])
        choice = selector[:, None] >> nibbles
        picked = np.take_along_axis(both, (choice & 7).astype(np.intp), axis=1)
        sign = (picked.view(np.int8) >> np.int8(7)).view(np.uint8)
        return np.where(choice & 8, sign, picked).view(np.uint32)[:, 0]

    return lanewise(function, target(b, d, 32), sources(b, tuple(rest), 32))


def _bytes(both: Array, index: Array) -> Array:
    return np.take_along_axis(both, index, axis=1).view(np.uint32)[:, 0]
