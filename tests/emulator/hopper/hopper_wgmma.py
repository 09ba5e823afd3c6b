"""``wgmma``: a kernel for any shape, types, layouts and source of A."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from hopper_draw import Draw
from hopper_kernel import Agreement, Array, Arrays, Kernel, Launch, Output
from hopper_numbers import REGIMES, TYPES, codes, whole_numbers
from hopper_pieces import PROXY_FENCE, copy_in

Index = npt.NDArray[np.int64]
THREADS, ROWS = 128, 64
K_BYTES = 32
SIZES = {"bf16": 2, "f16": 2, "tf32": 4, "e4m3": 1, "e5m2": 1}
SWIZZLE_CODES = {0: 0, 128: 1, 64: 2, 32: 3}
"""Bits 62 and 63 of a descriptor."""
_SWIZZLE_BITS = {0: 0, 32: 1, 64: 2, 128: 3}
MODEL = "PTX ISA 9.7.15: order and precision of the sums are open; the model is MMA-Sim's"


@dataclass(frozen=True)
class Place:
    """How an operand lies in shared memory.

    Attributes:
        major: ``k`` or ``mn``: along which elements lie side by side.
        swizzle: 0, 32, 64 or 128.
        lbo, sbo: Bytes.
        at: Byte of the kernel's shared memory that it begins at.
        step: Bytes from one instruction's K to the next one's.
    """

    major: str = "k"
    swizzle: int = 128
    lbo: int = 16
    sbo: int = 1024
    at: int = 0
    step: int = 32

    def offsets(self, rows: int, k: int, size: int) -> Index:
        """Byte of every element ``(rows, k)`` in the kernel's shared memory."""
        return swizzled(self.at + self.linear(rows, k, size), self.swizzle)

    def linear(self, rows: int, k: int, size: int) -> Index:
        """Bytes behind the start, before the swizzle, by PTX ISA 9.7.15.5.1.2.1."""
        row, column = np.ogrid[:rows, :k]
        span, per = self.swizzle, 16 // size
        if self.major == "k" and not span:
            at = row % 8 * 16 + row // 8 * self.sbo + column % per * size + column // per * self.lbo
        elif self.major == "k":
            at = row % 8 * span + row // 8 * self.sbo + column * size
        elif not span:
            at = row % per * size + row // per * self.sbo + column % 8 * 16 + column // 8 * self.lbo
        else:
            wide = span // size
            at = row % wide * size + row // wide * self.lbo + column % 8 * span
            at = at + column // 8 * self.sbo
        return np.asarray(at)

    def descriptor(self) -> int:
        """Without the start address."""
        mode = SWIZZLE_CODES[self.swizzle]
        return (self.lbo >> 4) << 16 | (self.sbo >> 4) << 32 | mode << 62


def swizzled(address: Index, span: int, base_offset: int = 0) -> Index:
    """The 16-byte chunk within ``span`` bytes is exchanged by the 128-byte line (PTX ISA 5.5.7)."""
    bits = _SWIZZLE_BITS[span]
    return address ^ ((address >> 7) - base_offset & (1 << bits) - 1) << 4


