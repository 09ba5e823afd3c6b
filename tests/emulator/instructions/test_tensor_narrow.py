"""Tensor copies of elements of 4 and 6 bits, held to loops over their chunks of 16.

The type of a map with padding is that of CUTLASS's example ``cp_narrow_a_to_tmem_mma``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from async_kernels import FEW, aligned, init, run, wait
from tensor_cases import MAP, START, out_of_shared, swizzle

from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.launch.tensormap import TensorMap, encode

CHUNK_BYTES = {"b4x16": 8, "b4x16_p64": 8, "b6x16_p32": 12}
SHARED_BYTES = {"b4x16": 8, "b4x16_p64": 16, "b6x16_p32": 16}


@dataclass(frozen=True)
class Narrow:
    """A tensor of rows of elements, and a box of 128 by 8 of it."""

    dtype: str
    coords: tuple[int, int]
    span: int = 0
    elements: int = 256
    rows: int = 12

    @property
    def row_bytes(self) -> int:
        return self.elements // 16 * CHUNK_BYTES[self.dtype] + 32

    @property
    def copied(self) -> int:
        return 8 * 8 * CHUNK_BYTES[self.dtype]

    @property
    def shared(self) -> int:
        return 8 * 8 * SHARED_BYTES[self.dtype]

    def memory(self) -> np.ndarray:
        data = aligned(self.rows * self.row_bytes, "u1")
        data[:] = np.random.default_rng(5).integers(1, 255, len(data))
        return data

    def map(self, memory: np.ndarray) -> bytes:
        return encode(
            TensorMap(
                address=memory.ctypes.data,
                dtype=self.dtype,
                dims=(self.elements, self.rows),
                strides=(0, self.row_bytes),
                box=(128, 8),
                swizzle=self.span,
            )
        )

    def bytes(self) -> dict[int, int | None]:
        """Offsets in the tensor by offsets in shared memory, ``None`` out of bounds."""
        found: dict[int, int | None] = {}
        size, room = CHUNK_BYTES[self.dtype], SHARED_BYTES[self.dtype]
        for row in range(8):
            for chunk in range(8):
                at = self.coords[0] // 16 + chunk, self.coords[1] + row
                inside = 0 <= at[0] < self.elements // 16 and 0 <= at[1] < self.rows
                for byte in range(size):
                    shared = START + (row * 8 + chunk) * room + byte
                    shared = swizzle(0x400 + shared, self.span, "16B") - 0x400
                    offset = at[1] * self.row_bytes + at[0] * size + byte
                    found[shared] = offset if inside else None
        return found


CASES = [
    Narrow("b4x16", (0, 0)),
    Narrow("b4x16", (64, -3), 64),
    Narrow("b4x16", (192, 6), 64),
    Narrow("b4x16_p64", (0, 0)),
    Narrow("b4x16_p64", (128, -2), 128),
    Narrow("b6x16_p32", (128, 3)),
    Narrow("b6x16_p32", (-128, 0), 128),
    Narrow("b6x16_p32", (0, 7), 128),
]


def load(case: Narrow, coords: tuple[int, int], expected: int) -> str:
    return f"""
{MAP}
@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], {expected};
@%lead cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes
  [%base+{START}], [%rd10, {{{coords[0]}, {coords[1]}}}], [%base];
"""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("policy", FEW)
def test_loads(case: Narrow, policy: str) -> None:
    """Chunks apart, padding of no defined value, and only the elements count for the mbarrier."""
    memory, out = case.memory(), aligned(case.shared, "u1")
    body = init(1) + load(case, case.coords, case.copied) + wait("%base", 0)
    arguments = {"map": case.map(memory), "in": memory, "out": out}
    emulation = run(body + out_of_shared(START, case.shared), arguments, policy, smem=8192)
    assert emulation.findings == ()
    for shared, offset in case.bytes().items():
        assert out[shared - START] == (0 if offset is None else memory[offset])


def test_coordinates_are_those_of_whole_boxes() -> None:
    for dtype, at, step in (("b4x16", 32, 64), ("b4x16_p64", 64, 128), ("b6x16_p32", 16, 128)):
        case = Narrow(dtype, (0, 0))
        memory = case.memory()
        body = init(1) + load(case, (at, 0), case.copied)
        (found,) = run(body, {"map": case.map(memory), "in": memory}, smem=8192).findings
        assert found.kind is FindingKind.FAULT
        assert f"got {at} as the first coordinate for {dtype}, allowed: multiples of {step}" in (
            found.message
        )


def test_a_padded_box_must_not_reach_over_the_end() -> None:
    """The last chunk's padding is a part of the box."""
    case = Narrow("b4x16_p64", (0, 0))
    memory = case.memory()
    body = init(1) + load(case, (0, 0), case.copied)
    arguments = {"map": case.map(memory), "in": memory}
    (found,) = run(body, arguments, smem=START + case.shared - 8).findings
    assert found.kind is FindingKind.FAULT
    assert f"allowed: 0 to {START + case.shared - 9}" in found.message


def test_padded_chunks_are_not_stored() -> None:
    case = Narrow("b6x16_p32", (0, 0))
    memory = case.memory()
    body = f"""
{MAP}
@%lead cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group
  [%rd10, {{0, 0}}], [%base+{START}];
"""
    (found,) = run(body, {"map": case.map(memory), "in": memory}, smem=8192).findings
    assert "whose chunks are padded; not emulated" in found.message
