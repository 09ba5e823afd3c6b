"""``st``: every type and space, against bytes written by Python's own ``int.to_bytes``."""

from __future__ import annotations

import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

RNG = np.random.default_rng(21)
SLOTS = RNG.permutation(32).astype(np.uint32)
"""Which element each lane stores to."""


@pytest.mark.parametrize(
    ("kind", "register_bits"),
    [
        *(("b8", bits) for bits in (8, 16, 32, 64)),
        *(("s16", bits) for bits in (16, 32, 64)),
        *(("u32", 32), ("f32", 64), ("s64", 64)),
    ],
)
def test_takes_the_low_bits(kind: str, register_bits: int) -> None:
    size = int(kind[1:]) // 8
    values = RNG.integers(0, 1 << register_bits, 32, dtype=np.uint64)
    data = np.zeros(32 * size, np.uint8)
    body = f"mad.wide.u32 at, slot, {size}, data; st.global.{kind} [at], x;"
    inputs = {"slot": SLOTS, "x": values.astype(f"u{register_bits // 8}")}
    _, run = run_lanes(body, inputs, {}, {"data": data})
    assert run.ok
    expected = bytearray(32 * size)
    for lane, at in enumerate(SLOTS.tolist()):
        low = int(values[lane]) & ((1 << 8 * size) - 1)
        expected[at * size : (at + 1) * size] = low.to_bytes(size, "little")
    assert data.tobytes() == bytes(expected)


def test_vectors_of_registers_and_literals() -> None:
    data = np.full(32 * 4, 9, np.uint32)
    body = "mad.wide.u32 at, tid, 16, data; st.global.v4.b32 [at], {tid, 0, x, 0f3F800000};"
    x = RNG.integers(0, 1 << 32, 32, dtype=np.uint32)
    _, run = run_lanes(body, {"x": x}, {}, {"data": data})
    assert run.ok
    expected = np.stack([np.arange(32), np.zeros(32), x, np.full(32, 0x3F800000)], axis=1)
    assert (data.reshape(32, 4) == expected).all()


def test_vectors_of_eight() -> None:
    data = np.zeros(8, np.uint32)
    body = "st.global.v8.b32 [data], {1, 2, 3, 4, 5, 6, 7, 8};"
    for shift in range(8):
        room = np.zeros(16, np.uint32)
        data = room[shift : shift + 8]
        if data.ctypes.data % 32 == 0:
            break
    _, run = run_lanes(body, {}, {}, {"data": data})
    assert run.ok
    assert data.tolist() == list(range(1, 9))


def test_b128() -> None:
    data = np.zeros((33, 2), np.uint64)
    start = data.ctypes.data % 16 // 8
    tile = data.ravel()[start : start + 64]
    x = RNG.integers(0, 1 << 63, (32, 2), dtype=np.uint64)
    body = "mad.wide.u32 at, tid, 16, data; st.global.b128 [at], x;"
    _, run = run_lanes(body, {"x": x}, {}, {"data": tile})
    assert run.ok
    assert (tile.reshape(32, 2) == x).all()


@pytest.mark.parametrize(
    "opcode",
    [
        "st.global.L1::no_allocate.b32",
        "st.global.wb.u32",
        "st.wt.b32",
        "st.global.cs.f32",
        "st.weak.global.b32",
        "st.relaxed.gpu.global.b32",
        "st.release.sys.global.b32",
        "st.volatile.global.b32",
        "st.mmio.relaxed.sys.global.b32",
        "st.b32",
    ],
)
def test_hints_and_semantics_change_no_value(opcode: str) -> None:
    data = np.zeros(32, np.uint32)
    body = f"mad.wide.u32 at, tid, 4, data; {opcode} [at], tid;"
    _, run = run_lanes(body, {}, {}, {"data": data})
    assert run.ok
    assert data.tolist() == list(range(32))


