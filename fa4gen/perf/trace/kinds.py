"""What all executions of one instruction have in common, for the cycle model of traces."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fa4gen.emulator.decode import Program
from fa4gen.emulator.registry import OpcodeSpec, Pipe
from fa4gen.perf.trace.folding import LANES, REGISTER_BYTES, folded, registers_moved
from fa4gen.perf.trace.machine_code import UNKNOWN, Control, MachineCode, MachineInstruction
from fa4gen.perf.trace.sass import CONVERT, FMA, INTEGER, MINMAX, MUFU, class_of
from fa4gen.ptx.ir import Address, Immediate, Instruction, Vector

PAIR = 2
"""Elements of a lane that a two-wide instruction works on."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What all executions of one instruction have in common."""

    opcode: str
    pipe: str
    """Name of a pipe of :class:`~fa4gen.perf.trace.timing.Timing`."""
    quantity: float
    """What the pipe's rate is about: lanes, or bytes."""
    ordered: bool
    """Whether others can see it, so that it keeps its place among such."""
    closes: bool
    """Whether nothing behind it begins before it is over."""
    folded: bool
    """Whether the machine code has nothing for it."""
    literal: int
    """Its first literal operand, or 0: how many groups a wait leaves outstanding."""
    slots: float = 1.0
    """Issue slots that the machine code has for it, on average; 1 where that is not known."""
    timed: bool = True
    """Whether the model has a timing for it; otherwise it takes an issue slot and no more."""
    control: Control | None = None
    """Of a machine instruction, which keeps its place: what ptxas told the scheduler."""


def kinds_of(program: Program, code: MachineCode | None = None) -> tuple[Kind, ...]:
    """The kind of each instruction of a kernel.

    Args:
        program: The kernel.
        code: How many instructions ptxas made of each of its own.
    """
    gone = folded(program)
    rows = zip(program.entry.instructions, program.specs, strict=True)
    return tuple(
        _kind(inst, spec, inst.index in gone or spec.pipe is Pipe.NONE, code) for inst, spec in rows
    )


def machine_kind(program: Program, machine: MachineInstruction) -> Kind:
    """The kind of a machine instruction whose place and control fields are known."""
    if machine.event >= 0:
        spec = program.specs[machine.event]
        known = _kind(program.entry.instructions[machine.event], spec, False, None)
        opcode = known.opcode if known.closes else machine.opcode
        return replace(known, opcode=opcode, control=machine.control)
    pipe, quantity = _machine_work(machine.opcode)
    return Kind(machine.opcode, pipe, quantity, True, False, False, 0, control=machine.control)


def _machine_work(opcode: str) -> tuple[str, float]:
    """The pipe of a machine instruction without a counterpart, and how much it asks of it."""
    name, *modifiers = opcode.split(".")
    pipe = _MACHINE_PIPES.get(class_of(opcode))
    if pipe is not None:
        return pipe, float(LANES * (PAIR if name in _PACKED else 1))
    if name == "SHFL":
        return "shuffle", float(LANES)
    if name in {"LDSM", "STSM"}:
        return "lsu", float(LANES * REGISTER_BYTES * int(modifiers[-1]))
    if name in {"LDS", "STS", "ATOMS"}:
        width = next((int(each) for each in modifiers if each in {"64", "128"}), 32)
        return "lsu", LANES * width / 8.0
    if name in {"LDG", "STG", "LD", "ST", "LDL", "STL"}:
        return "global", 0.0
    return "control", 0.0


_MACHINE_PIPES = {MUFU: "mufu", FMA: "fma", MINMAX: "alu", INTEGER: "alu", CONVERT: "convert"}
_PACKED = frozenset({"FFMA2", "FMUL2", "FADD2"})


def _kind(inst: Instruction, spec: OpcodeSpec, gone: bool, code: MachineCode | None) -> Kind:
    pipe, quantity = _work(inst, spec)
    closes = pipe == "wait" or inst.opcode.startswith(("bra", "brx", "ret", "exit"))
    share = UNKNOWN if code is None else code.share(inst.index)
    return Kind(
        opcode=inst.opcode,
        pipe=pipe,
        quantity=quantity * share.work,
        ordered=spec.pipe in _VISIBLE or closes,
        closes=closes,
        folded=gone,
        literal=next((o.value for o in inst.operands if isinstance(o, Immediate)), 0),
        slots=share.slots,
        timed=gone or _timed(inst, spec),
    )


