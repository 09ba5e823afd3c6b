"""Drawing mutants, judging them, and what is known of those that nothing notices."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from mutation.code import Mutant
from mutation.edits import apply
from mutation.equivalence import equivalence
from mutation.machine import MORE_TRIALS, Machine, Verdict, machine
from mutation.operators import OPERATORS

ARGUMENTS = Path(__file__).with_name("arguments.toml")


@dataclass(frozen=True)
class Drawn:
    """The mutants of one operator on one kernel.

    Attributes:
        sites: How many there are.
        executed: How many change an instruction that the good kernel executes.
        mutants: A sample of these.
    """

    operator: str
    kernel: str
    sites: int
    executed: int
    mutants: tuple[Mutant, ...]


@dataclass(frozen=True)
class Outcome:
    """One mutant after the emulator has seen it.

    Attributes:
        equivalent: Why it behaves as the good kernel; empty if there is no reason to think so.
        by_hand: Whether the reason is one of :data:`ARGUMENTS` and not a rule's.
        limit: For a survivor that is not equivalent: which limit of the emulator it shows.
    """

    mutant: Mutant
    verdict: Verdict
    equivalent: str = ""
    by_hand: bool = False
    limit: str = ""

    @property
    def survives(self) -> bool:
        """Whether it changes what the kernel does (for all that is known), unnoticed."""
        return not self.verdict.noticed and not self.equivalent


@dataclass(frozen=True)
class Part:
    """Outcomes of one operator on one kernel."""

    drawn: Drawn
    outcomes: tuple[Outcome, ...]


def draw(operator: str, kernel: str, count: int, seed: int) -> Drawn:
    """A sample of ``count`` executed mutants of an operator on a kernel; all if there are fewer.

    The same seed draws the same mutants, whatever else is drawn.
    """
    good = machine(kernel)
    changes = list(OPERATORS[operator](good.code))
    executed = [n for n, change in enumerate(changes) if good.reached(change.site)]
    chosen = random.Random(f"{seed}:{operator}:{kernel}")
    picked = sorted(chosen.sample(executed, min(count, len(executed))))
    mutants = tuple(
        Mutant(operator, kernel, n, changes[n].site, changes[n].what, changes[n].edit)
        for n in picked
    )
    return Drawn(operator, kernel, len(changes), len(executed), mutants)


def examine(mutant: Mutant) -> Outcome:
    """Emulate a mutant; if nothing notices it, look for a reason why it should not be noticed."""
    good = machine(mutant.kernel)
    module = apply(good.code.module, mutant.edit)
    verdict = good.judge(module)
    if verdict.notice:
        return Outcome(mutant, verdict)
    if reason := equivalence(good, mutant):
        return Outcome(mutant, verdict, reason)
    verdict = good.judge(module, MORE_TRIALS)
    if verdict.notice:
        return Outcome(mutant, verdict)
    for argument in _arguments(good):
        if argument.covers(mutant):
            if argument.limit:
                return Outcome(mutant, verdict, limit=argument.reason)
            return Outcome(mutant, verdict, argument.reason, by_hand=True)
    return Outcome(mutant, verdict)


def run_part(operator: str, kernel: str, count: int, seed: int) -> Part:
    """Draw and examine."""
    drawn = draw(operator, kernel, count, seed)
    return Part(drawn, tuple(examine(mutant) for mutant in drawn.mutants))


@dataclass(frozen=True)
class Argument:
    """What was found out by hand about mutants of one kernel.

    Attributes:
        ptx: :func:`digest` of the PTX that it is about: another compiler numbers other lines.
        lines: PTX lines of the instructions that are changed.
        limit: Whether the mutants are wrong, and the emulator does not see it.
    """

    kernel: str
    ptx: str
    operators: frozenset[str]
    lines: frozenset[int]
    reason: str
    limit: bool

    def covers(self, mutant: Mutant) -> bool:
        """Whether it speaks of ``mutant``."""
        return mutant.operator in self.operators and mutant.site.line in self.lines


@lru_cache(maxsize=1)
def all_arguments() -> tuple[Argument, ...]:
    """What :data:`ARGUMENTS` says."""
    entries = tomllib.loads(ARGUMENTS.read_text(encoding="utf-8"))["argument"]
    return tuple(
        Argument(
            entry["kernel"],
            entry["ptx"],
            frozenset(entry["operators"]),
            frozenset(entry["lines"]),
            " ".join(entry["reason"].split()),
            entry.get("limit", False),
        )
        for entry in entries
    )


@lru_cache(maxsize=4)
def _arguments(good: Machine) -> tuple[Argument, ...]:
    name, ptx = good.bench.name, digest(good)
    return tuple(each for each in all_arguments() if (each.kernel, each.ptx) == (name, ptx))


def digest(good: Machine) -> str:
    """Names the text of the kernel's PTX."""
    return sha256((good.bench.launch.ptx or "").encode()).hexdigest()[:12]


def outcomes(parts: list[Part]) -> Iterator[Outcome]:
    """All outcomes of several parts."""
    for part in parts:
        yield from part.outcomes


def share_noticed(parts: list[Part]) -> float:
    """Of the mutants that are not equivalent, the share that was noticed."""
    real = [each for each in outcomes(parts) if not each.equivalent]
    return sum(each.verdict.noticed for each in real) / max(len(real), 1)
