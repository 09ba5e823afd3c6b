"""``cp.async`` without ``.bulk``: copies of 4, 8 or 16 bytes a lane from global to shared memory.

Groups are kept for every lane, so lanes that part wait for their own copies only. The race checks
know a warp's copies by one number that counts them: what a part of the warp has waited for counts
as observed once all copies issued before it are. That is exact where the lanes act alike, and may
report too much where they do not.

The copies belong to the generic proxy, but a reader in the asynchronous proxy is not asked for the
proxy fence that it formally needs.

Source: PTX ISA 9.1, sections 9.7.9.25.3 (cp.async) and 9.7.13.15.15 (cp.async.mbarrier.arrive).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.access import take_hints, without_policy
from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.barriers import MAX_COUNT, mbarrier_at
from fa4gen.emulator.builder import LANES, Builder
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.memory import Addresses, Block, Offsets
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import asynchronous, target
from fa4gen.emulator.spaces import GLOBAL, SHARED, active, parts
from fa4gen.emulator.warp import Mask, Warp
from fa4gen.ptx.ir import Immediate, Negated, Operand, Register

Sizes = Callable[[Warp], npt.NDArray[np.int64]]
"""Bytes that each lane reads; the rest of its destination becomes zero."""

_STATE = "cp.async"
_ALLOWED = {"ca": (4, 8, 16), "cg": (16,)}
_MANY = 64
"""Records after which the complete ones are dropped."""


@dataclass(slots=True)
class _Batch:
    """Copies issued one after the other by the same lanes into the same groups."""

    lanes: Mask
    groups: npt.NDArray[np.int64]
    """The group of each lane that they belong to."""
    first: int
    """Number of the first copy."""
    last: int
    unseen: Mask
    """Lanes that have not waited for them."""
    signalled: Mask
    """Lanes that have put them under an mbarrier."""
    ops: list[AsyncOp] = field(default_factory=list)


class _Copies:
    """The copies of one warp that not all of it has waited for."""

    def __init__(self) -> None:
        self.issued = 0
        self.committed = np.zeros(LANES, np.int64)
        """Groups that each lane has closed."""
        self._batches: list[_Batch] = []

    def add(self, lanes: Mask) -> _Batch:
        """Where the next copy, by ``lanes``, belongs; counts it."""
        self.issued += 1
        batch = self._batches[-1] if self._batches else None
        if (
            batch is None
            or (batch.unseen != lanes).any()
            or (batch.groups != self.committed).any()
            or batch.signalled.any()
        ):
            none = np.zeros(LANES, bool)
            batch = _Batch(lanes, self.committed.copy(), self.issued, 0, lanes.copy(), none)
            self._batches.append(batch)
        batch.last = self.issued
        if len(batch.ops) > _MANY:
            batch.ops = [op for op in batch.ops if not op.done]
        return batch

    def wait(self, warp: Warp, newer: int) -> None:
        """Complete the active lanes' groups but for the ``newer`` newest."""
        lanes = warp.active()
        for batch in self._batches:
            over = batch.unseen & lanes & (batch.groups < self.committed - newer)
            if over.any():
                for op in batch.ops:
                    warp.cta.cluster.engine.force(op)
                batch.unseen &= ~over
        while self._batches and not self._batches[0].unseen.any():
            warp.agent.observed(Source.CP_ASYNC, self._batches.pop(0).last)

    def signal(self, lanes: Mask) -> tuple[tuple[AsyncOp, ...], int]:
        """What an mbarrier has to wait for, and the number up to which it then speaks for all."""
        for batch in self._batches:
            batch.signalled |= batch.lanes & lanes
            batch.ops = [op for op in batch.ops if not op.done]
        while len(self._batches) > _MANY and _is_past(self._batches[0]):
            self._batches.pop(0)
        known = self.issued
        for batch in self._batches:
            if (batch.lanes & ~batch.signalled).any():
                known = batch.first - 1
                break
        mine = (batch for batch in self._batches if (batch.lanes & lanes).any())
        return tuple(op for batch in mine for op in batch.ops), known


def _is_past(batch: _Batch) -> bool:
    """Whether mbarriers speak for all of it, and it is complete."""
    return bool((batch.signalled == batch.lanes).all()) and not batch.ops


@instruction("cp.async", pipe=Pipe.LSU, isa="9.7.9.25.3")
def copy(b: Builder) -> Op:
    """Start a copy; the bytes behind ``src-size`` are filled with zeros."""
    cache = b.mods.one_of("ca", "cg")
    if not b.mods.one_of("shared", "shared::cta") or not b.mods.flag("global") or not cache:
        b.fail("known as cp.async.ca and .cg, from .global to .shared")
    hinted = take_hints(b)
    to, source, size_operand, *rest = without_policy(b, hinted, 3, 4)
    if not isinstance(size_operand, Immediate) or size_operand.value not in _ALLOWED[cache]:
        b.fail(f"got {size_operand} as the size, allowed: {_ALLOWED[cache]}")
    size = size_operand.value
    target_address, source_address = b.address(to), b.address(source)
    sizes = _sizes(b, size, rest[0] if rest else None)

    def run(warp: Warp) -> None:
        targets, sources = target_address(warp), source_address(warp)
        plan = list(_plan(warp, sources, sizes(warp), size))
        _, offsets = SHARED.locate(warp, active(warp, targets), size)
        _start(warp, offsets, plan, size)

    return run


