"""Which element of a matrix each lane of a warp holds in which register.

One warp at a time: of wgmma, whose D has 64 rows, warp w of the warpgroup holds rows 16 w to
16 w + 15, and these maps count from there. Registers of 32 bits hold 32 / bits elements, the first
in the low bits. Sources:

* wgmma D and A in registers: PTX ISA 9.7.15.5.1.1;
* mma.sync: PTX ISA 9.7.14.5.8 to .11 (m16n8k8, m16n8k16, m16n8k32);
* ldmatrix and stmatrix: PTX ISA 9.7.14.5.15 and .16.

The maps of 8-, 16- and 32-bit operands are one: a lane holds 32 / bits neighbours along k in each
register, and registers go through the 8-row groups first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction

Index: TypeAlias = npt.NDArray[np.int64]
Registers: TypeAlias = npt.NDArray[np.uint32]
Codes: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

LANES = 32
REGISTER_BITS = 32
GROUP_ROWS = 8
_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32}


@dataclass(frozen=True, slots=True, eq=False)
class Fragment:
    """A matrix spread over the registers of one warp, every element exactly once."""

    rows: int
    columns: int
    element_bits: int
    row: Index
    """``(registers, 32 lanes, elements per register)``: the row of each element."""
    column: Index
    """The column, likewise."""
    _flat: Index = field(init=False, repr=False)
    _source: Index = field(init=False, repr=False)

    def __post_init__(self) -> None:
        flat = (self.row * self.columns + self.column).ravel()
        source = np.empty_like(flat)
        source[flat] = np.arange(flat.size)
        for name, array in (("_flat", flat), ("_source", source)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def registers(self) -> int:
        """Registers per lane."""
        return len(self.row)


def fragment_to_matrix(fragment: Fragment, registers: Registers) -> Codes:
    """The matrix that a warp's registers hold.

    Args:
        fragment: the map.
        registers: ``(fragment.registers, 32)`` uint32, C-contiguous.

    Returns:
        ``(rows, columns)`` raw codes of ``element_bits``.
    """
    elements = registers.reshape(-1).view(_UNSIGNED[fragment.element_bits])
    return elements.take(fragment._source).reshape(fragment.rows, fragment.columns)


def matrix_to_fragment(fragment: Fragment, matrix: Codes) -> Registers:
    """The registers that hold a matrix; the inverse of :func:`fragment_to_matrix`.

    Args:
        fragment: the map.
        matrix: ``(rows, columns)``, of ``element_bits``.

    Returns:
        ``(fragment.registers, 32)`` uint32.
    """
    elements = matrix.reshape(-1).take(fragment._flat)
    return elements.view(np.uint32).reshape(-1, LANES)


@lru_cache(maxsize=256)
def accumulator(n: int, element_bits: int = 32) -> Fragment:
    """C and D of wgmma (one warp's 16 rows) and, with n = 8, of mma.sync.m16n8: 16 x n.

    Args:
        n: columns, a multiple of 8.
        element_bits: 32 (f32, s32) or 16 (f16, two neighbours along n per register).

    Raises:
        UnsupportedInstruction: another n or element size.
    """
    if n % GROUP_ROWS or n <= 0 or element_bits not in {16, 32}:
        raise UnsupportedInstruction(
            f"accumulator fragment: got n = {n} of {element_bits} bits, allowed: multiples of 8, "
            "of 16 or 32 bits"
        )
    index, lane, _ = _grid(n * 16 // LANES, 1)
    row = lane // 4 + GROUP_ROWS * (index >> 1 & 1)
    column = 8 * (index >> 2) + 2 * (lane % 4) + (index & 1)
    if element_bits == REGISTER_BITS:
        return _fragment(16, n, 32, row, column)
    # Elements 2 j and 2 j + 1 of the 32-bit map share register j.
    pairs = [part.reshape(-1, 2, LANES).transpose(0, 2, 1) for part in (row, column)]
    return _fragment(16, n, 16, *pairs)


@lru_cache(maxsize=256)
def operand_a(k: int, element_bits: int) -> Fragment:
    """A of wgmma in registers (one warp's 16 rows) and of mma.sync.m16n8: 16 x k, row-major.

    Args:
        k: 256 / element_bits (wgmma, and the larger shape of mma.sync) or half of it.
        element_bits: 8, 16 or 32 (tf32).

    Raises:
        UnsupportedInstruction: another k or element size.
    """
    per = _elements_per_register("A", k, element_bits)
    index, lane, part = _grid(2 * k // (4 * per), per)
    row = lane // 4 + GROUP_ROWS * (index & 1) + 0 * part
    column = per * (lane % 4) + part + 4 * per * (index >> 1)
    return _fragment(16, k, element_bits, row, column)


@lru_cache(maxsize=256)
def operand_b(k: int, element_bits: int) -> Fragment:
    """B of mma.sync.m16n8 as its transpose, 8 x k: rows are n, columns are k.

    Args:
        k: 256 / element_bits or half of it.
        element_bits: 8, 16 or 32 (tf32).

    Raises:
        UnsupportedInstruction: another k or element size.
    """
    per = _elements_per_register("B", k, element_bits)
    index, lane, part = _grid(k // (4 * per), per)
    row = lane // 4 + 0 * (index + part)
    column = per * (lane % 4) + part + 4 * per * index
    return _fragment(GROUP_ROWS, k, element_bits, row, column)


@lru_cache(maxsize=16)
def matrices_8x8(count: int, transposed: bool = False) -> Fragment:
    """``ldmatrix`` and ``stmatrix`` ``.m8n8.x{count}{.trans}.b16``: matrices on top of each other.

    Row r of the (8 count) x 8 stack is the 16 bytes at the address that thread r gives, in matrix
    r / 8; register m holds matrix m. With ``transposed`` a register holds two neighbours of one
    column.

    Raises:
        UnsupportedInstruction: a count that is not 1, 2 or 4.
    """
    if count not in {1, 2, 4}:
        raise UnsupportedInstruction(f"ldmatrix: got .x{count}, allowed: .x1, .x2, .x4")
    index, lane, part = _grid(count, 2)
    across, along = lane // 4, 2 * (lane % 4) + part
    row, column = (along, across) if transposed else (across, along)
    row, column = np.broadcast_arrays(row, column)
    return _fragment(GROUP_ROWS * count, 8, 16, row + GROUP_ROWS * index, column)


def _elements_per_register(side: str, k: int, element_bits: int) -> int:
    if element_bits not in _UNSIGNED or k not in {128 // element_bits, 256 // element_bits}:
        raise UnsupportedInstruction(
            f"{side} fragment: got k = {k} of {element_bits} bits, allowed: k * bits = 128 or 256, "
            "of 8, 16 or 32 bits"
        )
    return REGISTER_BITS // element_bits


def _grid(registers: int, per: int) -> tuple[Index, Index, Index]:
    """Register, lane and element-in-register numbers, ready to broadcast to a fragment's shape."""
    index = np.arange(registers)[:, None, None]
    return index, np.arange(LANES)[None, :, None], np.arange(per)[None, None, :]


def _fragment(rows: int, columns: int, bits: int, row: Index, column: Index) -> Fragment:
    row, column = (np.array(part) for part in np.broadcast_arrays(row, column))
    row.flags.writeable = column.flags.writeable = False
    return Fragment(rows, columns, bits, row, column)
