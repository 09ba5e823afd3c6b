"""tcgen05.ld, .st and their waits, against the value layouts of CUTLASS's copy traits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ptx_kernel import run_ptx
from tcgen05_kernels import POLICIES, PROLOGUE, Codes, Frame, kinds

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

Modes = Sequence[tuple[int, int]]
IMAGE = np.zeros((1, 2048), np.uint8)

LAYOUTS: dict[str, tuple[int, Modes, Modes]] = {
    "32x32b": (128, ((32, 128),), ((128, 1),)),
    "16x64b": (256, ((2, 2048), (2, 32), (8, 256)), ((32, 1), (4, 64))),
    "16x128b": (512, ((4, 32), (8, 512)), ((32, 1), (2, 4096), (4, 128))),
    "16x256b": (1024, ((4, 64), (8, 1024)), ((64, 1), (2, 8192), (4, 256))),
    "16x32bx2": (256, ((16, 256), (2, 128)), ((128, 1),)),
}
"""For .x4: bits of a lane's row, modes (shape, stride) of the thread and of a bit of its registers.

CUTLASS cute/atom/copy_traits_sm100.hpp, DstLayout of SM100_TMEM_LOAD_*4x; packed forms have the
same, but their rows are 16-bit columns. 16x32bx2 has its second half where the first one ends."""


def crd2idx(index: int, modes: Modes) -> int:
    total = 0
    for shape, stride in modes:
        total, index = total + index % shape * stride, index // shape
    return total


def cells_of(shape: str, packed: bool) -> list[list[list[tuple[int, int]]]]:
    """``[thread][register]``: the (lane, column) of its halves, or of its one cell, for .x4."""
    width, thread_modes, bit_modes = LAYOUTS[shape]
    bits = int(np.prod([size for size, _ in bit_modes]))
    column_bits = 16 if packed else 32
    table = []
    for thread in range(32):
        registers = []
        for register in range(bits // 32):
            at = crd2idx(thread, thread_modes) + crd2idx(32 * register, bit_modes)
            lane, bit = divmod(at, width)
            registers.append([(lane, bit // column_bits + half) for half in range(1 + packed)])
        table.append(registers)
    return table


def registers_of(row: Codes, table: list[list[list[tuple[int, int]]]]) -> Codes:
    """``(32, registers)`` that a load from ``(lanes, columns)`` cells gives."""
    return np.array(
        [
            [
                row[cells[0]]
                if len(cells) == 1
                else row[cells[0]] & 0xFFFF | (row[cells[1]] & 0xFFFF) << 16
                for cells in registers
            ]
            for registers in table
        ],
        np.uint32,
    )


def random_cells(columns: int) -> Codes:
    return np.random.default_rng(columns).integers(0, 1 << 32, (1, 128, columns), np.uint32)


SPLIT = {False: ", 4", True: ", 8"}
"""immHalfSplitoff with which the halves of 16x32bx2.x4 lie side by side."""


def opcode(what: str, shape: str, packed: bool) -> str:
    modifier = {"ld": ".pack::16b", "st": ".unpack::16b"}[what] if packed else ""
    return f"tcgen05.{what}.sync.aligned.{shape}.x4{modifier}.b32"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("base", [0, 16])
def test_loads(shape: str, packed: bool, base: int) -> None:
    if shape == "32x32b" and base:
        return
    table = cells_of(shape, packed)
    count = len(table[0])
    names = [f"%v{i}" for i in range(count)]
    split = SPLIT[packed] if shape == "16x32bx2" else ""
    body = f"""
add.u32 %r20, %r8, {base << 16 | 3};
{opcode("ld", shape, packed)} {{{", ".join(names)}}}, [%r20+2]{split};
ld.param.u64 %d4, [result];
mul.wide.u32 %d5, %r0, {4 * count};
add.s64 %d4, %d4, %d5;
"""
    body += "".join(f"st.global.b32 [%d4+{4 * i}], {name};\n" for i, name in enumerate(names))
    cells = random_cells(72)
    result = np.zeros((4, 32, count), np.uint32)
    frame = Frame(IMAGE, body, 8, 1, cells, commit=False, parameters={"result": result})
    frame.run_clean(policy="lazy" if packed else "eager")
    for warp in range(4):
        lanes = cells[0, 32 * warp + base :, 5:]
        np.testing.assert_array_equal(result[warp], registers_of(lanes, table))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", LAYOUTS)
def test_stores(shape: str, packed: bool) -> None:
    table = cells_of(shape, packed)
    count = len(table[0])
    names = [f"%v{i}" for i in range(count)]
    split = SPLIT[packed] if shape == "16x32bx2" else ""
    body = f"""
