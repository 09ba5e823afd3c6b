"""tcgen05.mma against float64, with operands and results placed element by element."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tcgen05_kernels import POLICIES, Codes, Frame, Layout, gather_d, kinds, place

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

K_MAJOR = {
    "none": Layout("none", lbo=128, sbo=256),
    "none, strided": Layout("none", lbo=4096, sbo=128),
    "32": Layout("32", sbo=256),
    "64, second slice": Layout("64", sbo=512, start=32),
    "128": Layout("128", sbo=1024),
    "128, last slice": Layout("128", sbo=1024, start=96),
    "128, off the pattern": Layout("128", sbo=2048, start=1024),
}
MN_MAJOR = {
    "none": Layout("none", True, lbo=4096, sbo=128),
    "32": Layout("32", True, lbo=512, sbo=256),
    "64": Layout("64", True, lbo=1024, sbo=512),
    "128": Layout("128", True, lbo=2048, sbo=1024),
    "128, k groups apart": Layout("128", True, lbo=1024, sbo=8192),
}
DTYPES = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "s8": np.int8,
    "u8": np.uint8,
}
CODES = {
    "f16": {"f16": 0, "bf16": 1},
    "tf32": {"tf32": 2},
    "f8f6f4": {"e4m3": 0, "e5m2": 1, "e2m3": 3, "e3m2": 4, "e2m1": 5},
    "i8": {"u8": 0, "s8": 1},
}
"""Fields 7-9 and 10-12 of the instruction descriptor (PTX ISA, table 42)."""
D_CODES = {"f16": 0, "f32": 1, "s32": 2}
K = {"f16": 16, "tf32": 8, "f8f6f4": 32, "i8": 32}
ROUND = 2048


@dataclass(frozen=True)
class Case:
    """One multiplication."""

    m: int = 128
    n: int = 64
    kind: str = "f16"
    a_format: str = "bf16"
    b_format: str = "bf16"
    d_format: str = "f32"
    cta_group: int = 1
    a: Layout = K_MAJOR["128"]
    b: Layout = K_MAJOR["128"]
    extra: int = 0
    """Further bits of the instruction descriptor."""

    @property
    def idesc(self) -> int:
        codes = CODES[self.kind]
        word = D_CODES[self.d_format] << 4 | codes[self.a_format] << 7 | codes[self.b_format] << 10
        word |= self.a.mn_major << 15 | self.b.mn_major << 16
        return word | self.n >> 3 << 17 | self.m >> 4 << 24 | self.extra

    @property
    def k(self) -> int:
        return K[self.kind]


def values(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> tuple[Codes, Codes]:
    """Random codes of a format, and their values.

    Sums of their products are exact in float64, or so close that they round alike in any order.
    """
    if name in {"s8", "u8"}:
        codes = rng.integers(0, 256, shape, np.uint8)
        return codes, codes.view(DTYPES[name]).astype(np.float64)
    drawn = rng.standard_normal(shape).astype(np.float32)
    if name == "tf32":
        codes = drawn.view(np.uint32)
        return codes, (codes & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    typed = drawn.astype(DTYPES[name])
    codes = typed.view(np.uint16 if typed.itemsize == 2 else np.uint8)
    return codes, typed.astype(np.float64)


def in_shared(codes: Codes, name: str) -> Codes:
    """Codes as shared memory holds them: narrow ones 16 in 8 or 12 bytes, then padding."""
    bits = {"e2m1": 4, "e2m3": 6, "e3m2": 6}.get(name)
    if bits is None:
        return codes
    padded = np.zeros(codes.shape, np.uint8)
    for row in range(codes.shape[0]):
        for chunk in range(0, codes.shape[1], 16):
            number = sum(int(c) << bits * i for i, c in enumerate(codes[row, chunk : chunk + 16]))
            padded[row, chunk : chunk + 16] = np.frombuffer(number.to_bytes(16, "little"), np.uint8)
    return padded


def in_cells(codes: Codes, name: str) -> Codes:
    """Codes as tensor memory holds A: from the low bits of a cell up, narrow ones in bytes."""
    shift = {"e2m1": 2, "e2m3": 1, "e3m2": 1}.get(name, 0)
    return np.ascontiguousarray(codes << np.uint8(shift) if shift else codes).view(np.uint32)


def images(case: Case, a: Codes | None, b: Codes) -> tuple[Codes, Layout, Layout]:
    """Shared memory of each CTA with its rows of A and of B, and where they lie."""
    a_end = 0
    if a is not None:
        a_end = ROUND * -(-max_address(case.a, case.m // case.cta_group, a) // ROUND)
    b_layout = replace(case.b, start=case.b.start + a_end)
    total = ROUND * -(-max_address(b_layout, case.n // case.cta_group, b) // ROUND)
    image = np.full((case.cta_group, total), 0xFF, np.uint8)
    for cta in range(case.cta_group):
        if a is not None:
            place(image[cta], np.split(a, case.cta_group)[cta], case.a)
        place(image[cta], np.split(b, case.cta_group)[cta], b_layout)
    return image, case.a, b_layout


def max_address(layout: Layout, rows: int, codes: Codes) -> int:
    """Bytes of dynamic shared memory up to the end of the operand's last swizzle pattern."""
    return int(layout.addresses((rows, codes.shape[1]), codes.itemsize * 8).max()) - 0x400 + 1024


