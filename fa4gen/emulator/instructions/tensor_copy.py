"""Tensor copies: a box of a tensor between global and shared memory, by way of a tensor map.

The map is read when the instruction is executed, the data when the copy completes. What an mbarrier
hears of is always the full box, elements out of bounds included. The only mode known is ``.tile``;
im2col, gather4 and scatter4 are refused.

Source: PTX ISA 9.1, sections 5.5 (tensors), 9.7.9.25.5 (cp.async.bulk.tensor, cp.reduce).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fa4gen.emulator.access import without_policy
from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.copies import Route, groups_of, guard
from fa4gen.emulator.instructions.bulk import GROUP, MBARRIER
from fa4gen.emulator.reductions import REDUCTIONS, reduction
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import OFFSET_MASK, RESERVED, target
from fa4gen.emulator.tiles import Tensor, Tile, tensor_at, tile_at
from fa4gen.emulator.warp import Warp
from fa4gen.ptx.ir import Address, Operand

Read: TypeAlias = Callable[[Warp], list[tuple[int, ...]]]
"""The coordinates in every lane."""
Change: TypeAlias = Callable[[Tile, np.ndarray[tuple[int], np.dtype[np.generic]]], None]
"""``change(tile, data)``: what a store or reduction does to global memory."""

_RANKS = {f"{rank}d": rank for rank in range(1, 6)}
_BITWISE = {4: "b32", 8: "b64"}


@instruction("cp.async.bulk.tensor", pipe=Pipe.TMA, isa="9.7.9.25.5.2")
def copy(b: Builder) -> Op:
    """Load or store a box."""
    rank = _take_rank(b)
    spaces = ("global", "shared::cta", "shared::cluster")
    dst, src = b.mods.one_of(*spaces), b.mods.one_of(*spaces)
    b.mods.ignore("tile")
    if src == "global" and dst != "global" and b.mods.flag(MBARRIER):
        return _load(b, rank, dst)
    if (dst, src) != ("global", "shared::cta") or not b.mods.flag(GROUP):
        b.fail(f"got {src or 'nothing'} to {dst or 'nothing'}, or no way of completion")
    return _store(b, rank, "")


@instruction("cp.reduce.async.bulk.tensor", pipe=Pipe.TMA, isa="9.7.9.25.5.3")
def reduce(b: Builder) -> Op:
    """Combine a box of shared memory into the tensor; the type is the map's."""
    rank = _take_rank(b)
    if not (b.mods.flag("global") and b.mods.flag("shared::cta") and b.mods.flag(GROUP)):
        b.fail("known from shared::cta to global with .bulk_group")
    operation = b.mods.one_of(*REDUCTIONS)
    if not operation:
        b.fail(f"got no operation, known: {', '.join(REDUCTIONS)}")
    b.mods.ignore("tile")
    return _store(b, rank, operation)


def _take_rank(b: Builder) -> int:
    name = b.mods.one_of(*_RANKS)
    if not name:
        b.fail("got no number of dimensions")
    return _RANKS[name]


def _coordinates(b: Builder, operand: Operand, rank: int) -> Read:
    """The signed coordinates of ``[map, {c0, c1, ...}]``."""
    if not isinstance(operand, Address) or len(operand.coordinates) != rank:
        b.fail(f"got {operand}, wanted a tensor map with {rank} coordinates")
    readers = [b.reader(each, 32) for each in operand.coordinates]

    def read(warp: Warp) -> list[tuple[int, ...]]:
        columns = [reader(warp).astype(np.uint32).view(np.int32).tolist() for reader in readers]
        return list(zip(*columns, strict=True))

    return read


def _load(b: Builder, rank: int, space: str) -> Op:
    multicast = b.mods.flag("multicast::cluster")
    if multicast and space != "shared::cluster":
        b.fail("a multicast goes to shared::cluster")
    pair = b.mods.one_of("cta_group::1", "cta_group::2") == "cta_group::2"
    operands = without_policy(b, b.mods.flag("L2::cache_hint"), 3 + multicast)
    dst, tensor_map, barrier = (b.address(operand) for operand in operands[:3])
    coordinates = _coordinates(b, operands[1], rank)
    ranks = b.reader(operands[3], 16) if multicast else None
    route = Route(space, multicast, pair)

    def run(warp: Warp) -> None:
        where, maps, barriers = dst(warp), tensor_map(warp), barrier(warp)
        boxes, masks = coordinates(warp), ranks(warp) if ranks else np.zeros(32, np.uint16)
        for lane in warp.lanes():
            at, told, mask = int(where[lane]), int(barriers[lane]), int(masks[lane])
            tensor = _tensor(warp, int(maps[lane]), rank)
            _issue_load(warp, route, tensor, boxes[lane], (at, told, mask))

    return run


