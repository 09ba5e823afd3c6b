"""A kernel decoded once: a closure for every instruction."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, replace

import numpy as np

from fa4gen.core.errors import PtxError
from fa4gen.emulator import instructions
from fa4gen.emulator.builder import Builder, Lanes, Modifiers, SlotPlan, unsupported
from fa4gen.emulator.registry import Op, OpcodeSpec, lookup
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.ptx.ir import Entry, Guard, Instruction, Label, Module, Special, Symbol

TARGETS = ("sm_90", "sm_90a", "sm_100", "sm_100a", "sm_100f", "sm_103a", "sm_103f")
"""Architectures whose instructions the emulator knows."""


_LEAVES = frozenset({"ret", "exit", "trap", "bra", "brx"})
"""Instructions that control does not pass, unless they are guarded."""


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel ready to run.

    Attributes:
        ops: For each instruction of the entry.
        specs: Its row of the opcode table.
        constants: Values of the slots that never change.
        environment: Slots that a starting warp fills, with their widths in bits.
        reads: For each instruction, the slots of the registers it reads, its guard's among them.
        writes: And those it writes.
    """

    module: Module
    entry: Entry
    ops: tuple[Op, ...]
    specs: tuple[OpcodeSpec, ...]
    num_slots: int
    constants: dict[int, Lanes]
    environment: dict[int, tuple[Special | Symbol, int]]
    reads: tuple[tuple[int, ...], ...] = ()
    writes: tuple[tuple[int, ...], ...] = ()


def decode(module: Module, name: str | None = None) -> Program:
    """Decode a kernel of ``module``: the one called ``name``, or its only one.

    Raises:
        PtxError: for an architecture that is not known, or no such kernel.
        UnsupportedInstruction: an opcode, modifier or operand that is not known.
    """
    if module.target not in TARGETS:
        raise PtxError(f".target: got {module.target}, emulated: {', '.join(TARGETS)}")
    names = [entry.name for entry in module.entries]
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise PtxError(f"kernel: got {name!r}, the PTX has: {', '.join(names) or 'none'}")
    entry = _with_an_end(module.entry(name))
    _load_instructions()
    plan = SlotPlan(entry)
    ops, specs, reads, writes = [], [], [], []
    for inst in entry.instructions:
        op, spec, builder = _decode_one(inst, plan)
        ops.append(op)
        specs.append(spec)
        reads.append(tuple(sorted(builder.reads)))
        writes.append(tuple(sorted(builder.writes)))
    plan.fill_undefined()
    return Program(
        module,
        entry,
        tuple(ops),
        tuple(specs),
        plan.count,
        plan.constants,
        plan.environment,
        tuple(reads),
        tuple(writes),
    )


def _with_an_end(entry: Entry) -> Entry:
    """``entry`` with a ``ret`` behind its text, if control can get there; ptxas adds one, too."""
    code = entry.instructions
    size = len(code)
    targets = {o.target for inst in code for o in inst.operands if isinstance(o, Label)}
    last = code[-1] if code else None
    falls = last is None or last.guard is not None or last.parts[0] not in _LEAVES
    if size not in targets and not falls:
        return entry
    end = Instruction(size, "ret", (), last.line if last else entry.line)
    return replace(entry, instructions=(*code, end))


def _decode_one(inst: Instruction, plan: SlotPlan) -> tuple[Op, OpcodeSpec, Builder]:
    parts = inst.parts
    spec = lookup(parts)
    if spec is None:
        raise unsupported(inst, "the opcode is not known")
    mods = Modifiers(parts[spec.mnemonic.count(".") + 1 :])
    builder = Builder(inst, mods, plan)
    op = spec.build(builder)
    if mods.left:
        raise unsupported(
            inst, f"got the modifier .{mods.left[0]}, which {spec.mnemonic} does not know"
        )
    if builder.pipe is not None and builder.pipe is not spec.pipe:
        spec = replace(spec, pipe=builder.pipe)
    if inst.guard is not None and not spec.own_guard:
        op = _guarded(op, inst.guard)
    return op, spec, builder


def _guarded(op: Op, guard: Guard) -> Op:
    """``op`` for the lanes whose predicate holds."""
    slot, negated = guard.register.slot, guard.negated

    def run(warp: Warp) -> int | Signal | None:
        chosen = warp.regs[slot]
        if negated:
            chosen = ~chosen
        outer = warp.mask
        if outer is not None:
            chosen = chosen & outer
        if not chosen.any():
            return None
        if chosen.all():
            return op(warp)
        warp.mask = np.asarray(chosen)
        try:
            return op(warp)
        finally:
            warp.mask = outer

    return run


def _load_instructions() -> None:
    """Import every family, so that the table is full."""
    for found in pkgutil.iter_modules(instructions.__path__):
        importlib.import_module(f"{instructions.__name__}.{found.name}")
