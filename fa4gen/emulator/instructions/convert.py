"""``cvt`` between integers and floats (PTX ISA 9.7.9.21)."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import cast

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.conversion import (
    BITS,
    FLOATS,
    INTEGERS,
    INTEGRAL,
    NARROW,
    PAIRS,
    ROUNDINGS,
    SCALES,
    Request,
    emit,
)
from fa4gen.emulator.elementwise import F32, F64, RAW, SIGNED, Array, DType, Function
from fa4gen.emulator.instructions import convert_packed
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.numerics import fast, integers, narrow
from fa4gen.numerics.arrays import HalfName, Rounding
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical, flush, saturate
from fa4gen.numerics.integers import IntegerRounding

_HALVES = ("f16", "bf16")
_HALF_BITS = np.array(16, np.uint32)


@instruction("cvt", pipe=Pipe.CONVERT, isa="9.7.9.21")
def cvt(b: Builder) -> Op:
    """A value of one type as another."""
    request = Request(b)
    for targets, origins, build in _TABLE:
        if request.to in targets and request.of in origins:
            return build(b, request)
    return b.fail(f"got a conversion of {request.of} to {request.to}")


def _integer(kind: str) -> DType:
    return (SIGNED if kind[0] == "s" else RAW)[INTEGERS[kind]]


# ---- integers ------------------------------------------------------------------------------------


def _between_integers(b: Builder, request: Request) -> Op:
    request.allow("sat")
    b.expect(2)
    of, to = _integer(request.of), _integer(request.to)
    raw = RAW[BITS[request.to]]
    if request.sat:
        kind = request.to
        return emit(
            b, request, lambda x: integers.convert_integer(x.view(of), kind, True).view(raw)
        )
    if of.itemsize == to.itemsize:
        return emit(b, request, np.copy)
    if of.kind == "u" or to.itemsize < of.itemsize:
        return emit(b, request, lambda x: x.astype(raw))
    return emit(b, request, lambda x: x.view(of).astype(to).view(raw))


def _integer_from_float(b: Builder, request: Request) -> Op:
    request.allow("integral", "sat", *_ftz(request))
    request.round_by(*INTEGRAL)
    b.expect(2)
    kind, rounding, ftz = request.to, request.integral, request.ftz
    raw = RAW[BITS[kind]]
    if request.of in _HALVES:
        form = cast(HalfName, request.of)
        return emit(
            b, request, lambda x: integers.half_to_integer(x, form, kind, rounding).view(raw)
        )
    view = F32 if request.of == "f32" else F64
    return emit(
        b,
        request,
        lambda x: integers.float_to_integer(x.view(view), kind, rounding, ftz).view(raw),
    )


def _float_from_integer(b: Builder, request: Request) -> Op:
    request.allow("rounding", *(("sat",) if request.to != "bf16" else ()), *_ftz(request))
    request.round_by(*ROUNDINGS)
    b.expect(2)
    of, to = _integer(request.of), request.to
    raw, convert = RAW[BITS[to]], _integer_converter(to, of, request.rounding)
    if request.sat:
        return emit(b, request, lambda x: convert(np.clip(x.view(of), 0, 1)).view(raw))
    return emit(b, request, lambda x: convert(x.view(of)).view(raw))


def _integer_converter(to: str, of: DType, rounding: Rounding) -> Function:
    if to == "f64":
        return lambda x: integers.integer_to_f64(x, rounding)
    if to != "f32":
        form = cast(HalfName, to)
        return lambda x: integers.integer_to_half(x, form, rounding)
    if rounding == "rn" and of.itemsize <= F32.itemsize:
        return lambda x: x.astype(F32)
    return lambda x: integers.integer_to_f32(x, rounding)


# ---- floats --------------------------------------------------------------------------------------


def _between_floats(b: Builder, request: Request) -> Op:
    b.expect(2)
    to, of = request.to, request.of
    clamped = ("sat",) if "bf16" not in (to, of) else ()
    if to == of:
        request.allow("integral", *_ftz(request), *clamped)
        return _same_float(b, request)
    if BITS[to] > BITS[of]:
        # The result is exact; ptxas takes a rounding of bf16 all the same.
        request.allow(*_ftz(request), *clamped, *(("rounding",) if of == "bf16" else ()))
        return emit(b, request, _widened(request))
    request.round_by(*ROUNDINGS)
    if of == "f32" and (request.relu or request.satfinite):
        request.round_by("rn", "rz")
        request.allow("rounding", "relu", "satfinite")
    else:
        request.allow("rounding", *_ftz(request), *clamped)
    return emit(b, request, _narrowed(request))


def _ftz(request: Request) -> tuple[str, ...]:
    """``.ftz`` is for f32."""
    return ("ftz",) if "f32" in (request.to, request.of) else ()


def _same_float(b: Builder, request: Request) -> Op:
    kind, rounding, ftz, sat = request.to, request.integral, request.ftz, request.sat
    raw = RAW[BITS[kind]]
    if kind == "f64":
        whole = INTEGRAL.get(rounding, np.copy)
        return emit(b, request, lambda x: _saturated64(whole(x.view(F64)), sat).view(raw))
    if kind == "f32":
        return emit(b, request, lambda x: _f32_in_place(x.view(F32), rounding, ftz, sat).view(raw))
    form = cast(HalfName, kind)
    return emit(
        b,
        request,
        lambda x: narrow.to_half(_f32_in_place(decode(x, form), rounding, False, sat), form),
    )


def _f32_in_place(x: Array, rounding: IntegerRounding, ftz: bool, sat: bool) -> Array:
    if rounding:
        return integers.round_to_integral(x, rounding, ftz, sat)
    # With ftz it is an addition of zero (SASS FADD.FTZ), without a move.
    x = canonical(flush(x)) if ftz else x
    return saturate(x) if sat else x


def _saturated64(x: Array, sat: bool) -> Array:
    return np.where(x > 0, np.minimum(x, 1.0), 0.0) if sat else x


def _widened(request: Request) -> Function:
    of, to, ftz, sat = request.of, request.to, request.ftz, request.sat
    if (of, to, ftz) == ("bf16", "f32", False):
        return lambda x: x.astype(RAW[32]) << _HALF_BITS

    def function(x: Array) -> Array:
        value = x.view(F32) if of == "f32" else decode(x, of)
        if of == "f16":
            value = canonical(value)
        if ftz:
            value = flush(value)
        if sat:
            value = saturate(value)
        return value.view(RAW[32]) if to == "f32" else value.astype(F64).view(RAW[64])

    return function


def _narrowed(request: Request) -> Function:
    """To f32 from f64, or to f16 and bf16 from anything."""
    of, to, ftz, sat = request.of, request.to, request.ftz, request.sat
    rounding, relu, satfinite = request.rounding, request.relu, request.satfinite

    def to_f32(x: Array) -> Array:
        value = narrow.f64_to_f32(_saturated64(x.view(F64), sat), rounding, ftz)
        return value.view(RAW[32])

    if to == "f32":
        return to_f32
    form = cast(HalfName, to)

    if (of, rounding, ftz, sat, relu, satfinite) == ("f32", "rn", False, False, False, False):
        return lambda x: fast.half(x.getfield(F32), form)

    def to_half(x: Array) -> Array:
        # With .ftz nothing is flushed: for f16 ptxas 13.0 leaves it out (F2F.F16.F32), and an H200
        # rounds a subnormal up or down.
        value = x.view(F32) if of == "f32" else decode(x, of)
        if sat:
            value = saturate(value)
        return narrow.to_half(value, form, rounding, relu, satfinite)

    if of != "f64":
        return to_half
    return lambda x: narrow.f64_to_half(_saturated64(x.view(F64), sat), form, rounding)


_TABLE: tuple[tuple[Container[str], Container[str], Callable[[Builder, Request], Op]], ...] = (
    (INTEGERS, INTEGERS, _between_integers),
    (INTEGERS, FLOATS, _integer_from_float),
    (FLOATS, INTEGERS, _float_from_integer),
    (FLOATS, FLOATS, _between_floats),
    (("tf32",), ("f32",), convert_packed.tf32),
    (PAIRS, ("f32",), convert_packed.pair_from_f32),
    (NARROW, ("f32",), convert_packed.narrow_pair),
    (("e4m3x2", "e5m2x2", "e2m1x2"), ("f16x2",), convert_packed.narrow_pair),
    (("f16x2",), NARROW, convert_packed.pair_from_narrow),
    (SCALES, ("f32", "bf16x2"), convert_packed.scales),
    (("bf16x2",), SCALES, convert_packed.pair_from_scales),
)
"""Target types, source types, and what makes the operation."""
