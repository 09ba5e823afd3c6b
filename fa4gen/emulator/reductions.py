"""What bulk reductions do to the bytes of their destination.

Source: PTX ISA 9.1, section 9.7.9.25.4.2: which operation exists for which type, and that f16 and
bf16 additions keep subnormals. Those of f32 into global memory should flush them, it says, but an
H200 keeps them (``bulk/reduce-f32`` of tests/emulator/hopper), and so does this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.numerics.arrays import U32, HalfName
from fa4gen.numerics.half import add16
from fa4gen.numerics.ieee import add32
from fa4gen.numerics.minmax import minmax16

Values: TypeAlias = npt.NDArray[np.generic]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Reduction: TypeAlias = Callable[[Bytes, Bytes], Bytes]
"""``new = combine(old, data)``: bytes of whole elements, contiguous, of one length."""

REDUCTIONS = ("add", "min", "max", "inc", "dec", "and", "or", "xor")

_INTEGERS = {"u32": "u4", "s32": "i4", "u64": "u8", "s64": "i8", "b32": "u4", "b64": "u8"}
_TO_GLOBAL = {
    "add": ("u32", "s32", "u64", "f32", "f32.ftz", "f64", "f16", "bf16"),
    **dict.fromkeys(("min", "max"), ("u32", "s32", "u64", "s64", "f16", "bf16")),
    **dict.fromkeys(("inc", "dec"), ("u32",)),
    **dict.fromkeys(("and", "or", "xor"), ("b32", "b64")),
}
_TO_SHARED = {
    "add": ("u32", "s32", "u64"),
    **dict.fromkeys(("min", "max"), ("u32", "s32")),
    **dict.fromkeys(("inc", "dec"), ("u32",)),
    **dict.fromkeys(("and", "or", "xor"), ("b32",)),
}


def reduction(operation: str, kind: str, shared: bool = False) -> Reduction | None:
    """An operation of :data:`REDUCTIONS` for elements of a type; ``None`` if there is none.

    Types are those of PTX, and ``f32.ftz``, which tensor maps have.

    Args:
        shared: Whether the destination is shared memory.
    """
    if kind not in (_TO_SHARED if shared else _TO_GLOBAL).get(operation, ()):
        return None
    if kind in {"f16", "bf16"}:
        return _halves(operation, "f16" if kind == "f16" else "bf16")
    if kind in {"f32", "f32.ftz"}:
        ftz = kind == "f32.ftz"
        return lambda old, data: _bytes(add32(old.view(np.float32), data.view(np.float32), ftz=ftz))
    if kind == "f64":
        return lambda old, data: _bytes(old.view(np.float64) + data.view(np.float64))
    update, dtype = _UPDATES[operation], np.dtype(_INTEGERS[kind])
    return lambda old, data: _bytes(update(old.view(dtype), data.view(dtype)))


def _halves(operation: str, name: HalfName) -> Reduction:
    def combine(old: Bytes, data: Bytes) -> Bytes:
        a, b = old.view(np.uint16), data.view(np.uint16)
        if operation == "add":
            return _bytes(add16(a, b, name))
        return _bytes(minmax16("min" if operation == "min" else "max", a, b, name))

    return combine


def _bytes(values: Values) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8)


def _inc(old: U32, limit: U32) -> Values:
    return np.where(old >= limit, np.uint32(0), old + np.uint32(1))


def _dec(old: U32, limit: U32) -> Values:
    return np.where((old == 0) | (old > limit), limit, old - np.uint32(1))


_UPDATES: dict[str, Callable[..., Values]] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "inc": _inc,
    "dec": _dec,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
