"""Sabotage of control: guards, selections, elections, and what has to be given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fa4gen.ptx.ir import Immediate, Instruction, Pair, Register
from mutation.code import Change, Code, Operator, dropped, replaced, set_true, turned
from mutation.edits import Edit


def invert_guard(code: Code) -> Iterator[Change]:
    """Execute an instruction exactly when it should not be."""
    for inst in code.instructions:
        if inst.guard is not None:
            yield replaced(inst, replace(inst, guard=turned(inst.guard)), "guard inverted")


def swap_selp(code: Code) -> Iterator[Change]:
    """Select the other value."""
    for inst in code.find("selp"):
        to, first, second, *rest = inst.operands
        new = replace(inst, operands=(to, second, first, *rest))
        yield replaced(inst, new, "operands swapped")


def drop_elect(code: Code) -> Iterator[Change]:
    """Let all lanes do what one is to do."""
    for inst in code.find("elect.sync"):
        pair = inst.operands[0]
        assert isinstance(pair, Pair)
        made: list[Instruction] = [set_true(pair.second, inst)]
        if isinstance(pair.first, Register):
            made.append(replace(inst, opcode="mov.b32", operands=(pair.first, Immediate(0))))
        yield Change(inst, "all lanes elected", Edit({inst.index: tuple(made)}))


def drop_dealloc(code: Code) -> Iterator[Change]:
    """Do not give tensor memory back."""
    return (dropped(inst) for inst in code.find("tcgen05.dealloc"))


def drop_relinquish(code: Code) -> Iterator[Change]:
    """Do not give up the right to allocate."""
    return (dropped(inst) for inst in code.find("tcgen05.relinquish_alloc_permit"))


OPERATORS: dict[str, Operator] = {
    "invert-guard": invert_guard,
    "swap-selp": swap_selp,
    "drop-elect": drop_elect,
    "drop-dealloc": drop_dealloc,
    "drop-relinquish": drop_relinquish,
}
