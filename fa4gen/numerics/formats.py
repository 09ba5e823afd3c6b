"""The floating-point formats of tensor-core operands, and their exact decoding to float32.

Every value of every format here is a float32, so decoding never rounds. Encoding, which does, is in
:mod:`fa4gen.numerics.encode`. Layouts are those of PTX ISA 5.2.2 and 5.2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnknownName
from fa4gen.numerics.arrays import F32, U8

_MAX_TABLE_BITS = 8
_TF32_MASK = np.array(0xFFFFE000, np.uint32)
_HALF = np.array(16, np.uint32)


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary floating-point format of at most 32 bits.

    A code is sign, exponent and mantissa from the top; the value of a normal code is
    ``2 ** (exponent - bias) * (1 + mantissa / 2 ** mantissa_bits)``.
    """

    name: str
    """As PTX spells it."""
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Literal["ieee", "nan", "none"]
    """``ieee``: the top exponent holds infinities and NaN; ``nan``: only the very last code is a
    NaN; ``none``: every code is a number."""
    signed: bool = True

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.exponent_bits + self.mantissa_bits + self.signed

    @property
    def sign_mask(self) -> int:
        """The sign bit; 0 where there is none."""
        return 1 << (self.bits - 1) if self.signed else 0

    @property
    def max_finite_code(self) -> int:
        """The positive code of the largest finite value."""
        last = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "ieee":
            return last - (1 << self.mantissa_bits)
        return last - (self.specials == "nan")

    @property
    def infinity_code(self) -> int | None:
        """The positive code of infinity, where there is one."""
        return self.max_finite_code + 1 if self.specials == "ieee" else None

    @property
    def nan_code(self) -> int | None:
        """The NaN that conversions make: all ones but the sign; None where there is no NaN."""
        if self.specials == "none":
            return None
        return (1 << (self.exponent_bits + self.mantissa_bits)) - 1

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value."""
        return 1 - self.bias

    def value(self, code: int) -> float:
        """The exact value of one code."""
        magnitude = code & ~self.sign_mask
        sign = -1.0 if code & self.sign_mask else 1.0
        exponent, mantissa = magnitude >> self.mantissa_bits, magnitude
        mantissa &= (1 << self.mantissa_bits) - 1
        if self.specials != "none" and magnitude > self.max_finite_code:
            return sign * np.inf if magnitude == self.infinity_code else np.nan
        if self.mantissa_bits == 0:  # a bare power of two: no zero, no subnormals
            return float(2.0 ** (exponent - self.bias))
        if exponent == 0:
            return float(sign * mantissa * 2.0 ** (self.min_exponent - self.mantissa_bits))
        significand = 1 + mantissa / 2**self.mantissa_bits
        return float(sign * significand * 2.0 ** (exponent - self.bias))


FORMATS = {
    entry.name: entry
    for entry in (
        FloatFormat("f32", 8, 23, 127, "ieee"),
        FloatFormat("tf32", 8, 10, 127, "ieee"),
        FloatFormat("f16", 5, 10, 15, "ieee"),
        FloatFormat("bf16", 8, 7, 127, "ieee"),
        FloatFormat("e5m2", 5, 2, 15, "ieee"),
        FloatFormat("e4m3", 4, 3, 7, "nan"),
        FloatFormat("e3m2", 3, 2, 3, "none"),
        FloatFormat("e2m3", 2, 3, 1, "none"),
        FloatFormat("e2m1", 2, 1, 1, "none"),
        FloatFormat("ue8m0", 8, 0, 127, "nan", signed=False),
        FloatFormat("ue4m3", 4, 3, 7, "nan", signed=False),
    )
}
"""Every format, by its name in PTX. A tf32 lies in the upper 19 bits of a 32-bit word."""


def float_format(name: str) -> FloatFormat:
    """The format of this name.

    Raises:
        UnknownName: no such format.
    """
    if name not in FORMATS:
        raise UnknownName("floating-point format", name, FORMATS)
    return FORMATS[name]


def decode(raw: npt.NDArray[np.unsignedinteger[Any]], name: str) -> F32:
    """The values of raw codes, exactly; the bits above a format's width are ignored.

    Args:
        raw: any shape; ``uint32`` for f32 and tf32, ``uint16`` for f16 and bf16, else ``uint8``.
        name: a key of ``FORMATS``.

    Returns:
        float32 of the same shape. A tf32 has its low 13 bits dropped, as tensor cores do. Subnormal
        codes keep their value, though it may be a float32 subnormal.

    Raises:
        UnknownName: no such format.
    """
    if name == "bf16":
        return (raw.astype(np.uint32) << _HALF).view(np.float32)
    if name == "f16":
        return raw.astype(np.uint16, copy=False).view(np.float16).astype(np.float32)
    if name == "f32":
        return raw.astype(np.uint32, copy=False).view(np.float32)
    if name == "tf32":
        return (raw.astype(np.uint32, copy=False) & _TF32_MASK).view(np.float32)
    entry = float_format(name)
    return _table(entry).take(raw if entry.bits == _MAX_TABLE_BITS else raw & _mask(entry))


def unpack_nibbles(packed: U8) -> U8:
    """Two 4-bit codes per byte, the low one first: ``(..., n)`` to ``(..., 2 n)``."""
    return np.stack((packed & 0xF, packed >> 4), axis=-1).reshape(*packed.shape[:-1], -1)


def _mask(entry: FloatFormat) -> np.uint8:
    return np.uint8((1 << entry.bits) - 1)


@cache
def _table(entry: FloatFormat) -> F32:
    table = np.array([entry.value(code) for code in range(1 << entry.bits)], np.float32)
    table.flags.writeable = False
    return table
