"""Vectors of float arithmetic, by exact rationals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial

import exact_reals as exact
from exact_reals import FORMATS, Format, Real, pack, real, unpack
from scalar_integer import mask, names
from vector_file import Draw, Form, VectorFile, make

Compute = Callable[..., Real]
MODES = ("rn", "rz", "rm", "rp")
WIDTH = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}


def scalar_of(kind: str) -> tuple[str, int]:
    """The element of a type and how many a register holds."""
    return (kind.removesuffix("x2"), 2) if kind.endswith("x2") else (kind, 1)


def register(kind: str) -> str:
    element, count = scalar_of(kind)
    return f"b{WIDTH[element] * count}"


def code(kind: str) -> Draw:
    """Special values, values of few bits (which make ties), ordinary ones, any bits."""
    form = FORMATS[kind]
    specials = [0, 1, (1 << form.mantissa) - 1, 1 << form.mantissa, form.largest, form.infinity]
    specials += [form.infinity + 1, form.nan, form.bias << form.mantissa]
    span = min(30, form.bias - 2)

    def draw(dice: random.Random) -> int:
        sign = form.sign * dice.randrange(2)
        choice = dice.randrange(8)
        if choice == 0:
            return sign | dice.choice(specials)
        exponent = form.bias + dice.randrange(-span, span + 1)
        if choice <= 3:
            few = sum(1 << dice.randrange(form.mantissa) for _ in range(dice.randrange(3)))
            return sign | exponent << form.mantissa | mask(few, form.mantissa)
        if choice <= 6:
            close = form.bias + dice.randrange(-3, 4)
            return sign | close << form.mantissa | dice.randrange(1 << form.mantissa)
        return dice.randrange(1 << form.bits)

    return draw


def doubled(draw: Draw, bits: int) -> Draw:
    """Two of it in one register."""
    return lambda dice: draw(dice) | draw(dice) << bits


def draw_of(kind: str) -> Draw:
    element, count = scalar_of(kind)
    return code(element) if count == 1 else doubled(code(element), WIDTH[element])


def lanewise(kind: str, compute: Callable[..., int]) -> Callable[..., tuple[int | str]]:
    """``compute`` of the elements' codes, for every element of a register."""
    element, count = scalar_of(kind)
    bits = WIDTH[element]

    def run(*values: int) -> tuple[int | str]:
        parts = [compute(*(mask(v >> bits * at, bits) for v in values)) for at in range(count)]
        if kind == "f64" and unpack(parts[0], FORMATS["f64"]).kind == "nan":
            return ("nan",)
        return (sum(part << bits * at for at, part in enumerate(parts)),)

    return run


def form_of(
    opcode: str, kind: str, sources: int, compute: Callable[..., int], max_ulp: int = 0
) -> Form:
    """An instruction of one type; ``compute`` of the codes of its elements."""
    reg = register(kind)
    return Form(
        f"{opcode} {names(sources)};",
        reg,
        " ".join([reg] * sources),
        [draw_of(kind)] * sources,
        lanewise(kind, compute),
        max_ulp=max_ulp,
    )


def rounded(
    kind: str, compute: Compute, mode: str = "rn", ftz: bool = False, after: str = ""
) -> Callable[..., int]:
    """``compute`` of the values, rounded once; ``after``: ``sat`` or ``relu``."""
    form = FORMATS[scalar_of(kind)[0]]

    def run(*codes: int) -> int:
        value = compute(*(unpack(c, form, ftz) for c in codes))
        if "sat" in after:
            value = exact.saturate(value)
        if "relu" in after and value.negative and value.kind != "nan":
            value = real(Fraction(0))
        return pack(value, form, mode, ftz)

    return run


# ---- arithmetic ----------------------------------------------------------------------------------


def subtract(a: Real, b: Real, mode: str) -> Real:
    return exact.add(a, exact.negate(b), mode)


def fused(a: Real, b: Real, c: Real, mode: str) -> Real:
    return exact.add(exact.multiply(a, b), c, mode)


def operations(mode: str) -> dict[str, tuple[int, Compute]]:
    """How many sources, and what of them."""
    return {
        "add": (2, partial(exact.add, mode=mode)),
        "sub": (2, partial(subtract, mode=mode)),
        "mul": (2, exact.multiply),
        "fma": (3, partial(fused, mode=mode)),
    }


def arithmetic(kind: str, mode: str) -> Iterator[VectorFile]:
    """f32, f32x2 and f64; without a mode to nearest."""
    more = ["", ".ftz"] if kind != "f64" else [""]
    more += [".sat", ".ftz.sat"] if kind == "f32" else []
    for name, (sources, compute) in operations(mode or "rn").items():
        for after in more if mode or name != "fma" else ():
            opcode = ".".join(filter(None, (name, mode))) + f"{after}.{kind}"
            function = rounded(kind, compute, mode or "rn", "ftz" in after, after)
            yield make("floats", opcode, form_of(opcode, kind, sources, function))


def mad(kind: str, mode: str) -> VectorFile:
    opcode = f"mad.{mode}.{kind}"
    function = rounded(kind, partial(fused, mode=mode), mode)
    return make("floats", opcode, form_of(opcode, kind, 3, function))


def halves(kind: str) -> Iterator[VectorFile]:
    """f16 and bf16, one or two in a register."""
    more = ["", ".ftz", ".sat"] if kind.startswith("f16") else [""]
    for name, (sources, compute) in operations("rn").items():
        for part in ("", ".rn") if name != "fma" else (".rn",):
            for after in [*more, ".relu"] if name == "fma" else more:
                opcode = f"{name}{part}{after}.{kind}"
                function = rounded(kind, compute, "rn", "ftz" in after, after)
                yield make("packed", opcode, form_of(opcode, kind, sources, function))


