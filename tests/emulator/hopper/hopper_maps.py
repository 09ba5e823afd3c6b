"""Tensor maps: what ``tensormap.replace`` writes, and the maps that the driver makes.

The driver's maps are no kernels: :func:`driver_cases` says which are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from hopper_draw import Draw
from hopper_kernel import Agreement, Kernel, Launch, Output
from hopper_pieces import copy_in, copy_out, lead

from fa4gen.emulator.launch.tensormap import TensorMap, encode

PLAIN = TensorMap(
    address=0x7F00_0000_0000,
    dtype="f16",
    dims=(256, 512, 3),
    strides=(2, 512, 1 << 18),
    box=(64, 32, 1),
)
DIMENSIONS = (("box_dim", 32), ("global_dim", 32), ("element_stride", 32))
LITERAL = ("elemtype", "swizzle_mode", "fill_mode", "interleave_layout")
"""Fields whose value has to be a literal."""
STRIDES = (512, 0x1_2345_6780, 0xFE_DCBA_9870)


def replacements() -> Iterator[Kernel]:
    """Every field, one map each, behind each other."""
    fields = [
        ("global_address.shared::cta.b1024.b64", "0x7f1234567890"),
        ("rank.shared::cta.b1024.b32", "4"),
    ]
    for name, _ in DIMENSIONS:
        fields += [
            (f"{name}.shared::cta.b1024.b32", f"{axis}, {value}")
            for axis in range(5)
            for value in ((3, 200) if name != "element_stride" else (2, 8))
        ]
    fields += [
        ("global_stride.shared::cta.b1024.b64", f"{axis}, {value:#x}")
        for axis in range(4)
        for value in STRIDES
    ]
    for name, count in (("elemtype", 13), ("swizzle_mode", 4), ("fill_mode", 2)):
        fields += [(f"{name}.shared::cta.b1024.b32", str(value)) for value in range(count)]
    fields += [("interleave_layout.shared::cta.b1024.b32", str(value)) for value in range(3)]
    body = copy_in("%data", 0, 128 * len(fields), 32)
    steps = ""
    for row, (field, operands) in enumerate(fields):
        *numbers, value = operands.split(", ")
        number = f"{numbers[0]}, " if numbers else ""
        bits, register = (64, "%rd10") if field.endswith("b64") else (32, "%r10")
        if field.partition(".")[0] in LITERAL:
            given = value
        else:
            given, steps = register, steps + f"mov.b{bits} {register}, {value};\n"
        steps += f"tensormap.replace.tile.{field} [%base+{128 * row}], {number}{given};\n"
    # What a real map holds in the fields that a replacement leaves alone, and any bits.
    plain = np.frombuffer(encode(PLAIN), np.uint8)
    noise = Draw("maps").u8(128)
    for name, start in (("plain", plain), ("noise", noise)):
        yield Kernel(
            name=f"tensor/replace-{name}",
            question="ptx.md question 5: where tensormap.replace puts each field",
            body=body + lead(steps) + copy_out("%out", 0, 128 * len(fields), 32),
            arguments={"data": np.tile(start, len(fields))},
            outputs={"out": Output((len(fields), 128), "uint8", Agreement.MODEL)},
            launch=Launch(smem=128 * len(fields)),
            why="a tensor map is opaque",
        )


@dataclass(frozen=True)
class DriverCase:
    """One call of ``cuTensorMapEncodeTiled``; numbers are those of ``cuda.h``.

    Attributes:
        map: What the call says, as far as :class:`TensorMap` can.
        dtype: A ``CUtensorMapDataType``, where it is not the map's.
        interleave, l2: ``CUtensorMapInterleave`` and ``CUtensorMapL2promotion``.
    """

    name: str
    map: TensorMap
    dtype: int | None = None
    interleave: int = 0
    l2: int = 2

    @property
    def modelled(self) -> bool:
        """Whether :func:`encode` claims the bits."""
        return self.dtype is None and self.interleave == 0 and self.l2 == 2


def software_words(t: TensorMap) -> list[int]:
    """Words 8 and 9 of the driver's maps: bytes of a box, and how shared memory is aligned.

    The driver rounds the elements of a box with element strides down, and copies round them up.
    """
    counts = [box // step for box, step in zip(t.box, t.element_strides, strict=True)]
    return [int(np.prod(counts)) * t.element_bytes, 8 * t.swizzle or 16]


BY_BYTES = {
    "u8": 1,
    "u16": 2,
    "u32": 4,
    "s32": 4,
    "u64": 8,
    "s64": 8,
    "bf16": 2,
    "f32": 4,
    "f64": 8,
}
PACKED = {"16u4_align8b": 13, "16u4_align16b": 14, "16u6_align16b": 15}


def driver_cases() -> Iterator[DriverCase]:
    """Calls that vary one field each."""
    yield DriverCase("plain", PLAIN)
    for dtype, size in (*BY_BYTES.items(), ("f32.ftz", 4)):
        strides = (size, 256 * size, 1 << 20)
        yield DriverCase(
            dtype, replace(PLAIN, dtype=dtype, strides=strides, box=(64 // size, 16, 2))
        )
    wide = replace(PLAIN, dtype="f32", strides=(4, 1024, 1 << 19), box=(32, 8, 1))
    yield DriverCase("tf32", replace(wide, tf32=True))
    yield DriverCase("tf32.ftz", replace(wide, dtype="f32.ftz", tf32=True))
    for l2 in (0, 1, 3):
        yield DriverCase(f"l2-{l2}", PLAIN, l2=l2)
    yield DriverCase("nan", replace(PLAIN, oob_fill="nan"))
    for span in (32, 64, 128):
        yield DriverCase(f"swizzle-{span}", replace(PLAIN, swizzle=span, box=(span // 2, 8, 1)))
    for atom in ("32B", "32B+8B", "64B"):
        t = replace(PLAIN, swizzle=128, swizzle_atomicity=atom)
        yield DriverCase(f"swizzle-128-{atom}", t)
    for axis in range(3):
        steps = tuple(3 if i == axis else 1 for i in range(3))
        yield DriverCase(f"element-stride-{axis}", replace(PLAIN, element_strides=steps))
    for interleave in (1, 2):
        yield DriverCase(f"interleave-{16 * interleave}b", PLAIN, interleave=interleave)
    for name, number in PACKED.items():
        t = replace(PLAIN, dtype="u8", strides=(1, 512, 1 << 18), box=(128, 8, 1))
        yield DriverCase(name, t, dtype=number)
    yield DriverCase("far-apart", replace(PLAIN, strides=(2, 16 + (1 << 38), 16 + (1 << 37))))
    for rows in (1, 2, 255, 256, 257, 512):
        t = TensorMap(PLAIN.address, "bf16", (256, rows), (2, 512), (64, 1))
        yield DriverCase(f"rows-{rows}", t)
    for rank in (1, 2, 4, 5):
        steps = (2, *(128 << 8 * i for i in range(rank - 1)))
        t = TensorMap(PLAIN.address, "bf16", (64,) * rank, steps, (8,) * rank)
        yield DriverCase(f"rank-{rank}", t)
    one = TensorMap(PLAIN.address, "u8", (1 << 32,), (1,), (256,))
    yield DriverCase("one-dimension", one)


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    yield from replacements()
