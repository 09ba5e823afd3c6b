"""Approximate functions: how far they are from the real ones, over whole binades on a GPU.

Their bits are nobody's promise, so a recording has the statistics, and a few values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from hopper_draw import F32_SPECIALS, Draw, both_signs
from hopper_kernel import Agreement, Array, Kernel, Launch, Output
from hopper_pieces import Lanewise

from fa4gen.numerics import approx, mufu
from fa4gen.numerics.approx import BOUNDS, KNOWN, Bound
from fa4gen.numerics.arrays import F32, HalfName

F64 = npt.NDArray[np.float64]
LEAST_NORMAL = 2.0**-126
BLOCK = 256
SIZES = {"": (23, 2.0**128), "f16": (10, 65520.0), "bf16": (7, 2.0**128), "f64": (20, 2.0**1023)}
"""Bits of the mantissa, and where infinity begins."""


def kernels() -> Iterator[Kernel]:
    """The functions whose error has a bound in ulp, on special values and others."""
    draw = Draw("mufu")
    ordinary = draw.wide(200, -6, 6).view(np.uint32)
    codes = np.concatenate([np.array(both_signs(F32_SPECIALS, 32), np.uint32), ordinary])
    names = ("ex2", "rcp", "rsqrt", "sqrt")
    forms = [f"{name}.approx{ftz}.f32 %d, %a;" for name in names for ftz in ("", ".ftz")]
    yield Lanewise(
        "float/mufu",
        "ex2, rcp, rsqrt and sqrt: special cases, and errors within the ISA's bounds",
        forms,
        "b32",
        {"a": codes},
        Agreement.NEAR,
        [BOUNDS[form.partition(".")[0]] for form in forms],
        "the tables of MUFU are not public",
    ).kernel()
    least = np.array(both_signs([0, 1, 0x7F800000, 0x7FC00000, 0x3F800000], 32) * 4, np.uint32)[:32]
    forms = [f"{n}.approx{ftz}.f32 %d, %a;" for n in ("lg2", "sin", "cos") for ftz in ("", ".ftz")]
    forms += ["tanh.approx.f32 %d, %a;"]
    yield Lanewise(
        "float/mufu-special",
        "lg2, sin, cos and tanh: zeros, subnormals, infinities, NaN",
        forms,
        "b32",
        {"a": least},
        Agreement.NEAR,
        [BOUNDS[form.partition(".")[0]] for form in forms],
        "the tables of MUFU are not public",
    ).kernel()


@dataclass(frozen=True)
class Sweep:
    """A function on very many arguments.

    Attributes:
        text: PTX that makes ``%d`` of ``%a``.
        exact: The function on float64.
        first, step, count: Arguments are the patterns ``first + i * step``.
        bits: Of argument and result: 32, or 16 of ``half``.
        half: ``f16`` or ``bf16``, or ``f64`` where patterns are the upper half of one.
    """

    name: str
    text: str
    exact: Callable[[F64], F64]
    first: int
    step: int
    count: int
    bits: int = 32
    half: str = ""

    def kernel(self) -> Kernel:
        """For a GPU alone: it would take the emulator too long."""
        size = self.bits // 8
        body = f".reg .b{self.bits} %arg, %res; .reg .b64 %at; mad.wide.u32 %at, %id, {size}, %d;\n"
        body += f"mad.lo.u32 %r10, %id, {self.step}, {self.first};\n"
        body += "mov.b32 %arg, %r10;\n" if self.bits == 32 else "cvt.u16.u32 %arg, %r10;\n"
        body += self.text.replace("%d", "%res").replace("%a,", "%arg,").replace("%a;", "%arg;")
        body += f"\nst.global.b{self.bits} [%at], %res;\n"
        return Kernel(
            name=f"sweep/{self.name}",
            question=f"the error of {self.text.partition(' ')[0]}",
            body=body,
            outputs={"d": Output((self.count,), f"uint{self.bits}", Agreement.FACT)},
            launch=Launch(block=BLOCK, grid=(self.count // BLOCK, 1, 1)),
            why="approximate",
            only_gpu="millions of values",
        )

    def arguments(self, at: Array) -> Array:
        """The patterns of arguments by number."""
        patterns = (self.first + at.astype(np.uint64) * np.uint64(self.step)) & np.uint64(
            0xFFFFFFFF
        )
        return patterns.astype(f"uint{self.bits}")

    def _nearest(self, exact: F64) -> F64:
        """The floats of the result's type next to exact values, subnormals flushed."""
        kinds = {"": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "f64": np.float64}
        kind = kinds[self.half]
        nearest = np.asarray(exact.astype(kind).astype(np.float64))
        if not self.flushes:
            return nearest
        return np.where(np.abs(nearest) < LEAST_NORMAL, np.copysign(0.0, nearest), nearest)

    @property
    def function(self) -> str:
        """Of :data:`FUNCTIONS`."""
        return self.name.partition("-")[0].partition(".")[0]

    @property
    def bound(self) -> Bound:
        """How far the results may be from the model's."""
        sort = {"": "", "f64": ".f64"}.get(self.half, ".half")
        return BOUNDS[self.function + sort]

    def model(self, codes: Array) -> F64:
        """What the emulator gives."""
        return decoded(self.codes(codes), self.half)

    @property
    def known(self) -> bool:
        """Whether the emulator claims the bits."""
        sort = {"": "", "f64": ".f64"}.get(self.half, ".half")
        return self.function + sort in KNOWN

    def codes(self, arguments: Array) -> Array:
        """The patterns that the emulator gives."""
        if self.half == "f64":
            upper = (arguments.astype(np.uint64) << np.uint64(32)).view(np.float64)
            wide: F64 = getattr(mufu, f"{self.function}64")(upper)
            return (wide.view(np.uint64) >> np.uint64(32)).astype(np.uint32)
        if self.half:
            name: HalfName = "f16" if self.half == "f16" else "bf16"
            if self.function == "tanh":
                return approx.tanh_half(arguments, name)
            return approx.ex2_half(arguments, name, self.flushes)
        x = arguments.view(np.float32)
        if self.function == "tanh":
            return approx.tanh(x).view(np.uint32)
        made: F32 = getattr(approx, self.function)(x, self.flushes)
        return made.view(np.uint32)

    def beyond(self, results: Array, at: Array) -> int:
        """How many results are further from the model than :attr:`bound`."""
        lowest = {"f16": -14, "f64": -1022}.get(self.half, -126)
        with np.errstate(all="ignore"):
            model, got = self.model(self.arguments(at)), decoded(results, self.half)
            close = self.bound.holds(model, got, SIZES[self.half][0], lowest)
        return int((~close).sum())

    @property
    def flushes(self) -> bool:
        """Whether subnormals are zero."""
        return ".ftz" in self.text

    def kept_places(self, count: int) -> Array:
        """Which of the results a recording has."""
        return np.linspace(0, self.count - 1, count).astype(np.int64)

    def statistics(self, results: Array) -> dict[str, Any]:
        """How far the results are from the exact ones."""
        at = np.arange(self.count)
        x, got = (decoded(v, self.half) for v in (self.arguments(at), results))
        with np.errstate(all="ignore"):
            if self.flushes:
                x = np.where(np.abs(x) < LEAST_NORMAL, np.copysign(0.0, x), x)
            wanted = np.asarray(self.exact(x))
            lowest = LEAST_NORMAL if self.flushes or not self.half else 2.0**-14
            mantissa, largest = SIZES[self.half]
            usual = np.isfinite(wanted) & (np.abs(wanted) >= lowest) & (np.abs(wanted) < largest)
            ulp = 2.0 ** (np.floor(np.log2(np.abs(wanted[usual]))) - mantissa)
            error = np.abs(got[usual] - wanted[usual])
            ulps = error / ulp
            nearest = self._nearest(wanted)
            other = ~usual & ~((got == nearest) | (np.isnan(got) & np.isnan(nearest)))
        worst = int(np.flatnonzero(usual)[np.nanargmax(ulps)])
        return {
            "count": self.count,
            "max_ulp": round(float(np.nanmax(ulps)), 4),
            "mean_ulp": round(float(np.nanmean(ulps)), 5),
            "max_absolute": float(np.nanmax(error)),
            "max_relative": float(np.nanmax(error / np.abs(wanted[usual]))),
            "rounded_right": round(float((ulps <= 0.5).mean()), 6),
            "worst": f"{int(self.arguments(np.array([worst]))[0]):#x}",
            "beyond_bound": self.beyond(results, at),
            "lost": int(np.isnan(ulps).sum()),
            "unusual_and_different": int(other.sum()),
        }


