"""mbarriers: objects of 8 bytes in shared memory that count arrivals and bytes, phase by phase.

Each active lane acts for itself: 32 lanes that arrive are 32 arrivals. The warp's vector clock is
released once for all of them.

Source: PTX ISA 9.1, section 9.7.13.15. Only ``.layout::v0`` exists on the machines emulated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.barriers import (
    MAX_COUNT,
    MBARRIER_BYTES,
    MBarrier,
    PhaseWait,
    mbarrier_at,
)
from fa4gen.emulator.builder import LANES, Builder, Lanes
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.ordering import fenced, heard, initialised
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import RESERVED, SharedMemory, target
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.ptx.ir import Operand, Sink

if TYPE_CHECKING:
    from fa4gen.emulator.clocks import Vector

Longs = npt.NDArray[np.uint64]
Where: TypeAlias = "slice | npt.NDArray[np.bool_]"
"""Some of the active lanes."""

_EVERYONE = slice(None)
_ONES = np.ones(LANES, np.uint32)
_RETIRED = "retired mbarriers"
_FIELD = 1 << 20
_PENDING_SHIFT = np.uint64(43)
_FIELD_MASK = np.uint64(_FIELD - 1)
_PHASE_SHIFT = np.uint64(63)


@instruction("mbarrier.init", pipe=Pipe.BARRIER, isa="9.7.13.15.9")
def init(b: Builder) -> Op:
    """Make an mbarrier. Its count is written like any 8 bytes: others have to be told.

    A live mbarrier that is initialised again is reported and replaced. Lanes that initialise the
    same one alike count as one.
    """
    space = _take_space(b, remote=False)
    address_operand, count_operand = b.expect(2)
    address, count = b.address(address_operand), b.reader(count_operand, 32)

    def run(warp: Warp) -> None:
        addresses, counts, lanes = address(warp), count(warp), warp.lanes()
        wanted = {(int(addresses[lane]), int(counts[lane])) for lane in lanes}
        for at, value in sorted(wanted):
            shared, offset = target(warp, at, space)
            _check_offset(warp, shared, offset)
            if not 0 < value <= MAX_COUNT:
                raise warp.fault(f"mbarrier.init: got count {value}, allowed: 1 to {MAX_COUNT}")
            _make(warp, shared, offset, value)

    return run


@instruction("mbarrier.inval", pipe=Pipe.BARRIER, isa="9.7.13.15.10")
def inval(b: Builder) -> Op:
    """End an mbarrier's life; its bytes hold nothing then."""
    space = _take_space(b, remote=False)
    address = b.address(*b.expect(1))

    def run(warp: Warp) -> None:
        for barrier, _ in _barriers(warp, _active(warp, address(warp)), space):
            _retire(warp, barrier)

    return run


@instruction("mbarrier.expect_tx", "mbarrier.complete_tx", pipe=Pipe.BARRIER, isa="9.7.13.15.11")
def transactions(b: Builder) -> Op:
    """Raise or lower the number of outstanding bytes; neither orders memory."""
    b.mods.ignore("relaxed", "cta", "cluster")
    space = _take_space(b)
    address_operand, size_operand = b.expect(2)
    address, size = b.address(address_operand), b.reader(size_operand, 32)
    completes = b.inst.parts[1] == "complete_tx"

    def run(warp: Warp) -> None:
        addresses, sizes = _active(warp, address(warp)), _active(warp, size(warp))
        for barrier, lanes in _barriers(warp, addresses, space):
            total = int(sizes[lanes].sum(dtype=np.int64))
            if completes:
                barrier.complete_tx(total, None, warp.place())
            else:
                barrier.expect_tx(total, warp.place())

    return run


