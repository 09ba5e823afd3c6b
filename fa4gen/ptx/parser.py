"""PTX text to the IR of :mod:`fa4gen.ptx.ir`.

Source: PTX ISA 9.1, sections 4 (syntax), 5 (state spaces and types), 11 (directives); the dialect
is what NVVM of CUDA 13 emits for CuTe-DSL.
"""

from __future__ import annotations

import re

from fa4gen.core.errors import PtxError
from fa4gen.ptx.body import Body
from fa4gen.ptx.declarations import declaration_kind, head, variables
from fa4gen.ptx.ir import Entry, Module, Symbol, Variable
from fa4gen.ptx.lexer import Mistake, Statement, statements
from fa4gen.ptx.scopes import Scope

_VERSION = re.compile(r"\.version\s+(\d+\.\d+)\s*")
_TARGET = re.compile(r"\.target\s+(\w+)\s*(?:,.*)?")
_ADDRESS_SIZE = re.compile(r"\.address_size\s+(\d+)\s*")
_HEADER = re.compile(r"(?:\.\w+\s+)*?\.(entry|func)\b(.*)([{;])", re.DOTALL)
_POINTER_BITS = "64"


def parse(text: str, *, target: str | None = None) -> Module:
    """The kernels and variables of one PTX file.

    Args:
        text: PTX 8.x as NVVM emits it; NUL bytes at its end are dropped.
        target: refuse PTX whose ``.target`` is another one than this, such as ``sm_90a``.

    Raises:
        PtxError: the text is truncated or no PTX, a statement or a name is not understood, or the
            PTX is for another target; the message gives the line and what was expected there.
    """
    reader = _Reader(target)
    for statement in statements(text):
        try:
            reader.take(statement)
        except Mistake as mistake:
            raise mistake.at(statement.line) from None
    return reader.module()


class _Reader:
    """A module while its statements come in."""

    def __init__(self, wanted: str | None) -> None:
        self._wanted = wanted
        self._version = self._target = ""
        self._entries: list[Entry] = []
        self._variables: list[Variable] = []
        self._scope = Scope(None, [])
        self._body: Body | None = None
        self._skipped = 0
        """Open braces of a function that is passed over."""

    def take(self, statement: Statement) -> None:
        """The next statement."""
        if self._body is not None:
            self._body.take(statement)
            if self._body.depth == 0:
                self._entries.append(self._body.entry())
                self._body = None
            return
        kind, text, line = statement
        if self._skipped:
            self._skipped += (kind == "open") - (kind == "close")
        elif kind == "line":
            self._directive(text)
        elif not self._version:
            raise Mistake("the start of the file", text, ".version")
        elif not self._target:
            raise Mistake("the second directive", text, ".target")
        elif kind == "header":
            self._header(text, line)
        elif kind == "declaration":
            self._declaration(text)
        elif kind not in {"section", "begin", "end"}:
            raise Mistake("outside of any entry", text, ".entry, .func or a variable")

    def module(self) -> Module:
        """The whole file.

        Raises:
            PtxError: it ends too early.
        """
        if self._body is not None:
            raise PtxError(
                f"PTX line {self._body.line}: the body of {self._body.head.name}: got the end of "
                f"the text with {self._body.depth} open '{{', expected as many '}}' (is the file "
                "truncated?)"
            )
        if not self._entries:
            raise PtxError("PTX: got a file without .entry, expected a kernel (is it truncated?)")
        return Module(self._version, self._target, tuple(self._entries), tuple(self._variables))

    def _directive(self, text: str) -> None:
        if match := _VERSION.fullmatch(text):
            self._version = match[1]
        elif not self._version:
            raise Mistake("the start of the file", text, ".version")
        elif match := _TARGET.fullmatch(text):
            self._target = match[1]
            if self._wanted not in {None, self._target}:
                raise Mistake(
                    ".target", self._target, f"{self._wanted!r}: compile the kernel for that one"
                )
        elif match := _ADDRESS_SIZE.fullmatch(text):
            if match[1] != _POINTER_BITS:
                raise Mistake(".address_size", match[1], _POINTER_BITS)
        elif not text.startswith((".file", ".loc")):
            raise Mistake("a directive", text, ".version 8.8, .target sm_90a or .address_size 64")

    def _header(self, text: str, line: int) -> None:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise Mistake("the head of a function", text, ".entry or .func")
        what, rest, last = match.groups()
        if what == "func":
            # Nothing runs a function that is not inlined: a call to it names it, and stops there.
            self._skipped = int(last == "{")
        elif last == ";":
            raise Mistake("an entry without a body", rest, "'{'")
        else:
            start = head(rest)
            if any(entry.name == start.name for entry in self._entries):
                raise Mistake("an entry defined twice", start.name, "a name of its own for each")
            self._body = Body(start, line, self._scope)

    def _declaration(self, text: str) -> None:
        if text.startswith((".pragma", ".alias")):
            return
        kind, rest = declaration_kind(text)
        if kind.space in {"reg", "param", "local"}:
            raise Mistake("a declaration outside of any entry", text, ".shared, .global or .const")
        for variable in variables(kind, rest):
            self._scope.add_variable(variable.name, Symbol(variable.name, variable.space))
            self._variables.append(variable)
