"""tcgen05.cp: every shape, narrow elements, pairs, and its order among products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tcgen05_kernels import POLICIES, Codes, Frame, Layout, kinds, place

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

SOURCE = Layout("none", lbo=128, sbo=256)
"""Two core matrices of 8 rows of 16 bytes beside each other, groups of 8 rows 256 bytes apart."""

SHAPES = {
    "128x256b": (128, 32, lambda row: [row]),
    "128x128b": (128, 16, lambda row: [row]),
    "4x256b": (4, 32, lambda row: [32 * row]),
    "64x128b.warpx2::02_13": (64, 16, lambda row: [row, row + 64]),
    "64x128b.warpx2::01_23": (
        64,
        16,
        lambda row: [row, row + 32] if row < 32 else [row + 32, row + 64],
    ),
    "32x128b.warpx4": (32, 16, lambda row: [row, row + 32, row + 64, row + 96]),
}
"""Rows, bytes of a row, and the lanes that a row goes to (PTX ISA 9.7.16.2.3, 9.7.16.9.2)."""


def random_bytes(ctas: int, rows: int, size: int) -> tuple[Codes, Codes]:
    """Rows of bytes, and shared memory that holds them in core matrices."""
    data = np.random.default_rng(rows).integers(0, 256, (ctas, rows, size), np.uint8)
    image = np.zeros((ctas, 4096), np.uint8)
    for cta in range(ctas):
        place(image[cta], data[cta], SOURCE)
    return data, image


def copy(shape: str, to: int = 0, group: int = 1, word: int | None = None) -> str:
    source = SOURCE.word() if word is None else word
    return f"@%p1 tcgen05.cp.cta_group::{group}.{shape} [%r7+{to:#x}], {source:#x};\n"


def before(ctas: int = 1) -> Codes:
    return np.random.default_rng(9).integers(0, 1 << 32, (ctas, 128, 16), np.uint32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", ["eager", "lazy"])
def test_shapes(shape: str, policy: str) -> None:
    rows, size, lanes = SHAPES[shape]
    data, image = random_bytes(1, rows, size)
    wanted = before()
    for row in range(rows):
        for lane in lanes(row):
            wanted[0, lane, 3 : 3 + size // 4] = data[0, row].view(np.uint32)
    after = Frame(image, copy(shape, 3), 16, 1, before()).run_clean(policy=policy)
    np.testing.assert_array_equal(after, wanted)


def test_four_rows_go_to_the_lane_of_the_address() -> None:
    data, image = random_bytes(1, 4, 32)
    after = Frame(image, copy("4x256b", 29 << 16), 16, 1, before()).run_clean()
    wanted = before()
    for row in range(4):
        wanted[0, 29 + 32 * row, :8] = data[0, row].view(np.uint32)
    np.testing.assert_array_equal(after, wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_each_cta_of_a_pair_copies_its_own(policy: str) -> None:
    data, image = random_bytes(2, 32, 16)
    after = Frame(image, copy("32x128b.warpx4", 0, 2), 16, 2, before(2)).run_clean(policy=policy)
    for cta in range(2):
        wanted = np.tile(data[cta].view(np.uint32), (4, 1))
        np.testing.assert_array_equal(after[cta, :, :4], wanted)


@pytest.mark.parametrize(
    ("form", "bits", "holder"), [("b4x16_p64", 4, "00xxxx00"), ("b6x16_p32", 6, "0xxxxxx0")]
)
@pytest.mark.parametrize("shape", ["128x256b", "32x128b.warpx4"])
def test_narrow_elements_get_a_byte_each(form: str, bits: int, holder: str, shape: str) -> None:
    """16 packed elements, then padding, become 16 bytes with the element in the middle."""
    rows, size, lanes = SHAPES[shape]
    data, image = random_bytes(1, rows, size)
    after = Frame(image, copy(f"{shape}.b8x16.{form}"), 16, 1, before()).run_clean()
    got = after[0, :, : size // 4].copy().view(np.uint8)
    shift = holder[::-1].index("x")
    for row in range(rows):
        for chunk in range(0, size, 16):
            number = int.from_bytes(data[0, row, chunk : chunk + 16].tobytes(), "little")
            wanted = [(number >> bits * i & (1 << bits) - 1) << shift for i in range(16)]
            for lane in lanes(row):
                assert got[lane, chunk : chunk + 16].tolist() == wanted


@pytest.mark.parametrize("policy", POLICIES)
def test_copies_and_products_keep_their_order(policy: str) -> None:
    """A is copied over and multiplied, twice, without a commit in between."""
    first, second = Layout("none", lbo=128, sbo=256), Layout("none", lbo=128, sbo=256, start=4096)
    b_layout = Layout("none", lbo=128, sbo=256, start=8192)
    image = np.zeros((1, 10240), np.uint8)
    place(image[0], np.full((128, 16), 0x3F80, np.uint16), first)
    place(image[0], np.full((128, 16), 0x4000, np.uint16), second)
    place(image[0], np.full((8, 16), 0x3F80, np.uint16), b_layout)
    idesc = 1 << 4 | 1 << 7 | 1 << 10 | 8 >> 3 << 17 | 128 >> 4 << 24
    body = ""
    for i, layout in enumerate((first, second)):
        body += copy("128x256b", 8, word=layout.word())
        body += (
            f"@%p1 tcgen05.mma.cta_group::1.kind::f16 [%r7], [%r7+8], {b_layout.word():#x}, "
            f"{idesc:#x}, {i};\n"
        )
    after = Frame(image, body, 16, 1, before()).run_clean(policy=policy)
    assert (after[0, :, :8].view(np.float32) == 16 + 32).all()


def broken(body: str, **options: Any) -> tuple[set[FindingKind], str]:
    _, image = random_bytes(1, 32, 16)
    _, emulation = Frame(image, body, 16, 1, before(), **options).run()
    return kinds(emulation), "\n".join(map(str, emulation.findings))


def test_races() -> None:
    shape = "32x128b.warpx4"
    assert FindingKind.NOT_COMPLETED in broken(copy(shape), commit=False)[0]
    assert broken(copy(shape), fence="")[0] == {FindingKind.PROXY}
    assert broken(copy(shape))[0] == set()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (copy("32x128b.warpx4", 16 << 16), "got lane 16, allowed: 0"),
        (copy("4x256b", 32 << 16), "got lane 32, allowed: 0 to 31"),
        (copy("128x256b", 505), "columns 505 to 512"),
        (copy("128x256b", word=Layout("128", start=1024).word()), "allowed: 0 to"),
        (copy("128x256b", word=0), "bits 46-48"),
    ],
)
def test_refuses(body: str, text: str) -> None:
    found, message = broken(body)
    assert FindingKind.FAULT in found
    assert text in message


@pytest.mark.parametrize(
    "shape",
    [
        "32x128b",
        "64x128b.warpx4",
        "128x64b",
        "128x256b.b8x16",
        "128x256b.b4x16_p64",
        "128x256b.b8x16.b5x16",
    ],
)
def test_does_not_know(shape: str) -> None:
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+"):
        broken(copy(shape))
