"""ELF files read from bytes: host objects and cubins are both 64-bit little-endian ELF.

Nothing is trusted: every offset and size is checked against the file, so that a file cut short is
an error and never a section that is quietly too small.

Source: System V ABI, chapters 4 (object files) and 5, for the layouts and the constants.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

MAGIC = b"\x7fELF"

SHT_RELA = 4
SHT_NOBITS = 8
SHT_REL = 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS = 0x1, 0x2, 0x4, 0x400
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2
STB_LOCAL, STB_WEAK = 0, 2
ET_REL = 1

_CLASS_64, _LITTLE_ENDIAN = 2, 1
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


class MalformedElf(ValueError):
    """Bytes that are no readable ELF file; its readers turn it into an error of their own."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section with its bytes."""

    index: int
    name: str
    kind: int
    """``sh_type``, e.g. :data:`SHT_NOBITS`."""
    flags: int
    """``sh_flags``: a union of ``SHF_...``."""
    size: int
    """Bytes it takes in memory; ``data`` is empty where the file holds none."""
    link: int
    info: int
    align: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    """One entry of the symbol table."""

    name: str
    value: int
    """In a relocatable file: offset in its section."""
    size: int
    section: int
    """Index of its section, or one of ``SHN_...``."""
    binding: int
    """``STB_...``."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """One place that the linker has to fill in."""

    offset: int
    """Bytes into the section it applies to."""
    kind: int
    """Number of the relocation type, which the machine defines."""
    symbol: int
    """Index in the symbol table."""
    addend: int


class Elf:
    """A parsed file.

    Args:
        data: the whole file; bytes after the last section are ignored.

    Raises:
        MalformedElf: not a 64-bit little-endian ELF file, or not all of it.
    """

    def __init__(self, data: bytes) -> None:
        if not data.startswith(MAGIC):
            raise MalformedElf(f"got {data[:4]!r} as its first bytes, allowed: {MAGIC!r}")
        fields = _unpack(_HEADER, data, 0, "the file header")
        if fields[0][4:6] != bytes([_CLASS_64, _LITTLE_ENDIAN]):
            raise MalformedElf(
                f"got ELF class {fields[0][4]} and byte order {fields[0][5]}, allowed: "
                f"{_CLASS_64} (64-bit) and {_LITTLE_ENDIAN} (little-endian)"
            )
        self.kind: int = fields[1]
        """``e_type``: :data:`ET_REL` for an object file."""
        self.machine: int = fields[2]
        """``e_machine``: 62 is x86-64, 183 aarch64, 190 CUDA."""
        self.sections = _sections(data, table=fields[6], count=fields[12], names=fields[13])

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbol table, by index; empty where there is none.

        Raises:
            MalformedElf: an entry points outside its string table.
        """
        table = self.section(".symtab")
        if table is None:
            return ()
        strings = self._linked(table)
        found = []
        for at in range(0, len(table.data) - _SYMBOL.size + 1, _SYMBOL.size):
            name, info, _, section, value, size = _SYMBOL.unpack_from(table.data, at)
            found.append(Symbol(_string(strings.data, name), value, size, section, info >> 4))
        return tuple(found)

    def relocations(self) -> Iterator[tuple[Section, Relocation]]:
        """Every relocation with the section it applies to.

        Raises:
            MalformedElf: a table for a section that does not exist, or without addends.
        """
        for table in self.sections:
            if table.kind == SHT_REL:
                raise MalformedElf(f"section {table.name}: got relocations without addends (REL)")
            if table.kind != SHT_RELA:
                continue
            if not 0 < table.info < len(self.sections):
                raise MalformedElf(f"section {table.name}: applies to no section ({table.info})")
            target = self.sections[table.info]
            for at in range(0, len(table.data) - _RELA.size + 1, _RELA.size):
                offset, info, addend = _RELA.unpack_from(table.data, at)
                yield target, Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)

    def _linked(self, table: Section) -> Section:
        if not 0 < table.link < len(self.sections):
            raise MalformedElf(f"section {table.name}: links to no section ({table.link})")
        return self.sections[table.link]


def _sections(data: bytes, table: int, count: int, names: int) -> tuple[Section, ...]:
    """Section headers with their bytes."""
    headers = [
        _unpack(_SECTION, data, table + i * _SECTION.size, f"section header {i} of {count}")
        for i in range(count)
    ]
    if not headers:
        return ()
    if names >= count:
        raise MalformedElf(f"got {names} as the section with the names, allowed: below {count}")
    strings = _slice(data, headers[names][4], headers[names][5], "the section names")
    found = []
    for index, header in enumerate(headers):
        name_at, kind, flags, _, at, size, link, info, align, _ = header
        name = _string(strings, name_at)
        body = b"" if kind == SHT_NOBITS else _slice(data, at, size, f"section {name}")
        found.append(Section(index, name, kind, flags, size, link, info, align, body))
    return tuple(found)


def _unpack(form: struct.Struct, data: bytes, at: int, what: str) -> tuple[Any, ...]:
    return form.unpack(_slice(data, at, form.size, what))


def _slice(data: bytes, at: int, size: int, what: str) -> bytes:
    """Bytes ``at`` to ``at + size``, all of them."""
    if at + size > len(data):
        raise MalformedElf(
            f"cut short: {what} takes bytes {at} to {at + size}, the file has {len(data)}"
        )
    return data[at : at + size]


def _string(table: bytes, at: int) -> str:
    """The NUL-terminated string at an offset of a string table."""
    end = table.find(b"\0", at)
    if at >= len(table) or end < 0:
        raise MalformedElf(f"got offset {at} into a string table of {len(table)} bytes")
    return table[at:end].decode("utf-8", "replace")
