"""``st.async`` and ``red.async``: stores into a cluster's shared memory that tell an mbarrier.

Each active lane is a copy of its own; destination and mbarrier are in one CTA, any of the cluster.
The forms for global memory are not known.

Source: PTX ISA 9.1, sections 9.7.9.12 (st.async), 9.7.13.7 (red.async): both are performed in the
generic proxy, and their complete-tx releases at cluster scope.
"""

from __future__ import annotations

import numpy as np

from fa4gen.emulator.access import MEMORY_BITS, take_vector
from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.copies import Route, guard, span_cells
from fa4gen.emulator.memory import WINDOW_MASK
from fa4gen.emulator.reductions import REDUCTIONS, Reduction, reduction
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import target
from fa4gen.emulator.warp import Warp

_COMPLETION = "mbarrier::complete_tx::bytes"
_BITS = {kind: bits for kind, bits in MEMORY_BITS.items() if bits in {32, 64}}
_LONGEST = 128
_ROUTE = Route("shared::cluster")


@instruction("st.async", pipe=Pipe.LSU, isa="9.7.9.12")
def store(b: Builder) -> Op:
    """Store registers of each lane."""
    b.mods.ignore("weak", "cluster")
    generic = _take_target(b)
    count, kind = take_vector(b), b.mods.type()
    if kind not in _BITS or _BITS[kind] * count > _LONGEST:
        b.fail(f"got {count} of type {kind or 'none'}, known: 128 bits of {', '.join(_BITS)}")
    return _send(b, _BITS[kind], count, generic, None)


@instruction("red.async", pipe=Pipe.LSU, isa="9.7.13.7")
def reduce(b: Builder) -> Op:
    """Combine a register of each lane into memory, atomically."""
    if not b.mods.flag("relaxed") or not b.mods.flag("cluster"):
        b.fail("known as red.async.relaxed.cluster")
    generic = _take_target(b)
    operation, kind = b.mods.one_of(*REDUCTIONS), b.mods.type()
    combine = reduction(operation, kind, shared=True)
    if combine is None:
        b.fail(f"got {operation or 'no operation'} of type {kind or 'none'}")
    return _send(b, _BITS[kind], 1, generic, combine)


def _take_target(b: Builder) -> bool:
    """Whether addresses are generic."""
    if not b.mods.flag(_COMPLETION):
        b.fail(f"known with .{_COMPLETION}")
    return not b.mods.flag("shared::cluster")


def _send(b: Builder, bits: int, count: int, generic: bool, combine: Reduction | None) -> Op:
    to, source, told = b.expect(3)
    address, barrier, slots = b.address(to), b.address(told), b.srcs(source, bits)
    if len(slots) != count:
        b.fail(f"got {len(slots)} sources for {count} elements")

    def run(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in slots]
        targets, barriers = address(warp), barrier(warp)
        for lane in warp.lanes():
            data = b"".join(value[lane].tobytes() for value in values)
            where = int(targets[lane]), int(barriers[lane])
            if generic:
                where = _stripped(warp, where[0]), _stripped(warp, where[1])
            _issue(warp, where, data, combine)

    return run


def _stripped(warp: Warp, address: int) -> int:
    """The address in shared memory that a generic address is.

    Raises:
        KernelFault: it is not in shared memory.
    """
    target(warp, address, "")
    return address & ~WINDOW_MASK


def _issue(warp: Warp, where: tuple[int, int], data: bytes, combine: Reduction | None) -> None:
    """Send one lane's bytes to an address, telling an mbarrier."""
    address, barrier = where
    size = len(data)
    if address % size:
        raise warp.fault(f"got {size} bytes for address {address:#x}, allowed: multiples of {size}")
    (landing,) = _ROUTE.landings(warp, address, barrier, 0)
    low, high = landing.offset, landing.offset + size
    guard(warp, landing.shared, low, high)
    vector, place = warp.agent.vector.copy(), warp.place()

    def perform() -> None:
        memory, sent = landing.shared.data[low:high], np.frombuffer(data, np.uint8)
        memory[:] = combine(memory.copy(), sent) if combine else sent
        landing.complete(span_cells(low, high), size, vector, place, combine is not None)

    label = f"{'red' if combine else 'st'}.async {size} B to {address:#x}"
    warp.cta.cluster.engine.submit(AsyncOp(place, perform, label=label))
