"""The work of one tcgen05.mma: D = A B^T, or D = A B^T + D.

Source: PTX ISA 9.1, section 9.7.16.10. Precision and order of the sums are open there; see
:mod:`fa4gen.numerics.tensor_core` for the two models. D of f16 is rounded once, to nearest even.
With block scaling the sum is always the one in float64, of integers it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.instructions.tcgen05_block_scale import BlockScales
from fa4gen.emulator.instructions.tcgen05_operands import (
    TMEM_COLUMNS,
    SharedOperand,
    tensor_elements,
)
from fa4gen.emulator.instructions.tcgen05_tiles import Tile
from fa4gen.emulator.layouts.instruction_descriptor import InstructionDescriptor
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.tensor_memory import (
    GROUP_LANES,
    GROUPS,
    POISON_HIGH,
    Region,
    TensorMemory,
    Values,
    region_cells,
)
from fa4gen.numerics.arrays import F32, F64, Mask
from fa4gen.numerics.encode import encode
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical
from fa4gen.numerics.tensor_core import dot_f64, fused_dot, tcgen05_accumulation

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cta

_LOW_HALF = np.uint32(0xFFFF)
_NOTHING = np.zeros((1, 1), np.float32)
_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Product:
    """One instruction, with all it needs to know captured at its issue.

    Attributes:
        desc: Formats and shape.
        ctas: The CTA, or the pair, even one first.
        memories: Their tensor memories.
        tiles: Where D lies.
        d_column: First column of D.
        a: A in shared memory, the same in each CTA, or its first column in tensor memory.
        b: B in shared memory: its rows are split over the CTAs.
        accumulates: Whether D is added.
        down_scale: D is divided by two to this power before.
        disabled: Lanes of D that keep their values; ``None`` for none. ``(128,)``.
        scales: Of the block-scaled kinds.
        fused: Whether sums are cut as on hardware.
        access: All accesses.
    """

    desc: InstructionDescriptor
    ctas: tuple[Cta, ...]
    memories: tuple[TensorMemory, ...]
    tiles: tuple[Tile, ...]
    d_column: int
    a: SharedOperand | int
    b: SharedOperand
    accumulates: bool
    down_scale: int
    disabled: Mask | None
    scales: BlockScales | None
    fused: bool
    access: Access

    def d_region(self, tile: Tile) -> Region:
        """The cells of a tile."""
        return tile.region(self.d_column, tile.n)

    def a_region(self, tile: Tile) -> Region | None:
        """The cells that its rows of A are read from, if they are in tensor memory."""
        return tile.region(self.a, TMEM_COLUMNS) if isinstance(self.a, int) else None

    def perform(self) -> None:
        """Read A, B and D, write D; all of it checked for races."""
        if not all(self._there(tile) for tile in self.tiles):
            return
        parts = [self.b.read(cta.shared, self.access) for cta in self.ctas]
        b = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.desc.negate_b:
            b = -b
        if isinstance(self.a, int):
            rows = None
        else:
            rows = [self.a.read(cta.shared, self.access) for cta in self.ctas]
        for tile in self.tiles:
            a = self._a_of(tile) if rows is None else rows[tile.cta]
            if self.desc.negate_a:
                a = -a
            self._update(tile, a, b[tile.first_n : tile.first_n + tile.n])

    def _there(self, tile: Tile) -> bool:
        memory, place = self.memories[tile.cta], self.access.place
        a_region = self.a_region(tile)
        there = memory.still_there(self.d_region(tile), place)
        return there and (a_region is None or memory.still_there(a_region, place))

    def _a_of(self, tile: Tile) -> F32:
        memory, region = self.memories[tile.cta], self.a_region(tile)
        assert region is not None  # asked for only where A is in tensor memory
        memory.shadow.read(region_cells(region), self.access)
        return tensor_elements(self.desc.kind, self.desc.a_format)(memory.read(region))

    def _update(self, tile: Tile, a: F32, b: F32) -> None:
        memory, region = self.memories[tile.cta], self.d_region(tile)
        cells = region_cells(region)
        keep = None
        if self.disabled is not None:
            keep = self.disabled.reshape(GROUPS, GROUP_LANES)[
                region.first : region.stop : region.step
            ]
            used = ~keep.all(axis=1)
            cells = cells.reshape(-1, region.columns)[used].ravel()
            keep = keep.reshape(-1, 1)
        if self.accumulates and not memory.shadow.initialised[cells].all():
            memory.shadow.read(cells, self.access)  # reports it; the write checks all else
        memory.shadow.write(cells, self.access)
        old = memory.read(region)
        new = self._sum(tile, a, b, old if self.accumulates else None)
        memory.write(region, new if keep is None else np.where(keep, old, new))

    def _sum(self, tile: Tile, a: F32, b: F32, old: Values | None) -> Values:
        """The new cells of D."""
        d_format = self.desc.d_format
        if d_format == "s32":
            return _integer_sum(a, b, old, self.desc.saturate)
        c = _NOTHING if old is None else _as_floats(old, d_format)
        if self.down_scale:
            c = c * np.float32(2.0**-self.down_scale)
        if self.scales is not None:
            memory = self.memories[tile.cta]
            wide_a, wide_b = self.scales.apply(tile, memory, a, b, self.access)
            return canonical((wide_a @ wide_b.T + c).astype(np.float32)).view(np.uint32)
        if self.fused:
            how = tcgen05_accumulation(
                self.desc.a_format, self.desc.b_format, "f16" if d_format == "f16" else "f32"
            )
            d = fused_dot(a, b, np.broadcast_to(c, (len(a), len(b))), how)
            return d.view(np.uint32) if d_format == "f32" else _as_halves(d.astype(np.float64))
        if d_format == "f32":
            return dot_f64(a, b, c).view(np.uint32)
        return _as_halves(a.astype(np.float64) @ b.astype(np.float64).T + c)


def _as_floats(cells: Values, d_format: str) -> F32:
    if d_format == "f32":
        return cells.view(np.float32)
    return decode((cells & _LOW_HALF).astype(np.uint16), "f16")


def _as_halves(values: F64) -> Values:
    """f16 in the low halves of cells; the upper halves, which the ISA leaves open, are poisoned."""
    return encode(values, "f16") | np.uint32(POISON_HIGH)


def _integer_sum(a: F32, b: F32, old: Values | None, saturate: bool) -> Values:
    product: npt.NDArray[np.float64] = a.astype(np.float64) @ b.astype(np.float64).T
    total = product.astype(np.int64)
    if old is not None:
        total += old.view(np.int32)
    if saturate:
        total = np.clip(total, _INT32_MIN, _INT32_MAX)
    return total.astype(np.uint32)
