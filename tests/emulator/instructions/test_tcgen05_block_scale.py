"""tcgen05.mma with block scaling, against float64 with values dequantised by ml_dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tcgen05_kernels import Codes, Frame, Layout, gather_d, kinds, place

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

SCALES = {"ue4m3": ml_dtypes.float8_e4m3fn, "ue8m0": ml_dtypes.float8_e8m0fnu}
ELEMENTS = {
    "e4m3": (0, ml_dtypes.float8_e4m3fn),
    "e5m2": (1, ml_dtypes.float8_e5m2),
    "e2m1": (1, ml_dtypes.float4_e2m1fn),
}


@dataclass(frozen=True)
class Case:
    """One multiplication.

    Attributes:
        modifier: What names the block size in the opcode.
        blocks: Blocks of a row.
        ids: First byte of A's and of B's scale factors in their cells.
    """

    kind: str = "mxf8f6f4"
    modifier: str = ""
    blocks: int = 1
    a_format: str = "e4m3"
    b_format: str = "e5m2"
    scale: str = "ue8m0"
    m: int = 128
    n: int = 64
    cta_group: int = 1
    ids: tuple[int, int] = (0, 0)

    @property
    def k(self) -> int:
        return 32 if self.kind == "mxf8f6f4" else 64

    @property
    def idesc(self) -> int:
        """PTX ISA, tables 43 and 44."""
        word = self.ids[1] << 4 | ELEMENTS[self.a_format][0] << 7 | ELEMENTS[self.b_format][0] << 10
        word |= self.n >> 3 << 17 | (self.scale == "ue8m0") << 23
        return word | self.m >> 7 << 27 | self.ids[0] << 29


def elements(rng: np.random.Generator, name: str, rows: int, k: int) -> tuple[Codes, Codes]:
    """Bytes of each row in shared memory, and values."""
    typed = rng.standard_normal((rows, k)).astype(np.float32).astype(ELEMENTS[name][1])
    codes = typed.view(np.uint8)
    if name == "e2m1":
        codes = codes[:, ::2] | codes[:, 1::2] << 4
    return codes, typed.astype(np.float64)


def factors(rng: np.random.Generator, case: Case, rows: int) -> tuple[Codes, Codes]:
    """Bytes of the scale factors ``(rows, blocks)``, and their values."""
    drawn = 2.0 ** rng.integers(-3, 4, (rows, case.blocks))
    if case.scale == "ue4m3":
        drawn = drawn * rng.integers(4, 8, drawn.shape) / 4
    typed = drawn.astype(SCALES[case.scale])
    return typed.view(np.uint8), typed.astype(np.float64)


def fill(cells: Codes, column: int, rows: Codes, first_byte: int, lanes: range) -> None:
    """Row r: lane r % 32 of each quarter of ``lanes``, column r / 32, from ``first_byte`` on."""
    raw = cells.view(np.uint8).reshape(*cells.shape, 4)
    for r, row in enumerate(rows):
        for quarter in range(lanes.start, lanes.stop, 32):
            at = raw[quarter + r % 32, column + r // 32]
            at[first_byte : first_byte + len(row)] = row


SFA, SFB = 128, 136
COLUMNS = 144
A_LAYOUT = Layout("none", lbo=128, sbo=256)


def build(case: Case) -> tuple[Frame, Codes]:
    """The kernel and the product in float64."""
    rng = np.random.default_rng(case.n)
    a, a_values = elements(rng, case.a_format, case.m, case.k)
    b, b_values = elements(rng, case.b_format, case.n, case.k)
    sfa, sfa_values = factors(rng, case, case.m)
    sfb, sfb_values = factors(rng, case, case.n)
    ctas = case.cta_group
    b_layout = Layout("32", sbo=256, start=4096)
    image = np.zeros((ctas, 12288), np.uint8)
    cells = np.full((ctas, 128, COLUMNS), 0x55555555, np.uint32)
    for cta in range(ctas):
        place(image[cta], np.split(a, ctas)[cta], A_LAYOUT)
        place(image[cta], np.split(b, ctas)[cta], b_layout)
        fill(cells[cta], SFA, np.split(sfa, ctas)[cta], case.ids[0], range(128))
        if (ctas, case.m) == (2, 128):
            for half, lanes in enumerate((range(64), range(64, 128))):
                fill(cells[cta], SFB, np.split(sfb, 2)[half], case.ids[1], lanes)
        else:
            fill(cells[cta], SFB, sfb, case.ids[1], range(128))
    body = (
        f"@%p1 tcgen05.mma.cta_group::{ctas}.kind::{case.kind}.block_scale{case.modifier} [%r7], "
        f"{A_LAYOUT.word():#x}, {b_layout.word():#x}, {case.idesc:#x}, [%r7+{SFA}], [%r7+{SFB}], "
        "0;\n"
    )
    size = case.k // case.blocks
    product = (a_values * sfa_values.repeat(size, 1)) @ (b_values * sfb_values.repeat(size, 1)).T
    return Frame(image, body, COLUMNS, ctas, cells), product


CASES = [
    Case(),
    Case(modifier=".scale_vec::1X", ids=(3, 1)),
    Case(modifier=".block32", n=120, ids=(2, 0)),
    Case("mxf4", "", 2, "e2m1", "e2m1", ids=(2, 0)),
    Case("mxf4", ".scale_vec::2X", 2, "e2m1", "e2m1", n=8),
    Case("mxf4nvf4", ".block16", 4, "e2m1", "e2m1", "ue4m3"),
    Case("mxf4nvf4", ".scale_vec::4X", 4, "e2m1", "e2m1", "ue8m0", n=104),
    Case("mxf4nvf4", ".block32", 2, "e2m1", "e2m1", ids=(0, 2)),
    Case(m=256, n=128, cta_group=2),
    Case("mxf4nvf4", ".block16", 4, "e2m1", "e2m1", "ue4m3", m=128, n=256, cta_group=2),
]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c.kind}{c.modifier}.{c.cta_group}x{c.m}x{c.n}"
)
def test_block_scaling(case: Case) -> None:
    frame, product = build(case)
    d = gather_d(frame.run_clean(policy="lazy"), (case.m, case.n), case.cta_group)
    np.testing.assert_array_equal(d.view(np.float32), product.astype(np.float32))


def test_adds_to_d() -> None:
    frame, product = build(Case())
    frame.body = frame.body.replace(", 0;", ", 1;")
    assert frame.cells is not None
    frame.cells[:, :, :64] = 0x3F800000
    d = gather_d(frame.run_clean(), (128, 64), 1).view(np.float32)
    np.testing.assert_array_equal(d, (product + 1).astype(np.float32))


def test_every_quarter_needs_the_factors() -> None:
    frame, _ = build(Case())
    assert frame.cells is not None
    frame.cells[0, 64, SFB] ^= 1
    _, emulation = frame.run()
    assert kinds(emulation) == {FindingKind.FAULT}
    assert "the copies in the quarters differ" in str(emulation.findings[0])


def test_unwritten_factors() -> None:
    frame, _ = build(Case())
    frame.body = frame.body.replace(f"[%r7+{SFA}]", "[%r7+300]")
    _, emulation = frame.run()
    assert kinds(emulation) == {FindingKind.UNINITIALISED}


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (f"[%r7+{SFA}]", "[%r7+0x100000]", "scale factors of A: got lane 16"),
        (f"[%r7+{SFB}]", "[%r7+511]", "scale factors: got lanes 0 to 127, columns 511 to 512"),
    ],
)
def test_refuses(old: str, new: str, text: str) -> None:
    frame, _ = build(Case())
    frame.body = frame.body.replace(old, new)
    _, emulation = frame.run()
    assert FindingKind.FAULT in kinds(emulation)
    assert text in "\n".join(map(str, emulation.findings))


def test_refuses_ids() -> None:
    frame, _ = build(Case("mxf4", "", 2, "e2m1", "e2m1", ids=(1, 0)))
    _, emulation = frame.run()
    assert FindingKind.FAULT in kinds(emulation)
    assert "got id 1, allowed: multiples of 2" in "\n".join(map(str, emulation.findings))


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "mxf8f6f4", "modifier": ".block16"},
        {"kind": "mxf4nvf4", "modifier": "", "a_format": "e2m1", "b_format": "e2m1"},
        {"kind": "mxf4", "modifier": ".scale_vec::4X", "a_format": "e2m1", "b_format": "e2m1"},
    ],
)
def test_does_not_know(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+"):
        build(Case(**options))[0].run()
