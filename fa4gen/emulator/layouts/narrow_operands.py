"""4- and 6-bit operands in the padded forms that shared and tensor memory hold them in.

In shared memory 16 elements fill 16 bytes: ``b4x16_p64`` is 8 bytes of codes and 8 of padding,
``b6x16_p32`` 12 and 4 (PTX ISA 9.7.16.10.4, 9.7.9.25.5). In tensor memory each element has a byte
of its own, with the code in the middle: bits 2 to 5 of 4-bit ones, bits 1 to 6 of 6-bit ones
(NVIDIA's CuTe-DSL example ``cp_narrow_a_to_tmem_mma.py``, which checks exactly that).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction

_HOLDER_SHIFT = {4: 2, 6: 1}
_CHUNK_ELEMENTS = 16

Bytes = npt.NDArray[np.uint8]


def unpack_padded(chunks: Bytes, element_bits: int) -> Bytes:
    """Codes of padded 16-byte chunks: ``(..., 16)`` bytes to ``(..., 16)`` codes.

    Raises:
        UnsupportedInstruction: elements of other than 4 or 6 bits.
    """
    _shift(element_bits)
    data = chunks[..., : element_bits * _CHUNK_ELEMENTS // 8]
    bits = np.unpackbits(data, axis=-1, bitorder="little")
    codes = bits.reshape(*chunks.shape[:-1], _CHUNK_ELEMENTS, element_bits)
    return np.packbits(codes, axis=-1, bitorder="little")[..., 0]


def to_holders(codes: Bytes, element_bits: int) -> Bytes:
    """Codes as tensor memory holds them, a byte each.

    Raises:
        UnsupportedInstruction: elements of other than 4 or 6 bits.
    """
    return (codes << _shift(element_bits)).astype(np.uint8)


def from_holders(holders: Bytes, element_bits: int) -> Bytes:
    """The codes in bytes of tensor memory; the inverse of :func:`to_holders`.

    Raises:
        UnsupportedInstruction: elements of other than 4 or 6 bits.
    """
    return (holders >> _shift(element_bits) & ((1 << element_bits) - 1)).astype(np.uint8)


def _shift(element_bits: int) -> int:
    if element_bits not in _HOLDER_SHIFT:
        raise UnsupportedInstruction(
            f"narrow operand: got elements of {element_bits} bits, allowed: 4 or 6"
        )
    return _HOLDER_SHIFT[element_bits]
