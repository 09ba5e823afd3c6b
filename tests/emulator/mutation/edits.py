"""Changing instructions of a kernel: branch targets follow, PTX lines stay as they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fa4gen.ptx.ir import Address, Instruction, Label, Module, Operand, Register, Vector

HERE = "%here"
"""Name of a label in inserted code whose target counts from the start of that code."""


@dataclass(frozen=True)
class Edit:
    """What stands in the place of some instructions, by index; an empty tuple drops one."""

    places: Mapping[int, tuple[Instruction, ...]]
    registers: tuple[Register, ...] = field(default=())
    """Registers that the inserted code needs besides those of the kernel."""


def apply(module: Module, edit: Edit) -> Module:
    """``module``, which has one kernel, after ``edit``.

    A branch to a dropped instruction goes to what follows it; a branch to one that others have been
    put before goes to the first of these.
    """
    (entry,) = module.entries
    code: list[Instruction] = []
    moved, starts = [], []
    for inst in entry.instructions:
        moved.append(len(code))
        for each in edit.places.get(inst.index, (inst,)):
            starts.append(moved[-1])
            code.append(each)
    moved.append(len(code))
    shifted = any(len(found) != 1 for found in edit.places.values())
    for at, inst in enumerate(code):
        operands = inst.operands
        if shifted and any(_jumps(operand) for operand in operands):
            operands = tuple(_relabelled(operand, moved, starts[at]) for operand in operands)
        if inst.index != at or operands is not inst.operands:
            code[at] = replace(inst, index=at, operands=operands)
    registers = (*entry.registers, *edit.registers)
    return replace(module, entries=(replace(entry, instructions=tuple(code), registers=registers),))


def with_operand(inst: Instruction, at: tuple[int, ...], new: Any) -> Instruction:
    """``inst`` with ``new`` at a place: an operand, or an element of one."""
    operands = list(inst.operands)
    operands[at[0]] = _with(operands[at[0]], at[1:], new)
    return replace(inst, operands=tuple(operands))


def operand_at(inst: Instruction, at: tuple[int, ...]) -> Any:
    """What is at a place: an operand, an element of a vector, a coordinate of an address."""
    found: Any = inst.operands[at[0]]
    for step in at[1:]:
        found = _elements(found)[step]
    return found


def _elements(operand: Operand) -> tuple[Operand, ...]:
    if isinstance(operand, Vector):
        return operand.items
    if isinstance(operand, Address):
        return operand.coordinates
    raise TypeError(f"{operand} has no elements")


def _with(operand: Operand, at: tuple[int, ...], new: Any) -> Any:
    if not at:
        return new
    items = list(_elements(operand))
    items[at[0]] = _with(items[at[0]], at[1:], new)
    if isinstance(operand, Address):
        return replace(operand, coordinates=tuple(items))
    return Vector(tuple(items))


def _jumps(operand: Operand) -> bool:
    if isinstance(operand, Vector):
        return any(_jumps(item) for item in operand.items)
    return isinstance(operand, Label)


def _relabelled(operand: Operand, moved: list[int], start: int) -> Operand:
    if isinstance(operand, Vector):
        return Vector(tuple(_relabelled(item, moved, start) for item in operand.items))
    if isinstance(operand, Label):
        inserted = operand.name == HERE
        target = start + operand.target if inserted else moved[operand.target]
        return Label(f"{HERE}_{target}" if inserted else operand.name, target)
    return operand
