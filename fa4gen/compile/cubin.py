"""What ptxas allotted, read from the ELF of a compiled kernel.

The reading itself is :mod:`fa4gen.ptx.cubin`, which the emulator shares; here its errors become
those of a compile.
"""

from __future__ import annotations

from fa4gen.core.errors import CompileError
from fa4gen.ptx import cubin as _cubin
from fa4gen.ptx.cubin import KernelFacts
from fa4gen.ptx.elf import MalformedElf

__all__ = ["KernelFacts", "embedded_cubin", "kernel_facts"]


def embedded_cubin(host_object: bytes) -> bytes:
    """The cubin inside an exported host object.

    Raises:
        CompileError: no fat binary with an ELF member in it.
    """
    try:
        return _cubin.find_cubin(host_object)
    except MalformedElf as error:
        raise CompileError(f"exported object: {error}") from error


def kernel_facts(cubin: bytes) -> list[KernelFacts]:
    """Resources of every kernel in a cubin, in the order of their code sections.

    Raises:
        CompileError: not a 64-bit ELF, or one without the facts of its kernels.
    """
    try:
        return _cubin.kernel_facts(cubin)
    except MalformedElf as error:
        raise CompileError(f"cubin: {error}") from error
