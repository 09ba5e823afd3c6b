"""What ptxas allotted, read from the ELF of a compiled kernel.

The host object that CuTe-DSL exports embeds one fat binary, and that one cubin. Both containers
are little-endian; no CUDA tool is needed to read them.

Source: the layouts below were checked against ``cuobjdump --dump-resource-usage`` and
``ptxas -v`` for CuTe-DSL 4.8.1 (sm_90a and sm_100a), 2026-08.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fa4gen.core.errors import CompileError

_FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)
_FATBIN_ELF = 2
_ELF_MAGIC = b"\x7fELF"
_SHT_NOBITS = 8
_EIFMT_SIZED = 4
_EIATTR_FRAME_SIZE = 0x11
_EIATTR_REGCOUNT = 0x2F
_SYMBOL_BYTES = 24


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Resources of one kernel of a cubin."""

    name: str
    regs_per_thread: int
    """At launch; a kernel with ``setmaxnreg`` moves registers between warpgroups later."""
    frame_bytes: int
    """Stack frame of a thread; ptxas spills into it."""
    code_bytes: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    link: int
    size: int
    data: bytes


def embedded_cubin(host_object: bytes) -> bytes:
    """The cubin inside an exported host object.

    Raises:
        CompileError: no fat binary with an ELF member in it.
    """
    start = host_object.find(_FATBIN_MAGIC)
    if start < 0:
        raise CompileError("exported object: got no fat binary, needed one to read the resources")
    try:
        header_bytes, total_bytes = struct.unpack_from("<HQ", host_object[start + 6 :])
        at, end = start + header_bytes, start + header_bytes + total_bytes
        while at < end:
            (kind,) = struct.unpack_from("<H", host_object, at)
            member_header, payload = struct.unpack_from("<IQ", host_object, at + 4)
            member = host_object[at + member_header : at + member_header + payload]
            if kind == _FATBIN_ELF and member.startswith(_ELF_MAGIC):
                return member
            at += member_header + payload
    except struct.error as error:
        raise CompileError(f"exported object: the fat binary is cut short: {error}") from error
    raise CompileError("exported object: got a fat binary without an uncompressed ELF member")


def kernel_facts(cubin: bytes) -> list[KernelFacts]:
    """Resources of every kernel in a cubin, in the order of their code sections.

    Raises:
        CompileError: not a 64-bit ELF, or one without the facts of its kernels.
    """
    if not cubin.startswith(_ELF_MAGIC):
        raise CompileError(f"cubin: got {cubin[:4]!r} as its first bytes, allowed: {_ELF_MAGIC!r}")
    try:
        sections = _sections(cubin)
        registers, frames = _attributes(sections)
        return [
            KernelFacts(name, registers[name], frames.get(name, 0), section.size)
            for section in sections
            if (name := section.name.removeprefix(".text.")) != section.name and name in registers
        ]
    except (struct.error, ValueError, IndexError) as error:
        raise CompileError(f"cubin: not readable: {error}") from error


def _sections(elf: bytes) -> list[_Section]:
    """Section headers with their bytes."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_bytes, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [
        struct.unpack_from("<IIQQQQIIQQ", elf, table + i * entry_bytes) for i in range(count)
    ]
    names_at = headers[names_index][4]
    sections = []
    for name_at, kind, _, _, at, size, link, *_ in headers:
        start = names_at + name_at
        name = elf[start : elf.index(b"\0", start)].decode()
        data = b"" if kind == _SHT_NOBITS else elf[at : at + size]
        sections.append(_Section(name, kind, link, size, data))
    return sections


def _attributes(sections: list[_Section]) -> tuple[dict[str, int], dict[str, int]]:
    """Registers and stack frame by kernel name, from the ``.nv.info`` section."""
    symbols = _symbols(sections)
    registers: dict[str, int] = {}
    frames: dict[str, int] = {}
    wanted = {_EIATTR_REGCOUNT: registers, _EIATTR_FRAME_SIZE: frames}
    for section in sections:
        if section.name != ".nv.info":
            continue
        at = 0
        while at + 4 <= len(section.data):
            form, attribute, size = struct.unpack_from("<BBH", section.data, at)
            at += 4
            if form != _EIFMT_SIZED:
                continue
            if attribute in wanted:
                symbol, value = struct.unpack_from("<II", section.data, at)
                wanted[attribute][symbols[symbol]] = value
            at += size
    return registers, frames


def _symbols(sections: list[_Section]) -> list[str]:
    """Names in the symbol table, by index."""
    table = next((section for section in sections if section.name == ".symtab"), None)
    if table is None:
        return []
    strings = sections[table.link].data
    starts = [
        struct.unpack_from("<I", table.data, at)[0]
        for at in range(0, len(table.data), _SYMBOL_BYTES)
    ]
    return [strings[start : strings.index(b"\0", start)].decode() for start in starts]
