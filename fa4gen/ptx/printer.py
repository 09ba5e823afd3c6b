"""The IR back as PTX text, for reports and for editing kernels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from fa4gen.ptx.ir import (
    Address,
    Entry,
    Immediate,
    Instruction,
    Label,
    Module,
    Negated,
    Operand,
    Origin,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)
from fa4gen.ptx.naming import Bearer, Brace, Naming
from fa4gen.ptx.operands import F32

_AXES = "xyzw"
_DIGITS = "0123456789"
_COUNT = re.compile(r"0|[1-9][0-9]{0,6}")
"""A number that ``%r<count>`` can declare."""
_BEGIN, _END = "\t// begin inline asm", "\t// end inline asm"


def to_text(module: Module) -> str:
    """``module`` as PTX.

    ``parse(to_text(module))`` is ``module`` again, but for line numbers, and for the names of
    registers and labels that share a name and that no braces can tell apart: all of these but one
    get a suffix. What the IR does not keep is gone: pragmas, debug lines, the types of parameters.
    """
    lines = [f".version {module.version}", f".target {module.target}", ".address_size 64", ""]
    lines += [f"{_variable(variable)};" for variable in module.variables]
    for entry in module.entries:
        lines += ["", *_entry(entry, {variable.name for variable in module.variables})]
    return "\n".join(lines) + "\n"


def _entry(entry: Entry, outside: set[str]) -> Iterator[str]:
    yield f".visible .entry {entry.name}("
    yield ",\n".join(f"\t{_variable(param)}" for param in entry.params)
    yield ")"
    if entry.reqntid:
        yield f".reqntid {_numbers(entry.reqntid)}"
    if entry.minnctapersm is not None:
        yield f".minnctapersm {entry.minnctapersm}"
    for name, values in entry.directives:
        yield f".{name} {_numbers(values)}".rstrip()
    yield "{"
    yield from _Body(entry, outside).lines()
    yield "}"


def _variable(variable: Variable) -> str:
    """A declaration as bytes, whatever the type was."""
    linkage = ".extern " if variable.is_extern else ""
    count = "" if variable.is_extern and not variable.size else variable.size
    initial = f" = {{{_numbers(variable.initial)}}}" if variable.initial else ""
    kind = f".{variable.space} .align {variable.align} .b8"
    return f"{linkage}{kind} {variable.name}[{count}]{initial}"


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _literal(value: Immediate) -> str:
    if not value.is_float:
        return str(value.value)
    return f"0f{value.value:08X}" if value.bits == F32 else f"0d{value.value:016X}"


def _declarations(
    declared: Iterable[tuple[str, str]], ranges: bool, taken: Collection[str]
) -> Iterator[str]:
    """``.reg`` lines for names and types; with ``ranges``, ``%r<9>`` for ``%r0`` to ``%r8``.

    A range declares its gaps as well: there is none where a gap is one of the names ``taken``.
    """
    numbered: dict[str, dict[str, str]] = defaultdict(dict)
    plain: dict[str, list[str]] = defaultdict(list)
    elements: dict[tuple[str, str], int] = defaultdict(int)
    for name, kind in declared:
        stem, dot, axis = name.partition(".")
        prefix = name.rstrip(_DIGITS)
        number = name[len(prefix) :]
        if dot:
            elements[kind, stem] = max(elements[kind, stem], _AXES.index(axis))
        elif ranges and name.startswith("%") and _COUNT.fullmatch(number):
            numbered[prefix][name] = kind
        else:
            plain[kind].append(name)
    for prefix, names in numbered.items():
        kinds = set(names.values())
        count = 1 + max(int(name.removeprefix(prefix)) for name in names)
        gaps = (name for i in range(count) if (name := f"{prefix}{i}") not in names)
        if len(kinds) == 1 and not any(gap in taken for gap in gaps):
            yield f"\t.reg .{kinds.pop()} {prefix}<{count}>;"
        else:
            yield from (f"\t.reg .{kind} {name};" for name, kind in names.items())
    for kind, names_of_kind in plain.items():
        yield f"\t.reg .{kind} {', '.join(names_of_kind)};"
    for (kind, stem), last in elements.items():
        length = 2 if last < _AXES.index("z") else 4
        yield f"\t.reg .v{length} .{kind} {stem};"


class _Body:
    """The body of an entry while it is printed."""

    def __init__(self, entry: Entry, outside: set[str]) -> None:
        reserved = outside | {variable.name for variable in (*entry.params, *entry.variables)}
        self._entry = entry
        self._naming = Naming(entry, reserved)
        self._ranges = not any(name.startswith("%") for name in reserved)
        self._taken = frozenset(self._naming.names)
        self._starts = {brace.start: brace for brace in self._naming.braces}
        self._outside: dict[int, list[Bearer]] = defaultdict(list)
        """Labels outside of all braces, by target."""
        for bearer in self._naming.outside:
            if not isinstance(bearer.key, int):
                self._outside[bearer.key[1]].append(bearer)
        self._blocks = 0
        """Blocks of inline assembly so far."""

    def lines(self) -> Iterator[str]:
        """The text between the outer braces."""
        for variable in self._entry.variables:
            yield f"\t{_variable(variable)};"
        yield from self._registers(self._naming.outside)
        origin: Origin | None = None
        brace: Brace | None = None
        for each in self._entry.instructions:
            if brace is not None and brace.end == each.index:
                yield from self._close(brace)
                brace = None
            if each.origin != origin:
                yield from self._marks(origin, each.origin)
                origin = each.origin
            yield from self._labels(self._outside[each.index], each.index)
            if found := self._starts.get(each.index):
                brace = found
                yield "\t{"
                yield from self._registers(brace.owned)
            if brace is not None:
                yield from self._labels(brace.owned, each.index)
            yield from self._instruction(each)
        if brace is not None:
            yield from self._close(brace)
        yield from self._marks(origin, None)
        end = len(self._entry.instructions)
        yield from self._labels(self._outside[end], end)

    def _marks(self, old: Origin | None, new: Origin | None) -> Iterator[str]:
        """The comments between two origins, with the blocks that hold no instruction."""
        if old is not None:
            yield _END
        if new is not None:
            for _ in range(self._blocks, new.number):
                yield from (_BEGIN, _END)
            self._blocks = new.number + 1
            yield _BEGIN

    def _close(self, brace: Brace) -> Iterator[str]:
        yield from self._labels(brace.owned, brace.end)
        yield "\t}"

    def _labels(self, bearers: list[Bearer], index: int) -> Iterator[str]:
        here = (b.key for b in bearers if not isinstance(b.key, int) and b.key[1] == index)
        return (f"{self._naming[key]}:" for key in here)

    def _registers(self, bearers: list[Bearer]) -> Iterator[str]:
        declared = [(self._naming[b.key], b.type) for b in bearers if b.type]
        return _declarations(declared, self._ranges, self._taken)

    def _instruction(self, each: Instruction) -> Iterator[str]:
        kind = each.parts[0]
        if kind == "call":
            text = ", ".join(self._argument(operand) for operand in each.operands)
        else:
            text = ", ".join(self._operand(operand) for operand in each.operands)
        if kind == "brx":
            table = self._naming.fresh(f"$targets_{each.index}")
            index, targets = each.operands
            yield f"{table}: .branchtargets {self._operand(targets)[1:-1]};"
            text = f"{self._operand(index)}, {table}"
        guard = ""
        if each.guard is not None:
            turned = "!" if each.guard.negated else ""
            guard = f"@{turned}{self._operand(each.guard.register)} "
        yield f"\t{guard}{each.opcode} {text}".rstrip() + ";"

    def _argument(self, operand: Operand) -> str:
        """An operand of a call, where round brackets hold lists."""
        text = self._operand(operand)
        return f"({text[1:-1]})" if isinstance(operand, Vector) else text

    def _operand(self, operand: Operand) -> str:
        match operand:
            case Register():
                return self._naming[operand.slot]
            case Label():
                return self._naming[operand.name, operand.target]
            case Immediate():
                return _literal(operand)
            case Special() | Symbol():
                return operand.name
            case Sink():
                return "_"
            case _:
                return self._compound(operand)

    def _compound(self, operand: Vector | Pair | Negated | Address) -> str:
        match operand:
            case Vector():
                return self._list(operand.items)
            case Pair():
                return f"{self._operand(operand.first)}|{self._operand(operand.second)}"
            case Negated():
                return f"!{self._operand(operand.register)}"
            case Address():
                text = self._operand(operand.base)
                text += f"+{operand.offset}" if operand.offset else ""
                text += f", {self._list(operand.coordinates)}" if operand.coordinates else ""
                return f"[{text}]"

    def _list(self, items: tuple[Operand, ...]) -> str:
        return f"{{{', '.join(map(self._operand, items))}}}"
