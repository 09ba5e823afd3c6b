"""Tensor memory: accumulators, A, tcgen05.ld/st/cp and narrow operands."""

from __future__ import annotations

import numpy as np
import pytest
from cute_layout import Nested, offset

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.layouts import narrow_operands
from fa4gen.emulator.layouts.tensor_memory import (
    COLUMNS,
    LANES,
    accumulator_layout,
    copy_layout,
    operand_columns,
    operand_from_cells,
)
from fa4gen.emulator.layouts.tensor_memory_access import load_cells, store_cells, tmem_access

LAYOUTS = [
    # letter, arguments, (m, n, N) -> (CTA, lane, column), spelt out as in PTX ISA 9.7.16.10.5
    ("A", (256, 96, 2), lambda m, n, width: (m // 128, m % 128, n)),
    (
        "B",
        (128, 96, 2),
        lambda m, n, width: (m // 64, m % 64 + 64 * (n >= width // 2), n % (width // 2)),
    ),
    (
        "C",
        (128, 48, 2, False, True),
        lambda m, n, width: (m // 64, m % 16 + 32 * (m % 64 // 16), n),
    ),
    ("D", (128, 40, 1), lambda m, n, width: (0, m, n)),
    ("E", (64, 64, 1, True), lambda m, n, width: (0, m + 64 * (n >= width // 2), n % (width // 2))),
    ("F", (64, 72, 1), lambda m, n, width: (0, m % 16 + 32 * (m // 16), n)),
    (
        "G",
        (32, 128, 1, True),
        lambda m, n, width: (0, m + 32 * (n // (width // 4)), n % (width // 4)),
    ),
]


@pytest.mark.parametrize(("letter", "arguments", "place"), LAYOUTS, ids="ABCDEFG")
def test_accumulator_layouts(letter: str, arguments: tuple[int, ...], place: object) -> None:
    layout = accumulator_layout(*arguments)
    assert layout.letter == letter
    cta, lane, column = layout.index()
    m, n = arguments[:2]
    for row in range(m):
        for col in range(n):
            assert (cta[row, col], lane[row, col], column[row, col]) == place(row, col, n)
    assert layout.columns == column.max() + 1


@pytest.mark.parametrize(("letter", "arguments", "place"), LAYOUTS, ids="ABCDEFG")
def test_no_two_elements_share_a_cell(
    letter: str, arguments: tuple[int, ...], place: object
) -> None:
    cta, lane, column = accumulator_layout(*arguments).index()
    cells = (cta * LANES + lane) * COLUMNS + column
    assert cta.min() >= 0
    assert lane.max() < LANES
    assert len(np.unique(cells)) == cells.size


def test_the_half_used_layouts_may_start_at_lane_16() -> None:
    for arguments in ((64, 8, 1), (128, 16, 2, False, True)):
        low = accumulator_layout(*arguments).index()[1]
        padded = (*arguments, *(False,) * (5 - len(arguments)))
        np.testing.assert_array_equal(accumulator_layout(*padded, 16).index()[1], low + 16)
    with pytest.raises(KernelFault, match="starts at lane 16, allowed: 0"):
        accumulator_layout(128, 8, 1, base_lane=16)
    with pytest.raises(KernelFault, match="starts at lane 32, allowed: 0 or 16"):
        accumulator_layout(64, 8, 1, base_lane=32)


def test_impossible_accumulators() -> None:
    with pytest.raises(KernelFault, match="M = 256 with cta_group::1, allowed: 128, 64"):
        accumulator_layout(256, 64, 1)
    with pytest.raises(KernelFault, match=r"cta_group::2 and \.ws, allowed: nothing"):
        accumulator_layout(128, 64, 2, ws=True)


def test_a_of_a_pair_with_128_rows_is_stored_twice() -> None:
    blocks = accumulator_layout(128, 64, 2).blocks
    first = [block for block in blocks if block.cta == 0]
    assert [(b.rows, b.lanes) for b in first] == [
        (slice(0, 64), slice(0, 64)),
        (slice(0, 64), slice(64, 128)),
    ]


def test_a_in_tensor_memory_packs_neighbours_along_k() -> None:
    cells = np.uint32([[0x0002_0001, 0x0004_0003]])
    assert operand_from_cells(cells, 16).tolist() == [[1, 2, 3, 4]]
    assert operand_from_cells(cells[:, :1], 8).tolist() == [[1, 0, 2, 0]]
    # Every kind reads eight columns per instruction.
    for k, bits in ((16, 16), (32, 8), (8, 32), (32, 6), (32, 4)):
        assert operand_columns(k, bits) == 8


# CUTLASS copy_traits_sm100.hpp, the .x4 forms: (thread, bit) -> bit of a dense 16- or 32-row image
# whose rows are `width` bits.
LOADS: list[tuple[str, int, Nested, Nested]] = [
    ("32x32b", 128, (32, 128), (128, 1)),
    ("16x64b", 256, ((2, 2, 8), (32, 4)), ((2048, 32, 256), (1, 64))),
    ("16x128b", 512, ((4, 8), (32, 2, 4)), ((32, 512), (1, 4096, 128))),
    ("16x256b", 1024, ((4, 8), (64, 2, 4)), ((64, 1024), (1, 8192, 256))),
    ("16x32bx2", 256, ((16, 2), 128), ((256, 128), 1)),
]


@pytest.mark.parametrize(("shape", "width", "cute", "stride"), LOADS, ids=[x[0] for x in LOADS])
@pytest.mark.parametrize("packed", [False, True])
def test_load_shapes_are_those_of_cute(
    shape: str, width: int, cute: Nested, stride: Nested, packed: bool
) -> None:
    access = tmem_access(shape, 4, packed, half_split=8 if packed else 4)
    for register in range(access.registers):
        for thread in range(32):
            bit = offset(cute, stride, thread + 32 * (32 * register))
            lane, column = bit // width, bit % width // 32
            got = (access.lane[register, thread], access.column[register, thread])
            # Packed, the image has 16 bits per column: twice the columns.
            assert got == (lane, column * 2 if packed else column)
    assert access.lanes == (32 if shape == "32x32b" else 16)
    assert access.columns == width // 32 * (2 if packed else 1)


@pytest.mark.parametrize("shape", ["32x32b", "16x64b", "16x128b", "16x256b", "16x32bx2"])
@pytest.mark.parametrize("num", [1, 2, 16, 32])
@pytest.mark.parametrize("packed", [False, True])
def test_loads_undo_stores(shape: str, num: int, packed: bool) -> None:
    access = tmem_access(shape, num, packed, half_split=2 * num)
    cells = np.full((32, COLUMNS), 0xDEADBEEF, np.uint32)
    rng = np.random.default_rng(0)
    registers = rng.integers(0, 2**32, (access.registers, 32), dtype=np.uint32)
    store_cells(access, cells, registers)
    np.testing.assert_array_equal(load_cells(access, cells), registers)
    written = cells != 0xDEADBEEF
    assert written.sum() == registers.size * (1 + packed)
    if packed:
        assert not (cells[written] >> 16).any()
        one = access.lane[0, 9], access.column[0, 9]
        assert cells[one] == registers[0, 9] & 0xFFFF
        assert cells[one[0], one[1] + 1] == registers[0, 9] >> 16


def test_register_counts() -> None:
    # PTX ISA Table 49.
    for shape, top, registers in (
        ("32x32b", 128, 128), ("16x64b", 128, 128), ("16x32bx2", 128, 128),
        ("16x128b", 64, 128), ("16x256b", 32, 128),
    ):  # fmt: skip
        assert tmem_access(shape, top).registers == registers
        with pytest.raises(UnsupportedInstruction, match="= 256 registers"):
            tmem_access(shape, 2 * top)
    with pytest.raises(UnsupportedInstruction, match=r"\.x3"):
        tmem_access("32x32b", 3)
    with pytest.raises(UnsupportedInstruction, match=r"got \.8x8b"):
        tmem_access("8x8b", 1)


def test_copies_to_tensor_memory() -> None:
    plain = copy_layout("128x256b")
    assert (plain.rows, plain.columns) == (128, 8)
    np.testing.assert_array_equal(plain.row, plain.lane)
    assert copy_layout("4x256b").lane.tolist() == [0, 32, 64, 96]
    by_lane = {shape: np.full(LANES, -1) for shape in ("02_13", "01_23", "warpx4")}
    for shape, full in (
        ("02_13", "64x128b.warpx2::02_13"),
        ("01_23", "64x128b.warpx2::01_23"),
        ("warpx4", "32x128b.warpx4"),
    ):
        layout = copy_layout(full)
        by_lane[shape][layout.lane] = layout.row
        assert layout.columns == 4
    quarters = {shape: rows.reshape(4, 32) for shape, rows in by_lane.items()}
    low, high = np.arange(32), np.arange(32, 64)
    # The name says which warps' quarters get the same rows.
    np.testing.assert_array_equal(quarters["02_13"], [low, high, low, high])
    np.testing.assert_array_equal(quarters["01_23"], [low, low, high, high])
    np.testing.assert_array_equal(quarters["warpx4"], [low] * 4)
    with pytest.raises(UnsupportedInstruction, match=r"got \.64x128b,"):
        copy_layout("64x128b")


@pytest.mark.parametrize("bits", [4, 6])
def test_narrow_operands(bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, (5, 16), dtype=np.uint8)
    word = [sum(int(code) << bits * i for i, code in enumerate(row)) for row in codes]
    chunks = np.array([list(w.to_bytes(16, "little")) for w in word], np.uint8)
    chunks[:, bits * 2 :] = 0xFF  # padding
    np.testing.assert_array_equal(narrow_operands.unpack_padded(chunks, bits), codes)
    holders = narrow_operands.to_holders(codes, bits)
    outside = {4: 0b11000011, 6: 0b10000001}[bits]
    assert not (holders & outside).any()
    np.testing.assert_array_equal(narrow_operands.from_holders(holders | outside, bits), codes)
    with pytest.raises(UnsupportedInstruction, match="elements of 5 bits"):
        narrow_operands.to_holders(codes, 5)
