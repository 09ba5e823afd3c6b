"""``cvt`` to tf32 and of packed types, and ``cvt.pack`` (PTX ISA 9.7.9.21, 9.7.9.22)."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.conversion import NARROW, Request, emit
from fa4gen.emulator.elementwise import F32, RAW, Array, lanewise
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.numerics import fast, narrow
from fa4gen.numerics.arrays import HalfName
from fa4gen.numerics.formats import decode
from fa4gen.numerics.narrow import NarrowName

_PACKED = ("u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2")
_WIDEST = 16
"""Bits of the packed integers that fill a register."""


def tf32(b: Builder, request: Request) -> Op:
    request.allow("rounding", "relu", "satfinite")
    request.round_by(*(("rn", "rz") if request.relu else ("rna", "rn", "rz")))
    rounding = cast(Literal["rna", "rn", "rz"], request.rounding)
    b.expect(2)
    relu, satfinite = request.relu, request.satfinite
    return emit(b, request, lambda x: narrow.to_tf32(x.view(F32), rounding, relu, satfinite))


def pair_from_f32(b: Builder, request: Request) -> Op:
    """Two f32 to f16x2 or bf16x2; the first source goes to the upper half."""
    request.allow("rounding", "relu", "satfinite")
    request.round_by("rn", "rz")
    b.expect(3)
    form = cast(HalfName, request.to.removesuffix("x2"))
    rounding, relu, satfinite = request.rounding, request.relu, request.satfinite
    if rounding == "rn" and not relu and not satfinite:
        return emit(b, request, lambda x, y: fast.half_pair(x.getfield(F32), y.getfield(F32), form))

    def function(x: Array, y: Array) -> Array:
        upper, lower = (
            narrow.to_half(v.view(F32), form, rounding, relu, satfinite) for v in (x, y)
        )
        return narrow.pack_halves(upper, lower)

    return emit(b, request, function)


def narrow_pair(b: Builder, request: Request) -> Op:
    """Two values of 8, 6 or 4 bits; the first source, or the upper half of one, goes on top."""
    request.allow("rounding", "relu", "satfinite")
    request.round_by("rn")
    if not request.satfinite:
        request.refuse("got no .satfinite")
    name, relu = cast(NarrowName, request.to.removesuffix("x2")), request.relu
    raw = RAW[NARROW[request.to]]

    def from_f32(x: Array, y: Array) -> Array:
        pair = narrow.to_narrow_x2(x.view(F32), y.view(F32), name, relu)
        return np.ascontiguousarray(pair).astype(raw)

    if request.of == "f32":
        b.expect(3)
        return emit(b, request, from_f32)
    b.expect(2)
    return emit(b, request, lambda x: from_f32(*_halves(x, "f16")))


def _halves(x: Array, form: str) -> tuple[Array, Array]:
    """The upper and the lower value of an f16x2 or bf16x2, as f32."""
    values = decode(x.view(np.uint16), form).reshape(-1, 2)
    return values[:, 1].copy(), values[:, 0].copy()


def pair_from_narrow(b: Builder, request: Request) -> Op:
    request.allow("rounding", "relu")
    request.round_by("rn")
    b.expect(2)
    name, relu = cast(NarrowName, request.of.removesuffix("x2")), request.relu
    return emit(
        b, request, lambda x: narrow.from_narrow_x2(x.astype(np.uint16, copy=False), name, relu)
    )


def scales(b: Builder, request: Request) -> Op:
    """Two powers of two."""
    request.allow("rounding", "satfinite")
    request.round_by("rz", "rp")
    rounding = cast(Literal["rz", "rp"], request.rounding)
    satfinite = request.satfinite

    def from_f32(x: Array, y: Array) -> Array:
        upper, lower = (narrow.to_ue8m0(v.view(F32), rounding, satfinite) for v in (x, y))
        return upper.astype(np.uint16) << np.uint16(8) | lower

    if request.of == "f32":
        b.expect(3)
        return emit(b, request, from_f32)
    b.expect(2)
    return emit(b, request, lambda x: from_f32(*_halves(x, "bf16")))


def pair_from_scales(b: Builder, request: Request) -> Op:
    request.allow("rounding")
    request.round_by("rn")
    b.expect(2)
    return emit(b, request, lambda x: narrow.ue8m0_to_bf16(x.view(np.uint8)).view(RAW[32]))


@instruction("cvt.pack", pipe=Pipe.CONVERT, isa="9.7.9.22")
def pack(b: Builder) -> Op:
    """Two 32-bit integers, saturated and packed; above them the low bits of the third source."""
    if not b.mods.flag("sat"):
        b.fail("got no .sat")
    kind, of = b.mods.one_of(*_PACKED), b.mods.one_of("s32")
    if not kind or not of:
        b.fail(f"got types that are not known, allowed: .s32 to {', '.join(_PACKED)}")
    bits = int(kind[1:])
    joined = b.mods.flag("b32")
    if joined == (bits == _WIDEST):
        b.fail(f"got a third source of .{kind}, or none")
    d, *operands = b.expect(4 if joined else 3)
    low = -(1 << (bits - 1)) if kind[0] == "s" else 0
    high = (1 << (bits - (kind[0] == "s"))) - 1
    mask, shift, above = np.uint32((1 << bits) - 1), np.uint32(bits), np.uint32(2 * bits)

    def clamp(x: Array) -> Array:
        return np.clip(x.view(np.int32), low, high).view(np.uint32) & mask

    def function(x: Array, y: Array, *z: Array) -> Array:
        both = clamp(x) << shift | clamp(y)
        return z[0] << above | both if z else both

    slots = tuple(b.src(operand, 32) for operand in operands)
    return lanewise(function, b.dst(d, 32), slots)
