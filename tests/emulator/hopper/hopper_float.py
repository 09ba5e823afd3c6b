"""Float arithmetic: every rounding, ``.ftz``, ``.sat``, ``.relu`` and NaN rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hopper_draw import F32_SPECIALS, Draw, both_signs, f32_codes, f64_codes, half_codes
from hopper_kernel import Agreement, Kernel
from hopper_pieces import Lanewise

from fa4gen.numerics.approx import BOUNDS

COUNT = 2304
MODES = ("rn", "rz", "rm", "rp")
CANONICAL64 = " setp.nan.f64 %p2, %d, %d; @%p2 mov.b64 %d, 0x7ff8000000000000;"
"""PTX does not say which NaN f64 arithmetic makes."""
OPERATORS = [
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "equ",
    "neu",
    "ltu",
    "leu",
    "gtu",
    "geu",
    "num",
    "nan",
]
TESTS = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"]


def single(name: str, question: str, forms: list[str], arity: int, **more: object) -> Kernel:
    """Forms of f32 operands."""
    codes = f32_codes(Draw(name), arity, COUNT)
    inputs = dict(zip("abc", codes, strict=False))
    return Lanewise(f"float/{name}", question, forms, "b32", inputs, **more).kernel()  # type: ignore[arg-type]


def f32() -> Iterator[Kernel]:
    """f32."""
    variants = [
        f".{mode}{ftz}{sat}" for mode in MODES for ftz in ("", ".ftz") for sat in ("", ".sat")
    ]
    for name in ("add", "sub", "mul"):
        forms = [f"{name}{more}.f32 %d, %a, %b;" for more in variants]
        yield single(f"{name}-f32", f"{name}.f32: all roundings, ftz, sat, NaN", forms, 2)
    forms = [f"fma{more}.f32 %d, %a, %b, %c;" for more in variants]
    yield single("fma-f32", "fma.f32: one rounding, in all modes", forms, 3)
    forms = [f"div.{mode}{ftz}.f32 %d, %a, %b;" for mode in MODES for ftz in ("", ".ftz")]
    yield single("div-f32", "div.f32 is correctly rounded in all modes", forms, 2)
    forms = [
        f"{name}.{mode}{ftz}.f32 %d, %a;"
        for name in ("rcp", "sqrt")
        for mode in MODES
        for ftz in ("", ".ftz")
    ]
    yield single("roots-f32", "rcp and sqrt are correctly rounded in all modes", forms, 1)
    more = ("", ".ftz", ".NaN", ".ftz.NaN", ".xorsign.abs", ".NaN.xorsign.abs", ".ftz.xorsign.abs")
    forms = [f"{name}{each}.f32 %d, %a, %b;" for name in ("min", "max") for each in more]
    yield single("minmax-f32", "min and max: NaN, signed zeros, xorsign", forms, 2)
    forms = [f"{name}{ftz}.f32 %d, %a;" for name in ("neg", "abs") for ftz in ("", ".ftz")]
    forms += [
        f"{each} %d, %a, %b;" for each in ("copysign.f32", "add.f32", "mul.f32", "sub.ftz.f32")
    ]
    yield single(
        "signs-f32", "signs of NaN and of flushed values; no rounding named is rn", forms, 2
    )


def payloads() -> Iterator[Kernel]:
    """What becomes of the bits of a NaN."""
    draw = Draw("payloads")
    quiet = np.uint32(0x7F800000) | (draw.u32(96) & np.uint32(0x807FFFFF)) | np.uint32(1)
    a = np.concatenate([quiet, np.array(both_signs(F32_SPECIALS[-4:], 32) * 4, np.uint32)])
    b = np.full(len(a), 0x3FC00000, np.uint32)
    forms = [
        *("cvt.rn.bf16x2.f32 %d, %a, %b;", "cvt.rn.bf16x2.f32 %d, %b, %a;"),
        *("cvt.rz.bf16x2.f32 %d, %a, %b;", "cvt.rn.relu.bf16x2.f32 %d, %a, %b;"),
        *("cvt.rn.f16x2.f32 %d, %a, %b;", "cvt.rn.relu.f16x2.f32 %d, %a, %b;"),
        *("cvt.rna.tf32.f32 %d, %a;", "cvt.rn.tf32.f32 %d, %a;", "cvt.rn.relu.tf32.f32 %d, %a;"),
        *("add.f32 %d, %a, %b;", "fma.rn.f32 %d, %b, %b, %a;", "max.NaN.f32 %d, %a, %b;"),
        *("max.f32 %d, %a, %c;", "min.f32 %d, %a, %b;", "abs.f32 %d, %a;", "neg.f32 %d, %a;"),
        *("ex2.approx.ftz.f32 %d, %a;", "rcp.approx.ftz.f32 %d, %a;", "lg2.approx.f32 %d, %a;"),
    ]
    # c is a, which no assembler knows: it makes a move of max a, a.
    inputs = {"a": a, "b": b, "c": a}
    question = "ptx.md question 4: which NaN conversions and arithmetic give"
    yield Lanewise("float/nan-payload-32", question, forms, "b32", inputs).kernel()
    forms = [
        *("cvt.rn.bf16.f32 %d, %a;", "cvt.rz.bf16.f32 %d, %a;", "cvt.rn.f16.f32 %d, %a;"),
        *("cvt.rn.satfinite.e4m3x2.f32 %d, %a, %b;", "cvt.rn.satfinite.e5m2x2.f32 %d, %a, %b;"),
        *("cvt.rn.satfinite.relu.e4m3x2.f32 %d, %a, %b;", "cvt.rn.relu.bf16.f32 %d, %a;"),
    ]
    yield Lanewise("float/nan-payload-16", question, forms, "b16", inputs).kernel()
    wide = [
        *("cvt.f64.f32 %d, %a;", "{ .reg .b64 %x; cvt.f64.f32 %x, %a; add.f64 %d, %x, %x; }"),
        *("{ .reg .b64 %x; cvt.f64.f32 %x, %a; fma.rn.f64 %d, %x, %x, %x; }",),
    ]
    why = "the ISA leaves the NaN of f64 open"
    fact = Agreement.FACT
    inputs = {"a": a, "b": b}
    yield Lanewise("float/nan-payload-64", question, wide, "b64", inputs, fact, why=why).kernel()
    yield from wide_payloads(draw, question)


def wide_payloads(draw: Draw, question: str) -> Iterator[Kernel]:
    """The bits of a NaN of f64."""
    wide = np.uint64(0x7FF << 52) | draw.u64(128) & np.uint64(0x800FFFFFFFFFFFFF) | np.uint64(1)
    special = np.array([0x7FF << 52 | 1, 0x7FF8 << 48, 0x7FF << 52 | 1 << 29], np.uint64)
    a = np.concatenate([wide, np.resize(special, 16), np.resize(special, 16) | np.uint64(1 << 63)])
    b = np.full(len(a), 0x3FF8 << 48, np.uint64)
    inputs = {"a": a, "b": b, "c": a[::-1].copy()}
    forms = ["cvt.rn.f32.f64 %d, %a;", "cvt.rz.ftz.f32.f64 %d, %a;", "cvt.rp.sat.f32.f64 %d, %a;"]
    yield Lanewise("float/nan-payload-64-to-32", question, forms, "b32", inputs).kernel()
    forms = [f"cvt.{mode}.f16.f64 %d, %a;" for mode in MODES] + ["cvt.rn.bf16.f64 %d, %a;"]
    yield Lanewise("float/nan-payload-64-to-16", question, forms, "b16", inputs).kernel()
    forms = ["neg.f64 %d, %a;", "abs.f64 %d, %a;", "cvt.rni.f64.f64 %d, %a;"]
    forms += ["cvt.rzi.sat.f64.f64 %d, %a;", "sqrt.rn.f64 %d, %a;", "rcp.rn.f64 %d, %a;"]
    forms += [
        f"{name}.f64 %d, {x}, {y};"
        for name in ("add", "mul", "min", "max", "div.rn", "copysign")
        for x, y in (("%a", "%b"), ("%b", "%a"), ("%a", "%c"))
    ]
    forms += ["fma.rn.f64 %d, %a, %b, %b;", "fma.rn.f64 %d, %b, %b, %a;"]
    forms += ["rcp.approx.ftz.f64 %d, %a;", "rsqrt.approx.ftz.f64 %d, %a;"]
    more = {"agreement": Agreement.MODEL, "why": "the ISA leaves the NaN of f64 open"}
    yield Lanewise("float/nan-payload-f64", question, forms, "b64", inputs, **more).kernel()  # type: ignore[arg-type]
    # Which of several NaN, and which one comes of no NaN.
    several = ["fma.rn.f64 %d, %a, %c, %e;", "fma.rn.f64 %d, %a, %c, %b;", "div.rn.f64 %d, %a, %c;"]
    several += ["fma.rn.f64 %d, %a, %b, %c;", "fma.rn.f64 %d, %b, %a, %c;", "sub.f64 %d, %a, %c;"]
    several += ["sub.f64 %d, %b, %a;", "fma.rp.f64 %d, %a, %c, %e;", "mul.rz.f64 %d, %a, %c;"]
    inputs["e"] = np.roll(a, 50)
    yield Lanewise("float/nan-several-f64", question, several, "b64", inputs, **more).kernel()  # type: ignore[arg-type]
    values = [0, 1 << 63, 0x7FF << 52, 0xFFF << 52, 0x3FF << 52, 0xBFF << 52]
    pairs = np.resize(np.array(np.meshgrid(values, values), np.uint64).reshape(2, -1), (2, 64))
    forms = [f"{n}.f64 %d, %a, %b;" for n in ("add", "sub", "mul", "div.rn", "div.rz")]
    forms += ["fma.rn.f64 %d, %a, %b, %a;", "fma.rn.f64 %d, %a, %b, %b;", "sqrt.rn.f64 %d, %a;"]
    forms += ["sqrt.rp.f64 %d, %a;", "rsqrt.approx.ftz.f64 %d, %a;", "rsqrt.approx.f64 %d, %a;"]
    made = dict(zip("ab", pairs, strict=True))
    yield Lanewise("float/nan-made-f64", question, forms, "b64", made, **more).kernel()  # type: ignore[arg-type]


TINY = 480


def tiny() -> Iterator[Kernel]:
    """Products next to the least normal number: are they flushed before or after rounding?"""
    for name, mantissa, bias in (("f32", 23, 127), ("f16", 10, 15)):
        draw, one = Draw(f"tiny {name}"), 1 << mantissa
        kind = np.dtype(f"uint{16 if name == 'f16' else 32}")
        first = one + draw.integers(1, one - 1, TINY)
        # With the second factor the product is nearly a power of two, from either side.
        second = (2 * one * one) // first + draw.integers(-1, 1, TINY)
        second = np.clip(second, one, 2 * one - 1)
        exponent = draw.integers(-5, 5, TINY) - bias // 2
        scales = (exponent + bias, 1 - bias - 1 - exponent + bias)
        sign = draw.integers(0, 1, TINY) << (8 * kind.itemsize - 1)
        a, b = (
            (scale * one + factor - one).astype(kind)
            for scale, factor in zip(scales, (first, second), strict=True)
        )
        c = np.resize(np.array([0, 1, 3], kind), TINY)
        inputs = {"a": a | sign.astype(kind), "b": b, "c": c ^ np.roll(sign, 1).astype(kind)}
        modes = MODES if name == "f32" else ("rn",)
        flush = [f".{mode}{ftz}.{name}" for mode in modes for ftz in ("", ".ftz")]
        forms = [f"mul{each} %d, %a, %b;" for each in flush]
        forms += [f"fma{each} %d, %a, %b, %c;" for each in flush]
        question = f"{name} products that are subnormal before they are rounded, and not after"
        width = f"b{8 * kind.itemsize}"
        yield Lanewise(f"float/tiny-{name}", question, forms, width, inputs).kernel()
    # Just below 2^-126: 22 to 26 ones, and any bits behind them.
    ones = (np.arange(TINY) % 5 + 22).astype(np.uint64)
    behind = (Draw("tiny f64").u64(TINY) >> np.uint64(12)) | np.uint64(1)
    mantissa = ~((~behind << np.uint64(12)) >> ones) >> np.uint64(12)
    sign = np.resize(np.array([0, 1 << 63], np.uint64), TINY)
    near = np.uint64(0x380 << 52) | mantissa
    forms = [f"cvt.{mode}{ftz}.f32.f64 %d, %a;" for mode in MODES for ftz in ("", ".ftz")]
    question = "f64 that are subnormal f32 before they are rounded, and not after"
    yield Lanewise("float/tiny-f64-to-f32", question, forms, "b32", {"a": near | sign}).kernel()


def f64() -> Iterator[Kernel]:
    """f64, where a NaN is any NaN."""
    draw = Draw("f64")
    inputs = dict(zip("abc", f64_codes(draw, 3, 768), strict=True))
    forms = [f"{n}.{m}.f64 %d, %a, %b;" for n in ("add", "sub", "mul", "div") for m in MODES]
    forms += [f"fma.{m}.f64 %d, %a, %b, %c;" for m in MODES]
    forms += [f"{n}.{m}.f64 %d, %a;" for n in ("rcp", "sqrt") for m in MODES]
    question = "f64 arithmetic in all modes"
    yield Lanewise(
        "float/arithmetic-f64", question, forms, "b64", inputs, after=CANONICAL64
    ).kernel()
    forms = [f"{n}.f64 %d, %a, %b;" for n in ("min", "max")]
    yield Lanewise(
        "float/minmax-f64", "min and max of f64", forms, "b64", inputs, after=CANONICAL64
    ).kernel()


def halves() -> Iterator[Kernel]:
    """f16 and bf16, one and two in a register."""
    for name in ("f16", "bf16"):
        draw = Draw(name)
        codes = half_codes(draw, name, 3, COUNT)
        inputs = dict(zip("abc", codes, strict=True))
        flush = ("", ".ftz") if name == "f16" else ("",)
        after = ("", ".sat") if name == "f16" else ("",)
        forms = [
            f"{n}.rn{f}{s}.{name} %d, %a, %b;"
            for n in ("add", "sub", "mul")
            for f in flush
            for s in after
        ]
        fused = [f"{f}{s}" for f in flush for s in (*after, ".relu")]
        forms += [f"fma.rn{more}.{name} %d, %a, %b, %c;" for more in fused]
        yield Lanewise(
            f"float/arithmetic-{name}", f"{name} arithmetic rounds once", forms, "b16", inputs
        ).kernel()
        extremes = ["", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"]
        extremes += [".ftz", ".ftz.NaN"] if name == "f16" else []
        forms = [f"{n}{m}.{name} %d, %a, %b;" for n in ("min", "max") for m in extremes]
        forms += [f"{n}.{name} %d, %a;" for n in ("neg", "abs")]
        forms += [f"{n}.ftz.f16 %d, %a;" for n in ("neg", "abs")] if name == "f16" else []
        yield Lanewise(
            f"float/minmax-{name}", f"{name} min, max, neg and abs", forms, "b16", inputs
        ).kernel()
        packed = dict(zip("abc", (codes_of(v) for v in codes), strict=True))
        forms = [f"{n}.rn.{name}x2 %d, %a, %b;" for n in ("add", "sub", "mul")]
        forms += [f"fma.rn{m}.{name}x2 %d, %a, %b, %c;" for m in ("", ".relu")]
        forms += [f"{n}{m}.{name}x2 %d, %a, %b;" for n in ("min", "max") for m in ("", ".NaN")]
        forms += [f"{n}.{name}x2 %d, %a;" for n in ("neg", "abs")]
        yield Lanewise(
            f"float/packed-{name}x2", f"{name}x2 does both halves alike", forms, "b32", packed
        ).kernel()


def codes_of(
    values: np.ndarray[tuple[int], np.dtype[np.uint16]],
) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Each code with another one above it in a register."""
    return values.astype(np.uint32) | np.roll(values, 7).astype(np.uint32) << np.uint32(16)


