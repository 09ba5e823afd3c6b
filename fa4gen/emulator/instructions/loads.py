"""Loads: ``ld`` and ``ldu`` in every state space.

Source: PTX ISA 9.1, sections 9.7.9.8 (ld), 9.7.9.9 (ld.global.nc), 9.7.9.10 (ldu), 9.4.1 (operands
wider than the type).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fa4gen.emulator.access import (
    MEMORY_BITS,
    take_hints,
    take_order,
    take_space,
    take_vector,
    without_policy,
)
from fa4gen.emulator.builder import LANES, UNSIGNED, Builder, Lanes
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.spaces import PARAM, read
from fa4gen.emulator.warp import Warp
from fa4gen.ptx.ir import Address, Operand, Sink, Symbol

_WORD = 64

_SPACES = (
    *("const", "global", "local", "param", "param::entry", "param::func"),
    *("shared", "shared::cta", "shared::cluster"),
)


@instruction("ld", pipe=Pipe.LSU, isa="9.7.9.8")
def ld(b: Builder) -> Op:
    """Load registers from memory, extended by the type where they are wider."""
    order = take_order(b, "weak", "relaxed", "acquire", "volatile")
    space = take_space(b, *_SPACES)
    b.mods.ignore("nc")
    hinted = take_hints(b)
    count = take_vector(b)
    kind = _take_type(b)
    bits = MEMORY_BITS[kind]
    target, source = without_policy(b, hinted, 2)
    slots, finish = _destinations(b, target, kind, count)
    if (
        space is PARAM
        and isinstance(source, Address)
        and isinstance(source.base, Symbol)
        and any(source.base.name == param.name for param in b.entry.params)
    ):
        return _load_param(b, source, (bits, count), slots, finish)
    address = b.address(source)
    element, elements = (_WORD, 2) if bits > _WORD else (bits, count)

    def run(warp: Warp) -> None:
        values = read(warp, space, address(warp), element, elements, order)
        for slot, value in zip(slots, finish(values), strict=True):
            warp.write(slot, value)

    return run


@instruction("ldu", pipe=Pipe.LSU, isa="9.7.9.10")
def ldu(b: Builder) -> Op:
    """Load read-only data at an address that is the same in all threads: a hint."""
    return ld(b)


def _take_type(b: Builder) -> str:
    kind = b.mods.type()
    if kind not in MEMORY_BITS:
        b.fail(f"got the type {kind or 'none'}, known: {', '.join(MEMORY_BITS)}")
    return kind


def _destinations(
    b: Builder, target: Operand, kind: str, count: int
) -> tuple[tuple[int, ...], Callable[[Lanes], list[Lanes]]]:
    """Slots, and what makes their values of the ``(count, 32)`` that were read."""
    items = b.items(target)
    if len(items) != count:
        b.fail(f"got {len(items)} destinations for {count} elements")
    bits = MEMORY_BITS[kind]
    widths = [bits if isinstance(item, Sink) else b.width(item) for item in items]
    if any(width < bits for width in widths):
        b.fail(f"got a destination of {min(widths)} bits for .{kind}")
    slots = b.dsts(target)
    if bits > _WORD:
        return slots, lambda values: [np.ascontiguousarray(values.T)]
    if all(width == bits for width in widths):
        return slots, list
    if any(width > _WORD for width in widths):
        b.fail(f"got a destination of 128 bits for .{kind}")
    signed = np.dtype(f"i{bits // 8}") if kind.startswith("s") else np.dtype(UNSIGNED[bits])
    prefix = "i" if kind.startswith("s") else "u"
    wide = [(np.dtype(f"{prefix}{w // 8}"), UNSIGNED[w]) for w in widths]
    return slots, lambda values: [
        value.view(signed).astype(middle).view(final)
        for value, (middle, final) in zip(values, wide, strict=True)
    ]


def _load_param(
    b: Builder,
    source: Address,
    shape: tuple[int, int],
    slots: tuple[int, ...],
    finish: Callable[[Lanes], list[Lanes]],
) -> Op:
    """``ld.param [name + offset]``, which is the same in every lane."""
    bits, count = shape
    size = bits * count // 8
    base, offset = b.src(source.base, 64), source.offset
    if bits > _WORD:
        bits, count = _WORD, 2

    def run(warp: Warp) -> None:
        params = warp.cta.cluster.grid.params
        at = int(warp.regs[base][0]) + offset - params.base
        if at < 0 or at + size > len(params.data) or at % size:
            raise warp.fault(
                f"{params.name}: got {size} bytes at byte {at}, allowed: multiples of {size} below "
                f"{len(params.data)}"
            )
        first = at * 8 // bits
        words = params.view(bits)[first : first + count]
        values = np.repeat(words, LANES).reshape(count, LANES)
        for slot, value in zip(slots, finish(values), strict=True):
            warp.write(slot, value)

    return run
