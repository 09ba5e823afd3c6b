"""Vectors of division, roots and the approximated functions: the correctly rounded results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from math import floor

import exact_reals as exact
from exact_reals import FORMATS, NAN, Real, pack, real, unpack
from scalar_float import MODES, code, doubled, form_of, rounded
from vector_file import Draw, Form, VectorFile, make

ONE = real(Fraction(1))
Function = Callable[[Real], Real]


def reciprocal_root(x: Real) -> Real:
    if x.is_zero:
        return Real("inf", x.negative)
    return exact.divide(ONE, exact.square_root(x))


def exp2(x: Real) -> Real:
    if x.kind == "inf":
        return real(Fraction(0)) if x.negative else x
    if x.kind == "nan":
        return x
    if abs(x.value) > 2000:
        return real(Fraction(0)) if x.negative else Real("inf")
    return real(exact.exp2(x.value))


def log2(x: Real) -> Real:
    if x.is_zero:
        return Real("inf", True)
    if x.kind == "nan" or x.negative:
        return NAN
    return x if x.kind == "inf" else real(exact.log2(x.value))


def tanh(x: Real) -> Real:
    if x.kind == "inf":
        return real(Fraction(-1 if x.negative else 1))
    return x if x.kind == "nan" or x.is_zero else real(exact.tanh(x.value))


def turns(x: Real) -> Fraction:
    """What an H200 takes sines of: the angle times a float next to 1 / (2 pi), rounded toward zero,
    without whole turns and cut to 25 bits."""
    f32 = FORMATS["f32"]
    product = pack(exact.multiply(Real("finite", False, x.size), TURN), f32, "rz")
    whole = unpack(product, f32, ftz=True).size
    return Fraction(floor(whole % 1 * 2**25), 2**25)


TURN = unpack(0x3E22F983, FORMATS["f32"])
TWO_PI = 2 * Fraction("3.14159265358979323846264338327950288419716939937510582097494459")


def wave(cosine: bool) -> Function:
    def function(x: Real) -> Real:
        if x.kind != "finite":
            return NAN
        value = exact.sine(turns(x) * TWO_PI, cosine)
        return real(value if cosine or not x.negative else -value, x.negative)

    return function


APPROXIMATE: dict[str, Function] = {
    "rcp": partial(exact.divide, ONE),
    "sqrt": exact.square_root,
    "rsqrt": reciprocal_root,
    "ex2": exp2,
    "lg2": log2,
    "sin": wave(False),
    "cos": wave(True),
    "tanh": tanh,
}


ULP = {"ex2": 2, "rsqrt": 2, "lg2": 2}
"""How far a result may be from the correctly rounded one, where that is more than one."""


def ordinary(kind: str) -> Draw:
    """Magnitudes of 2^-12 to 64, where nothing over- or underflows."""
    form = FORMATS[kind]

    def draw(dice: random.Random) -> int:
        exponent = form.bias + dice.randrange(-12, 6)
        return (
            form.sign * dice.randrange(2)
            | exponent << form.mantissa
            | dice.randrange(1 << form.mantissa)
        )

    return draw


def specials(kind: str) -> tuple[tuple[int, ...], ...]:
    form = FORMATS[kind]
    least = 1 << form.mantissa
    codes = (0, 1, least - 1, least, form.infinity, form.nan, form.bias << form.mantissa)
    return tuple((sign | c,) for c in codes for sign in (0, form.sign))


def one_source(
    opcode: str, kind: str, function: Function, mode: str = "rn", max_ulp: int = 0
) -> Form:
    plain = form_of(opcode, kind, 1, rounded(kind, function, mode, ".ftz" in opcode))
    element = kind.removesuffix("x2")
    packed = kind.endswith("x2")
    draw = ordinary(element)
    bits = FORMATS[element].bits
    pair = doubled(draw, bits) if packed else draw
    special = specials(element)
    if packed:
        special = tuple(
            (a[0] | b[0] << bits,) for a, b in zip(special, reversed(special), strict=True)
        )
    return Form(
        plain.text, plain.results, plain.sources, [pair], plain.compute, special, max_ulp, count=32
    )


def approximations() -> Iterator[VectorFile]:
    for name, function in APPROXIMATE.items():
        for ftz in ("", ".ftz") if name != "tanh" else ("",):
            opcode = f"{name}.approx{ftz}.f32"
            yield make(
                "mufu", opcode, one_source(opcode, "f32", function, max_ulp=ULP.get(name, 1))
            )
    for kind in ("f16", "f16x2", "bf16", "bf16x2"):
        opcode = f"tanh.approx.{kind}"
        yield make("mufu", opcode, one_source(opcode, kind, tanh, max_ulp=1))
        ftz = ".ftz" if kind.startswith("bf16") else ""
        opcode = f"ex2.approx{ftz}.{kind}"
        yield make("mufu", opcode, one_source(opcode, kind, exp2, max_ulp=1))
    opcode = "rsqrt.approx.f64"
    yield make("mufu", opcode, one_source(opcode, "f64", reciprocal_root, max_ulp=1))
    for name in ("rcp", "rsqrt"):
        opcode = f"{name}.approx.ftz.f64"
        yield make("mufu", opcode, gross(opcode, APPROXIMATE[name]))


def gross(opcode: str, function: Function) -> Form:
    """The upper words only: 20 bits of mantissa, chopped."""
    form = FORMATS["f64"]
    upper = 0xFFFFFFFF << 32

    def compute(a: int) -> tuple[int | str]:
        value = function(unpack(a & upper, form, ftz=True))
        return ("nan",) if value.kind == "nan" else (pack(value, form, "rn", ftz=True) & upper,)

    ulp = ULP.get(opcode.partition(".")[0], 1) << 32
    sources = [ordinary("f64")]
    return Form(f"{opcode} %d0, %s0;", "b64", "b64", sources, compute, specials("f64"), ulp)


def correctly_rounded() -> Iterator[VectorFile]:
    for kind in ("f32", "f64"):
        for mode in MODES:
            for ftz in ("", ".ftz") if kind == "f32" else ("",):
                for name in ("rcp", "sqrt"):
                    opcode = f"{name}.{mode}{ftz}.{kind}"
                    form = one_source(opcode, kind, APPROXIMATE[name], mode)
                    yield make("mufu", opcode, form)
                opcode = f"div.{mode}{ftz}.{kind}"
                function = rounded(kind, exact.divide, mode, bool(ftz))
                yield make("mufu", opcode, form_of(opcode, kind, 2, function))
    for ftz in ("", ".ftz"):
        opcode = f"div.full{ftz}.f32"
        function = rounded("f32", exact.divide, "rn", bool(ftz))
        yield make("mufu", opcode, form_of(opcode, "f32", 2, function, max_ulp=1))
        opcode = f"div.approx{ftz}.f32"
        yield make("mufu", opcode, rough_division(opcode, bool(ftz)))


def rough_division(opcode: str, ftz: bool) -> Form:
    """For divisors above 2^126 the result is 0, and NaN for an infinite dividend."""

    def quotient(a: Real, b: Real) -> Real:
        if b.kind != "finite" or b.size <= exact.power(126):
            return exact.divide(a, b)
        return exact.multiply(a, Real("finite", b.negative))

    function = rounded("f32", quotient, "rn", ftz)
    plain = form_of(opcode, "f32", 2, function)
    large = (
        (0x7F000001, 0x7F000000),
        (0x3F800000, 0x7F000001),
        (0x7F800000, 0xFF000001),
        (1, 0x7F7FFFFF),
    )
    return Form(
        plain.text, plain.results, plain.sources, [code("f32")] * 2, plain.compute, large, max_ulp=1
    )


def files() -> Iterator[VectorFile]:
    """Every file of this module."""
    yield from approximations()
    yield from correctly_rounded()
