"""Where tcgen05 puts matrices in tensor memory: 128 lanes x 512 columns of 32-bit cells per CTA.

Accumulators and A (PTX ISA 9.7.16.10.5; CUTLASS mma_traits_sm100_frag.hpp) are rectangles of the
matrix on rectangles of cells, and are given as such: a copy of each is one slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import KernelFault, UnsupportedInstruction

Index: TypeAlias = npt.NDArray[np.int64]
Cells: TypeAlias = npt.NDArray[np.uint32]
Codes: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

LANES, COLUMNS = 128, 512
CELL_BITS = 32
_HALF_LANES = 64
_QUARTER_LANES = 32
_GROUP_LANES = 16
_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32}


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of an MMA's M x N result, and the cells that hold it."""

    cta: int
    """0 or 1: which CTA of the pair, by the low bit of its rank."""
    rows: slice
    columns: slice
    lanes: slice
    """Lanes of the CTA's tensor memory. A in tensor memory has these rows at these lanes too, once
    for every block: where two blocks share rows, A must be stored twice."""
    cells: slice
    """Columns of tensor memory, counted from the address of D."""


@dataclass(frozen=True, slots=True)
class AccumulatorLayout:
    """Placement of an M x N result; one element per cell, a 16-bit one in its low half."""

    letter: str
    """The ISA's name for it, A to G."""
    m: int
    n: int
    blocks: tuple[Block, ...]

    @property
    def columns(self) -> int:
        """Columns of tensor memory that are used."""
        return int(max(block.cells.stop for block in self.blocks))

    def index(self) -> tuple[Index, Index, Index]:
        """CTA, lane and column of every element, each ``(m, n)``."""
        cta, lane, column = (np.full((self.m, self.n), -1) for _ in range(3))
        for block in self.blocks:
            at = (block.rows, block.columns)
            cta[at] = block.cta
            lane[at] = np.arange(block.lanes.start, block.lanes.stop)[:, None]
            column[at] = np.arange(block.cells.start, block.cells.stop)
        return cta, lane, column


@lru_cache(maxsize=512)
def accumulator_layout(
    m: int, n: int, cta_group: int, ws: bool = False, sparse: bool = False, base_lane: int = 0
) -> AccumulatorLayout:
    """Where the result of a tcgen05.mma lies.

    Args:
        m, n: shape of the whole instruction.
        cta_group: 1 or 2.
        ws: the weight-stationary form.
        sparse: whether A is sparse.
        base_lane: lane field of the address of D: 0, or 16 where only half of the lanes are used.

    Raises:
        KernelFault: no such shape, or a lane that D cannot start at.
    """
    letter = _letter(m, cta_group, ws, sparse)
    allowed = (0, _GROUP_LANES) if letter in "CF" else (0,)
    if base_lane not in allowed:
        raise KernelFault(
            f"tcgen05.mma: D of M = {m} starts at lane {base_lane}, allowed: "
            f"{' or '.join(map(str, allowed))}"
        )
    if letter == "A":
        blocks = [_block(cta, 128 * cta, (0, n), 0, 128) for cta in (0, 1)]
    elif letter == "B":
        halves = ((0, n // 2), (n // 2, n))
        blocks = [
            _block(cta, 64 * cta, half, 64 * side, 64)
            for cta in (0, 1)
            for side, half in enumerate(halves)
        ]
    elif letter in "CF":
        blocks = [
            _block(row // 64, row, (0, n), row % 64 * 2 + base_lane, 16) for row in range(0, m, 16)
        ]
    elif letter == "D":
        blocks = [_block(0, 0, (0, n), 0, 128)]
    else:
        parts = LANES // m
        width = n // parts
        blocks = [
            _block(0, 0, (width * part, width * (part + 1)), m * part, m) for part in range(parts)
        ]
    return AccumulatorLayout(letter, m, n, tuple(blocks))


def operand_from_cells(cells: Cells, element_bits: int) -> Codes:
    """A as it lies in tensor memory: ``(rows, columns)`` cells to ``(rows, k)`` raw codes.

    Neighbours along k share a cell, the first in the low bits.
    """
    return np.ascontiguousarray(cells).view(_UNSIGNED[element_bits])


def operand_columns(k: int, element_bits: int) -> int:
    """Columns that ``k`` elements of A in tensor memory take; narrow codes take a byte each."""
    return k * max(element_bits, 8) // CELL_BITS


def _letter(m: int, cta_group: int, ws: bool, sparse: bool) -> str:
    if cta_group == 1:
        known = {128: "D", 64: "E", 32: "G"} if ws else {128: "D", 64: "F"}
    else:
        known = {} if ws else {256: "A", 128: "C" if sparse else "B"}
    if m not in known:
        raise KernelFault(
            f"tcgen05.mma: M = {m} with cta_group::{cta_group}{' and .ws' if ws else ''}, allowed: "
            f"{', '.join(map(str, known)) or 'nothing'}"
        )
    return known[m]


def _block(cta: int, row: int, columns: tuple[int, int], lane: int, rows: int) -> Block:
    return Block(
        cta,
        slice(row, row + rows),
        slice(*columns),
        slice(lane, lane + rows),
        slice(0, columns[1] - columns[0]),
    )


# ---- tcgen05.cp ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class CopyLayout:
    """What tcgen05.cp moves: row ``row[i]`` of the source goes to lane ``lane[i]``.

    The source is K-major: :func:`fa4gen.emulator.layouts.operand.read_operand` with ``rows`` rows
    of ``row_bytes`` 8-bit elements. Lanes count from the lane of the destination address.
    """

    rows: int
    row_bytes: int
    row: Index
    lane: Index

    @property
    def columns(self) -> int:
        """Columns of tensor memory that are written."""
        return self.row_bytes * 8 // CELL_BITS


@lru_cache(maxsize=16)
def copy_layout(shape: str) -> CopyLayout:
    """The layout of ``tcgen05.cp.cta_group::G.SHAPE`` (PTX ISA 9.7.16.9).

    Args:
        shape: with its multicast modifier, such as ``32x128b.warpx4``.

    Raises:
        UnsupportedInstruction: no such shape.
    """
    lanes = np.arange(LANES)
    layouts: dict[str, tuple[int, int, Index, Index]] = {
        "128x256b": (128, 32, lanes, lanes),
        "128x128b": (128, 16, lanes, lanes),
        "4x256b": (4, 32, np.arange(4), _QUARTER_LANES * np.arange(4)),
        "64x128b.warpx2::02_13": (64, 16, lanes % _HALF_LANES, lanes),
        "64x128b.warpx2::01_23": (
            64,
            16,
            lanes // _HALF_LANES * _QUARTER_LANES + lanes % _QUARTER_LANES,
            lanes,
        ),
        "32x128b.warpx4": (32, 16, lanes % _QUARTER_LANES, lanes),
    }
    if shape not in layouts:
        raise UnsupportedInstruction(f"tcgen05.cp: got .{shape}, emulated: {', '.join(layouts)}")
    return CopyLayout(*layouts[shape])
