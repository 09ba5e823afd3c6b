"""A relocatable object in the memory of this process, linked to functions of our choice.

CuTe-DSL exports launch code as an ELF object in the large code model: it reaches everything by
64-bit offsets, so linking it is adding a few numbers, and neither a C compiler nor a linker nor a
shared library on disk is needed. Every undefined symbol is handed to ``resolve``, so the object
cannot find the real CUDA runtime even where that is loaded already.

Source: System V ABI, AMD64 supplement, table 4.9 (relocation types) and section 3.5 (large model).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fa4gen.core.errors import CaptureFailed
from fa4gen.ptx.elf import (
    ET_REL,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_TLS,
    SHN_ABS,
    SHN_COMMON,
    SHN_UNDEF,
    STB_WEAK,
    Elf,
    MalformedElf,
    Relocation,
    Section,
    Symbol,
)

_X86_64 = 62
_UNWIND = 0x70000001
_GOT = "_GLOBAL_OFFSET_TABLE_"
_PAGE = mmap.PAGESIZE
_SLOT_BYTES = 8
_JUMP_BYTES = 16
_INIT_ARRAY = ".init_array"


@dataclass(frozen=True, slots=True)
class _Place:
    """What the formulas of a relocation are made of; the letters are the ABI's."""

    S: int
    """Address of the symbol."""
    A: int
    """Addend."""
    P: int
    """Address of the place to fill in."""
    G: int
    """Offset of the symbol's slot in the global offset table."""
    GOT: int
    """Address of the global offset table."""
    L: int
    """Address to call the symbol at: its own, or a jump to it where it may be too far away."""


_FORMULAS: dict[int, tuple[str, Callable[[_Place], int]]] = {
    1: ("<Q", lambda p: p.S + p.A),  # R_X86_64_64
    2: ("<i", lambda p: p.L + p.A - p.P),  # R_X86_64_PC32
    4: ("<i", lambda p: p.L + p.A - p.P),  # R_X86_64_PLT32
    9: ("<i", lambda p: p.G + p.GOT + p.A - p.P),  # R_X86_64_GOTPCREL
    24: ("<q", lambda p: p.S + p.A - p.P),  # R_X86_64_PC64
    25: ("<q", lambda p: p.S + p.A - p.GOT),  # R_X86_64_GOTOFF64
    27: ("<q", lambda p: p.G + p.A),  # R_X86_64_GOT64
    29: ("<q", lambda p: p.GOT + p.A - p.P),  # R_X86_64_GOTPC64
    41: ("<i", lambda p: p.G + p.GOT + p.A - p.P),  # R_X86_64_GOTPCRELX
    42: ("<i", lambda p: p.G + p.GOT + p.A - p.P),  # R_X86_64_REX_GOTPCRELX
}


