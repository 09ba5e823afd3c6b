"""f32, f32x2 and f64 arithmetic (PTX ISA 9.7.3), and the rows it shares with other types."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import (
    F32,
    F64,
    RAW,
    Array,
    Function,
    floats,
    lanewise,
    sources,
    target,
)
from fa4gen.emulator.instructions import integer, packed
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.numerics import approx, double, fast, ieee, minmax
from fa4gen.numerics.arrays import Rounding
from fa4gen.ptx.ir import Operand

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

TYPES = {"f32": 32, "f64": 64, "f32x2": 64}
"""Types of this module, with the bits of their registers."""

_SIGN = {32: np.array(1 << 31, np.uint32), 64: np.array(1 << 63, np.uint64)}
_REST = {32: np.array((1 << 31) - 1, np.uint32), 64: np.array((1 << 63) - 1, np.uint64)}
_VIEWS = {32: F32, 64: F64}
_TWO_SOURCES = 3
"""Operands of an instruction with two sources and a result."""


@instruction(
    *("add", "sub", "mul", "fma", "mad", "div", "neg", "abs", "min", "max"),
    pipe=Pipe.ALU,
    isa="9.7.1.1 to 9.7.1.12, 9.7.3.3 to 9.7.3.12, 9.7.4, 9.7.5",
)
def arithmetic(b: Builder) -> Op:
    """Arithmetic of every type; the type after the modifiers says which family does it."""
    name, kind = b.inst.parts[0], b.mods.type()
    if kind in integer.TYPES:
        return integer.build(b, name, kind)
    if name not in ("min", "max", "neg", "abs"):
        b.pipe = Pipe.FMA
    if kind in packed.TYPES:
        return packed.build(b, name, kind)
    if kind not in TYPES:
        b.fail(f"got the type .{kind or '(none)'}, which {name} does not take")
    second = b.mods.type()
    if second:
        if kind != "f32" or second not in ("f16", "bf16"):
            b.fail(f"got the types .{kind}.{second}, which do not mix")
        return packed.mixed(b, name, second)
    return _FORMS[name](b, name, kind)


def rounding_mode(b: Builder, default: str = "") -> Rounding:
    """``.rn``, ``.rz``, ``.rm`` or ``.rp``; without a default there has to be one."""
    found = b.mods.one_of("rn", "rz", "rm", "rp", default=default)
    if not found:
        b.fail("got no rounding modifier, allowed: .rn, .rz, .rm, .rp")
    return cast(Rounding, found)


def emit(b: Builder, kind: str, count: int, function: Function) -> Op:
    """``function`` of ``count`` sources of a type of this module."""
    d, *rest = b.expect(count + 1)
    width = TYPES[kind]
    slots = _read(b, tuple(rest), kind)
    view = F64 if kind == "f64" else F32
    return lanewise(function, target(b, d, width), slots, view, RAW[width])


def _read(b: Builder, operands: tuple[Operand, ...], kind: str) -> tuple[int, ...]:
    read = sources if kind == "f32x2" else floats
    return read(b, operands, TYPES[kind])


def _sum_or_product(b: Builder, name: str, kind: str) -> Op:
    rounding = rounding_mode(b, "rn")
    if kind == "f64":
        wide = {"add": double.add64, "sub": double.sub64, "mul": double.mul64}[name]
        return emit(b, kind, 2, partial(wide, rounding=rounding))
    ftz, sat = b.mods.flag("ftz"), kind == "f32" and b.mods.flag("sat")
    if rounding == "rn" and not ftz and not sat:
        plain = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
        return _plain(b, kind, plain)
    if (name, rounding, ftz, sat) == ("add", "rm", False, False):
        return emit(b, kind, 2, fast.add32_rm)
    single = {"add": ieee.add32, "sub": ieee.sub32, "mul": ieee.mul32}[name]
    return emit(b, kind, 2, lambda x, y: single(x, y, rounding, ftz, sat))


def _plain(b: Builder, kind: str, function: np.ufunc) -> Op:
    """The commonest arithmetic: ``emit`` written out."""
    d, *rest = b.expect(3)
    width = TYPES[kind]
    out, (x, y) = target(b, d, width), _read(b, tuple(rest), kind)
    raw, clean = RAW[width], fast.clean

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = clean(function(regs[x].getfield(F32), regs[y].getfield(F32))).getfield(raw)
        if warp.mask is None:
            regs[out] = value
        else:
            warp.write(out, value)

    def run_packed(warp: Warp) -> None:
        regs = warp.regs
        value = clean(function(regs[x].view(F32), regs[y].view(F32))).view(raw)
        if warp.mask is None:
            regs[out] = value
        else:
            warp.write(out, value)

    return run_packed if kind == "f32x2" else run


def _fma(b: Builder, name: str, kind: str) -> Op:
    rounding = rounding_mode(b)
    if name == "mad" and kind == "f32x2":
        b.fail("mad has no f32x2 form")
    if kind == "f64":
        return emit(b, kind, 3, partial(double.fma64, rounding=rounding))
    ftz, sat = b.mods.flag("ftz"), kind == "f32" and b.mods.flag("sat")
    if rounding == "rn" and not ftz and not sat:
        return emit(b, kind, 3, fast.fma32_rn)
    return emit(b, kind, 3, lambda x, y, z: ieee.fma32(x, y, z, rounding, ftz, sat))


def _div(b: Builder, name: str, kind: str) -> Op:
    how = b.mods.one_of("approx", "full")
    ftz = b.mods.flag("ftz")
    if kind == "f32x2" or (kind == "f64" and (how or ftz)):
        b.fail(f"got a form of div.{kind} that does not exist")
    if how:
        b.pipe = Pipe.MUFU
        quotient = approx.div if how == "approx" else approx.div_full
        return emit(b, kind, 2, lambda x, y: quotient(x, y, ftz))
    rounding = rounding_mode(b)
    if kind == "f64":
        return emit(b, kind, 2, partial(double.div64, rounding=rounding))
    return emit(b, kind, 2, lambda x, y: ieee.div32(x, y, rounding, ftz))


def _sign(b: Builder, name: str, kind: str) -> Op:
    """``neg`` and ``abs``, which are additions of zero: of a NaN they make what arithmetic makes.

    Source: SASS of ptxas 13.0 for sm_90a (FADD, DADD), and an H200 (2026-11-21).
    """
    if kind == "f32x2":
        b.fail(f"{name} has no f32x2 form")
    change = np.negative if name == "neg" else np.abs
    if kind == "f64":
        return emit(b, kind, 1, lambda x: double.quiet(change(x), x))
    if b.mods.flag("ftz"):
        return emit(b, kind, 1, lambda x: fast.clean(change(ieee.flush(x))))
    return emit(b, kind, 1, lambda x: fast.clean(change(x)))


def _min_max(b: Builder, name: str, kind: str) -> Op:
    """``-0 < +0``, a NaN loses unless ``.NaN``; f32 may take three sources."""
    if kind == "f32x2":
        b.fail(f"{name} has no f32x2 form")
    if kind == "f64":
        return emit(b, kind, 2, _max64 if name == "max" else _min64)
    ftz, nan = b.mods.flag("ftz"), b.mods.flag("NaN")
    xorsign, magnitude = b.mods.flag("xorsign"), b.mods.flag("abs")
    choose = minmax.max32 if name == "max" else minmax.min32
    if not (ftz or nan or xorsign or magnitude):
        count = len(b.expect(3, 4)) - 1
        return emit(b, kind, count, fast.extreme32(name, count))
    if len(b.inst.operands) > _TWO_SOURCES:
        if xorsign:
            b.fail("got .xorsign with three sources")
        return emit(b, kind, 3, _of_three(choose, nan, ftz, magnitude))
    if xorsign != magnitude:
        b.fail("got only one of .xorsign and .abs")
    return emit(b, kind, 2, lambda x, y: choose(x, y, nan, ftz, xorsign))


def _of_three(choose: Function, nan: bool, ftz: bool, magnitude: bool) -> Function:
    def function(x: Array, y: Array, z: Array) -> Array:
        if magnitude:
            x, y, z = np.abs(x), np.abs(y), np.abs(z)
        return choose(choose(x, y, nan, ftz), z, nan, ftz)

    return function


def _max64(x: Array, y: Array) -> Array:
    both = (x.view(np.uint64) & y.view(np.uint64)).view(F64)
    return double.quiet(np.where(x == y, both, np.fmax(x, y)), y, x)


def _min64(x: Array, y: Array) -> Array:
    either = (x.view(np.uint64) | y.view(np.uint64)).view(F64)
    return double.quiet(np.where(x == y, either, np.fmin(x, y)), y, x)


_FORMS: dict[str, Callable[[Builder, str, str], Op]] = {
    "add": _sum_or_product,
    "sub": _sum_or_product,
    "mul": _sum_or_product,
    "fma": _fma,
    "mad": _fma,
    "div": _div,
    "neg": _sign,
    "abs": _sign,
    "min": _min_max,
    "max": _min_max,
}


@instruction("copysign", pipe=Pipe.ALU, isa="9.7.3.2")
def copysign(b: Builder) -> Op:
    """The magnitude of ``b`` with the sign of ``a``."""
    width = _float_bits(b)
    d, *rest = b.expect(3)
    bit, others = _SIGN[width], _REST[width]
    return lanewise(
        lambda x, y: (x & bit) | (y & others), target(b, d, width), floats(b, tuple(rest), width)
    )


@instruction("testp", pipe=Pipe.ALU, isa="9.7.3.1")
def testp(b: Builder) -> Op:
    """What kind of number it is; zero counts as normal."""
    test = b.mods.one_of("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    width = _float_bits(b)
    if not test:
        b.fail(
            "got no test, allowed: .finite, .infinite, .number, .notanumber, .normal, .subnormal"
        )
    d, x = b.expect(2)
    slot, slots, view = target(b, d, 1), floats(b, (x,), width), _VIEWS[width]

    def function(raw: Array) -> Array:
        return ieee.testp(raw.view(view), test)

    return lanewise(function, slot, slots)


def _float_bits(b: Builder) -> int:
    kind = b.mods.one_of("f32", "f64")
    if not kind:
        b.fail("got no type, allowed: f32, f64")
    return TYPES[kind]
