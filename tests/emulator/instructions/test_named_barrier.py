"""``bar`` and ``barrier``: whom they wait for, what they order, and how they are misused."""

from __future__ import annotations

import numpy as np
import pytest
from async_kernels import always, check, message, only

from fa4gen.emulator.findings import FindingKind

STORE = """
ld.param.u64 %rd30, [out]; mul.wide.u32 %rd31, %thr, 4; add.u64 %rd30, %rd30, %rd31;
st.global.u32 [%rd30], %r20;
"""
# Every thread writes its number, and reads that of the thread 32 further on.
WRITE = "shl.b32 %r1, %thr, 2; add.u32 %r1, %r1, %base; st.shared.u32 [%r1], %thr;\n"
READ_NEXT = """
mov.u32 %r3, %ntid.x; add.u32 %r2, %thr, 32; rem.u32 %r2, %r2, %r3;
shl.b32 %r2, %r2, 2; add.u32 %r2, %r2, %base; ld.shared.u32 %r20, [%r2];
"""


def out(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


def numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint32)


@pytest.mark.parametrize(
    "barrier",
    [
        "bar.sync 0;",
        "barrier.sync 3;",
        "barrier.sync.aligned 0, 96;",
        "mov.u32 %r9, 5; bar.sync %r9, 96;",
    ],
)
def test_a_barrier_orders_what_was_done_before_it(barrier: str) -> None:
    check(
        WRITE + barrier + READ_NEXT + STORE, out(96), np.roll(numbers(96), -32), block=96, smem=512
    )


def test_without_a_barrier_it_is_a_race() -> None:
    always(FindingKind.RACE, WRITE + READ_NEXT + STORE, {"out": out(96)}, block=96, smem=512)


def test_a_barrier_of_other_warps_orders_nothing_here() -> None:
    """Warps 0 and 1 meet; warp 2, which reads what warp 0 wrote, is not with them."""
    body = WRITE + "setp.lt.u32 %p1, %warp, 2; @!%p1 bra ON; barrier.sync 1, 64; ON: " + READ_NEXT
    always(FindingKind.RACE, body + STORE, {"out": out(96)}, block=96, smem=512)


def test_producers_arrive_and_consumers_wait() -> None:
    """Eight rounds through one buffer: barrier 1 says full, barrier 2 says empty."""
    loop = "mov.u32 %r10, 0; LOOP: {body} add.u32 %r10, %r10, 1; setp.lt.u32 %p1, %r10, 8;"
    loop += "@%p1 bra LOOP;"
    slot = "shl.b32 %r1, %lane, 2; add.u32 %r1, %r1, %base;"
    producer = "bar.sync 2, 64; mad.lo.u32 %r11, %r10, 100, %lane; st.shared.u32 [%r1], %r11;"
    producer += "bar.arrive 1, 64;"
    consumer = (
        "bar.sync 1, 64; ld.shared.u32 %r12, [%r1]; add.u32 %r20, %r20, %r12; bar.arrive 2, 64;"
    )
    body = (
        slot
        + only(0, loop.format(body=producer))
        + only(1, "mov.u32 %r20, 0; bar.arrive 2, 64;" + loop.format(body=consumer))
        + only(1, STORE)
    )
    # The consumer's last "empty" is left over: the producer takes it.
    body += only(0, "bar.sync 2, 64; mov.u32 %r20, %thr;" + STORE)
    expected = np.concatenate([numbers(32), 8 * numbers(32) + 2800]).astype(np.uint32)
    check(body, out(64), expected, block=64, smem=256)


def test_a_missing_arrival_on_empty_is_a_race() -> None:
    """The consumer says "empty" before it has read."""
    slot = "shl.b32 %r1, %lane, 2; add.u32 %r1, %r1, %base;"
    body = (
        slot
        + only(
            0,
            "st.shared.u32 [%r1], %lane; bar.arrive 1, 64;"
            "bar.sync 2, 64; st.shared.u32 [%r1], %thr;",
        )
        + only(1, "bar.arrive 2, 64; bar.sync 1, 64; ld.shared.u32 %r12, [%r1];")
    )
    always(FindingKind.RACE, body, block=64, smem=256)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("popc.u32 %r20,", 48), ("and.pred %p2,", 0), ("or.pred %p2,", 1)],
)
@pytest.mark.parametrize("negated", [False, True])
def test_reductions(operation: str, expected: int, negated: bool) -> None:
    """Half of 96 threads have an odd number, as many have not."""
    vote = "and.b32 %r5, %thr, 1; setp.eq.u32 %p1, %r5, 1;"
    red = f"barrier.red.{operation} 1, 96, {'!' if negated else ''}%p1;"
    pick = "" if "popc" in operation else "selp.u32 %r20, 1, 0, %p2;"
    check(vote + red + pick + STORE, out(96), np.full(96, expected, np.uint32), block=96, smem=16)