ld.param.u64 %d4, [source];
mul.wide.u32 %d5, %r0, {4 * count};
add.s64 %d4, %d4, %d5;
"""
    body += "".join(f"ld.global.b32 {name}, [%d4+{4 * i}];\n" for i, name in enumerate(names))
    body += f"""
{opcode("st", shape, packed)} [%r8+5]{split}, {{{", ".join(names)}}};
tcgen05.wait::st.sync.aligned;
"""
    source = np.random.default_rng(8).integers(0, 1 << 32, (4, 32, count), np.uint32)
    before = random_cells(72)
    mask = np.uint32(0xFFFF if packed else 0xFFFFFFFF)
    frame = Frame(IMAGE, body, 72, 1, before, commit=False, parameters={"source": source})
    after = frame.run_clean(policy="eager" if packed else "lazy")[0]
    wanted = before[0].copy()
    for warp in range(4):
        for thread, registers in enumerate(table):
            for register, cells in enumerate(registers):
                for half, (lane, column) in enumerate(cells):
                    value = int(source[warp, thread, register]) >> 16 * half & int(mask)
                    wanted[32 * warp + lane, 5 + column] = value
                    after[32 * warp + lane, 5 + column] &= mask
    np.testing.assert_array_equal(after, wanted)


SPECIAL = [np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, -3.0, 1e-40]


def largest(row: list[float], least: bool, magnitude: bool, nan: bool) -> float:
    """Minimum or maximum of numbers by the order of the reals, -0 below +0."""
    row = [abs(x) for x in row] if magnitude else row
    numbers = [x for x in row if not np.isnan(x)]
    if not numbers or (nan and len(numbers) < len(row)):
        return np.nan
    return (min if least else max)(numbers, key=lambda x: (x, np.copysign(1, x)))


@pytest.mark.parametrize("policy", ["eager", "lazy"])
@pytest.mark.parametrize(
    "operation",
    ["max.f32", "min.f32", "max.abs.f32", "min.NaN.f32", "max.u32", "max.s32", "min.s32"],
)
def test_loads_with_a_reduction(operation: str, policy: str) -> None:
    """The values as without, and their minimum or maximum by Python's."""
    names = ", ".join(f"%v{i}" for i in range(4))
    body = f"""
tcgen05.ld.red.sync.aligned.32x32b.x4.{operation} {{{names}}}, %v4, [%r8+2];
ld.param.u64 %d4, [result];
mul.wide.u32 %d5, %r0, 20;
add.s64 %d4, %d4, %d5;
"""
    body += "".join(f"st.global.b32 [%d4+{4 * i}], %v{i};\n" for i in range(5))
    cells = np.random.default_rng(3).choice(np.array(SPECIAL, np.float32), (1, 128, 8))
    if not operation.endswith("f32"):
        cells = np.random.default_rng(4).integers(0, 1 << 32, (1, 128, 8), np.uint32)
    bits = cells.view(np.uint32)
    result = np.zeros((128, 5), np.uint32)
    frame = Frame(IMAGE, body, 8, 1, bits, commit=False, parameters={"result": result})
    frame.run_clean(policy=policy)
    np.testing.assert_array_equal(result[:, :4], bits[0, :, 2:6])
    rows = result[:, :4].view({"f": np.float32, "s": np.int32, "u": np.uint32}[operation[-3]])
    least, magnitude, nan = "min" in operation, "abs" in operation, "NaN" in operation
    for row, got in zip(rows.tolist(), result[:, 4].view(rows.dtype), strict=True):
        wanted = rows.dtype.type(largest(row, least, magnitude, nan))
        assert str(got) == str(wanted), (row, got)  # tells zeros apart, and takes NaN as equal


# ---- small kernels of one or two warps ---------------------------------------------------------

ALLOC = """
setp.ne.u32 %p2, %r2, 0;
@%p2 bra THERE;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 64;
tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;
THERE:
bar.sync 0;
ld.shared.b32 %r7, [%r1];
add.u32 %r8, %r7, %r4;
add.u32 %v0, %r0, 100;
add.u32 %v1, %r0, 200;
"""
FREE = """
bar.sync 0;
@%p2 bra FREED;
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r7, 64;
FREED:
ret;
"""
OUT = """
ld.param.u64 %d0, [out];
mul.wide.u32 %d1, %r0, 4;
add.s64 %d0, %d0, %d1;
"""
STORE = "tcgen05.st.sync.aligned.32x32b.x2.b32 [%r8], {%v0, %v1};\n"
LOAD = "tcgen05.ld.sync.aligned.32x32b.x2.b32 {%v2, %v3}, [%r8];\n"
WAIT_ST, WAIT_LD = "tcgen05.wait::st.sync.aligned;\n", "tcgen05.wait::ld.sync.aligned;\n"