@instruction("mbarrier.arrive", "mbarrier.arrive_drop", pipe=Pipe.BARRIER, isa="9.7.13.15.13")
def arrive(b: Builder) -> Op:
    """Count arrivals, after ``.expect_tx`` bytes, and before lowering what later phases expect."""
    expects, stays = b.mods.flag("expect_tx"), b.mods.flag("noComplete")
    relaxed = b.mods.one_of("release", "relaxed") == "relaxed"
    b.mods.ignore("cta", "cluster")
    space = _take_space(b)
    operands = b.expect(*((3,) if expects or stays else (2, 3)))
    if space == "shared::cluster" and not isinstance(operands[0], Sink):
        b.fail("got a destination for the state of a shared::cluster mbarrier; it must be _")
    dst, address = b.dst(operands[0], 64), b.address(operands[1])
    argument = b.reader(operands[2], 32) if operands[2:] else None
    drops = b.inst.parts[1] == "arrive_drop"

    def run(warp: Warp) -> None:
        addresses = _active(warp, address(warp))
        arguments = _active(warp, argument(warp)) if argument else _ONES[: len(addresses)]
        groups = _barriers(warp, addresses, space)
        vector = fenced(warp) if relaxed else warp.agent.release()
        states = np.zeros(len(addresses), np.uint64)
        for barrier, lanes in groups:
            phase, counts, tx = barrier.phase, arguments[lanes], barrier.tx
            if expects:
                barrier.expect_tx(int(counts.sum(dtype=np.int64)), warp.place())
                counts = _ONES[: len(counts)]
            states[lanes] = _arrive(warp, barrier, counts.astype(np.uint64), vector, drops, tx)
            if stays and barrier.phase != phase:
                warp.report(
                    FindingKind.BARRIER, f"{barrier}: completed by a .noComplete", barrier.place
                )
        warp.write(dst, _spread(warp, states))

    return run


@instruction("mbarrier.test_wait", "mbarrier.try_wait", pipe=Pipe.BARRIER, isa="9.7.13.15.16")
def wait(b: Builder) -> Op:
    """Say whether a phase is complete, and if so take over what its arrivals released.

    Both block here until it is, which is one of the things that hardware may do: it makes no
    difference when a warp asks. The answer is "not yet" only when nothing else can go on, and under
    a random policy at any time: a warp that does not ask again must not go on as if it were.
    """
    by_parity = b.mods.flag("parity")
    relaxed = b.mods.one_of("acquire", "relaxed") == "relaxed"
    b.mods.ignore("cta", "cluster")
    space = _take_space(b, remote=False)
    operands = b.expect(*((3, 4) if b.inst.parts[1] == "try_wait" else (3,)))
    dst, address = b.dst(operands[0], 1), b.address(operands[1])
    asked = _parities(b, operands[2], by_parity)
    for hint in operands[3:]:
        b.src(hint, 32)

    def run(warp: Warp) -> Signal | None:
        addresses, parities = _active(warp, address(warp)), _active(warp, asked(warp))
        groups, over = _barriers(warp, addresses, space), []
        results = np.zeros(len(addresses), bool)
        for barrier, lanes in groups:
            for parity, where in _by_parity(parities[lanes]):
                if barrier.done(parity):
                    over.append(barrier)
                    results[np.arange(len(results))[lanes][where]] = True
                elif not (warp.timed_out or warp.cta.cluster.refuses()):
                    return PhaseWait(barrier, parity)
        warp.timed_out = False
        for barrier in over:
            barrier.observe(warp)
            if relaxed:
                heard(warp, barrier.released)
            else:
                warp.agent.acquire(barrier.released)
        warp.write(dst, _spread(warp, results))
        return None

    return run


@instruction("mbarrier.pending_count", pipe=Pipe.ALU, isa="9.7.13.15.17")
def pending_count(b: Builder) -> Op:
    """The arrivals that were pending as a state was taken."""
    b.mods.flag("b64")
    destination, state = b.expect(2)
    dst, src = b.dst(destination, 32), b.src(state, 64)

    def run(warp: Warp) -> None:
        missing = warp.regs[src] >> _PENDING_SHIFT & _FIELD_MASK
        warp.write(dst, ((np.uint64(_FIELD) - missing) & _FIELD_MASK).astype(np.uint32))

    return run


def _take_space(b: Builder, remote: bool = True) -> str:
    """The state space, empty for generic addresses; and the type."""
    if not b.mods.flag("b64"):
        b.fail("got no .b64")
    b.mods.ignore("layout::v0")
    spaces = ("shared", "shared::cta", "shared::cluster")
    return b.mods.one_of(*spaces[: 2 + remote])


def _same(values: Lanes) -> bool:
    """Whether all elements are one value."""
    return values.tobytes() == len(values) * values[:1].tobytes()