@pytest.mark.parametrize(
    "line",
    [
        "st.async.weak.shared::cluster.b32 [data], tid;",
        "st.global.nc.b32 [data], tid;",
        "st.const.b32 [data], tid;",
        "st.acquire.gpu.global.b32 [data], tid;",
        "st.global.b64 [data], tid;",
        "st.global.v2.b32 [data], {tid, tid, tid};",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line, {}, {}, {"data": np.zeros(64, np.uint8)})


def test_inactive_lanes_store_nothing() -> None:
    data = np.full(32, 77, np.uint32)
    odd = np.arange(32) % 2 == 1
    body = "mad.wide.u32 at, tid, 4, data; @odd st.global.b32 [at], tid;"
    _, run = run_lanes(body, {"odd": odd}, {}, {"data": data})
    assert run.ok
    assert (data == np.where(odd, np.arange(32), 77)).all()


def test_lanes_may_store_to_different_tensors() -> None:
    first, second = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    which = RNG.integers(0, 2, 32).astype(bool)
    body = "selp.b64 at, second, first, which; mad.wide.u32 at, tid, 4, at; st.b32 [at], tid;"
    memory = {"first": first, "second": second}
    _, run = run_lanes(body, {"which": which}, {}, memory)
    assert run.ok
    assert (first == np.where(which, 0, np.arange(32))).all()
    assert (second == np.where(which, np.arange(32), 0)).all()


def test_of_equal_addresses_one_lane_wins() -> None:
    data = np.zeros(1, np.uint32)
    _, run = run_lanes(
        "add.u32 x, tid, 1; st.global.b32 [data], x;", {}, {"x": "u4"}, {"data": data}
    )
    assert run.ok
    assert 1 <= data[0] <= 32


def test_parameters_are_read_only() -> None:
    body = "mov.b64 at, in_a; cvta.param.u64 at, at; st.b32 [at], tid;"
    _, run = run_lanes(body, {"a": np.zeros(32, np.uint32)})
    assert "kernel parameters: written, but it is read-only" in fault(run)


@pytest.mark.parametrize("offset", [12, 16, 20])
def test_a_live_mbarrier_must_not_be_overwritten(offset: int) -> None:
    body = f"""mov.b32 word, smem; .reg .pred p; setp.eq.u32 p, tid, 0;
    @p mbarrier.init.shared.b64 [word+16], 1; bar.sync 0;
    @p st.shared.v2.b32 [word+{offset & ~7}], {{tid, tid}};
    @p st.shared.b32 [word+{offset}], tid;"""
    _, run = run_lanes(body, smem=256)
    if offset < 16:
        assert run.ok
    else:
        assert "ordinary write of the mbarrier at byte 16" in fault(run)


def test_a_store_around_a_live_mbarrier_is_fine() -> None:
    body = """mov.b32 word, smem; .reg .pred p; setp.eq.u32 p, tid, 0;
    @p mbarrier.init.shared.b64 [word+64], 1; bar.sync 0;
    mad.lo.u32 word, tid, 4, word; setp.lt.u32 p, tid, 16; @p st.shared.b32 [word], tid;
    setp.gt.u32 p, tid, 17; @p st.shared.b32 [word], tid;"""
    _, run = run_lanes(body, smem=256)
    assert run.ok, run.findings


RACE = """
.reg .b32 warp, flag; .reg .pred p, first;
shr.u32 warp, tid, 5; and.b32 x, tid, 31; setp.eq.u32 first, x, 0;
mov.b32 word, smem; setp.eq.u32 p, tid, 0; @p st.shared.b32 [word], 0; bar.sync 0;
setp.ne.u32 p, warp, 0; @p bra CONSUMER;
mad.lo.u32 flag, tid, 4, word; st.shared.b32 [flag+128], tid; bar.warp.sync -1;
{produce}
bra DONE;
CONSUMER:
{consume}
mad.lo.u32 flag, x, 4, word; ld.shared.b32 x, [flag+128];
DONE:
"""
PRODUCE = {
    "release": "@first st.release.cta.shared.b32 [word], 1;",
    "relaxed": "@first st.relaxed.cta.shared.b32 [word], 1;",
    "fence, relaxed": "fence.acq_rel.cta; @first st.relaxed.cta.shared.b32 [word], 1;",
    "membar, volatile": "membar.cta; @first st.volatile.shared.b32 [word], 1;",
    "red.release": "@first red.release.cta.shared.add.u32 [word], 1;",
    "fence, atom": "fence.cta; @first atom.shared.add.u32 warp, [word], 1;",
}
CONSUME = {
    "acquire": "WAIT: ld.acquire.cta.shared.b32 flag, [word]; {loop}",
    "relaxed": "WAIT: ld.relaxed.cta.shared.b32 flag, [word]; {loop}",
    "relaxed, fence": "WAIT: ld.relaxed.cta.shared.b32 flag, [word]; {loop} fence.acquire.cta;",
    "volatile, membar": "WAIT: ld.volatile.shared.b32 flag, [word]; {loop} membar.cta;",
    "atom.acquire": "WAIT: atom.acquire.cta.shared.or.b32 flag, [word], 0; {loop}",
}
LOOP = "setp.eq.u32 p, flag, 0; @p bra WAIT;"


@pytest.mark.parametrize("policy", ["lazy", "seed:3"])
@pytest.mark.parametrize("consume", CONSUME)
@pytest.mark.parametrize("produce", PRODUCE)
def test_a_flag_orders_what_a_release_and_an_acquire_say(
    produce: str, consume: str, policy: str
) -> None:
    body = RACE.format(produce=PRODUCE[produce], consume=CONSUME[consume].replace("{loop}", LOOP))
    out, run = run_lanes(body, {}, {"x": "u4"}, smem=256, block=64, policy=policy)
    ordered = produce != "relaxed" and consume != "relaxed"
    assert kinds(run) == ([] if ordered else ["race"])
    assert out["x"][32:].tolist() == list(range(32))


def test_strong_and_weak_accesses_of_one_word_race() -> None:
    body = """.reg .b32 warp; .reg .pred p; shr.u32 warp, tid, 5; mov.b32 word, smem;
    setp.eq.u32 p, warp, 0; @p st.relaxed.cta.shared.b32 [word], 1;
    @!p st.shared.b32 [word], 2;"""
    _, run = run_lanes(body, smem=64, block=64)
    assert kinds(run) == ["race"]
