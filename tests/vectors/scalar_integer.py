"""Vectors of integer arithmetic, by Python's integers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

from vector_file import Draw, Form, VectorFile, make

BITS = {f"{s}{n}": n for s in "bus" for n in (8, 16, 32, 64)}
INTS = ("u16", "u32", "u64", "s16", "s32", "s64")
WORDS = ("u32", "s32", "u64", "s64")
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1


def register(kind: str) -> str:
    return f"b{BITS[kind]}"


def integer(bits: int) -> Draw:
    """Extremes, few bits, or anything."""

    def draw(dice: random.Random) -> int:
        top = 1 << bits
        choice = dice.randrange(5)
        if choice == 0:
            return dice.choice((0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, top // 2 + 1))
        if choice == 1:
            return mask((1 << dice.randrange(bits)) + dice.choice((0, 1, -1)), bits)
        if choice == 2:
            return mask(dice.randrange(-300, 300), bits)
        return dice.randrange(top)

    return draw


def below(limit: int, wide: int = 0) -> Draw:
    """A number below ``limit``, or sometimes one of ``wide`` bits."""
    return lambda dice: dice.randrange(1 << wide if wide and not dice.randrange(6) else limit)


def flag(dice: random.Random) -> int:
    return dice.randrange(2)


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def number(value: int, kind: str) -> int:
    """The integer that the bits of a register mean."""
    return signed(value, BITS[kind]) if kind[0] == "s" else value


def mask(value: int, bits: int) -> int:
    return value & ((1 << bits) - 1)


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def names(sources: int) -> str:
    """One result and so many sources."""
    return ", ".join(["%d0", *(f"%s{at}" for at in range(sources))])


def same_type(opcode: str, kind: str, sources: int, function: Callable[..., int]) -> VectorFile:
    """An instruction whose result and sources have one type."""
    bits, reg = BITS[kind], register(kind)
    form = Form(
        f"{opcode} {names(sources)};",
        reg,
        " ".join([reg] * sources),
        [integer(bits)] * sources,
        lambda *v: (mask(function(*(number(x, kind) for x in v)), bits),),
    )
    return make("integer", opcode, form)


def packed(opcode: str, function: Callable[[int, int], int]) -> VectorFile:
    """An instruction on u16x2 or s16x2."""
    kind = opcode.rpartition(".")[2].removesuffix("x2")

    def compute(x: int, y: int) -> tuple[int]:
        low, high = (
            mask(function(number(mask(x >> at, 16), kind), number(mask(y >> at, 16), kind)), 16)
            for at in (0, 16)
        )
        return (low | high << 16,)

    text = f"{opcode} %d0, %s0, %s1;"
    return make("integer", opcode, Form(text, "b32", "b32 b32", [integer(32)] * 2, compute))


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def arithmetic(kind: str) -> Iterator[VectorFile]:
    """What every integer type has."""
    yield same_type(f"add.{kind}", kind, 2, lambda a, b: a + b)
    yield same_type(f"sub.{kind}", kind, 2, lambda a, b: a - b)
    yield same_type(f"min.{kind}", kind, 2, min)
    yield same_type(f"max.{kind}", kind, 2, max)
    yield same_type(f"sad.{kind}", kind, 3, lambda a, b, c: c + abs(a - b))
    yield division(f"div.{kind}", kind, truncated)
    yield division(f"rem.{kind}", kind, lambda a, b: a - b * truncated(a, b))
    if kind[0] == "s":
        yield same_type(f"neg.{kind}", kind, 1, lambda a: -a)
        yield same_type(f"abs.{kind}", kind, 1, abs)
    for mode in ("lo", "hi", "wide"):
        if (mode, BITS[kind]) != ("wide", 64):
            yield from products(kind, mode)


def saturating() -> Iterator[VectorFile]:
    """Packed types, ``.sat`` and ``.relu``."""
    yield same_type("add.sat.s32", "s32", 2, lambda a, b: clamp(a + b, LOWEST, HIGHEST))
    yield same_type("sub.sat.s32", "s32", 2, lambda a, b: clamp(a - b, LOWEST, HIGHEST))
    for kind in ("u16x2", "s16x2"):
        yield packed(f"add.{kind}", lambda a, b: a + b)
        yield packed(f"min.{kind}", min)
        yield packed(f"max.{kind}", max)
    yield same_type("min.relu.s32", "s32", 2, lambda a, b: max(0, min(a, b)))
    yield same_type("max.relu.s32", "s32", 2, lambda a, b: max(0, a, b))
    yield packed("min.relu.s16x2", lambda a, b: max(0, min(a, b)))
    yield packed("max.relu.s16x2", lambda a, b: max(0, a, b))


def division(opcode: str, kind: str, function: Callable[[int, int], int]) -> VectorFile:
    """What a division by zero gives is not specified, so there is none."""
    bits, reg = BITS[kind], register(kind)
    draw = integer(bits)
    lowest, minus_one = 1 << (bits - 1), (1 << bits) - 1
    form = Form(
        f"{opcode} %d0, %s0, %s1;",
        reg,
        f"{reg} {reg}",
        [draw, lambda dice: draw(dice) or 3],
        lambda a, b: (mask(function(number(a, kind), number(b, kind)), bits),),
        special=((lowest, minus_one), (minus_one, 2), (7, minus_one)),
    )
    return make("integer", opcode, form)


def part(a: int, b: int, kind: str, mode: str) -> int:
    """The product, or its upper half."""
    product = number(a, kind) * number(b, kind)
    return product >> BITS[kind] if mode == "hi" else product


def products(kind: str, mode: str) -> Iterator[VectorFile]:
    bits, reg = BITS[kind], register(kind)
    wide = 2 * bits if mode == "wide" else bits
    opcode = f"mul.{mode}.{kind}"
    form = Form(
        f"{opcode} {names(2)};",
        f"b{wide}",
        f"{reg} {reg}",
        [integer(bits)] * 2,
        lambda a, b: (mask(part(a, b, kind, mode), wide),),
    )
    yield make("integer", opcode, form)
    opcode = f"mad.{mode}.{kind}"
    form = Form(
        f"{opcode} {names(3)};",
        f"b{wide}",
        f"{reg} {reg} b{wide}",
        [integer(bits), integer(bits), integer(wide)],
        lambda a, b, c: (mask(part(a, b, kind, mode) + c, wide),),
    )
    yield make("integer", opcode, form)


def words(opcode: str, sources: int, function: Callable[..., int]) -> VectorFile:
    """An instruction on 32-bit registers; ``function`` of their bits."""
    registers = " ".join(["b32"] * sources)
    draws = [integer(32)] * sources
    form = Form(
        f"{opcode} {names(sources)};", "b32", registers, draws, lambda *v: (mask(function(*v), 32),)
    )
    return make("integer", opcode, form)


def saturated_high(a: int, b: int, c: int) -> int:
    return clamp((signed(a, 32) * signed(b, 32) >> 32) + signed(c, 32), LOWEST, HIGHEST)


def product24(a: int, b: int, kind: str, mode: str) -> int:
    x, y = (signed(mask(v, 24), 24) if kind == "s32" else mask(v, 24) for v in (a, b))
    return x * y >> 16 if mode == "hi" else x * y


def saturated24(a: int, b: int, c: int) -> int:
    high = signed(mask(product24(a, b, "s32", "hi"), 32), 32)
    return clamp(high + signed(c, 32), LOWEST, HIGHEST)


def products24() -> Iterator[VectorFile]:
    yield words("mad.hi.sat.s32", 3, saturated_high)
    yield words("mad24.hi.sat.s32", 3, saturated24)
    for kind in ("u32", "s32"):
        for mode in ("lo", "hi"):
            product = partial(product24, kind=kind, mode=mode)
            yield words(f"mul24.{mode}.{kind}", 2, product)
            yield words(f"mad24.{mode}.{kind}", 3, partial(plus, product))


def plus(product: Callable[[int, int], int], a: int, b: int, c: int) -> int:
    return mask(product(a, b), 32) + c


def parts(value: int, bits: int, kind: str) -> list[int]:
    """The elements of a register, lowest first."""
    found = [mask(value >> at, bits) for at in range(0, 32, bits)]
    return [signed(v, bits) for v in found] if kind == "s32" else found


def dot(a: int, b: int, c: int, kinds: tuple[str, str], bits: int, first: int) -> int:
    left = parts(a, bits, kinds[0])
    right = parts(b, 8, kinds[1])[first : first + len(left)]
    return c + sum(x * y for x, y in zip(left, right, strict=True))


def dot_products() -> Iterator[VectorFile]:
    for one in ("u32", "s32"):
        for other in ("u32", "s32"):
            function = partial(dot, kinds=(one, other))
            yield words(f"dp4a.{one}.{other}", 3, partial(function, bits=8, first=0))
            yield words(f"dp2a.lo.{one}.{other}", 3, partial(function, bits=16, first=0))
            yield words(f"dp2a.hi.{one}.{other}", 3, partial(function, bits=16, first=2))


# ---- carries: sums and differences of two or three registers' width ------------------------------


def chained(opcode: str, lines: tuple[str, ...], kind: str, sign: int) -> VectorFile:
    """A sum of as many words as there are lines; sources are the words of either, lowest first."""
    n, reg, count = BITS[kind], register(kind), len(lines)

    def compute(*v: int) -> tuple[int, ...]:
        left, right = (sum(x << n * at for at, x in enumerate(v[side::2])) for side in (0, 1))
        total = mask(left + sign * right, n * count)
        return tuple(mask(total >> n * at, n) for at in range(count))

    registers = " ".join([reg] * count), " ".join([reg] * (2 * count))
    draws = [integer(n)] * (2 * count)
    return make("carry", opcode, Form(lines, *registers, draws, compute, count=12))


def carries(kind: str) -> Iterator[VectorFile]:
    for first, second, sign in (("add", "addc", 1), ("sub", "subc", -1)):
        low = f"{first}.cc.{kind} %d0, %s0, %s1;"
        lines = (low, f"{second}.{kind} %d1, %s2, %s3;")
        yield chained(f"{first}.cc.{kind}", lines, kind, sign)
        yield chained(f"{second}.{kind}", lines, kind, sign)
        lines = (low, f"{second}.cc.{kind} %d1, %s2, %s3;", f"{second}.{kind} %d2, %s4, %s5;")
        yield chained(f"{second}.cc.{kind}", lines, kind, sign)
    for mode in ("lo", "hi"):
        yield carry_out(f"mad.{mode}.cc.{kind}", kind, mode)
        yield carry_through(f"madc.{mode}.{kind}", kind, mode)
        yield carry_through(f"madc.{mode}.cc.{kind}", kind, mode)


def carry_out(opcode: str, kind: str, mode: str) -> VectorFile:
    n, reg = BITS[kind], register(kind)

    def compute(a: int, b: int, c: int) -> tuple[int, int]:
        total = mask(part(a, b, kind, mode), n) + c
        return mask(total, n), total >> n

    lines = (f"{opcode} %d0, %s0, %s1, %s2;", f"addc.{kind} %d1, 0, 0;")
    form = Form(lines, f"{reg} {reg}", f"{reg} {reg} {reg}", [integer(n)] * 3, compute, count=12)
    return make("carry", opcode, form)


def carry_through(opcode: str, kind: str, mode: str) -> VectorFile:
    """A carry comes in from a sum, and what is left of it goes out."""
    n, reg = BITS[kind], register(kind)
    sets = ".cc." in opcode

    def compute(*v: int) -> tuple[int, int, int]:
        low = v[0] + v[1]
        total = mask(part(v[2], v[3], kind, mode), n) + v[4] + (low >> n)
        return mask(low, n), mask(total, n), (total if sets else low) >> n

    lines = (
        f"add.cc.{kind} %d0, %s0, %s1;",
        f"{opcode} %d1, %s2, %s3, %s4;",
        f"addc.{kind} %d2, 0, 0;",
    )
    registers = " ".join([reg] * 3), " ".join([reg] * 5)
    return make("carry", opcode, Form(lines, *registers, [integer(n)] * 5, compute, count=10))


def files() -> Iterator[VectorFile]:
    """Every file of this module."""
    for kind in INTS:
        yield from arithmetic(kind)
    yield from saturating()
    yield from products24()
    yield from dot_products()
    for kind in WORDS:
        yield from carries(kind)
