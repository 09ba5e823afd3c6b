"""How shared memory is permuted for TMA, wgmma and tcgen05.

A swizzle is an exclusive-or of address bits on the *absolute* shared byte address, not on the
offset in a tile: TMA writes and the matrix descriptors read with the same function, so both agree
whatever the alignment of a tile (PTX ISA 5.5.7).
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_LINE_BITS = 7
Addresses = TypeVar("Addresses", int, npt.NDArray[np.int64])
"""One byte address, or an array of them (int64)."""


class Swizzle(Enum):
    """The swizzle modes of shared memory; each value is (CuTe notation, mask, shift, flip, span).

    The two last modes exist for TMA only. ``B128_ATOM32_FLIP8`` moves 32-byte atoms and then swaps
    the 8-byte halves of every 16 bytes on odd 128-byte lines: that order and "odd" are read off the
    figures of PTX ISA 5.5.7, whose prose says "alternate rows"; no hardware has confirmed it.
    """

    NONE = ("Swizzle<0,4,3>", 0, 0, 0, 16)
    B32 = ("Swizzle<1,4,3>", 0x10, 3, 0, 32)
    B64 = ("Swizzle<2,4,3>", 0x30, 3, 0, 64)
    B128 = ("Swizzle<3,4,3>", 0x70, 3, 0, 128)
    B128_ATOM32 = ("Swizzle<2,5,2>", 0x60, 2, 0, 128)
    B128_ATOM32_FLIP8 = ("Swizzle<2,5,2>+flip", 0x60, 2, 0x8, 128)
    B128_ATOM64 = ("Swizzle<1,6,1>", 0x40, 1, 0, 128)

    def __init__(self, cute: str, mask: int, shift: int, flip: int, span_bytes: int) -> None:
        self.cute = cute
        """In CuTe's notation, ``Swizzle<bits, base, shift>`` on byte addresses."""
        self.mask = mask
        """Address bits that change."""
        self.shift = shift
        """Distance from a changed bit up to the bit that it is combined with."""
        self.flip = flip
        """Address bits inverted on odd 128-byte lines."""
        self.span_bytes = span_bytes
        """Bytes of a row within which chunks move; also the widest inner box of TMA. 16: none."""

    @property
    def granule_bytes(self) -> int:
        """Bytes that stay together and in order: 16, or 8 where halves are flipped."""
        return 8 if self.flip else 16

    @property
    def period_bytes(self) -> int:
        """Addresses that differ by a multiple of this are permuted alike."""
        return max(16, 1 << (self.mask << self.shift).bit_length())

    def apply(self, addresses: Addresses, base_offset: int = 0) -> Addresses:
        """Where the byte that an unswizzled layout puts at ``addresses`` really lies.

        Its own inverse: no bit that is read is changed. ``base_offset``, of a matrix descriptor,
        is the number of the 128-byte line at which the pattern begins.
        """
        if not self.mask:
            return addresses
        lines = addresses - (base_offset << _LINE_BITS) if base_offset else addresses
        moved = addresses ^ ((lines >> self.shift) & self.mask)
        if self.flip:
            moved = moved ^ ((addresses >> 7 & 1) * self.flip)
        return moved