@dataclass(frozen=True)
class Product:
    """``D = A B + C`` by one or several wgmma along K.

    Attributes:
        n: Columns.
        types: Of D, A and B.
        a: ``None`` if A comes from registers.
        steps: Instructions along K, of one group.
        signs: Of A and B: 1 or -1.
        scale_d: Whether C counts; it is NaN if not.
        regimes: A CTA for each, with :mod:`hopper_numbers`'s numbers; whole numbers if empty.
    """

    name: str
    question: str
    n: int
    types: tuple[str, str, str] = ("f32", "bf16", "bf16")
    a: Place | None = field(default_factory=Place)
    b: Place = field(default_factory=lambda: Place(at=16384))
    steps: int = 1
    signs: tuple[int, int] = (1, 1)
    scale_d: bool = True
    regimes: tuple[str, ...] = ()

    @property
    def k(self) -> int:
        """Of one instruction."""
        return K_BYTES // SIZES[self.types[1]]

    @property
    def d_registers(self) -> int:
        """A thread."""
        return self.n // (2 if self.types[0] == "f32" else 4)

    def kernel(self) -> Kernel:
        """The kernel; its output is ``(CTA, thread, register)``."""
        draw = Draw(self.name)
        cases = self.regimes or ("whole",)
        a, b, c = (self._matrix(draw, cases, operand) for operand in "abc")
        images, size = self._images(draw, a, b)
        count = self.d_registers
        c_registers = np.stack([self._d_registers(each) for each in c])
        if not self.scale_d:
            c_registers[...] = 0x7FFF7FFF
        arguments: dict[str, Array] = {"image": images, "c": c_registers}
        if self.a is None:
            arguments["a"] = np.stack([self._a_registers(each) for each in a])
        agreement = Agreement.MODEL if self.regimes else Agreement.BITS
        wanted = None if self.regimes else self._expected(a[0], b[0], c[0])
        return Kernel(
            name=f"wgmma/{self.name}",
            question=self.question,
            body=self._body(size),
            arguments=arguments,
            outputs={"d": Output((len(cases), THREADS, count), "uint32", agreement)},
            launch=Launch(block=THREADS, grid=(len(cases), 1, 1), smem=size),
            expected=None if wanted is None else lambda inputs: {"d": wanted},
            why=MODEL if self.regimes else "",
        )

    def _matrix(self, draw: Draw, cases: tuple[str, ...], operand: str) -> list[Array]:
        d_type, a_type, b_type = self.types
        kind = {"a": a_type, "b": b_type, "c": d_type}[operand]
        k = self.steps * self.k
        shape = {"a": (ROWS, k), "b": (self.n, k), "c": (ROWS, self.n)}[operand]
        count = shape[0] * shape[1]
        made = []
        for case in cases:
            raw = (
                whole_numbers(draw, kind, count)
                if case == "whole"
                else codes(draw, kind, case, count, operand)
            )
            made.append(raw.view(TYPES[kind]).reshape(shape))
        return made

    def _images(self, draw: Draw, a: list[Array], b: list[Array]) -> tuple[Array, int]:
        """Shared memory for each CTA, noise where no operand lies."""
        parts = [(self.b, b)] + ([(self.a, a)] if self.a is not None else [])
        places = []
        for place, values in parts:
            element = values[0].dtype.itemsize
            rows, k = values[0].shape
            places.append(place.offsets(rows, k, element))
        size = -(-(max(int(p.max()) for p in places) + 16) // 1024) * 1024
        images = draw.u8(size * len(a)).reshape(len(a), size)
        for (_, values), where in zip(parts, places, strict=True):
            for image, matrix in zip(images, values, strict=True):
                element = matrix.dtype.itemsize
                raw = np.ascontiguousarray(matrix).view(np.uint8).reshape(*matrix.shape, element)
                image[where[..., None] + np.arange(element)] = raw
        return images, size

    def _a_registers(self, a: Array) -> Array:
        """``(thread, register)``, four a step."""
        places = a_places(a.dtype.itemsize)
        steps = [a[:, i * self.k : (i + 1) * self.k] for i in range(self.steps)]
        return np.concatenate([to_registers(each, places) for each in steps]).T.copy()

    def _d_registers(self, d: Array) -> Array:
        """``(thread, register)`` of C or D."""
        return to_registers(d, d_places(self.n, self.types[0])).T.copy()

    def _expected(self, a: Array, b: Array, c: Array) -> Array:
        x, y = (m.astype(np.float64) for m in (a, b))
        total = self.signs[0] * self.signs[1] * (x @ y.T)
        total = total + c.astype(np.float64) if self.scale_d else total
        exact = total.astype(TYPES[self.types[0]])
        return self._d_registers(exact)[None]

    def _body(self, size: int) -> str:
        count = self.d_registers
        body = (
            f"{{ .reg .b32 %n; mad.lo.u32 %n, %cta, {size}, 0; cvt.u64.u32 %rd10, %n; "
            f"add.u64 %rd10, %rd10, %image; }}\n"
        )
        body += copy_in("%rd10", 0, size, THREADS) + PROXY_FENCE + "bar.sync 0;\n"
        body += f".reg .b32 %acc<{count}>; .reg .b64 %from, %to;\n"
        body += (
            f"mad.wide.u32 %from, %id, {4 * count}, %c; mad.wide.u32 %to, %id, {4 * count}, %d;\n"
        )
        body += in_vectors("ld", "%from", "%acc", count)
        if self.a is None:
            body += self._load_a()
        else:
            body += make_descriptor("%da", self.a)
        body += make_descriptor("%db", self.b)
        body += "wgmma.fence.sync.aligned;\n"
        for step in range(self.steps):
            body += self._instruction(step)
        body += "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
        return body + in_vectors("st", "%to", "%acc", count)

    def _load_a(self) -> str:
        count = 4 * self.steps
        place = f"{{ .reg .b64 %at; mad.wide.u32 %at, %id, {4 * count}, %a;\n"
        return f".reg .b32 %av<{count}>;\n" + place + in_vectors("ld", "%at", "%av", count) + "}\n"

    def _instruction(self, step: int) -> str:
        d_type, a_type, b_type = self.types
        opcode = f"wgmma.mma_async.sync.aligned.m64n{self.n}k{self.k}.{d_type}.{a_type}.{b_type}"
        results = ", ".join(f"%acc{i}" for i in range(self.d_registers))
        literals = f"{self.signs[0]}, {self.signs[1]}"
        if SIZES[a_type] == 2:
            majors = [self.b] if self.a is None else [self.a, self.b]
            literals += "".join(f", {int(place.major == 'mn')}" for place in majors)
        if self.a is None:
            a = "{" + ", ".join(f"%av{4 * step + i}" for i in range(4)) + "}"
            moves = ""
        else:
            a, moves = "%x", f"add.u64 %x, %da, {step * self.a.step >> 4};"
        use = int(self.scale_d or step > 0)
        return (
            f"{{ .reg .b64 %x, %y; .reg .pred %use; setp.eq.u32 %use, {use}, 1; {moves}"
            f" add.u64 %y, %db, {step * self.b.step >> 4};\n"
            f"{opcode} {{{results}}}, {a}, %y, %use, {literals}; }}\n"
        )


def in_vectors(opcode: str, address: str, prefix: str, count: int) -> str:
    """Load or store registers ``prefix0``, ``prefix1``... by two or four from ``address`` on."""
    size = 4 if count % 4 == 0 else 2
    lines = []
    for first in range(0, count, size):
        registers = ", ".join(f"{prefix}{i}" for i in range(first, first + size))
        pair = (f"{{{registers}}}", f"[{address}+{4 * first}]")
        operands = ", ".join(pair if opcode == "ld" else reversed(pair))
        lines.append(f"{opcode}.global.v{size}.b32 {operands};\n")
    return "".join(lines)


def make_descriptor(register: str, place: Place) -> str:
    """PTX for the descriptor of an operand in the CTA's shared memory."""
    bits = place.descriptor()
    return (
        f".reg .b64 {register}; {{ .reg .b32 %n; add.u32 %n, %base, {place.at};"
        f" and.b32 %n, %n, 0x3ffff; shr.u32 %n, %n, 4; cvt.u64.u32 {register}, %n;"
        f" or.b64 {register}, {register}, {bits:#x}; }}\n"
    )


def d_places(n: int, kind: str) -> tuple[Index, Index]:
    """Row and column of each element of each register, ``(register, thread, element)``."""
    per = 1 if kind == "f32" else 2
    register, thread, part = np.ogrid[: n // 2 // per, :THREADS, :per]
    index, lane = register * per + part, thread % 32
    row = 16 * (thread // 32) + lane // 4 + 8 * (index >> 1 & 1)
    column = 8 * (index >> 2) + 2 * (lane % 4) + (index & 1)
    return _same_shape(row, column)


def a_places(size: int) -> tuple[Index, Index]:
    """As :func:`d_places`, for A in registers, of elements of ``size`` bytes."""
    per = 4 // size
    register, thread, part = np.ogrid[:4, :THREADS, :per]
    lane = thread % 32
    row = 16 * (thread // 32) + lane // 4 + 8 * (register & 1)
    column = per * (lane % 4) + part + 4 * per * (register >> 1)
    return _same_shape(row, column)


def _same_shape(row: Index, column: Index) -> tuple[Index, Index]:
    rows, columns = np.broadcast_arrays(row, column)
    return rows, columns


def to_registers(matrix: Array, places: tuple[Index, Index]) -> Array:
    """``(register, thread)`` words that hold a matrix."""
    return np.ascontiguousarray(matrix[places]).view(np.uint32)[..., 0]


def regimes(repeat: int = 2) -> tuple[str, ...]:
    """Every sort of numbers, ``repeat`` times."""
    return REGIMES * repeat


__all__ = ["Arrays", "Place", "Product", "regimes"]
