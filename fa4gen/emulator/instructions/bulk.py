"""Linear bulk copies and reductions, bulk groups, and the waits for them.

Each active lane issues a copy of its own. Data move when the copy completes, all at once.

Source: PTX ISA 9.1, sections 9.7.9.25.4 (cp.async.bulk, cp.reduce.async.bulk, prefetch) and
9.7.9.25.3.3, 9.7.9.25.3.4 (groups).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.access import without_policy
from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.clocks import Vector
from fa4gen.emulator.copies import (
    Landing,
    Route,
    check_linear,
    groups_of,
    guard,
    span_cells,
)
from fa4gen.emulator.findings import Place
from fa4gen.emulator.memory import Block, global_block
from fa4gen.emulator.reductions import REDUCTIONS, Reduction, reduction
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.shared import RESERVED, SharedMemory, target
from fa4gen.emulator.warp import Warp
from fa4gen.ptx.ir import Immediate, Operand

Bytes: TypeAlias = npt.NDArray[np.uint8]
Addresses: TypeAlias = npt.NDArray[np.uint64]
Issue: TypeAlias = Callable[[Warp, int, int, int, int], None]
"""``issue(warp, lane, destination, source, size)``."""

MBARRIER, GROUP = "mbarrier::complete_tx::bytes", "bulk_group"
_SHARED = ("shared::cta", "shared::cluster")


@instruction("cp.async.bulk", pipe=Pipe.TMA, isa="9.7.9.25.4.1")
def copy(b: Builder) -> Op:
    """Copy bytes between global and shared memory, or into another CTA's shared memory."""
    dst, src, done = _take_direction(b)
    if (src, done) == ("global", MBARRIER) and dst in _SHARED:
        return _load(b, dst)
    if (dst, src, done) == ("shared::cluster", "shared::cta", MBARRIER):
        return _to_peer(b, None)
    if (dst, src, done) != ("global", "shared::cta", GROUP):
        b.fail(f"got {src or 'nothing'} to {dst or 'nothing'} with {done or 'no completion'}")
    return _store(b, None)


@instruction("cp.reduce.async.bulk", pipe=Pipe.TMA, isa="9.7.9.25.4.2")
def reduce(b: Builder) -> Op:
    """Combine each element of the source into the destination."""
    dst, src, done = _take_direction(b)
    operation, kind = b.mods.one_of(*REDUCTIONS), b.mods.type()
    to_peer = (dst, src, done) == ("shared::cluster", "shared::cta", MBARRIER)
    if not to_peer and (dst, src, done) != ("global", "shared::cta", GROUP):
        b.fail(f"got {src or 'nothing'} to {dst or 'nothing'} with {done or 'no completion'}")
    if b.mods.flag("noftz") != (operation == "add" and kind in {"f16", "bf16"}):
        b.fail(".noftz belongs to .add of f16 and bf16, and to these alone")
    combine = reduction(operation, kind, shared=to_peer)
    if combine is None:
        b.fail(f"got {operation or 'no operation'} of {kind or 'no type'}, not known to {dst}")
    return _to_peer(b, combine) if to_peer else _store(b, combine)


@instruction("cp.async.bulk.prefetch", pipe=Pipe.TMA, isa="9.7.9.25.4.3")
def prefetch(b: Builder) -> Op:
    """Caches hold no state here."""
    b.mods.ignore("L2", "global", "L2::cache_hint", "tensor", "1d", "2d", "3d", "4d", "5d", "tile")
    return lambda warp: None


@instruction("cp.async.bulk.commit_group", pipe=Pipe.TMA, isa="9.7.9.25.3.3")
def commit_group(b: Builder) -> Op:
    """Each active lane makes a group of the copies it has issued since its last."""
    b.expect(0)
    return lambda warp: groups_of(warp).commit(warp.active())


@instruction("cp.async.bulk.wait_group", pipe=Pipe.TMA, isa="9.7.9.25.3.4")
def wait_group(b: Builder) -> Op:
    """Have all but the latest groups of each active lane complete; ``.read``: their reads."""
    reads_only = b.mods.flag("read")
    (keep,) = b.expect(1)
    if not isinstance(keep, Immediate):
        b.fail(f"got {keep} as the number of groups, known as a literal only")
    count = keep.value
    return lambda warp: groups_of(warp).wait(warp.active(), count, reads_only)


def _take_direction(b: Builder) -> tuple[str, str, str]:
    """Destination, source and way of completion."""
    spaces = ("global", *_SHARED)
    return b.mods.one_of(*spaces), b.mods.one_of(*spaces), b.mods.one_of(MBARRIER, GROUP)


