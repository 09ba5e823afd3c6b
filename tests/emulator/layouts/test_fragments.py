"""Register fragments against CuTe's layouts of the same instructions, and by round trips."""

from __future__ import annotations

import numpy as np
import pytest
from cute_layout import Nested, offset

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.layouts.fragments import (
    Fragment,
    accumulator,
    fragment_to_matrix,
    matrices_8x8,
    matrix_to_fragment,
    operand_a,
    operand_b,
)

ROW_16X8 = (((4, 8), (2, 2)), ((32, 1), (16, 8)))


def wgmma_d(n: int) -> tuple[Nested, Nested]:
    """CLayout_64xN without its four warps, for 16 rows: strides count from (row, column) =
    row + 64 * column there."""
    return ((4, 8), (2, 2, n // 8)), ((128, 1), (64, 8, 512))


CUTE = [
    # fragment, thread-value layout, rows of its column-major index space
    (accumulator(8), ROW_16X8, 16),
    (accumulator(8, 16), ROW_16X8, 16),
    (operand_a(16, 16), (((4, 8), (2, 2, 2)), ((32, 1), (16, 8, 128))), 16),
    (operand_b(16, 16), (((4, 8), (2, 2)), ((16, 1), (8, 64))), 8),
    (operand_a(8, 16), ROW_16X8, 16),
    (operand_b(8, 16), (((4, 8), (2,)), ((16, 1), (8,))), 8),
    (operand_a(8, 32), (((4, 8), (2, 2)), ((16, 1), (8, 64))), 16),
    (operand_b(8, 32), (((4, 8), (2,)), ((8, 1), (32,))), 8),
    (operand_a(32, 8), (((4, 8), (4, 2, 2)), ((64, 1), (16, 8, 256))), 16),
    (operand_b(32, 8), (((4, 8), (4, 2)), ((32, 1), (8, 128))), 8),
    (operand_a(16, 8), (((4, 8), (4, 2)), ((64, 1), (16, 8))), 16),
    (operand_b(16, 8), (((4, 8), (4,)), ((32, 1), (8,))), 8),
    (accumulator(64), wgmma_d(64), 64),
    (accumulator(256), wgmma_d(256), 64),
    (accumulator(80, 16), wgmma_d(80), 64),
    # A of wgmma in registers, one warp of ALayout_64x{8,16,32}.
    (operand_a(8, 32), (((4, 8), (2, 2)), ((64, 1), (8, 256))), 64),
    (operand_a(16, 16), (((4, 8), (2, 2, 2)), ((128, 1), (64, 8, 512))), 64),
    (operand_a(32, 8), (((4, 8), (4, 2, 2)), ((256, 1), (64, 8, 1024))), 64),
]


@pytest.mark.parametrize(("fragment", "layout", "rows"), CUTE, ids=str)
def test_maps_are_those_of_cute(
    fragment: Fragment, layout: tuple[Nested, Nested], rows: int
) -> None:
    """CUTLASS mma_traits_sm80.hpp, mma_traits_sm89.hpp and mma_traits_sm90_gmma.hpp."""
    per = fragment.row.shape[2]
    for register in range(fragment.registers):
        for lane in range(32):
            for part in range(per):
                value = register * per + part
                at = offset(*layout, lane + 32 * value)
                expected = (at % rows, at // rows)
                got = (fragment.row[register, lane, part], fragment.column[register, lane, part])
                assert got == expected


ALL = [
    *(accumulator(n, bits) for n in (8, 64, 96, 256) for bits in (16, 32)),
    *(operand(k // bits, bits) for operand in (operand_a, operand_b)
      for k in (128, 256) for bits in (8, 16, 32)),
    *(matrices_8x8(count, trans) for count in (1, 2, 4) for trans in (False, True)),
]  # fmt: skip


@pytest.mark.parametrize("fragment", ALL, ids=str)
def test_every_element_is_held_exactly_once(fragment: Fragment) -> None:
    places = fragment.row * fragment.columns + fragment.column
    assert sorted(places.ravel().tolist()) == list(range(fragment.rows * fragment.columns))
    assert fragment.row.shape == (fragment.registers, 32, 32 // fragment.element_bits)


@pytest.mark.parametrize("fragment", ALL, ids=str)
def test_packing_follows_the_map(fragment: Fragment) -> None:
    rng = np.random.default_rng(0)
    bits = fragment.element_bits
    dtype = {8: np.uint8, 16: np.uint16, 32: np.uint32}[bits]
    shape = (fragment.rows, fragment.columns)
    matrix = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    registers = matrix_to_fragment(fragment, matrix)
    assert registers.shape == (fragment.registers, 32)
    for part in range(32 // bits):
        field = registers >> np.uint32(part * bits) & np.uint32((1 << bits) - 1)
        row, column = fragment.row[..., part], fragment.column[..., part]
        np.testing.assert_array_equal(field, matrix[row, column])
    np.testing.assert_array_equal(fragment_to_matrix(fragment, registers), matrix)


def test_ldmatrix_registers_feed_mma() -> None:
    # ldmatrix.x4 of the four 8 x 8 quarters of A, column by column, gives mma's A fragment.
    a = np.arange(256, dtype=np.uint16).reshape(16, 16)
    quarters = [a[:8, :8], a[8:, :8], a[:8, 8:], a[8:, 8:]]
    stacked = np.concatenate(quarters)
    np.testing.assert_array_equal(
        matrix_to_fragment(matrices_8x8(4), stacked), matrix_to_fragment(operand_a(16, 16), a)
    )
    # .trans of B^T's storage by k gives B.
    b = np.arange(128, dtype=np.uint16).reshape(16, 8)  # (k, n), n contiguous
    np.testing.assert_array_equal(
        matrix_to_fragment(matrices_8x8(2, True), b), matrix_to_fragment(operand_b(16, 16), b.T)
    )


def test_ldmatrix_as_the_isa_tells_it() -> None:
    # Element (row, column) is 16 * row + column.
    rows = (np.arange(8)[:, None] * 16 + np.arange(8)).astype(np.uint16)
    registers = matrix_to_fragment(matrices_8x8(1), rows)[0]
    assert registers[5] == 0x0013_0012
    transposed = matrix_to_fragment(matrices_8x8(1, True), rows)[0]
    assert transposed[5] == 0x0031_0021


def test_shapes_that_do_not_exist() -> None:
    with pytest.raises(UnsupportedInstruction, match=r"\.x3, allowed: \.x1, \.x2, \.x4"):
        matrices_8x8(3)
    with pytest.raises(UnsupportedInstruction, match="k = 24 of 16 bits"):
        operand_a(24, 16)
    with pytest.raises(UnsupportedInstruction, match="k = 16 of 4 bits"):
        operand_b(16, 4)
    with pytest.raises(UnsupportedInstruction, match="n = 12"):
        accumulator(12)
