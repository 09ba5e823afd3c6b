"""Approximate functions: how far they are from the real ones, over whole binades on a GPU.

Their bits are nobody's promise, so a recording has the statistics, and a few values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from hopper_draw import F32_SPECIALS, Draw, both_signs
from hopper_kernel import Agreement, Array, Kernel, Launch, Output
from hopper_pieces import Lanewise

F64 = npt.NDArray[np.float64]
LEAST_NORMAL = 2.0**-126
BLOCK = 256


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
        2,
        "PTX ISA 9.7.3.13 to .22: 1 to 2 ulp",
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
        1 << 13,
        "PTX ISA 9.7.3.18 to .22: absolute bounds",
    ).kernel()


@dataclass(frozen=True)
class Sweep:
    """A function on very many arguments.

    Attributes:
        text: PTX that makes ``%d`` of ``%a``.
        exact: The function on float64.
        first, step, count: Arguments are the patterns ``first + i * step``.
        bits: Of argument and result: 32, or 16 of ``half``.
        half: ``f16`` or ``bf16``.
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
        kind = {"": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[self.half]
        nearest = np.asarray(exact.astype(kind).astype(np.float64))
        if not self.flushes:
            return nearest
        return np.where(np.abs(nearest) < LEAST_NORMAL, np.copysign(0.0, nearest), nearest)

    @property
    def flushes(self) -> bool:
        """Whether subnormals are zero."""
        return ".ftz" in self.text

    def statistics(self, results: Array) -> dict[str, Any]:
        """How far the results are from the exact ones."""
        at = np.arange(self.count)
        x, got = (decoded(v, self.half) for v in (self.arguments(at), results))
        with np.errstate(all="ignore"):
            if self.flushes:
                x = np.where(np.abs(x) < LEAST_NORMAL, np.copysign(0.0, x), x)
            wanted = np.asarray(self.exact(x))
            lowest = LEAST_NORMAL if self.flushes or not self.half else 2.0**-14
            mantissa, largest = {"": (23, 2.0**128), "f16": (10, 65520.0), "bf16": (7, 2.0**128)}[
                self.half
            ]
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
            "lost": int(np.isnan(ulps).sum()),
            "unusual_and_different": int(other.sum()),
        }


def decoded(codes: Array, half: str) -> F64:
    """Values of patterns."""
    with np.errstate(invalid="ignore"):
        return _decoded(codes, half)


def _decoded(codes: Array, half: str) -> F64:
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
    # Arguments of attention: scores less their maximum, from -127 to 0.
    yield Sweep("ex2.ftz-negative", "ex2.approx.ftz.f32 %d, %a;", np.exp2, 0xB4000000, 53, 1 << 22)
    # From 2^-31 to just below 2 pi, where the ISA has a bound.
    yield Sweep("sin-small", "sin.approx.f32 %d, %a;", np.sin, 0x30000000, 67, 1 << 22)
    yield Sweep("cos-small", "cos.approx.f32 %d, %a;", np.cos, 0x30000000, 67, 1 << 22)
    for half in ("f16", "bf16"):
        ftz = ".ftz" if half == "bf16" else ""
        for name, more in (("ex2", ftz), ("tanh", "")):
            text = f"{name}.approx{more}.{half} %d, %a;"
            yield Sweep(f"{name}-{half}", text, FUNCTIONS[name], 0, 1, 1 << 16, 16, half)