def _each_lane(b: Builder, operands: tuple[Operand, ...], issue: Issue) -> Op:
    """``issue`` for every active lane with its destination, source and size."""
    dst, src, size = b.address(operands[0]), b.address(operands[1]), b.reader(operands[2], 32)

    def run(warp: Warp) -> None:
        dsts, srcs, sizes = dst(warp), src(warp), size(warp)
        for lane in warp.lanes():
            at, of, count = int(dsts[lane]), int(srcs[lane]), int(sizes[lane])
            check_linear(warp, count, at, of)
            issue(warp, lane, at, of, count)

    return run


def _load(b: Builder, space: str) -> Op:
    multicast = b.mods.flag("multicast::cluster")
    if multicast and space != "shared::cluster":
        b.fail("a multicast goes to shared::cluster")
    operands = without_policy(b, b.mods.flag("L2::cache_hint"), 4 + multicast)
    barrier = b.address(operands[3])
    ranks = b.reader(operands[4], 16) if multicast else None
    route = Route(space, multicast)

    def issue(warp: Warp, lane: int, dst: int, src: int, size: int) -> None:
        chosen = int(ranks(warp)[lane]) if ranks else 0
        landings = route.landings(warp, dst, int(barrier(warp)[lane]), chosen)
        for landing in landings:
            guard(warp, landing.shared, landing.offset, landing.offset + size)
        block = global_block(warp, src, src + max(size, 1) - 1)
        vector, place = warp.agent.vector.copy(), warp.place()

        def perform() -> None:
            data = block.data[src - block.base : src - block.base + size]
            for landing in landings:
                _land(landing, data, vector, place, None)

        label = f"bulk load {size} B to {dst:#x}"
        warp.cta.cluster.engine.submit(AsyncOp(place, perform, label=label, size=(size,)))

    return _each_lane(b, operands, issue)


def _to_peer(b: Builder, combine: Reduction | None) -> Op:
    """From the own shared memory to another CTA's, whose mbarrier is told."""
    operands = b.expect(4)
    barrier = b.address(operands[3])
    route = Route("shared::cluster")

    def issue(warp: Warp, lane: int, dst: int, src: int, size: int) -> None:
        (landing,) = route.landings(warp, dst, int(barrier(warp)[lane]), 0)
        if landing.shared is warp.cta.shared:
            raise warp.fault(
                f"got destination {dst:#x} in the CTA's own shared memory; a copy from shared::cta "
                "to shared::cluster has to go to another CTA"
            )
        guard(warp, landing.shared, landing.offset, landing.offset + size)
        own, offset = _source(warp, src, size)
        vector, place, read = (
            warp.agent.vector.copy(),
            warp.place(),
            span_cells(offset, offset + size),
        )

        def perform() -> None:
            own.shadow.read(read, Access(landing.barrier.stamp, vector, place, proxy=True))
            _land(landing, own.data[offset : offset + size], vector, place, combine)

        label = f"bulk {'reduce' if combine else 'copy'} {size} B to {dst:#x} in a peer"
        warp.cta.cluster.engine.submit(AsyncOp(place, perform, label=label, size=(size,)))

    return _each_lane(b, operands, issue)


def _store(b: Builder, combine: Reduction | None) -> Op:
    """From shared to global memory, in a bulk group."""
    operands = without_policy(b, b.mods.flag("L2::cache_hint"), 3)

    def issue(warp: Warp, lane: int, dst: int, src: int, size: int) -> None:
        own, offset = _source(warp, src, size)
        block = writable_block(warp, dst, dst + max(size, 1) - 1)
        groups = groups_of(warp)
        read, cells = groups.next_read(), span_cells(offset, offset + size)

        def perform() -> None:
            own.shadow.read(cells, read)
            _put(block.data[dst - block.base :][:size], own.data[offset : offset + size], combine)

        label = f"bulk {'reduce' if combine else 'store'} {size} B from byte {offset - RESERVED}"
        groups.issue(lane, perform, label, size)

    return _each_lane(b, operands, issue)


def writable_block(warp: Warp, low: int, high: int) -> Block:
    """The tensor that bytes ``low`` to ``high`` of global memory lie in, to be written.

    Raises:
        KernelFault: they are not in one, or it is read-only.
    """
    block = global_block(warp, low, high)
    if not block.writable:
        raise warp.fault(f"{block.name}: written, but it is read-only")
    return block


def _source(warp: Warp, address: int, size: int) -> tuple[SharedMemory, int]:
    own, offset = target(warp, address, "shared::cta")
    own.check(warp, offset, offset + max(size, 1) - 1)
    return own, offset


def _land(
    landing: Landing, data: Bytes, vector: Vector, place: Place, combine: Reduction | None
) -> None:
    low, high = landing.offset, landing.offset + len(data)
    _put(landing.shared.data[low:high], data, combine)
    landing.complete(span_cells(low, high), len(data), vector, place, combine is not None)


def _put(memory: Bytes, data: Bytes, combine: Reduction | None) -> None:
    memory[:] = combine(memory, data) if combine else data
