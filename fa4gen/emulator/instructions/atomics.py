"""Atomic operations: ``atom``, and ``red``, which gives nothing back.

The lanes of a warp act one after the other, lowest first. A vector or packed operation is a set of
atomic operations, one an element.

Source: PTX ISA 9.1, sections 9.7.13.5 (atom) and 9.7.13.6 (red); which types go with which
operation is what ptxas 13.4 takes. A NaN that an addition makes is the canonical one, as that of
``add``: the ISA does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.access import (
    SCOPES,
    take_hints,
    take_order,
    take_space,
    take_vector,
    without_policy,
)
from fa4gen.emulator.builder import LANES, UNSIGNED, Builder
from fa4gen.emulator.instructions.stores import wide_source
from fa4gen.emulator.memory import Addresses, Block, Offsets
from fa4gen.emulator.ordering import RELAXED, Order
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import SharedMemory
from fa4gen.emulator.spaces import Space, active, note_read, note_write, parts
from fa4gen.emulator.warp import Warp
from fa4gen.numerics.arrays import HalfName
from fa4gen.numerics.half import add16
from fa4gen.numerics.ieee import add32
from fa4gen.numerics.minmax import minmax16
from fa4gen.ptx.ir import Operand

Values: TypeAlias = npt.NDArray[np.generic]
Update: TypeAlias = Callable[..., Values]
"""``new = update(old, b)`` or ``update(old, b, c)``: arrays of one unsigned type, any shape."""
Read: TypeAlias = Callable[[Warp], Values]
"""The ``(count, 32)`` values of an operand."""

_WORD, _WIDE = 64, 128

_SPACES = ("global", "shared", "shared::cta", "shared::cluster")
_INTEGER = {f"{kind}{bits}": bits for kind in "bus" for bits in (32, 64)}
_PACKED = {"f16": 16, "bf16": 16, "f16x2": 32, "bf16x2": 32}
_BITS = {**_INTEGER, **_PACKED, "f32": 32, "f64": 64, "b16": 16, "b128": 128}
_TYPES = {
    **dict.fromkeys(("and", "or", "xor"), ("b32", "b64")),
    "exch": ("b32", "b64", "b128"),
    "cas": ("b16", "b32", "b64", "b128"),
    "add": ("u32", "s32", "u64", "f32", "f64", *_PACKED),
    **dict.fromkeys(("inc", "dec"), ("u32",)),
    **dict.fromkeys(("min", "max"), ("u32", "s32", "u64", "s64", *_PACKED)),
}
"""The types of each operation."""


@dataclass(frozen=True, slots=True)
class _Atomic:
    """One atomic instruction, decoded.

    Attributes:
        update: For addresses in global memory.
        update_shared: For shared memory, where f32 additions keep subnormals.
        bits, count: Elements of an address; one operation may take them all (b128).
        blind: Whether the old value does not matter.
    """

    space: Space
    order: Order
    update: Update
    update_shared: Update
    bits: int
    count: int
    blind: bool

    def run(self, warp: Warp, addresses: Addresses, operands: tuple[Values, ...]) -> Values:
        """Do it for the active lanes; the old values, ``(count, 32)``."""
        result = np.zeros((self.count, LANES), UNSIGNED[self.bits])
        size = self.bits * self.count // 8
        for mask in parts(warp, self.space, addresses, size):
            block, offsets = self.space.locate(warp, active(warp, addresses), size)
            if not self.blind:
                note_read(warp, block, offsets, size, self.order)
            note_write(warp, block, offsets, size, self.order, adds_to=True)
            chosen = operands if mask is None else tuple(each[:, mask] for each in operands)
            old = self._apply(block, offsets, chosen)
            if mask is None:
                result = old
            else:
                result[:, mask] = old
        return result

    def _apply(self, block: Block, offsets: Offsets, operands: tuple[Values, ...]) -> Values:
        update = self.update_shared if isinstance(block, SharedMemory) else self.update
        memory = block.view(self.bits)
        index = offsets // (self.bits // 8) + np.arange(self.count)[:, None]
        old = np.empty(index.shape, memory.dtype)
        for turn in _turns(offsets):
            at = index[:, turn]
            old[:, turn] = memory[at]
            memory[at] = update(old[:, turn], *(each[:, turn] for each in operands))
        return old


@instruction("atom", pipe=Pipe.LSU, isa="9.7.13.5")
def atom(b: Builder) -> Op:
    """Read, change and write back; the old value is the result."""
    name, atomic, operands, sources = _decode(b, results=1)
    kind_bits = _WIDE if atomic.bits * atomic.count == _WIDE and sources.wide else atomic.bits
    slots = b.dsts(operands[0], kind_bits)
    if len(slots) != (1 if kind_bits == _WIDE else atomic.count):
        b.fail(f"got {len(slots)} destinations for {atomic.count} elements of {name}")
    address = b.address(operands[1])

    def run(warp: Warp) -> None:
        old = atomic.run(warp, address(warp), sources.read(warp))
        values = [np.ascontiguousarray(old.T)] if kind_bits == _WIDE else list(old)
        for slot, value in zip(slots, values, strict=True):
            warp.write(slot, value)

    return run


@instruction("red", pipe=Pipe.LSU, isa="9.7.13.6")
def red(b: Builder) -> Op:
    """Change what is in memory."""
    _, atomic, operands, sources = _decode(b, results=0)
    address = b.address(operands[0])

    def run(warp: Warp) -> None:
        atomic.run(warp, address(warp), sources.read(warp))

    return run


@dataclass(frozen=True, slots=True)
class _Sources:
    """The operands ``b`` and ``c`` of an atomic instruction."""

    readers: tuple[Read, ...]
    wide: bool

    def read(self, warp: Warp) -> tuple[Values, ...]:
        return tuple(read(warp) for read in self.readers)


def _decode(b: Builder, results: int) -> tuple[str, _Atomic, tuple[Operand, ...], _Sources]:
    """Take the modifiers and the source operands."""
    order = take_order(b, "relaxed", "acquire", "release", "acq_rel")
    order = order if order.strong else RELAXED
    b.mods.ignore(*SCOPES)
    space = take_space(b, *_SPACES)
    hinted = take_hints(b)
    count = take_vector(b)
    operation = b.mods.one_of(*_TYPES)
    kind = b.mods.type()
    if not operation or kind not in _TYPES[operation]:
        known = ", ".join(_TYPES.get(operation, _TYPES))
        b.fail(f"got {operation or 'no operation'} of type {kind or 'none'}, known: {known}")
    if not results and operation in {"exch", "cas"}:
        b.fail(f"got {operation}, known with a result only")
    if operation in {"min", "max"} and kind in _PACKED and count == 1:
        b.fail(f"got {operation} of one {kind}, known as a vector only")
    if (kind in _PACKED) != b.mods.flag("noftz"):
        b.fail(f".noftz belongs to {', '.join(_PACKED)} and to these alone")
    operands = without_policy(b, hinted, results + 2 + (operation == "cas"))
    wide = kind == "b128"
    readers = tuple(_reader(b, each, kind, count) for each in operands[results + 1 :])
    atomic = _Atomic(
        space=space,
        order=order,
        update=_update(operation, kind, flush=True),
        update_shared=_update(operation, kind, flush=False),
        bits=_WORD if wide else _BITS[kind],
        count=2 if wide else count,
        blind=operation == "exch",
    )
    return f"{operation}.{kind}", atomic, operands, _Sources(readers, wide)


def _reader(b: Builder, operand: Operand, kind: str, count: int) -> Read:
    if kind == "b128":
        slot = wide_source(b, operand)
        return lambda warp: warp.regs[slot].T
    slots = b.srcs(operand, _BITS[kind])
    if len(slots) != count:
        b.fail(f"got {len(slots)} sources for {count} elements")
    return lambda warp: np.stack([warp.regs[slot] for slot in slots])


def _update(operation: str, kind: str, flush: bool) -> Update:
    """What the operation makes of the old value and its operands."""
    if kind in _PACKED:
        return _halves(operation, "bf16" if kind.startswith("bf16") else "f16")
    if operation == "add" and kind == "f32":
        return lambda old, b: add32(old.view(np.float32), b.view(np.float32), ftz=flush).view(
            np.uint32
        )
    if operation == "add" and kind == "f64":
        return lambda old, b: (old.view(np.float64) + b.view(np.float64)).view(np.uint64)
    if operation in {"min", "max"}:
        choose = np.minimum if operation == "min" else np.maximum
        width = _BITS[kind] // 8
        seen, stored = np.dtype(f"{'i' if kind[0] == 's' else 'u'}{width}"), np.dtype(f"u{width}")
        return lambda old, b: choose(old.view(seen), b.view(seen)).view(stored)
    return _INTEGER_UPDATES[operation]


def _halves(operation: str, name: HalfName) -> Update:
    def update(old: Values, b: Values) -> Values:
        old16 = np.ascontiguousarray(old).view(np.uint16)
        b16 = np.ascontiguousarray(b).view(np.uint16)
        if operation == "add":
            new = add16(old16, b16, name)
        else:
            new = minmax16("min" if operation == "min" else "max", old16, b16, name)
        return np.ascontiguousarray(new).view(old.dtype)

    return update


def _inc(old: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> Values:
    return np.where(old >= b, np.uint32(0), old + np.uint32(1))


def _dec(old: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> Values:
    return np.where((old == 0) | (old > b), b, old - np.uint32(1))


def _cas(old: Values, b: Values, c: Values) -> Values:
    # A b128 is two elements, which only change together.
    return np.where((old == b).all(axis=0), c, old)


_INTEGER_UPDATES: dict[str, Update] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "add": np.add,
    "exch": lambda old, b: b,
    "inc": _inc,
    "dec": _dec,
    "cas": _cas,
}


def _turns(offsets: Offsets) -> Iterator[npt.NDArray[np.intp] | slice]:
    """Sets of lanes with different addresses each, so that equal addresses come in lane order."""
    order = np.argsort(offsets, kind="stable")
    ordered = offsets[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    if len(starts) == len(offsets):
        yield slice(None)
        return
    lengths = np.diff(np.r_[starts, len(offsets)])
    turn = np.arange(len(offsets)) - np.repeat(starts, lengths)
    for number in range(int(lengths.max())):
        yield order[turn == number]
