"""The body of a kernel: statements to instructions, names resolved.

Source: PTX ISA 9.1, sections 4.3 (statements), 6.4.4 (labels), 9.7.12 (control flow).
"""

from __future__ import annotations

import re
from dataclasses import replace

from fa4gen.ptx.declarations import Head, declaration_kind, declare_registers, variables
from fa4gen.ptx.ir import (
    Entry,
    Guard,
    Instruction,
    Label,
    Operand,
    Origin,
    Register,
    Symbol,
    Variable,
    Vector,
)
from fa4gen.ptx.lexer import Mistake, Statement
from fa4gen.ptx.operands import called, converted, label, operand, predicate, split
from fa4gen.ptx.scopes import Scope

_INSTRUCTION = re.compile(
    r"(?:@\s*(!?)\s*([\w$%.]+)\s+)?([a-z]\w*(?:\s*(?:\.|::)\s*\w+)*)(?![\w$%.:])\s*(.*)",
    re.ASCII | re.DOTALL,
)
_BRACKET = re.compile(r"[{}\[\]()]")
_WIDE_FLOAT = re.compile(r"\d[.dDeE]|\.\d")
"""Whether a text may hold a float of 64 bits."""

_TARGETS = re.compile(r"\.branchtargets\b(.*)", re.DOTALL)
_REFUSED = re.compile(r"\.(callprototype|calltargets)\b")
_PRAGMA = re.compile(r"\.pragma\b")

_JUMPS = {
    "bra": (range(1, 2), "one label"),
    "brx": (range(2, 3), "an index and the name of a .branchtargets"),
    "call": (range(1, 5), "a function, its results before it and arguments behind it"),
}
"""Numbers of operands that they may have, and what these are."""


