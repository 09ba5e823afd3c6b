"""Vectors of ``cvt``, by exact rationals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import exact_reals as exact
from exact_reals import FORMATS, Real, pack, real, unpack
from scalar_float import MODES, WIDTH, code, doubled
from scalar_integer import BITS, clamp, integer, mask, names, number, signed
from vector_file import CASES, Draw, Form, VectorFile, make

INTEGERS = tuple(f"{s}{n}" for s in "us" for n in (8, 16, 32, 64))
FLOATS = ("f16", "bf16", "f32", "f64")
INTEGRAL = ("rni", "rzi", "rmi", "rpi")
F32 = FORMATS["f32"]
Cases = tuple[tuple[int, ...], ...]


def cvt(
    opcode: str,
    registers: str,
    draws: Sequence[Draw],
    compute: Callable[..., int | str],
    special: Cases = (),
    count: int = CASES,
) -> VectorFile:
    """A conversion; its registers are given, that of the result first."""
    return make("convert", opcode, form_of(opcode, registers, draws, compute, special, count))


def form_of(
    opcode: str,
    registers: str,
    draws: Sequence[Draw],
    compute: Callable[..., int | str],
    special: Cases = (),
    count: int = CASES,
) -> Form:
    result, *sources = registers.split()
    return Form(
        f"{opcode} {names(len(sources))};",
        result,
        " ".join(sources),
        draws,
        lambda *v: (compute(*v),),
        special,
        count=count,
    )


# ---- integers ------------------------------------------------------------------------------------


def limits(kind: str) -> tuple[int, int]:
    n = BITS[kind]
    return (-(1 << (n - 1)), (1 << (n - 1)) - 1) if kind[0] == "s" else (0, (1 << n) - 1)


def holder(kind: str) -> int:
    """Bits of the register of a type; 8 bits are kept in 16."""
    return max(BITS[kind], 16)


def extended(value: int, kind: str, width: int) -> int:
    """A value of an integer type in a wider register."""
    low = mask(value, BITS[kind])
    return mask(signed(low, BITS[kind]) if kind[0] == "s" else low, width)


def between_integers(to: str, of: str, sat: str) -> VectorFile:
    low, high = limits(to)
    opcode = f"cvt{sat}.{to}.{of}"
    widths = {(holder(to), holder(of)), (64, 64)} if to != of else {(holder(to), holder(of))}

    def form(wide: int, source: int) -> Form:
        def compute(a: int) -> int:
            value = number(mask(a, BITS[of]), of)
            return extended(clamp(value, low, high) if sat else value, to, wide)

        special = ((0,), (127,), (128,), (255,), (256,), (mask(-129, source),))
        registers = f"b{wide} b{source}"
        return form_of(opcode, registers, [integer(source)], compute, special, count=9)

    return make("convert", opcode, *(form(*pair) for pair in sorted(widths)))


def to_integer(to: str, of: str, mode: str, ftz: str = "") -> VectorFile:
    """Saturating; a NaN gives 0, or the highest bit for f64 sources and 64-bit results."""
    form, width, (low, high) = FORMATS[of], holder(to), limits(to)

    def compute(a: int) -> int:
        value = exact.whole(unpack(a, form, bool(ftz)), mode)
        if value.kind == "nan":
            special = of == "f64" or BITS[to] == 64
            return extended(1 << (BITS[to] - 1) if special else 0, to, width)
        if value.kind == "inf":
            return extended(low if value.negative else high, to, width)
        return extended(clamp(int(value.value), low, high), to, width)

    values = [Fraction(n) for n in (low, high, high + 1, 1, -1)]
    values += [Fraction(n, 2) for n in (1, 3, 5, -1, -3, -5, 255, -257)]
    edges = tuple((pack(real(v), form),) for v in values)
    edges += ((form.infinity,), (form.sign | form.infinity,), (form.nan,), (form.sign,), (1,))
    opcode = f"cvt.{mode}{ftz}.{to}.{of}"
    return cvt(opcode, f"b{width} b{WIDTH[of]}", [code(of)], compute, edges, count=18)


def from_integer(to: str, of: str, mode: str, sat: str = "") -> VectorFile:
    n = BITS[of]

    def compute(a: int) -> int:
        value = real(Fraction(number(mask(a, n), of)))
        return pack(exact.saturate(value) if sat else value, FORMATS[to], mode)

    values = (0, 1, -1, (1 << (n - 1)) - 1, 1 << (n - 1), (1 << 24) + 1, (1 << 53) + 1)
    edges = tuple((mask(v, holder(of)),) for v in values)
    registers = f"b{WIDTH[to]} b{holder(of)}"
    opcode = f"cvt.{mode}{sat}.{to}.{of}"
    return cvt(opcode, registers, [integer(holder(of))], compute, edges, count=12)


def integers() -> Iterator[VectorFile]:
    for to in INTEGERS:
        for of in INTEGERS:
            yield between_integers(to, of, "")
            if limits(of)[0] < limits(to)[0] or limits(to)[1] < limits(of)[1]:
                yield between_integers(to, of, ".sat")
    for number_type in INTEGERS:
        for floating in FLOATS:
            if floating != "bf16" or BITS[number_type] != 8:
                for mode in INTEGRAL:
                    yield to_integer(number_type, floating, mode)
                for mode in MODES:
                    yield from_integer(floating, number_type, mode)
        yield from_integer("f32", number_type, "rn", ".sat")
    yield to_integer("s32", "f32", "rpi", ".ftz")


# ---- floats --------------------------------------------------------------------------------------


def shorter_nan(code: int, to: str) -> int:
    """Of an f64 NaN: the sign and the upper bits of the payload stay (an H200)."""
    form, wide = FORMATS[to], FORMATS["f64"]
    payload = (code & (1 << wide.mantissa) - 1) >> (wide.mantissa - form.mantissa)
    sign = form.sign if code & wide.sign else 0
    return sign | form.infinity | 1 << (form.mantissa - 1) | payload


def between_floats(to: str, of: str, more: str) -> VectorFile:
    """``more``: what stands between ``cvt`` and the types."""
    parts = more.split(".")
    ftz = "ftz" in parts
    mode = next((m for m in MODES if m in parts), "rn")
    integral = next((m for m in INTEGRAL if m in parts), "")

    def compute(a: int) -> int | str:
        # For f16 .ftz does nothing.
        value = unpack(a, FORMATS[of], ftz and of == "f32" and to != "f16")
        if integral:
            value = exact.whole(value, integral)
        if "sat" in parts:
            value = exact.saturate(value)
        if "relu" in parts and value.negative and value.kind != "nan":
            value = real(Fraction(0))
        if value.kind == "nan" and (to == "f64" or (to, of) == ("f32", "bf16")):
            return "nan"
        if value.kind == "nan" and of == "f64":
            return shorter_nan(a, to)
        return pack(value, FORMATS[to], mode, ftz and to == "f32", "satfinite" in parts)

    form = FORMATS[of]
    edges = tuple((c,) for c in (0, form.sign, 1, form.largest, form.infinity, form.nan))
    edges += tuple((pack(real(Fraction(n, 2)), form),) for n in (1, 3, 5, -1, -3))
    opcode = f"cvt{more}.{to}.{of}"
    return cvt(opcode, f"b{WIDTH[to]} b{WIDTH[of]}", [code(of)], compute, edges)


def modifiers(to: str, of: str) -> Iterator[str]:
    """What a conversion between these floats may say."""
    roundings: Sequence[str] = MODES
    if to == of:
        roundings = INTEGRAL
    elif WIDTH[to] > WIDTH[of]:
        roundings = ("",)
    flushes = ("", ".ftz") if "f32" in (to, of) and "bf16" not in (to, of) else ("",)
    for rounding in roundings:
        for ftz in flushes:
            for sat in ("", ".sat") if "bf16" not in (to, of) else ("",):
                yield (f".{rounding}" if rounding else "") + ftz + sat
    if of == "f32" and to in ("f16", "bf16"):
        for rounding in ("rn", "rz"):
            for after in (".relu", ".satfinite", ".relu.satfinite"):
                yield f".{rounding}{after}"
    if to == of == "f32":
        yield from (".ftz", ".sat")


# ---- packed --------------------------------------------------------------------------------------


def one_code(value: Real, name: str, mode: str, more: str) -> int:
    """One element of a packed result."""
    if "relu" in more and value.negative and value.kind != "nan":
        value = real(Fraction(0))
    return pack(value, FORMATS[name], mode, satfinite="satfinite" in more)


def pair(name: str, mode: str, more: str) -> VectorFile:
    """The first source goes to the upper half."""

    def compute(a: int, b: int) -> int:
        high, low = (one_code(unpack(c, F32), name, mode, more) for c in (a, b))
        return high << 16 | low

    return cvt(f"cvt.{mode}{more}.{name}x2.f32", "b32 b32 b32", [code("f32")] * 2, compute)


def tf32(mode: str, more: str) -> VectorFile:
    def compute(a: int) -> int:
        value = unpack(a, F32)
        if value.kind != "nan":
            return one_code(value, "tf32", mode, more) << 13
        # rna cuts the code, and satfinite takes one off (an H200).
        return (a >> 13) - (more == ".satfinite") << 13 if mode == "rna" else 0x7FFFE000

    return cvt(f"cvt.{mode}{more}.tf32.f32", "b32 b32", [code("f32")], compute)


NARROW = {"e4m3": (8, 16), "e5m2": (8, 16), "e2m3": (8, 16), "e3m2": (8, 16), "e2m1": (4, 8)}
"""Bits from one element to the next, and of the register."""


def narrow_code(dice: random.Random) -> int:
    """f32 in the range of the narrow formats, half of them of few bits."""
    choice = dice.randrange(4)
    if choice == 0:
        return code("f32")(dice)
    exponent = 127 + dice.randrange(-12, 10)
    mantissa = dice.randrange(1 << 23) if choice == 1 else dice.randrange(64) << 17
    return dice.randrange(2) << 31 | exponent << 23 | mantissa


def narrow(name: str, more: str) -> Iterator[VectorFile]:
    step, width = NARROW[name]

    def join(*values: Real) -> int:
        high, low = (one_code(v, name, "rn", more) for v in values)
        return high << step | low

    def from_f32(a: int, b: int) -> int:
        return join(unpack(a, F32), unpack(b, F32))

    def from_f16(a: int) -> int:
        return join(*(unpack(c, FORMATS["f16"]) for c in (a >> 16, mask(a, 16))))

    registers = f"b{width} b32 b32"
    yield cvt(f"cvt.rn{more}.{name}x2.f32", registers, [narrow_code] * 2, from_f32, count=40)
    if FORMATS[name].bits != 6:
        draw = doubled(code("f16"), 16)
        yield cvt(f"cvt.rn{more}.{name}x2.f16x2", f"b{width} b32", [draw], from_f16)


def widened(name: str, relu: str) -> VectorFile:
    step, width = NARROW[name]
    form = FORMATS[name]

    def compute(a: int) -> int:
        codes = (mask(a >> step, form.bits), mask(a, form.bits))
        high, low = (one_code(unpack(c, form), "f16", "rn", relu) for c in codes)
        return high << 16 | low

    def draw(dice: random.Random) -> int:
        return dice.randrange(1 << form.bits) | dice.randrange(1 << form.bits) << step

    return cvt(f"cvt.rn{relu}.f16x2.{name}x2", f"b32 b{width}", [draw], compute, count=32)


def scale(value: Real, mode: str, satfinite: str) -> int:
    """ue8m0: the power of two below or above the magnitude; code 255 is NaN."""
    if value.kind == "nan":
        return 255
    if value.kind == "inf":
        return 254 if satfinite else 255
    if value.size <= exact.power(-127):
        return 0
    exponent = exact.exponent(value.size)
    if mode == "rp" and value.size > exact.power(exponent):
        exponent += 1
    if exponent > 127:
        return 254 if satfinite else 255
    return exponent + 127


def scales(mode: str, satfinite: str) -> Iterator[VectorFile]:
    def join(*values: Real) -> int:
        high, low = (scale(v, mode, satfinite) for v in values)
        return high << 8 | low

    def from_f32(a: int, b: int) -> int:
        return join(unpack(a, F32), unpack(b, F32))

    def from_bf16(a: int) -> int:
        return join(*(unpack(c, FORMATS["bf16"]) for c in (a >> 16, mask(a, 16))))

    edges = ((0x00400000, 0x00400001), (0x7F000001, 0x7F800000), (0, 1), (0x7FC00000, 0x7F000000))
    opcode = f"cvt.{mode}{satfinite}.ue8m0x2"
    yield cvt(f"{opcode}.f32", "b16 b32 b32", [code("f32")] * 2, from_f32, edges)
    yield cvt(f"{opcode}.bf16x2", "b16 b32", [doubled(code("bf16"), 16)], from_bf16)


def from_scales() -> VectorFile:
    def one(c: int) -> int:
        return 0x7FFF if c == 255 else pack(real(exact.power(c - 127)), FORMATS["bf16"])

    def compute(a: int) -> int:
        return one(a >> 8) << 16 | one(mask(a, 8))

    return cvt("cvt.rn.bf16x2.ue8m0x2", "b32 b16", [integer(16)], compute)


def packed_integers(kind: str) -> VectorFile:
    n = int(kind[1:])
    low = -(1 << (n - 1)) if kind[0] == "s" else 0
    high = low + (1 << n) - 1

    def compute(a: int, b: int, c: int = 0) -> int:
        x, y = (mask(clamp(signed(v, 32), low, high), n) for v in (a, b))
        return mask(c << 2 * n | x << n | y, 32)

    sources = 2 if n == 16 else 3
    opcode = f"cvt.pack.sat.{kind}.s32" + (".b32" if sources == 3 else "")
    return cvt(opcode, " ".join(["b32"] * (sources + 1)), [integer(32)] * sources, compute)


def files() -> Iterator[VectorFile]:
    """Every file of this module."""
    yield from integers()
    for of in FLOATS:
        for to in FLOATS:
            for more in modifiers(to, of):
                yield between_floats(to, of, more)
    for mode in ("rn", "rz"):
        for more in ("", ".relu", ".satfinite", ".relu.satfinite"):
            yield pair("f16", mode, more)
            yield pair("bf16", mode, more)
        for more in ("", ".satfinite", ".relu"):
            yield tf32(mode, more)
    yield tf32("rna", "")
    yield tf32("rna", ".satfinite")
    for name in NARROW:
        yield from narrow(name, ".satfinite")
        yield from narrow(name, ".satfinite.relu")
        yield widened(name, "")
        yield widened(name, ".relu")
    for mode in ("rz", "rp"):
        yield from scales(mode, "")
        yield from scales(mode, ".satfinite")
    yield from_scales()
    for kind in ("u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"):
        yield packed_integers(kind)
