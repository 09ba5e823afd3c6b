"""A kernel as the mutation operators see it, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from fa4gen.ptx.ir import (
    Address,
    Entry,
    Guard,
    Immediate,
    Instruction,
    Label,
    Module,
    Operand,
    Register,
    Vector,
)
from mutation.edits import Edit, operand_at, with_operand

ALWAYS = Immediate(-1)
"""A predicate that holds."""


class Kind(Enum):
    """What a mutant changes, which decides by what argument it can be equivalent."""

    VALUE = "value"
    """A number that an instruction computes or is given."""
    ORDER = "order"
    """When things happen: barriers, waits, fences."""
    OTHER = "other"


@dataclass(frozen=True)
class Mutant:
    """One change of one kernel."""

    operator: str
    kernel: str
    number: int
    """Among those of the operator on the kernel, from 0."""
    site: Instruction
    """The instruction that is changed, before."""
    what: str
    """The change in words."""
    edit: Edit

    @property
    def name(self) -> str:
        """A short unique name: ``drop-wait:fa4-sm90:12``."""
        return f"{self.operator}:{self.kernel}:{self.number}"


@dataclass(frozen=True)
class Change:
    """What an operator yields: a site, the change in words, and the edit."""

    site: Instruction
    what: str
    edit: Edit


@dataclass(frozen=True)
class Code:
    """The instructions of a kernel, found by opcode."""

    module: Module

    @property
    def entry(self) -> Entry:
        """The only kernel of the module."""
        (entry,) = self.module.entries
        return entry

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        return self.entry.instructions

    @cached_property
    def targets(self) -> dict[int, list[Instruction]]:
        """The branches to each instruction that any goes to."""
        found: dict[int, list[Instruction]] = {}
        for inst in self.instructions:
            for operand in inst.operands:
                labels = operand.items if isinstance(operand, Vector) else (operand,)
                for label in labels:
                    if isinstance(label, Label):
                        found.setdefault(label.target, []).append(inst)
        return found

    def find(self, *mnemonics: str) -> Iterator[Instruction]:
        """The instructions whose opcode is one of ``mnemonics`` or one with modifiers behind."""
        for inst in self.instructions:
            if any(inst.opcode == m or inst.opcode.startswith(f"{m}.") for m in mnemonics):
                yield inst

    def fresh(self, kind: str) -> Register:
        """A register that the kernel does not have."""
        return Register("%mutant", len(self.entry.registers), kind)


Operator = Callable[[Code], Iterator[Change]]


def dropped(inst: Instruction, what: str = "dropped") -> Change:
    """Leave ``inst`` out."""
    return Change(inst, what, Edit({inst.index: ()}))


def doubled(inst: Instruction) -> Change:
    """Execute ``inst`` twice."""
    return Change(inst, "executed twice", Edit({inst.index: (inst, inst)}))


def replaced(inst: Instruction, new: Instruction, what: str) -> Change:
    """Another instruction in the place of ``inst``."""
    return Change(inst, what, Edit({inst.index: (new,)}))


def set_true(predicate: Operand, inst: Instruction) -> Instruction:
    """An instruction at the place of ``inst`` that sets ``predicate``."""
    return replace(inst, opcode="mov.pred", operands=(predicate, ALWAYS))


def altered(
    code: Code, inst: Instruction, at: tuple[int, ...], change: tuple[str, int], bits: int
) -> Change:
    """Give ``inst`` another number at a place.

    Args:
        at: The operand, or the element of one: see :func:`mutation.edits.operand_at`.
        change: ``("add" or "xor", amount)``.
        bits: Width of the number.
    """
    verb, amount = change
    old = operand_at(inst, at)
    what = f"operand {'.'.join(map(str, at))} {'+' if verb == 'add' else '^'} {amount:#x}"
    if isinstance(old, Immediate):
        value = old.value + amount if verb == "add" else old.value ^ amount
        return replaced(inst, with_operand(inst, at, replace(old, value=value)), what)
    new = code.fresh(f"b{bits}")
    opcode = f"add.s{bits}" if verb == "add" else f"xor.b{bits}"
    operands = (new, old, Immediate(amount))
    changing = replace(inst, opcode=opcode, operands=operands, guard=inst.guard)
    return Change(inst, what, Edit({inst.index: (changing, with_operand(inst, at, new))}, (new,)))


def address_moved(inst: Instruction, at: int, step: int) -> Change:
    """Let the address at operand ``at`` be ``step`` bytes (or columns) further on."""
    address = inst.operands[at]
    assert isinstance(address, Address)
    new = replace(address, offset=address.offset + step)
    return replaced(inst, with_operand(inst, (at,), new), f"address {at} + {step}")


def turned(guard: Guard) -> Guard:
    """The opposite guard."""
    return replace(guard, negated=not guard.negated)
