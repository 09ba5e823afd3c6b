"""Rounding by exact rationals: slow, plain, and independent of what it checks."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Target:
    """A binary format with infinities: digits of the significand, and the exponents of normals."""

    digits: int
    min_exponent: int
    max_exponent: int


F32 = Target(24, -126, 127)
F64 = Target(53, -1022, 1023)
F16 = Target(11, -14, 15)
BF16 = Target(8, -126, 127)
TF32 = Target(11, -126, 127)


def exponent_of(q: Fraction) -> int:
    """floor(log2(abs(q))), exactly."""
    q = abs(q)
    guess = q.numerator.bit_length() - q.denominator.bit_length()
    return guess if Fraction(2) ** guess <= q else guess - 1


def round_exact(q: Fraction, target: Target, mode: str) -> float:
    """``q`` (not zero) as a value of ``target``; overflow as IEEE 754 section 7.4 says."""
    exponent = max(exponent_of(q), target.min_exponent)
    ulp = Fraction(2) ** (exponent - target.digits + 1)
    whole, rest = divmod(abs(q) / ulp, 1)
    half = Fraction(1, 2)
    up = {
        "rn": rest > half or (rest == half and whole % 2 == 1),
        "rna": rest >= half,
        "rz": False,
        "rm": rest > 0 and q < 0,
        "rp": rest > 0 and q > 0,
    }[mode]
    rounded = (whole + up) * ulp
    largest = (2 - Fraction(2) ** (1 - target.digits)) * Fraction(2) ** target.max_exponent
    if rounded > largest:
        toward_zero = mode in {"rz", "rp" if q < 0 else "rm"}
        value = float(largest) if toward_zero else math.inf
    else:
        value = float(rounded)
    return math.copysign(value, -1 if q < 0 else 1)


def f32_bits(x: float) -> int:
    """Bits of a value that is a float32; any NaN counts as the canonical one."""
    return 0x7FFFFFFF if math.isnan(x) else struct.unpack("<I", struct.pack("<f", x))[0]


def f32_from_bits(bits: int) -> float:
    """The value, as a Python float."""
    return struct.unpack("<f", struct.pack("<I", bits))[0]


EDGES = np.array(
    [
        0x00000000, 0x80000000,  # zeros
        0x00000001, 0x80000001, 0x00000002, 0x007FFFFF, 0x807FFFFF,  # subnormals
        0x00800000, 0x80800000, 0x00800001, 0x00FFFFFF,  # least normals
        0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F800001, 0x3F000000, 0x34000000, 0x33800000,
        0x4B000000, 0x4B800000, 0x4B7FFFFF, 0x4F000000, 0xCF000000,  # 2^23, 2^24, 2^31
        0x7F7FFFFF, 0xFF7FFFFF, 0x7F7FFFFE, 0x7F000000,  # largest
        0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345,  # infinities, NaN
    ],
    np.uint32,
)  # fmt: skip
"""Bits of float32 values where things change."""
