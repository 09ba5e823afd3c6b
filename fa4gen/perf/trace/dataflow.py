"""From the tape of a warp to what the SM has to issue, and what each step waits for.

ptxas has moved instructions within straight-line code before the SM sees them, so the order of the
PTX is kept only where it has to be: at branches and waits, and among instructions that others can
see. In between an instruction needs its operands, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fa4gen.emulator.decode import Program
from fa4gen.emulator.registry import OpcodeSpec, Pipe
from fa4gen.perf.trace.tape import Job, WarpTape
from fa4gen.ptx.ir import Immediate, Instruction, Register, Sink, Vector

LANES, REGISTER_BYTES = 32, 4
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


@dataclass(slots=True)
class Step:
    """One instruction that a warp has executed."""

    kind: Kind
    operands: tuple[int, ...]
    """Steps of the same warp whose results it reads."""
    waits: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    jobs: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class WarpSteps:
    """The steps of one warp."""

    cta: int
    index: int
    steps: tuple[Step, ...]


def kinds_of(program: Program) -> tuple[Kind, ...]:
    """The kind of each instruction of a kernel."""
    alone = _only_addresses_of_tensor_memory(program)
    rows = zip(program.entry.instructions, program.specs, strict=True)
    return tuple(_kind(inst, spec, inst.index in alone) for inst, spec in rows)


def steps_of(tape: WarpTape, program: Program, kinds: tuple[Kind, ...]) -> WarpSteps:
    """The steps of a warp; what is folded hands its operands on."""
    makers: dict[int, tuple[int, ...]] = {}
    steps: list[Step] = []
    for position, code in enumerate(tape.code):
        kind = kinds[code]
        operands = tuple({each for slot in program.reads[code] for each in makers.get(slot, ())})
        if kind.folded:
            results = operands
        else:
            results = (len(steps),)
            steps.append(
                Step(
                    kind,
                    operands,
                    tuple(tape.waits.get(position, ())),
                    tuple(tape.signals.get(position, ())),
                    _distinct(tape.jobs.get(position, [])),
                )
            )
        for slot in program.writes[code]:
            # A guarded instruction leaves what was there in some lanes.
            guarded = program.entry.instructions[code].guard is not None
            makers[slot] = (*makers.get(slot, ()), *results) if guarded else results
    return WarpSteps(tape.cta, tape.index, tuple(steps))


def _distinct(jobs: list[Job]) -> tuple[Job, ...]:
    """Copies that all lanes of a warp ask for are one instruction of the uniform datapath."""
    if len(jobs) == LANES and len({(job.opcode, job.size) for job in jobs}) == 1:
        signals = [phase for job in jobs for phase in job.signals]
        return (Job(jobs[0].instruction, jobs[0].size, signals),)
    return tuple(jobs)


def _kind(inst: Instruction, spec: OpcodeSpec, addresses: bool) -> Kind:
    pipe, quantity = _work(inst, spec)
    closes = pipe == "wait" or inst.opcode.startswith(("bra", "brx", "ret", "exit"))
    return Kind(
        opcode=inst.opcode,
        pipe=pipe,
        quantity=quantity,
        ordered=spec.pipe in _VISIBLE or closes,
        closes=closes,
        folded=addresses or spec.pipe is Pipe.NONE or is_renaming(inst, spec),
        literal=next((o.value for o in inst.operands if isinstance(o, Immediate)), 0),
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


def _work(inst: Instruction, spec: OpcodeSpec) -> tuple[str, float]:
    """The pipe, and how much of what its rate is about one warp asks of it."""
    if inst.opcode.startswith(_WAITS):
        return "wait", 0.0
    pipe = _PIPES.get(spec.pipe, "control")
    if pipe in {"tmem", "lsu"}:
        return pipe, float(registers_moved(inst) * LANES * REGISTER_BYTES)
    return pipe, float(LANES * (PAIR if pipe == "fma" and "f32x2" in inst.parts else 1))


def registers_moved(inst: Instruction) -> int:
    """32-bit registers of each lane that a load or store moves."""
    total = 0.0
    for operand in inst.operands:
        items = operand.items if isinstance(operand, Vector) else (operand,)
        for item in items:
            if isinstance(item, Register):
                total += _WORDS.get(item.type, 0.0)
    return max(1, round(total))


_WORDS = {"b16": 0.5, "b32": 1.0, "b64": 2.0, "b128": 4.0}


def is_renaming(inst: Instruction, spec: OpcodeSpec) -> bool:
    """A ``mov`` between registers: also of two 32-bit ones to a pair and back."""
    if spec.mnemonic != "mov" or inst.guard is not None:
        return False
    return all(
        isinstance(item, Sink) or (isinstance(item, Register) and item.type not in {"b8", "b16"})
        for operand in inst.operands
        for item in (operand.items if isinstance(operand, Vector) else (operand,))
    )


def _only_addresses_of_tensor_memory(program: Program) -> frozenset[int]:
    """Sums with a constant that only ``tcgen05.ld`` and ``.st`` use: those have an offset."""
    users: dict[int, set[bool]] = {}
    for index, spec in enumerate(program.specs):
        for slot in program.reads[index]:
            users.setdefault(slot, set()).add(spec.mnemonic in {"tcgen05.ld", "tcgen05.st"})
    return frozenset(_sums(program, users))


def _sums(program: Program, users: dict[int, set[bool]]) -> Iterator[int]:
    for inst, spec in zip(program.entry.instructions, program.specs, strict=True):
        target = inst.operands[0] if inst.operands else None
        is_sum = spec.mnemonic == "add" and spec.pipe is Pipe.ALU and inst.guard is None
        if is_sum and isinstance(target, Register) and users.get(target.slot) == {True}:
            yield inst.index
