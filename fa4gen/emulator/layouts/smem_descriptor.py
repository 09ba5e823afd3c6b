"""Shared-memory matrix descriptors: the 64-bit words that tell wgmma and tcgen05 where A and B lie.

Bit fields: PTX ISA 9.7.15.5.1.2.2 (wgmma) and 9.7.16.4.1 (tcgen05); CUTLASS
cute/arch/mma_sm90_desc.hpp and mma_sm100_desc.hpp. Addresses and offsets are stored divided by 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.layouts.swizzle import Swizzle

ADDRESS_BITS = 18
"""Descriptors reach 256 KiB; a CTA's rank in a shared address lies above and drops out."""

_UNIT_BITS = 4
_FIELD = (1 << 14) - 1
_LBO_AT, _SBO_AT, _VERSION_AT, _BASE_OFFSET_AT, _LBO_MODE_AT, _SWIZZLE_AT = 16, 32, 46, 49, 52, 61
_VERSION_TCGEN05 = 1
_MAX_BASE_OFFSET = 7
_ENCODABLE = (1 << ADDRESS_BITS) - 1

_RESERVED_WGMMA = (0b11 << 14) | (0b11 << 30) | (0b111 << 46) | (((1 << 10) - 1) << 52)
_RESERVED_TCGEN05 = (0b11 << 14) | (0b11 << 30) | (0xFF << 53)

_SWIZZLES_WGMMA = (Swizzle.NONE, Swizzle.B128, Swizzle.B64, Swizzle.B32)
"""By bits 62 and 63."""
_SWIZZLES_TCGEN05 = {
    0: Swizzle.NONE,
    1: Swizzle.B128_ATOM32,
    2: Swizzle.B128,
    4: Swizzle.B64,
    6: Swizzle.B32,
}
"""By bits 61 to 63."""


@dataclass(frozen=True, slots=True)
class SmemDescriptor:
    """A decoded descriptor; all numbers in bytes."""

    start: int
    """Address within the CTA's shared window, a multiple of 16 below 2^18."""
    lbo: int
    """Leading-dimension byte offset."""
    sbo: int
    """Stride-dimension byte offset."""
    swizzle: Swizzle
    base_offset: int = 0
    """Lines of 128 bytes at which the swizzle's pattern begins, 0 to 7; of wgmma alone."""


@lru_cache(maxsize=1 << 14)
def decode_wgmma(desc: int) -> SmemDescriptor:
    """The descriptor of a wgmma operand.

    An H200 subtracts the base offset from the number of the 128-byte line that the swizzle looks
    at (``wgmma/probe-base-offset-*`` of tests/emulator/hopper); nothing is known to emit one.

    Args:
        desc: the 64-bit word.

    Raises:
        KernelFault: reserved bits are set.
    """
    _check_reserved("wgmma", desc, _RESERVED_WGMMA | (1 << _SWIZZLE_AT))
    swizzle = _SWIZZLES_WGMMA[desc >> (_SWIZZLE_AT + 1) & 3]
    return _fields(desc, swizzle, desc >> _BASE_OFFSET_AT & 7)


