"""Vectors of logic, shifts, bit fields, moves and addresses, by Python's integers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from scalar_integer import below, flag, integer, mask, names, signed
from vector_file import Draw, Form, VectorFile, make

LOGIC: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}
ONES = 0xFFFFFFFF
Cases = tuple[tuple[int, ...], ...]


def one_result(
    opcode: str,
    registers: str,
    draws: Sequence[Draw],
    compute: Callable[..., int],
    special: Cases = (),
) -> VectorFile:
    """An instruction whose registers are given, that of the result first."""
    result, *sources = registers.split()
    form = Form(
        f"{opcode} {names(len(sources))};",
        result,
        " ".join(sources),
        draws,
        lambda *v: (compute(*v),),
        special,
    )
    return make("bits", opcode, form)


# ---- logic ---------------------------------------------------------------------------------------


def logic(bits: int, kind: str, reg: str) -> Iterator[VectorFile]:
    draw = flag if bits == 1 else integer(bits)
    for name, function in LOGIC.items():
        yield one_result(f"{name}.{kind}", f"{reg} {reg} {reg}", [draw] * 2, function)
    yield one_result(f"not.{kind}", f"{reg} {reg}", [draw], lambda a: mask(~a, bits))
    if bits > 1:
        yield one_result(f"cnot.{kind}", f"{reg} {reg}", [draw], lambda a: int(a == 0), ((0,),))


def table_of_truth(table: int, *v: int) -> int:
    result = 0
    for at in range(32):
        index = sum((x >> at & 1) << place for x, place in zip(v, (2, 1, 0), strict=True))
        result |= (table >> index & 1) << at
    return result


def lop3(table: int) -> Form:
    text = f"lop3.b32 {names(3)}, {table:#x};"
    draws = [integer(32)] * 3
    return Form(
        text, "b32", "b32 b32 b32", draws, lambda *v: (table_of_truth(table, *v),), count=12
    )


def lop3_with_predicate(name: str, table: int, wanted: bool) -> Form:
    """``wanted``: the result of the logic itself, too."""

    def compute(*v: int) -> tuple[int, ...]:
        value = table_of_truth(table, *v[:3])
        truth = LOGIC[name](int(value != 0), v[3])
        return (value, truth) if wanted else (truth,)

    return Form(
        f"lop3.{name}.b32 {'%d0|%d1' if wanted else '_|%d0'}, %s0, %s1, %s2, {table:#x}, %s3;",
        "b32 pred" if wanted else "pred",
        "b32 b32 b32 pred",
        [*[integer(32)] * 3, flag],
        compute,
        special=((0, 0, 0, 0), (0, 0, 0, 1), (1, 1, 1, 0)),
    )


# ---- shifts --------------------------------------------------------------------------------------


def shift(opcode: str, kind: str, n: int) -> VectorFile:
    def compute(a: int, by: int = 5) -> tuple[int]:
        by = min(by, n)
        if opcode == "shl":
            return (mask(a << by, n),)
        return (mask((signed(a, n) if kind == "s" else a) >> by, n),)

    text = f"{opcode}.{kind}{n} %d0, %s0, "
    edges = ((mask(-2, n), n), (mask(-2, n), n - 1), (mask(-2, n), ONES))
    draws = [integer(n), below(n + 3, 32)]
    return make(
        "bits",
        f"{opcode}.{kind}{n}",
        Form(f"{text}%s1;", f"b{n}", f"b{n} b32", draws, compute, special=edges),
        Form(f"{text}5;", f"b{n}", f"b{n}", draws[:1], compute, count=8),
    )


def funnel_shift(side: str, mode: str) -> VectorFile:
    def compute(a: int, b: int, by: int) -> int:
        by = min(by, 32) if mode == "clamp" else by & 31
        both = a | b << 32
        return mask(both << by >> 32 if side == "l" else both >> by, 32)

    draws = [integer(32), integer(32), below(35, 32)]
    edges = tuple((0x12345678, 0x9ABCDEF0, n) for n in (0, 1, 31, 32, 33, ONES))
    return one_result(f"shf.{side}.{mode}.b32", "b32 b32 b32 b32", draws, compute, edges)


# ---- counts and fields ---------------------------------------------------------------------------


def counts(n: int) -> Iterator[VectorFile]:
    def one(opcode: str, function: Callable[[int], int], result: str = "b32") -> VectorFile:
        edges = ((0,), (mask(-1, n),), (1,), (1 << (n - 1),))
        return one_result(
            opcode, f"{result} b{n}", [integer(n)], lambda a: mask(function(a), n), edges
        )

    yield one(f"popc.b{n}", int.bit_count)
    yield one(f"clz.b{n}", lambda a: n - a.bit_length())
    yield one(f"brev.b{n}", lambda a: int(f"{a:0{n}b}"[::-1], 2), f"b{n}")
    for sign in "us":
        yield one(f"bfind.{sign}{n}", lambda a, sign=sign: mask(first_bit(a, n, sign), 32))
        yield one(
            f"bfind.shiftamt.{sign}{n}", lambda a, sign=sign: mask(shift_amount(a, n, sign), 32)
        )


def first_bit(a: int, n: int, sign: str) -> int:
    value = signed(a, n) if sign == "s" else a
    return (~value if value < 0 else value).bit_length() - 1


def shift_amount(a: int, n: int, sign: str) -> int:
    found = first_bit(a, n, sign)
    return n - 1 - found if found >= 0 else -1


def fields(n: int) -> Iterator[VectorFile]:
    place = [below(n + 4, 32), below(n + 4, 32)]
    edges = ((0, 0), (n - 1, 1), (0, n), (3, 0), (n, 5), (255, 255), (256, 8), (n - 4, 9))
    special = tuple((a, *e) for a in (mask(-3 << 7, n), 0x5A5A5A5A) for e in edges)
    for sign in "us":
        compute = partial(extracted, sign=sign, n=n)
        registers = f"b{n} b{n} b32 b32"
        yield one_result(f"bfe.{sign}{n}", registers, [integer(n), *place], compute, special)

    def insert(a: int, b: int, at: int, size: int) -> int:
        at, size = amounts(at, size, n)
        hole = mask(((1 << size) - 1) << at, n)
        return b & ~hole | (a << at) & hole

    special = tuple((mask(-1, n), 0x1234, *e) for e in edges)
    draws = [integer(n), integer(n), *place]
    yield one_result(f"bfi.b{n}", f"b{n} b{n} b{n} b32 b32", draws, insert, special)


def amounts(at: int, size: int, n: int) -> tuple[int, int]:
    """Position and length as far as they count: of numbers beyond 255 the 32-bit forms take the
    lowest byte, the 64-bit ones the whole (an H200)."""
    return (at & 255, size & 255) if n == 32 else (min(at, n), min(size, n))


def extracted(a: int, at: int, size: int, sign: str, n: int) -> int:
    at, size = amounts(at, size, n)
    field = mask(a >> at, size)
    last = a >> min(at + size - 1, n - 1) & 1 if size else 0
    if sign == "s" and last:
        field |= -1 << min(size, max(n - at, 0))
    return mask(field, n)


def masks(mode: str) -> Iterator[VectorFile]:
    amounts = [below(35, 32), below(35, 32)]

    def limit(n: int) -> int:
        return min(n, 32) if mode == "clamp" else n & 31

    def ones(a: int, b: int) -> int:
        return mask(((1 << limit(b)) - 1) << limit(a), 32)

    def extend(a: int, b: int, sign: str) -> int:
        n = limit(b)
        value = mask(a, n)
        return mask(signed(value, n) if sign == "s" and n else value, 32)

    edges = ((1, 2), (0, 32), (31, 1), (32, 4), (4, 31), (0, 0), (ONES, 1), (1, ONES))
    yield one_result(f"bmsk.{mode}.b32", "b32 b32 b32", amounts, ones, edges)
    special = tuple((0x80FF8081, b) for b in (0, 1, 8, 16, 31, 32, 33, ONES))
    for sign in "us":
        compute = partial(extend, sign=sign)
        draws = [integer(32), amounts[1]]
        yield one_result(f"szext.{mode}.{sign}32", "b32 b32 b32", draws, compute, special)


def nth(bits: int, base: int, offset: int) -> int:
    """The pseudo-code of PTX ISA 9.7.1.20."""
    offset = signed(offset, 32)
    if offset == 0:
        return base if bits >> base & 1 else ONES
    at, count, step = base, abs(offset) - 1, 1 if offset > 0 else -1
    while 0 <= at < 32:
        if bits >> at & 1:
            if count == 0:
                return at
            count -= 1
        at += step
    return ONES


def find_nth() -> VectorFile:
    special = tuple((0xAAAAAAAA, b, mask(o, 32)) for b, o in ((3, 1), (3, -1), (2, 1), (2, -1)))
    draws = [integer(32), below(32), lambda dice: mask(dice.randrange(-6, 7), 32)]
    return one_result("fns.b32", "b32 b32 b32 b32", draws, nth, special)


# ---- moves ---------------------------------------------------------------------------------------


def copies(kind: str, n: int, literal: str, value: int) -> Iterator[Form]:
    text = f"mov.{kind} %d0, "
    yield Form(f"{text}%s0;", f"b{n}", f"b{n}", [integer(n)], lambda a: (a,), count=6)
    lines = (f"{text}{literal};", f"mov.b{n} %d1, %s0;")
    yield Form(lines, f"b{n} b{n}", f"b{n}", [integer(n)], lambda a: (value, a), count=2)


def moves() -> Iterator[VectorFile]:
    for n in (16, 32, 64):
        for sign in "bus":
            forms = list(copies(f"{sign}{n}", n, "-5", mask(-5, n)))
            yield make("move", f"mov.{sign}{n}", *forms, *(packs(n) if sign == "b" else ()))
    yield make("move", "mov.f32", *copies("f32", 32, "0f3FC00000", 0x3FC00000))
    yield make("move", "mov.f64", *copies("f64", 64, "0d3FF8000000000000", 0x3FF8000000000000))
    yield make("move", "mov.b128", *packs(128))
    lines = ("mov.pred %d0, 1;", "mov.pred %d1, %s0;")
    yield make(
        "move",
        "mov.pred",
        Form("mov.pred %d0, %s0;", "pred", "pred", [flag], lambda a: (a,), count=8),
        Form(lines, "pred pred", "pred", [flag], lambda a: (1, a)),
    )


def packs(n: int) -> Iterator[Form]:
    """Unpacking and packing, the first element the least significant."""
    for count in (2, 4):
        if n // count >= 8 and (n, count) != (128, 4):
            yield from split_and_join(n, count)
    half = n // 2
    if half < 16:
        return
    for at, text in ((0, "{%d0, _}"), (1, "{_, %d0}")):
        yield Form(
            f"mov.b{n} {text}, %s0;",
            f"b{half}",
            f"b{n}",
            [integer(n)],
            partial(element, half, at),
            count=6,
        )
    if half < 64:
        text = f"mov.b{n} %d0, {{%s0, 0x4040}};"
        draws = [integer(half)]
        yield Form(text, f"b{n}", f"b{half}", draws, lambda a: (a | 0x4040 << half,), count=6)


def element(bits: int, at: int, a: int) -> tuple[int]:
    return (mask(a >> bits * at, bits),)


def split_and_join(n: int, count: int) -> Iterator[Form]:
    part = n // count
    regs = " ".join([f"b{part}"] * count)

    def split(a: int) -> tuple[int, ...]:
        return tuple(mask(a >> part * at, part) for at in range(count))

    def join(*v: int) -> tuple[int]:
        return (sum(x << part * at for at, x in enumerate(v)),)

    outs = ", ".join(f"%d{at}" for at in range(count))
    ins = ", ".join(f"%s{at}" for at in range(count))
    yield Form(f"mov.b{n} {{{outs}}}, %s0;", regs, f"b{n}", [integer(n)], split, count=12)
    yield Form(f"mov.b{n} %d0, {{{ins}}};", f"b{n}", regs, [integer(part)] * count, join, count=12)


def selections(n: int) -> Iterator[VectorFile]:
    reg = f"b{n}"
    for kind in (f"b{n}", f"u{n}", f"s{n}", *((f"f{n}",) if n > 16 else ())):
        draws = [integer(n), integer(n), flag]
        text = f"selp.{kind} %d0, %s0, "
        forms = [Form(f"{text}%s1, %s2;", reg, f"{reg} {reg} pred", draws, selected)]
        if kind == "f32":
            text = f"{text}0fFF800000, %s1;"
            draws = [integer(32), flag]
            forms.append(Form(text, reg, "b32 pred", draws, or_minus_infinity, count=8))
        yield make("move", f"selp.{kind}", *forms)
        opcode = f"slct.{kind}.s32"
        draws = [integer(n), integer(n), integer(32)]
        form = Form(f"{opcode} {names(3)};", reg, f"{reg} {reg} b32", draws, by_sign)
        yield make("move", opcode, form)


def selected(a: int, b: int, p: int) -> tuple[int]:
    return (a if p else b,)


def or_minus_infinity(a: int, p: int) -> tuple[int]:
    return (a if p else 0xFF800000,)


def by_sign(a: int, b: int, c: int) -> tuple[int]:
    return (a if signed(c, 32) >= 0 else b,)


def selection_by_float(ftz: str) -> VectorFile:
    def compute(a: int, b: int, c: int) -> tuple[int]:
        size, negative = c & 0x7FFFFFFF, c >> 31
        zero = size == 0 or (ftz and size < 1 << 23)
        return (a if size <= 0x7F800000 and (zero or not negative) else b,)

    codes = (0, 1 << 31, 1, 0x80000001, 0x807FFFFF, 0x80800000, 0x7F800000, 0xFF800000)
    special = tuple((1, 2, c) for c in (*codes, 0x7FC00000, 0xFFC00000, 0x7F800001))
    opcode = f"slct{ftz}.b32.f32"
    draws = [integer(32)] * 3
    form = Form(f"{opcode} {names(3)};", "b32", "b32 b32 b32", draws, compute, special=special)
    return make("move", opcode, form)


MODES = {
    "f4e": "3210 4321 5432 6543",
    "b4e": "5670 6701 7012 0123",
    "rc8": "0000 1111 2222 3333",
    "ecl": "3210 3211 3222 3333",
    "ecr": "0000 1110 2210 3210",
    "rc16": "1010 3232 1010 3232",
}
"""The table of PTX ISA 9.7.9.7: bytes of the result, highest first, for c = 0, 1, 2, 3."""


def picked(a: int, b: int, selectors: Sequence[int]) -> tuple[int]:
    both = (a | b << 32).to_bytes(8, "little")
    found = []
    for selector in selectors:
        byte = both[selector & 7]
        found.append((255 if byte >> 7 else 0) if selector & 8 else byte)
    return (int.from_bytes(bytes(found), "little"),)


def by_nibbles(a: int, b: int, c: int = 0x5410) -> tuple[int]:
    return picked(a, b, [c >> at & 15 for at in (0, 4, 8, 12)])


def permutations() -> Iterator[VectorFile]:
    draws = [integer(32)] * 3
    yield make(
        "move",
        "prmt.b32",
        Form(f"prmt.b32 {names(3)};", "b32", "b32 b32 b32", draws, by_nibbles),
        Form("prmt.b32 %d0, %s0, %s1, 0x5410;", "b32", "b32 b32", draws[:2], by_nibbles, count=6),
    )
    for mode, table in MODES.items():
        rows = [[int(at) for at in reversed(row)] for row in table.split()]
        special = tuple((0x33221100, 0x77665544, c) for c in range(4))
        form = Form(
            f"prmt.b32.{mode} {names(3)};",
            "b32",
            "b32 b32 b32",
            draws,
            lambda a, b, c, rows=rows: picked(a, b, rows[c & 3]),
            special=special,
        )
        yield make("move", f"prmt.b32.{mode}", form)


SHARED = 0xA0000000_00000000
"""Where the generic addresses of shared memory begin in the emulator."""
WINDOWS = (SHARED, 0xB0000000_00000000, 0xC0000000_00000000, 0x7F12_3450_0000)
"""Of shared memory, parameters and local memory; and an address of global memory."""


def address(dice: random.Random) -> int:
    low = dice.randrange(1 << 20)
    return dice.choice(WINDOWS) | low


def shared_address(dice: random.Random) -> int:
    return SHARED | dice.randrange(1 << 20)


def addresses() -> Iterator[VectorFile]:
    def one(opcode: str, result: str, draw: Draw, function: Callable[[int], int]) -> VectorFile:
        form = Form(
            f"{opcode} %d0, %s0;", result, "b64", [draw], lambda a: (function(a),), count=10
        )
        return make("move", opcode, form)

    offset = below(1 << 20)
    for space in ("shared", "shared::cta", "shared::cluster"):
        yield one(f"cvta.{space}.u64", "b64", offset, lambda a: a | SHARED)
        yield one(f"cvta.to.{space}.u64", "b64", shared_address, lambda a: mask(a, 32))
        yield one(f"isspacep.{space}", "pred", address, lambda a: int(a >> 32 == SHARED >> 32))
    for space in ("global", "local", "param"):
        yield one(f"cvta.{space}.u64", "b64", address, lambda a: a)
        yield one(f"cvta.to.{space}.u64", "b64", address, lambda a: a)
    yield one("isspacep.global", "pred", address, lambda a: int(a >> 60 in (0xB, 0)))
    yield one("isspacep.param", "pred", address, lambda a: int(a >> 60 == 0xB))
    yield one("isspacep.local", "pred", address, lambda a: int(a >> 60 == 0xC))
    yield one("isspacep.const", "pred", address, lambda a: 0)


def files() -> Iterator[VectorFile]:
    """Every file of this module."""
    for bits, kind in ((1, "pred"), (16, "b16"), (32, "b32"), (64, "b64")):
        yield from logic(bits, kind, kind)
    yield make("bits", "lop3.b32", *map(lop3, (0x80, 0xFE, 0x1A, 0x96, 0x00, 0xE8, 0x40)))
    for name in ("and", "or"):
        forms = lop3_with_predicate(name, 0x80, True), lop3_with_predicate(name, 0xC0, False)
        yield make("bits", f"lop3.{name}.b32", *forms)
    for n in (16, 32, 64):
        for opcode, kind in (("shl", "b"), ("shr", "b"), ("shr", "u"), ("shr", "s")):
            yield shift(opcode, kind, n)
    for side in "lr":
        yield funnel_shift(side, "clamp")
        yield funnel_shift(side, "wrap")
    for n in (32, 64):
        yield from counts(n)
        yield from fields(n)
    yield from masks("clamp")
    yield from masks("wrap")
    yield find_nth()
    yield from moves()
    for n in (16, 32, 64):
        yield from selections(n)
    yield selection_by_float("")
    yield selection_by_float(".ftz")
    yield from permutations()
    yield from addresses()
