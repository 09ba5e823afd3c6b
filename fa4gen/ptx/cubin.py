"""What ptxas allotted to each kernel, read from a cubin, and the fat binary around it.

The host code that CuTe-DSL makes embeds one fat binary, and that one cubin. No CUDA tool is needed
to read either.

Source: the layouts below were checked against ``cuobjdump --dump-resource-usage`` and
``ptxas -v`` for CuTe-DSL 4.8.1 (sm_90a and sm_100a), 2026-08; parameter sizes against the
``.param`` declarations of the PTX.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fa4gen.ptx.elf import MAGIC, Elf, MalformedElf, Section

_FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)
_FATBIN_ELF = 2
_FATBIN_HEADER = struct.Struct("<4sHHQ")
_MEMBER_HEADER = struct.Struct("<HHIQ")

_EIFMT_SIZED = 4
_EIATTR_FRAME_SIZE = 0x11
_EIATTR_KPARAM_INFO = 0x17
_EIATTR_REGCOUNT = 0x2F
_PARAM_SIZE_SHIFT = 18


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Resources and parameters of one kernel of a cubin."""

    name: str
    regs_per_thread: int
    """At launch; a kernel with ``setmaxnreg`` moves registers between warpgroups later."""
    frame_bytes: int
    """Stack frame of a thread; ptxas spills into it."""
    code_bytes: int
    param_bytes: tuple[int, ...] = ()
    """Size of each parameter, in order."""
    static_smem_bytes: int = 0
    """Shared memory of a CTA besides the dynamic one; what the system reserves is counted in."""


def find_cubin(data: bytes) -> bytes:
    """The first cubin of the first fat binary in ``data``.

    Raises:
        MalformedElf: no fat binary with an uncompressed ELF member in it, or not all of it.
    """
    start = data.find(_FATBIN_MAGIC)
    if start < 0:
        raise MalformedElf("got no fat binary, needed one to read the resources")
    try:
        _, _, header_bytes, total_bytes = _FATBIN_HEADER.unpack_from(data, start)
        at, end = start + header_bytes, start + header_bytes + total_bytes
        if end > len(data):
            raise MalformedElf(f"the fat binary is cut short: it ends at byte {end} of {len(data)}")
        while at < end:
            kind, _, member_header, payload = _MEMBER_HEADER.unpack_from(data, at)
            member = data[at + member_header : at + member_header + payload]
            if kind == _FATBIN_ELF and member.startswith(MAGIC):
                return member
            at += max(member_header + payload, _MEMBER_HEADER.size)
    except struct.error as error:
        raise MalformedElf(f"the fat binary is cut short: {error}") from error
    raise MalformedElf("got a fat binary without an uncompressed ELF member")


def kernel_facts(cubin: bytes) -> list[KernelFacts]:
    """Facts of every kernel in a cubin, in the order of their code sections.

    Raises:
        MalformedElf: not a 64-bit ELF, or one without the facts of its kernels.
    """
    elf = Elf(cubin)
    names = [symbol.name for symbol in elf.symbols]
    try:
        registers, frames = _resources(elf, names)
        return [
            KernelFacts(
                name=name,
                regs_per_thread=registers[name],
                frame_bytes=frames.get(name, 0),
                code_bytes=section.size,
                param_bytes=_param_bytes(elf.section(f".nv.info.{name}")),
                static_smem_bytes=0
                if (smem := elf.section(f".nv.shared.{name}")) is None
                else smem.size,
            )
            for section in elf.sections
            if (name := section.name.removeprefix(".text.")) != section.name and name in registers
        ]
    except (struct.error, IndexError) as error:
        raise MalformedElf(f"not readable: {error}") from error


def _resources(elf: Elf, names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Registers and stack frame by kernel name, from the ``.nv.info`` section."""
    registers: dict[str, int] = {}
    frames: dict[str, int] = {}
    wanted = {_EIATTR_REGCOUNT: registers, _EIATTR_FRAME_SIZE: frames}
    for attribute, payload in _attributes(elf.section(".nv.info")):
        if attribute in wanted:
            symbol, value = struct.unpack_from("<II", payload)
            wanted[attribute][names[symbol]] = value
    return registers, frames


def _param_bytes(section: Section | None) -> tuple[int, ...]:
    """Parameter sizes from the kernel's own ``.nv.info.<name>``.

    An entry is (index, ordinal u16, offset u16, flags u32) with the size in the flags' upper 14
    bits.
    """
    sizes: dict[int, int] = {}
    for attribute, payload in _attributes(section):
        if attribute == _EIATTR_KPARAM_INFO:
            _, ordinal, _, flags = struct.unpack_from("<IHHI", payload)
            sizes[ordinal] = flags >> _PARAM_SIZE_SHIFT
    return tuple(sizes[ordinal] for ordinal in sorted(sizes))


def _attributes(section: Section | None) -> Iterator[tuple[int, bytes]]:
    """The sized attributes of an ``.nv.info`` section as (number, payload)."""
    data = b"" if section is None else section.data
    at = 0
    while at + 4 <= len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == _EIFMT_SIZED:
            yield attribute, data[at : at + size]
            at += size
