"""What tcgen05.mma reads: A and B from shared memory, A from tensor memory, as float32 values.

Every kind takes 32 bytes of each row of A and of B: 16 elements of 16 bits, 8 of 32, 32 of 8, 64 of
4 bits. Source: PTX ISA 9.1, sections 9.7.16.3.3, 9.7.16.4.1 (descriptors), 9.7.16.10.4 (packing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.layouts.narrow_operands import from_holders, unpack_padded
from fa4gen.emulator.layouts.operand import check_operand, operand_chunks, read_operand
from fa4gen.emulator.layouts.smem_descriptor import SmemDescriptor, decode_tcgen05
from fa4gen.emulator.layouts.tensor_memory import operand_from_cells
from fa4gen.emulator.shadow import Access, Cells
from fa4gen.emulator.shared import CELL_BYTES, SharedMemory
from fa4gen.numerics.arrays import F32, U8
from fa4gen.numerics.formats import decode, float_format, unpack_nibbles

Codes: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
Decoding: TypeAlias = Callable[[Codes], F32]

ROW_BYTES = 32
"""Bytes of a row that one instruction reads."""
TMEM_COLUMNS = ROW_BYTES // 4
"""Columns of tensor memory that A takes."""

_CHUNK_BYTES = 16
_CELLS_OF_CHUNK = np.arange(_CHUNK_BYTES // CELL_BYTES)
_BYTE = 8
_PACKED_KINDS = ("mxf4", "mxf4nvf4")


@dataclass(frozen=True, slots=True, eq=False)
class SharedOperand:
    """Rows of A or B in shared memory, wherever a CTA's copy of it lies.

    Attributes:
        low: First byte that is read, as an offset in shared memory.
        high: Last byte.
    """

    desc: SmemDescriptor
    rows: int
    elements: int
    """Codes of a row: values, or bytes with several values."""
    bits: int
    """Of a code."""
    mn_major: bool
    decoding: Decoding
    cells: Cells
    """Of the race check, from ``first_cell`` on."""
    first_cell: int
    low: int
    high: int

    def read(self, shared: SharedMemory, access: Access) -> F32:
        """``(rows, k)`` values from one CTA's memory; the read is checked for races."""
        return self.decoding(self.read_codes(shared, access))

    def read_codes(self, shared: SharedMemory, access: Access) -> Codes:
        """``(rows, elements)`` codes, likewise."""
        shared.shadow.read(self.cells + self.first_cell, access)
        return read_operand(
            shared.data, self.desc, self.rows, self.elements, self.bits, self.mn_major
        )


@lru_cache(maxsize=4096)
def shared_operand(word: int, rows: int, mn_major: bool, kind: str, name: str) -> SharedOperand:
    """The operand that a matrix descriptor describes.

    Args:
        word: The descriptor.
        rows: As many as lie in one CTA.
        kind: Of the mma, without ``kind::``.
        name: Format of the elements.

    Raises:
        KernelFault: an illegal descriptor.
        UnsupportedInstruction: one that is not emulated.
    """
    desc = decode_tcgen05(word)
    bits, elements, decoding = _shared_elements(kind, name)
    check_operand(desc, bits, mn_major, "tcgen05")
    return _located(desc, rows, elements, bits, mn_major, decoding)


@lru_cache(maxsize=1024)
def shared_bytes(word: int, rows: int, row_bytes: int) -> SharedOperand:
    """Rows of bytes that a matrix descriptor describes; its values are the bytes.

    Raises:
        KernelFault, UnsupportedInstruction: as :func:`shared_operand`.
    """
    desc = decode_tcgen05(word)
    check_operand(desc, _BYTE, False, "tcgen05")
    return _located(desc, rows, row_bytes, _BYTE, False, _unsigned_bytes)


def _located(
    desc: SmemDescriptor, rows: int, elements: int, bits: int, mn_major: bool, decoding: Decoding
) -> SharedOperand:
    base = desc.start - desc.start % desc.swizzle.period_bytes
    cells, low, high = _operand_cells(
        replace(desc, start=desc.start - base), rows, elements, bits, mn_major
    )
    return SharedOperand(
        desc,
        rows,
        elements,
        bits,
        mn_major,
        decoding,
        cells,
        base // CELL_BYTES,
        base + low,
        base + high,
    )


@lru_cache(maxsize=512)
def _operand_cells(
    desc: SmemDescriptor, rows: int, elements: int, bits: int, mn_major: bool
) -> tuple[Cells, int, int]:
    """Cells of the race check, first byte and last byte of an operand."""
    chunks = operand_chunks(desc, rows, elements, bits, mn_major).ravel()
    cells = (chunks[:, None] // CELL_BYTES + _CELLS_OF_CHUNK).ravel()
    cells.flags.writeable = False
    return cells, int(chunks.min()), int(chunks.max()) + _CHUNK_BYTES - 1


def _shared_elements(kind: str, name: str) -> tuple[int, int, Decoding]:
    """How rows in shared memory are read: bits of a code, codes of a row, and their decoding."""
    if name in _INTEGERS:
        return _BYTE, ROW_BYTES, _INTEGERS[name]
    bits = float_format(name).bits
    if kind in _PACKED_KINDS:
        return _BYTE, ROW_BYTES, lambda codes: decode(unpack_nibbles(_as_bytes(codes)), name)
    if bits < _BYTE:
        return _BYTE, ROW_BYTES, lambda codes: decode(unpadded(codes, bits), name)
    width = 32 if name == "tf32" else bits
    return width, ROW_BYTES * _BYTE // width, lambda codes: decode(codes, name)


@lru_cache(maxsize=64)
def tensor_elements(kind: str, name: str) -> Callable[[npt.NDArray[np.uint32]], F32]:
    """The decoding of A in tensor memory: ``(rows, 8)`` cells to ``(rows, k)`` values.

    Elements fill a cell from its low bits up; 4- and 6-bit ones of kinds f8f6f4 and mxf8f6f4 have
    a byte each.
    """
    width, _, decoding = _shared_elements(kind, name)
    if kind not in _PACKED_KINDS and name not in _INTEGERS and float_format(name).bits < _BYTE:
        bits = float_format(name).bits
        return lambda cells: decode(
            from_holders(_as_bytes(operand_from_cells(cells, 8)), bits), name
        )
    return lambda cells: decoding(operand_from_cells(cells, width))


def _signed_bytes(codes: Codes) -> F32:
    return codes.view(np.int8).astype(np.float32)


def _unsigned_bytes(codes: Codes) -> F32:
    return codes.astype(np.float32)


_INTEGERS: dict[str, Decoding] = {"s8": _signed_bytes, "u8": _unsigned_bytes}


def unpadded(rows: Codes, bits: int) -> U8:
    """Rows of padded 4- or 6-bit elements, in bytes, to as many bytes with one element each."""
    chunks = _as_bytes(rows).reshape(len(rows), -1, _CHUNK_BYTES)
    return unpack_padded(chunks, bits).reshape(len(rows), -1)


def _as_bytes(codes: Codes) -> U8:
    return codes.astype(np.uint8, copy=False)
