"""Tensor copies: kernels for any tensor map, and what they do, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hopper_draw import Draw
from hopper_kernel import (
    FILLER,
    SOMEWHERE,
    Agreement,
    Array,
    Arrays,
    Kernel,
    Launch,
    MapOf,
    Output,
)
from hopper_pieces import PROXY_FENCE, copy_in, copy_out, fill, init, lead, wait

from fa4gen.emulator.launch.tensormap import ELEMENT_BYTES, TensorMap

Coordinates = tuple[int, ...]
Index = npt.NDArray[np.int64]
DATA = 1024
"""Byte of shared memory that boxes go to; the mbarrier is at 0."""
FILL = 0xA5
LANES = 32
_SWIZZLES = {
    (0, "16B"): (0, 4, 3), (32, "16B"): (1, 4, 3), (64, "16B"): (2, 4, 3), (128, "16B"): (3, 4, 3),
    (128, "32B"): (2, 5, 2), (128, "64B"): (1, 6, 1), (128, "32B+8B"): (2, 5, 2),
}  # fmt: skip
"""Bits, base and shift of CuTe's ``Swizzle``."""


def tensor_map(dtype: str, dims: tuple[int, ...], box: tuple[int, ...], **more: Any) -> TensorMap:
    """A map of a tensor whose rows are padded to 32 bytes, and of its own elsewhere."""
    size = ELEMENT_BYTES[dtype]
    strides = [size]
    for extent in dims[:-1]:
        strides.append(-(-strides[-1] * extent // 32) * 32)
    strides = list(more.pop("strides", strides))
    return TensorMap(SOMEWHERE, dtype, dims, tuple(strides), box, **more)


def buffer_bytes(t: TensorMap) -> int:
    """Size of a buffer that holds the tensor, a multiple of 16."""
    return -(-t.span_bytes // 16) * 16


def box_bytes(t: TensorMap) -> int:
    """Bytes of a full box. Dimension 0 has no element stride, whatever the map says (CUDA driver
    API, cuTensorMapEncodeTiled)."""
    steps = (1, *t.element_strides[1:])
    counts = [-(-b // s) for b, s in zip(t.box, steps, strict=True)]
    return int(np.prod(counts)) * t.element_bytes


def room_bytes(t: TensorMap) -> int:
    """Shared memory that a box takes: with a swizzle, rows are as far apart as it spans (CUDA C++
    programming guide, 10.30: shared memory has to accommodate the full swizzle width)."""
    inner = t.box[0] * t.element_bytes
    return -(-box_bytes(t) // inner * max(inner, t.swizzle) // 512) * 512


def boxed(
    t: TensorMap, coordinates: Coordinates, start: int = 0
) -> tuple[Index, Index, npt.NDArray[np.bool_]]:
    """For each element of a box: byte in shared memory behind the box's, byte in the tensor, and
    whether it is in bounds (PTX ISA 5.5.3, 5.5.7); ``start`` is where it begins."""
    size = t.element_bytes
    steps = (1, *t.element_strides[1:])
    counts = [-(-b // s) for b, s in zip(t.box, steps, strict=True)]
    number = np.arange(int(np.prod(counts)))
    where, inside, rest = np.zeros_like(number), np.ones(len(number), bool), number
    for axis, count in enumerate(counts):
        at = coordinates[axis] + rest % count * steps[axis]
        rest = rest // count
        inside &= (at >= 0) & (at < t.dims[axis])
        where += at * t.strides[axis]
    bits, base, shift = _SWIZZLES[t.swizzle, t.swizzle_atomicity]
    row, column = np.divmod(number, counts[0])
    linear = row * max(counts[0] * size, t.swizzle) + column * size + start
    shared = linear ^ ((linear >> (base + shift)) & (1 << bits) - 1) << base
    if t.swizzle_atomicity == "32B+8B":
        shared = shared ^ (linear >> 7 & 1) << 3
    return shared, where, inside


@dataclass(frozen=True)
class Load:
    """Boxes of one tensor loaded one after the other.

    Attributes:
        shift: Bytes behind :data:`DATA` that boxes go to.
        faults: As of :class:`Kernel`.
    """

    name: str
    question: str
    map: TensorMap
    boxes: Sequence[Coordinates]
    agreement: Agreement = Agreement.BITS
    why: str = ""
    data: Array | None = None
    modifiers: str = ""
    """``.L2::cache_hint``."""
    space: str = "shared::cluster"
    only_gpu: str = ""
    shift: int = 0
    faults: int = 0

    @property
    def room(self) -> int:
        """Bytes of shared memory that hold a box."""
        return room_bytes(self.map) + -(-self.shift // 512) * 512

    def kernel(self) -> Kernel:
        """Its output is shared memory as each load leaves it."""
        data = self.data
        if data is None:
            data = _numbers(self.name, self.map)
        body, target = init(1), f"%base+{DATA + self.shift}"
        for number, box in enumerate(self.boxes):
            body += fill(DATA, self.room, LANES, FILL * 0x01010101) + PROXY_FENCE + "bar.sync 0;\n"
            body += lead(
                f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {box_bytes(self.map)};\n"
                + load(self.map, box, target, space=self.space, modifiers=self.modifiers)
            )
            body += wait("%base", number & 1, number + 1)
            body += f"add.u64 %rd20, %out, {number * self.room};\n"
            body += copy_out("%rd20", DATA, self.room, LANES)
        shape = (len(self.boxes), self.room)
        checked = self.map.dtype != "f32.ftz" and not self.map.tf32
        checked = checked and self.map.oob_fill == "zero" and not self.faults
        return Kernel(
            name=f"tensor/{self.name}",
            question=self.question,
            body=body,
            arguments={"data": data, "map": MapOf("data", self.map)},
            outputs={"out": Output(shape, "uint8", self.agreement)},
            launch=Launch(block=LANES, smem=DATA + self.room),
            expected=self._expected if checked else None,
            why=self.why,
            only_gpu=self.only_gpu,
            waits=True,
            faults=self.faults,
        )

    def _expected(self, inputs: Arrays) -> Arrays:
        raw, size = inputs["data"].view(np.uint8), self.map.element_bytes
        out = np.full((len(self.boxes), self.room), FILL, np.uint8)
        byte = np.arange(size)
        for row, box in zip(out, self.boxes, strict=True):
            shared, where, inside = boxed(self.map, box, self.shift)
            values = raw[np.where(inside, where, 0)[:, None] + byte]
            row[shared[:, None] + byte] = np.where(inside[:, None], values, 0)
        return {"out": out}


def load(
    t: TensorMap,
    box: Coordinates | str,
    target: str,
    barrier: str = "%base",
    space: str = "shared::cluster",
    modifiers: str = "",
) -> str:
    """PTX of one load."""
    at = box if isinstance(box, str) else ", ".join(map(str, box))
    hint = ", 0x1000000000000000" if "cache_hint" in modifiers else ""
    return (
        f"cp.async.bulk.tensor.{t.rank}d.{space}.global.tile.mbarrier::complete_tx::bytes{modifiers}"
        f" [{target}], [%map, {{{at}}}], [{barrier}]{hint};\n"
    )


def _numbers(name: str, t: TensorMap) -> Array:
    """Contents of a tensor: any bytes, but f32 without NaN where it is rounded."""
    return Draw(name).u8(buffer_bytes(t))


@dataclass(frozen=True)
class Store:
    """Boxes stored to a tensor, or combined with it, one after the other from one place.

    Attributes:
        operation: ``add`` ...; empty to store.
        data: Shared memory, ``(boxes, bytes)``; random if left out.
        before: The tensor's buffer; :data:`FILLER` where left out.
        faults: As of :class:`Kernel`.
    """

    name: str
    question: str
    map: TensorMap
    boxes: Sequence[Coordinates]
    operation: str = ""
    data: Array | None = None
    before: Array | None = None
    agreement: Agreement = Agreement.BITS
    why: str = ""
    faults: int = 0

    def kernel(self) -> Kernel:
        """Its output is the tensor's buffer."""
        room = room_bytes(self.map)
        data = self.data
        if data is None:
            data = Draw(self.name).u8(room * len(self.boxes))
        raw = data.view(np.uint8).reshape(len(self.boxes), room)
        opcode = "cp.reduce" if self.operation else "cp"
        how = f".{self.operation}" if self.operation else ""
        body = ""
        for number, box in enumerate(self.boxes):
            at = ", ".join(map(str, box))
            body += f"add.u64 %rd20, %data, {number * room};\n"
            body += copy_in("%rd20", DATA, room, LANES) + PROXY_FENCE + "bar.sync 0;\n"
            body += lead(
                f"{opcode}.async.bulk.tensor.{self.map.rank}d.global.shared::cta{how}.tile.bulk_group"
                f" [%map, {{{at}}}], [%base+{DATA}];\n"
                "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;\n"
            )
        size = buffer_bytes(self.map)
        before = (
            np.full(size, FILLER, np.uint8) if self.before is None else self.before.view(np.uint8)
        )
        return Kernel(
            name=f"tensor/{self.name}",
            question=self.question,
            body=body,
            arguments={"data": raw, "map": MapOf("out", self.map)},
            outputs={"out": Output((len(before),), "uint8", self.agreement, start=before)},
            launch=Launch(block=LANES, smem=DATA + room),
            expected=None if self.operation or self.faults else self._expected,
            why=self.why,
            faults=self.faults,
        )

    def _expected(self, inputs: Arrays) -> Arrays:
        """Rows of the tensor that end within 16 bytes are written to their end."""
        out = np.full(buffer_bytes(self.map), FILLER, np.uint8)
        byte, per = np.arange(self.map.element_bytes), 16 // self.map.element_bytes
        written = replace(self.map, dims=(-(-self.map.dims[0] // per) * per, *self.map.dims[1:]))
        for row, box in zip(inputs["data"], self.boxes, strict=True):
            shared, where, inside = boxed(written, box)
            out[where[inside][:, None] + byte] = row[shared[inside][:, None] + byte]
        return {"out": out}
