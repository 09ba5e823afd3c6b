"""Bulk reductions into global memory, held to Python's integers and fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from async_kernels import COMMIT, FENCE, FEW, WAIT_READ, aligned, check, kinds

from fa4gen.core.errors import UnsupportedInstruction

_BITS = {
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "f64": 64,
    "u32": 32,
    "s32": 32,
    "b32": 32,
    "u64": 64,
    "s64": 64,
    "b64": 64,
}
_NUMPY = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}
_FLOATS = {  # mantissa bits, least exponent of a normal number, greatest exponent
    "f16": (10, -14, 15),
    "bf16": (7, -126, 127),
    "f32": (23, -126, 127),
    "f64": (52, -1022, 1023),
}
_REDUCTIONS = [
    *((op, kind) for op in ("add",) for kind in ("u32", "s32", "u64", "f32", "f64", "f16", "bf16")),
    *((op, kind) for op in ("min", "max") for kind in ("u32", "s32", "u64", "s64", "f16", "bf16")),
    *((op, "u32") for op in ("inc", "dec")),
    *((op, kind) for op in ("and", "or", "xor") for kind in ("b32", "b64")),
]


def to_global(operation: str, kind: str) -> str:
    noftz = ".noftz" if operation == "add" and kind in ("f16", "bf16") else ""
    return (
        "shl.b32 %r1, %thr, 2; add.u32 %r2, %r1, %base;"
        + "ld.param.u64 %rd1, [in]; cvt.u64.u32 %rd2, %r1; add.u64 %rd1, %rd1, %rd2;"
        + "ld.global.u32 %r3, [%rd1]; st.shared.u32 [%r2], %r3;"
        + FENCE
        + "bar.sync 0; ld.param.u64 %rd4, [out];"
        + f"@%lead cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation}{noftz}.{kind}"
        + f" [%rd4], [%base], 512; {COMMIT} {WAIT_READ}"
    )


def scalar(operation: str, kind: str, old: Any, new: Any) -> Any:
    """One element, in Python's integers and fractions."""
    if kind in _FLOATS:
        return float_scalar(operation, kind, old, new)
    bits, signed = _BITS[kind], kind[0] == "s"
    if signed:
        old, new = (v - (1 << bits) if v >> (bits - 1) else v for v in (old, new))
    result = {
        "add": lambda: old + new,
        "min": lambda: min(old, new),
        "max": lambda: max(old, new),
        "inc": lambda: 0 if old >= new else old + 1,
        "dec": lambda: new if old == 0 or old > new else old - 1,
        "and": lambda: old & new,
        "or": lambda: old | new,
        "xor": lambda: old ^ new,
    }[operation]()
    return result & ((1 << bits) - 1)


def float_scalar(operation: str, kind: str, old: int, new: int) -> int:
    """The code of the sum, rounded once by hand, or of the lesser or greater number."""
    a, b = value(kind, old), value(kind, new)
    if operation == "add":
        return rounded_sum(kind, a, b)
    bits = _BITS[kind]
    if np.isnan(a) or np.isnan(b):
        return (1 << (bits - 1)) - 1 if np.isnan(a) and np.isnan(b) else new if np.isnan(a) else old
    if a == b:
        sign = 1 << (bits - 1)
        return (old | new) & sign | old & ~sign if operation == "min" else old & new
    return old if (a < b) == (operation == "min") else new


def value(kind: str, code: int) -> float:
    return float(np.array([code], f"u{_BITS[kind] // 8}").view(_NUMPY[kind])[0])


def code_of(kind: str, number: float) -> int:
    """Of a number that the type holds exactly, or an infinity."""
    return int(np.array([number]).astype(_NUMPY[kind]).view(f"u{_BITS[kind] // 8}")[0])


def rounded_sum(kind: str, a: float, b: float) -> int:
    mantissa, low, high = _FLOATS[kind]
    # Of f32, too, an H200 keeps subnormals, whatever the ISA says.
    if not (np.isfinite(a) and np.isfinite(b)):
        with np.errstate(invalid="ignore"):
            total = float(np.float64(a) + np.float64(b))
        return (1 << (_BITS[kind] - 1)) - 1 if np.isnan(total) else code_of(kind, total)
    exact = Fraction(a) + Fraction(b)
    if exact == 0:
        return code_of(kind, a + b)
    # Of the leading bit, or one less, which the comparison settles.
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    exponent = max(low, exponent - (abs(exact) < Fraction(2) ** exponent))
    unit = Fraction(2) ** (exponent - mantissa)
    rounded = round(exact / unit) * unit  # Python rounds halves to even
    if abs(rounded) >= Fraction(2) ** (high + 1):
        return code_of(kind, float(np.copysign(np.inf, float(exact))))
    return code_of(kind, float(abs(rounded))) | ((exact < 0) << (_BITS[kind] - 1))


def interesting(kind: str, seed: int) -> np.ndarray:
    """512 bytes: for floats near each other, with specials and subnormals among them."""
    rng = np.random.default_rng(seed)
    word = f"u{_BITS[kind] // 8}"
    codes = rng.integers(0, 1 << 62, 4096 // _BITS[kind], dtype=np.uint64).astype(word)
    if kind not in _FLOATS:
        codes[::3] >>= np.array(_BITS[kind] - 4, word)
        return codes
    mantissa, _, high = _FLOATS[kind]
    near = (np.uint64(high) << np.uint64(mantissa)) + codes.astype(np.uint64) % np.uint64(
        12 << mantissa
    )
    codes = np.where(rng.random(len(codes)) < 0.5, near, codes).astype(word)
    sign = np.uint64(1 << (_BITS[kind] - 1))
    infinity = (2 * high + 1) << mantissa
    few = [
        0,
        int(sign),
        1,
        int(sign) | 1,
        1 << mantissa,
        infinity,
        int(sign) | infinity,
        infinity | 1,
    ]
    codes[:8], codes[8:16] = np.array(few, np.uint64).astype(word), codes[8:16]
    rng.shuffle(codes[:16])
    if kind == "f64":  # whose NaN keep their payload, which nothing here predicts
        codes[(codes & ~sign) > infinity] = 1 << mantissa
    flip = (rng.random(len(codes)) < 0.5) * sign
    return codes ^ flip.astype(word)


@pytest.mark.parametrize(("operation", "kind"), _REDUCTIONS, ids=lambda value: value)
def test_reductions_into_global_memory(operation: str, kind: str) -> None:
    old, new = interesting(kind, 1), interesting(kind, 2)
    expected = np.array(
        [scalar(operation, kind, int(a), int(b)) for a, b in zip(old, new, strict=True)], old.dtype
    )
    data, out = aligned(512, "u1"), aligned(512, "u1")
    data[:], out[:] = new.view(np.uint8), old.view(np.uint8)
    check(
        to_global(operation, kind), out, expected, {"in": data}, policies=FEW, block=128, smem=1024
    )


def test_reductions_that_do_not_exist_are_refused() -> None:
    for suffix in ("min.f32", "add.s64", "add.f16", "inc.s32", "and.u32", "add.noftz.f32"):
        opcode = f"cp.reduce.async.bulk.global.shared::cta.bulk_group.{suffix}"
        body = f"ld.param.u64 %rd4, [out]; {opcode} [%rd4], [%base], 16;"
        with pytest.raises(UnsupportedInstruction):
            kinds(body, {"out": aligned(4, "u4")}, smem=64)