class LoadedObject:
    """An object file ready to be called; its memory is freed with it.

    Args:
        data: the object file.
        resolve: gives the address of a symbol the object does not define, or ``None``.

    Raises:
        CaptureFailed: not an object file for this machine, cut short, or one that cannot be
            linked; the message says why.
    """

    def __init__(self, data: bytes, resolve: Callable[[str], int | None]) -> None:
        if platform.machine() not in {"x86_64", "AMD64"}:
            raise CaptureFailed(
                f"host object: got a machine of type {platform.machine()}, allowed: x86_64; "
                "capture the launch on an x86-64 machine"
            )
        try:
            elf = Elf(data)
            if (elf.kind, elf.machine) != (ET_REL, _X86_64):
                raise CaptureFailed(
                    f"host object: got ELF type {elf.kind} for machine {elf.machine}, allowed: "
                    f"type {ET_REL} (an object file) for machine {_X86_64} (x86-64)"
                )
            self._link(elf, resolve)
        except MalformedElf as error:
            raise CaptureFailed(f"host object: {error}; export it again") from error

    def address(self, name: str) -> int | None:
        """Address of a symbol the object defines."""
        return self._defined.get(name)

    def names(self) -> Iterator[str]:
        """Every symbol the object defines."""
        yield from self._defined

    def bytes_from(self, address: int) -> bytes:
        """The object's memory from ``address`` to its end.

        Raises:
            CaptureFailed: an address outside of it.
        """
        if not self._base <= address < self._base + len(self._memory):
            raise CaptureFailed(f"host function: got data at {address:#x}, outside of its object")
        return self._memory[address - self._base :]

    def _link(self, elf: Elf, resolve: Callable[[str], int | None]) -> None:
        loaded = [s for s in elf.sections if s.flags & SHF_ALLOC and s.kind != _UNWIND and s.size]
        if any(section.flags & SHF_TLS for section in loaded):
            raise CaptureFailed("host object: got thread-local data, allowed: none")
        code = [section for section in loaded if section.flags & SHF_EXECINSTR]
        rest = [section for section in loaded if not section.flags & SHF_EXECINSTR]
        offsets, self._jumps = _layout(code, 0)
        code_bytes = _round_up(self._jumps + _JUMP_BYTES * len(elf.symbols), _PAGE)
        data_offsets, self._table = _layout(rest, code_bytes)
        offsets |= data_offsets
        size = self._table + _SLOT_BYTES * len(elf.symbols)
        self._memory = mmap.mmap(-1, _round_up(size, _PAGE))
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for section in loaded:
            at = offsets[section.index]
            self._memory[at : at + len(section.data)] = section.data
        bases = {index: self._base + at for index, at in offsets.items()}
        addresses = _addresses(elf, bases, self._base + self._table, resolve)
        self._defined = {
            symbol.name: address
            for symbol, address in zip(elf.symbols, addresses, strict=True)
            if symbol.section != SHN_UNDEF and symbol.name
        }
        self._write_tables(elf.symbols, addresses)
        for section, relocation in elf.relocations():
            if section.index in offsets:
                if relocation.offset >= section.size or relocation.symbol >= len(addresses):
                    raise MalformedElf(f"got a relocation outside of {section.name}: {relocation}")
                symbol = elf.symbols[relocation.symbol]
                self._relocate(section, offsets[section.index], relocation, symbol)
        _protect(self._base, code_bytes)
        self._initialise([(s, offsets[s.index]) for s in rest if s.name.startswith(_INIT_ARRAY)])

    def _write_tables(self, symbols: tuple[Symbol, ...], addresses: list[int]) -> None:
        """One slot of the global offset table and one jump through it for every symbol."""
        for i, address in enumerate(addresses):
            slot = self._table + _SLOT_BYTES * i
            struct.pack_into("<Q", self._memory, slot, address)
            if symbols[i].section == SHN_UNDEF:
                at = self._jumps + _JUMP_BYTES * i
                # jmp *slot(%rip), whose displacement counts from the instruction's end
                struct.pack_into("<2Bi", self._memory, at, 0xFF, 0x25, slot - (at + 6))

    def _relocate(self, section: Section, at: int, relocation: Relocation, symbol: Symbol) -> None:
        """Fill in one place of a section that lies ``at`` bytes into the memory."""
        if relocation.kind not in _FORMULAS:
            raise CaptureFailed(
                f"host object: got relocation type {relocation.kind} in {section.name}, allowed: "
                f"{', '.join(map(str, _FORMULAS))} (R_X86_64_...)"
            )
        slot, where = _SLOT_BYTES * relocation.symbol, at + relocation.offset
        (address,) = struct.unpack_from("<Q", self._memory, self._table + slot)
        far = symbol.section == SHN_UNDEF
        form, formula = _FORMULAS[relocation.kind]
        value = formula(
            _Place(
                S=address,
                A=relocation.addend,
                P=self._base + where,
                G=slot,
                GOT=self._base + self._table,
                L=self._base + self._jumps + _JUMP_BYTES * relocation.symbol if far else address,
            )
        )
        try:
            struct.pack_into(form, self._memory, where, value)
        except struct.error as error:
            raise CaptureFailed(
                f"host object: {section.name} cannot reach {value:#x} by relocation type "
                f"{relocation.kind}; export the object with position-independent code"
            ) from error

    def _initialise(self, arrays: list[tuple[Section, int]]) -> None:
        """Call the constructors."""
        for section, at in arrays:
            for (function,) in struct.iter_unpack("<Q", self._memory[at : at + section.size]):
                ctypes.CFUNCTYPE(None)(function)()


def _layout(sections: list[Section], start: int) -> tuple[dict[int, int], int]:
    """Offset of each section by index, packed from ``start`` on, and the first free offset."""
    offsets, at = {}, start
    for section in sections:
        at = _round_up(at, max(1, section.align))
        offsets[section.index] = at
        at += section.size
    return offsets, _round_up(at, _JUMP_BYTES)


def _addresses(
    elf: Elf, bases: dict[int, int], table: int, resolve: Callable[[str], int | None]
) -> list[int]:
    """Address of every symbol; 0 where nothing needs it."""
    found, missing = [], []
    for index, symbol in enumerate(elf.symbols):
        address: int | None = 0
        if symbol.section in bases:
            address = bases[symbol.section] + symbol.value
        elif symbol.section == SHN_ABS:
            address = symbol.value
        elif symbol.section == SHN_COMMON:
            raise CaptureFailed(
                f"host object: got {symbol.name} as a common symbol, allowed: defined ones; "
                "export the object with data in sections"
            )
        elif symbol.name == _GOT:
            address = table
        elif symbol.section == SHN_UNDEF and index and symbol.name:
            address = resolve(symbol.name)
            if address is None and symbol.binding != STB_WEAK:
                missing.append(symbol.name)
        found.append(address or 0)
    if missing:
        raise CaptureFailed(
            f"host object: calls {', '.join(missing)}, which launch capture does not answer"
        )
    return found


def _protect(address: int, size: int) -> None:
    """Make memory executable and no longer writable."""
    if size == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise CaptureFailed(
            f"host object: this system gives no executable memory (mprotect: {reason}); run where "
            "a process may make its memory executable, as every just-in-time compiler needs"
        )


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
