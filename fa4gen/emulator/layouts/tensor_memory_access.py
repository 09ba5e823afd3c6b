"""The shapes of tcgen05.ld and tcgen05.st: which cell each register of each lane is.

Source: PTX ISA 9.7.16.2.3 (Table 49) and 9.7.16.8; the packed maps from the value layouts of
CUTLASS copy_traits_sm100.hpp (``*_16b``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction

Index: TypeAlias = npt.NDArray[np.int64]
Cells: TypeAlias = npt.NDArray[np.uint32]
Registers: TypeAlias = npt.NDArray[np.uint32]

WARP_LANES = 32
_LOW_HALF = np.array(0xFFFF, np.uint32)
_HALF = np.array(16, np.uint32)

REGISTERS_PER_NUM = {"32x32b": 1, "16x64b": 1, "16x32bx2": 1, "16x128b": 2, "16x256b": 4}
"""Registers that one unit of ``.num`` means, by shape."""
_MAX_REGISTERS = 128


@dataclass(frozen=True, slots=True, eq=False)
class TmemAccess:
    """Cells that a warp's tcgen05.ld or .st touches, relative to its address.

    Where ``packed`` (``.pack::16b``, ``.unpack::16b``), a register is the low halves of two
    neighbouring columns: the one in ``column`` and the next.
    """

    lane: Index
    """``(registers, 32)``: lane of tensor memory, from that of the address."""
    column: Index
    """``(registers, 32)``: column, from that of the address."""
    packed: bool
    straight: bool
    """Whether lane t's register r is simply cell (t, r)."""

    @property
    def registers(self) -> int:
        """Registers per thread."""
        return len(self.lane)

    @property
    def lanes(self) -> int:
        """Lanes of tensor memory that are touched: 16 or 32."""
        return int(self.lane.max()) + 1

    @property
    def columns(self) -> int:
        """Columns from that of the address to the last that is touched, inclusive."""
        return int(self.column.max()) + 1 + self.packed


@lru_cache(maxsize=256)
def tmem_access(shape: str, num: int, packed: bool = False, half_split: int = 0) -> TmemAccess:
    """The cells of ``tcgen05.{ld,st}.sync.aligned.SHAPE.xNUM``.

    Args:
        shape: a key of ``REGISTERS_PER_NUM``.
        num: the number behind ``.x``.
        packed: ``.pack::16b`` of a load, ``.unpack::16b`` of a store.
        half_split: for ``16x32bx2``, the columns between the two halves (``immHalfSplitoff``).

    Raises:
        UnsupportedInstruction: no such shape or number.
    """
    if shape not in REGISTERS_PER_NUM:
        raise UnsupportedInstruction(
            f"tcgen05.ld/st: got .{shape}, allowed: {', '.join(REGISTERS_PER_NUM)}"
        )
    count = num * REGISTERS_PER_NUM[shape]
    if num < 1 or num & (num - 1) or count > _MAX_REGISTERS:
        raise UnsupportedInstruction(
            f"tcgen05.ld/st.{shape}: got .x{num}, {num} * {REGISTERS_PER_NUM[shape]} = {count} "
            f"registers; allowed: powers of two up to {_MAX_REGISTERS} registers"
        )
    register, thread = np.indices((count, WARP_LANES))
    lane, column = _cells(shape, register, thread)
    column = column * (1 + packed)
    if shape == "16x32bx2":
        column = column + half_split * (thread // 16)
    for array in (lane, column):
        array.flags.writeable = False
    return TmemAccess(lane, column, packed, shape == "32x32b" and not packed)


def load_cells(access: TmemAccess, cells: Cells) -> Registers:
    """The registers that a load gives.

    Args:
        access: the cells.
        cells: ``(lanes, columns)`` of tensor memory from the address on, at least as large as
            ``access`` says.

    Returns:
        ``(registers, 32)`` uint32, a new array.
    """
    if access.straight:
        return cells[:WARP_LANES, : access.registers].T.copy()
    low = cells[access.lane, access.column]
    if not access.packed:
        return low
    high = cells[access.lane, access.column + 1]
    return (low & _LOW_HALF) | (high << _HALF)


def store_cells(access: TmemAccess, cells: Cells, registers: Registers) -> None:
    """Write a store's registers into ``cells``, a writable window as in :func:`load_cells`.

    ``.unpack::16b`` writes zero to the upper half of each cell; whether hardware does is not
    documented.
    """
    if access.straight:
        cells[:WARP_LANES, : access.registers] = registers.T
        return
    if not access.packed:
        cells[access.lane, access.column] = registers
        return
    cells[access.lane, access.column] = registers & _LOW_HALF
    cells[access.lane, access.column + 1] = registers >> _HALF


def _cells(shape: str, register: Index, thread: Index) -> tuple[Index, Index]:
    if shape == "32x32b":
        return thread, register
    if shape == "16x32bx2":
        return thread % 16, register
    if shape == "16x64b":
        return 8 * (thread & 1) + thread // 4, 2 * register + (thread >> 1 & 1)
    if shape == "16x128b":
        return thread // 4 + 8 * (register & 1), 4 * (register >> 1) + thread % 4
    row = thread // 4 + 8 * (register >> 1 & 1)
    return row, 8 * (register >> 2) + 2 * (thread % 4) + (register & 1)
