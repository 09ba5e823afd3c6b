"""Plans of tensor copies against a loop over elements, and on to matrix descriptors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from cute_layout import swizzled
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.layouts.operand import read_operand
from fa4gen.emulator.layouts.smem_descriptor import SmemDescriptor
from fa4gen.emulator.layouts.swizzle import Swizzle
from fa4gen.emulator.layouts.tma import TmaCopyPlan, box_addresses

BASE = 0x7F00_0000_0000


@dataclass(frozen=True)
class Map:
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_bytes: int = 2
    swizzle: Swizzle = Swizzle.NONE
    element_strides: tuple[int, ...] = ()
    address: int = BASE

    def __post_init__(self) -> None:
        if not self.element_strides:
            object.__setattr__(self, "element_strides", (1,) * len(self.dims))

    @property
    def rank(self) -> int:
        return len(self.dims)


def by_elements(m: Map, coords: tuple[int, ...], smem_start: int) -> dict[int, int | None]:
    """Shared byte -> global byte or None, from the text of the ISA, byte by byte."""
    steps = (1, *m.element_strides[1:])
    counts = [-(-b // s) for b, s in zip(m.box, steps, strict=True)]
    found: dict[int, int | None] = {}
    for e, reverse in enumerate(itertools.product(*(range(c) for c in reversed(counts)))):
        at = [c + i * s for c, i, s in zip(coords, reversed(reverse), steps, strict=True)]
        inside = all(0 <= x < d for x, d in zip(at, m.dims, strict=True))
        where = m.address + sum(x * s for x, s in zip(at, m.strides, strict=True))
        row, column = divmod(e, m.box[0])
        width = max(m.box[0] * m.element_bytes, m.swizzle.span_bytes)
        for byte in range(m.element_bytes):
            shared = smem_start + row * width + column * m.element_bytes + byte
            if m.swizzle is Swizzle.B128_ATOM32_FLIP8:
                moved = swizzled(shared, "B128_ATOM32") ^ (8 if shared >> 7 & 1 else 0)
            else:
                moved = swizzled(shared, m.swizzle.name)
            found[moved] = where + byte if inside else None
    return found


def by_plan(plan: TmaCopyPlan) -> dict[int, int | None]:
    found: dict[int, int | None] = {}
    inside = [True] * len(plan.smem) if plan.in_bounds is None else plan.in_bounds.tolist()
    pairs = zip(plan.smem.tolist(), plan.global_.tolist(), inside, strict=True)
    for shared, where, ok in pairs:
        assert shared % plan.granule_bytes == 0
        if ok:
            assert where % plan.granule_bytes == 0
        for byte in range(plan.granule_bytes):
            found[shared + byte] = where + byte if ok else None
    return found


CASES = [
    (Map((64, 40), (2, 128), (64, 8), swizzle=Swizzle.B128), (0, 8)),
    (Map((64, 40), (2, 128), (64, 8), swizzle=Swizzle.B128), (0, 36)),
    (Map((64, 40), (2, 128), (64, 8), swizzle=Swizzle.B128), (0, -3)),
    (Map((100, 40), (2, 208), (64, 4), swizzle=Swizzle.B128), (64, 1)),
    (Map((100, 40), (2, 208), (64, 4), swizzle=Swizzle.B128), (-8, 1)),
    (Map((37, 9), (2, 80), (32, 4), swizzle=Swizzle.B64), (8, 7)),
    (Map((33, 9), (1, 48), (32, 4), 1, Swizzle.B32), (16, 0)),
    (Map((64, 64), (4, 256), (32, 8), 4, Swizzle.B128_ATOM32), (32, 60)),
    (Map((64, 64), (4, 256), (32, 8), 4, Swizzle.B128_ATOM64), (4, -2)),
    (Map((64, 64), (4, 256), (32, 8), 4, Swizzle.B128_ATOM32_FLIP8), (0, 0)),
    (Map((1000,), (8,), (16,), 8), (990,)),
    (Map((16, 5, 6, 3, 2), (2, 32, 160, 960, 2880), (8, 2, 3, 2, 1)), (8, 4, -1, 2, 1)),
    (Map((32, 20), (2, 64), (16, 8), element_strides=(1, 3)), (0, 13)),
    (Map((32, 20), (2, 64), (16, 8), element_strides=(4, 3)), (8, -4)),
    (Map((64, 40), (2, 128), (8, 8), swizzle=Swizzle.B128), (8, 36)),
    (Map((64, 40), (2, 128), (24, 8), swizzle=Swizzle.B64), (48, -2)),
    (Map((64, 8), (2, 128), (64, 8)), (64, 0)),
    (Map((64, 8), (2, 128), (64, 8)), (-64, 100)),
    # Stride 0 repeats one row, as for a broadcast tensor.
    (Map((64, 8), (2, 0), (64, 4), swizzle=Swizzle.B128), (0, 6)),
]


@pytest.mark.parametrize(("tensor_map", "coords"), CASES, ids=str)
def test_plans_move_every_byte_of_the_box(tensor_map: Map, coords: tuple[int, ...]) -> None:
    for smem_start in (0x400, 0x1480, 3 << 24 | 0x800):
        plan = box_addresses(tensor_map, coords, smem_start)
        expected = by_elements(tensor_map, coords, smem_start)
        assert by_plan(plan) == expected
        assert plan.box_bytes == len(expected)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_plans_of_any_small_box(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    size = data.draw(st.sampled_from([1, 2, 4]))
    small = st.integers(1, 6)
    inner = data.draw(st.integers(1, 4)) * 16 // size
    fitting = [mode for mode in Swizzle if mode is Swizzle.NONE or inner * size <= mode.span_bytes]
    steps = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    dims = [data.draw(st.integers(1, 80)), *(data.draw(small) for _ in range(rank - 1))]
    strides = [size]
    for dim in dims[:-1]:
        strides.append(-(-strides[-1] * dim // 16) * 16)
    tensor_map = Map(
        tuple(dims),
        tuple(strides),
        (inner, *(data.draw(small) for _ in range(rank - 1))),
        size,
        data.draw(st.sampled_from(fitting)),
        tuple(steps),
    )
    outer = [data.draw(st.integers(-20, 8)) for _ in range(rank - 1)]
    coords = (data.draw(st.integers(-2, 6)) * 16 // size, *outer)
    start = data.draw(st.integers(0, 40)) * 128
    plan = box_addresses(tensor_map, coords, start)
    assert by_plan(plan) == by_elements(tensor_map, coords, start)


def test_granules_are_as_wide_as_bounds_allow() -> None:
    tensor_map = Map((100, 40), (2, 208), (64, 4), swizzle=Swizzle.B128)
    assert box_addresses(tensor_map, (0, 0), 0).granule_bytes == 16
    assert box_addresses(tensor_map, (0, 0), 0).in_bounds is None
    assert box_addresses(tensor_map, (64, 0), 0).granule_bytes == 8  # 36 elements are inside
    flipped = Map((32, 4), (4, 128), (32, 4), 4, Swizzle.B128_ATOM32_FLIP8)
    assert box_addresses(flipped, (0, 0), 0).granule_bytes == 8


def copy_in(
    memory: np.ndarray, tensor: np.ndarray, box: tuple[int, int], at: tuple[int, int], to: int,
    swizzle: Swizzle,
) -> None:  # fmt: skip
    """Load a (rows, columns) box of a row-major matrix, by the plan, as an emulator would."""
    rows, columns = tensor.shape
    size = tensor.itemsize
    tensor_map = Map(
        (columns, rows), (size, columns * size), (box[1], box[0]), size, swizzle, address=BASE
    )
    plan = box_addresses(tensor_map, (at[1], at[0]), to)
    source = tensor.view(np.uint8).ravel()
    lanes = np.arange(plan.granule_bytes)
    inside = np.ones(len(plan.smem), bool) if plan.in_bounds is None else plan.in_bounds
    memory[plan.smem[:, None] + lanes] = 0
    moved = source[(plan.global_ - BASE)[inside][:, None] + lanes]
    memory[plan.smem[inside][:, None] + lanes] = moved


def padded(tensor: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    whole = np.zeros((rows.stop, columns.stop), tensor.dtype)
    m, n = (min(a, b) for a, b in zip(whole.shape, tensor.shape, strict=True))
    whole[:m, :n] = tensor[:m, :n]
    return whole[rows, columns]


ROUND = [Swizzle.B32, Swizzle.B64, Swizzle.B128]


@pytest.mark.parametrize("swizzle", ROUND)
@pytest.mark.parametrize("first_row", [0, 64, 32])
def test_k_major_tiles_reach_the_descriptor(swizzle: Swizzle, first_row: int) -> None:
    rng = np.random.default_rng(0)
    tensor = rng.integers(0, 1 << 16, (90, 128), dtype=np.uint16)
    memory = np.full(1 << 16, 0xA5, np.uint8)
    columns = swizzle.span_bytes // 2
    start = 0x1000 + 128  # a multiple of 128 only: swizzles act on absolute addresses
    copy_in(memory, tensor, (64, columns), (first_row, 32), start, swizzle)
    for step in range(columns // 16):
        desc = SmemDescriptor(start + 32 * step, 16, 8 * swizzle.span_bytes, swizzle)
        got = read_operand(memory, desc, 64, 16, 16, False)
        wanted = slice(32 + 16 * step, 48 + 16 * step)
        expected = padded(tensor, slice(first_row, first_row + 64), wanted)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("swizzle", ROUND)
@pytest.mark.parametrize("bits", [8, 16])
def test_mn_major_tiles_reach_the_descriptor(swizzle: Swizzle, bits: int) -> None:
    # V: rows along k, head_dim contiguous; the last rows of the box are out of bounds.
    rng = np.random.default_rng(1)
    dtype = np.uint16 if bits == 16 else np.uint8
    k = 256 // bits
    tensor = rng.integers(0, np.iinfo(dtype).max, (40, 256), dtype)
    memory = np.full(1 << 16, 0xA5, np.uint8)
    columns = swizzle.span_bytes * 8 // bits
    blocks = 128 // columns
    block_bytes = 64 * swizzle.span_bytes
    for block in range(blocks):
        to = 0x400 + block * block_bytes
        copy_in(memory, tensor, (64, columns), (0, columns * block), to, swizzle)
    for step in range(64 // k):
        start = 0x400 + step * k * swizzle.span_bytes
        desc = SmemDescriptor(start, block_bytes, 8 * swizzle.span_bytes, swizzle)
        got = read_operand(memory, desc, 128, k, bits, True)
        expected = padded(tensor, slice(step * k, step * k + k), slice(0, 128)).T
        np.testing.assert_array_equal(got, expected)


def test_tf32_mn_major_tiles_take_the_32_byte_atom() -> None:
    rng = np.random.default_rng(2)
    tensor = rng.integers(0, 1 << 32, (30, 64), dtype=np.uint32)
    memory = np.zeros(1 << 15, np.uint8)
    for block in range(2):
        copy_in(
            memory, tensor, (32, 32), (0, 32 * block), 0x400 + 4096 * block, Swizzle.B128_ATOM32
        )
    for step in range(4):
        desc = SmemDescriptor(0x400 + 1024 * step, 4096, 512, Swizzle.B128_ATOM32)
        got = read_operand(memory, desc, 64, 8, 32, True)
        expected = padded(tensor, slice(8 * step, 8 * step + 8), slice(0, 64)).T
        np.testing.assert_array_equal(got, expected)


def test_unswizzled_tiles_take_a_box_per_chunk_column() -> None:
    # Core matrices of 8 rows x 16 bytes: the box is (8 columns, all rows), one per chunk.
    rng = np.random.default_rng(3)
    tensor = rng.integers(0, 1 << 16, (64, 16), dtype=np.uint16)
    memory = np.zeros(1 << 14, np.uint8)
    for chunk in range(2):
        copy_in(memory, tensor, (64, 8), (0, 8 * chunk), 0x400 + 1024 * chunk, Swizzle.NONE)
    desc = SmemDescriptor(0x400, 1024, 128, Swizzle.NONE)
    np.testing.assert_array_equal(read_operand(memory, desc, 64, 16, 16, False), tensor)


def test_copies_that_hardware_refuses() -> None:
    tensor_map = Map((64, 40), (2, 128), (64, 8), swizzle=Swizzle.B128)
    with pytest.raises(KernelFault, match="3 coordinates for a tensor map of rank 2"):
        box_addresses(tensor_map, (0, 0, 0), 0x400)
    for coordinate in (4, -1, 1001):
        with pytest.raises(KernelFault, match=f"first coordinate of {coordinate}"):
            box_addresses(tensor_map, (coordinate, 0), 0x400)
    with pytest.raises(KernelFault, match="0x410 is 16 past a multiple of 128"):
        box_addresses(tensor_map, (0, 0), 0x410)
    for mode in ("im2col", "tile::gather4"):
        with pytest.raises(UnsupportedInstruction, match=f"got .{mode}"):
            box_addresses(tensor_map, (0, 0), 0x400, mode)
    with pytest.raises(KernelFault, match=r"12 elements \* 2 bytes = 24 bytes, allowed: mult"):
        box_addresses(Map((64, 40), (2, 128), (12, 8)), (0, 0), 0x400)
    wide = Map((64, 40), (2, 128), (64, 8), swizzle=Swizzle.B64)
    with pytest.raises(KernelFault, match="allowed with swizzle B64: 64"):
        box_addresses(wide, (0, 0), 0x400)
