"""Reciprocals, roots, exponentials, logarithms and trigonometry (PTX ISA 9.7.3, 9.7.4).

The approximate forms give what :mod:`fa4gen.numerics.approx` does: what Hopper does, but for sines,
cosines and hyperbolic tangents; how far these may be off is told there.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import Array, Function
from fa4gen.emulator.instructions import floats, packed
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.numerics import approx, double, fast, ieee, mufu


@instruction("rcp", "sqrt", pipe=Pipe.MUFU, isa="9.7.3.13 to 9.7.3.15")
def reciprocal_or_root(b: Builder) -> Op:
    """``1 / a`` or the square root: correctly rounded, or approximate."""
    name, kind = b.inst.parts[0], b.mods.type()
    rough = b.mods.flag("approx")
    if kind == "f64":
        if rough:
            if name != "rcp" or not b.mods.flag("ftz"):
                b.fail("got an approximate f64 form that does not exist, allowed: rcp.approx.ftz")
            return floats.emit(b, kind, 1, mufu.rcp64)
        rounding = floats.rounding_mode(b)
        if name == "sqrt":
            return floats.emit(b, kind, 1, partial(double.sqrt64, rounding=rounding))
        return floats.emit(b, kind, 1, lambda x: double.div64(np.ones_like(x), x, rounding))
    if kind != "f32":
        b.fail(f"got the type .{kind or '(none)'}, allowed: f32, f64")
    ftz = b.mods.flag("ftz")
    if rough:
        function = approx.rcp if name == "rcp" else approx.sqrt
        return floats.emit(b, kind, 1, lambda x: function(x, ftz))
    rounding = floats.rounding_mode(b)
    exact = ieee.rcp32 if name == "rcp" else ieee.sqrt32
    return floats.emit(b, kind, 1, lambda x: exact(x, rounding, ftz))


@instruction(
    "rsqrt", "ex2", "lg2", "sin", "cos", "tanh", pipe=Pipe.MUFU, isa="9.7.3.16 to 9.7.3.22"
)
def approximate(b: Builder) -> Op:
    """Functions that only exist as approximations."""
    name, kind = b.inst.parts[0], b.mods.type()
    if not b.mods.flag("approx"):
        b.fail("got no .approx")
    ftz = name != "tanh" and b.mods.flag("ftz")
    if kind in packed.TYPES:
        return packed.emit(b, kind, 1, _of_half(b, name, kind, ftz))
    if kind == "f64" and name == "rsqrt":
        return floats.emit(b, kind, 1, mufu.rsqrt64 if ftz else _rsqrt64)
    if kind != "f32":
        b.fail(f"got the type .{kind or '(none)'}, which {name} does not take")
    if name == "tanh":
        return floats.emit(b, kind, 1, approx.tanh)
    if name == "ex2" and ftz:
        return floats.emit(b, kind, 1, fast.ex2_ftz)
    function = {
        "rsqrt": approx.rsqrt,
        "ex2": approx.ex2,
        "lg2": approx.lg2,
        "sin": approx.sin,
        "cos": approx.cos,
    }[name]
    return floats.emit(b, kind, 1, lambda x: function(x, ftz))


def _of_half(b: Builder, name: str, kind: str, ftz: bool) -> Function:
    form = packed.element(kind)
    if name == "tanh":
        return lambda x: approx.tanh_half(x, form)
    if name != "ex2" or ftz != (form == "bf16"):
        b.fail(f"{name} of .{kind}: allowed: tanh, ex2.approx of f16, ex2.approx.ftz of bf16")
    return lambda x: approx.ex2_half(x, form, ftz)


def _rsqrt64(x: Array) -> Array:
    return 1 / np.sqrt(x)
