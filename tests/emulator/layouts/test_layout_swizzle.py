"""Swizzles against CuTe's bit-by-bit definition, and the tables of the ISA."""

from __future__ import annotations

import numpy as np
import pytest
from cute_layout import SWIZZLES, swizzled

from fa4gen.emulator.layouts.swizzle import Swizzle

ADDRESSES = np.arange(0x400, 0x400 + 8192)


@pytest.mark.parametrize("name", SWIZZLES)
def test_swizzle_is_what_its_cute_notation_says(name: str) -> None:
    mode = Swizzle[name]
    bits, base, shift = SWIZZLES[name]
    assert mode.cute == f"Swizzle<{bits},{base},{shift}>"
    expected = [swizzled(address, name) for address in ADDRESSES.tolist()]
    assert mode.apply(ADDRESSES).tolist() == expected
    assert mode.apply(0x12345) == swizzled(0x12345, name)


@pytest.mark.parametrize("mode", Swizzle)
def test_swizzle_permutes_its_granules_within_its_period(mode: Swizzle) -> None:
    moved = mode.apply(ADDRESSES)
    np.testing.assert_array_equal(np.sort(moved), ADDRESSES)
    np.testing.assert_array_equal(mode.apply(moved), ADDRESSES)
    together = moved.reshape(-1, mode.granule_bytes)
    assert (np.diff(together, axis=1) == 1).all()
    assert (moved // mode.period_bytes == ADDRESSES // mode.period_bytes).all()
    again = mode.apply(ADDRESSES + mode.period_bytes)
    np.testing.assert_array_equal(again, moved + mode.period_bytes)


def test_rows_of_the_isa_table() -> None:
    # PTX ISA 5.5.7: which 16-byte chunk of its 128-byte line each chunk becomes.
    def chunks(mode: Swizzle, line: int) -> list[int]:
        start = line * 128
        return [(mode.apply(start + 16 * i) - start) // 16 for i in range(8)]

    assert chunks(Swizzle.B128, 0) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert chunks(Swizzle.B128, 3) == [3, 2, 1, 0, 7, 6, 5, 4]
    assert chunks(Swizzle.B128, 7) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert chunks(Swizzle.B64, 1) == [1, 0, 3, 2, 5, 4, 7, 6]
    assert chunks(Swizzle.B64, 3) == [3, 2, 1, 0, 7, 6, 5, 4]
    assert chunks(Swizzle.B32, 1) == [1, 0, 3, 2, 5, 4, 7, 6]
    assert chunks(Swizzle.B32, 2) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert chunks(Swizzle.B128_ATOM32, 1) == [2, 3, 0, 1, 6, 7, 4, 5]
    assert chunks(Swizzle.B128_ATOM64, 1) == [4, 5, 6, 7, 0, 1, 2, 3]


def test_the_flip_swaps_halves_on_odd_lines_only() -> None:
    plain, flipped = Swizzle.B128_ATOM32, Swizzle.B128_ATOM32_FLIP8
    even = ADDRESSES[(ADDRESSES >> 7) % 2 == 0]
    odd = ADDRESSES[(ADDRESSES >> 7) % 2 == 1]
    np.testing.assert_array_equal(flipped.apply(even), plain.apply(even))
    np.testing.assert_array_equal(flipped.apply(odd), plain.apply(odd) ^ 8)


def test_the_rank_of_a_cta_in_the_address_stays() -> None:
    base = 5 << 24
    np.testing.assert_array_equal(
        Swizzle.B128.apply(ADDRESSES + base), Swizzle.B128.apply(ADDRESSES) + base
    )
