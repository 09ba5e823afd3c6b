"""``cvt``: every pair of types that Hopper has."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
from hopper_draw import (
    F32_SPECIALS,
    Draw,
    both_signs,
    f32_codes,
    f64_codes,
    half_codes,
    integer_codes,
)
from hopper_float import CANONICAL64
from hopper_kernel import Array, Arrays, Kernel
from hopper_pieces import Lanewise

COUNT = 1536
MODES = ("rn", "rz", "rm", "rp")
INTEGRAL = ("rni", "rzi", "rmi", "rpi")
WIDTH = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}
NARROW = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}


def narrow_codes(draw: Draw, count: int) -> Array:
    """f32 about the ranges of the narrow formats, many halfway between two of their values."""
    specials = np.array(both_signs(F32_SPECIALS, 32), np.uint32)
    wide = draw.wide(count, -30, 18).view(np.uint32)
    halfway = draw.wide(count, -30, 18).view(np.uint32) & np.uint32(0xFFFF0000)
    at_16 = halfway & np.uint32(0xFFF00000) | np.uint32(1 << 19)
    parts = [np.resize(specials, 256), wide[: count // 2], halfway, at_16]
    return np.concatenate(parts)[:count]


def from_f32() -> Iterator[Kernel]:
    """f32 to everything narrower."""
    draw = Draw("from f32")
    a, b = narrow_codes(draw, COUNT), np.roll(narrow_codes(draw, COUNT), 11)
    a32, _ = f32_codes(draw, 2, COUNT)
    inputs = {"a": np.concatenate([a, a32]), "b": np.concatenate([b, np.roll(a32, 5)])}
    forms = [
        f"cvt.{mode}{more}.{name}x2.f32 %d, %a, %b;"
        for name in ("f16", "bf16")
        for mode in ("rn", "rz")
        for more in ("", ".relu", ".satfinite", ".relu.satfinite")
    ]
    forms += [
        f"cvt.{mode}{more}.tf32.f32 %d, %a;" for mode in ("rn", "rz") for more in ("", ".relu")
    ]
    forms += ["cvt.rna.tf32.f32 %d, %a;", "cvt.rna.satfinite.tf32.f32 %d, %a;"]
    question = "f32 to bf16x2, f16x2 and tf32: roundings, overflow, NaN"
    yield Lanewise("convert/f32-to-pairs", question, forms, "b32", inputs).kernel()
    forms = [
        f"cvt.rn.satfinite{relu}.{name}x2.f32 %d, %a, %b;"
        for name in NARROW
        for relu in ("", ".relu")
    ]
    forms += [
        f"cvt.{mode}{more}.{name}.f32 %d, %a;"
        for name in ("f16", "bf16")
        for mode in ("rn", "rz")
        for more in ("", ".relu", ".satfinite")
    ]
    forms += [f"cvt.{mode}{more}.f16.f32 %d, %a;" for mode in ("rm", "rp") for more in ("", ".sat")]
    forms += ["cvt.rn.ftz.f16.f32 %d, %a;", "cvt.rm.bf16.f32 %d, %a;", "cvt.rp.bf16.f32 %d, %a;"]
    question = "f32 to e4m3x2, e5m2x2, f16 and bf16"
    yield Lanewise("convert/f32-to-16", question, forms, "b16", inputs).kernel()
    forms = [
        f"cvt.{mode}{ftz}.f32.f32 %d, %a;" for mode in INTEGRAL for ftz in ("", ".ftz", ".sat")
    ]
    forms += ["cvt.ftz.f32.f32 %d, %a;", "cvt.sat.f32.f32 %d, %a;"]
    yield Lanewise("convert/f32-to-f32", "f32 to whole numbers", forms, "b32", inputs).kernel()


def between_floats() -> Iterator[Kernel]:
    """16 and 64 bits."""
    for name in ("f16", "bf16"):
        codes = some_halves(7)
        forms = [f"cvt.f32.{name} %d, %a;"] + (["cvt.sat.f32.f16 %d, %a;"] if name == "f16" else [])
        if name == "bf16":
            # Which NaN a bf16 NaN becomes is not told.
            codes = codes[(codes & 0x7FFF) <= 0x7F80]
            codes = codes[: len(codes) // 32 * 32]
        question = f"{name} to f32"
        yield Lanewise(f"convert/{name}-to-f32", question, forms, "b32", {"a": codes}).kernel()
    codes = some_halves(7)
    forms = [
        f"{{ .reg .b32 %x; mov.b32 %x, {{%a, %a}}; cvt.rn.satfinite{relu}.{name}x2.f16x2 %d, %x; }}"
        for name in NARROW
        for relu in ("", ".relu")
    ]
    forms += [f"cvt.{mode}.f16.f16 %d, %a;" for mode in INTEGRAL] + ["cvt.sat.f16.f16 %d, %a;"]
    yield Lanewise("convert/f16-to-16", "f16 to fp8 and whole", forms, "b16", {"a": codes}).kernel()
    pairs = np.arange(256, dtype=np.uint16) | np.arange(255, -1, -1).astype(np.uint16) << np.uint16(
        8
    )
    forms = [f"cvt.rn{relu}.f16x2.{name}x2 %d, %a;" for name in NARROW for relu in ("", ".relu")]
    yield Lanewise(
        "convert/fp8-to-f16",
        "every e4m3 and e5m2",
        forms,
        "b32",
        {"a": pairs},
        expected=_plain(forms),
    ).kernel()
    wide = f64_codes(Draw("from f64"), 1, 1536)[0]
    draw = Draw("near f32")
    near = (1 + draw.unit(512)) * 2.0 ** draw.integers(-155, 130, 512)
    inputs = {"a": np.concatenate([wide, near.view(np.uint64)])}
    forms = [f"cvt.{mode}{ftz}.f32.f64 %d, %a;" for mode in MODES for ftz in ("", ".ftz")]
    yield Lanewise("convert/f64-to-f32", "f64 to f32", forms, "b32", inputs).kernel()
    forms = [f"cvt.{mode}.f64.f64 %d, %a;" for mode in INTEGRAL]
    yield Lanewise(
        "convert/f64-to-f64", "f64 to whole", forms, "b64", inputs, after=CANONICAL64
    ).kernel()


def some_halves(step: int) -> Array:
    """Every ``step``-th pattern of 16 bits."""
    codes = np.arange(0, 1 << 16, step).astype(np.uint16)
    return codes[: len(codes) // 32 * 32]


def _plain(forms: list[str]) -> dict[str, object]:
    """What ml_dtypes makes of the codes; its NaN are not PTX's."""

    def rule(name: str, relu: bool):  # type: ignore[no-untyped-def]
        def function(a: Array) -> Array:
            values = a.view(np.uint8).view(NARROW[name]).astype(np.float16)
            values = np.where(relu & (values.view(np.int16) < 0), np.float16(0), values)
            codes = np.where(np.isnan(values), np.uint16(0x7FFF), values.view(np.uint16))
            nan_of_zero = np.isnan(a.view(np.uint8).view(NARROW[name]).astype(np.float16))
            return np.where(nan_of_zero, np.uint16(0x7FFF), codes).view(np.uint32)

        return function

    return {form: rule("e4m3" if "e4m3" in form else "e5m2", "relu" in form) for form in forms}


