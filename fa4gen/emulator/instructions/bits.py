"""Logic, shifts and bit fields (PTX ISA 9.7.8, 9.7.1.13 to 9.7.1.22)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import (
    RAW,
    SIGNED,
    Array,
    Function,
    lanewise,
    negatable,
    sources,
    store,
    target,
)
from fa4gen.emulator.instructions.integer import scalar
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.ptx.ir import Immediate, Pair

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_BITS = {"pred": 1, "b16": 16, "b32": 32, "b64": 64}
_BYTE, _WHOLE = np.array(0xFF, np.uint32), np.array(0xFFFFFFFF, np.uint32)
_ALL_ONES = 0xFFFFFFFF
_WORD = 32


def _width(b: Builder, *allowed: str) -> int:
    kind = b.mods.type()
    if kind not in (allowed or _BITS):
        b.fail(f"got the type .{kind or '(none)'}, allowed: {', '.join(allowed or _BITS)}")
    return _BITS[kind]


@instruction("and", "or", "xor", "not", pipe=Pipe.ALU, isa="9.7.8.1 to 9.7.8.4")
def logic(b: Builder) -> Op:
    """Bitwise, of predicates too."""
    name, width = b.inst.parts[0], _width(b)
    d, *rest = b.expect(2 if name == "not" else 3)
    function = {
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "not": np.invert,
    }[name]
    return lanewise(function, target(b, d, width), sources(b, tuple(rest), width))


@instruction("cnot", pipe=Pipe.ALU, isa="9.7.8.5")
def cnot(b: Builder) -> Op:
    """1 where the source is 0, else 0."""
    width = _width(b, "b16", "b32", "b64")
    d, x = b.expect(2)
    raw = RAW[width]
    return lanewise(lambda v: (v == 0).astype(raw), target(b, d, width), (b.src(x, width),))


@instruction("lop3", pipe=Pipe.ALU, isa="9.7.8.6")
def lop3(b: Builder) -> Op:
    """Any function of three bits, by its truth table; with ``.and`` or ``.or`` a predicate, too."""
    combine = b.mods.one_of("and", "or")
    _width(b, "b32")
    d, x, y, z, table, *rest = b.expect(6) if combine else b.expect(5)
    if not isinstance(table, Immediate) or not 0 <= table.value < 1 << 8:
        b.fail(f"got {table} as the truth table, allowed: a literal of 0 to 255")
    function = _truth_function(table.value)
    slots = sources(b, (x, y, z), 32)
    if not combine:
        return lanewise(function, target(b, d, 32), slots)
    first, second, third = slots
    if not isinstance(d, Pair):
        b.fail("got one result, wanted d|p")
    out, p, q = b.dst(d.first, 32), b.dst(d.second, 1), negatable(b, rest[0])
    join = np.logical_and if combine == "and" else np.logical_or

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(regs[first], regs[second], regs[third])
        flag = join(value != 0, q(warp))
        store(warp, out, value)
        store(warp, p, flag)

    return run


def _truth_function(table: int) -> Function:
    """The function whose value for bits ``x y z`` is bit ``4x + 2y + z`` of ``table``."""
    minterms = [at for at in range(8) if table >> at & 1]

    def function(x: Array, y: Array, z: Array) -> Array:
        result = np.zeros_like(x)
        for at in minterms:
            result |= (x if at & 4 else ~x) & (y if at & 2 else ~y) & (z if at & 1 else ~z)
        return result

    return function


@instruction("shl", "shr", pipe=Pipe.ALU, isa="9.7.8.8, 9.7.8.9")
def shift(b: Builder) -> Op:
    """Shift by an unsigned 32-bit amount; beyond the width it clears, or fills with the sign."""
    left, kind = b.inst.parts[0] == "shl", b.mods.type()
    d, x, amount = b.expect(3)
    bits = int(kind[1:]) if kind[1:] in ("16", "32", "64") else 0
    if kind[:1] not in ("b" if left else "bus") or not bits:
        b.fail(f"got the type .{kind or '(none)'}, allowed: b16, b32, b64 (shr: u and s, too)")
    slots = (b.src(x, bits), b.src(amount, 32))
    # NumPy's shifts give 0, or the sign, for amounts from the width on: just as PTX has it.
    function = np.left_shift if left else np.right_shift
    out = target(b, d, bits)
    if kind == "s32":
        return lanewise(function, out, slots, SIGNED[32], RAW[32])
    if kind[0] == "s":
        return lanewise(_signed_shift(bits), out, slots)
    if kind[1:] == "16":
        return lanewise(lambda v, n: function(v.astype(np.uint32), n).astype(np.uint16), out, slots)
    return lanewise(function, out, slots)


def _signed_shift(bits: int) -> Function:
    signed, raw = SIGNED[bits], RAW[bits]
    last = np.array(bits - 1, np.uint32)
    return lambda v, n: (v.view(signed) >> np.minimum(n, last).astype(signed)).view(raw)


@instruction("shf", pipe=Pipe.ALU, isa="9.7.8.7")
def funnel_shift(b: Builder) -> Op:
    """32 bits of the 64-bit value ``{b, a}``, shifted left (upper half) or right (lower half)."""
    side, mode = b.mods.one_of("l", "r"), b.mods.one_of("clamp", "wrap")
    _width(b, "b32")
    d, *rest = b.expect(4)
    if not side or not mode:
        b.fail("got no .l or .r, or no .clamp or .wrap")
    limit = np.array(32, np.uint32)
    half = np.array(32, np.uint64)

    def function(low: Array, high: Array, amount: Array) -> Array:
        n = np.minimum(amount, limit) if mode == "clamp" else amount & np.uint32(31)
        both = (high.astype(np.uint64) << half) | low
        shifted = (both << n) >> half if side == "l" else both >> n
        return shifted.astype(np.uint32)

    return lanewise(function, target(b, d, 32), sources(b, tuple(rest), 32))


@instruction("popc", "clz", "bfind", "brev", pipe=Pipe.ALU, isa="9.7.1.13 to 9.7.1.16")
def count(b: Builder) -> Op:
    """Ones, leading zeros, the first bit that is not the sign, or the bits in reverse."""
    name = b.inst.parts[0]
    shift_amount = name == "bfind" and b.mods.flag("shiftamt")
    kind = b.mods.type()
    allowed = ("u32", "u64", "s32", "s64") if name == "bfind" else ("b32", "b64")
    if kind not in allowed:
        b.fail(f"got the type .{kind or '(none)'}, allowed: {', '.join(allowed)}")
    bits = int(kind[1:])
    d, x = b.expect(2)
    slots = (b.src(x, bits),)
    if name == "brev":
        return lanewise(_reverse, target(b, d, bits), slots)
    functions: dict[str, Function] = {
        "popc": lambda v: np.bitwise_count(v).astype(np.uint32),
        "clz": lambda v: np.uint32(bits) - _bit_length(v),
        "bfind": partial(_first_bit, signed=kind[0] == "s", shift_amount=shift_amount),
    }
    return lanewise(functions[name], target(b, d, 32), slots)


def _first_bit(v: Array, signed: bool, shift_amount: bool) -> Array:
    bits = v.dtype.itemsize * 8
    if signed:
        v = np.where(v.view(SIGNED[bits]) < 0, ~v, v)
    length = _bit_length(v)
    found = np.uint32(bits) - length if shift_amount else length - np.uint32(1)
    return np.where(length == 0, np.uint32(_ALL_ONES), found)


def _bit_length(v: Array) -> Array:
    if v.dtype == RAW[_WORD]:
        return np.frexp(v.astype(np.float64))[1].astype(np.uint32)
    high, low = (v >> np.uint64(32)).astype(np.uint32), v.astype(np.uint32)
    return np.where(high != 0, _bit_length(high) + np.uint32(32), _bit_length(low))


_REVERSED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)


def _reverse(v: Array) -> Array:
    return _REVERSED[v.view(np.uint8)].view(v.dtype).byteswap()


@instruction("bfe", "bfi", pipe=Pipe.ALU, isa="9.7.1.17, 9.7.1.18")
def bit_field(b: Builder) -> Op:
    """Extract a field of bits, or insert one.

    Position and length go up to 255, says the ISA. Of larger ones the 32-bit forms take the lowest
    byte, and those of 64 bits, which ptxas makes of shifts that clamp, the whole number: SASS of
    ptxas 13.0 for sm_90a, and an H200 (2026-11-21).
    """
    insert = b.inst.parts[0] == "bfi"
    kind = b.mods.type()
    bits = _BITS.get(kind, 0) if insert else scalar(b, kind, "u32", "s32", "u64", "s64")
    if bits not in (32, 64):
        b.fail(f"got the type .{kind or '(none)'}, allowed: b32, b64")
    d, *rest = b.expect(5 if insert else 4)
    out, position, length = target(b, d, bits), b.src(rest[-2], 32), b.src(rest[-1], 32)
    values = sources(b, tuple(rest[:-2]), bits)
    signed, raw = kind[0] == "s", RAW[bits]
    amount = _BYTE if bits == _WORD else _WHOLE

    def run(warp: Warp) -> None:
        regs = warp.regs
        start, size = regs[position] & amount, regs[length] & amount
        field = regs[values[0]]
        if insert:
            mask = _low_mask(size, bits) << start
            value = (regs[values[1]] & ~mask) | ((field << start) & mask)
        else:
            mask = _low_mask(np.minimum(size, np.maximum(bits, start) - start), bits)
            value = (field >> start) & mask
            if signed:
                # Both may be any number, whose sum need not fit.
                size = np.minimum(size, np.uint32(bits))
                first = np.minimum(start, np.uint32(bits - 1))
                last = np.minimum(first + np.maximum(size, 1) - 1, np.uint32(bits - 1))
                negative = ((field >> last) & raw.type(1)).astype(bool) & (size != 0)
                value = np.where(negative, value | ~mask, value)
        store(warp, out, value)

    return run


def _low_mask(size: Array, bits: int) -> Array:
    """As many ones as ``size`` says, from bit 0."""
    ones = np.full(size.shape, -1, SIGNED[bits]).view(RAW[bits])
    return ~(ones << np.minimum(size, np.uint32(bits)))


@instruction("fns", pipe=Pipe.ALU, isa="9.7.1.20")
def find_nth_set(b: Builder) -> Op:
    """The position of the n-th one of ``mask`` from ``base`` on, upward or downward."""
    _width(b, "b32")
    d, *rest = b.expect(4)

    def function(mask: Array, base: Array, offset: Array) -> Array:
        lanes = zip(mask.tolist(), base.tolist(), offset.view(np.int32).tolist(), strict=True)
        return np.array([_nth(*lane) & _ALL_ONES for lane in lanes], np.uint32)

    return lanewise(function, target(b, d, 32), sources(b, tuple(rest), 32))


def _nth(mask: int, base: int, offset: int) -> int:
    if offset == 0:
        return base if mask >> base & 1 else -1
    way = range(base, 32) if offset > 0 else range(min(base, 31), -1, -1)
    ones = [at for at in way if mask >> at & 1]
    return ones[abs(offset) - 1] if abs(offset) <= len(ones) else -1


@instruction("bmsk", "szext", pipe=Pipe.ALU, isa="9.7.1.21, 9.7.1.22")
def masks(b: Builder) -> Op:
    """``bmsk``: ``b`` ones from bit ``a`` on; ``szext``: ``a`` extended from its low ``b`` bits."""
    make, clamp = b.inst.parts[0] == "bmsk", b.mods.one_of("clamp", "wrap")
    kind = b.mods.type()
    if not clamp or kind not in (("b32",) if make else ("u32", "s32")):
        b.fail("got no .clamp or .wrap, or a type that is not b32 (bmsk), u32 or s32 (szext)")
    d, *rest = b.expect(3)
    limit = np.uint32(31)

    def amount(v: Array) -> Array:
        return np.minimum(v, np.uint32(32)) if clamp == "clamp" else v & limit

    def mask(start: Array, size: Array) -> Array:
        return _low_mask(amount(size), 32) << amount(start)

    def extend(value: Array, size: Array) -> Array:
        n = amount(size)
        ones = _low_mask(n, 32)
        if kind == "u32":
            return value & ones
        negative = ((value >> (np.maximum(n, 1) - np.uint32(1))) & 1).astype(bool) & (n != 0)
        return np.where(negative, value | ~ones, value & ones)

    return lanewise(mask if make else extend, target(b, d, 32), sources(b, tuple(rest), 32))
