"""Where the elements of one MMA instruction's A or B lie in shared memory.

``mn`` is the row of A or of B^T (an M or N index); ``k`` runs along the sum. With S the span of the
swizzle, the byte offsets before the swizzle are (PTX ISA 9.7.15.5.1.2.1 and 9.7.16.3.3):

===== =========== ==========================================================
major swizzle     byte offset, kb = k * element bytes, mb = mn * element bytes
===== =========== ==========================================================
K     none        mn % 8 * 16 + mn / 8 * SBO + kb / 16 * LBO + kb % 16
K     32, 64, 128 mn % 8 * S + mn / 8 * SBO + kb
MN    none        mb % 16 + mb / 16 * SBO + k % 8 * 16 + k / 8 * LBO
MN    32, 64, 128 mb % S + mb / S * LBO + k % 8 * S + k / 8 * SBO
MN    128, atom32 mb % 128 + mb / 128 * LBO + k % 4 * 128 + k / 4 * SBO
===== =========== ==========================================================

Sixteen bytes along the major dimension always stay together, so operands are gathered by chunks of
16 bytes; addresses are cached by layout and by what of the start address the swizzle can see.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.layouts.smem_descriptor import SmemDescriptor
from fa4gen.emulator.layouts.swizzle import Swizzle

Addresses: TypeAlias = npt.NDArray[np.int64]
Codes: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

CHUNK_BYTES = 16
UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32}
"""NumPy type of an element's raw code, by its bits."""

_WGMMA_MN_BITS, _TCGEN05_MN_BITS, _ATOM32_MN_BITS = (16,), (8, 16), (32,)
_GROUP = 8
"""Rows of a core matrix."""
_GROUP_ATOM32 = 4


def check_operand(
    desc: SmemDescriptor,
    element_bits: int,
    mn_major: bool,
    instruction: Literal["wgmma", "tcgen05"],
) -> None:
    """Refuse combinations of majorness, element size and swizzle that do not exist.

    Source: PTX ISA 9.7.15.5, 9.7.16.10.1 and 9.7.16.10.3; CUTLASS mma_traits_sm100.hpp.

    Raises:
        KernelFault: an illegal combination.
    """
    atom32 = desc.swizzle is Swizzle.B128_ATOM32
    if not mn_major:
        if atom32:
            raise KernelFault(f"{instruction}: K-major operand with the 32-byte-atom swizzle")
        return
    if instruction == "wgmma":
        legal, allowed = element_bits in _WGMMA_MN_BITS, "16-bit elements"
    else:
        legal = element_bits in (_ATOM32_MN_BITS if atom32 else _TCGEN05_MN_BITS)
        allowed = "8 or 16 bits without, 32 bits only with the 32-byte-atom swizzle"
    if not legal:
        raise KernelFault(
            f"{instruction}: MN-major operand of {element_bits}-bit elements, swizzle "
            f"{desc.swizzle.name}; allowed: {allowed}"
        )


