"""Scale factors of tcgen05.mma's block-scaled kinds, which lie in tensor memory.

The factor of row r (of A, or of B^T) and of its j-th block along the sum is a byte: lane r % 32 of
a 32-lane quarter, column r / 32, byte id + j of the cell. All quarters that compute with it hold a
copy. With two CTAs each holds the factors of its own rows of A, and of all rows of B^T. With
M = 128 besides, the upper half of the lanes computes the upper half of N, and holds the factors of
those rows of B^T, counted from the first of them.

Source: PTX ISA 9.1, section 9.7.16.10.7; CUTLASS cute/atom/mma_traits_sm100_frag.hpp (tmem_sf_frg)
and its example 2cta_mma_blockscale_m128.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.instructions.tcgen05_tiles import Tile
from fa4gen.emulator.layouts.instruction_descriptor import KINDS, InstructionDescriptor
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.tensor_memory import (
    GROUP_LANES,
    QUARTER_LANES,
    Region,
    TensorMemory,
    region_cells,
)
from fa4gen.numerics.arrays import F32, F64
from fa4gen.numerics.formats import decode

_SIZES = {
    "scale_vec::1X": 1,
    "scale_vec::2X": 2,
    "scale_vec::4X": 4,
}
"""Blocks along the sum of one instruction."""
_LEGAL = {"mxf8f6f4": (1,), "mxf4": (2,), "mxf4nvf4": (2, 4)}
_GROUPS_PER_QUARTER = QUARTER_LANES // GROUP_LANES
_ADDRESS_MASK = 0x3FFFFFFF
"""CUTLASS leaves the number of a byte in the two top bits of these addresses."""


def take_block_scale(b: Builder, kind: str) -> int:
    """Blocks along the sum of one instruction, from the modifiers; 0 without block scaling.

    A block is 32 elements (``.block32``) or 16; without a modifier it is the kind's only size.
    """
    given = b.mods.flag("block_scale")
    if given != KINDS[kind].block_scaled:
        b.fail(f"got kind::{kind} {'with' if given else 'without'} .block_scale")
    if not given:
        return 0
    legal = _LEGAL[kind]
    size = b.mods.one_of("block16", "block32", *_SIZES)
    if size.startswith("block"):
        blocks = KINDS[kind].k // int(size.removeprefix("block"))
    elif size:
        blocks = _SIZES[size]
    elif len(legal) == 1:
        blocks = legal[0]
    else:
        b.fail(f"got no size of a block, kind::{kind} needs one")
    if blocks not in legal:
        b.fail(f"got .{size} with kind::{kind}, which has {' or '.join(map(str, legal))} blocks")
    return blocks


@dataclass(frozen=True, slots=True)
class BlockScales:
    """The scale factors of one instruction.

    Attributes:
        blocks: Factors of a row.
        a_column: First column of A's.
        b_column: First column of B's.
    """

    desc: InstructionDescriptor
    blocks: int
    a_column: int
    b_column: int

    def regions(self, tile: Tile, rows: int) -> tuple[Region, Region]:
        """Cells with the factors of ``rows`` rows of A and of the tile's rows of B^T."""
        return (
            tile.region(self.a_column, -(-rows // QUARTER_LANES)),
            tile.region(self.b_column, -(-tile.n // QUARTER_LANES)),
        )

    def apply(
        self, tile: Tile, memory: TensorMemory, a: F32, b: F32, access: Access
    ) -> tuple[F64, F64]:
        """A and B of a tile times their factors; exact."""
        a_region, b_region = self.regions(tile, len(a))
        return (
            self._scale(a, memory, a_region, self.desc.a_scale_id, access),
            self._scale(b, memory, b_region, self.desc.b_scale_id, access),
        )

    def _scale(
        self, values: F32, memory: TensorMemory, region: Region, first_byte: int, access: Access
    ) -> F64:
        memory.shadow.read(region_cells(region), access)
        cells = np.ascontiguousarray(memory.read(region))
        quarters: npt.NDArray[np.uint8] = cells.view(np.uint8).reshape(
            -1, QUARTER_LANES, region.columns, 4
        )[..., first_byte : first_byte + self.blocks]
        by_row = quarters.transpose(0, 2, 1, 3).reshape(len(quarters), -1, self.blocks)
        by_row = by_row[:, : len(values)]
        if (by_row != by_row[0]).any():
            memory.report(
                FindingKind.FAULT,
                f"tcgen05.mma: scale factors in {region}: the copies in the quarters differ",
                access.place,
            )
        factors = decode(by_row[0], self.desc.scale_format).astype(np.float64)
        return values * factors.repeat(values.shape[1] // self.blocks, axis=1)


def scale_address(address: int) -> int:
    """The address of scale factors as hardware takes it."""
    return address & _ADDRESS_MASK
