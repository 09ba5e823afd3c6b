"""Object files made by hand, to test the linker on what CuTe-DSL does not use (yet)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CODE, DATA = 1, 2
"""Section numbers of a symbol; 0 is undefined, ABSOLUTE stands for none."""
ABSOLUTE = 0xFFF1
GLOBAL, WEAK = 1, 2
ALLOC_EXEC, ALLOC_WRITE = 0x6, 0x3


@dataclass
class ObjectFile:
    """One section of code and one of data, with relocations in both.

    ``symbols`` are (name, section, value, binding); relocations are (section, offset, type, index
    of the symbol, addend). Symbol 0 is the empty one that every table begins with.
    """

    code: bytes
    data: bytes = bytes(8)
    symbols: list[tuple[str, int, int, int]] = field(default_factory=list)
    relocations: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    data_name: str = ".data"
    data_flags: int = ALLOC_WRITE
    machine: int = 62
    kind: int = 1

    def build(self) -> bytes:
        """The file."""
        names = b"\0"
        rows = bytes(24)
        for name, section, value, binding in self.symbols:
            rows += struct.pack("<IBBHQQ", len(names), binding << 4, 0, section, value, 0)
            names += name.encode() + b"\0"
        sections = [
            ("", 0, 0, b"", 0, 0),
            (".text", 1, ALLOC_EXEC, self.code, 0, 0),
            (self.data_name, 1, self.data_flags, self.data, 0, 0),
            (".symtab", 2, 0, rows, 4, 1),
            (".strtab", 3, 0, names, 0, 0),
            (".rela.text", 4, 0, self._rela(CODE), 3, CODE),
            (".rela.data", 4, 0, self._rela(DATA), 3, DATA),
        ]
        titles = b"\0".join(name.encode() for name, *_ in sections) + b"\0.shstrtab\0"
        sections.append((".shstrtab", 3, 0, titles, 0, 0))
        body, headers = b"", b""
        for name, kind, flags, data, link, info in sections:
            at = titles.index(name.encode() + b"\0")
            place = 64 + len(body)
            headers += struct.pack(
                "<IIQQQQIIQQ", at, kind, flags, 0, place, len(data), link, info, 16, 0
            )
            body += data + bytes(-len(data) % 16)
        ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
        header = ident + struct.pack(
            "<HHIQQQIHHHHHH", self.kind, self.machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64,
            len(sections), len(sections) - 1,
        )  # fmt: skip
        return header + body + headers

    def _rela(self, section: int) -> bytes:
        return b"".join(
            struct.pack("<QQq", offset, symbol << 32 | kind, addend)
            for where, offset, kind, symbol, addend in self.relocations
            if where == section
        )