def comparisons() -> Iterator[Kernel]:
    """Predicates of floats."""
    sources = {"f32": f32_codes(Draw("setp"), 2, COUNT), "f64": f64_codes(Draw("setp"), 2, COUNT)}
    for half in ("f16", "bf16"):
        sources[half] = half_codes(Draw("setp"), half, 2, COUNT)
    for kind, codes in sources.items():
        flush = (".ftz",) if kind in ("f32", "f16") else ()
        forms = [
            f"setp.{each}{ftz}.{kind} %d, %a, %b;" for ftz in ("", *flush) for each in OPERATORS
        ]
        if kind in ("f32", "f64"):
            forms += [f"testp.{test}.{kind} %d, %a;" for test in TESTS]
        inputs = dict(zip("ab", codes, strict=True))
        question = f"setp.{kind}: every operator, with NaN and signed zeros"
        yield Lanewise(f"float/setp-{kind}", question, forms, "pred", inputs).kernel()


def divisions() -> Iterator[Kernel]:
    """Approximate divisions: special cases exact, the rest within the ISA's bound."""
    draw = Draw("divisions")
    inputs = {
        "a": draw.wide(2048, -8, 8).view(np.uint32),
        "b": draw.wide(2048, -8, 8).view(np.uint32),
    }
    forms = [
        f"div.{how}{ftz}.f32 %d, %a, %b;" for how in ("approx", "full") for ftz in ("", ".ftz")
    ]
    why = "PTX ISA 9.7.3.8: 2 ulp"
    near, bounds = Agreement.NEAR, [BOUNDS["div"]] * len(forms)
    yield Lanewise(
        "float/div-approx", "div.approx and div.full", forms, "b32", inputs, near, bounds, why
    ).kernel()


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    for part in (f32, payloads, tiny, f64, halves, comparisons, divisions):
        yield from part()
