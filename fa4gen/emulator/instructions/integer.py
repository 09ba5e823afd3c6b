"""Integer arithmetic (PTX ISA 9.7.1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import (
    RAW,
    SIGNED,
    Array,
    DType,
    Function,
    lanewise,
    sources,
    target,
)
from fa4gen.emulator.registry import Op, Pipe, instruction

TYPES = {
    **{f"{sign}{bits}": bits for sign in "us" for bits in (16, 32, 64)},
    **{"u16x2": 32, "s16x2": 32},
}
"""Types of integer arithmetic, with the bits of their registers."""

_MODES = ("lo", "hi", "wide")
_LOW32, _SHIFT32 = np.array(0xFFFFFFFF, np.uint64), np.array(32, np.uint64)
_WIDE = {16: (np.uint32, np.int32), 32: (np.uint64, np.int64)}
_BITS24, _SHIFT40 = np.array(0xFFFFFF, np.uint64), np.array(40, np.uint64)


def build(b: Builder, name: str, kind: str) -> Op:
    """The operation ``name`` of the opcode table's shared rows, for an integer type."""
    if name not in _FORMS:
        b.fail(f"got .{kind}, which {name} does not take")
    return _FORMS[name](b, kind)


def element(kind: str) -> DType:
    """What a register is seen as to compute with its type."""
    bits = int(kind[1:].removesuffix("x2"))
    return SIGNED[bits] if kind[0] == "s" else RAW[bits]


def scalar(b: Builder, kind: str, *allowed: str) -> int:
    """Bits of ``kind``, which must be one of ``allowed``, by default anything not packed."""
    if kind not in (allowed or [name for name in TYPES if not name.endswith("x2")]):
        b.fail(f"got the type .{kind or '(none)'}, allowed: {', '.join(allowed) or 'u16 to s64'}")
    return TYPES[kind]


def _elementwise(b: Builder, function: Function, kind: str, wrapping: bool = False) -> Op:
    """``function`` of all sources; ``wrapping`` if it is the same for signed and unsigned."""
    count = b.inst.operands
    width = TYPES[kind]
    view = element(kind)
    if wrapping and view.itemsize * 8 == width:
        return lanewise(function, target(b, count[0], width), sources(b, count[1:], width))
    slots = sources(b, count[1:], width)
    return lanewise(function, target(b, count[0], width), slots, view, RAW[width])


def _add_sub(b: Builder, kind: str) -> Op:
    subtract = b.inst.parts[0] == "sub"
    b.expect(3)
    if subtract:
        scalar(b, kind)
    if b.mods.flag("sat"):
        scalar(b, kind, "s32")
        sign = -1 if subtract else 1
        return _elementwise(b, lambda x, y: _clip32(x + sign * y.astype(np.int64)), kind)
    return _elementwise(b, np.subtract if subtract else np.add, kind, wrapping=True)


def _clip32(x: Array) -> Array:
    limits = np.iinfo(np.int32)
    return np.clip(x, limits.min, limits.max).astype(np.int32)


def _mul(b: Builder, kind: str) -> Op:
    bits, mode = scalar(b, kind), b.mods.one_of(*_MODES)
    d, x, y = b.expect(3)
    out = _result_bits(b, bits, mode)
    return lanewise(product(mode, kind), target(b, d, out), sources(b, (x, y), bits))


def _mad(b: Builder, kind: str) -> Op:
    bits, mode = scalar(b, kind), b.mods.one_of(*_MODES)
    d, x, y, z = b.expect(4)
    out = _result_bits(b, bits, mode)
    slots = (*sources(b, (x, y), bits), b.src(z, out))
    multiply = product(mode, kind)
    if b.mods.flag("sat"):
        scalar(b, kind, "s32")
        if mode != "hi":
            b.fail("got .sat without .hi")
        return lanewise(_saturating_mad(multiply), target(b, d, out), slots)
    if mode == "lo":
        return lanewise(_mad_lo, target(b, d, out), slots)
    return lanewise(lambda x, y, z: multiply(x, y) + z, target(b, d, out), slots)


def _mad_lo(x: Array, y: Array, z: Array) -> Array:
    return x * y + z


def _saturating_mad(multiply: Function) -> Function:
    def function(x: Array, y: Array, z: Array) -> Array:
        total = multiply(x, y).view(np.int32).astype(np.int64) + z.view(np.int32)
        return _clip32(total).view(np.uint32)

    return function


def _result_bits(b: Builder, bits: int, mode: str) -> int:
    if not mode:
        b.fail("got no .lo, .hi or .wide")
    if mode != "wide":
        return bits
    if bits not in _WIDE:
        b.fail("got .wide of a 64-bit type")
    return 2 * bits


def product(mode: str, kind: str) -> Function:
    """``mul.lo``, ``.hi`` or ``.wide`` of raw registers."""
    if mode == "lo":
        return np.multiply
    bits = TYPES[kind]
    if bits not in _WIDE:
        return _high64_signed if kind[0] == "s" else _high64
    view, wide, raw = element(kind), np.dtype(_WIDE[bits][kind[0] == "s"]), RAW[2 * bits]

    def whole(x: Array, y: Array) -> Array:
        return (x.view(view).astype(wide) * y.view(view).astype(wide)).view(raw)

    if mode == "wide":
        return whole
    shift = np.array(bits, RAW[2 * bits])
    return lambda x, y: (whole(x, y) >> shift).astype(RAW[bits])


