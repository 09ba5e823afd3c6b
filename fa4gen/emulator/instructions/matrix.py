"""``ldmatrix``, ``stmatrix`` and ``movmatrix``: small matrices between shared memory and a warp.

Source: PTX ISA 9.1, sections 9.7.14.5.15 to .17, for ``.m8n8.b16``. The figures for 8-bit matrices
agree with the layouts that CUTLASS declares for them (``cute/atom/copy_traits_sm100.hpp``, with the
byte exchange of ``cute/arch/copy_sm100.hpp`` undone); no hardware has confirmed them here. The
unpacking forms (``.b8x16.b6x16_p32``, ``.b8x16.b4x16_p64``) are not known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.access import take_space
from fa4gen.emulator.builder import LANES, Builder
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.layouts.fragments import matrices_8x8
from fa4gen.emulator.memory import Addresses, Offsets
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import SharedMemory
from fa4gen.emulator.spaces import Space
from fa4gen.emulator.warp import Signal, Wait, Warp

Index = npt.NDArray[np.intp]

ROW_BYTES = 16
_COUNTS = {"x1": 1, "x2": 2, "x4": 4}
_SPACES = ("shared", "shared::cta")


@instruction("ldmatrix", pipe=Pipe.LSU, isa="9.7.14.5.15")
def ldmatrix(b: Builder) -> Op:
    """Load matrices whose rows of 16 bytes lie where each lane's address says."""
    space, transposed, count, shape = _decode(b)
    target, source = b.expect(2)
    if shape == "m8n8":
        rows, index = 8 * count, _m8n8(count, transposed)
    elif shape == "m16n16" and transposed and count in {1, 2}:
        rows, index = 16 * count, _m16n16(count)
    else:
        b.fail(f"got .{shape}.x{count}, known: .m8n8 of b16, .m16n16.x1 and .x2 .trans of b8")
    slots, address = b.dsts(target, 32), b.address(source)
    if len(slots) != len(index):
        b.fail(f"got {len(slots)} destinations for {len(index)} registers")

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        memory, offsets = _rows(warp, space, address(warp)[:rows])
        memory.touched(warp, offsets, ROW_BYTES, write=False)
        data = memory.data[offsets[:, None] + np.arange(ROW_BYTES)].ravel()
        registers = data[index].view(np.uint32)[..., 0]
        for slot, value in zip(slots, registers, strict=True):
            warp.write(slot, np.ascontiguousarray(value))
        return None

    return run


@instruction("stmatrix", pipe=Pipe.LSU, isa="9.7.14.5.16")
def stmatrix(b: Builder) -> Op:
    """Store matrices; the inverse of ``ldmatrix``."""
    space, transposed, count, shape = _decode(b)
    target, source = b.expect(2)
    if shape == "m8n8":
        index = _m8n8(count, transposed)
    elif shape == "m16n8" and transposed:
        index = _m16n8(count)
    else:
        b.fail(f"got .{shape}.x{count}, known: .m8n8 of b16, .m16n8 .trans of b8")
    slots, address, rows = b.srcs(source, 32), b.address(target), 8 * count
    if len(slots) != count:
        b.fail(f"got {len(slots)} sources for {count} registers")
    places = index.ravel()

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        values = np.stack([warp.regs[slot] for slot in slots])
        memory, offsets = _rows(warp, space, address(warp)[:rows])
        memory.touched(warp, offsets, ROW_BYTES, write=True)
        data = np.empty(rows * ROW_BYTES, np.uint8)
        data[places] = values.view(np.uint8).ravel()
        memory.data[offsets[:, None] + np.arange(ROW_BYTES)] = data.reshape(rows, ROW_BYTES)
        return None

    return run


@instruction("movmatrix", pipe=Pipe.SHUFFLE, isa="9.7.14.5.17")
def movmatrix(b: Builder) -> Op:
    """Transpose an 8 x 8 matrix of 16-bit elements that lies across the warp."""
    for name in ("sync", "aligned", "m8n8", "trans", "b16"):
        if not b.mods.flag(name):
            b.fail("known as movmatrix.sync.aligned.m8n8.trans.b16")
    target, source = b.expect(2)
    into, slot = b.dst(target, 32), b.src(source, 32)
    plain, turned = _m8n8(1, False).ravel(), _m8n8(1, True).ravel()

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        matrix = np.empty(LANES * 4, np.uint8)
        matrix[plain] = warp.regs[slot].view(np.uint8)
        warp.write(into, matrix[turned].view(np.uint32))
        return None

    return run


def _decode(b: Builder) -> tuple[Space, bool, int, str]:
    """Space, whether transposed, number of matrices, and shape."""
    if not b.mods.flag("sync") or not b.mods.flag("aligned"):
        b.fail("known with .sync.aligned")
    shape = b.mods.one_of("m8n8", "m16n16", "m16n8")
    count = _COUNTS.get(b.mods.one_of(*_COUNTS))
    kind = b.mods.one_of("b16", "b8")
    if count is None or kind != ("b16" if shape == "m8n8" else "b8"):
        b.fail("known as .m8n8 of .b16, and .m16n16 and .m16n8 of .b8, with .x1, .x2 or .x4")
    return take_space(b, *_SPACES), b.mods.flag("trans"), count, shape


def whole_warp(warp: Warp) -> Wait | None:
    """Wait for all lanes; one that has ended, or a predicate, is undefined (``.aligned``)."""
    if warp.mask is None:
        return None
    if (wait := warp.together()) is not None:
        return wait
    missing = np.flatnonzero(~warp.active()).tolist()
    warp.report(
        FindingKind.CONVERGENCE,
        f"{warp.instruction.opcode}: executed without lanes {missing}; .aligned wants all 32",
    )
    return None


def _rows(warp: Warp, space: Space, addresses: Addresses) -> tuple[SharedMemory, Offsets]:
    """The memory, and where in it each row begins.

    Raises:
        KernelFault: outside of shared memory, or not at a multiple of 16 bytes.
    """
    block, offsets = space.locate(warp, addresses, ROW_BYTES)
    if not isinstance(block, SharedMemory):
        raise warp.fault(f"{block.name}: got a generic address, must be in shared memory")
    return block, offsets


def _m8n8(count: int, transposed: bool) -> Index:
    """For each byte of each register of each lane, which byte of the rows it is."""
    fragment = matrices_8x8(count, transposed)
    halves = ROW_BYTES * fragment.row + 2 * fragment.column
    return _bytes(halves[..., None] + np.arange(2))


def _m16n16(count: int) -> Index:
    """Register ``r`` of lane ``l``: bytes ``l / 4 + 8 r`` of rows ``4 (l % 4)`` to + 3."""
    register, lane, byte = np.ogrid[: 2 * count, :LANES, :4]
    row = 16 * (register // 2) + 4 * (lane % 4) + byte
    return _bytes(ROW_BYTES * row + lane // 4 + 8 * (register % 2))


def _m16n8(count: int) -> Index:
    """Register ``r`` of lane ``l``: bytes ``l / 4`` and + 8 of rows ``8 r + 2 (l % 4)`` and + 1."""
    register, lane, byte = np.ogrid[:count, :LANES, :4]
    row = 8 * register + 2 * (lane % 4) + byte % 2
    return _bytes(ROW_BYTES * row + lane // 4 + 8 * (byte // 2))


def _bytes(index: npt.NDArray[np.int64]) -> Index:
    return index.reshape(-1, LANES, 4).astype(np.intp)
