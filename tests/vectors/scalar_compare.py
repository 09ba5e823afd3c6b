"""Vectors of comparisons and tests of floats and integers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from operator import and_, eq, ge, gt, le, lt, ne, or_, xor

import exact_reals as exact
from exact_reals import FORMATS, Format, Real, unpack
from scalar_float import code, doubled, register
from scalar_integer import flag, integer, mask, number
from vector_file import Draw, Form, VectorFile, make

FLOAT_OPERATORS = [
    *("eq", "ne", "lt", "le", "gt", "ge"),
    *("equ", "neu", "ltu", "leu", "gtu", "geu"),
    *("num", "nan"),
]
INTEGER_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    **{"eq": eq, "ne": ne, "lt": lt, "le": le, "gt": gt, "ge": ge},
    **{"lo": lt, "ls": le, "hi": gt, "hs": ge},
}
UNSIGNED_ONLY = ("lo", "ls", "hi", "hs")
JOIN: dict[str, Callable[[int, int], int]] = {"and": and_, "or": or_, "xor": xor}
TYPES = ("f32", "f64", "f16", "bf16", *(f"{s}{n}" for s in "bus" for n in (16, 32, 64)))
TRUE = {"f32": 0x3F800000, "f16": 0x3C00, "bf16": 0x3F80, "u32": 0xFFFFFFFF, "s32": 0xFFFFFFFF}
TRUE |= {"u16": 0xFFFF, "s16": 0xFFFF}

Test = Callable[[int, int], int]


def reg_of(kind: str) -> str:
    return register(kind) if kind in FORMATS else f"b{kind[1:]}"


def draw_of(kind: str) -> Draw:
    return code(kind) if kind in FORMATS else integer(int(kind[1:]))


def close(draw: Draw, count: int = 8) -> tuple[tuple[int, ...], ...]:
    """Pairs of equal values, which chance does not make."""
    dice = random.Random(7)
    values = [draw(dice) for _ in range(count)]
    return tuple((v, v) for v in values)


def truth(kind: str, operator: str, ftz: bool = False) -> Test:
    """1 or 0."""
    if kind in FORMATS:
        form = FORMATS[kind]
        return lambda a, b: int(exact.compare(operator, unpack(a, form, ftz), unpack(b, form, ftz)))
    test = INTEGER_OPERATORS[operator]
    return lambda a, b: int(test(number(a, kind), number(b, kind)))


def operators(kind: str) -> list[str]:
    if kind in FORMATS:
        return FLOAT_OPERATORS
    if kind[0] == "b":
        return ["eq", "ne"]
    return [o for o in INTEGER_OPERATORS if kind[0] == "u" or o not in UNSIGNED_ONLY]


def setp(kind: str, operator: str) -> VectorFile:
    opcode, reg, draw = f"setp.{operator}.{kind}", reg_of(kind), draw_of(kind)
    test, equal = truth(kind, operator), close(draw)
    draws = [draw, draw]
    sources = f"{reg} {reg}"
    text = f"{opcode} %d0, %s0, %s1;"
    plain = Form(text, "pred", sources, draws, lambda a, b: (test(a, b),), equal, count=20)
    if kind in ("f16", "bf16"):
        return make("compare", opcode, plain)

    def both(a: int, b: int) -> tuple[int, int]:
        return test(a, b), 1 - test(a, b)

    text = f"{opcode} %d0|%d1, %s0, %s1;"
    return make(
        "compare", opcode, plain, Form(text, "pred pred", sources, draws, both, equal[:2], count=6)
    )


def joined(kind: str, operator: str, name: str, ftz: str = "") -> VectorFile:
    """With a third source."""
    opcode = f"setp.{operator}.{name}{ftz}.{kind}"
    test, join = truth(kind, operator, bool(ftz)), JOIN[name]
    draws = [draw_of(kind), draw_of(kind), flag]
    sources = f"{reg_of(kind)} {reg_of(kind)} pred"

    def first(a: int, b: int, c: int) -> int:
        return join(test(a, b), c)

    def second(a: int, b: int, c: int) -> int:
        return join(1 - test(a, b), c)

    def form(results: str, text: str, compute: Callable[..., tuple[int, ...]], count: int) -> Form:
        return Form(f"{opcode} {text};", results, sources, draws, compute, count=count)

    return make(
        "compare",
        opcode,
        form("pred pred", "%d0|%d1, %s0, %s1, %s2", lambda *v: (first(*v), second(*v)), 24),
        form("pred", "%d0, %s0, %s1, !%s2", lambda a, b, c: (first(a, b, 1 - c),), 12),
        form("pred", "_|%d0, %s0, %s1, %s2", lambda *v: (second(*v),), 8),
    )


def flushed() -> VectorFile:
    opcode, test = "setp.lt.ftz.f32", truth("f32", "lt", ftz=True)
    text = f"{opcode} %d0, %s0, %s1;"
    small = (1, 2), (0x80000001, 0), (0, 1)
    form = Form(text, "pred", "b32 b32", [code("f32")] * 2, lambda a, b: (test(a, b),), small)
    return make("compare", opcode, form)


def of_halves(kind: str, function: Test) -> Callable[[int, int], tuple[int, int]]:
    """``function`` of the lower and of the upper elements."""
    return lambda a, b: (function(mask(a, 16), mask(b, 16)), function(a >> 16, b >> 16))


def packed(kind: str) -> Iterator[VectorFile]:
    """f16x2 and bf16x2: a predicate for either half."""
    element = kind.removesuffix("x2")
    draw = doubled(code(element), 16)
    for operator in FLOAT_OPERATORS:
        opcode = f"setp.{operator}.{kind}"
        text = f"{opcode} %d0|%d1, %s0, %s1;"
        compute = of_halves(kind, truth(element, operator))
        form = Form(text, "pred pred", "b32 b32", [draw] * 2, compute, close(draw), count=16)
        yield make("compare", opcode, form)
    compute = of_halves(kind, truth(element, "gt"))

    def flipped(a: int, b: int, c: int) -> tuple[int, int]:
        low, high = compute(a, b)
        return low ^ c, high ^ c

    opcode = f"setp.gt.xor.{kind}"
    text = f"{opcode} %d0|%d1, %s0, %s1, %s2;"
    form = Form(text, "pred pred", "b32 b32 pred", [draw, draw, flag], flipped)
    yield make("compare", opcode, form)


def set_(target: str, kind: str, operator: str) -> VectorFile:
    opcode, test, yes = f"set.{operator}.{target}.{kind}", truth(kind, operator), TRUE[target]
    draw = draw_of(kind)
    form = Form(
        f"{opcode} %d0, %s0, %s1;",
        "b16" if target in ("f16", "bf16", "u16") else "b32",
        f"{reg_of(kind)} {reg_of(kind)}",
        [draw, draw],
        lambda a, b: (test(a, b) * yes,),
        close(draw),
        count=16,
    )
    return make("compare", opcode, form)


def set_packed(target: str, kind: str, yes: int) -> VectorFile:
    element = kind.removesuffix("x2")
    compute = of_halves(kind, truth(element, "lt"))
    draw = doubled(code(element), 16)

    def both(a: int, b: int) -> tuple[int]:
        low, high = compute(a, b)
        return (low * yes | high * yes << 16,)

    opcode = f"set.lt.{target}.{kind}"
    return make(
        "compare", opcode, Form(f"{opcode} %d0, %s0, %s1;", "b32", "b32 b32", [draw] * 2, both)
    )


def sets() -> Iterator[VectorFile]:
    pairs = [("u32", kind) for kind in ("f32", "s32", "u64", "bf16")]
    pairs += [("f32", kind) for kind in ("f32", "f64", "s32")]
    pairs += [("s32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("u16", "f16")]
    pairs += [("f16", "f32"), ("bf16", "s32")]
    for target, kind in pairs:
        yield set_(target, kind, "ne")
        yield set_(target, kind, "lt")
    yield set_("u32", "b16", "eq")
    yield set_("u32", "b16", "ne")
    test = truth("f32", "ge")
    opcode = "set.ge.or.u32.f32"
    draws = [code("f32"), code("f32"), flag]
    text = f"{opcode} %d0, %s0, %s1, !%s2;"
    ones = TRUE["u32"]
    form = Form(text, "b32", "b32 b32 pred", draws, lambda a, b, c: ((test(a, b) | 1 - c) * ones,))
    yield make("compare", opcode, form)
    for kind, one in (("f16x2", 0x3C00), ("bf16x2", 0x3F80)):
        yield set_packed(kind, kind, one)
        yield set_packed("u32", kind, 0xFFFF)


TESTS: dict[str, Callable[[Real, Format], bool]] = {
    "finite": lambda x, f: x.kind == "finite",
    "infinite": lambda x, f: x.kind == "inf",
    "number": lambda x, f: x.kind != "nan",
    "notanumber": lambda x, f: x.kind == "nan",
    "normal": lambda x, f: x.kind == "finite" and (x.is_zero or x.size >= exact.power(1 - f.bias)),
    "subnormal": lambda x, f: x.kind == "finite" and 0 < x.size < exact.power(1 - f.bias),
}


def testp(name: str, kind: str) -> VectorFile:
    form, test = FORMATS[kind], TESTS[name]
    opcode = f"testp.{name}.{kind}"
    special = ((0,), (form.sign,), (1,), (form.sign | 1,), (form.infinity,), (form.nan,))
    return make(
        "compare",
        opcode,
        Form(
            f"{opcode} %d0, %s0;",
            "pred",
            register(kind),
            [code(kind)],
            lambda a: (int(test(unpack(a, form), form)),),
            special,
        ),
    )


def files() -> Iterator[VectorFile]:
    """Every file of this module."""
    for kind in TYPES:
        for operator in operators(kind):
            yield setp(kind, operator)
    yield flushed()
    for name in JOIN:
        yield joined("f32", "lt", name, ".ftz")
        yield joined("s32", "ge", name)
        yield joined("b64", "ne", name)
        yield joined("f64", "equ", name)
    yield from packed("f16x2")
    yield from packed("bf16x2")
    yield from sets()
    for kind in ("f32", "f64"):
        for name in TESTS:
            yield testp(name, kind)
