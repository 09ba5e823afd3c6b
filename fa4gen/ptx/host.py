"""A compiled host function as values: all the emulator needs of one, and no CuTe-DSL with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Device:
    """The GPU that launch code is told it runs in front of."""

    sm_count: int
    smem_optin_bytes: int
    """Most dynamic shared memory one CTA may ask for."""
    compute_capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CompiledHost:
    """Launch code and the kernels it launches.

    :mod:`fa4gen.compile.emulation` makes one from a kernel module or a CuTe-DSL function;
    :func:`fa4gen.emulator.launch.capture` runs it.
    """

    object_bytes: bytes = field(repr=False)
    """The ELF object that CuTe-DSL exports, with the cubin inside."""
    function_name: str
    """Under which it was exported."""
    ptx: Mapping[str, str] = field(repr=False)
    """Text of the PTX module of each kernel, by the kernel's name."""
    device: Device
    """What the launch code is told about the GPU."""
    target: str
    """What it was compiled for, e.g. ``sm_90a``."""
    tensor_device: str = "cuda"
    """Where the launch code was compiled to find its tensors: ``cuda``, or ``cpu`` if it was
    compiled with CPU tensors. Memory of the CPU is passed off as the one or the other."""


@dataclass(frozen=True, slots=True)
class PackedArguments:
    """Arguments of a function compiled without TVM-FFI: one pointer to each value.

    Only CuTe-DSL knows how it lays out a value; ``fa4gen.compile.emulation.packed_arguments``
    makes these.
    """

    pointers: tuple[int, ...]
    owners: tuple[object, ...] = field(repr=False)
    """What has to stay alive as long as the pointers are used."""