KEPT_WHOLE = ("-binade", "-fine", "-f16", "-bf16")
"""How the names of sweeps end whose neighbouring values differ by little: worth keeping whole."""


def keep(folder: Path, name: str, results: Array) -> None:
    """Write all results of a sweep, as differences of neighbours, which compress well."""
    if not name.endswith(KEPT_WHOLE):
        return
    folder.mkdir(parents=True, exist_ok=True)
    steps = np.diff(results.astype(np.int64), prepend=0)
    small = steps.astype(np.int8)
    odd = np.flatnonzero(steps != small)
    np.savez_compressed(folder / f"{name}.npz", steps=small, at=odd, odd=steps[odd])


def kept(folder: Path, name: str) -> Array:
    """What :func:`keep` wrote."""
    with np.load(folder / f"{name}.npz") as found:
        steps = found["steps"].astype(np.int64)
        steps[found["at"]] = found["odd"]
    made: Array = np.cumsum(steps)
    return made


def decoded(codes: Array, half: str) -> F64:
    """Values of patterns."""
    with np.errstate(invalid="ignore"):
        return _decoded(codes, half)


def _decoded(codes: Array, half: str) -> F64:
    if half == "f64":
        return np.asarray((codes.astype(np.uint64) << np.uint64(32)).view(np.float64))
    if half == "f16":
        return np.asarray(codes.view(np.float16).astype(np.float64))
    if half == "bf16":
        return np.asarray(
            (codes.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        )
    return np.asarray(codes.view(np.float32).astype(np.float64))


FUNCTIONS: dict[str, Callable[[F64], F64]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "rcp": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}
ONE, ROUND = 0x3F800000, 1 << 23
UPPER = (
    "mov.u32 %r11, 0; mov.b32 %r12, %a; mov.b64 %rd10, {{%r11, %r12}};"
    " {name}.approx.ftz.f64 %rd10, %rd10; mov.b64 {{%r11, %r12}}, %rd10; mov.b32 %d, %r12;"
)
"""The upper half of an f64, of which alone the result depends (PTX ISA 9.7.3.14, .17)."""
WHOLE = (0, 1021, 1 << 22)
"""Patterns of every kind: the step has no factor in common with their number."""


def sweeps() -> Iterator[Sweep]:
    """[1, 2), or [1, 4) for the roots, value by value; and patterns of every kind."""
    for name, function in FUNCTIONS.items():
        for ftz in ("", ".ftz") if name != "tanh" else ("",):
            text = f"{name}.approx{ftz}.f32 %d, %a;"
            part = f"{name}{ftz}"
            count = 2 * ROUND if "sqrt" in name else ROUND
            if ftz or name == "tanh":
                yield Sweep(f"{part}-binade", text, function, ONE, 1, count)
            yield Sweep(f"{part}-whole", text, function, *WHOLE)
    # Finer than a unit of 2^-23, and negative: what is made of them before the table?
    for name in ("ex2", "sin", "cos"):
        text = f"{name}.approx.ftz.f32 %d, %a;"
        for place, first in (("half", 0x3F000000), ("16th", 0x3D800000), ("minus", 0xBF800000)):
            yield Sweep(f"{name}.ftz-{place}-fine", text, FUNCTIONS[name], first, 1, 1 << 19)
    # Arguments of attention: scores less their maximum, from -127 to 0.
    yield Sweep("ex2.ftz-negative", "ex2.approx.ftz.f32 %d, %a;", np.exp2, 0xB4000000, 53, 1 << 22)
    # From 2^-31 to just below 2 pi, where the ISA has a bound.
    yield Sweep("sin-small", "sin.approx.f32 %d, %a;", np.sin, 0x30000000, 67, 1 << 22)
    yield Sweep("cos-small", "cos.approx.f32 %d, %a;", np.cos, 0x30000000, 67, 1 << 22)
    for name in ("rcp", "rsqrt"):
        count = 1 << (21 if name == "rsqrt" else 20)
        text = UPPER.format(name=name)
        yield Sweep(f"{name}.f64-fine", text, FUNCTIONS[name], 0x3FF00000, 1, count, half="f64")
    for half in ("f16", "bf16"):
        ftz = ".ftz" if half == "bf16" else ""
        for name, more in (("ex2", ftz), ("tanh", "")):
            text = f"{name}.approx{more}.{half} %d, %a;"
            yield Sweep(f"{name}-{half}", text, FUNCTIONS[name], 0, 1, 1 << 16, 16, half)
