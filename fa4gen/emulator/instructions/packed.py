"""f16 and bf16 arithmetic, one value or two in a register (PTX ISA 9.7.4), and with f32 (9.7.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import F32, RAW, Array, Function, floats, lanewise, sources, target
from fa4gen.emulator.registry import Op
from fa4gen.numerics import fast, half, minmax
from fa4gen.numerics.arrays import HalfName, Rounding
from fa4gen.numerics.formats import decode

TYPES = {"f16": 16, "f16x2": 32, "bf16": 16, "bf16x2": 32}
"""Types of this module, with the bits of their registers."""


def build(b: Builder, name: str, kind: str) -> Op:
    """The operation ``name`` of the opcode table's shared rows, for a 16-bit float type."""
    if name not in _FORMS:
        b.fail(f"got .{kind}, which {name} does not take")
    return _FORMS[name](b, name, kind)


def mixed(b: Builder, name: str, half_name: str) -> Op:
    """``add``, ``sub`` and ``fma`` of f32 with f16 or bf16 factors."""
    narrow = cast(HalfName, half_name)
    if name not in ("add", "sub", "fma"):
        b.fail(f"got .f32.{half_name}, which {name} does not take")
    default = "" if name == "fma" else "rn"
    rounding = cast(Rounding, b.mods.one_of("rn", "rz", "rm", "rp", default=default))
    sat = b.mods.flag("sat")
    if not rounding:
        b.fail("got no rounding modifier, allowed: .rn, .rz, .rm, .rp")
    d, *rest = b.expect(4 if name == "fma" else 3)
    factors = sources(b, tuple(rest[:-1]), 16)
    (addend,) = floats(b, (rest[-1],), 32)
    raw = RAW[32]

    def add(x: Array, z: Array) -> Array:
        combine = half.add_mixed if name == "add" else half.sub_mixed
        return combine(x, z.view(F32), narrow, rounding, sat).view(raw)

    def fma(x: Array, y: Array, z: Array) -> Array:
        return half.fma_mixed(x, y, z.view(F32), narrow, rounding, sat).view(raw)

    def fma_rn(x: Array, y: Array, z: Array) -> Array:
        factors = decode(x, narrow), decode(y, narrow)
        return fast.fma32_rn_short(*factors, z.getfield(F32)).getfield(raw)

    function: Function = fma if name == "fma" else add
    if (name, rounding, sat) == ("fma", "rn", False):
        function = fma_rn
    return lanewise(function, target(b, d, 32), (*factors, addend))


def emit(b: Builder, kind: str, count: int, function: Function) -> Op:
    """``function`` of the 16-bit codes of ``count`` sources."""
    d, *rest = b.expect(count + 1)
    width = TYPES[kind]
    slots = sources(b, tuple(rest), width)
    if not kind.endswith("x2"):
        return lanewise(function, target(b, d, 16), slots)
    return lanewise(function, target(b, d, 32), slots, RAW[16], RAW[32])


def element(kind: str) -> HalfName:
    """The format of the values in a register."""
    return cast(HalfName, kind.removesuffix("x2"))


def _flush(b: Builder, name: HalfName) -> bool:
    """``.ftz``, which bf16 does not have."""
    return name == "f16" and b.mods.flag("ftz")


def _sum_or_product(b: Builder, name: str, kind: str) -> Op:
    b.mods.ignore("rn")
    form = element(kind)
    ftz, sat = _flush(b, form), form == "f16" and b.mods.flag("sat")
    combine = {"add": half.add16, "sub": half.sub16, "mul": half.mul16}[name]
    return emit(b, kind, 2, lambda x, y: combine(x, y, form, ftz, sat))


def _fma(b: Builder, name: str, kind: str) -> Op:
    if not b.mods.flag("rn"):
        b.fail("got no rounding modifier, allowed: .rn")
    form = element(kind)
    ftz, relu = _flush(b, form), b.mods.flag("relu")
    sat = form == "f16" and not relu and b.mods.flag("sat")
    return emit(b, kind, 3, lambda x, y, z: half.fma16(x, y, z, form, ftz, sat, relu))


def _sign(b: Builder, name: str, kind: str) -> Op:
    change, form = half.neg16 if name == "neg" else half.abs16, element(kind)
    if _flush(b, form):
        return emit(b, kind, 1, lambda x: change(minmax.flush16(x), form))
    return emit(b, kind, 1, lambda x: change(x, form))


def _min_max(b: Builder, name: str, kind: str) -> Op:
    form = element(kind)
    ftz, nan = _flush(b, form), b.mods.flag("NaN")
    xorsign, magnitude = b.mods.flag("xorsign"), b.mods.flag("abs")
    if xorsign != magnitude:
        b.fail("got only one of .xorsign and .abs")
    operation = cast(Literal["min", "max"], name)
    if not xorsign:
        return emit(b, kind, 2, lambda x, y: minmax.minmax16(operation, x, y, form, nan, ftz))

    def function(x: Array, y: Array) -> Array:
        sizes = minmax.magnitude16(x), minmax.magnitude16(y)
        return minmax.xorsign16(minmax.minmax16(operation, *sizes, form, nan, ftz), x, y)

    return emit(b, kind, 2, function)


_FORMS: dict[str, Callable[[Builder, str, str], Op]] = {
    "add": _sum_or_product,
    "sub": _sum_or_product,
    "mul": _sum_or_product,
    "fma": _fma,
    "neg": _sign,
    "abs": _sign,
    "min": _min_max,
    "max": _min_max,
}
