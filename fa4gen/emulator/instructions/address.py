"""Generic addresses: ``cvta`` and ``isspacep`` (PTX ISA 9.7.9.19, 9.7.9.20).

Parameters and local memory have the addresses of their windows in their own space as well, and
global addresses are generic ones, so only shared addresses change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import Array, lanewise, target
from fa4gen.emulator.memory import LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_MASK
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import RANK_SHIFT

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_SHARED = ("shared", "shared::cta", "shared::cluster")
_UNCHANGED = ("const", "global", "local", "param", "param::entry")
_WINDOW = np.array(WINDOW_MASK, np.uint64)
_BASES = {
    "shared": np.array(SHARED_WINDOW, np.uint64),
    "local": np.array(LOCAL_WINDOW, np.uint64),
    "param": np.array(PARAM_WINDOW, np.uint64),
}
_NOWHERE = np.array((1 << 64) - 1, np.uint64)
"""What an address outside the window becomes, so that using it is noticed."""


@instruction("cvta", pipe=Pipe.ALU, isa="9.7.9.20")
def cvta(b: Builder) -> Op:
    """To a generic address, or ``.to`` the address in a state space."""
    back, space = b.mods.flag("to"), b.mods.one_of(*_SHARED, *_UNCHANGED)
    if not space or b.mods.one_of("u64") != "u64":
        b.fail("got no state space that is known, or not .u64 (addresses have 64 bits)")
    d, x = b.expect(2)
    out, slot = target(b, d, 64), b.src(x, 64)
    base = _BASES["shared"]

    def to_shared(address: Array) -> Array:
        return np.where((address & _WINDOW) == base, address & ~_WINDOW, _NOWHERE)

    def to_generic(address: Array) -> Array:
        return address | base

    if space in _SHARED:
        return lanewise(to_shared if back else to_generic, out, (slot,))
    return lanewise(np.copy, out, (slot,))


@instruction("isspacep", pipe=Pipe.ALU, isa="9.7.9.19")
def isspacep(b: Builder) -> Op:
    """Whether a generic address lies in a state space; ``.shared`` is the CTA's own."""
    space = b.mods.one_of(*_SHARED, *_UNCHANGED)
    if not space:
        b.fail(f"got no state space, allowed: {', '.join((*_SHARED, *_UNCHANGED))}")
    d, x = b.expect(2)
    out, slot = target(b, d, 1), b.src(x, 64)
    rank_shift, rank_mask = np.uint64(RANK_SHIFT), np.uint64(0xFF)

    def run(warp: Warp) -> None:
        address = warp.regs[slot]
        window = address & _WINDOW
        if space == "const":
            inside = np.zeros(len(address), bool)
        elif space == "global":
            inside = (window != _BASES["shared"]) & (window != _BASES["local"])
        else:
            inside = window == _BASES[space.partition("::")[0]]
        if space in ("shared", "shared::cta"):
            inside &= (address >> rank_shift & rank_mask) == np.uint64(warp.cta.rank)
        warp.write(out, inside)

    return run
