"""What ptxas leaves no machine code for, and how much a load or store moves.

For the cycle model of traces and for the counts of ``benchmarks/instruction_kinds.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fa4gen.emulator.decode import Program
from fa4gen.emulator.registry import OpcodeSpec, Pipe
from fa4gen.ptx.ir import (
    Address,
    Immediate,
    Instruction,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Vector,
)

LANES, REGISTER_BYTES = 32, 4
_WORDS = {"b16": 0.5, "b32": 1.0, "b64": 2.0, "b128": 4.0}
_HALVES = frozenset({"b8", "b16"})
_TENSOR_MEMORY = frozenset({"tcgen05.ld", "tcgen05.st"})


def folded(program: Program) -> frozenset[int]:
    """Instructions that leave nothing in the machine code, by index.

    - ``mov`` from registers to registers, also 32-bit ones to pairs and back. Packing 16-bit
      halves is work, and so is a constant.
    - A constant added to an address that only ``tcgen05.ld`` and ``.st`` use: their SASS, LDTM and
      STTM, has an offset (seen in nvdisasm, CUDA 13).
    - A predicate turned round for guards alone: a guard can be negated.
    """
    rows = list(zip(program.entry.instructions, program.specs, strict=True))
    uses: dict[int, set[str]] = {}
    for inst, spec in rows:
        for slot, how in _uses(inst, spec):
            uses.setdefault(slot, set()).add(how)
    return frozenset(
        inst.index
        for inst, spec in rows
        if _is_renaming(inst, spec) or _serves_alone(inst, spec, uses)
    )


def registers_moved(inst: Instruction) -> int:
    """32-bit registers of each lane that a load or store moves."""
    total = 0.0
    for operand in inst.operands:
        for item in _pieces(operand):
            if isinstance(item, Register):
                total += _WORDS.get(item.type, 0.0)
    return max(1, round(total))


def _is_renaming(inst: Instruction, spec: OpcodeSpec) -> bool:
    """A ``mov`` between registers: also of two 32-bit ones to a pair and back."""
    if spec.mnemonic != "mov" or inst.guard is not None:
        return False
    return all(
        isinstance(item, Sink) or (isinstance(item, Register) and item.type not in _HALVES)
        for operand in inst.operands
        for item in _pieces(operand)
    )


def _serves_alone(inst: Instruction, spec: OpcodeSpec, uses: dict[int, set[str]]) -> bool:
    """Whether its result has the one kind of use that makes it free."""
    serves = _serves(inst, spec)
    target = inst.operands[0] if inst.operands else None
    return serves is not None and isinstance(target, Register) and uses.get(target.slot) == {serves}


def _serves(inst: Instruction, spec: OpcodeSpec) -> str | None:
    """The only use that its result may have if the instruction is to be folded."""
    if inst.guard is not None:
        return None
    if inst.opcode == "not.pred":
        return "guard"
    if spec.mnemonic == "add" and spec.pipe is Pipe.ALU:
        sources = sorted(type(operand).__name__ for operand in inst.operands[1:])
        return "tmem" if sources == [Immediate.__name__, Register.__name__] else None
    return None


def _uses(inst: Instruction, spec: OpcodeSpec) -> Iterator[tuple[int, str]]:
    """Registers, by slot, and how they are used; what is not looked into counts as a use."""
    if inst.guard is not None:
        yield inst.guard.register.slot, "guard"
    operands = inst.operands[1:] if _serves(inst, spec) is not None else inst.operands
    for operand in operands:
        if isinstance(operand, Address):
            how = "tmem" if spec.mnemonic in _TENSOR_MEMORY else "other"
            pieces: Sequence[Operand] = operand.coordinates
            if isinstance(operand.base, Register):
                yield operand.base.slot, how
        elif isinstance(operand, Pair):
            pieces = (operand.first, operand.second)
        else:
            pieces = _pieces(operand)
        for piece in pieces:
            register = piece.register if isinstance(piece, Negated) else piece
            if isinstance(register, Register):
                yield register.slot, "other"


def _pieces(operand: Operand) -> Sequence[Operand]:
    return operand.items if isinstance(operand, Vector) else (operand,)
