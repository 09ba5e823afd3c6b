"""What an emulated instruction is: which pipe it takes, what it moves, whether ptxas keeps it.

For ``sm100_instructions.py``. The pipe is that of the emulator's opcode table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.decode import Program
from fa4gen.emulator.registry import OpcodeSpec, Pipe
from fa4gen.perf.trace.dataflow import is_renaming
from fa4gen.ptx.ir import (
    Address,
    Immediate,
    Instruction,
    Negated,
    Operand,
    Pair,
    Register,
    Vector,
)

Weights: TypeAlias = npt.NDArray[np.float64]

QUANTITIES = {
    "all": "all PTX instructions",
    "kept": "without folded",
    "mufu": "MUFU",
    "fma": "FMA pipe",
    "fma_x2": "of them two-wide",
    "alu": "ALU",
    "convert": "conversions",
    "tmem_load": "TMEM loads",
    "tmem_load_kib": "KiB loaded",
    "tmem_store": "TMEM stores",
    "tmem_store_kib": "KiB stored",
    "smem_load": "shared loads",
    "smem_store": "shared stores",
    "named_barrier": "named barriers",
    "mbarrier": "mbarriers",
    "mma": "MMAs",
    "tma": "TMA",
    "other": "other",
}
"""What is counted, with its title."""

OVERLAPPING = frozenset({"all", "kept", "fma_x2", "tmem_load_kib", "tmem_store_kib"})
"""The other quantities are disjoint; ``kept`` is their sum."""

LANES, REGISTER_BYTES = 32, 4
_BY_PIPE = {
    Pipe.ALU: "alu",
    Pipe.FMA: "fma",
    Pipe.MUFU: "mufu",
    Pipe.CONVERT: "convert",
    Pipe.TMA: "tma",
    Pipe.TENSOR: "mma",
}
_TMEM = {"tcgen05.ld": "tmem_load", "tcgen05.st": "tmem_store"}
_SMEM = {"ld": "smem_load", "st": "smem_store"}
_NO_NAME = {"warp", "cluster"}
"""Second parts of barriers that are no named barriers of a CTA."""


def weights(program: Program) -> Weights:
    """What one execution of each instruction adds: ``(instructions, quantities)``."""
    table = np.zeros((len(program.specs), len(QUANTITIES)))
    column = {name: at for at, name in enumerate(QUANTITIES)}
    gone = folded(program)
    for row, inst, spec in zip(table, program.entry.instructions, program.specs, strict=True):
        row[column["all"]] = 1
        if inst.index in gone:
            continue
        kind = kind_of(inst, spec)
        row[column["kept"]] = row[column[kind]] = 1
        row[column["fma_x2"]] = kind == "fma" and "f32x2" in inst.parts
        if spec.mnemonic in _TMEM:
            kib = registers_moved(inst) * LANES * REGISTER_BYTES / 1024
            row[column[f"{kind}_kib"]] = kib
    return table


def kind_of(inst: Instruction, spec: OpcodeSpec) -> str:
    """The quantity, none of :data:`OVERLAPPING`, that an instruction belongs to."""
    if spec.pipe in _BY_PIPE:
        return _BY_PIPE[spec.pipe]
    if spec.pipe is Pipe.TMEM:
        return _TMEM.get(spec.mnemonic, "other")
    if spec.pipe is Pipe.LSU and any(part.startswith("shared") for part in inst.parts):
        return _SMEM.get(spec.mnemonic, "other")
    if spec.pipe is Pipe.BARRIER:
        family, second = spec.mnemonic.split(".")[:2]
        if "mbarrier" in spec.mnemonic or spec.mnemonic == "tcgen05.commit":
            return "mbarrier"
        if family in {"bar", "barrier"} and second not in _NO_NAME:
            return "named_barrier"
    return "other"


def registers_moved(inst: Instruction) -> int:
    """32-bit registers that each lane takes from tensor memory, or gives to it."""
    return sum(len(_pieces(op)) for op in inst.operands if isinstance(op, Vector | Register))


def folded(program: Program) -> frozenset[int]:
    """Instructions that leave nothing in the machine code, by index.

    - ``mov`` from registers to registers, also 32-bit ones to pairs and back. Packing 16-bit
      halves is work, and so is a constant.
    - A constant added to an address that only ``tcgen05.ld`` and ``.st`` use: their SASS, LDTM and
      STTM, has an offset (seen in nvdisasm, CUDA 13).
    - A predicate turned round for guards alone: a guard can be negated.
    """
    uses: dict[int, set[str]] = {}
    for inst, spec in zip(program.entry.instructions, program.specs, strict=True):
        for slot, how in _uses(inst, spec):
            uses.setdefault(slot, set()).add(how)
    found = set()
    for inst, spec in zip(program.entry.instructions, program.specs, strict=True):
        serves = _serves(inst, spec)
        if serves is not None:
            target = inst.operands[0]
            alone = isinstance(target, Register) and uses.get(target.slot) == {serves}
        if is_renaming(inst, spec) or (serves is not None and alone):
            found.add(inst.index)
    return frozenset(found)


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
            how = "tmem" if spec.mnemonic in _TMEM else "other"
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
