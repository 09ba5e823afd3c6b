"""Shuffles, votes, matches, elections and reductions, against loops over lanes."""

from __future__ import annotations

import struct
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

RNG = np.random.default_rng(23)
VALUES = RNG.integers(0, 1 << 32, 32, dtype=np.uint32)
FULL = 0xFFFFFFFF


def source_lane(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The pseudocode of PTX ISA 9.7.9.6, for one lane."""
    b, clamp, segment = b % 32, c % 32, (c >> 8) % 32
    highest = (lane & segment) | (clamp & (31 - segment))
    lowest = lane & segment
    if mode == "up":
        j = lane - b
        return (j, True) if j >= highest else (lane, False)
    j = {"down": lane + b, "bfly": lane ^ b, "idx": lowest | (b & (31 - segment))}[mode]
    return (j, True) if j <= highest else (lane, False)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("b", "c"), [(1, 31), (16, 0), (3, 0x181F), (7, 0x1C03), (33, 0x1007)])
@pytest.mark.parametrize("literal", [True, False])
def test_shuffles(mode: str, b: int, c: int, literal: bool) -> None:
    operands = f"{b}, {c}" if literal else "b, c"
    inputs = {"a": VALUES, "b": np.full(32, b, np.uint32), "c": np.full(32, c, np.uint32)}
    out, run = run_lanes(
        f"shfl.sync.{mode}.b32 d|p, a, {operands}, -1;", inputs, {"d": "u4", "p": bool}
    )
    assert run.ok
    expected = [source_lane(mode, lane, b, c) for lane in range(32)]
    assert out["d"].tolist() == [int(VALUES[j]) for j, _ in expected]
    assert out["p"].tolist() == [valid for _, valid in expected]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["up", "down", "bfly", "idx"]),
    st.lists(st.integers(0, FULL), min_size=32, max_size=32),
    st.lists(st.integers(0, 0x1FFF), min_size=32, max_size=32),
)
def test_shuffles_with_operands_of_each_lane(mode: str, b: list[int], c: list[int]) -> None:
    inputs = {"a": VALUES, "b": np.array(b, np.uint32), "c": np.array(c, np.uint32)}
    out, run = run_lanes(f"shfl.sync.{mode}.b32 d|p, a, b, c, -1;", inputs, {"d": "u4", "p": bool})
    assert run.ok
    expected = [source_lane(mode, lane, b[lane], c[lane]) for lane in range(32)]
    assert out["d"].tolist() == [int(VALUES[j]) for j, _ in expected]
    assert out["p"].tolist() == [valid for _, valid in expected]


def test_a_shuffle_waits_for_lanes_that_come_later() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; @low bra MEET;
    add.u32 a, a, 1000; mov.b32 d, 0;
    MEET: shfl.sync.bfly.b32 d, a, 16, 31, -1;"""
    out, run = run_lanes(body, {"a": np.arange(32, dtype=np.uint32)}, {"d": "u4"})
    assert run.ok, run.findings
    assert out["d"].tolist() == [*range(1016, 1032), *range(16)]


def test_halves_may_shuffle_apart_with_masks_of_their_own() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; @low bra LOW;
    shfl.sync.bfly.b32 d, a, 1, 31, 0xFFFF0000; bra END;
    LOW: shfl.sync.up.b32 d, a, 2, 0, 0xFFFF;
    END:"""
    out, run = run_lanes(body, {"a": VALUES}, {"d": "u4"})
    assert run.ok, run.findings
    low = [VALUES[max(lane - 2, 0) if lane >= 2 else lane] for lane in range(16)]
    assert out["d"].tolist() == [*low, *[VALUES[lane ^ 1] for lane in range(16, 32)]]


def test_halves_may_shuffle_at_once_with_masks_of_their_own() -> None:
    mask = np.where(np.arange(32) < 16, 0xFFFF, 0xFFFF0000).astype(np.uint32)
    body = "shfl.sync.idx.b32 d, a, b, 31, mask;"
    b = np.where(np.arange(32) < 16, 3, 20).astype(np.uint32)
    out, run = run_lanes(body, {"a": VALUES, "b": b, "mask": mask}, {"d": "u4"})
    assert run.ok, run.findings
    assert out["d"].tolist() == [VALUES[3]] * 16 + [VALUES[20]] * 16


def test_half_a_warp_with_a_full_mask_is_reported() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; mov.b32 d, 0;
    @low shfl.sync.bfly.b32 d, a, 1, 31, -1;"""
    _, run = run_lanes(body, {"a": VALUES}, {"d": "u4"})
    assert set(kinds(run)) == {"convergence"}
    assert "lanes [16, 17, 18" in run.findings[0].message


def test_lanes_that_never_come_are_a_deadlock() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; @low bra LOW;
    SPIN: mbarrier.try_wait.parity.shared.b64 low, [bar], 0; @!low bra SPIN; bra END;
    LOW: shfl.sync.bfly.b32 d, a, 1, 31, -1;
    END:"""
    start = """.reg .b32 bar; .reg .pred one; mov.b32 bar, smem; setp.eq.u32 one, tid, 0;
    @one mbarrier.init.shared.b64 [bar], 1; bar.sync 0;"""
    _, run = run_lanes(start + body, {"a": VALUES}, {"d": "u4"}, smem=64)
    assert kinds(run) == ["deadlock"]
    assert "the other lanes of its warp to come here" in run.findings[0].message


def test_reading_a_lane_that_does_not_take_part_is_reported() -> None:
    body = ".reg .pred low; setp.lt.u32 low, tid, 16; @low shfl.sync.bfly.b32 d, a, 16, 31, 0xFFFF;"
    _, run = run_lanes("mov.b32 d, 0;" + body, {"a": VALUES}, {"d": "u4"})
    assert kinds(run) == ["convergence"]
    assert "lane 0 reads lane 16" in run.findings[0].message


def test_a_lane_must_be_in_its_own_mask() -> None:
    _, run = run_lanes("shfl.sync.bfly.b32 d, a, 1, 31, 0xFFFF;", {"a": VALUES}, {"d": "u4"})
    assert "membermask: got 0x0000ffff in lane 16" in fault(run)


def test_lanes_that_have_ended_are_not_waited_for() -> None:
    body = """.reg .pred high; setp.gt.u32 high, tid, 15; @high ret;
    shfl.sync.bfly.b32 d, a, 1, 31, -1;"""
    out, run = run_lanes(body, {"a": VALUES}, {"d": "u4"})
    assert run.ok, run.findings
    assert out["d"][:16].tolist() == [int(VALUES[lane ^ 1]) for lane in range(16)]


def test_lanes_beyond_the_block_are_not_waited_for() -> None:
    a = np.arange(40, dtype=np.uint32)
    out, run = run_lanes("shfl.sync.bfly.b32 d, a, 1, 31, -1;", {"a": a}, {"d": "u4"}, block=40)
    assert run.ok, run.findings
    assert out["d"].tolist() == (a ^ 1).tolist()


PREDICATES = {
    "none": np.zeros(32, bool),
    "all": np.ones(32, bool),
    "one": np.arange(32) == 9,
    "some": RNG.integers(0, 2, 32).astype(bool),
}


@pytest.mark.parametrize("name", PREDICATES)
@pytest.mark.parametrize("negated", ["", "!"])
def test_votes(name: str, negated: str) -> None:
    a = PREDICATES[name]
    body = f"""vote.sync.all.pred every, {negated}a, -1; vote.sync.any.pred some, {negated}a, -1;
    vote.sync.uni.pred same, {negated}a, -1; vote.sync.ballot.b32 bits, {negated}a, -1;"""
    outputs = {"every": bool, "some": bool, "same": bool, "bits": "u4"}
    out, run = run_lanes(body, {"a": a}, outputs)
    assert run.ok
    votes = [bool(vote) != (negated == "!") for vote in a]
    assert set(out["every"]) == {all(votes)}
    assert set(out["some"]) == {any(votes)}
    assert set(out["same"]) == {len(set(votes)) == 1}
    assert set(out["bits"]) == {sum(1 << lane for lane in range(32) if votes[lane])}


def test_votes_of_members_only() -> None:
    mask = np.where(np.arange(32) < 8, 0xFF, 0xFFFFFF00).astype(np.uint32)
    a = np.arange(32) < 9
    body = "vote.sync.ballot.b32 bits, a, mask; vote.sync.all.pred every, a, mask;"
    out, run = run_lanes(body, {"a": a, "mask": mask}, {"bits": "u4", "every": bool})
    assert run.ok
    assert out["bits"].tolist() == [0xFF] * 8 + [0x100] * 24
    assert out["every"].tolist() == [1] * 8 + [0] * 24


@pytest.mark.parametrize("bits", [32, 64])
def test_matches(bits: int) -> None:
    a = RNG.integers(0, 4, 32).astype(f"u{bits // 8}") << np.array(bits - 8, f"u{bits // 8}")
    body = f"match.any.sync.b{bits} any, a, -1; match.all.sync.b{bits} every|p, a, -1;"
    out, run = run_lanes(body, {"a": a}, {"any": "u4", "every": "u4", "p": bool})
    assert run.ok
    expected = [sum(1 << j for j in range(32) if a[j] == a[i]) for i in range(32)]
    assert out["any"].tolist() == expected
    assert set(out["every"]) == {0}
    assert set(out["p"]) == {0}
    out, run = run_lanes(
        f"match.all.sync.b{bits} every|p, a, -1;",
        {"a": np.full(32, 5, a.dtype)},
        {"every": "u4", "p": bool},
    )
    assert set(out["every"]) == {FULL}
    assert set(out["p"]) == {1}


def test_the_leader_is_the_lowest_member() -> None:
    mask = np.where(np.arange(32) % 2, 0xAAAAAAAA, 0x55555555).astype(np.uint32)
    body = "elect.sync who|leads, mask; elect.sync _|first, -1;"
    outputs = {"who": "u4", "leads": bool, "first": bool}
    out, run = run_lanes(body, {"mask": mask}, outputs)
    assert run.ok
    assert out["who"].tolist() == [0, 1] * 16
    assert out["leads"].tolist() == [1, 1, *[0] * 30]
    assert out["first"].tolist() == [1, *[0] * 31]


def test_the_active_lanes() -> None:
    body = "mov.b32 bits, 0; @odd activemask.b32 bits;"
    out, run = run_lanes(body, {"odd": np.arange(32) % 2 == 1}, {"bits": "u4"})
    assert run.ok
    assert out["bits"].tolist() == [0, 0xAAAAAAAA] * 16


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        *((name, kind) for name in ("add", "min", "max") for kind in ("u32", "s32")),
        *((name, "b32") for name in ("and", "or", "xor")),
    ],
)
def test_reductions(operation: str, kind: str) -> None:
    body = f"redux.sync.{operation}.{kind} d, a, mask;"
    mask = np.where(np.arange(32) < 5, 0x1F, 0xFFFFFFE0).astype(np.uint32)
    out, run = run_lanes(body, {"a": VALUES, "mask": mask}, {"d": "u4"})
    assert run.ok
    numbers = [int(v) - (1 << 32) * (kind == "s32" and v >> 31) for v in VALUES.astype(object)]
    step = {
        "add": lambda x, y: x + y,
        "min": min,
        "max": max,
        "and": lambda x, y: x & y,
        "or": lambda x, y: x | y,
        "xor": lambda x, y: x ^ y,
    }[operation]
    low, high = reduce(step, numbers[:5]) % (1 << 32), reduce(step, numbers[5:]) % (1 << 32)
    assert out["d"].tolist() == [low] * 5 + [high] * 27


def float_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


@pytest.mark.parametrize(
    ("modifiers", "numbers", "expected"),
    [
        ("min", [3.0, -4.0, 1.0], float_bits(-4.0)),
        ("max", [3.0, -4.0, 1.0], float_bits(3.0)),
        ("max.abs", [3.0, -4.0, 1.0], float_bits(4.0)),
        ("min", [0.0, -0.0], float_bits(-0.0)),
        ("max", [-0.0, 0.0], float_bits(0.0)),
        ("max", [float("nan"), 2.0], float_bits(2.0)),
        ("max.NaN", [float("nan"), 2.0], 0x7FFFFFFF),
        ("min", [float("nan")], 0x7FFFFFFF),
        ("min.abs.NaN", [-1.0, -2.0], float_bits(1.0)),
    ],
)
def test_reductions_of_f32(modifiers: str, numbers: list[float], expected: int) -> None:
    a = np.resize(np.array(numbers, np.float32), 32)
    out, run = run_lanes(f"redux.sync.{modifiers}.f32 d, a, -1;", {"a": a}, {"d": "u4"})
    assert run.ok
    assert set(out["d"]) == {expected}


def test_a_warp_barrier_lets_paths_meet() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; mov.b32 word, smem;
    @low bra LOW; bar.warp.sync -1; mad.lo.u32 word, tid, 4, word; ld.shared.b32 d, [word+-64];
    bra END;
    LOW: mad.lo.u32 word, tid, 4, word; mov.b32 d, 0; st.shared.b32 [word], tid;
    bar.warp.sync -1; bra END; END:"""
    _, run = run_lanes(body, {}, {"d": "u4"}, smem=256)
    # The two barriers are different instructions, which this machine does not let meet.
    assert kinds(run) == [FindingKind.DEADLOCK.value]
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; mov.b32 word, smem; mov.b32 d, 0;
    mad.lo.u32 word, tid, 4, word; @!low bra MEET; st.shared.b32 [word], tid;
    MEET: bar.warp.sync -1; @!low ld.shared.b32 d, [word+-64];"""
    out, run = run_lanes(body, {}, {"d": "u4"}, smem=256)
    assert run.ok, run.findings
    assert out["d"].tolist() == [*[0] * 16, *range(16)]


@pytest.mark.parametrize(
    "line",
    [
        "shfl.bfly.b32 word, word, 1, 31;",
        "vote.ballot.b32 word, 1;",
        "vote.sync.ballot.pred word, 1, -1;",
        "vote.sync.none.pred word, 1, -1;",
        "shfl.sync.rotate.b32 word, word, 1, 31, -1;",
        "elect.sync word, -1;",
        "redux.sync.add.f32 word, word, -1;",
        "redux.sync.and.u32 word, word, -1;",
        "redux.sync.min.NaN.u32 word, word, -1;",
        "match.any.sync.b16 word, half, -1;",
        "activemask word;",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)