def with_integers() -> Iterator[Kernel]:
    """Floats and integers."""
    draw = Draw("integers")
    limits = [127.5, 128, 255.5, 32767.5, 65535.5, 2**31, 2**32, 2**63, 2**64]
    edges = np.array([s * v for v in (0.5, 1.5, 2.5, *limits) for s in (1, -1)], np.float32)
    edges = edges.view(np.uint32)
    near = (draw.integers(-2000, 2000, 1000) / 8).astype(np.float32).view(np.uint32)
    singles = np.concatenate([f32_codes(draw, 1, COUNT)[0], np.resize(edges, 48), near])[:4096]
    wide = near[:512].view(np.float32).astype(np.float64)
    sources = {
        "f32": singles[: len(singles) // 32 * 32],
        "f16": half_codes(draw, "f16", 1, COUNT)[0],
        "bf16": half_codes(draw, "bf16", 1, COUNT)[0],
        "f64": np.concatenate([f64_codes(draw, 1, 1536)[0], wide.view(np.uint64)]),
    }
    for of, codes in sources.items():
        for bits in (16, 32, 64):
            forms = [f"cvt.{mode}.{k}{bits}.{of} %d, %a;" for k in "us" for mode in INTEGRAL]
            if bits == 16 and of in ("f32", "f16"):
                forms += [f"cvt.{mode}.{k}8.{of} %d, %a;" for k in "us" for mode in INTEGRAL]
            if of == "f32":
                forms += [f"cvt.rpi.ftz.{k}{bits}.f32 %d, %a;" for k in "us"]
            question = f"{of} to integers of {bits} bits: clamped, NaN"
            name = f"convert/{of}-to-int{bits}"
            yield Lanewise(name, question, forms, f"b{bits}", {"a": codes}).kernel()
    for bits in (16, 32, 64):
        codes = integer_codes(draw, bits, 1, COUNT)[0].astype(f"uint{bits}")
        for to, width in WIDTH.items():
            forms = [f"cvt.{mode}.{to}.{k}{bits} %d, %a;" for k in "us" for mode in MODES]
            if bits == 16 and to != "bf16":
                forms += [f"cvt.{mode}.{to}.{k}8 %d, %a;" for k in "us" for mode in MODES]
            name = f"convert/int{bits}-to-{to}"
            question = f"integers of {bits} bits to {to}, in all modes"
            yield Lanewise(name, question, forms, f"b{width}", {"a": codes}).kernel()


def between_integers() -> Iterator[Kernel]:
    """Chopped, extended and saturated."""
    for of in (16, 32, 64):
        codes = integer_codes(Draw("chop"), of, 1, COUNT)[0].astype(f"uint{of}")
        for to in (16, 32, 64):
            kinds = [(x, y) for x in "us" for y in "us"]
            # Where every value fits, ptxas refuses .sat.
            saturable = (
                [("u", "s")] if to > of else [(x, y) for x, y in kinds if (x, to) != (y, of)]
            )
            forms = [f"cvt.sat.{x}{to}.{y}{of} %d, %a;" for x, y in saturable]
            forms += [f"cvt.{x}{to}.{y}{of} %d, %a;" for x, y in kinds]
            if to == 16:
                forms += [f"cvt{s}.{x}8.{y}{of} %d, %a;" for x, y in kinds for s in ("", ".sat")]
            if of == 16:
                forms += [f"cvt.{x}{to}.{y}8 %d, %a;" for x, y in kinds]
            name = f"convert/int{of}-to-int{to}"
            question = "integers chopped, extended and saturated"
            yield Lanewise(name, question, forms, f"b{to}", {"a": codes}).kernel()


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    for part in (from_f32, between_floats, with_integers, between_integers):
        yield from part()


__all__ = ["Arrays", "kernels"]
