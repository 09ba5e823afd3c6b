"""``ld``: every type and space, against bytes read by Python's own ``int.from_bytes``."""

from __future__ import annotations

import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

RNG = np.random.default_rng(20)
SLOTS = RNG.permutation(32).astype(np.uint32)
"""Which element each lane loads."""


def element(raw: bytes, at: int, kind: str, register_bits: int) -> int:
    """What a register holds after loading element ``at`` of type ``kind``."""
    size = int(kind[1:]) // 8
    value = int.from_bytes(raw[at * size : (at + 1) * size], "little", signed=kind[0] == "s")
    return value & ((1 << register_bits) - 1)


@pytest.mark.parametrize(
    ("kind", "register_bits"),
    [
        *(("b8", bits) for bits in (8, 16, 32, 64)),
        *(("s8", bits) for bits in (8, 16, 32, 64)),
        *(("u16", bits) for bits in (16, 32, 64)),
        *(("s16", bits) for bits in (16, 32, 64)),
        *(("s32", 32), ("s32", 64), ("u32", 64), ("f32", 32), ("f64", 64), ("s64", 64)),
    ],
)
def test_extends_by_the_type(kind: str, register_bits: int) -> None:
    size = int(kind[1:]) // 8
    data = RNG.integers(0, 256, 32 * size, dtype=np.uint8)
    body = f"mad.wide.u32 at, slot, {size}, data; ld.global.{kind} x, [at];"
    out, run = run_lanes(body, {"slot": SLOTS}, {"x": f"u{register_bits // 8}"}, {"data": data})
    assert run.ok
    raw = data.tobytes()
    assert out["x"].tolist() == [element(raw, int(at), kind, register_bits) for at in SLOTS]


@pytest.mark.parametrize(
    ("kind", "count"),
    [("b8", 2), ("b8", 4), ("b16", 4), ("b32", 2), ("b32", 4), ("b32", 8), ("b64", 2), ("s64", 4)],
)
def test_vectors(kind: str, count: int) -> None:
    size = int(kind[1:]) // 8
    data = RNG.integers(0, 256, 32 * size * count, dtype=np.uint8)
    names = [f"x{i}" for i in range(count)]
    width = max(size, 2)
    body = f"""
    mad.wide.u32 at, slot, {size * count}, data;
    ld.global.v{count}.{kind} {{{", ".join(names)}}}, [at];"""
    out, run = run_lanes(
        body, {"slot": SLOTS}, dict.fromkeys(names, f"u{width}"), {"data": aligned(data)}
    )
    assert run.ok
    raw = data.tobytes()
    for part, name in enumerate(names):
        expected = [element(raw, int(at) * count + part, kind, width * 8) for at in SLOTS]
        assert out[name].tolist() == expected


def aligned(data: np.ndarray, to: int = 64) -> np.ndarray:
    """A copy at an address that is a multiple of ``to``."""
    room = np.zeros(data.nbytes + to, np.uint8)
    start = -room.ctypes.data % to
    room[start : start + data.nbytes] = data.view(np.uint8).ravel()
    return room[start : start + data.nbytes]


def test_a_sink_takes_what_nobody_wants() -> None:
    data = aligned(np.arange(4, dtype=np.uint32))
    body = "ld.global.v4.b32 {_, x, _, y}, [data];"
    out, run = run_lanes(body, {}, {"x": "u4", "y": "u4"}, {"data": data})
    assert run.ok
    assert set(out["x"]) == {1}
    assert set(out["y"]) == {3}


def test_b128() -> None:
    data = RNG.integers(0, 1 << 63, (32, 2), dtype=np.uint64)
    body = "mad.wide.u32 at, slot, 16, data; ld.global.b128 x, [at];"
    out, run = run_lanes(body, {"slot": SLOTS}, {"x": "b128"}, {"data": aligned(data)})
    assert run.ok
    assert (out["x"] == data[SLOTS]).all()