@instruction("cp.async.commit_group", pipe=Pipe.LSU, isa="9.7.9.25.3.2")
def commit_group(b: Builder) -> Op:
    """Close the group of the copies so far."""
    b.expect(0)

    def run(warp: Warp) -> None:
        _copies(warp).committed += warp.active()

    return run


@instruction("cp.async.wait_group", pipe=Pipe.LSU, isa="9.7.9.25.3.3")
def wait_group(b: Builder) -> Op:
    """Wait until at most the ``n`` newest groups are incomplete."""
    (count,) = b.expect(1)
    if not isinstance(count, Immediate) or count.value < 0:
        b.fail(f"got {count} as the number of groups, allowed: an integer")
    newer = count.value
    return lambda warp: _copies(warp).wait(warp, newer)


@instruction("cp.async.wait_all", pipe=Pipe.LSU, isa="9.7.9.25.3.3")
def wait_all(b: Builder) -> Op:
    """Wait for all copies, whether in a group or not."""
    b.expect(0)

    def run(warp: Warp) -> None:
        copies = _copies(warp)
        copies.committed += warp.active()
        copies.wait(warp, 0)

    return run


@instruction("cp.async.mbarrier.arrive", pipe=Pipe.BARRIER, isa="9.7.13.15.15")
def mbarrier_arrive(b: Builder) -> Op:
    """Arrive at an mbarrier when the copies so far are complete.

    Without ``.noinc`` the arrival is added to those that the running phase expects.
    """
    extra = not b.mods.flag("noinc")
    space = b.mods.one_of("shared", "shared::cta")
    if not b.mods.flag("b64"):
        b.fail("known with .b64")
    (operand,) = b.expect(1)
    address = b.address(operand)

    def run(warp: Warp) -> None:
        lanes = warp.active()
        places, counts = np.unique(active(warp, address(warp)), return_counts=True)
        found = [target(warp, int(place), space) for place in places]
        barriers = [mbarrier_at(warp, shared, offset) for shared, offset in found]
        after, known = _copies(warp).signal(lanes)
        vector = warp.cta.cluster.clocks.zeros()
        vector[warp.agent.source(Source.CP_ASYNC)] = known
        where = warp.place()
        arrivals = list(zip(barriers, counts.tolist(), strict=True))
        for barrier, count in arrivals:
            if extra:
                barrier.pending += count
                if barrier.pending > MAX_COUNT:
                    raise warp.fault(
                        f"{barrier}: got {count} arrivals more, allowed: {MAX_COUNT} in all"
                    )

        def perform() -> None:
            for barrier, count in arrivals:
                barrier.arrive(count, vector, where)

        op = AsyncOp(where, perform, after, "cp.async arrive")
        warp.cta.cluster.engine.submit(op)

    return run


def _copies(warp: Warp) -> _Copies:
    copies = warp.state.get(_STATE)
    if not isinstance(copies, _Copies):
        copies = warp.state[_STATE] = _Copies()
    return copies


def _sizes(b: Builder, size: int, operand: Operand | None) -> Sizes:
    """From ``src-size``, from ``ignore-src``, or all of it."""
    if operand is None:
        return lambda _: np.full(LANES, size)
    if isinstance(operand, Negated) or (isinstance(operand, Register) and operand.type == "pred"):
        ignored = b.predicate(operand)
        return lambda warp: np.where(ignored(warp), 0, size)
    slot = b.src(operand, 32)
    return lambda warp: warp.regs[slot].astype(np.int64)


def _plan(
    warp: Warp, sources: Addresses, sizes: npt.NDArray[np.int64], size: int
) -> Iterator[tuple[Mask, Block, Offsets, int]]:
    """Lanes that read as many bytes from one tensor, where in it, and how many.

    Raises:
        KernelFault: a size above that of the copy, or a source outside of the tensors.
    """
    outer, lanes = warp.mask, warp.active()
    for count in np.unique(sizes[lanes]).tolist():
        if not 0 <= count <= size:
            raise warp.fault(f"cp.async: got a src-size of {count}, allowed: 0 to {size}")
        if not count:
            continue
        warp.mask = lanes & (sizes == count)
        try:
            for _ in parts(warp, GLOBAL, sources, count):
                block, offsets = GLOBAL.locate(warp, active(warp, sources), count, size)
                yield warp.active().copy(), block, offsets, count
        finally:
            warp.mask = outer


def _start(
    warp: Warp, offsets: Offsets, plan: list[tuple[Mask, Block, Offsets, int]], size: int
) -> None:
    copies, lanes, shared = _copies(warp), warp.active().copy(), warp.cta.shared
    batch = copies.add(lanes)
    access = asynchronous(warp, Source.CP_ASYNC, copies.issued)

    def perform() -> None:
        data = np.zeros((LANES, size), np.uint8)
        for mask, block, begin, count in plan:
            data[mask, :count] = block.data[begin[:, None] + np.arange(count)]
        shared.data[offsets[:, None] + np.arange(size)] = data[lanes]
        shared.shadow.write(shared.cells(offsets, size), access)

    op = AsyncOp(access.place, perform, label=f"cp.async {len(offsets) * size} B")
    batch.ops.append(warp.cta.cluster.engine.submit(op))
