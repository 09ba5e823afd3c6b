"""Numbers for matrix products: whole ones, whose sums are exact, and others."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hopper_draw import Draw
from hopper_kernel import Array

TYPES: dict[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "f32": np.float32,
    "s8": np.int8,
    "u8": np.uint8,
    "s32": np.int32,
}
REGIMES = ("normal", "wide", "cancel", "ties", "tiny", "huge", "sparse", "special")
"""``normal``: a few units; ``wide``: exponents far apart; ``cancel``: sums near zero; ``ties``:
few bits; ``tiny``: subnormals; ``huge``: near the largest; ``sparse``: many zeros of both signs;
``special``: some infinities and NaN."""
_EXPONENTS = {
    # lowest of a subnormal, lowest of a normal number, highest
    "f16": (-24, -14, 15),
    "bf16": (-133, -126, 127),
    "tf32": (-136, -126, 127),
    "f32": (-149, -126, 127),
    "e4m3": (-9, -6, 8),
    "e5m2": (-16, -14, 15),
}


def whole_numbers(draw: Draw, kind: str, count: int) -> Array:
    """Small whole numbers of a type, as bytes of its codes."""
    reach = 3 if kind in ("e4m3", "e5m2") else 7
    values = draw.integers(0 if kind == "u8" else -reach, reach, count)
    return values.astype(np.float32).astype(TYPES[kind]).view(np.uint8)


def codes(draw: Draw, kind: str, regime: str, count: int, operand: str = "a") -> Array:
    """Numbers of one of :data:`REGIMES` for ``a``, ``b`` or ``c``, as bytes of their codes."""
    if regime in ("wide", "tiny", "huge"):
        exponent = draw.integers(*_reach(kind, regime, operand), count)
        sign = 1 - 2 * (draw.u32(count) & np.uint32(1)).astype(np.float64)
        values = sign * (1 + draw.unit(count)) * 2.0**exponent
    elif regime == "ties":
        values = draw.integers(-3, 3, count) * 2.0 ** draw.integers(-4, 3, count)
    elif regime == "cancel":
        first = draw.normal(count)
        values = np.where(np.arange(count) % 2 == 0, first, -np.roll(first, 1))
        values = values * (1 + 2.0**-7 * (draw.u32(count) % np.uint32(3)))
    else:
        values = draw.normal(count)
    if regime == "sparse":
        kept = draw.u32(count) % np.uint32(3) == 0
        values = np.where(kept, values, np.where(values < 0, -0.0, 0.0))
    with np.errstate(all="ignore"):
        made = values.astype(np.float32)
        limit = np.float32(ml_dtypes.finfo(TYPES[kind]).max)  # type: ignore[no-untyped-call]
        made = np.clip(made, -limit, limit).astype(TYPES[kind])
    return (_with_specials(draw, kind, made) if regime == "special" else made).view(np.uint8)


def _with_specials(draw: Draw, kind: str, made: Array) -> Array:
    some = draw.u32(len(made)) % np.uint32(41)
    with np.errstate(all="ignore"):
        for choice, value in enumerate((np.inf, -np.inf, np.nan)):
            made[some == choice] = np.array(value, np.float32).astype(TYPES[kind])
    return made


def _reach(kind: str, regime: str, operand: str) -> tuple[int, int]:
    """Exponents from the least to the largest, such that products and C are of one size."""
    least, lowest, highest = _EXPONENTS[kind]
    if regime == "wide":
        limit = 30 if operand == "c" else 20
        return max(lowest, -limit), min(highest, limit)
    if regime == "huge":
        top = highest if operand == "c" else min(highest, 63)
        return top - 2, top
    if operand == "b" and kind in ("bf16", "tf32"):
        return -3, 3
    return least, lowest + 2
