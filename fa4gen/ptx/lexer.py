"""PTX text cut into statements, comments removed.

Comments carry no meaning but two: ``// begin inline asm`` and ``// end inline asm``, which NVVM
puts round every block of inline assembly. They become statements of their own; all others turn
into blanks, line for line, so that line numbers hold.

Source of the lexical rules: PTX ISA 9.1, sections 4.1 to 4.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from fa4gen.core.errors import PtxError

_SHOWN = 90
"""Characters of an offending text that an error repeats."""

_BEGIN, _END = "\x01", "\x02"
"""Stand for the two meaningful comments; :func:`statements` refuses text that has control bytes."""

_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_MARKER = re.compile(r"//\s*(begin|end)\s+inline\s+asm\b")
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")
_ELF = "\x7fELF"

_STATEMENT = re.compile(
    r"""
      (?P<label> [A-Za-z_$%][\w$]* ) \s* : (?!:)
    | (?P<instruction> [@A-Za-z_] [^;\x01\x02"]* ) ;
    | (?P<open> \{ )
    | (?P<close> \} )
    | (?P<begin> \x01 )
    | (?P<end> \x02 )
    | (?P<line> \.(?:version|target|address_size|file|loc)\b [^\n]* )
    | (?P<section> \.section\b [^{;]* \{ [^}]* \} )
    | (?P<header> (?:\.(?:visible|extern|weak|common)\s+)* \.(?:entry|func)\b
                  [^{;"]* (?:"[^"]*"\s*;?[^{;"]*)* [{;] )
    | (?P<declaration> \. [^;"\x01\x02]* (?:"(?:\\.|[^"\\])*"[^;"\x01\x02]*)* ) ;
    | (?P<other> \S [^\n]* )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


class Statement(NamedTuple):
    """A piece of PTX that can be understood alone."""

    kind: str
    """``label``, ``instruction``, ``open``, ``close``, ``begin``, ``end`` (of inline assembly),
    ``line`` (a directive that ends with its line), ``section``, ``header`` (of an entry or a
    function, with its last ``{`` or ``;``) or ``declaration`` (any other directive)."""
    text: str
    """Without the final ``;`` or ``:``."""
    line: int
    """Where it starts, from 1."""


class Mistake(Exception):
    """Something wrong in a statement; the parser adds the line and raises :class:`PtxError`."""

    def __init__(self, subject: str, got: str, expected: str) -> None:
        self.subject, self.got, self.expected = subject, got, expected
        super().__init__(subject)

    def at(self, line: int) -> PtxError:
        """The error for the user."""
        got = " ".join(self.got.split())
        if len(got) > _SHOWN:
            got = f"{got[:_SHOWN]}..."
        return PtxError(f"PTX line {line}: {self.subject}: got {got!r}, expected {self.expected}")


def statements(text: str) -> Iterator[Statement]:
    """Every statement of ``text`` in order.

    Raises:
        PtxError: it is not text, or holds something that starts no statement.
    """
    clean = _COMMENT.sub(_blank, _checked(text))
    line, counted = 1, 0
    for match in _STATEMENT.finditer(clean):
        start = match.start()
        line += clean.count("\n", counted, start)
        counted = start
        kind = match.lastgroup or "other"
        if kind == "other":
            raise _unreadable(match[0], ";" in clean[start:]).at(line)
        yield Statement(kind, match[kind], line)


def _checked(text: str) -> str:
    """``text`` without the NUL bytes that end a string in a binary; refuses what is no text."""
    if not isinstance(text, str):
        raise PtxError(
            f"PTX: got an object of type {type(text).__name__}, expected the text as a str"
        )
    if text.startswith(_ELF):
        raise PtxError(
            "PTX: got an ELF file (a cubin: machine code), expected text that starts with "
            ".version; keep the PTX when compiling"
        )
    text = text.rstrip("\0")
    if not text.strip():
        raise PtxError("PTX: got an empty text, expected one that starts with .version")
    if found := _BINARY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise PtxError(f"PTX line {line}: got the control byte {found[0]!r}, expected plain text")
    return text


def _blank(comment: re.Match[str]) -> str:
    """What stands in for a comment: its line ends, or a marker; strings stay."""
    text = comment[0]
    if text[0] == '"':
        return text
    if marker := _MARKER.match(text):
        return _BEGIN if marker[1] == "begin" else _END
    return "\n" * text.count("\n") or " "


def _unreadable(text: str, ends_later: bool) -> Mistake:
    if text.startswith("/*"):
        return Mistake("a comment that does not end", text, "'*/'")
    if not ends_later:
        return Mistake("the text ends inside a statement", text, "';' (is the file truncated?)")
    return Mistake("not a statement", text, "a label, a directive, an instruction, '{' or '}'")
