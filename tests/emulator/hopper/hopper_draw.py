"""Inputs drawn from a name: the same bits under every version of NumPy."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Codes = npt.NDArray[Any]
"""Unsigned integers of one of the widths."""
F32 = npt.NDArray[np.float32]

F32_SPECIALS = (
    *(0x00000000, 0x00000001, 0x00000003, 0x00400000, 0x007FFFFF, 0x00800000, 0x00800001),
    *(0x00C00000, 0x01000000, 0x33800000, 0x34000000, 0x3EFFFFFF, 0x3F000000, 0x3F7FFFFF),
    *(0x3F800000, 0x3F800001, 0x40000000, 0x40400000, 0x4B7FFFFF, 0x4B800001, 0x4F000000),
    *(0x5F000000, 0x7E800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC12345, 0x7FFFFFFF),
)
"""Zero, subnormals, powers of two and their neighbours, the largest, infinity, NaNs; positive."""
F16_SPECIALS = (
    *(0x0000, 0x0001, 0x0003, 0x0200, 0x03FF, 0x0400, 0x0401, 0x0600, 0x0800, 0x1000, 0x37FF),
    *(0x3800, 0x3BFF, 0x3C00, 0x3C01, 0x4000, 0x4200, 0x6400, 0x7000, 0x7BFF, 0x7C00, 0x7C01),
    *(0x7D23, 0x7FFF),
)
BF16_SPECIALS = tuple(sorted({code >> 16 for code in F32_SPECIALS} | {0x7F81, 0x7F80}))
F64_SPECIALS = (
    *(0, 1, 3, 1 << 51, (1 << 52) - 1, 1 << 52, (1 << 52) + 1, 0x3CA0 << 48, 0x3FE0 << 48),
    *((0x3FF0 << 48) - 1, 0x3FF0 << 48, (0x3FF0 << 48) + 1, 0x4008 << 48, 0x4330 << 48),
    *(0x43F0 << 48, 0x7FE0 << 48, (0x7FF0 << 48) - 1, 0x7FF0 << 48, 0x7FF8 << 48),
)
INTEGERS = (0, 1, 2, 3, 5, 31, 32, 33, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFF)
"""Of 32 bits, and their negatives."""


class Draw:
    """A stream of random bits that a name begins.

    Philox's stream is fixed by its definition; NumPy promises nothing of the kind for what it
    makes of one, so all else is made here.
    """

    def __init__(self, name: str) -> None:
        self._bits = np.random.Philox(key=zlib.crc32(name.encode()))

    def u64(self, count: int) -> U64:
        """``count`` words."""
        return np.asarray(self._bits.random_raw(count))

    def u32(self, count: int) -> U32:
        """``count`` words."""
        return (self.u64(count) >> np.uint64(32)).astype(np.uint32)

    def u16(self, count: int) -> U16:
        """``count`` words."""
        return (self.u64(count) >> np.uint64(48)).astype(np.uint16)

    def u8(self, count: int) -> npt.NDArray[np.uint8]:
        """``count`` bytes."""
        return (self.u64(count) >> np.uint64(56)).astype(np.uint8)

    def integers(self, low: int, high: int, count: int) -> npt.NDArray[np.int64]:
        """From ``low`` to ``high``, both included."""
        return (self.u64(count) % np.uint64(high - low + 1)).astype(np.int64) + low

    def unit(self, count: int) -> npt.NDArray[np.float64]:
        """In [0, 1)."""
        return (self.u64(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> npt.NDArray[np.float64]:
        """About a standard normal deviate: what twelve uniform ones add up to."""
        return np.asarray(self.unit(12 * count).reshape(12, count).sum(axis=0) - 6.0)

    def wide(self, count: int, low: int, high: int) -> F32:
        """f32 of either sign, exponents even from ``low`` to ``high``, any mantissa."""
        exponent = (self.integers(low, high, count) + 127).astype(np.uint32) << np.uint32(23)
        bits = self.u32(count)
        return (bits & np.uint32(0x807FFFFF) | exponent).view(np.float32)


def both_signs(codes: Sequence[int], bits: int) -> list[int]:
    """``codes`` with and without the sign."""
    return [*codes, *(code | 1 << (bits - 1) for code in codes)]


def f32_codes(draw: Draw, arity: int, count: int) -> list[Codes]:
    """``arity`` operands: all pairs of special values, any bits, and bits of close exponents."""
    special = np.array(both_signs(F32_SPECIALS, 32), np.uint32)
    return _operands(draw, special, arity, count, lambda n: draw.wide(n, -4, 4).view(np.uint32))


def half_codes(draw: Draw, name: str, arity: int, count: int) -> list[Codes]:
    """As :func:`f32_codes`, for ``f16`` or ``bf16``."""
    specials, mantissa, bias = (F16_SPECIALS, 10, 15) if name == "f16" else (BF16_SPECIALS, 7, 127)
    special = np.array(both_signs(specials, 16), np.uint16)

    def close(n: int) -> U16:
        exponent = (draw.integers(-4, 4, n) + bias).astype(np.uint16) << np.uint16(mantissa)
        return draw.u16(n) & np.uint16(0x8000 | (1 << mantissa) - 1) | exponent

    return _operands(draw, special, arity, count, close)


def f64_codes(draw: Draw, arity: int, count: int) -> list[Codes]:
    """As :func:`f32_codes`, for f64."""
    special = np.array(both_signs(F64_SPECIALS, 64), np.uint64)

    def close(n: int) -> U64:
        exponent = (draw.integers(-4, 4, n) + 1023).astype(np.uint64) << np.uint64(52)
        return draw.u64(n) & np.uint64((1 << 63) | (1 << 52) - 1) | exponent

    return _operands(draw, special, arity, count, close)


def integer_codes(draw: Draw, bits: int, arity: int, count: int) -> list[Codes]:
    """``arity`` operands of ``bits``: pairs of special values, small ones, any bits."""
    top = [v % (1 << bits) for v in (*INTEGERS, *(-v for v in INTEGERS), 1 << (bits - 1))]
    special = np.array(sorted(set(top)), np.uint64)
    small = np.uint64((1 << bits) - 1)
    made = _operands(
        draw, special, arity, count, lambda n: draw.u64(n) >> np.uint64(64 - bits // 2)
    )
    return [codes & small for codes in made]


def _operands(
    draw: Draw, special: Codes, arity: int, count: int, close: Callable[[int], Codes]
) -> list[Codes]:
    """``count`` sets of operands, a third of each sort."""
    third = count // 3
    pairs = np.array(np.meshgrid(special, special)).reshape(2, -1)
    order = np.argsort(draw.u64(pairs.shape[1]), kind="stable")
    found = []
    for number in range(arity):
        if number < 2:
            first = np.resize(pairs[number % 2][order], third)
        else:
            first = special[draw.integers(0, len(special) - 1, third)]
        raw = draw.u64(third) >> np.uint64(64 - 8 * special.dtype.itemsize)
        parts = (first, raw.astype(special.dtype), close(count - 2 * third))
        found.append(np.concatenate(parts))
    return found
