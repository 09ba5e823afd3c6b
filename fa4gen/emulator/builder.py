"""From an instruction to the operation that executes it: what build functions are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.ptx.ir import (
    Address,
    Entry,
    Immediate,
    Instruction,
    Negated,
    Operand,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)

if TYPE_CHECKING:
    from fa4gen.emulator.registry import Pipe
    from fa4gen.emulator.warp import Warp

Lanes: TypeAlias = npt.NDArray[np.generic]
"""A register's value: one element a lane; ``bool`` for predicates, else unsigned of its width. A
b128 register has two ``uint64`` a lane."""

LANES = 32

WIDTHS = {"pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64, "b128": 128}
ADDRESS_WIDTHS = (32, 64)
UNSIGNED: dict[int, type[np.generic]] = {
    1: np.bool_,
    8: np.uint8,
    16: np.uint16,
    32: np.uint32,
    64: np.uint64,
}
TYPES = frozenset(
    (
        *("pred", "b8", "b16", "b32", "b64", "b128", "u8", "u16", "u32", "u64"),
        *("s8", "s16", "s32", "s64", "f16", "f16x2", "bf16", "bf16x2", "f32", "f32x2"),
        *("f64", "tf32", "e4m3", "e5m2", "e4m3x2", "e5m2x2", "e2m1", "e2m1x2"),
        *("e2m3x2", "e3m2x2", "ue8m0x2", "s16x2", "u16x2"),
    )
)


class Modifiers:
    """The parts of an opcode after its mnemonic. Each has to be asked for; none may be left."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        self._parts = list(parts)

    def flag(self, name: str) -> bool:
        """Whether ``name`` is there; takes it."""
        if name in self._parts:
            self._parts.remove(name)
            return True
        return False

    def one_of(self, *names: str, default: str = "") -> str:
        """The first part that is one of ``names``, taken; ``default`` if there is none."""
        for part in self._parts:
            if part in names:
                self._parts.remove(part)
                return part
        return default

    def type(self) -> str:
        """The next part that is a type, taken; empty if there is none."""
        return self.one_of(*TYPES)

    def ignore(self, *names: str) -> None:
        """Take ``names`` where they are there: hints without an effect on results."""
        self._parts = [part for part in self._parts if part not in names]

    @property
    def left(self) -> tuple[str, ...]:
        """What nobody asked for."""
        return tuple(self._parts)