def operand_addresses(
    desc: SmemDescriptor, rows: int, k: int, element_bits: int, mn_major: bool
) -> Addresses:
    """Byte address within the CTA's shared window of every element of one instruction's operand.

    Args:
        desc: the operand's descriptor.
        rows: M of A or N of B, as far as it lies in this CTA.
        k: elements along the sum that one instruction reads.
        element_bits: 8, 16 or 32.
        mn_major: whether neighbours in ``mn``, not in ``k``, lie side by side.

    Returns:
        ``(rows, k)`` int64.

    Raises:
        UnsupportedInstruction: another element size. Packed 4- and 6-bit operands are K-major: read
            their bytes, with ``k`` in bytes and ``element_bits`` 8.
    """
    chunks = operand_chunks(desc, rows, k, element_bits, mn_major)
    within = np.arange(0, CHUNK_BYTES, element_bits // 8)
    addresses = (chunks[..., None] + within).reshape(len(chunks), -1)
    return addresses.T if mn_major else addresses


def operand_chunks(
    desc: SmemDescriptor, rows: int, k: int, element_bits: int, mn_major: bool
) -> Addresses:
    """Byte addresses of the 16-byte chunks that make up the operand; arguments as above.

    Returns:
        int64, ``(rows, k * element_bits / 128)`` where K-major, ``(k, rows * element_bits / 128)``
        where MN-major: the chunks of one line of contiguous elements in order.

    Raises:
        UnsupportedInstruction: another element size, or lines that are no whole chunks.
    """
    seen = desc.start % desc.swizzle.period_bytes
    key = (desc.swizzle, desc.base_offset, desc.lbo, desc.sbo, mn_major, element_bits)
    return _chunks(key, rows, k, seen) + (desc.start - seen)


def read_operand(
    memory: npt.NDArray[np.uint8],
    desc: SmemDescriptor,
    rows: int,
    k: int,
    element_bits: int,
    mn_major: bool,
) -> Codes:
    """The raw codes of one instruction's operand.

    Args:
        memory: the CTA's shared window from address 0 on, C-contiguous bytes.
        desc, rows, k, element_bits, mn_major: as :func:`operand_addresses`.

    Returns:
        ``(rows, k)`` unsigned integers of ``element_bits``; a new array, not always C-contiguous.

    Raises:
        KernelFault: the operand reaches beyond ``memory``.
        UnsupportedInstruction: as :func:`operand_chunks`.
    """
    seen = desc.start % desc.swizzle.period_bytes
    key = (desc.swizzle, desc.base_offset, desc.lbo, desc.sbo, mn_major, element_bits)
    index, last = _chunk_index(key, rows, k, seen)
    base = desc.start - seen
    if base + last + CHUNK_BYTES > len(memory):
        raise KernelFault(
            f"matrix descriptor: operand of {rows} x {k} elements of {element_bits} bits at "
            f"{desc.start:#x} with LBO {desc.lbo}, SBO {desc.sbo} reaches byte "
            f"{base + last + CHUNK_BYTES - 1}, shared memory ends at {len(memory)}"
        )
    # complex128 is the one 16-byte type whose gather is fast; nothing computes with it.
    whole = memory[base : base + last + CHUNK_BYTES].view(np.complex128)
    lines = whole[index].view(UNSIGNED[element_bits])
    return lines.T if mn_major else lines


_Key: TypeAlias = tuple[Swizzle, int, int, int, bool, int]


@lru_cache(maxsize=1024)
def _chunk_index(key: _Key, rows: int, k: int, seen: int) -> tuple[Addresses, int]:
    chunks = _chunks(key, rows, k, seen)
    index = chunks // CHUNK_BYTES
    index.flags.writeable = False
    return index, int(chunks.max())


@lru_cache(maxsize=1024)
def _chunks(key: _Key, rows: int, k: int, seen: int) -> Addresses:
    """Chunk addresses of an operand that starts at ``seen`` bytes into a swizzle period."""
    swizzle, base_offset, lbo, sbo, mn_major, element_bits = key
    if element_bits not in UNSIGNED:
        raise UnsupportedInstruction(
            f"matrix descriptor: got elements of {element_bits} bits, addressable: 8, 16 and 32"
        )
    line = (rows if mn_major else k) * element_bits // 8
    if line % CHUNK_BYTES:
        raise UnsupportedInstruction(
            f"matrix descriptor: a line of {line} bytes, allowed: multiples of {CHUNK_BYTES}"
        )
    along = np.arange(0, line, CHUNK_BYTES)
    across = np.arange(k if mn_major else rows)[:, None]
    unswizzled: Addresses = seen + _offset(swizzle, lbo, sbo, along, across, mn_major)
    addresses = swizzle.apply(unswizzled, base_offset)
    addresses.flags.writeable = False
    return addresses


def _offset(
    swizzle: Swizzle, lbo: int, sbo: int, along: Addresses, across: Addresses, mn_major: bool
) -> Addresses:
    """Offsets before the swizzle: ``along`` a line in bytes, ``across`` lines; see the module."""
    span = swizzle.span_bytes
    group = _GROUP_ATOM32 if swizzle is Swizzle.B128_ATOM32 else _GROUP
    line = across % group * span
    if swizzle is Swizzle.NONE:
        group_stride, chunk_stride = (lbo, sbo) if mn_major else (sbo, lbo)
        return line + across // group * group_stride + along // span * chunk_stride
    if mn_major:
        return line + across // group * sbo + along // span * lbo + along % span
    return line + across // group * sbo + along
