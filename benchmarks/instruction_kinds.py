"""What an emulated instruction is: which pipe it takes, what it moves, whether ptxas keeps it.

For ``sm100_instructions.py``. The pipe is that of the emulator's opcode table; what is folded, and
how much a load moves, is what the cycle model of traces says (``fa4gen.perf.trace.folding``).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.decode import Program
from fa4gen.emulator.registry import OpcodeSpec, Pipe
from fa4gen.perf.trace.folding import LANES, REGISTER_BYTES, folded, registers_moved
from fa4gen.ptx.ir import Instruction

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