@lru_cache(maxsize=1 << 14)
def decode_tcgen05(desc: int) -> SmemDescriptor:
    """The descriptor of a tcgen05.mma or tcgen05.cp operand.

    Args:
        desc: the 64-bit word.

    Raises:
        KernelFault: reserved bits are set, the version is not 1, or no such swizzle exists.
        UnsupportedInstruction: a base offset other than 0, or an absolute leading offset (sm_103a).
    """
    version = desc >> _VERSION_AT & 7
    if version != _VERSION_TCGEN05:
        raise KernelFault(
            f"tcgen05 descriptor {desc:#018x}: bits 46-48 are {version:#05b}, allowed: 0b001; "
            "was it made for wgmma?"
        )
    _check_reserved("tcgen05", desc, _RESERVED_TCGEN05)
    code = desc >> _SWIZZLE_AT & 7
    if code not in _SWIZZLES_TCGEN05:
        known = ", ".join(f"{key} {mode.name}" for key, mode in _SWIZZLES_TCGEN05.items())
        raise KernelFault(
            f"tcgen05 descriptor {desc:#018x}: swizzle mode (bits 61-63) is {code}, "
            f"allowed: {known}"
        )
    if desc >> _LBO_MODE_AT & 1:
        raise UnsupportedInstruction(
            f"tcgen05 descriptor {desc:#018x}: bit 52 asks for an absolute leading-dimension "
            "address, which only sm_103a has"
        )
    base_offset = desc >> _BASE_OFFSET_AT & 7
    if base_offset:
        raise UnsupportedInstruction(
            f"tcgen05 descriptor {desc:#018x}: base offset (bits 49-51) is {base_offset}, "
            "emulated: 0; align the tile to its swizzle's pattern"
        )
    return _fields(desc, _SWIZZLES_TCGEN05[code])


def encode_wgmma(descriptor: SmemDescriptor) -> int:
    """The 64-bit word of a wgmma operand.

    Raises:
        KernelFault: a number that the fields cannot hold, or a swizzle that wgmma lacks.
    """
    if descriptor.swizzle not in _SWIZZLES_WGMMA:
        raise KernelFault(_no_swizzle("wgmma", descriptor.swizzle))
    if not 0 <= descriptor.base_offset <= _MAX_BASE_OFFSET:
        raise KernelFault(
            f"wgmma descriptor: got a base offset of {descriptor.base_offset}, allowed: 0 to "
            f"{_MAX_BASE_OFFSET}"
        )
    code = _SWIZZLES_WGMMA.index(descriptor.swizzle)
    return _pack(descriptor) | descriptor.base_offset << _BASE_OFFSET_AT | code << (_SWIZZLE_AT + 1)


def encode_tcgen05(descriptor: SmemDescriptor) -> int:
    """The 64-bit word of a tcgen05 operand.

    Raises:
        KernelFault: a number that the fields cannot hold, or a swizzle that tcgen05 lacks.
    """
    codes = {mode: code for code, mode in _SWIZZLES_TCGEN05.items()}
    if descriptor.base_offset:
        raise KernelFault(
            f"tcgen05 descriptor: got a base offset of {descriptor.base_offset}, allowed: 0"
        )
    if descriptor.swizzle not in codes:
        raise KernelFault(_no_swizzle("tcgen05", descriptor.swizzle))
    high = codes[descriptor.swizzle] << _SWIZZLE_AT | _VERSION_TCGEN05 << _VERSION_AT
    return _pack(descriptor) | high


def _check_reserved(what: str, desc: int, reserved: int) -> None:
    wrong = desc & reserved
    if wrong:
        bits = [bit for bit in range(64) if wrong >> bit & 1]
        raise KernelFault(
            f"{what} descriptor {desc:#018x}: reserved bits {bits} are set, they must be 0"
        )


def _fields(desc: int, swizzle: Swizzle, base_offset: int = 0) -> SmemDescriptor:
    start, lbo, sbo = ((desc >> at & _FIELD) << _UNIT_BITS for at in (0, _LBO_AT, _SBO_AT))
    return SmemDescriptor(start, lbo, sbo, swizzle, base_offset)


def _pack(descriptor: SmemDescriptor) -> int:
    word = 0
    for name, at in (("start", 0), ("lbo", _LBO_AT), ("sbo", _SBO_AT)):
        value = getattr(descriptor, name)
        if value & ~_ENCODABLE or value % (1 << _UNIT_BITS):
            raise KernelFault(
                f"descriptor {name}: got {value} bytes, allowed: a multiple of 16 below "
                f"2^{ADDRESS_BITS} = {1 << ADDRESS_BITS}"
            )
        word |= value >> _UNIT_BITS << at
    return word


def _no_swizzle(what: str, swizzle: Swizzle) -> str:
    return f"{what} descriptor: got swizzle {swizzle.name}, which it has no code for"