def run(body: str, policy: str = "eager", block: int = 32, free: str = FREE) -> tuple[Codes, Any]:
    out = np.zeros(block, np.uint32)
    text = PROLOGUE + ALLOC + OUT + body + free
    return out, run_ptx(text, {"out": out}, smem=1024, block=block, policy=policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_copies_of_pending_registers_are_delivered(policy: str) -> None:
    """A mov copies a value that has not arrived; the copy gets it even if its source is reused."""
    body = STORE + WAIT_ST + LOAD + "mov.b32 %r30, %v3;\nmov.b32 %v3, 7;\nmov.b32 %r31, %v2;\n"
    out, emulation = run(body + "sub.u32 %r32, %r30, %r31;\nst.global.b32 [%d0], %r32;\n", policy)
    assert emulation.ok, emulation.findings
    assert (out == 100).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_sinks_and_waits(policy: str) -> None:
    load = LOAD.replace("%v2, %v3", "_, %v3")
    out, emulation = run(STORE + WAIT_ST + load + WAIT_LD + "st.global.b32 [%d0], %v3;\n", policy)
    assert emulation.ok, emulation.findings
    np.testing.assert_array_equal(out, np.arange(200, 232))


@pytest.mark.parametrize("policy", POLICIES)
def test_load_needs_the_store_to_be_over(policy: str) -> None:
    _, emulation = run(STORE + LOAD + WAIT_ST + "st.global.b32 [%d0], %v3;\n", policy)
    assert FindingKind.NOT_COMPLETED in kinds(emulation) or policy != "eager"
    assert not emulation.ok


@pytest.mark.parametrize("policy", POLICIES)
def test_store_must_not_overtake_a_load(policy: str) -> None:
    """Writing cells whose load has been neither used nor waited for."""
    again = "mov.b32 %v0, 1;\nmov.b32 %v1, 2;\n" + STORE + WAIT_ST
    _, emulation = run(STORE + WAIT_ST + LOAD + again + "st.global.b32 [%d0], %v3;\n", policy)
    assert not emulation.ok
    for between in ("add.u32 %r30, %v2, %v3;\n", WAIT_LD):
        out, emulation = run(
            STORE + WAIT_ST + LOAD + between + again + "st.global.b32 [%d0], %v3;\n", policy
        )
        assert emulation.ok, emulation.findings
        np.testing.assert_array_equal(out, np.arange(200, 232))


def test_a_use_observes_only_its_own_load() -> None:
    """Two loads are under way; using the second does not tell that the first is over."""
    second = LOAD.replace("%v2, %v3", "%v4, %v5").replace("[%r8]", "[%r8+8]")
    store = STORE.replace("[%r8]", "[%r8+8]")
    start = STORE + store + WAIT_ST + LOAD + second + "add.u32 %r30, %v4, %v5;\n"
    _, emulation = run(start + STORE + WAIT_ST)
    assert kinds(emulation) == {FindingKind.RACE}
    _, emulation = run(start + "add.u32 %r30, %v2, %v2;\n" + STORE + WAIT_ST)
    assert emulation.ok, emulation.findings


@pytest.mark.parametrize("policy", POLICIES)
def test_another_warp_may_read_after_a_barrier(policy: str) -> None:
    """Warps 0 and 4 share lanes; what one has stored and waited for, the other reads."""
    meet = "bar.sync 0;\n"
    first = "setp.eq.u32 %p3, %r2, 0;\n@!%p3 bra OTHER;\n" + STORE + "{wait}OTHER:\n" + meet
    tail = "setp.eq.u32 %p3, %r2, 4;\n@!%p3 bra END;\n" + LOAD + "st.global.b32 [%d0], %v2;\nEND:\n"
    body = ".reg .b32 %unused;\n" + first + tail
    # Warp 4 reaches lanes 0 to 31 again: its index in the warpgroup is 0.
    lanes = "and.b32 %r30, %r2, 3;\nshl.b32 %r30, %r30, 21;\nadd.u32 %r8, %r7, %r30;\n"
    out, emulation = run(lanes + body.replace("{wait}", WAIT_ST), policy, block=160)
    assert emulation.ok, emulation.findings
    np.testing.assert_array_equal(out[128:], np.arange(100, 132))
    _, emulation = run(lanes + body.replace("{wait}", ""), policy, block=160)
    # A lazy store is still outstanding at the end, when its columns are gone.
    expected = {FindingKind.NOT_COMPLETED, FindingKind.UNINITIALISED, FindingKind.RACE}
    assert kinds(emulation) & expected


@pytest.mark.parametrize("policy", ["eager", "lazy"])
def test_unwritten_cells(policy: str) -> None:
    out, emulation = run(LOAD + "st.global.b32 [%d0], %v3;\n", policy)
    assert kinds(emulation) == {FindingKind.UNINITIALISED}
    assert np.isnan(out.view(np.float32)).all()


def test_columns_are_forgotten_between_allocations() -> None:
    again = """
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r7, 64;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 64;
"""
    alloc = ALLOC.replace("tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;\n", "")
    text = STORE + WAIT_ST + again + LOAD + "st.global.b32 [%d0], %v3;\n"
    out = np.zeros(32, np.uint32)
    emulation = run_ptx(PROLOGUE + alloc + OUT + text + FREE, {"out": out}, smem=1024)
    assert kinds(emulation) == {FindingKind.UNINITIALISED}


def test_dealloc_must_follow_all_accesses() -> None:
    _, emulation = run(STORE)
    assert kinds(emulation) == {FindingKind.NOT_COMPLETED}
    _, emulation = run(STORE, "lazy")
    assert kinds(emulation) == {FindingKind.RACE}
    _, emulation = run(STORE + WAIT_ST + LOAD)
    assert kinds(emulation) == {FindingKind.RACE}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (LOAD.replace("%r8", "%r8+0x100000"), "got lane 16, allowed for warp 0: 0 "),
        (
            "tcgen05.ld.sync.aligned.16x64b.x1.b32 {%v2}, [%r8+0x80000];\n",
            "got lane 8, allowed for warp 0: 0 or 16",
        ),
        (LOAD.replace("%r8", "%r8+63"), "columns 63 to 64, allocated columns: 0 to 63"),
        ("add.u32 %r8, %r8, %r0;\n" + LOAD, "different addresses"),
        ("setp.eq.u32 %p3, %r0, 0;\n@%p3 " + LOAD, "1 active lanes"),
        ("setp.eq.u32 %p3, %r0, 0;\n@%p3 " + WAIT_LD, "1 active lanes"),
    ],
)
def test_refuses(body: str, text: str) -> None:
    _, emulation = run(body)
    assert kinds(emulation) >= {FindingKind.FAULT}
    assert text in "\n".join(map(str, emulation.findings))


