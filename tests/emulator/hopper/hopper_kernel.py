"""Small kernels for Hopper: what they are made of, and their PTX.

A kernel is a body of PTX on arrays. The same text runs on the emulator and on a GPU, with the same
inputs; what comes out is compared as its :class:`Agreement` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.launch.tensormap import TensorMap
from fa4gen.numerics.approx import Bound

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]
Index: TypeAlias = tuple[int, int, int]

TARGET, VERSION = "sm_90a", "8.7"
FILLER = 0xEE
"""What every byte of an output holds before a kernel runs."""
SOMEWHERE = 16
"""Address of a :class:`MapOf`'s tensor map until that of its buffer is known."""


class Agreement(StrEnum):
    """How an output of the emulator is held to what a GPU gave."""

    BITS = "bits"
    """The ISA defines them, or no implementation could choose others."""
    MODEL = "model"
    """The ISA leaves the bits open; the emulator's model claims to know them."""
    NEAR = "near"
    """The bits are not known: :data:`fa4gen.numerics.approx.BOUNDS` tell how far they are off."""
    FACT = "fact"
    """What one machine did, where the emulator makes no claim: recorded, compared with nothing."""


@dataclass(frozen=True)
class Output:
    """An array that a kernel writes.

    Attributes:
        start: What it holds before; every byte is :data:`FILLER` if left out.
        bounds: How far the elements of each row may be off, with :attr:`Agreement.NEAR`.
    """

    shape: tuple[int, ...]
    dtype: str
    agreement: Agreement = Agreement.BITS
    start: Array | None = None
    bounds: tuple[Bound, ...] = ()

    def fresh(self) -> Array:
        """The array before the launch."""
        if self.start is not None:
            return self.start.astype(self.dtype).reshape(self.shape)
        size = int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        return np.full(size, FILLER, np.uint8).view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class MapOf:
    """A tensor map of one of the kernel's own buffers, as a parameter.

    Attributes:
        map: Its address is replaced by the buffer's.
        offset: Bytes from the start of the buffer to the tensor.
    """

    buffer: str
    map: TensorMap
    offset: int = 0

    def at(self, address: int) -> TensorMap:
        """The map where the buffer is at ``address``."""
        return replace(self.map, address=address + self.offset)


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched.

    Attributes:
        smem: Bytes of dynamic shared memory, which the kernel knows as ``smem``.
        max_registers: ``.maxnreg``; a GPU runs the kernel only if it was compiled to just as many,
            since it hands registers around with ``setmaxnreg``.
    """

    block: int = 32
    grid: Index = (1, 1, 1)
    cluster: Index = (1, 1, 1)
    smem: int = 0
    max_registers: int = 0

    @property
    def threads(self) -> int:
        """Of the whole grid."""
        return self.block * int(np.prod(self.grid))


@dataclass(frozen=True)
class Kernel:
    """One small kernel.

    Attributes:
        name: ``family/what``.
        question: What it shows.
        body: PTX behind :data:`PROLOGUE`; an array ``x`` has its address in ``%x``.
        arguments: Parameters by name, before the outputs: an array, a number (``.u32``) or a map.
        expected: The outputs by an independent rule, of the inputs: for those that it gives.
        why: Why an output is not compared bit for bit.
        only_gpu: Why the emulator cannot run it; empty if it can.
        waits: Whether it ends with a word a thread that says which wait gave up (see
            :mod:`hopper_pieces`).
        faults: The ``CUresult`` that a GPU ends it with, and the emulator refuses it for; 0 if it
            is to run.
    """

    name: str
    question: str
    body: str
    outputs: Mapping[str, Output]
    arguments: Mapping[str, Array | int | MapOf] = field(default_factory=dict)
    launch: Launch = Launch()
    expected: Callable[[Arrays], Arrays] | None = None
    why: str = ""
    only_gpu: str = ""
    waits: bool = False
    faults: int = 0

    def __post_init__(self) -> None:
        if self.waits:
            status = Output((self.launch.threads,), "uint32")
            object.__setattr__(self, "outputs", {**self.outputs, "status": status})
        kinds = {output.agreement for output in self.outputs.values()}
        if kinds - {Agreement.BITS} and not self.why:
            raise ValueError(f"{self.name}: an output need not have equal bits; say why")

    @property
    def family(self) -> str:
        """The file that its recording is in."""
        return self.name.partition("/")[0]

    @property
    def inputs(self) -> Arrays:
        """Its arguments that are arrays."""
        return {n: v for n, v in self.arguments.items() if isinstance(v, np.ndarray)}

    @property
    def text(self) -> str:
        """The whole module."""
        return module(self)

    def fingerprint(self) -> str:
        """What a recording is of: text, inputs, tensor maps and launch."""
        digest = hashlib.sha256(self.text.encode())
        digest.update(repr(self.launch).encode())
        for name, value in self.arguments.items():
            digest.update(name.encode())
            if isinstance(value, np.ndarray):
                digest.update(np.ascontiguousarray(value).tobytes())
            else:
                digest.update(repr(value).encode())
        for name, output in self.outputs.items():
            digest.update(name.encode() + output.fresh().tobytes())
        return digest.hexdigest()[:16]

    def wanted(self) -> Arrays:
        """What the independent rule gives, and ``status``, which has to be zero."""
        found = self.expected(self.inputs) if self.expected is not None else {}
        if self.waits:
            found["status"] = np.zeros(self.launch.threads, np.uint32)
        return found


PROLOGUE = """
.reg .pred %p<32>, %lead;
.reg .b16 %h<64>;
.reg .b32 %r<128>, %thr, %lane, %warp, %cta, %id, %base, %rank, %fail;
.reg .b64 %rd<64>;
mov.u32 %thr, %tid.x;
and.b32 %lane, %thr, 31;
shr.u32 %warp, %thr, 5;
setp.eq.u32 %lead, %thr, 0;
mov.u32 %r0, %ctaid.z; mov.u32 %r1, %nctaid.y; mov.u32 %r2, %ctaid.y;
mad.lo.u32 %cta, %r0, %r1, %r2;
mov.u32 %r1, %nctaid.x; mov.u32 %r2, %ctaid.x;
mad.lo.u32 %cta, %cta, %r1, %r2;
mov.u32 %r0, %ntid.x;
mad.lo.u32 %id, %cta, %r0, %thr;
mov.u32 %rank, %cluster_ctarank;
mov.u32 %fail, 0;
"""
"""``%thr``: thread of the CTA, ``%id``: of the grid, ``%lead``: the first of the CTA, ``%cta``:
linear index of the CTA, ``%base``: shared memory, ``%fail``: which wait gave up."""
STATUS = """
{ .reg .b64 %place; mad.wide.u32 %place, %id, 4, %status; st.global.u32 [%place], %fail; }
"""


def module(kernel: Kernel) -> str:
    """The PTX of a kernel, which is called ``kernel``."""
    declared, loads = [], []
    for name, value in (*kernel.arguments.items(), *kernel.outputs.items()):
        if isinstance(value, MapOf):
            declared.append(f".param .align 64 .b8 {name}[128]")
            loads.append(f".reg .b64 %{name}; mov.b64 %{name}, {name};")
            loads.append(f"cvta.param.u64 %{name}, %{name};")
        elif isinstance(value, int):
            declared.append(f".param .u32 {name}")
            loads.append(f".reg .b32 %{name}; ld.param.u32 %{name}, [{name}];")
        else:
            declared.append(f".param .u64 {name}")
            loads.append(f".reg .b64 %{name}; ld.param.u64 %{name}, [{name}];")
            loads.append(f"cvta.to.global.u64 %{name}, %{name};")
    launch = kernel.launch
    shared = ".extern .shared .align 1024 .b8 smem[];\n" if launch.smem else ""
    base = "mov.u32 %base, smem;\n" if launch.smem else ""
    limit = f".maxnreg {launch.max_registers}\n" if launch.max_registers else ""
    return (
        f".version {VERSION}\n.target {TARGET}\n.address_size 64\n{shared}"
        f".visible .entry kernel(\n{', '.join(declared)}\n)\n"
        f".reqntid {launch.block}, 1, 1\n{limit}{{{PROLOGUE}{base}"
        + "\n".join(loads)
        + f"\n{kernel.body}\n{STATUS if kernel.waits else ''}ret;\n}}\n"
    )
