"""A warp: 32 lanes that share a program counter until a branch parts them.

Lanes that part become paths. The path that is furthest behind runs first, and paths that meet at
one instruction become one again; an instruction that needs the whole warp waits for the others
there. That reconverges structured code without looking at its structure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import KernelFault
from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.pending import UNSET, Absent, AbsentValueError, InFlight
from fa4gen.ptx.ir import Instruction, Register, Vector

if TYPE_CHECKING:
    from fa4gen.emulator.clocks import Agent
    from fa4gen.emulator.decode import Program
    from fa4gen.emulator.machine import Cta

Mask = npt.NDArray[np.bool_]
LANES = 32
_ALL = np.ones(LANES, bool)


class Signal:
    """What an operation returns when the warp cannot simply go on."""


class _Diverged(Signal):
    """The warp's lanes have parted; see :meth:`Warp.diverge`."""


class _Exit(Signal):
    """The active lanes have ended."""


DIVERGED, EXIT = _Diverged(), _Exit()


class Wait(Signal, ABC):
    """The active lanes wait.

    Attributes:
        retry: Whether the instruction is executed again when the wait is over; otherwise the
            lanes go on behind it.
        times_out: Whether hardware lets the instruction give up (``try_wait``): when nothing else
            can go on, it is executed again with ``warp.timed_out`` set.
    """

    retry = True
    times_out = False

    @abstractmethod
    def ready(self) -> bool:
        """Whether the wait is over."""

    @abstractmethod
    def describe(self) -> str:
        """What is waited for, with its state: for the report of a deadlock."""


class _OtherLanes(Wait):
    """For the rest of the warp to come to this instruction; ends by paths meeting there."""

    def ready(self) -> bool:
        return False

    def describe(self) -> str:
        return "the other lanes of its warp to come here"


class Path:
    """Lanes of a warp that are together."""

    __slots__ = ("mask", "pc", "wait")

    def __init__(self, pc: int, mask: Mask, wait: Wait | None) -> None:
        self.pc, self.mask, self.wait = pc, mask, wait

    @property
    def mergeable(self) -> bool:
        """Whether others that arrive at ``pc`` may join: not while a wait behind it is on."""
        return self.wait is None or self.wait.retry

    @property
    def runnable(self) -> bool:
        return self.wait is None or self.wait.ready()