@pytest.mark.parametrize(("operation", "expected"), [("and", 1), ("or", 1)])
def test_reductions_of_unanimous_votes(operation: str, expected: int) -> None:
    body = (
        "setp.lt.u32 %p1, %thr, 1000;"
        + f"bar.red.{operation}.pred %p2, 0, %p1; selp.u32 %r20, 1, 0, %p2;"
    )
    check(body + STORE, out(64), np.full(64, expected, np.uint32), block=64, smem=16)


def test_warps_that_have_ended_are_not_waited_for() -> None:
    body = only(1, "exit;") + "bar.sync 0; mov.u32 %r20, %thr;" + STORE
    expected = numbers(96)
    expected[32:64] = 0
    check(body, out(96), expected, block=96, smem=512)


def test_warps_that_end_while_others_wait_let_them_go() -> None:
    """Warp 1 counts to 3000, and the others have to wait for that."""
    body = only(1, "SPIN: add.u32 %r9, %r9, 1; setp.lt.u32 %p1, %r9, 3000; @%p1 bra SPIN; exit;")
    body = "mov.u32 %r9, 0;" + body + "bar.sync 0; mov.u32 %r20, %thr;" + STORE
    expected = numbers(96)
    expected[32:64] = 0
    check(body, out(96), expected, block=96, smem=16)


def test_a_count_that_includes_a_warp_that_has_ended_is_a_deadlock() -> None:
    body = only(1, "exit;") + "bar.sync 0, 96;"
    always(FindingKind.DEADLOCK, body, block=96, smem=16)
    assert "barrier 0 (64 of 96 threads are there: warps 0, 2)" in message(body, block=96, smem=16)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("mov.u32 %r1, 16; bar.sync %r1;", "got number 16, allowed: 0 to 15"),
        ("mov.u32 %r1, 48; bar.sync 1, %r1;", "got 48 threads, must be a multiple of 32 up to 96"),
        ("mov.u32 %r1, 128; bar.sync 1, %r1;", "got 128 threads"),
        ("mov.u32 %r1, %lane; bar.sync %r1;", "barrier: got [0, 1, 2, 3], must be one value"),
        (
            "shl.b32 %r1, %warp, 5; add.u32 %r1, %r1, 32; bar.arrive 1, 96; bar.sync 1, %r1;",
            "barrier 1 (",
        ),
    ],
    ids=range(5),
)
def test_faults(body: str, text: str) -> None:
    always(FindingKind.FAULT, body, block=96, smem=16)
    assert text in message(body, block=96, smem=16)


def test_a_warp_that_arrives_and_then_waits_counts_twice() -> None:
    """How the turns of two warpgroups begin."""
    body = only(0, "bar.arrive 1, 64; bar.sync 1, 64;") + "mov.u32 %r20, %thr;" + STORE
    check(body, out(64), numbers(64), block=64, smem=16)


def test_a_predicate_that_keeps_lanes_from_a_barrier_is_reported() -> None:
    body = "setp.lt.u32 %p1, %lane, 16; @%p1 bar.sync 0;"
    always(FindingKind.CONVERGENCE, body, block=64, smem=16)


def test_lanes_that_have_parted_meet_at_a_barrier() -> None:
    body = (
        "setp.lt.u32 %p1, %lane, 16; @%p1 bra ASIDE; mov.u32 %r20, 1; bra ON;"
        + "ASIDE: mov.u32 %r20, 2; ON: bar.sync 0;"
        + STORE
    )
    expected = np.tile(np.repeat(np.array([2, 1], np.uint32), 16), 2)
    check(body, out(64), expected, block=64, smem=16)


def test_a_slow_warp_keeps_what_its_own_round_told_it() -> None:
    """Warps 0 and 1 meet once, then 0 and 2 meet at the same barrier again and again.

    However late warp 1 is told, it knows what warp 0 wrote before they met, and no more.
    """
    body = (
        only(0, WRITE + "barrier.sync 1, 64; bar.sync 2, 64;" + "barrier.sync 1, 64;" * 6)
        + only(1, "barrier.sync 1, 64; ld.shared.u32 %r19, [%base];")
        + only(2, "bar.sync 2, 64;" + "barrier.sync 1, 64;" * 6)
        + "mov.u32 %r20, %thr;"
    )
    check(body + STORE, out(96), numbers(96), block=96, smem=256)
