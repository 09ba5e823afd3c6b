"""``setmaxnreg``: registers that warps hand to each other through the pool of their CTA.

A CTA starts with ``regs_per_thread`` for each of its threads, rounded up to 8 since registers are
given out to warps in units of 256 (CUDA's occupancy tables), and with an empty pool: that it is
empty is taken for granted, not measured. Each warp takes and gives for itself. Without a known
``regs_per_thread`` nothing is counted.

Source: PTX ISA 9.1, section 9.7.19.5.
"""

from __future__ import annotations

from fa4gen.emulator.builder import LANES, Builder
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.instructions.matrix import whole_warp
from fa4gen.emulator.machine import Cta
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.warp import Signal, Wait, Warp
from fa4gen.ptx.ir import Immediate

LEAST, MOST, STEP = 24, 256, 8
"""Registers a thread that may be asked for."""
WARPGROUP = 4
"""Warps of a warpgroup."""

_STATE = "register pool"


class RegisterPool:
    """The registers of one CTA.

    Attributes:
        owned: Registers a thread of each warp; ``None`` while unknown.
        free: Registers that no warp owns; ``None`` if they are not counted.
    """

    def __init__(self, cta: Cta) -> None:
        at_launch = cta.cluster.grid.shape.regs_per_thread
        start = None if at_launch is None else -(-at_launch // STEP) * STEP
        self.owned: list[int | None] = [start] * len(cta.warps)
        self.free = None if start is None else 0
        self._cta = cta
        self._asked: list[list[str]] = [[] for _ in cta.warps]
        cta.cluster.at_end.append(self._check_groups)

    def missing(self, warp: Warp, count: int) -> int:
        """Registers that are not in the pool yet, for the warp to own ``count`` a thread."""
        owned = self.owned[warp.index]
        if self.free is None or owned is None:
            return 0
        return (count - owned) * LANES - self.free

    def change(self, warp: Warp, action: str, count: int) -> None:
        """Let the warp own ``count`` registers a thread."""
        owned = self.owned[warp.index]
        if owned is not None and (owned < count if action == "dec" else owned > count):
            bound = "at most" if action == "dec" else "at least"
            warp.report(
                FindingKind.RESOURCE,
                f"setmaxnreg.{action}: got {count} registers, allowed: {bound} the {owned} that "
                "the warp owns",
            )
        if owned is not None and self.free is not None:
            self.free += (owned - count) * LANES
        self.owned[warp.index] = count
        self._asked[warp.index].append(f"{action} {count}")
        self._cta.cluster.progress += 1

    def _check_groups(self) -> None:
        """All warps of a warpgroup have to execute the same ``setmaxnreg``."""
        for first in range(0, len(self._asked), WARPGROUP):
            asked = self._asked[first : first + WARPGROUP]
            if any(each != asked[0] for each in asked):
                told = "; ".join(
                    f"warp {first + at}: {', '.join(each) or 'none'}"
                    for at, each in enumerate(asked)
                )
                self._cta.cluster.report(
                    FindingKind.RESOURCE,
                    f"setmaxnreg: the warps of warpgroup {first // WARPGROUP} of CTA "
                    f"{self._cta.linear_index} executed different ones ({told})",
                    None,
                )


class _PoolWait(Wait):
    """For registers to come into the pool."""

    def __init__(self, pool: RegisterPool, warp: Warp, count: int) -> None:
        self._pool, self._warp, self._count = pool, warp, count

    def ready(self) -> bool:
        return self._pool.missing(self._warp, self._count) <= 0

    def describe(self) -> str:
        pool, at = self._pool, self._warp.index
        return (
            f"{self._count} registers a thread, where it owns {pool.owned[at]}: the pool has "
            f"{pool.free}, {pool.missing(self._warp, self._count)} too few; the warps own "
            f"{pool.owned}"
        )


@instruction("setmaxnreg", pipe=Pipe.CONTROL, isa="9.7.19.5")
def setmaxnreg(b: Builder) -> Op:
    """Give registers to the pool of the CTA, or wait until it has enough and take them."""
    action = b.mods.one_of("inc", "dec")
    for name in ("sync", "aligned", "u32"):
        if not b.mods.flag(name):
            action = ""
    if not action:
        b.fail("known as setmaxnreg.inc and .dec .sync.aligned.u32")
    (operand,) = b.expect(1)
    count = operand.value if isinstance(operand, Immediate) else 0
    if not LEAST <= count <= MOST or count % STEP:
        b.fail(f"got {operand} registers, allowed: {LEAST} to {MOST} in steps of {STEP}")

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        pool = _pool(warp.cta)
        if action == "inc" and pool.missing(warp, count) > 0:
            return _PoolWait(pool, warp, count)
        pool.change(warp, action, count)
        return None

    return run


def _pool(cta: Cta) -> RegisterPool:
    pool = cta.state.get(_STATE)
    if not isinstance(pool, RegisterPool):
        pool = cta.state[_STATE] = RegisterPool(cta)
    return pool