def _high64(x: Array, y: Array) -> Array:
    x_low, x_high, y_low, y_high = x & _LOW32, x >> _SHIFT32, y & _LOW32, y >> _SHIFT32
    middle = x_high * y_low + ((x_low * y_low) >> _SHIFT32)
    other = x_low * y_high + (middle & _LOW32)
    return x_high * y_high + (middle >> _SHIFT32) + (other >> _SHIFT32)


def _high64_signed(x: Array, y: Array) -> Array:
    sign_x, sign_y = x.view(np.int64) >> np.int64(63), y.view(np.int64) >> np.int64(63)
    return _high64(x, y) - (sign_x.view(np.uint64) & y) - (sign_y.view(np.uint64) & x)


def _div(b: Builder, kind: str) -> Op:
    scalar(b, kind)
    b.expect(3)
    remainder = b.inst.parts[0] == "rem"

    def function(x: Array, y: Array) -> Array:
        by_zero = y == 0
        divisor = np.where(by_zero, y.dtype.type(1), y)
        rest = np.fmod(x, divisor)
        result = rest if remainder else (x - rest) // divisor
        return np.where(by_zero, ~np.zeros_like(x), result)

    return _elementwise(b, function, kind)


def _neg(b: Builder, kind: str) -> Op:
    scalar(b, kind, "s16", "s32", "s64")
    b.expect(2)
    return _elementwise(b, np.negative, kind, wrapping=True)


def _abs(b: Builder, kind: str) -> Op:
    scalar(b, kind, "s16", "s32", "s64")
    b.expect(2)
    return _elementwise(b, np.abs, kind)


def _min_max(b: Builder, kind: str) -> Op:
    b.expect(3)
    choose = np.minimum if b.inst.parts[0] == "min" else np.maximum
    if not b.mods.flag("relu"):
        return _elementwise(b, choose, kind)
    if kind not in ("s32", "s16x2"):
        b.fail(f"got .relu of .{kind}, allowed: s32, s16x2")
    zero = np.zeros((), element(kind))
    return _elementwise(b, lambda x, y: np.maximum(choose(x, y), zero), kind)


_FORMS: dict[str, Callable[[Builder, str], Op]] = {
    "add": _add_sub,
    "sub": _add_sub,
    "mul": _mul,
    "mad": _mad,
    "div": _div,
    "neg": _neg,
    "abs": _abs,
    "min": _min_max,
    "max": _min_max,
}


@instruction("rem", pipe=Pipe.ALU, isa="9.7.1.9")
def rem(b: Builder) -> Op:
    """Remainder. The ISA leaves a division by zero open; the result is all ones, as of ``div``.

    That is what the code gives which ptxas 13.0 makes of 32-bit divisions.
    """
    return _div(b, b.mods.type())


@instruction("sad", pipe=Pipe.ALU, isa="9.7.1.7")
def sad(b: Builder) -> Op:
    """``c`` plus the absolute difference of ``a`` and ``b``."""
    kind = b.mods.type()
    scalar(b, kind)
    b.expect(4)
    return _elementwise(b, lambda x, y, z: np.where(x < y, y - x, x - y) + z, kind)


@instruction("mul24", "mad24", pipe=Pipe.ALU, isa="9.7.1.5, 9.7.1.6")
def multiply24(b: Builder) -> Op:
    """Product of 24-bit integers, 48 bits: its lower or its upper 32 bits."""
    mode, kind = b.mods.one_of("lo", "hi"), b.mods.type()
    scalar(b, kind, "u32", "s32")
    if not mode:
        b.fail("got no .lo or .hi")
    shift = np.array(16 if mode == "hi" else 0, np.uint64)

    def whole(x: Array, y: Array) -> Array:
        x, y = x.astype(np.uint64), y.astype(np.uint64)
        if kind == "s32":
            x, y = ((v << _SHIFT40).view(np.int64) >> np.int64(40) for v in (x, y))
        else:
            x, y = x & _BITS24, y & _BITS24
        return ((x * y).view(np.uint64) >> shift).astype(np.uint32)

    if b.inst.parts[0] == "mul24":
        d, *rest = b.expect(3)
        return lanewise(whole, target(b, d, 32), sources(b, tuple(rest), 32))
    d, *rest = b.expect(4)
    slots = sources(b, tuple(rest), 32)
    if b.mods.flag("sat"):
        scalar(b, kind, "s32")
        return lanewise(_saturating_mad(whole), target(b, d, 32), slots)
    return lanewise(lambda x, y, z: whole(x, y) + z, target(b, d, 32), slots)


@instruction("dp4a", "dp2a", pipe=Pipe.ALU, isa="9.7.1.23, 9.7.1.24")
def dot_product(b: Builder) -> Op:
    """Sum of products of bytes, or of two 16-bit values and two bytes, added to ``c``."""
    pairs = b.inst.parts[0] == "dp2a"
    half = b.mods.one_of("lo", "hi") if pairs else "lo"
    kinds = (b.mods.type(), b.mods.type())
    d, *rest = b.expect(4)
    if not half or any(kind not in ("u32", "s32") for kind in kinds):
        b.fail("got no .lo or .hi, or types that are not u32 or s32")
    size = 16 if pairs else 8
    views = [(SIGNED if k == "s32" else RAW)[n] for k, n in zip(kinds, (size, 8), strict=True)]
    first = slice(2, 4) if half == "hi" else slice(0, 2 if pairs else 4)

    def function(x: Array, y: Array, z: Array) -> Array:
        mine = x.view(views[0]).reshape(len(x), -1).astype(np.int64)
        theirs = y.view(views[1]).reshape(len(y), 4)[:, first].astype(np.int64)
        return (mine * theirs).sum(axis=1).astype(np.uint32) + z

    return lanewise(function, target(b, d, 32), sources(b, tuple(rest), 32))
