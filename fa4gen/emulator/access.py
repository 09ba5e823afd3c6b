"""The modifiers that loads, stores and atomics have in common, taken off an instruction.

Source: PTX ISA 9.1, sections 9.7.9.1 (cache operators), 9.7.9.2 (eviction priorities and hints),
9.7.9.8 (ld), 9.7.9.11 (st), 9.7.13.5 (atom).
"""

from __future__ import annotations

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.ordering import ORDERS, WEAK, Order
from fa4gen.emulator.spaces import SPACES, Space
from fa4gen.ptx.ir import Operand

MEMORY_BITS = {
    **{f"{kind}{bits}": bits for kind in "bsu" for bits in (8, 16, 32, 64)},
    **{"f32": 32, "f64": 64, "b128": 128},
}
"""Bits of each type that can be loaded and stored."""
SCOPES = ("cta", "cluster", "gpu", "sys")

_HINTS = (
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt"),
    *(f"L1::{how}" for how in ("evict_normal", "evict_unchanged", "evict_first", "evict_last")),
    *(f"L2::{how}" for how in ("evict_normal", "evict_first", "evict_last")),
    *("L1::no_allocate", "L2::64B", "L2::128B", "L2::256B"),
)
_VECTORS = {"": 1, "v2": 2, "v4": 4, "v8": 8}


def take_space(b: Builder, *names: str) -> Space:
    """The state space; without one, generic addresses."""
    return SPACES[b.mods.one_of(*names)]


def take_order(b: Builder, *names: str) -> Order:
    """The memory semantics, which are weak if not named; the scope changes nothing here."""
    order = ORDERS[b.mods.one_of(*names, default="weak")]
    if b.mods.flag("mmio"):
        b.mods.ignore("relaxed")
        order = ORDERS["relaxed"]
    if order is not WEAK:
        b.mods.ignore(*SCOPES)
    return order


def take_vector(b: Builder) -> int:
    """Elements a lane: 1, 2, 4 or 8."""
    return _VECTORS[b.mods.one_of("v2", "v4", "v8")]


def take_hints(b: Builder) -> bool:
    """Drop what speaks to caches only; whether there is a cache policy as the last operand."""
    b.mods.ignore(*_HINTS)
    return b.mods.flag("L2::cache_hint")


def without_policy(b: Builder, hinted: bool, *counts: int) -> tuple[Operand, ...]:
    """The operands, of which there must be one of ``counts``, but for a cache policy."""
    operands = b.expect(*(count + hinted for count in counts))
    if not hinted:
        return operands
    b.src(operands[-1], 64)
    return operands[:-1]