def mma(
    case: Case, a: str, b: Layout, enable: int | str = 0, more: str = "", d: str = "%r7"
) -> str:
    return (
        f"@%p1 tcgen05.mma.cta_group::{case.cta_group}.kind::{case.kind} [{d}], {a}, "
        f"{b.word():#x}, {case.idesc:#x}, {more}{enable};\n"
    )


def expected(case: Case, product: Codes) -> Codes:
    """The bits of D: rounded once."""
    if case.d_format == "s32":
        return product.astype(np.int64).astype(np.uint32)
    if case.d_format == "f16":
        return product.astype(np.float16).view(np.uint16).astype(np.uint32)
    return product.astype(np.float32).view(np.uint32)


def check_d(case: Case, cells: Codes, product: Codes, base: int = 0) -> None:
    got = gather_d(cells, (case.m, case.n), case.cta_group, base)
    if case.d_format == "f16":
        got &= np.uint32(0xFFFF)
    np.testing.assert_array_equal(got, expected(case, product))


def columns_of(case: Case) -> int:
    """Columns that D takes, at least a load's worth."""
    return max(8, case.n // 2 if (case.cta_group, case.m) == (2, 128) else case.n)


def run_case(case: Case, policy: str, **options: Any) -> None:
    rng = np.random.default_rng(case.m + case.n)
    (a, a_values), (b, b_values) = (
        values(rng, name, (rows, case.k))
        for name, rows in ((case.a_format, case.m), (case.b_format, case.n))
    )
    image, a_layout, b_layout = images(
        case, in_shared(a, case.a_format), in_shared(b, case.b_format)
    )
    body = mma(case, f"{a_layout.word():#x}", b_layout)
    cells = Frame(
        image, body, columns_of(case), case.cta_group, all_cells(case, columns_of(case))
    ).run_clean(policy=policy, **options)
    check_d(case, cells, a_values @ b_values.T)


def all_cells(case: Case, columns: int) -> Codes:
    """Cells that hold something everywhere, so that D may leave some alone."""
    return np.full((case.cta_group, 128, columns), 0x40490FDB, np.uint32)


SHAPES = [(64, 8), (64, 104), (64, 256), (128, 8), (128, 56), (128, 256)]


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_shapes_of_one_cta(m: int, n: int) -> None:
    for policy in ("eager", "lazy"):
        run_case(Case(m, n), policy)


@pytest.mark.parametrize(("m", "n"), [(128, 16), (128, 96), (128, 256), (256, 16), (256, 176)])
def test_shapes_of_two_ctas(m: int, n: int) -> None:
    for policy in POLICIES[:3]:
        run_case(Case(m, n, cta_group=2), policy)


@pytest.mark.parametrize("name", K_MAJOR)
def test_k_major_layouts(name: str) -> None:
    run_case(Case(a=K_MAJOR[name], b=K_MAJOR["128"]), "eager")
    run_case(Case(a=K_MAJOR["64, second slice"], b=K_MAJOR[name]), "seed:3")


@pytest.mark.parametrize("name", MN_MAJOR)
def test_mn_major_layouts(name: str) -> None:
    run_case(Case(a=MN_MAJOR[name], b=K_MAJOR["32"]), "eager")
    run_case(Case(64, 128, a=K_MAJOR["none"], b=MN_MAJOR[name]), "lazy")


def test_mn_major_layouts_of_two_ctas() -> None:
    run_case(Case(256, 128, cta_group=2, a=MN_MAJOR["64"], b=MN_MAJOR["128"]), "lazy")


MN_MAJOR_8 = Layout("64", True, lbo=2048, sbo=512)
ATOM32 = Layout("128_32", True, lbo=1024, sbo=512)
KINDS = [
    Case(kind="f16", a_format="f16", b_format="bf16"),
    Case(kind="f16", a_format="f16", b_format="f16", d_format="f16"),
    Case(kind="tf32", a_format="tf32", b_format="tf32"),
    Case(kind="tf32", a_format="tf32", b_format="tf32", a=ATOM32, b=ATOM32),
    Case(kind="i8", a_format="s8", b_format="u8", d_format="s32"),
    Case(kind="i8", a_format="u8", b_format="s8", d_format="s32", a=MN_MAJOR_8),
    Case(kind="f8f6f4", a_format="e4m3", b_format="e5m2"),
    Case(kind="f8f6f4", a_format="e4m3", b_format="e4m3", b=MN_MAJOR_8),
    Case(kind="f8f6f4", a_format="e5m2", b_format="e4m3", d_format="f16"),
    Case(kind="f8f6f4", a_format="e2m1", b_format="e2m3"),
    Case(kind="f8f6f4", a_format="e3m2", b_format="e2m1", b=K_MAJOR["none"]),
]


@pytest.mark.parametrize(
    "case", KINDS, ids=lambda c: f"{c.kind} {c.a_format} {c.b_format} {c.d_format}"
)
def test_kinds(case: Case) -> None:
    run_case(case, "lazy")


def test_operands_have_formats_of_their_own() -> None:
    """Swapping them would give other values."""
    run_case(Case(kind="f8f6f4", a_format="e5m2", b_format="e3m2", m=64), "eager")


@pytest.mark.parametrize("case", KINDS[:3] + KINDS[4:5] + KINDS[9:], ids=lambda c: f"{c.a_format}")
@pytest.mark.parametrize("m", [64, 128])
def test_a_from_tensor_memory(case: Case, m: int) -> None:
    run_from_tensor_memory(replace(case, m=m), "lazy" if m == 64 else "eager")


@pytest.mark.parametrize("m", [128, 256])
def test_a_from_tensor_memory_of_two_ctas(m: int) -> None:
    """With M = 128 each CTA holds its 64 rows in both halves of the lanes."""
    run_from_tensor_memory(Case(m, 64, cta_group=2), "seed:5")


def run_from_tensor_memory(case: Case, policy: str) -> None:
    rng = np.random.default_rng(1)
    a, a_values = values(rng, case.a_format, (case.m, case.k))
    b, b_values = values(rng, case.b_format, (case.n, case.k))
    image, _, b_layout = images(case, None, in_shared(b, case.b_format))
    a_column = -(-columns_of(case) // 8) * 8
    cells = all_cells(case, a_column + 8)
    packed = in_cells(a, case.a_format)
    for m in range(case.m):
        if case.cta_group == 2:
            half = case.m // 2
            for lane in range(m % half, 128, half):
                cells[m // half, lane, a_column:] = packed[m]
        else:
            lane = m if case.m == 128 else m % 16 + 32 * (m // 16)
            cells[0, lane, a_column:] = packed[m]
    frame = Frame(image, mma(case, f"[%r7+{a_column}]", b_layout), a_column, case.cta_group, cells)
    check_d(case, frame.run_clean(policy=policy), a_values @ b_values.T)


def test_halves_of_a_are_read_where_they_are_used() -> None:
    """Two CTAs, M = 128: the upper lanes' copy of A makes the upper half of N."""
    case = Case(128, 32, cta_group=2)
    b, _ = values(np.random.default_rng(2), "bf16", (32, 16))
    image, _, b_layout = images(case, None, b)
    cells = np.zeros((2, 128, 24), np.uint32)
    cells[:, :64, 16:] = 0x3F803F80
    d = gather_d(
        Frame(image, mma(case, "[%r7+16]", b_layout), 16, 2, cells).run_clean(), (128, 32), 2
    ).view(np.float32)
    assert (d[:, :16] != 0).any()
    assert (d[:, 16:] == 0).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_sums_over_several_instructions(policy: str) -> None:
    """Four slices of 16 within one 128-byte swizzle; the first overwrites."""
    case = Case(128, 32)
    rng = np.random.default_rng(4)
    a, a_values = values(rng, "bf16", (128, 64))
    b, b_values = values(rng, "bf16", (32, 64))
    image, a_layout, b_layout = images(case, a, b)
    body = ""
    for step in range(4):
        sliced = (replace(x, start=x.start + 32 * step) for x in (a_layout, b_layout))
        a_step, b_step = sliced
        body += mma(case, f"{a_step.word():#x}", b_step, enable=int(step > 0))
    cells = Frame(image, body, 32, 1, all_cells(case, 32)).run_clean(policy=policy)
    d = gather_d(cells, (128, 32), 1).view(np.float32)
    np.testing.assert_allclose(d, a_values @ b_values.T, atol=2e-5)
    partial = np.zeros((128, 32), np.float32)
    for step in range(0, 64, 16):
        product = a_values[:, step : step + 16] @ b_values[:, step : step + 16].T
        partial = (product + partial).astype(np.float32)
    np.testing.assert_array_equal(d, partial)


def test_d_at_lane_16() -> None:
    case = Case(64, 16)
    rng = np.random.default_rng(5)
    (a, a_values), (b, b_values) = values(rng, "bf16", (64, 16)), values(rng, "bf16", (16, 16))
    image, a_layout, b_layout = images(case, a, b)
    body = "add.u32 %r20, %r7, 0x100000;\n" + mma(case, f"{a_layout.word():#x}", b_layout, d="%r20")
    before = all_cells(case, 16)
    cells = Frame(image, body, 16, 1, before).run_clean()
    check_d(case, cells, a_values @ b_values.T, base=16)
    lower = np.arange(128) % 32 < 16
    np.testing.assert_array_equal(cells[0][lower], before[0][lower])


def small(case: Case, more: str = "", enable: int | str = 1) -> tuple[Codes, Codes, Codes]:
    """D, A B^T and D before of one instruction that adds."""
    rng = np.random.default_rng(6)
    a, a_values = values(rng, case.a_format, (case.m, case.k))
    b, b_values = values(rng, case.b_format, (case.n, case.k))
    image, a_layout, b_layout = images(case, a, b)
    before = rng.standard_normal((1, 128, case.n)).astype(np.float32)
    frame = Frame(
        image,
        mma(case, f"{a_layout.word():#x}", b_layout, enable, more),
        case.n,
        1,
        before.view(np.uint32),
    )
    return frame.run_clean()[0].view(np.float32), a_values @ b_values.T, before[0]


def test_adds_to_d() -> None:
    d, product, before = small(Case(128, 16))
    np.testing.assert_array_equal(d, (product + before).astype(np.float32))


def test_scales_d_down() -> None:
    d, product, before = small(Case(128, 16), enable="1, 3")
    np.testing.assert_array_equal(d, (product + before / 8).astype(np.float32))


@pytest.mark.parametrize(("bit", "sign"), [(13, -1), (14, -1), (None, 1)])
def test_negates_operands(bit: int | None, sign: int) -> None:
    d, product, _ = small(Case(128, 8, extra=1 << bit if bit else 0), enable=0)
    np.testing.assert_array_equal(d, (sign * product).astype(np.float32))


def test_disabled_lanes_keep_their_values() -> None:
    """Bit i of word j disables lane 32 j + i."""
    d, product, before = small(Case(128, 16), more="{0x3, 0, 0xFFFFFFFF, 0x80000000}, ", enable=0)
    disabled = np.zeros(128, bool)
    disabled[[0, 1, 127]] = disabled[64:96] = True
    np.testing.assert_array_equal(d[disabled], before[disabled])
    np.testing.assert_array_equal(d[~disabled], product.astype(np.float32)[~disabled])


def test_saturates_integers() -> None:
    case = Case(128, 8, "i8", "u8", "u8", "s32", extra=1 << 3)
    codes = np.full((128, 32), 255, np.uint8)
    image, a_layout, b_layout = images(case, codes, codes[:8])
    before = np.full((1, 128, 8), 2**31 - 5, np.uint32)
    body = mma(case, f"{a_layout.word():#x}", b_layout, enable=1)
    cells = Frame(image, body, 8, 1, before).run_clean()
    assert (cells == 2**31 - 1).all()
    body = mma(replace(case, extra=0), f"{a_layout.word():#x}", b_layout, enable=1)
    cells = Frame(image, body, 8, 1, before).run_clean()
    assert (cells == (2**31 - 5 + 32 * 255 * 255) % 2**32).all()


def test_fused_sums_cut_products() -> None:
    """16 products of 0.75 below 2^24: each is cut to 0.5, the sum of 8 to a multiple of 2."""
    case = Case(128, 8)
    a = np.full((128, 16), 0.75, ml_dtypes.bfloat16).view(np.uint16)
    b = np.full((8, 16), 1, ml_dtypes.bfloat16).view(np.uint16)
    image, a_layout, b_layout = images(case, a, b)
    before = np.full((1, 128, 8), 2.0**24, np.float32).view(np.uint32)
    body = mma(case, f"{a_layout.word():#x}", b_layout, enable=1)
    frame = Frame(image, body, 8, 1, before)
    assert (frame.run_clean(tensor_core="fused").view(np.float32) == 2.0**24 + 8).all()
    assert (frame.run_clean(tensor_core="float64").view(np.float32) == 2.0**24 + 12).all()


EXACT = [
    Case(),
    Case(kind="f16", a_format="f16", b_format="f16", d_format="f16"),
    Case(kind="f8f6f4", a_format="e4m3", b_format="e2m1", m=64, n=8),
]


@pytest.mark.parametrize("case", EXACT, ids=lambda c: f"{c.a_format} {c.d_format}")
def test_both_sums_agree_where_nothing_is_lost(case: Case) -> None:
    """Products of 0, 1 and 2 in sums of 32."""
    rng = np.random.default_rng(7)
    a_values, b_values = (rng.integers(0, 3, (rows, case.k)) for rows in (case.m, case.n))
    a, b = (
        typed.view(np.uint16 if typed.itemsize == 2 else np.uint8)
        for typed in (
            a_values.astype(np.float32).astype(DTYPES[case.a_format]),
            b_values.astype(np.float32).astype(DTYPES[case.b_format]),
        )
    )
    image, a_layout, b_layout = images(
        case, in_shared(a, case.a_format), in_shared(b, case.b_format)
    )
    body = mma(case, f"{a_layout.word():#x}", b_layout)
    for model in ("fused", "float64"):
        before = all_cells(case, case.n)
        cells = Frame(image, body, case.n, 1, before).run_clean(tensor_core=model)
        check_d(case, cells, a_values @ b_values.T)


# ---- misuse --------------------------------------------------------------------------------------


def broken(case: Case, body: str | None = None, **options: Any) -> tuple[set[FindingKind], str]:
    """Findings of a frame whose shared memory is large enough for any operand."""
    image = np.zeros((case.cta_group, 32768), np.uint8)
    b_layout = replace(case.b, start=16384)
    frame = Frame(
        image,
        mma(case, f"{case.a.word():#x}", b_layout) if body is None else body,
        8,
        case.cta_group,
        np.zeros((case.cta_group, 128, 16), np.uint32),
        **options,
    )
    _, emulation = frame.run()
    return kinds(emulation), "\n".join(map(str, emulation.findings))


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (Case(n=264), "N is"),
        (Case(m=256), "M is"),
        (Case(a=Layout("128_32")), "K-major"),
        (Case(extra=1 << 2), "sparse"),
        (Case(128, 64, "tf32", "tf32", "tf32", a=MN_MAJOR["128"]), "MN-major"),
        (Case(n=128), "columns 0 to 127"),
    ],
)
def test_refuses(case: Case, text: str) -> None:
    found, message = broken(case, allocated=64 if case.n == 128 else 512)
    assert found >= {FindingKind.FAULT}
    assert text in message


def test_a_must_not_lie_under_d() -> None:
    case = Case(n=8)
    found, message = broken(case, mma(case, "[%r7+4]", replace(case.b, start=16384)))
    assert FindingKind.RACE in found
    assert "columns 4 to 11 and lanes 0 to 127, columns 0 to 7" in message


def test_refuses_addresses() -> None:
    case, b = Case(), replace(K_MAJOR["128"], start=16384)
    for body, text in (
        ("add.u32 %r20, %r7, 0x100000;\n" + mma(case, "0", b, d="%r20"), "lane 16"),
        (mma(case, "[%r7+510]", b), "columns 510 to 517"),
        ("add.u32 %r20, %r7, 0x100000;\n" + mma(case, "[%r20]", b), "A: got lane 16"),
        (mma(case, f"{replace(case.a, start=31 * 1024).word():#x}", b), "allowed: 0 to"),
    ):
        found, message = broken(case, body.replace(" 0, 0x", f" {case.a.word():#x}, 0x", 1))
        assert FindingKind.FAULT in found
        assert text in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind::f16", "kind::f16.ws"),
        ("tcgen05.mma", "tcgen05.mma.sp"),
        ("kind::f16", "kind::f16.ashift"),
        ("kind::f16", "kind::f16.block_scale"),
        ("kind::f16", "kind::f64"),
        (", 0;", ";"),
        (", 0;", ", {0, 0, 0, 0};"),
        (", 0;", ", {0, 0}, 0;"),
        (", 0;", ", 0, 16;"),
        (", 0;", ", 0, 1, 1;"),
    ],
)
def test_does_not_know(old: str, new: str) -> None:
    case = Case()
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+"):
        broken(case, mma(case, f"{case.a.word():#x}", case.b).replace(old, new))