def test_another_warps_quarter_is_noted_and_the_own_one_taken() -> None:
    """CUTLASS's 1cta_mma_a_from_tmem stores A so, and is right on a B200."""
    cells = random_cells(8)
    body = """
xor.b32 %r20, %r8, 0x200000;
tcgen05.ld.sync.aligned.32x32b.x1.b32 {%v0}, [%r20+3];
ld.param.u64 %d4, [result];
mul.wide.u32 %d5, %r0, 4;
add.s64 %d4, %d4, %d5;
st.global.b32 [%d4], %v0;
"""
    result = np.zeros((4, 32), np.uint32)
    frame = Frame(IMAGE, body, 8, 1, cells, commit=False, parameters={"result": result})
    _, emulation = frame.run()
    np.testing.assert_array_equal(result.ravel(), cells[0, :, 3])
    assert kinds(emulation) == {FindingKind.OUT_OF_BOUNDS}
    wrong = re.search(r"got lane (\d+), allowed for warp (\d): (\d+) ", str(emulation.findings[0]))
    assert wrong is not None
    got, warp, own = map(int, wrong.groups())
    assert (got, own) == (32 * warp ^ 32, 32 * warp)
    assert emulation.occurrences == (4,)
    body = body.replace("0x200000", "0x800000")
    frame = Frame(IMAGE, body, 8, 1, cells, commit=False, parameters={"result": result})
    _, emulation = frame.run()
    assert kinds(emulation) >= {FindingKind.FAULT}
    assert re.search(r"got lane (128|160|192|224), allowed", str(emulation.findings[0]))


@pytest.mark.parametrize(
    "body",
    [
        LOAD.replace(".x2", ".x4"),
        LOAD.replace(".x2", ".x3"),
        LOAD.replace("32x32b", "8x32b"),
        LOAD.replace(".sync.aligned", ""),
        LOAD.replace(".b32 ", ".red.max.b32 "),
        LOAD.replace(".b32 ", ".red.f32 ").replace("},", "}, %v4,"),
        LOAD.replace(".b32 ", ".red.max.f32 "),
        LOAD.replace(".b32 ", ".red.max.NaN.u32 ").replace("},", "}, %v4,"),
        LOAD.replace(".b32 ", ".red.max.f32 ").replace("},", "}, %v4,").replace("32x32b", "16x64b"),
        LOAD.replace("x2.b32 {%v2, %v3}", "x1.red.max.f32 {%v2}, %v4"),
        LOAD.replace("32x32b.x2", "16x256b.x64"),
        LOAD.replace("32x32b", "16x32bx2"),
        STORE.replace(".x2", ".x2.pack::16b"),
    ],
)
def test_does_not_know(body: str) -> None:
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+"):
        run(body)


def test_a_load_used_before_anything_wrote_names_the_register() -> None:
    _, emulation = run("tcgen05.st.sync.aligned.32x32b.x2.b32 [%r8], {%v0, %v9};\n")
    assert kinds(emulation) >= {FindingKind.FAULT}
    assert "%v9" in str(emulation.findings[0])
