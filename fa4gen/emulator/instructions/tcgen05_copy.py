"""tcgen05.cp: shared memory to tensor memory, in the order of the products of its warp.

With two CTAs each copies from its own shared memory, at the same descriptor: CUTLASS's 2-CTA
block-scaled kernels rely on it. Source: PTX ISA 9.1, section 9.7.16.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.builder import Builder, unsupported
from fa4gen.emulator.instructions.tcgen05_operands import SharedOperand, shared_bytes, unpadded
from fa4gen.emulator.instructions.tcgen05_pipe import (
    group_of,
    pipe_of,
    require_running,
    take_cta_group,
)
from fa4gen.emulator.layouts.narrow_operands import to_holders
from fa4gen.emulator.layouts.tensor_memory import CopyLayout, copy_layout
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.tensor_memory import (
    GROUP_LANES,
    GROUPS,
    QUARTER_LANES,
    Region,
    region_cells,
    split_address,
    tensor_memory,
)

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cta
    from fa4gen.emulator.warp import Warp

_SHAPES = ("128x256b", "128x128b", "4x256b", "64x128b", "32x128b")
_MULTICASTS = ("warpx2::02_13", "warpx2::01_23", "warpx4")
_SOURCE_BITS = {"": 0, "b4x16_p64": 4, "b6x16_p32": 6}
_REFRESHED_ROWS = 4
"""Rows of the shape that goes to one lane of each quarter, at the lane of the address."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One execution.

    Attributes:
        bits: Of narrow elements that get a byte each; 0 if bytes are copied as they are.
    """

    ctas: tuple[Cta, ...]
    source: SharedOperand
    layout: CopyLayout
    bits: int
    base_lane: int
    region: Region
    access: Access

    def perform(self) -> None:
        """Copy in every CTA."""
        first, stop = self.region.column, self.region.column + self.region.columns
        for cta in self.ctas:
            memory = tensor_memory(cta)
            if not memory.still_there(self.region, self.access.place):
                continue
            data = self.source.read_codes(cta.shared, self.access).astype(np.uint8, copy=False)
            if self.bits:
                data = to_holders(unpadded(data, self.bits), self.bits)
            memory.shadow.write(region_cells(self.region), self.access)
            cells = np.ascontiguousarray(data).view(np.uint32)
            memory.data[self.base_lane + self.layout.lane, first:stop] = cells[self.layout.row]


@instruction("tcgen05.cp", pipe=Pipe.TMEM, isa="9.7.16.9.2")
def copy(b: Builder) -> Op:
    """Start a copy for each active lane; it is over when a commit's mbarrier says so."""
    cta_group = take_cta_group(b)
    shape = ".".join(filter(None, (b.mods.one_of(*_SHAPES), b.mods.one_of(*_MULTICASTS))))
    try:
        layout = copy_layout(shape)
    except UnsupportedInstruction as error:
        b.fail(str(error))
    decompresses = b.mods.flag("b8x16")
    bits = _SOURCE_BITS[b.mods.one_of(*_SOURCE_BITS)]
    if decompresses != (bits > 0):
        b.fail("got one of .b8x16 and a source format without the other")
    target, source = b.expect(2)
    address, word = b.address(target), b.reader(source, 64)

    def run(warp: Warp) -> None:
        addresses, words = address(warp), word(warp)
        for lane in warp.lanes():
            perform = _prepare(warp, layout, cta_group, bits, (addresses[lane], words[lane]))
            pipe_of(warp, cta_group).submit(warp, lane, perform, f"cp {shape}")

    return run


def _prepare(
    warp: Warp, layout: CopyLayout, cta_group: int, bits: int, operands: tuple[int, int]
) -> Callable[[], None]:
    """Check everything, and give the work to be done.

    Args:
        operands: Address in tensor memory, matrix descriptor.

    Raises:
        KernelFault: an illegal descriptor or lane, bytes outside shared memory, columns that are
            not allocated.
        UnsupportedInstruction: a descriptor that is not emulated.
    """
    ctas = group_of(warp, cta_group)
    require_running(warp, ctas)
    try:
        source = shared_bytes(int(operands[1]), layout.rows, layout.row_bytes)
    except UnsupportedInstruction as error:
        raise unsupported(warp.instruction, str(error)) from None
    lane, column = split_address(int(operands[0]))
    refreshes = layout.rows == _REFRESHED_ROWS
    if lane >= (QUARTER_LANES if refreshes else 1):
        raise warp.fault(f"tcgen05.cp: got lane {lane}, allowed: 0{' to 31' if refreshes else ''}")
    step = QUARTER_LANES // GROUP_LANES if refreshes else 1
    region = Region(lane // GROUP_LANES, GROUPS, step, column, layout.columns)
    for cta in ctas:
        tensor_memory(cta).check(warp, region, "tcgen05.cp")
        cta.shared.check(warp, source.low, source.high)
    access = pipe_of(warp, cta_group).next_access(warp)
    return _Copy(ctas, source, layout, bits, lane, region, access).perform


@instruction("tcgen05.shift", pipe=Pipe.TMEM, isa="9.7.16.9.3")
def shift(b: Builder) -> Op:
    """Refused: which way rows move is not established, and nothing is known to emit it."""
    b.fail("shifting tensor memory is not emulated")
