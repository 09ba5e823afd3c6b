"""Integer arithmetic, logic, bit fields and moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hopper_draw import Draw, integer_codes
from hopper_kernel import Agreement, Array, Kernel
from hopper_pieces import Lanewise

COUNT = 1536


def lanewise(
    name: str, question: str, forms: list[str], bits: int, result: str = "", **more: Any
) -> Kernel:
    """Forms of three operands of ``bits``, of which they may use fewer."""
    codes = integer_codes(Draw(name), bits, 3, COUNT)
    inputs: dict[str, Array] = {
        n: v.astype(f"uint{bits}") for n, v in zip("abc", codes, strict=True)
    }
    inputs |= more.pop("inputs", {})
    return Lanewise(
        f"integer/{name}", question, forms, result or f"b{bits}", inputs, **more
    ).kernel()


def arithmetic() -> Iterator[Kernel]:
    """Sums, products, extremes."""
    for bits in (16, 32, 64):
        kinds = (f"u{bits}", f"s{bits}")
        forms = [f"{n}.{k} %d, %a, %b;" for n in ("add", "sub", "min", "max") for k in kinds]
        forms += [f"mul.{m}.{k} %d, %a, %b;" for m in ("lo", "hi") for k in kinds]
        forms += [f"mad.{m}.{k} %d, %a, %b, %c;" for m in ("lo", "hi") for k in kinds]
        forms += [f"sad.{k} %d, %a, %b, %c;" for k in kinds]
        forms += [f"{n}.s{bits} %d, %a;" for n in ("neg", "abs")]
        if bits == 32:
            forms += ["add.sat.s32 %d, %a, %b;", "sub.sat.s32 %d, %a, %b;"]
            forms += ["mad.hi.sat.s32 %d, %a, %b, %c;", "max.relu.s32 %d, %a, %b;"]
            forms += [f"mul24.{m}.{k} %d, %a, %b;" for m in ("lo", "hi") for k in kinds]
            forms += [f"mad24.lo.{k} %d, %a, %b, %c;" for k in kinds]
            forms += [f"dp4a.{x}.{y} %d, %a, %b, %c;" for x in kinds for y in kinds]
            forms += [
                f"dp2a.{m}.{x}.{y} %d, %a, %b, %c;"
                for m in ("lo", "hi")
                for x in kinds
                for y in kinds
            ]
            forms += [
                f"{n}.{k}x2 %d, %a, %b;" for n in ("add", "min", "max") for k in ("u16", "s16")
            ]
        yield lanewise(f"arithmetic-{bits}", f"integer arithmetic of {bits} bits", forms, bits)
    forms = [f"mul.wide.{k} %d, %a, %b;" for k in ("u32", "s32")]
    forms += [
        f"{{ .reg .b64 %x; cvt.u64.u32 %x, %c; mad.wide.{k} %d, %a, %b, %x; }}"
        for k in ("u32", "s32")
    ]
    yield lanewise("wide", "products of twice the width", forms, 32, "b64")
    forms = [
        "{ .reg .b32 %x; add.cc.u32 %x, %a, %b; addc.u32 %d, %a, %c; }",
        "{ .reg .b32 %x; sub.cc.u32 %x, %a, %b; subc.u32 %d, %a, %c; }",
        "{ .reg .b32 %x; mad.lo.cc.u32 %x, %a, %b, %c; madc.hi.u32 %d, %a, %b, %c; }",
        "{ .reg .b32 %x; add.cc.u32 %x, %a, %b; addc.cc.u32 %x, %b, %c; addc.u32 %d, %x, 0; }",
        "{ .reg .b32 %x; sub.cc.u32 %x, %a, %b; subc.cc.u32 %x, %b, %c; subc.u32 %d, %x, 0; }",
        "{ .reg .b32 %x; add.cc.u32 %x, %a, %b; madc.lo.cc.u32 %x, %b, %c, %a;"
        " addc.u32 %d, %x, 0; }",
    ]
    yield lanewise("carry", "carries and borrows through a chain", forms, 32)


def divisions() -> Iterator[Kernel]:
    """Quotients; those by zero are what they are."""
    for bits in (16, 32, 64):
        draw = Draw(f"divide-{bits}")
        divisor = integer_codes(draw, bits, 1, COUNT)[0].astype(f"uint{bits}")
        divisor = np.where(divisor == 0, divisor.dtype.type(3), divisor)
        # The quotient of the least number by -1 cannot be represented.
        divisor = np.where(divisor == np.iinfo(divisor.dtype).max, divisor.dtype.type(7), divisor)
        forms = [f"{n}.{k}{bits} %d, %a, %b;" for n in ("div", "rem") for k in "us"]
        yield lanewise(
            f"divide-{bits}", f"div and rem of {bits} bits", forms, bits, inputs={"b": divisor}
        )
    numbers = np.array([0, 1, 7, 0x80000000, 0xFFFFFFFF, 12345, 0x7FFFFFFF, 2] * 4, np.uint32)
    by = np.array([0, 0xFFFFFFFF] * 16, np.uint32)
    forms = [f"{n}.{k}32 %d, %a, %b;" for n in ("div", "rem") for k in "us"]
    yield Lanewise(
        "integer/divide-undefined",
        "what division by zero and the least number by -1 give",
        forms,
        "b32",
        {"a": numbers, "b": by},
        Agreement.FACT,
        why="PTX ISA 9.7.1.8: unspecified",
    ).kernel()


def logic() -> Iterator[Kernel]:
    """Bits."""
    for bits in (16, 32, 64):
        forms = [f"{n}.b{bits} %d, %a, %b;" for n in ("and", "or", "xor")]
        forms += [f"{n}.b{bits} %d, %a;" for n in ("not", "cnot")]
        shift = "{{ .reg .b32 %n; cvt.u32.u{0} %n, %b; and.b32 %n, %n, 127; {1} %d, %a, %n; }}"
        opcodes = (f"shl.b{bits}", f"shr.u{bits}", f"shr.s{bits}")
        forms += [shift.format(bits, opcode) for opcode in opcodes]
        yield lanewise(f"logic-{bits}", f"logic and shifts of {bits} bits", forms, bits)
    small = "{{ .reg .b32 %x, %y; and.b32 %x, %b, 127; and.b32 %y, %c, 127; {} }}"
    tables = (0x80, 0xFE, 0x1A, 0x96, 0x00, 0xE8, 0x40, 0xCA, 0x27, 0xFF)
    forms = [f"lop3.b32 %d, %a, %b, %c, {table};" for table in tables]
    forms += [f"shf.{s}.{m}.b32 %d, %a, %b, %c;" for s in "lr" for m in ("clamp", "wrap")]
    forms += [
        f"prmt.b32{m} %d, %a, %b, %c;"
        for m in ("", ".f4e", ".b4e", ".rc8", ".ecl", ".ecr", ".rc16")
    ]
    forms += [small.format(f"bfe.{k}32 %d, %a, %x, %y;") for k in "us"]
    forms += [small.format("bfi.b32 %d, %a, %c, %x, %y;"), "bfi.b32 %d, %a, %b, %c, 9;"]
    forms += [small.format(f"bmsk.{m}.b32 %d, %x, %y;") for m in ("clamp", "wrap")]
    forms += [small.format(f"szext.{m}.{k}32 %d, %a, %x;") for m in ("clamp", "wrap") for k in "us"]
    forms += [f"{n}.b32 %d, %a;" for n in ("popc", "clz", "brev")]
    forms += [f"bfind{m}.{k}32 %d, %a;" for m in ("", ".shiftamt") for k in "us"]
    forms += [small.format("and.b32 %y, %y, 31; fns.b32 %d, %a, %y, 3;")]
    forms += [
        "selp.b32 %d, %a, %b, %p1;",
        "slct.b32.s32 %d, %a, %b, %c;",
        "slct.b32.f32 %d, %a, %b, %c;",
    ]
    forms += ["slct.ftz.b32.f32 %d, %a, %b, %c;", "cvt.pack.sat.u16.s32 %d, %a, %b;"]
    forms += ["cvt.pack.sat.s16.s32 %d, %a, %b;"]
    forms += [f"cvt.pack.sat.{k}8.s32.b32 %d, %a, %b, %c;" for k in "us"]
    chosen = Draw("chosen").u32(COUNT) & np.uint32(1) == 1
    yield lanewise(
        "bits-32", "bit fields, permutations and selections", forms, 32, inputs={"chosen": chosen}
    )
    small = (
        "{{ .reg .b32 %x, %y; cvt.u32.u64 %x, %b; cvt.u32.u64 %y, %c; "
        "and.b32 %x, %x, 127; and.b32 %y, %y, 127; {} }}"
    )
    forms = [small.format(f"bfe.{k}64 %d, %a, %x, %y;") for k in "us"]
    forms += [small.format("bfi.b64 %d, %a, %c, %x, %y;"), "brev.b64 %d, %a;"]
    forms += [
        f"{{ .reg .b32 %x; {n} %x, %a; cvt.u64.u32 %d, %x; }}"
        for n in ("popc.b64", "clz.b64", "bfind.u64", "bfind.s64", "bfind.shiftamt.u64")
    ]
    yield lanewise("bits-64", "bit fields of 64 bits", forms, 64)


def comparisons() -> Iterator[Kernel]:
    """Predicates of integers."""
    for bits in (16, 32, 64):
        forms = [f"setp.{o}.s{bits} %d, %a, %b;" for o in ["eq", "ne", "lt", "le", "gt", "ge"]]
        forms += [
            f"setp.{o}.u{bits} %d, %a, %b;"
            for o in ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"]
        ]
        forms += [f"setp.lt.{join}.s{bits} %d|%p3, %a, %b, !%p1;" for join in ("and", "or", "xor")]
        forms += [f"setp.lt.{j}.s{bits} %p3|%d, %a, %b, %p1;" for j in ("and", "or", "xor")]
        chosen = Draw("compared").u32(COUNT) & np.uint32(1) == 1
        yield lanewise(
            f"setp-{bits}", "integer comparisons", forms, bits, "pred", inputs={"chosen": chosen}
        )


PLAIN: dict[str, Callable[..., Array]] = {
    "add.u32 %d, %a, %b;": lambda a, b: a + b,
    "mul.lo.u32 %d, %a, %b;": lambda a, b: a * b,
    "xor.b32 %d, %a, %b;": lambda a, b: a ^ b,
    "min.s32 %d, %a, %b;": lambda a, b: np.minimum(a.view("i4"), b.view("i4")).view("u4"),
    "mul.hi.u32 %d, %a, %b;": lambda a, b: (a.astype("u8") * b >> np.uint64(32)).astype("u4"),
}


def plain() -> Iterator[Kernel]:
    """Some instructions that NumPy has, too."""
    a, b = (v.astype(np.uint32) for v in integer_codes(Draw("plain"), 32, 2, COUNT))
    yield Lanewise(
        "integer/plain",
        "that the way of running kernels is right: NumPy gives the same",
        list(PLAIN),
        "b32",
        {"a": a, "b": b},
        expected=dict(PLAIN),
    ).kernel()


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    for part in (arithmetic, divisions, logic, comparisons, plain):
        yield from part()
