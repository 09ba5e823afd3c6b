"""Names for the arrays that the bit-exact arithmetic takes and gives, and what all of it shares.

A value narrower than 32 bits travels as its raw bits (``uint16`` for f16 and bf16, ``uint8`` for
8 bits and below), because NumPy lacks most of these types. Every function is elementwise over any
shape, so a packed register is handled by looking at it as more, narrower elements
(``register.view(np.uint16)``: the low half of a register is the first element, as in PTX).

Constants of the arithmetic are 0-d arrays because NumPy combines those with an array faster than it
does its scalars: 0.45 us against 0.7 us for 32 lanes.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
U8: TypeAlias = npt.NDArray[np.uint8]
U16: TypeAlias = npt.NDArray[np.uint16]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]

Rounding: TypeAlias = Literal["rn", "rz", "rm", "rp"]
"""To nearest even, toward zero, toward -infinity, toward +infinity: the modifiers of PTX."""

HalfName: TypeAlias = Literal["f16", "bf16"]
"""The 16-bit formats of scalar instructions."""

NAN32 = np.array(0x7FFFFFFF, np.uint32).view(np.float32)
"""The NaN that f32 instructions make (PTX ISA 9.7.3)."""
NAN16 = np.array(0x7FFF, np.uint16)
"""The NaN that f16 and bf16 instructions make (PTX ISA 9.7.4)."""


def some(mask: Mask) -> bool:
    """``mask.any()``, five times as fast for 32 lanes."""
    return b"\x01" in mask.tobytes()


def quiet() -> np.errstate:
    """A context in which NumPy does not warn of overflow and NaN, which are ordinary values here.

    The arithmetic does not enter it by itself, since that costs more than an addition of 32 lanes.
    """
    return np.errstate(all="ignore")