class SlotPlan:
    """Which slot of a warp's register file holds what: registers, then constants and addresses."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.count = len(entry.registers)
        self.constants: dict[int, Lanes] = {}
        self.environment: dict[int, tuple[Special | Symbol, int]] = {}
        """Slots filled when a warp starts, with their widths: special registers, addresses."""
        self.written: set[int] = set()
        """Registers that some instruction writes."""
        self.packed: set[int] = set()
        """Registers that a ``mov`` packs into a wider one."""
        self._known: dict[object, int] = {}

    def constant(self, value: int, width: int) -> int:
        """The slot of a literal of ``width`` bits in every lane."""
        key = ("constant", value & ((1 << width) - 1), width)
        slot = self._known.get(key)
        if slot is None:
            slot = self._new(key)
            self.constants[slot] = np.full(LANES, key[1], UNSIGNED[width])
        return slot

    def named(self, operand: Special | Symbol, width: int) -> int:
        """The slot of a special register or of an address, ``width`` bits wide."""
        key = (operand, width)
        slot = self._known.get(key)
        if slot is None:
            slot = self._new(key)
            self.environment[slot] = (operand, width)
        return slot

    def fill_undefined(self) -> None:
        """Let registers that are packed and that nothing writes hold garbage: all bits set.

        Compilers leave the half of a pair undefined whose results they do not use: NVVM 23 does so
        for ``add.f32x2`` and for conversions of four values at once. Any other use of a register
        that nothing has written is a fault.
        """
        for slot in self.packed - self.written:
            width = WIDTHS[self.entry.registers[slot].type]
            self.constants[slot] = np.full(LANES, (1 << width) - 1, UNSIGNED[width])

    def _new(self, key: object) -> int:
        slot = self._known[key] = self.count
        self.count += 1
        return slot


class Builder:
    """One instruction while it is decoded.

    Attributes:
        pipe: Where this form executes, if not where its row of the opcode table says: ``add`` is
            for integers and for floats.
        reads: Slots of the registers that the instruction reads.
        writes: Slots of those that it writes.
    """

    def __init__(self, inst: Instruction, mods: Modifiers, plan: SlotPlan) -> None:
        self.inst, self.mods, self._plan = inst, mods, plan
        self.pipe: Pipe | None = None
        self.reads: set[int] = {inst.guard.register.slot} if inst.guard else set()
        self.writes: set[int] = set()

    @property
    def entry(self) -> Entry:
        """The kernel that the instruction belongs to."""
        return self._plan.entry

    def fail(self, why: str) -> NoReturn:
        """Refuse the instruction.

        Raises:
            UnsupportedInstruction: always; names the PTX line and the block of inline assembly.
        """
        raise unsupported(self.inst, why)

    def expect(self, *counts: int) -> tuple[Operand, ...]:
        """The operands, of which there must be one of ``counts``."""
        if len(self.inst.operands) not in counts:
            wanted = " or ".join(map(str, counts))
            self.fail(f"got {len(self.inst.operands)} operands, known with {wanted}")
        return self.inst.operands

    def width(self, operand: Operand) -> int:
        """Bits of a register operand; 0 for a literal, a sink or an address."""
        return WIDTHS[operand.type] if isinstance(operand, Register) else 0

    def src(self, operand: Operand, width: int) -> int:
        """The slot that holds ``operand``; a register must be ``width`` bits wide."""
        if isinstance(operand, Immediate):
            return self._plan.constant(operand.value, width)
        if isinstance(operand, Special | Symbol):
            return self._plan.named(operand, width)
        if isinstance(operand, Register):
            if WIDTHS[operand.type] != width:
                self.fail(f"{operand.name}: got a {operand.type} register, wanted {width} bits")
            self.reads.add(operand.slot)
            return operand.slot
        raise unsupported(self.inst, f"got {operand} as a source of {width} bits")

    def reader(self, operand: Operand, width: int) -> Callable[[Warp], Lanes]:
        """``operand`` as ``width`` bits; a wider register gives its low bits (PTX ISA 9.4.1)."""
        if isinstance(operand, Register) and WIDTHS[operand.type] != width:
            if WIDTHS[operand.type] < width:
                self.fail(f"{operand.name}: got a {operand.type} register for {width} bits")
            slot, dtype = operand.slot, UNSIGNED[width]
            self.reads.add(slot)
            return lambda warp: warp.regs[slot].astype(dtype)
        slot = self.src(operand, width)
        return lambda warp: warp.regs[slot]

    def dst(self, operand: Operand, width: int = 0) -> int:
        """The slot to write; -1 for ``_``. Of ``width`` bits if given."""
        if isinstance(operand, Sink):
            return -1
        if not isinstance(operand, Register):
            self.fail(f"got {operand} as a destination")
        if width and WIDTHS[operand.type] != width:
            self.fail(f"{operand.name}: got a {operand.type} register, wanted {width} bits")
        self._plan.written.add(operand.slot)
        self.writes.add(operand.slot)
        return operand.slot

    def packs(self, slots: tuple[int, ...]) -> None:
        """Say that the instruction packs the registers in ``slots``; some may be undefined.

        See :meth:`SlotPlan.fill_undefined`.
        """
        self._plan.packed.update(slot for slot in slots if slot < len(self.entry.registers))

    def items(self, operand: Operand) -> tuple[Operand, ...]:
        """The elements of ``{a, b}``; a single operand is a vector of one."""
        return operand.items if isinstance(operand, Vector) else (operand,)

    def srcs(self, operand: Operand, width: int) -> tuple[int, ...]:
        """The slots of a vector of sources."""
        return tuple(self.src(item, width) for item in self.items(operand))

    def dsts(self, operand: Operand, width: int = 0) -> tuple[int, ...]:
        """The slots of a vector of destinations; -1 for ``_``."""
        return tuple(self.dst(item, width) for item in self.items(operand))

    def predicate(self, operand: Operand) -> Callable[[Warp], npt.NDArray[np.bool_]]:
        """A predicate operand: ``p``, ``!p``, or a literal 0 or 1."""
        if isinstance(operand, Negated):
            slot = self.src(operand.register, 1)
            return lambda warp: ~warp.regs[slot]
        slot = self.src(operand, 1)
        return lambda warp: warp.regs[slot]

    def address(self, operand: Operand) -> Callable[[Warp], npt.NDArray[np.uint64]]:
        """The addresses of ``[base + offset]``, one a lane, zero-extended to 64 bits."""
        if not isinstance(operand, Address):
            self.fail(f"got {operand} where an address belongs")
        base, offset = operand.base, operand.offset
        if isinstance(base, Register):
            if WIDTHS[base.type] not in ADDRESS_WIDTHS:
                self.fail(f"{base.name}: got a {base.type} register as an address")
            slot, narrow = base.slot, WIDTHS[base.type] == ADDRESS_WIDTHS[0]
            self.reads.add(slot)
        else:
            slot, narrow = self.src(base, 64), False
        step = np.uint64(offset & 0xFFFFFFFFFFFFFFFF)
        if narrow:
            step32 = np.uint32(offset & 0xFFFFFFFF)
            return lambda warp: (warp.regs[slot] + step32).astype(np.uint64)
        if not offset:
            return lambda warp: warp.regs[slot]
        return lambda warp: warp.regs[slot] + step


def unsupported(inst: Instruction, why: str) -> UnsupportedInstruction:
    """The error for an instruction the emulator does not know."""
    block = f", inline assembly at line {inst.origin.first_line}" if inst.origin else ""
    return UnsupportedInstruction(
        f"PTX line {inst.line}{block}: {inst.opcode}: {why}; nothing is skipped, so the kernel "
        "cannot be emulated"
    )