def mixed(half: str, mode: str) -> Iterator[VectorFile]:
    """Factors of 16 bits, the addend and the result f32."""
    for name, (sources, compute) in operations(mode or "rn").items():
        if name != "mul" and (mode or name != "fma"):
            yield mixed_one(".".join(filter(None, (name, mode))), half, sources, compute)
            yield mixed_one(".".join(filter(None, (name, mode, "sat"))), half, sources, compute)


def mixed_one(opcode: str, half: str, sources: int, compute: Compute) -> VectorFile:
    mode = next((m for m in MODES if m in opcode.split(".")), "rn")
    narrow, wide = FORMATS[half], FORMATS["f32"]

    def run(*codes: int) -> tuple[int]:
        *factors, addend = codes
        value = compute(*(unpack(c, narrow) for c in factors), unpack(addend, wide))
        return (pack(exact.saturate(value) if "sat" in opcode else value, wide, mode),)

    opcode = f"{opcode}.f32.{half}"
    draws = [code(half)] * (sources - 1) + [code("f32")]
    registers = " ".join(["b16"] * (sources - 1) + ["b32"])
    return make("packed", opcode, Form(f"{opcode} {names(sources)};", "b32", registers, draws, run))


# ---- signs, minima and maxima --------------------------------------------------------------------


def family(kind: str) -> str:
    return "floats" if kind in ("f32", "f64") else "packed"


def signs(kind: str) -> Iterator[VectorFile]:
    """``neg`` and ``abs``, of NaN too (an H200), and ``copysign``, which is of sign bits alone."""
    form = FORMATS[scalar_of(kind)[0]]
    for name in ("neg", "abs"):
        yield bitwise(f"{name}.{kind}", 1, partial(changed_sign, form, name))
        if kind in ("f32", "f16", "f16x2"):
            yield bitwise(f"{name}.ftz.{kind}", 1, partial(changed_sign, form, name, ftz=True))
    if kind in ("f32", "f64"):
        yield bitwise(f"copysign.{kind}", 2, lambda a, b: (a & form.sign) | (b & ~form.sign))


def changed_sign(form: Format, name: str, code: int, ftz: bool = False) -> int:
    if code & ~form.sign > form.infinity:
        return code | 1 << (form.mantissa - 1) if form.bits == 64 else form.nan
    if ftz and not mask(code >> form.mantissa, form.exponent):
        code &= form.sign
    return code ^ form.sign if name == "neg" else code & ~form.sign


def bitwise(opcode: str, sources: int, compute: Callable[..., int]) -> VectorFile:
    """Of the bits alone, so that NaN are kept."""
    kind = opcode.rpartition(".")[2]
    form = form_of(opcode, kind, sources, compute)
    if kind == "f64":
        form = replace(form, compute=lambda *v: (compute(*v),))
    return make(family(kind), opcode, form)


def extremes(kind: str) -> Iterator[VectorFile]:
    form = FORMATS[scalar_of(kind)[0]]
    forms = {
        "f64": ("",),
        "f32": (".xorsign.abs", ".NaN.xorsign.abs"),
    }.get(kind, ("", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"))
    if kind.startswith("f16"):
        forms += (".ftz", ".ftz.NaN")
    for name in ("min", "max"):
        for more in forms:
            opcode = f"{name}{more}.{kind}"
            compute = partial(chosen, name, more, form)
            yield make(family(kind), opcode, form_of(opcode, kind, 2, compute))


def extremes_of_three(name: str, more: str) -> VectorFile:
    """Of f32, with two sources as well where that form exists."""
    opcode = f"{name}{more}.f32"
    compute = partial(chosen, name, more, FORMATS["f32"])
    counts = (3,) if "abs" in more else (2, 3)
    return make("floats", opcode, *(form_of(opcode, "f32", n, compute) for n in counts))


def chosen(name: str, more: str, form: Format, *codes: int) -> int:
    values = [unpack(c, form, "ftz" in more) for c in codes]
    if "abs" not in more:
        return pack(exact.choose(name, values, "NaN" in more), form)
    sizes = [Real(v.kind, False, v.size) for v in values]
    best = exact.choose(name, sizes, "NaN" in more)
    if "xorsign" in more and best.kind != "nan":
        # A NaN has a sign, too, and it counts.
        best = Real(best.kind, bool((codes[0] ^ codes[1]) & form.sign), best.size)
    return pack(best, form)


def files() -> Iterator[VectorFile]:
    """Every file of this module."""
    for kind in ("f32", "f32x2", "f64"):
        for mode in ("", *MODES):
            yield from arithmetic(kind, mode)
    for mode in ("rn", "rm"):
        yield mad("f32", mode)
        yield mad("f64", mode)
    for kind in ("f16", "f16x2", "bf16", "bf16x2"):
        yield from halves(kind)
    for half in ("f16", "bf16"):
        for mode in ("", *MODES):
            yield from mixed(half, mode)
    for kind in ("f32", "f64", "f16", "f16x2", "bf16", "bf16x2"):
        yield from signs(kind)
        yield from extremes(kind)
    for name in ("min", "max"):
        for more in ("", ".ftz", ".NaN", ".abs", ".ftz.NaN.abs"):
            yield extremes_of_three(name, more)
