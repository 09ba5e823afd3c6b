"""The rectangles of tensor memory that hold the accumulator of one tcgen05.mma, and A beside it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fa4gen.emulator.layouts.tensor_memory import Block, accumulator_layout
from fa4gen.emulator.tensor_memory import GROUP_LANES, Region


class Tile(NamedTuple):
    """All rows of one CTA times the columns of D that share lanes.

    A from tensor memory lies in the lanes of D. So with two CTAs and M = 128 each CTA needs its
    rows of A twice: each half of the lanes multiplies them with another half of B.
    """

    cta: int
    """0 or 1: which CTA of the pair."""
    first_group: int
    stop_group: int
    step: int
    first_n: int
    """First column of D; ``n`` of them lie side by side from D's address on."""
    n: int

    def region(self, column: int, columns: int) -> Region:
        """``columns`` columns in its lanes."""
        return Region(self.first_group, self.stop_group, self.step, column, columns)


@lru_cache(maxsize=256)
def tiles(m: int, n: int, cta_group: int, base_lane: int) -> tuple[Tile, ...]:
    """The parts of a dense ``m`` x ``n`` accumulator.

    Raises:
        KernelFault: D may not begin at lane ``base_lane``.
    """
    parts: dict[tuple[int, int], list[Block]] = {}
    for block in accumulator_layout(m, n, cta_group, base_lane=base_lane).blocks:
        parts.setdefault((block.cta, block.columns.start), []).append(block)
    return tuple(_tile(blocks) for blocks in parts.values())


def _tile(blocks: list[Block]) -> Tile:
    """Blocks that differ in their rows only: one, or several of 16 lanes at equal distances."""
    first, last = blocks[0], blocks[-1]
    group = first.lanes.start // GROUP_LANES
    step = 1 if first is last else blocks[1].lanes.start // GROUP_LANES - group
    return Tile(
        cta=first.cta,
        first_group=group,
        stop_group=last.lanes.stop // GROUP_LANES,
        step=step,
        first_n=first.columns.start,
        n=first.columns.stop - first.columns.start,
    )
