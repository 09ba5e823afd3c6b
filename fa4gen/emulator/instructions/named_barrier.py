"""``bar`` and ``barrier``: the sixteen barriers of a CTA.

A barrier counts warps: each adds 32, once all its lanes are at the instruction. ``bar`` is short
for ``barrier.aligned``.

Source: PTX ISA 9.1, section 9.7.13.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fa4gen.emulator.builder import LANES, Builder
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.rendezvous import NamedBarrier, NamedWait, Round
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.ptx.ir import Operand

Read: TypeAlias = Callable[[Warp], int]
"""An operand that all lanes must agree on."""

_COUNT = 16
_HERE = "named barrier"


@instruction(
    *("bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync"),
    pipe=Pipe.BARRIER,
    isa="9.7.13.1",
)
def sync(b: Builder) -> Op:
    """Wait until as many threads as asked for are there."""
    b.mods.ignore("aligned")
    operands = b.expect(1, 2)
    number, threads = _uniform(b, operands[0], "barrier"), _threads(b, operands, 1)

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        barrier = _barrier(warp, number(warp))
        return _meet(warp, barrier, threads(warp), (0, 0))[0]

    return run


@instruction(
    *("bar.arrive", "bar.cta.arrive", "barrier.arrive", "barrier.cta.arrive"),
    pipe=Pipe.BARRIER,
    isa="9.7.13.1",
)
def arrive(b: Builder) -> Op:
    """Count the warp in and go on."""
    b.mods.ignore("aligned")
    operands = b.expect(2)
    number, threads = _uniform(b, operands[0], "barrier"), _threads(b, operands, 1)

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        barrier, wanted = _barrier(warp, number(warp)), threads(warp)
        _check_lanes(warp)
        barrier.arrive(warp, wanted)
        return None

    return run


@instruction(
    *("bar.red", "bar.cta.red", "barrier.red", "barrier.cta.red"),
    pipe=Pipe.BARRIER,
    isa="9.7.13.1",
)
def red(b: Builder) -> Op:
    """Wait like ``sync``, and combine a predicate of all threads: how many, all, any."""
    b.mods.ignore("aligned")
    operation = b.mods.one_of("popc", "and", "or")
    if not b.mods.flag("u32" if operation == "popc" else "pred") or not operation:
        b.fail("known are .popc.u32, .and.pred and .or.pred")
    operands = b.expect(3, 4)
    dst = b.dst(operands[0], LANES if operation == "popc" else 1)
    number = _uniform(b, operands[1], "barrier")
    threads, vote = _threads(b, operands[:-1], 2), b.predicate(operands[-1])

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        barrier, active = _barrier(warp, number(warp)), warp.active()
        ones = int((vote(warp) & active).sum())
        signal, over = _meet(warp, barrier, threads(warp), (ones, int(active.sum())))
        if over is not None:
            warp.write(dst, _result(operation, over))
        return signal

    return run


def _meet(
    warp: Warp, barrier: NamedBarrier, wanted: int | None, vote: tuple[int, int]
) -> tuple[Signal | None, Round | None]:
    """Arrive, or come back from waiting: what to return, and the round once it is over."""
    here: Round | None = warp.state.pop(_HERE, None)
    if here is None:
        _check_lanes(warp)
        here = barrier.arrive(warp, wanted, vote)
    if here.complete:
        warp.agent.acquire(here.vector)
        warp.cta.cluster.trace_pass(warp, here)
        return None, here
    warp.state[_HERE] = here
    return NamedWait(barrier, here), None


def _result(operation: str, over: Round) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    if operation == "popc":
        return np.full(LANES, over.ones, np.uint32)
    holds = over.ones == over.voters if operation == "and" else over.ones > 0
    return np.full(LANES, holds, bool)


def _uniform(b: Builder, operand: Operand, what: str) -> Read:
    slot = b.src(operand, 32)
    return lambda warp: warp.uniform(slot, what)


def _threads(b: Builder, operands: tuple[Operand, ...], at: int) -> Callable[[Warp], int | None]:
    """The thread count, operand ``at``; ``None`` where it is left out."""
    if len(operands) <= at:
        return lambda warp: None
    return _uniform(b, operands[at], "threads of a barrier")


def _barrier(warp: Warp, number: int) -> NamedBarrier:
    if number >= _COUNT:
        raise warp.fault(f"barrier: got number {number}, allowed: 0 to {_COUNT - 1}")
    return warp.cta.named_barrier(number)


def _check_lanes(warp: Warp) -> None:
    """A barrier counts whole warps; lanes that a predicate keeps away are not waited for."""
    if warp.mask is not None and (warp.mask != warp.alive).any():
        warp.report(
            FindingKind.CONVERGENCE,
            f"got {int(warp.mask.sum())} of {int(warp.alive.sum())} lanes at a barrier, which "
            "counts all of the warp",
        )