def test_mask_of_two_ctas_must_be_zero() -> None:
    case = Case(256, 32, cta_group=2)
    zeros, ones = "{0, 0, 0, 0, 0, 0, 0, 0}, ", "{0, 0, 0, 0, 1, 0, 0, 0}, "
    a, b = f"{case.a.word():#x}", replace(case.b, start=16384)
    assert broken(case, mma(case, a, b, more=zeros))[0] == set()
    with pytest.raises(UnsupportedInstruction, match="disable-output-lane"):
        broken(case, mma(case, a, b, more=ones))


def test_two_ctas_need_a_pair() -> None:
    case = Case(256, 32, cta_group=2)
    found, message = broken(replace(Case(), kind="f16"), mma(case, "0", case.b))
    assert FindingKind.FAULT in found
    assert "no peer" in message or "cta_group" in message


def test_every_active_lane_multiplies() -> None:
    """Without an election each of 32 lanes adds its product."""
    case = Case(128, 8)
    ones = np.full((128, 16), 1, ml_dtypes.bfloat16).view(np.uint16)
    image, a_layout, b_layout = images(case, ones, ones[:8])
    body = "setp.lt.u32 %p4, %r0, 5;\n" + mma(case, f"{a_layout.word():#x}", b_layout, 1)
    frame = Frame(image, body.replace("@%p1", "@%p4"), 8, 1, np.zeros((1, 128, 8), np.uint32))
    cells, emulation = frame.run()
    assert (cells.view(np.float32) == 5 * 16).all()
    # The commit, which is lane 0's alone, waits for one of them.
    assert kinds(emulation) == {FindingKind.BARRIER, FindingKind.NOT_COMPLETED}
