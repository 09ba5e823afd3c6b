"""Names for printing an entry, and the braces that let scopes share them.

The IR tells registers apart by slot and labels by target, and keeps no ``{ }``. Here they are
inferred: what shares its name with others gets braces round all its uses, if no other use of that
name and no label wanted from outside falls between them. Of the rest one keeps the name and the
others get a suffix; so does what is called like a variable, which are all printed first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from fa4gen.ptx.ir import (
    Address,
    Entry,
    Instruction,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Vector,
)

Key = int | tuple[str, int]
"""A register by slot, or a label by name and target."""


@dataclass(slots=True)
class Bearer:
    """A register or label, and where it is used."""

    key: Key
    name: str
    type: str
    """Of a register; empty for a label."""
    uses: list[int] = field(default_factory=list)
    """Indices of instructions, ascending."""

    @property
    def start(self) -> int:
        """Index of the first instruction that must see it."""
        return self.uses[0] if isinstance(self.key, int) else min(self.uses[0], self.key[1])

    @property
    def end(self) -> int:
        """One past the last; a label may stand there."""
        last = self.uses[-1] + 1
        return last if isinstance(self.key, int) else max(last, self.key[1])


@dataclass(slots=True)
class Brace:
    """``{ }`` round the instructions from ``start`` to ``end``, exclusive."""

    start: int
    end: int
    owned: list[Bearer]
    """What is declared inside."""


class Naming:
    """What to call every register and label of an entry, and where to declare it."""

    def __init__(self, entry: Entry, reserved: Collection[str]) -> None:
        """``reserved``: names of variables, which no register may take."""
        self.braces: list[Brace] = []
        """In order; none overlaps another."""
        self.outside: list[Bearer] = []
        """Declared for the whole body."""
        self._names: dict[Key, str] = {}
        bearers = _bearers(entry)
        namesakes: dict[tuple[str, bool], list[Bearer]] = defaultdict(list)
        for bearer in bearers:
            namesakes[bearer.name, bool(bearer.type)].append(bearer)
        self._uses = {
            identity: sorted(use for bearer in group for use in bearer.uses)
            for identity, group in namesakes.items()
        }
        self._labels = sorted((b for b in bearers if not b.type), key=_target)
        shared = [
            bearer
            for (name, _), group in namesakes.items()
            if len(group) > 1 and name not in reserved
            for bearer in group
        ]
        # The short ones first: what spans most of a kernel belongs outside.
        inside = {b.key for b in sorted(shared, key=lambda b: b.end - b.start) if self._enclose(b)}
        self._taken = {bearer.name for bearer in bearers} | set(reserved)
        for (name, _), group in namesakes.items():
            spread = [bearer for bearer in group if bearer.key not in inside]
            renamed = spread if name in reserved else spread[1:]
            self._names |= {bearer.key: name for bearer in group}
            self._names |= {bearer.key: self.fresh(name) for bearer in renamed}
            self.outside += spread

    def __getitem__(self, key: Key) -> str:
        return self._names[key]

    @property
    def names(self) -> Collection[str]:
        """All names, of registers and of labels."""
        return self._names.values()

    def fresh(self, name: str) -> str:
        """``name``, with a suffix if need be that makes it new."""
        stem, dot, axis = name.partition(".")
        new, count = name, 1
        while new in self._taken:
            count += 1
            new = f"{stem}_{count}{dot}{axis}"
        self._taken.add(new)
        return new

    def _enclose(self, bearer: Bearer) -> bool:
        """Put ``bearer`` into braces, merged with those it overlaps, if that is legal."""
        first = bisect_right(self.braces, bearer.start, key=lambda brace: brace.end)
        last = bisect_left(self.braces, bearer.end, key=lambda brace: brace.start)
        merged = Brace(bearer.start, bearer.end, [bearer])
        for brace in self.braces[first:last]:
            merged.start = min(merged.start, brace.start)
            merged.end = max(merged.end, brace.end)
            merged.owned += brace.owned
        if not self._legal(merged):
            return False
        self.braces[first:last] = [merged]
        return True

    def _legal(self, brace: Brace) -> bool:
        """Whether every use in the braces and of what they hold still finds the same thing."""
        for bearer in brace.owned:
            uses = self._uses[bearer.name, bool(bearer.type)]
            within = bisect_left(uses, brace.end) - bisect_left(uses, brace.start)
            if within != len(bearer.uses):
                return False
        first = bisect_right(self._labels, brace.start, key=_target)
        last = bisect_left(self._labels, brace.end, key=_target)
        return all(
            brace.start <= label.start and label.end <= brace.end
            for label in self._labels[first:last]
        )


def _target(label: Bearer) -> int:
    return label.key if isinstance(label.key, int) else label.key[1]


def _bearers(entry: Entry) -> list[Bearer]:
    """Every register and label that an instruction names, in order of the first use."""
    found: dict[Key, Bearer] = {}
    for each in entry.instructions:
        for operand in _named(each):
            if isinstance(operand, Register):
                key: Key = operand.slot
                kind = operand.type
            else:
                key, kind = (operand.name, operand.target), ""
            bearer = found.setdefault(key, Bearer(key, operand.name, kind))
            bearer.uses.append(each.index)
    return list(found.values())


def _named(each: Instruction) -> Iterator[Register | Label]:
    if each.guard is not None:
        yield each.guard.register
    for operand in each.operands:
        yield from _leaves(operand)


def _leaves(operand: Operand) -> Iterator[Register | Label]:
    match operand:
        case Register() | Label():
            yield operand
        case Vector():
            for item in operand.items:
                yield from _leaves(item)
        case Pair():
            yield from _leaves(operand.first)
            yield from _leaves(operand.second)
        case Negated():
            yield operand.register
        case Address():
            yield from _leaves(operand.base)
            for item in operand.coordinates:
                yield from _leaves(item)
        case _:
            return