@pytest.mark.parametrize(
    "opcode",
    [
        "ld.global.nc.L2::128B.b32",
        "ld.global.L1::no_allocate.L2::evict_first.b32",
        "ld.global.ca.b32",
        "ld.global.cv.u32",
        "ld.weak.global.cg.b32",
        "ld.relaxed.gpu.global.b32",
        "ld.acquire.sys.global.L1::evict_last.b32",
        "ld.global.relaxed.cluster.b32",
        "ld.volatile.global.b32",
        "ld.mmio.relaxed.sys.global.b32",
        "ld.volatile.b32",
        "ldu.global.b32",
        "ld.b32",
    ],
)
def test_hints_and_semantics_change_no_value(opcode: str) -> None:
    data = RNG.integers(0, 1 << 32, 32, dtype=np.uint32)
    body = f"mad.wide.u32 at, tid, 4, data; {opcode} x, [at];"
    out, run = run_lanes(body, {}, {"x": "u4"}, {"data": data})
    assert run.ok
    assert (out["x"] == data).all()


def test_a_cache_policy_is_an_operand_more() -> None:
    data = RNG.integers(0, 1 << 32, 32, dtype=np.uint32)
    body = """.reg .b64 policy; mov.b64 policy, 0; mad.wide.u32 at, tid, 4, data;
    ld.global.L2::cache_hint.b32 x, [at], policy;"""
    out, run = run_lanes(body, {}, {"x": "u4"}, {"data": data})
    assert run.ok
    assert (out["x"] == data).all()


