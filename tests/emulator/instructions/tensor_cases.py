"""Tensors and boxes, laid out by loops over elements; nothing of the emulator's layouts is used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from async_kernels import aligned

from fa4gen.emulator.launch.tensormap import ELEMENT_BYTES, TensorMap, encode

DONE = "cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;"
MAP = "mov.b64 %rd9, map; cvta.param.u64 %rd10, %rd9;\n"
START = 1024
"""Where boxes lie in shared memory unless a case says otherwise."""
_XOR = {"16B": (3, 4, 3), "32B": (2, 5, 2), "32B+8B": (2, 5, 2), "64B": (1, 6, 1)}


def swizzle(address: int, span: int, atom: str) -> int:
    """Bits ``base..`` ^= bits ``base + shift..`` of the absolute address (PTX ISA 5.5.7)."""
    if span == 0:
        return address
    bits, base, shift = _XOR[atom] if span == 128 else {32: (1, 4, 3), 64: (2, 4, 3)}[span]
    moved = address ^ (address >> shift & ((1 << bits) - 1) << base)
    if atom == "32B+8B" and span == 128 and address >> 7 & 1:
        moved ^= 8
    return moved


@dataclass(frozen=True)
class Case:
    """A tensor, its box, and where the box is."""

    dtype: str
    dims: tuple[int, ...]
    box: tuple[int, ...]
    coords: tuple[int, ...]
    swizzle: int = 0
    atom: str = "16B"
    steps: tuple[int, ...] = ()
    fill: str = "zero"
    start: int = START
    pad: int = 0
    """Bytes behind each row."""

    @property
    def size(self) -> int:
        return ELEMENT_BYTES[self.dtype]

    @property
    def strides(self) -> tuple[int, ...]:
        found = [self.size, -(-self.dims[0] * self.size // 16) * 16 + self.pad]
        for extent in self.dims[1:]:
            found.append(found[-1] * extent)
        return tuple(found[: len(self.dims)])

    @property
    def counts(self) -> tuple[int, ...]:
        steps = (1, *self.steps[1:]) if self.steps else (1,) * len(self.box)
        return tuple(-(-size // step) for size, step in zip(self.box, steps, strict=True))

    @property
    def box_bytes(self) -> int:
        return int(np.prod(self.counts)) * self.size

    @property
    def row_bytes(self) -> int:
        """From one row of the box to the next in shared memory: the swizzle's span at least."""
        return max(self.box[0] * self.size, self.swizzle)

    @property
    def room(self) -> int:
        """Bytes of shared memory that the box takes, those between narrow rows included."""
        return int(np.prod(self.counts[1:])) * self.row_bytes

    def memory(self, seed: int = 0) -> np.ndarray:
        """The tensor's bytes, with what lies between its rows."""
        size = self.strides[-1] * self.dims[-1] if len(self.dims) > 1 else self.dims[0] * self.size
        data = aligned(-(-size // 16) * 16, "u1")
        data[:] = np.random.default_rng(seed).integers(1, 255, len(data))
        return data

    def map(self, memory: np.ndarray) -> bytes:
        return encode(
            TensorMap(
                address=memory.__array_interface__["data"][0],
                dtype=self.dtype,
                dims=self.dims,
                strides=self.strides,
                box=self.box,
                element_strides=self.steps,
                swizzle=self.swizzle,
                swizzle_atomicity=self.atom,
                oob_fill=self.fill,
            )
        )

    def elements(self, stored: bool = False) -> Iterator[tuple[int, int | None]]:
        """Of each element: its offset in shared memory, and in the tensor, ``None`` if outside.

        ``stored``: what a store writes, which goes on to the end of the last 16 bytes of a row.
        """
        per = 16 // self.size if stored else 1
        dims = (-(-self.dims[0] // per) * per, *self.dims[1:])
        steps = (1, *self.steps[1:]) if self.steps else (1,) * len(self.box)
        for number, index in enumerate(itertools.product(*map(range, reversed(self.counts)))):
            at = [c + i * s for c, i, s in zip(self.coords, reversed(index), steps, strict=True)]
            inside = all(0 <= c < extent for c, extent in zip(at, dims, strict=True))
            # The dynamic part of shared memory begins at 0x400 of the window.
            row, column = divmod(number, self.box[0])
            linear = 0x400 + self.start + row * self.row_bytes + column * self.size
            shared = swizzle(linear, self.swizzle, self.atom) - 0x400
            offset = sum(c * stride for c, stride in zip(at, self.strides, strict=True))
            yield shared, offset if inside else None


CASES = {
    "1d": Case("u8", (100,), (48,), (-16,)),
    "1d past the end": Case("f32", (37,), (16,), (32,)),
    "2d": Case("bf16", (40, 9), (32, 8), (-8, 4), pad=32),
    "2d all out": Case("bf16", (40, 9), (32, 8), (40, 4)),
    "2d all out below": Case("bf16", (40, 9), (32, 8), (0, -8)),
    "32B": Case("f32", (20, 30), (8, 16), (4, 7), 32),
    "64B": Case("bf16", (64, 20), (32, 16), (16, 2), 64, pad=16),
    "128B": Case("bf16", (80, 40), (64, 24), (8, 20), 128),
    "128B off the pattern": Case("bf16", (64, 16), (64, 16), (0, 0), 128, start=START + 384),
    "64B off the pattern": Case("f16", (32, 16), (32, 8), (0, 1), 64, start=START + 128),
    "128B narrow rows": Case("f16", (64, 32), (32, 16), (8, 3), 128),
    "ragged rows": Case("bf16", (37, 9), (32, 4), (32, 6)),
    "128B not below": Case("bf16", (80, 40), (64, 24), (40, 30), 128),
    "3d not below": Case("f16", (40, 9, 7), (16, 4, 3), (32, 7, 6), 32),
    "5d not below": Case("s32", (8, 3, 3, 3, 2), (4, 2, 3, 2, 2), (4, 2, 1, 1, 1)),
    "128B atom 32B": Case("u8", (128, 20), (128, 16), (0, -2), 128, "32B"),
    "128B atom 64B": Case("u32", (32, 20), (32, 16), (0, 8), 128, "64B"),
    "128B atom 32B flip": Case("u16", (64, 20), (64, 16), (-8, 8), 128, "32B+8B"),
    "3d": Case("u8", (128, 5, 7), (128, 3, 4), (0, 3, -1), 128),
    "4d": Case("f16", (40, 5, 3, 4), (32, 4, 2, 2), (16, -1, 2, 3), 64, pad=16),
    "5d": Case("s32", (8, 3, 3, 3, 2), (4, 2, 3, 2, 2), (4, 2, -1, 1, 1)),
    "8 bytes": Case("f64", (18, 9), (16, 8), (6, -1), 128),
    "steps": Case("bf16", (32, 16, 9), (32, 8, 5), (0, 3, 1), 64, steps=(1, 2, 3)),
    "nan": Case("bf16", (40, 9), (32, 8), (24, -3), 64, fill="nan"),
    "nan f32": Case("f32", (16, 9), (8, 8), (12, 4), 32, fill="nan"),
}


def out_of_shared(start: int, size: int) -> str:
    """All threads copy bytes of shared memory to ``out``."""
    return f"""
shl.b32 %r1, %thr, 4; ld.param.u64 %rd1, [out];
COPY: setp.ge.u32 %p1, %r1, {size}; @%p1 bra COPIED;
add.u32 %r2, %r1, %base; ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2+{start}];
cvt.u64.u32 %rd2, %r1; add.u64 %rd3, %rd1, %rd2; st.global.v4.u32 [%rd3], {{%r4, %r5, %r6, %r7}};
mov.u32 %r3, %ntid.x; shl.b32 %r3, %r3, 4; add.u32 %r1, %r1, %r3; bra COPY;
COPIED: mov.u32 %r1, 0;
"""


def into_shared(start: int, size: int) -> str:
    """All threads copy bytes of ``image`` to shared memory."""
    return f"""
{{ shl.b32 %r1, %thr, 4; ld.param.u64 %rd1, [image];
COPY: setp.ge.u32 %p1, %r1, {size}; @%p1 bra COPIED;
cvt.u64.u32 %rd2, %r1; add.u64 %rd3, %rd1, %rd2; ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd3];
add.u32 %r2, %r1, %base; st.shared.v4.u32 [%r2+{start}], {{%r4, %r5, %r6, %r7}};
mov.u32 %r3, %ntid.x; shl.b32 %r3, %r3, 4; add.u32 %r1, %r1, %r3; bra COPY;
COPIED: }}
"""


def box_at(coords: tuple[int, ...], base: str = "%rd10") -> str:
    return f"[{base}, {{{', '.join(map(str, coords))}}}]"


def load(case: Case, space: str = "shared::cta", expect: int | None = None) -> str:
    """Thread 0 expects bytes at the mbarrier at byte 0 and has the box copied."""
    size = case.box_bytes if expect is None else expect
    opcode = f"cp.async.bulk.tensor.{len(case.dims)}d.{space}.global.tile"
    return f"""
{MAP}
@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], {size};
@%lead {opcode}.mbarrier::complete_tx::bytes [%base+{case.start}], {box_at(case.coords)}, [%base];
"""


def store(case: Case, operation: str = "") -> str:
    """Thread 0 has the box copied to the tensor, or combined into it."""
    kind = "cp.reduce.async.bulk" if operation else "cp.async.bulk"
    opcode = f"{kind}.tensor.{len(case.dims)}d.global.shared::cta{operation}.tile.bulk_group"
    return f"""
{MAP}
@%lead {opcode} {box_at(case.coords)}, [%base+{case.start}];
"""


def loaded(case: Case, memory: np.ndarray) -> np.ndarray:
    """The box in shared memory."""
    image = np.zeros(case.start + case.room + 1024, np.uint8)
    nan = bytes.fromhex({2: "f77f", 4: "f77ff77f"}.get(case.size, "00"))
    for shared, offset in case.elements():
        if offset is not None:
            image[shared : shared + case.size] = memory[offset : offset + case.size]
        elif case.fill == "nan":
            image[shared : shared + case.size] = np.frombuffer(nan, np.uint8)
    return image[case.start : case.start + case.room]


TILE = Case("bf16", (64, 16), (64, 16), (0, 0), 128)


def setting(case: Case = TILE, **more: object) -> dict[str, object]:
    memory = case.memory()
    return {"map": case.map(memory), "in": memory, "out": aligned(case.box_bytes, "u1"), **more}
