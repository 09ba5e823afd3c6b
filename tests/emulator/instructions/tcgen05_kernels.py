"""Kernels around single tcgen05 instructions, and operands laid out by brute force.

Layouts are those of the ISA in CuTe's words, evaluated element by element; nothing of
:mod:`fa4gen.emulator.layouts` is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from ptx_kernel import run_ptx

from fa4gen.emulator.emulate import Emulation
from fa4gen.emulator.findings import FindingKind

Codes = npt.NDArray[Any]
BASE = 0x400
"""Shared address of the dynamic part in CTA 0."""
POLICIES = ("eager", "lazy", "seed:1", "seed:2")
SWIZZLES = {"none": (0, 16), "32": (6, 32), "64": (4, 64), "128": (2, 128), "128_32": (1, 128)}
"""Code in the descriptor, and span in bytes."""
_XOR = {"none": (0, 4, 3), "32": (1, 4, 3), "64": (2, 4, 3), "128": (3, 4, 3), "128_32": (2, 5, 2)}
"""Swizzle<bits, base, shift> of byte addresses."""


def kinds(emulation: Emulation) -> set[FindingKind]:
    return {finding.kind for finding in emulation.findings}


def run_clean(body: str, arguments: dict[str, Any], **options: Any) -> None:
    """Run a kernel and expect no findings."""
    emulation = run_ptx(body, arguments, **options)
    assert not emulation.findings, "\n".join(map(str, emulation.findings))


# ---- shared-memory operands --------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How one operand lies in shared memory."""

    swizzle: str = "128"
    mn_major: bool = False
    lbo: int = 16
    sbo: int = 1024
    start: int = 0
    """Bytes behind the start of dynamic shared memory."""

    def word(self) -> int:
        """The matrix descriptor (PTX ISA 9.7.16.4.1)."""
        fields = (((BASE + self.start), 0), (self.lbo, 16), (self.sbo, 32))
        word = sum((value & 0x3FFFF) >> 4 << at for value, at in fields)
        return word | 1 << 46 | SWIZZLES[self.swizzle][0] << 61

    def addresses(self, shape: tuple[int, int], bits: int) -> Codes:
        """Shared address of the byte where each element (mn, k) begins.

        CuTe's canonical layouts: a mode of (shape, stride)s each for mn and k, in bytes.
        """
        mn, k = np.indices(shape)
        size, (_, span) = bits // 8, SWIZZLES[self.swizzle]
        t = 16 // size
        if not self.mn_major:
            mn_mode = ((8, span), (0, self.sbo))
            k_mode = ((t, size), (0, self.lbo if self.swizzle == "none" else 16))
        elif self.swizzle == "none":
            mn_mode, k_mode = ((t, size), (0, self.sbo)), ((8, 16), (0, self.lbo))
        else:
            mn_mode = ((t, size), (span // 16, 16), (0, self.lbo))
            k_mode = ((4 if self.swizzle == "128_32" else 8, span), (0, self.sbo))
        linear = BASE + self.start + _crd2idx(mn, mn_mode) + _crd2idx(k, k_mode)
        count, base, shift = _XOR[self.swizzle]
        return linear ^ (linear >> shift & ((1 << count) - 1) << base)


def _crd2idx(index: Codes, mode: Sequence[tuple[int, int]]) -> Codes:
    """Offsets of one-dimensional coordinates in a mode of (shape, stride); shape 0: the rest."""
    offset = np.zeros_like(index)
    for shape, stride in mode:
        part, index = (index % shape, index // shape) if shape else (index, index)
        offset = offset + part * stride
    return offset


def place(image: Codes, codes: Codes, layout: Layout) -> None:
    """Write ``(mn, k)`` codes of 8, 16 or 32 bits into an image of dynamic shared memory."""
    size = codes.itemsize
    at = layout.addresses(codes.shape, 8 * size) - BASE
    assert len(np.unique(at)) == at.size, "operands of the test overlap"
    raw = np.ascontiguousarray(codes).view(np.uint8).reshape(*codes.shape, size)
    for byte in range(size):
        image[at + byte] = raw[..., byte]


# ---- tensor memory -----------------------------------------------------------------------------


def d_cells(
    shape: tuple[int, int], cta_group: int, base: int = 0
) -> tuple[Codes | int, Codes, Codes]:
    """(CTA, lane, column) of each element of D (PTX ISA 9.7.16.10.5, layouts A, B, D and F)."""
    m, n = np.indices(shape)
    rows, columns = shape
    if cta_group == 2 and rows == 256:
        return m // 128, m % 128, n
    if cta_group == 2:
        return m // 64, m % 64 + 64 * (n >= columns // 2), n % (columns // 2)
    if rows == 128:
        return 0, m, n
    return 0, m % 16 + 32 * (m // 16) + base, n


def gather_d(cells: Codes, shape: tuple[int, int], cta_group: int, base: int = 0) -> Codes:
    """D out of ``(ctas, 128, columns)`` cells."""
    return cells[d_cells(shape, cta_group, base)]


# ---- kernels -----------------------------------------------------------------------------------

PROLOGUE = """
.reg .pred %p<8>;
.reg .pred %leader;
.reg .b16 %h<4>;
.reg .b32 %r<64>;
.reg .b32 %v<256>;
.reg .b64 %d<32>;
mov.u32 %r0, %tid.x;
mov.b32 %r1, smem;
shr.u32 %r2, %r0, 5;
mov.u32 %r3, %cluster_ctarank;
shl.b32 %r4, %r2, 21;
setp.eq.u32 %p0, %r0, 0;
"""
"""%r0 thread, %r1 shared base, %r2 warp, %r3 rank, %r4 first lane of the warp as an address, %p0
whether it is thread 0."""

WAIT = """
LAB_WAIT_{label}:
mbarrier.try_wait.parity.shared::cta.b64 %p5, [%r1+{offset}], {parity};
@%p5 bra DONE_{label};
bra LAB_WAIT_{label};
DONE_{label}:
"""


def wait(label: str, offset: int, parity: int = 0) -> str:
    """Wait for a phase of the mbarrier at ``offset``."""
    return WAIT.format(label=label, offset=offset, parity=parity)


@dataclass
class Frame:
    """A kernel of 128 threads that fills shared memory, allocates, runs ``body``, and stores cells.

    Attributes:
        image: Dynamic shared memory of each CTA, ``(ctas, bytes)``, a multiple of 2 KiB; what
            follows it holds an mbarrier (8 bytes), at ``barrier``, and the allocation's address.
        cells: Tensor memory of each CTA before, ``(ctas, 128, columns)``, written by st.
        columns: Columns of tensor memory that are read afterwards.
        body: Executed by all, between barriers; thread 0 of CTA 0 has %p0 and %p1.
    """

    image: Codes
    body: str
    columns: int
    cta_group: int = 1
    cells: Codes | None = None
    allocated: int = 512
    fence: str = "fence.proxy.async.shared::cta;"
    after_store: str = "tcgen05.wait::st.sync.aligned;"
    after_body: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    commit: bool = True

    @property
    def barrier(self) -> int:
        return int(self.image.shape[1])

    def text(self) -> str:
        group, at = self.cta_group, self.barrier
        sync, multicast, mask = "", "", ""
        if group == 2:
            sync = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;"
            multicast, mask = ".multicast::cluster", ", %h0"
        commit = (
            f"@%p1 tcgen05.commit.cta_group::{group}.mbarrier::arrive::one.shared::cluster"
            f"{multicast}.b64 [%r1+{at}]{mask};\n"
        )
        return (
            PROLOGUE
            + f"""
setp.eq.and.u32 %p1, %r3, 0, %p0;
mov.b16 %h0, 3;
@%p0 mbarrier.init.shared::cta.b64 [%r1+{at}], 1;
@%p0 fence.mbarrier_init.release.cluster;
setp.ne.u32 %p2, %r2, 0;
@%p2 bra ALLOCATED;
tcgen05.alloc.cta_group::{group}.sync.aligned.shared::cta.b32 [%r1+{at + 8}], {self.allocated};
tcgen05.relinquish_alloc_permit.cta_group::{group}.sync.aligned;
ALLOCATED:
ld.param.u64 %d0, [image];
mul.lo.u32 %r5, %r3, {self.image.shape[1]};
cvt.u64.u32 %d1, %r5;
add.s64 %d0, %d0, %d1;
mul.wide.u32 %d1, %r0, 16;
add.s64 %d0, %d0, %d1;
shl.b32 %r5, %r0, 4;
add.u32 %r5, %r1, %r5;
mov.u32 %r6, 0;
FILL:
ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%d0];
st.shared.v4.b32 [%r5], {{%r10, %r11, %r12, %r13}};
add.s64 %d0, %d0, 2048;
add.u32 %r5, %r5, 2048;
add.u32 %r6, %r6, 2048;
setp.lt.u32 %p3, %r6, {self.image.shape[1]};
@%p3 bra FILL;
{self.fence}
bar.sync 0;
{sync}
ld.shared.b32 %r7, [%r1+{at + 8}];
add.u32 %r8, %r7, %r4;
{self._store_cells()}
bar.sync 0;
{sync}
{self.body}
{commit if self.commit else ""}
{wait("frame", at) if self.commit else ""}
{self.after_body}
{self._load_cells()}
bar.sync 0;
{sync}
@%p2 bra FREED;
tcgen05.dealloc.cta_group::{group}.sync.aligned.b32 %r7, {self.allocated};
FREED:
ret;
"""
        )

    def run(self, **options: Any) -> tuple[Codes, Emulation]:
        """The cells afterwards, ``(ctas, 128, columns)``, and what was found."""
        group = self.cta_group
        out = np.zeros((group, 128, self.columns), np.uint32)
        arguments: dict[str, Any] = {"image": self.image, "out": out}
        if self.cells is not None:
            arguments["cells"] = self.cells
        emulation = run_ptx(
            self.text(),
            arguments | self.parameters,
            block=128,
            grid=group,
            cluster=group,
            smem=self.barrier + 64,
            **options,
        )
        return out, emulation

    def run_clean(self, **options: Any) -> Codes:
        """The cells, where nothing may be found."""
        out, emulation = self.run(**options)
        assert not emulation.findings, "\n".join(map(str, emulation.findings))
        return out

    def _row(self, name: str, columns: int) -> str:
        """%d2: where this thread's row of a ``(ctas, 128, columns)`` array begins."""
        return f"""
ld.param.u64 %d2, [{name}];
shl.b32 %r9, %r3, 7;
add.u32 %r9, %r9, %r0;
mul.wide.u32 %d3, %r9, {4 * columns};
add.s64 %d2, %d2, %d3;
"""

    def _store_cells(self) -> str:
        if self.cells is None:
            return ""
        text = self._row("cells", self.cells.shape[2])
        for first, registers in _runs(self.cells.shape[2]):
            for i in range(0, len(registers), 4):
                quad = ", ".join(registers[i : i + 4])
                text += f"ld.global.v4.b32 {{{quad}}}, [%d2+{4 * (first + i)}];\n"
            text += (
                f"tcgen05.st.sync.aligned.32x32b.x{len(registers)}.b32 [%r8+{first}], "
                f"{{{', '.join(registers)}}};\n"
            )
        return text + self.after_store

    def _load_cells(self) -> str:
        text = self._row("out", self.columns)
        for first, registers in _runs(self.columns):
            text += (
                f"tcgen05.ld.sync.aligned.32x32b.x{len(registers)}.b32 "
                f"{{{', '.join(registers)}}}, [%r8+{first}];\n"
            )
            for i in range(0, len(registers), 4):
                quad = ", ".join(registers[i : i + 4])
                text += f"st.global.v4.b32 [%d2+{4 * (first + i)}], {{{quad}}};\n"
        return text


def _runs(columns: int) -> list[tuple[int, list[str]]]:
    """Columns in powers of two from 64 down to 8, with a register for each."""
    found, first = [], 0
    for size in (64, 32, 16, 8):
        while columns - first >= size:
            found.append((first, [f"%v{i}" for i in range(size)]))
            first += size
    return found