@pytest.mark.parametrize(
    "line",
    [
        "ld.global.f16 half, [data];",
        "ld.global.wt.b32 word, [data], at;",
        "ld.texture.b32 word, [data];",
        "ld.global.b64 word, [data];",
        "ld.global.v2.b32 word, [data];",
        "ld.global.b32 word, data;",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line, {}, {}, {"data": np.zeros(64, np.uint8)})


def test_inactive_lanes_keep_their_value() -> None:
    data = RNG.integers(0, 1 << 32, 32, dtype=np.uint32)
    body = "mad.wide.u32 at, tid, 4, data; mov.b32 x, 7; @odd ld.global.b32 x, [at];"
    odd = np.arange(32) % 2 == 1
    out, run = run_lanes(body, {"odd": odd}, {"x": "u4"}, {"data": data})
    assert run.ok
    assert (out["x"] == np.where(odd, data, 7)).all()


def test_an_inactive_lane_may_hold_any_address() -> None:
    data = np.arange(32, dtype=np.uint32)
    body = """.reg .pred low; setp.lt.u32 low, tid, 8; mad.wide.u32 at, tid, 0x100000, data;
    @!low add.u64 at, at, 3; @low mad.wide.u32 at, tid, 4, data; mov.b32 x, 0;
    @low ld.global.b32 x, [at];"""
    out, run = run_lanes(body, {}, {"x": "u4"}, {"data": data})
    assert run.ok
    assert out["x"].tolist() == [*range(8), *[0] * 24]


def test_lanes_may_load_from_different_tensors() -> None:
    first = np.arange(32, dtype=np.uint32)
    second = first + 100
    which = RNG.integers(0, 2, 32).astype(bool)
    body = "selp.b64 at, second, first, which; mad.wide.u32 at, tid, 4, at; ld.global.b32 x, [at];"
    out, run = run_lanes(body, {"which": which}, {"x": "u4"}, {"first": first, "second": second})
    assert run.ok
    assert (out["x"] == np.where(which, second, first)).all()


@pytest.mark.parametrize("lane", [0, 5, 31])
def test_past_the_end_names_the_tensor(lane: int) -> None:
    data = np.arange(32, dtype=np.uint32)
    body = f"""mad.wide.u32 at, tid, 4, data; .reg .pred p; setp.eq.u32 p, tid, {lane};
    @p add.u64 at, data, 128; ld.global.b32 word, [at];"""
    _, run = run_lanes(body, {}, {}, {"data": data})
    assert "past the end of mem_data" in fault(run)


def test_misaligned() -> None:
    body = "add.u64 at, data, 8; ld.global.v4.b32 {word, _, _, _}, [at];"
    _, run = run_lanes(body, {}, {}, {"data": aligned(np.zeros(64, np.uint8))})
    assert "16 bytes at" in fault(run)
    assert "8 past a multiple of 16" in fault(run)


def test_parameters_by_name_and_by_address() -> None:
    block = bytes(RNG.integers(0, 256, 64, dtype=np.uint8))
    body = """.reg .b64 base, wide; .reg .b16 b0, b1;
    ld.param.b32 x, [block+8]; ld.param.v2.b32 {y, z}, [block+16]; ld.param.s8 wide, [block+3];
    mov.b64 s, wide; ld.param.v2.b8 {b0, b1}, [block+6]; mov.b32 w, {b0, b1};
    mov.b64 base, block; mad.wide.u32 at, slot, 4, base; ld.param.b32 v, [at-60];
    cvta.param.u64 at, base; mad.wide.u32 at, tid, 2, at; ld.u16 g, [at];"""
    slot = (15 + np.arange(32) % 16).astype(np.uint32)
    names = {"x": "u4", "y": "u4", "z": "u4", "s": "u8", "w": "u4", "v": "u4", "g": "u2"}
    out, run = run_lanes(body, {"slot": slot}, names, {"block": block})
    assert run.ok
    words = np.frombuffer(block, np.uint32)
    assert [int(out[name][0]) for name in "xyz"] == [words[2], words[4], words[5]]
    assert int(out["s"][9]) == int.from_bytes(block[3:4], "little", signed=True) & (1 << 64) - 1
    assert int(out["w"][31]) == block[6] | block[7] << 16
    assert (out["v"] == words[slot - 15]).all()
    assert (out["g"] == np.frombuffer(block, np.uint16)).all()


def test_a_parameter_cannot_be_read_past_its_end() -> None:
    _, run = run_lanes("ld.param.b32 word, [in_a+4096];", {"a": np.zeros(32, np.uint32)}, {})
    assert "kernel parameters: got 4 bytes at byte 4096" in fault(run)


def test_shared_must_be_written_before() -> None:
    body = "cvt.u64.u32 at, tid; mov.b32 word, smem; ld.shared.b32 x, [word+64];"
    _, run = run_lanes(body, {}, {"x": "u4"}, smem=128)
    assert kinds(run) == ["uninitialised"]
    assert "byte 64 of 128" in run.findings[0].message


@pytest.mark.parametrize(("kind", "offset"), [("b32", -4), ("b8", 128), ("v4.b32", 128)])
def test_shared_has_the_size_of_the_launch(kind: str, offset: int) -> None:
    into = "{word, _, _, _}" if kind.startswith("v4") else "word"
    _, run = run_lanes(f"mov.b32 word, smem; ld.shared.{kind} {into}, [word+{offset}];", smem=128)
    assert f"got bytes {offset} to" in fault(run)
    assert "allowed: 0 to 127" in fault(run)


def test_an_mbarrier_is_no_data() -> None:
    body = """mov.b32 word, smem; .reg .pred p; setp.eq.u32 p, tid, 0;
    @p mbarrier.init.shared.b64 [word+16], 1; bar.sync 0; mad.lo.u32 word, tid, 4, word;
    st.shared.b32 [word+64], 1; ld.shared.b32 tid, [word+64]; ld.shared.b32 tid, [word];"""
    _, run = run_lanes(body, smem=256)
    assert "ordinary read of the mbarrier at byte 16" in fault(run)


def test_generic_addresses_of_every_space_in_one_warp() -> None:
    data = (np.arange(32) + 1000).astype(np.uint32)
    block = np.arange(32, dtype=np.uint32).tobytes()
    body = """.local .align 4 .b8 mine[128]; .reg .pred p; .reg .b64 other;
    mov.b32 word, smem; mad.lo.u32 word, tid, 4, word; add.u32 x, tid, 2000;
    st.shared.b32 [word], x; mov.b64 other, mine; mad.wide.u32 other, tid, 4, other;
    add.u32 x, tid, 3000; st.local.b32 [other], x; cvta.local.u64 other, other;
    mad.wide.u32 at, tid, 4, data;
    cvt.u64.u32 half64, word; cvta.shared.u64 half64, half64;
    setp.eq.u32 p, which, 1; @p mov.b64 at, half64;
    setp.eq.u32 p, which, 2; @p mov.b64 at, other;
    mov.b64 other, block; cvta.param.u64 other, other; mad.wide.u32 other, tid, 4, other;
    setp.eq.u32 p, which, 3; @p mov.b64 at, other;
    ld.b32 x, [at];"""
    which = (np.arange(32) % 4).astype(np.uint32)
    out, run = run_lanes(
        body,
        {"which": which},
        {"x": "u4"},
        {"data": data, "block": block},
        before=".reg .b64 half64;",
        smem=128,
    )
    assert run.ok, run.findings
    lane = np.arange(32)
    expected = np.choose(which, [data, lane + 2000, lane + 3000, lane])
    assert (out["x"] == expected).all()


def test_a_peer_s_shared_memory() -> None:
    body = """.reg .b32 rank, peer; mov.u32 rank, %cluster_ctarank; mov.b32 word, smem;
    mad.lo.u32 word, tid, 4, word; mad.lo.u32 x, rank, 100, tid; st.shared.b32 [word], x;
    barrier.cluster.arrive; barrier.cluster.wait;
    xor.b32 peer, tid, rank; and.b32 peer, peer, 1; mapa.shared::cluster.u32 word, word, peer;
    ld.shared::cluster.b32 x, [word]; barrier.cluster.arrive; barrier.cluster.wait;
    mad.wide.u32 at, rank, 128, data; mad.wide.u32 at, tid, 4, at; st.global.b32 [at], x;"""
    data = np.zeros(64, np.uint32)
    _, run = run_lanes(
        body, {}, {}, {"data": data}, before=".reg .b32 x;", smem=128, grid=2, cluster=2
    )
    assert run.ok, run.findings
    lane = np.arange(32)
    expected = [100 * ((lane ^ rank) & 1) + lane for rank in (0, 1)]
    assert data.tolist() == np.concatenate(expected).tolist()


def test_constants_and_variables_of_the_kernel() -> None:
    body = """.const .align 4 .u32 table[4] = {10, 20, 30}; .global .align 4 .u32 sum;
    and.b32 word, tid, 3; mov.b64 at, table; mad.wide.u32 at, word, 4, at; ld.const.u32 x, [at];
    ld.global.u32 y, [sum]; st.global.u32 [sum], 5; ld.global.u32 z, [sum];"""
    out, run = run_lanes(body, {}, dict.fromkeys("xyz", "u4"))
    assert run.ok, run.findings
    assert out["x"].tolist() == [10, 20, 30, 0] * 8
    assert set(out["y"]) == {0}
    assert set(out["z"]) == {5}


def test_variables_of_other_modules_are_refused() -> None:
    with pytest.raises(UnsupportedInstruction, match=r"variable far: got \.extern \.global"):
        run_lanes(".extern .global .align 4 .u32 far; ld.global.u32 word, [far];")


def test_constants_cannot_be_written() -> None:
    body = """.const .align 4 .u32 table[4] = {1, 2, 3, 4}; mov.b64 at, table;
    st.global.u32 [at], 5;"""
    _, run = run_lanes(body)
    assert "variable table: written, but it is read-only" in fault(run)


def test_local_memory_is_a_thread_s_own() -> None:
    body = """.local .align 16 .b8 depot[32]; .reg .b64 spl, sp; .reg .b32 a, b;
    mov.b64 spl, depot; cvta.local.u64 sp, spl;
    st.local.b32 [spl+4], tid; add.u32 a, tid, 50; st.b32 [sp+8], a;
    ld.b32 x, [sp+4]; ld.local.v2.b32 {_, y}, [spl+8];"""
    out, run = run_lanes(body, {}, {"x": "u4", "y": "u4"})
    assert kinds(run) == ["uninitialised"]
    assert "local memory of warp 0, byte 8 of 32" in run.findings[0].message
    assert out["x"].tolist() == list(range(32))


def test_local_memory_has_bounds() -> None:
    body = ".local .align 4 .b8 depot[32]; mov.b64 at, depot; ld.local.b32 word, [at+32];"
    _, run = run_lanes(body)
    assert "got bytes 32 to 35, allowed: 0 to 31" in fault(run)
