"""Matrix descriptors: bit fields, and operand addresses against the canonical CuTe layouts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cute_layout import offset, swizzled
from hypothesis import given
from hypothesis import strategies as st

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.layouts.operand import (
    UNSIGNED,
    check_operand,
    operand_addresses,
    operand_chunks,
    read_operand,
)
from fa4gen.emulator.layouts.smem_descriptor import (
    SmemDescriptor,
    decode_tcgen05,
    decode_wgmma,
    encode_tcgen05,
    encode_wgmma,
)
from fa4gen.emulator.layouts.swizzle import Swizzle

COMMON = [Swizzle.NONE, Swizzle.B32, Swizzle.B64, Swizzle.B128]


def canonical(desc: SmemDescriptor, rows: int, k: int, bits: int, mn_major: bool) -> np.ndarray:
    """The layouts of PTX ISA 9.7.15.5.1.2.1 and of mma_sm100_desc.hpp, as they are written there:
    (MN mode, K mode) in elements, T elements in 16 bytes."""
    size = bits // 8
    t, lbo, sbo = 16 // size, desc.lbo // size, desc.sbo // size
    span = desc.swizzle.span_bytes // size
    if not mn_major and desc.swizzle is Swizzle.NONE:
        shape, stride = ((8, rows // 8), (t, k // t)), ((t, sbo), (1, lbo))
    elif not mn_major:
        shape, stride = ((8, rows // 8), (t, k // t)), ((span, sbo), (1, t))
    elif desc.swizzle is Swizzle.NONE:
        shape, stride = ((t, 1, rows // t), (8, k // 8)), ((1, t, sbo), (t, lbo))
    elif desc.swizzle is Swizzle.B128_ATOM32:
        shape = ((t, 8, -(-rows // (8 * t))), (4, k // 4))
        stride = ((1, t, lbo), (8 * t, sbo))
    else:
        pieces = desc.swizzle.span_bytes // 16
        shape = ((t, pieces, -(-rows // (t * pieces))), (8, k // 8))
        stride = ((1, t, lbo), (span, sbo))
    name = desc.swizzle.name
    found = np.empty((rows, k), int)
    for i, j in itertools.product(range(rows), range(k)):
        at = offset(shape[0], stride[0], i) + offset(shape[1], stride[1], j)
        found[i, j] = swizzled(desc.start + size * at, name)
    return found


def cases() -> list[tuple[Swizzle, int, int, int, bool]]:
    """(swizzle, rows, k, element bits, MN-major) that tcgen05 or wgmma can have."""
    found = [(mode, 64, 256 // bits, bits, False) for mode in COMMON for bits in (8, 16, 32)]
    found += [(mode, rows, 256 // bits, bits, True)
              for mode in COMMON for bits in (8, 16) for rows in (16, 64, 128)]  # fmt: skip
    found += [(Swizzle.B128_ATOM32, rows, 8, 32, True) for rows in (8, 32, 128)]
    return found


@pytest.mark.parametrize("case", cases(), ids=str)
def test_operand_addresses_are_the_canonical_layout(
    case: tuple[Swizzle, int, int, int, bool],
) -> None:
    swizzle, rows, k, bits, mn_major = case
    for start, lbo, sbo in ((0x400, 0x4000, 1024), (0x1C20, 0x90, 0x2010), (0x3C60, 4096, 512)):
        desc = SmemDescriptor(start, lbo, sbo, swizzle)
        expected = canonical(desc, rows, k, bits, mn_major)
        got = operand_addresses(desc, rows, k, bits, mn_major)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_reading_gathers_what_lies_at_those_addresses(
    case: tuple[Swizzle, int, int, int, bool],
) -> None:
    swizzle, rows, k, bits, mn_major = case
    memory = np.random.default_rng(0).integers(0, 256, 1 << 17, dtype=np.uint8)
    desc = SmemDescriptor(0x1C20, 0x2400, 0x800, swizzle)
    addresses = canonical(desc, rows, k, bits, mn_major)
    expected = memory.view(UNSIGNED[bits])[addresses // (bits // 8)]
    np.testing.assert_array_equal(read_operand(memory, desc, rows, k, bits, mn_major), expected)


def test_chunks_are_lines_of_sixteen_bytes() -> None:
    desc = SmemDescriptor(0x400, 0x4000, 1024, Swizzle.B128)
    elements = canonical(desc, 128, 16, 16, False)
    np.testing.assert_array_equal(operand_chunks(desc, 128, 16, 16, False), elements[:, ::8])
    elements = canonical(desc, 128, 16, 16, True)
    np.testing.assert_array_equal(operand_chunks(desc, 128, 16, 16, True), elements[::8].T)


def test_a_k_step_in_the_swizzle_atom_moves_the_start_only() -> None:
    # FlashAttention-4 adds 2 to the low word (32 bytes) per K = 16 slice.
    first = SmemDescriptor(0x400, 16, 1024, Swizzle.B128)
    wide = canonical(first, 8, 64, 16, False)
    for step in range(4):
        desc = SmemDescriptor(0x400 + 32 * step, 16, 1024, Swizzle.B128)
        got = operand_addresses(desc, 8, 16, 16, False)
        np.testing.assert_array_equal(got, wide[:, 16 * step : 16 * step + 16])


def test_reading_beyond_the_memory_is_a_fault() -> None:
    memory = np.zeros(4096, np.uint8)
    desc = SmemDescriptor(1024, 16, 1024, Swizzle.B128)
    assert read_operand(memory, desc, 24, 16, 16, False).shape == (24, 16)
    with pytest.raises(KernelFault, match=r"reaches byte 51.*, shared memory ends at 4096"):
        read_operand(memory, desc, 32, 16, 16, False)


def test_unaddressable_operands() -> None:
    desc = SmemDescriptor(0, 16, 1024, Swizzle.NONE)
    with pytest.raises(UnsupportedInstruction, match="elements of 4 bits"):
        operand_chunks(desc, 8, 64, 4, False)
    with pytest.raises(UnsupportedInstruction, match="a line of 8 bytes"):
        operand_chunks(desc, 8, 8, 8, False)


@pytest.mark.parametrize(
    ("instruction", "swizzle", "bits", "mn_major", "legal"),
    [
        ("wgmma", Swizzle.B128, 16, True, True),
        ("wgmma", Swizzle.B128, 8, True, False),
        ("wgmma", Swizzle.NONE, 32, True, False),
        ("wgmma", Swizzle.B32, 8, False, True),
        ("tcgen05", Swizzle.B128, 8, True, True),
        ("tcgen05", Swizzle.B128, 32, True, False),
        ("tcgen05", Swizzle.B128_ATOM32, 32, True, True),
        ("tcgen05", Swizzle.B128_ATOM32, 16, True, False),
        ("tcgen05", Swizzle.B128_ATOM32, 32, False, False),
        ("tcgen05", Swizzle.B64, 32, False, True),
    ],
)
def test_which_combinations_exist(
    instruction: str, swizzle: Swizzle, bits: int, mn_major: bool, legal: bool
) -> None:
    desc = SmemDescriptor(0, 16, 1024, swizzle)
    if legal:
        check_operand(desc, bits, mn_major, instruction)
    else:
        with pytest.raises(KernelFault, match=instruction):
            check_operand(desc, bits, mn_major, instruction)


def test_descriptors_seen_in_kernels() -> None:
    # High word 0x40004040 with LBO field 1: FlashAttention-4's Q and K on sm_100.
    desc = decode_tcgen05(0x40004040 << 32 | 1 << 16 | 0x40)
    assert desc == SmemDescriptor(0x400, 16, 1024, Swizzle.B128)
    # V: LBO field 0x400, 16 KiB between blocks of 64 columns.
    assert decode_tcgen05(0x40004040 << 32 | 0x400 << 16 | 0x1040).lbo == 16384
    # The same tile for wgmma has no version bit.
    wgmma = decode_wgmma(0x40000040 << 32 | 1 << 16 | 0x40)
    assert wgmma == SmemDescriptor(0x400, 16, 1024, Swizzle.B128)


@pytest.mark.parametrize("base_offset", range(8))
def test_a_base_offset_moves_the_pattern(base_offset: int) -> None:
    """A tile whose pattern begins at line ``b`` is read as if it began at an aligned address."""
    aligned = SmemDescriptor(0x2000, 16, 1024, Swizzle.B128)
    moved = SmemDescriptor(0x2000 + 128 * base_offset, 16, 1024, Swizzle.B128, base_offset)
    assert decode_wgmma(encode_wgmma(moved)) == moved
    wanted = operand_addresses(aligned, 64, 16, 16, False) + 128 * base_offset
    np.testing.assert_array_equal(operand_addresses(moved, 64, 16, 16, False), wanted)


def test_base_offsets_that_do_not_exist() -> None:
    with pytest.raises(KernelFault, match="base offset of 8, allowed: 0 to 7"):
        encode_wgmma(SmemDescriptor(0, 0, 0, Swizzle.B128, 8))
    with pytest.raises(KernelFault, match="base offset of 1, allowed: 0"):
        encode_tcgen05(SmemDescriptor(0, 0, 0, Swizzle.B128, 1))


UNITS = st.integers(0, (1 << 14) - 1).map(lambda x: x * 16)


@given(UNITS, UNITS, UNITS, st.sampled_from(Swizzle))
def test_descriptors_round_trip(start: int, lbo: int, sbo: int, swizzle: Swizzle) -> None:
    desc = SmemDescriptor(start, lbo, sbo, swizzle)
    for encode, decode, known in (
        (encode_wgmma, decode_wgmma, COMMON),
        (encode_tcgen05, decode_tcgen05, [*COMMON, Swizzle.B128_ATOM32]),
    ):
        if swizzle in known:
            assert decode(encode(desc)) == desc
        else:
            with pytest.raises(KernelFault, match=swizzle.name):
                encode(desc)


def test_swizzle_codes_differ_between_the_instructions() -> None:
    for mode, wgmma, tcgen05 in (
        (Swizzle.NONE, 0, 0), (Swizzle.B128, 1, 2), (Swizzle.B64, 2, 4), (Swizzle.B32, 3, 6),
    ):  # fmt: skip
        desc = SmemDescriptor(0, 0, 0, mode)
        assert encode_wgmma(desc) >> 62 == wgmma
        assert encode_tcgen05(desc) >> 61 == tcgen05
    assert encode_tcgen05(SmemDescriptor(0, 0, 0, Swizzle.B128_ATOM32)) >> 61 == 1


@pytest.mark.parametrize("bit", [14, 15, 30, 31, 46, 47, 48, 52, 60, 61])
def test_reserved_bits_of_wgmma(bit: int) -> None:
    with pytest.raises(KernelFault, match=rf"reserved bits \[{bit}\]"):
        decode_wgmma(1 << bit | 1 << 62)


@pytest.mark.parametrize("bit", [14, 15, 30, 31, 53, 60])
def test_reserved_bits_of_tcgen05(bit: int) -> None:
    with pytest.raises(KernelFault, match=rf"reserved bits \[{bit}\]"):
        decode_tcgen05(1 << bit | 1 << 46)


def test_descriptors_that_cannot_be_emulated() -> None:
    good = 1 << 46
    with pytest.raises(KernelFault, match=r"bits 46-48 are 0b000.*was it made for wgmma"):
        decode_tcgen05(1 << 62)
    for mode in (3, 5, 7):
        with pytest.raises(KernelFault, match=rf"swizzle mode .* is {mode}, allowed: 0 NONE"):
            decode_tcgen05(good | mode << 61)
    with pytest.raises(UnsupportedInstruction, match=r"base offset .* is 3, emulated: 0"):
        decode_tcgen05(good | 3 << 49)
    with pytest.raises(UnsupportedInstruction, match="bit 52"):
        decode_tcgen05(good | 1 << 52)
    with pytest.raises(KernelFault, match="lbo: got 8 bytes"):
        encode_wgmma(SmemDescriptor(0, 8, 0, Swizzle.NONE))
    with pytest.raises(KernelFault, match="start: got 262144 bytes"):
        encode_tcgen05(SmemDescriptor(1 << 18, 0, 0, Swizzle.NONE))