def _issue_load(
    warp: Warp,
    route: Route,
    tensor: Tensor,
    box: tuple[int, ...],
    destination: tuple[int, int, int],
) -> None:
    """Send one box on its way to (address, mbarrier, CTA mask).

    A load of ``f32.ftz`` is one of ``f32``: an H200 keeps subnormals and NaN as they are
    (``tensor/load-as-f32.ftz`` of tests/emulator/hopper).
    """
    landings = route.landings(warp, *destination)
    tile = tile_at(warp, tensor, box, destination[0] & OFFSET_MASK)
    for landing in landings:
        guard(warp, landing.shared, *tile.span())
    cells, size = tile.cells(), tile.plan.box_bytes
    vector, place = warp.agent.vector.copy(), warp.place()

    def perform() -> None:
        data = tile.load()
        for landing in landings:
            tile.put(landing.shared, data)
            landing.complete(cells, size, vector, place)

    label = f"tma load {size} B to {destination[0]:#x}"
    warp.cta.cluster.engine.submit(AsyncOp(place, perform, label=label, size=(size,)))


def _store(b: Builder, rank: int, operation: str) -> Op:
    operands = without_policy(b, b.mods.flag("L2::cache_hint"), 2)
    tensor_map, src = b.address(operands[0]), b.address(operands[1])
    coordinates = _coordinates(b, operands[0], rank)

    def run(warp: Warp) -> None:
        maps, sources, boxes = tensor_map(warp), src(warp), coordinates(warp)
        for lane in warp.lanes():
            tensor = _tensor(warp, int(maps[lane]), rank)
            change = _combining(warp, operation, tensor) if operation else Tile.store
            _issue_store(warp, lane, tensor, boxes[lane], int(sources[lane]), change)

    return run


def _issue_store(
    warp: Warp, lane: int, tensor: Tensor, box: tuple[int, ...], source: int, change: Change
) -> None:
    """Send one box on its way to global memory, in the lane's bulk group."""
    shared, offset = target(warp, source, "shared::cta")
    if tensor.padding is not None:
        raise warp.fault(
            f"got a store of {tensor.map.dtype}, whose chunks are padded; not emulated"
        )
    if min(box) < 0:
        raise warp.fault(
            f"got a box at {box} to write, allowed: no negative coordinate (CUDA C++ programming "
            "guide, 10.29.2); loads alone may begin before the tensor"
        )
    tile = tile_at(warp, tensor, box, offset, writes=True)
    low, high = tile.span()
    shared.check(warp, low, high - 1)
    if tile.block is not None and not tile.block.writable:
        raise warp.fault(f"{tile.block.name}: written, but it is read-only")
    groups = groups_of(warp)
    read, cells = groups.next_read(), tile.cells(in_bounds_only=True)

    def perform() -> None:
        shared.shadow.read(cells, read)
        change(tile, tile.take(shared))

    what = "store" if change is Tile.store else "reduce"
    label = f"tma {what} {tile.plan.box_bytes} B from byte {offset - RESERVED}"
    groups.issue(lane, perform, label, tile.plan.box_bytes)


def _combining(warp: Warp, operation: str, tensor: Tensor) -> Change:
    """The reduction of a box in the type of its tensor map.

    ``f32.ftz`` flushes subnormals, ``f32`` does not (an H200, ``tensor/reduce-add-f32*`` of
    tests/emulator/hopper).

    Raises:
        KernelFault: the type has no such reduction, or elements of the box share an address.
    """
    kind = tensor.map.dtype
    if operation in {"and", "or", "xor"}:
        kind = _BITWISE.get(tensor.element_bytes, kind)
    combine = reduction(operation, kind)
    if combine is None:
        raise warp.fault(
            f"got .{operation} of a tensor of {tensor.map.dtype}, which does not exist"
        )
    if any(not step and size > 1 for step, size in zip(tensor.strides, tensor.box, strict=True)):
        raise warp.fault(
            f"got a reduction into a tensor with strides {tensor.strides}, where elements of a box "
            "share an address; not emulated"
        )
    chosen = combine

    def change(tile: Tile, data: np.ndarray[tuple[int], np.dtype[np.generic]]) -> None:
        old = tile.targets()
        if old is not None:
            tile.store(chosen(old.view(np.uint8), data.view(np.uint8)).view(data.dtype))

    return change


def _tensor(warp: Warp, address: int, rank: int) -> Tensor:
    tensor = tensor_at(warp, address)
    if tensor.rank != rank:
        raise warp.fault(f"got a tensor map of {tensor.rank} dimensions for a copy of .{rank}d")
    return tensor