class Body:
    """An entry while its statements come in."""

    def __init__(self, head: Head, line: int, module: Scope) -> None:
        self.head, self.line = head, line
        self.depth = 1
        self._registers: list[Register] = []
        self._instructions: list[Instruction] = []
        self._jumps: list[tuple[int, Scope]] = []
        self._variables: list[Variable] = []
        self._names = {param.name for param in head.params}
        self._origins = 0
        self._origin: Origin | None = None
        self._last_label = ""
        outer = Scope(module, self._registers)
        for param in head.params:
            outer.add_variable(param.name, Symbol(param.name, "param"))
        self._scope = Scope(outer, self._registers)

    def take(self, statement: Statement) -> None:
        """The next statement; ``depth`` is 0 after the one that closes the body.

        Raises:
            Mistake: it makes no sense here.
        """
        kind, text, line = statement
        if kind == "instruction":
            self._instruction(text, line)
        elif kind == "label":
            self._label(text)
        elif kind == "declaration":
            self._declaration(text)
        elif kind == "open":
            self.depth += 1
            self._scope = Scope(self._scope, self._registers)
        elif kind == "close":
            self.depth -= 1
            self._scope = self._scope.parent or self._scope
        elif kind == "begin":
            self._origin = Origin(self._origins, line)
            self._origins += 1
        elif kind == "end":
            self._origin = None
        elif not text.startswith((".loc", ".file")):
            raise Mistake("a directive inside a body", text, "a declaration or an instruction")

    def entry(self) -> Entry:
        """The whole kernel, once ``depth`` is 0.

        Raises:
            PtxError: a branch to a label that its scope does not see.
        """
        for index, scope in self._jumps:
            jump = self._instructions[index]
            try:
                self._instructions[index] = replace(jump, operands=_resolved(jump, scope))
            except Mistake as mistake:
                raise mistake.at(jump.line) from None
        directives = dict(self.head.directives)
        threads = directives.pop("reqntid", None)
        minimum = directives.pop("minnctapersm", None)
        return Entry(
            name=self.head.name,
            params=self.head.params,
            instructions=tuple(self._instructions),
            registers=tuple(self._registers),
            variables=tuple(self._variables),
            reqntid=_triple(threads) if threads else None,
            minnctapersm=minimum[0] if minimum else None,
            line=self.line,
            directives=tuple(directives.items()),
        )

    def _instruction(self, text: str, line: int) -> None:
        match = _INSTRUCTION.fullmatch(text)
        if match is None:
            raise Mistake("an instruction", text, "[@[!]predicate] opcode operands;")
        turned, condition, opcode, rest = match.groups()
        opcode = "".join(opcode.split())
        scope = self._scope
        guard = Guard(predicate(condition, scope), turned == "!") if condition else None
        parts = split(rest) if _BRACKET.search(rest) else rest.split(",") if rest else []
        if opcode.partition(".")[0] in _JUMPS:
            operands = self._jump(opcode, parts)
        else:
            cache = scope.cache
            operands = tuple([cache.get(part) or operand(part, scope) for part in parts])
            if _WIDE_FLOAT.search(rest):
                operands = tuple(converted(each, opcode) for each in operands)
        index = len(self._instructions)
        self._instructions.append(Instruction(index, opcode, operands, line, guard, self._origin))

    def _jump(self, opcode: str, parts: list[str]) -> tuple[Operand, ...]:
        """Operands of ``bra``, ``brx.idx`` and ``call``; labels are resolved when all are known."""
        scope = self._scope
        kind = opcode.partition(".")[0]
        count, form = _JUMPS[kind]
        if len(parts) not in count:
            raise Mistake(opcode, ",".join(parts), form)
        if kind == "call":
            return tuple(called(part, scope) for part in parts)
        self._jumps.append((len(self._instructions), scope))
        *others, last = parts
        return *(operand(each, scope) for each in others), label(last)

    def _label(self, name: str) -> None:
        labels = self._scope.labels
        if name in labels:
            raise Mistake("a label defined twice", name, "one of that name in a scope")
        labels[name] = len(self._instructions)
        self._last_label = name

    def _declaration(self, text: str) -> None:
        if _PRAGMA.match(text):
            return
        if targets := _TARGETS.fullmatch(text):
            self._table(targets[1])
            return
        if _REFUSED.match(text):
            raise Mistake("an indirect call", text, "calls by name")
        kind, rest = declaration_kind(text)
        if kind.space == "reg":
            declare_registers(kind, rest, self._scope)
            return
        for variable in variables(kind, rest):
            name = variable.name
            kept = self._unique(variable)
            self._scope.add_variable(name, Symbol(kept.name, kept.space))

    def _table(self, text: str) -> None:
        """``name: .branchtargets a, b``, whose name was taken for a label."""
        if self._scope.labels.pop(self._last_label, None) is None:
            raise Mistake(".branchtargets", text, "a label in front of it")
        self._scope.tables[self._last_label] = tuple(label(part).name for part in text.split(","))

    def _unique(self, variable: Variable) -> Variable:
        """``variable`` under a name that no other of this entry has.

        The parameter areas of calls, ``{ .param .b64 param0; ... }``, repeat in scope after scope
        and are never alive together: equal ones are one variable. All else is renamed.
        """
        name, count = variable.name, 1
        alive = self._scope.has_variable(name)
        while variable.name in self._names:
            if variable.space == "param" and not alive and variable in self._variables:
                return variable
            count += 1
            variable = replace(variable, name=f"{name}_{count}")
        self._names.add(variable.name)
        self._variables.append(variable)
        return variable


def _triple(numbers: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape with the dimensions left out, which are 1."""
    x, y, z = (*numbers, 1, 1)[:3]
    return x, y, z


def _resolved(jump: Instruction, scope: Scope) -> tuple[Operand, ...]:
    """The operands of a branch with the targets filled in: a label, or a vector of them."""
    *others, last = jump.operands
    name = last.name if isinstance(last, Label) else ""
    if jump.parts[0] != "brx":
        return (_found(name, scope),)
    if (names := scope.table(name)) is None:
        raise Mistake(jump.opcode, name, "the name of a .branchtargets of this scope")
    return *others, Vector(tuple(_found(each, scope) for each in names))


def _found(name: str, scope: Scope) -> Label:
    target = scope.label(name)
    if target is None:
        raise Mistake("a branch to an unknown label", name, "a label of this scope or around it")
    return Label(name, target)
