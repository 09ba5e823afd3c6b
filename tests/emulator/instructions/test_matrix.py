"""``ldmatrix``, ``stmatrix`` and ``movmatrix``, against the rule for each register of each lane."""

from __future__ import annotations

import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

RNG = np.random.default_rng(24)
BYTES = 2048


def row_starts(rows: int) -> np.ndarray:
    """Where each row begins: anywhere at a multiple of 16, in no order; 0 for idle lanes."""
    starts = np.zeros(32, np.uint32)
    starts[:rows] = RNG.permutation(BYTES // 16)[:rows] * 16
    return starts


FILL = """.reg .b32 base, four; mov.b32 base, smem; mad.lo.u32 word, tid, 4, base;
mad.wide.u32 at, tid, 4, data; mov.b32 four, 0;
FILL: ld.global.b32 tid, [at]; st.shared.b32 [word], tid; add.u32 word, word, 128;
add.u64 at, at, 128; add.u32 four, four, 128; setp.lt.u32 more, four, 2048; @more bra FILL;
mov.u32 tid, %tid.x; add.u32 start, start, base;"""
DUMP = """mad.lo.u32 word, tid, 4, base; mad.wide.u32 at, tid, 4, data; mov.b32 four, 0;
DUMP: ld.shared.b32 tid, [word]; st.global.b32 [at], tid; add.u32 word, word, 128;
add.u64 at, at, 128; add.u32 four, four, 128; setp.lt.u32 more, four, 2048; @more bra DUMP;
mov.u32 tid, %tid.x;"""


def load(shape: str, registers: int, starts: np.ndarray, data: np.ndarray) -> np.ndarray:
    """``(registers, 32, 4)`` bytes that ``ldmatrix`` of ``shape`` loads."""
    names = [f"r{i}" for i in range(registers)]
    body = f"{FILL} ldmatrix.sync.aligned.{shape} {{{', '.join(names)}}}, [start];"
    out, run = run_lanes(
        body,
        {"start": starts},
        dict.fromkeys(names, "u4"),
        {"data": data},
        before=".reg .pred more;",
        smem=BYTES,
    )
    assert run.ok, run.findings
    return np.stack([out[name].view(np.uint8).reshape(32, 4) for name in names])


def store(shape: str, registers: np.ndarray, starts: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The memory after ``stmatrix`` of ``(registers, 32, 4)`` bytes."""
    inputs = {f"r{i}": r.copy().view(np.uint32).ravel() for i, r in enumerate(registers)}
    body = f"{FILL} stmatrix.sync.aligned.{shape} [start], {{{', '.join(inputs)}}}; {DUMP}"
    _, run = run_lanes(
        body,
        inputs | {"start": starts},
        {},
        {"data": data},
        before=".reg .pred more;",
        smem=BYTES,
    )
    assert run.ok, run.findings
    return data


def b16_element(transposed: bool, lane: int, half: int) -> tuple[int, int]:
    """Row and column of one half of a register of an 8 x 8 matrix (9.7.14.5.15)."""
    first, second = lane // 4, 2 * (lane % 4) + half
    return (second, first) if transposed else (first, second)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_8x8(count: int, transposed: bool) -> None:
    starts, data = row_starts(8 * count), RNG.integers(0, 256, BYTES, dtype=np.uint8)
    shape = f"m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    got = load(shape, count, starts, data)
    stored = store(shape, got[::-1], starts, data.copy())
    for matrix in range(count):
        for lane in range(32):
            for half in range(2):
                row, column = b16_element(transposed, lane, half)
                at = int(starts[8 * matrix + row]) + 2 * column
                assert got[matrix, lane, 2 * half :][:2].tolist() == data[at : at + 2].tolist()
                back = got[count - 1 - matrix, lane, 2 * half :][:2]
                assert stored[at : at + 2].tolist() == back.tolist()


@pytest.mark.parametrize("count", [1, 2])
def test_16x16_of_8_bits(count: int) -> None:
    """The fragment by the layout of CUTLASS's SM100_U8x8_LDSM_T, its byte exchange undone."""
    starts, data = row_starts(16 * count), RNG.integers(0, 256, BYTES, dtype=np.uint8)
    got = load(f"m16n16.x{count}.trans.shared.b8", 2 * count, starts, data)
    for matrix in range(count):
        for lane in range(32):
            exchanged = np.concatenate(
                [got[2 * matrix + r, lane, half : half + 2] for half in (0, 2) for r in (0, 1)]
            )
            for value in range(8):
                # DstLayout ((4,8),(8,2,2,2)):((256,8),(1,128,64,1024)) in bits, bytes here;
                # SrcLayout says in which lane's row logical row r lies.
                v0, v1, v2 = value % 2, value // 2 % 2, value // 4
                bit = 256 * (lane % 4) + 8 * (lane // 4) + 128 * v0 + 64 * v1 + 1024 * v2
                row, column = bit // 128, bit % 128 // 8
                source = row % 2 + 2 * (row // 8) + 4 * (row % 8 // 2)
                at = int(starts[16 * matrix + source]) + column
                assert exchanged[value] == data[at]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_16x8_of_8_bits(count: int) -> None:
    """The fragment by the layout of CUTLASS's SM100_U8x4_STSM_T."""
    starts, data = row_starts(8 * count), np.zeros(BYTES, np.uint8)
    registers = RNG.integers(0, 256, (count, 32, 4), dtype=np.uint8)
    stored = store(f"m16n8.x{count}.trans.shared.b8", registers, starts, data)
    for matrix in range(count):
        for lane in range(32):
            for value in range(4):
                bit = 256 * (lane % 4) + 8 * (lane // 4) + 128 * (value % 2) + 64 * (value // 2)
                at = int(starts[8 * matrix + bit // 128]) + bit % 128 // 8
                assert stored[at] == registers[matrix, lane, value]


def test_movmatrix_transposes() -> None:
    matrix = RNG.integers(0, 1 << 16, (8, 8)).astype(np.uint16)
    a = np.array([matrix[lane // 4, 2 * (lane % 4) :][:2] for lane in range(32)], np.uint16)
    out, run = run_lanes(
        "movmatrix.sync.aligned.m8n8.trans.b16 d, a;", {"a": a.view(np.uint32).ravel()}, {"d": "u4"}
    )
    assert run.ok
    turned = matrix.T
    expected = [turned[lane // 4, 2 * (lane % 4) :][:2].tolist() for lane in range(32)]
    assert out["d"].view(np.uint16).reshape(32, 2).tolist() == expected


def test_generic_addresses() -> None:
    body = """mov.b32 word, smem; mad.lo.u32 word, tid, 16, word;
    st.shared.v4.b32 [word], {tid, tid, tid, tid}; cvt.u64.u32 at, word; cvta.shared.u64 at, at;
    ldmatrix.sync.aligned.m8n8.x4.b16 {a, b, _, d}, [at];"""
    out, run = run_lanes(body, {}, {"a": "u4", "b": "u4", "d": "u4"}, smem=512)
    assert run.ok
    assert out["b"].tolist() == [8 + lane // 4 for lane in range(32)]
    assert out["d"].tolist() == [24 + lane // 4 for lane in range(32)]


def test_only_the_lanes_that_matter_give_addresses() -> None:
    body = """mov.b32 word, smem; st.shared.v4.b32 [word], {1, 2, 3, 4};
    .reg .pred idle; setp.gt.u32 idle, tid, 7; @idle mov.b32 word, 3;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {a}, [word];"""
    out, run = run_lanes(body, {}, {"a": "u4"}, smem=64)
    assert run.ok
    assert out["a"].tolist() == [1, 2, 3, 4] * 8


@pytest.mark.parametrize("offset", [8, 256])
def test_rows_are_aligned_and_inside(offset: int) -> None:
    body = f"""mov.b32 word, smem; mad.lo.u32 word, tid, 16, word; add.u32 word, word, {offset};
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [word], {{tid}};"""
    _, run = run_lanes(body, smem=256)
    assert ("8 past a multiple of 16" if offset == 8 else "allowed: 0 to 255") in fault(run)


def test_a_row_in_global_memory_is_an_error() -> None:
    body = "ldmatrix.sync.aligned.m8n8.x1.b16 {word}, [data];"
    room = np.zeros(64, np.uint8)
    start = -room.ctypes.data % 16
    _, run = run_lanes(body, {}, {}, {"data": room[start : start + 32]})
    assert "must be in shared memory" in fault(run)


def test_half_a_warp_is_reported() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; mov.b32 word, smem; mov.b32 d, 0;
    st.shared.v4.b32 [word], {1, 2, 3, 4}; @low movmatrix.sync.aligned.m8n8.trans.b16 d, tid;"""
    _, run = run_lanes(body, {}, {"d": "u4"}, smem=64)
    assert kinds(run) == ["convergence"]
    assert ".aligned wants all 32" in run.findings[0].message


@pytest.mark.parametrize(
    "line",
    [
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {word}, [tid];",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {word}, [tid];",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b8 {word}, [tid];",
        "ldmatrix.sync.aligned.m16n16.x1.shared.b8 {word, word}, [tid];",
        "ldmatrix.sync.aligned.m8n16.x1.shared.b8x16.b4x16_p64 {word}, [tid];",
        "ldmatrix.aligned.m8n8.x1.shared.b16 {word}, [tid];",
        "ldmatrix.sync.aligned.m8n8.x1.global.b16 {word}, [at];",
        "stmatrix.sync.aligned.m16n8.x1.shared.b8 [tid], {word};",
        "movmatrix.sync.aligned.m8n8.b16 word, tid;",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)