class Warp:
    """One warp of a CTA.

    Attributes:
        regs: A value for every slot: see :data:`fa4gen.emulator.builder.Lanes`. Values are never
            changed in place, so slots may share them.
        mask: Active lanes; ``None`` for all 32.
        others: Paths besides the running one.
        alive: Lanes that exist and have not ended.
        counts: How often each instruction was executed.
        agent: What the warp has observed of others' work.
        state: Room for instruction families to keep what is theirs (wgmma groups, bulk groups...),
            by family name.
    """

    def __init__(self, cta: Cta, index: int, program: Program, lanes: int) -> None:
        self.cta: Cta = cta
        self.index: int = index
        self.program: Program = program
        self.alive: Mask = np.arange(LANES) < lanes
        self.mask: Mask | None = None if lanes == LANES else self.alive.copy()
        self.regs: list[Any] = [UNSET] * program.num_slots
        self.pc = 0
        self.wait: Wait | None = None
        self.others: list[Path] = []
        self.counts = [0] * len(program.ops)
        self.history: list[int] | None = None
        self.timed_out = False
        self.done = False
        self.state: dict[str, Any] = {}
        self.agent: Agent = cta.cluster.clocks.agent()

    # ---- for operations -------------------------------------------------------------------------

    def active(self) -> Mask:
        """Which lanes execute: ``(32,)`` bool."""
        return _ALL if self.mask is None else self.mask

    def lanes(self) -> list[int]:
        """The active lanes, lowest first."""
        return list(range(LANES)) if self.mask is None else np.flatnonzero(self.mask).tolist()

    def first(self) -> int:
        """The lowest active lane."""
        return 0 if self.mask is None else int(self.mask.argmax())

    def scalar(self, slot: int) -> int:
        """The value of a register in the lowest active lane."""
        return int(self.regs[slot][self.first()])

    def uniform(self, slot: int, what: str) -> int:
        """The value of a register that all active lanes must agree on.

        Raises:
            KernelFault: they do not.
        """
        values = self.regs[slot] if self.mask is None else self.regs[slot][self.mask]
        if (values != values[0]).any():
            raise self.fault(f"{what}: got {sorted(set(values.tolist()))[:4]}, must be one value")
        return int(values[0])

    def write(self, slot: int, value: Any) -> None:
        """Give a register its new value in the active lanes; slot -1 is ``_``."""
        if slot < 0:
            return
        if self.mask is not None:
            old = self.regs[slot]
            if isinstance(old, Absent):
                if isinstance(old, InFlight):
                    raise AbsentValueError(old)
                old = np.zeros_like(value)
            mask = self.mask if value.ndim == 1 else self.mask[:, None]
            value = np.where(mask, value, old)
        self.regs[slot] = value

    def together(self, members: int = 0xFFFFFFFF) -> Wait | None:
        """``None`` if all living lanes of ``members`` are active, else the wait to return."""
        if not self.others:
            return None
        wanted = self.alive & (((members >> np.arange(LANES)) & 1) == 1)
        return _OtherLanes() if (wanted & ~self.active()).any() else None

    def diverge(self, taken: Mask, target: int, following: int) -> Signal:
        """Part: ``taken``, some active lanes, go to ``target``, the rest to ``following``."""
        rest = self.active() & ~taken
        self.others.append(Path(target, taken, None))
        self.pc, self.mask = following, rest
        return DIVERGED

    def fault(self, message: str) -> KernelFault:
        """An error that ends the run, with the place of the running instruction."""
        return located(KernelFault(message), self.place())

    def report(self, kind: FindingKind, message: str, other: Place | None = None) -> None:
        """Note something wrong that does not end the run."""
        self.cta.cluster.report(kind, message, self.place(), other)

    def place(self) -> Place:
        """Where the warp is."""
        return Place(self.cta.linear_index, self.index, self.instruction)

    @property
    def instruction(self) -> Instruction:
        """The running instruction."""
        return self.program.entry.instructions[self.pc]

    # ---- for the scheduler ----------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether any of its paths can go on."""
        if self.done:
            return False
        if self.wait is None or self.wait.ready():
            return True
        return any(path.runnable for path in self.others)

    def run(self, fuel: int) -> int:
        """Execute until it blocks, ends or ``fuel`` instructions are done.

        Returns:
            How many were executed.
        """
        start, ops, counts, history = fuel, self.program.ops, self.counts, self.history
        if not self._select():
            return 0
        while fuel > 0:
            fuel -= 1
            pc = self.pc
            try:
                result = ops[pc](self)
            except (AbsentValueError, TypeError, AttributeError) as error:
                self._deliver(error)
                continue
            except KernelFault as error:
                raise located(error, self.place()) from error
            counts[pc] += 1
            if history is not None:
                history.append(pc)
            if result is None:
                self.pc = pc + 1
            elif result.__class__ is int:
                self.pc = result
            elif not self._obey(result):
                break
            if self.others and not self._select():
                break
        return start - fuel

    def time_out(self) -> bool:
        """Let a path whose wait may give up go on; ``False`` if there is none."""
        for _ in range(len(self.others) + 1):
            if self.wait is not None and self.wait.times_out:
                self.wait, self.timed_out = None, True
                return True
            if self.others:
                self.others.append(Path(self.pc, self.active(), self.wait))
                self._become(self.others.pop(0))
        return False

    def waits(self) -> list[tuple[Instruction, Wait]]:
        """What its paths wait for."""
        paths = [Path(self.pc, self.active(), self.wait), *self.others]
        code = self.program.entry.instructions
        return [(code[p.pc - (not p.wait.retry)], p.wait) for p in paths if p.wait is not None]

    def _obey(self, signal: object) -> bool:
        """Wait, end or part as an operation says; ``False`` if the whole warp stops here."""
        if isinstance(signal, Wait):
            if signal.retry:
                self.counts[self.pc] -= 1  # it will be executed again
                if self.history is not None:
                    self.history.pop()
            else:
                self.pc += 1
            self.wait = signal
            return self._select()
        if signal is EXIT:
            self.alive = self.alive & ~self.active()
            return self._next_path()
        return True

    def _become(self, path: Path) -> None:
        self.pc, self.wait = path.pc, path.wait
        self.mask = None if path.mask.all() else path.mask

    def _next_path(self) -> bool:
        """Leave the running path, which has ended, for another."""
        if not self.others:
            self.done = True
            return False
        self._become(self.others.pop(0))
        return True

    def _select(self) -> bool:
        """Make the path that is furthest behind and can go on the running one, met paths joined."""
        if not self.others:
            if self.wait is not None and not self.wait.ready():
                return False
            self.wait = None
            return True
        paths: list[Path] = []
        for path in [Path(self.pc, self.active(), self.wait), *self.others]:
            for other in paths:
                if other.pc == path.pc and other.mergeable and path.mergeable:
                    other.mask, other.wait = other.mask | path.mask, None
                    break
            else:
                paths.append(path)
        chosen = min((p for p in paths if p.runnable), key=lambda p: p.pc, default=None)
        found = chosen is not None
        chosen = chosen or paths[0]
        paths.remove(chosen)
        self.others = paths
        self._become(chosen)
        if found:
            self.wait = None
        return found

    def _deliver(self, error: Exception) -> None:
        """Have the values brought that the instruction wants, or say which is missing.

        Raises:
            KernelFault: a register was used before it was written or delivered.
        """
        absent = [
            (operand, self.regs[operand.slot])
            for operand in _registers(self.instruction)
            if isinstance(self.regs[operand.slot], Absent)
        ]
        flights = [(o.slot, value) for o, value in absent if isinstance(value, InFlight)]
        if flights:
            for slot, value in flights:
                self.regs[slot] = value.owner.deliver(self, value)
            return
        if absent:
            # The first operand is as a rule what the instruction writes.
            read = [operand for operand, _ in absent if operand != self.instruction.operands[0]]
            names = ", ".join(dict.fromkeys(o.name for o in read or [absent[0][0]]))
            raise self.fault(f"{names}: read before anything wrote it") from error
        raise error


def located(error: KernelFault, place: Place) -> KernelFault:
    """``error`` with where it happened, unless it says so already."""
    text = str(error)
    return error if "\n  at " in text else KernelFault(f"{text}\n  at {place}")


def _registers(inst: Instruction) -> list[Register]:
    found: list[Register] = [inst.guard.register] if inst.guard else []
    todo: list[Any] = list(inst.operands)
    while todo:
        operand = todo.pop()
        if isinstance(operand, Register):
            found.append(operand)
        elif isinstance(operand, Vector):
            todo += operand.items
        else:
            todo += [
                getattr(operand, name)
                for name in ("base", "register", "first", "second")
                if hasattr(operand, name)
            ]
            todo += getattr(operand, "coordinates", ())
    return found