def _parities(b: Builder, operand: Operand, by_parity: bool) -> Callable[[Warp], Lanes]:
    """The phases that lanes ask for: numbers whose last bit counts."""
    if by_parity:
        return b.reader(operand, 32)
    slot = b.src(operand, 64)
    return lambda warp: warp.regs[slot] >> _PHASE_SHIFT


def _by_parity(parities: Lanes) -> list[tuple[int, Where]]:
    """The parities among the lanes, each with the lanes that have it."""
    if _same(parities):
        return [(int(parities[0]) & 1, _EVERYONE)]
    odd = (parities.astype(np.uint64) & np.uint64(1)) == 1
    return [(parity, where) for parity, where in ((0, ~odd), (1, odd)) if where.any()]


def _barriers(warp: Warp, addresses: Lanes, space: str) -> list[tuple[MBarrier, Where]]:
    """The mbarriers at the active lanes' addresses, each with the lanes that name it.

    Raises:
        KernelFault: an address without an mbarrier.
    """
    if _same(addresses):
        return [(mbarrier_at(warp, *target(warp, int(addresses[0]), space)), _EVERYONE)]
    return [
        (mbarrier_at(warp, *target(warp, at, space)), addresses == np.uint64(at))
        for at in np.unique(addresses).tolist()
    ]


def _active(warp: Warp, values: Lanes) -> Lanes:
    """The values of the active lanes."""
    return values if warp.mask is None else values[warp.mask]


def _spread(warp: Warp, values: Lanes) -> Lanes:
    """Values of the active lanes as those of all lanes, the others' 0."""
    if warp.mask is None:
        return values
    result = np.zeros(LANES, values.dtype)
    result[warp.mask] = values
    return result


def _arrive(
    warp: Warp, barrier: MBarrier, counts: Longs, vector: Vector | None, drops: bool, tx: int
) -> Longs:
    """Let lanes arrive one after the other; the states from just before each one's arrival.

    ``tx`` is the tx-count that they show: an H200 shows none that the arrival itself expects
    (2026-11-21, ``barriers/bytes`` of tests/emulator/hopper).
    """
    total = int(counts.sum())
    if total > barrier.pending and len(counts) > 1:
        # More than one phase, or too many arrivals: one by one.
        return np.concatenate(
            [_arrive(warp, barrier, each, vector, drops, tx) for each in counts[:, None]]
        )
    if not counts.all() or total > MAX_COUNT:
        raise warp.fault(
            f"{barrier}: got counts {counts.min()} to {total}, allowed: 1 to {MAX_COUNT}"
        )
    states = np.uint64(barrier.image(tx)) + ((np.cumsum(counts) - counts) << _PENDING_SHIFT)
    if drops:
        barrier.drop(total, warp.place())
    barrier.arrive(total, vector, warp.place())
    return states


def _check_offset(warp: Warp, shared: SharedMemory, offset: int) -> None:
    if offset % MBARRIER_BYTES:
        raise warp.fault(
            f"{shared.name}: got an mbarrier at byte {offset - RESERVED}, which is no multiple of 8"
        )
    shared.check(warp, offset, offset + MBARRIER_BYTES - 1)


def _make(warp: Warp, shared: SharedMemory, offset: int, count: int) -> None:
    live = shared.barriers.get(offset)
    if live is not None:
        warp.report(
            FindingKind.BARRIER,
            f"{live}: initialised again while it is live; mbarrier.inval comes first",
            live.place,
        )
        _retire(warp, live)
    shared.touched(warp, np.array([offset]), MBARRIER_BYTES, write=True)
    before = shared.cta.state.setdefault(_RETIRED, {}).pop(offset, None)
    barrier = MBarrier(shared.cta, offset, count, warp.place(), before)
    shared.barriers[offset] = barrier
    warp.agent.vector[barrier.component] = barrier.base
    initialised(warp, barrier.component, barrier.base)


def _retire(warp: Warp, barrier: MBarrier) -> None:
    shared, offset = barrier.shared, barrier.offset
    del shared.barriers[offset]
    barrier.retired = warp.place()
    shared.cta.state.setdefault(_RETIRED, {})[offset] = barrier
    offsets = np.array([offset])
    shared.touched(warp, offsets, MBARRIER_BYTES, write=True)
    shared.shadow.initialised[shared.cells(offsets, MBARRIER_BYTES)] = False