_VISIBLE = frozenset({Pipe.LSU, Pipe.TMA, Pipe.TENSOR, Pipe.TMEM, Pipe.BARRIER})
_WAITS = (
    "mbarrier.try_wait",
    "mbarrier.test_wait",
    "bar.sync",
    "barrier.sync",
    "bar.cta.sync",
    "barrier.cta.sync",
    "bar.red",
    "barrier.cluster.wait",
    "wgmma.wait_group",
    "tcgen05.wait",
    "cp.async.bulk.wait_group",
    "cp.async.wait",
)
_PIPES = {
    Pipe.ALU: "alu",
    Pipe.FMA: "fma",
    Pipe.MUFU: "mufu",
    Pipe.CONVERT: "convert",
    Pipe.SHUFFLE: "shuffle",
    Pipe.LSU: "lsu",
    Pipe.TMEM: "tmem",
}
_FAR = frozenset({"ld", "ldu", "atom", "red", "st"})
"""Families that may leave the SM."""
_UNTIMED = (
    "mma.sync",
    "atom.",
    "red.",
    "st.async",
    "cp.async.ca",
    "cp.async.cg",
    "cp.reduce",
    "tcgen05.cp",
    "tcgen05.shift",
    "tensormap",
    "multimem",
    "clusterlaunchcontrol.try_cancel",
    "nanosleep",
    "call",
    "griddepcontrol.wait",
)
"""What takes long in a way that the model knows nothing about."""


def _work(inst: Instruction, spec: OpcodeSpec) -> tuple[str, float]:
    """The pipe, and how much of what its rate is about one warp asks of it."""
    if inst.opcode.startswith(_WAITS):
        return "wait", 0.0
    pipe = _PIPES.get(spec.pipe, "control")
    if pipe == "lsu" and spec.mnemonic in _FAR and not _in_smem(inst):
        return ("control" if "param" in inst.parts else "global"), 0.0
    if pipe in {"tmem", "lsu"}:
        return pipe, float(registers_moved(inst) * LANES * REGISTER_BYTES)
    return pipe, float(LANES * (PAIR if pipe == "fma" and "f32x2" in inst.parts else 1))


def _in_smem(inst: Instruction) -> bool:
    return any(part.startswith("shared") for part in inst.parts)


def _timed(inst: Instruction, spec: OpcodeSpec) -> bool:
    if spec.pipe is Pipe.TENSOR and operand_bytes(inst.opcode) == 0.0:
        return False
    return not inst.opcode.startswith(_UNTIMED)


_WIDTHS = {
    "bf16": 2.0,
    "f16": 2.0,
    "kind::f16": 2.0,
    "tf32": 4.0,
    "kind::tf32": 4.0,
    "e4m3": 1.0,
    "e5m2": 1.0,
    "s8": 1.0,
    "u8": 1.0,
    "kind::f8f6f4": 1.0,
    "kind::i8": 1.0,
}


def operand_bytes(opcode: str) -> float:
    """Bytes of an element of A or B of an MMA, by its modifiers; 0 where they are not known.

    ``wgmma`` names the type of D before those of A and B. Of ``kind::f8f6f4`` all types are kept
    in bytes, and the tensor core takes them at the same rate.
    """
    found = [_WIDTHS[part] for part in opcode.split(".") if part in _WIDTHS]
    return found[-1] if found else 0.0


def reads_a_from_smem(inst: Instruction) -> bool:
    """Whether A of an MMA comes from shared memory, not from registers or tensor memory."""
    if inst.opcode.startswith("wgmma"):
        # Operands: D, then A as a vector of registers or as one descriptor.
        return len(inst.operands) > 1 and not isinstance(inst.operands[1], Vector)
    return len(inst.operands) > 1 and not isinstance(inst.operands[1], Address)
