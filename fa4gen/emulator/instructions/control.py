"""Branches, exits and instructions that only hint."""

from __future__ import annotations

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.warp import EXIT, Signal, Warp
from fa4gen.ptx.ir import Label


@instruction("bra", pipe=Pipe.CONTROL, own_guard=True, isa="9.7.12.3")
def bra(b: Builder) -> Op:
    """Jump; ``.uni`` promises that all lanes agree, which is checked."""
    uniform = b.mods.flag("uni")
    (label,) = b.expect(1)
    if not isinstance(label, Label):
        b.fail(f"got {label} as the target of a branch")
    target, following, guard = label.target, b.inst.index + 1, b.inst.guard
    if guard is None:
        return lambda warp: target
    slot, negated = guard.register.slot, guard.negated

    def run(warp: Warp) -> int | Signal | None:
        taken = warp.regs[slot]
        if negated:
            taken = ~taken
        if warp.mask is None:
            if taken.all():
                return target
            if not taken.any():
                return None
        else:
            taken = taken & warp.mask
            if not taken.any():
                return None
            if (taken == warp.mask).all():
                return target
        if uniform:
            raise warp.fault("bra.uni: got lanes that take the branch and lanes that do not")
        return warp.diverge(np.asarray(taken), target, following)

    return run


@instruction("ret", "exit", pipe=Pipe.CONTROL, own_guard=True, isa="9.7.12.6")
def end(b: Builder) -> Op:
    """End the active lanes, or those whose predicate holds."""
    b.mods.ignore("uni")
    b.expect(0)
    guard = b.inst.guard
    if guard is None:
        return lambda warp: EXIT
    slot, negated = guard.register.slot, guard.negated

    def run(warp: Warp) -> Signal | None:
        active = warp.active()
        ending = active & (~warp.regs[slot] if negated else warp.regs[slot])
        staying = active & ~ending
        if not staying.any():
            return EXIT
        if ending.any():
            warp.alive, warp.mask = warp.alive & ~ending, staying
        return None

    return run


@instruction("trap", pipe=Pipe.CONTROL, isa="9.7.19.4")
def trap(b: Builder) -> Op:
    """Abort the kernel."""

    def run(warp: Warp) -> None:
        raise warp.fault("trap: the kernel aborted itself")

    return run


@instruction("prefetch", "prefetchu", "applypriority", "discard", pipe=Pipe.NONE, isa="9.7.9.16")
def hint(b: Builder) -> Op:
    """Caches hold no state here."""
    b.mods.ignore("tensormap", "param", "global", "local", "const", "L1", "L2", "L2::evict_normal")
    return lambda warp: None
