"""Lanes that part and meet again."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernel import run_ptx

from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.policy import Policy

LANE = np.arange(32, dtype=np.uint32)
HEAD = """
.reg .b32 %r<20>; .reg .b64 %rd<8>; .reg .pred %p<8>;
ld.param.b64 %rd1, [out]; mov.u32 %r1, %laneid; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;
"""
STORE = "st.global.b32 [%rd3], %r2; ret;"


def outcome(body: str, **options: object) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    out = np.full(32, 0xDEAD, np.uint32)
    found = run_ptx(HEAD + body, {"out": out}, **options)  # type: ignore[arg-type]
    assert found.findings == ()
    return out


def test_both_sides_of_a_branch() -> None:
    body = """
    setp.lt.u32 %p1, %r1, 10;
    @%p1 bra $LOW;
    mov.b32 %r2, 7; bra $JOIN;
    $LOW: mov.b32 %r2, 5;
    $JOIN: add.s32 %r2, %r2, %r1;
    """
    assert np.array_equal(outcome(body + STORE), np.where(LANE < 10, 5, 7) + LANE)


def test_a_loop_that_lanes_leave_one_after_the_other() -> None:
    body = """
    mov.b32 %r2, 0; mov.b32 %r3, 0;
    $LOOP: add.s32 %r2, %r2, %r3; add.s32 %r3, %r3, 1;
    setp.le.u32 %p1, %r3, %r1;
    @%p1 bra $LOOP;
    """
    assert np.array_equal(outcome(body + STORE), LANE * (LANE + 1) // 2)


def test_a_block_out_of_line_comes_back_before_the_warp_is_wanted_whole() -> None:
    """The lanes of the block are ahead in the text and behind in the order; shfl waits for them."""
    body = """
    mov.b32 %r2, %r1;
    setp.gt.u32 %p1, %r1, 15;
    @%p1 bra $ASIDE;
    $BACK: shfl.sync.bfly.b32 %r2, %r2, 16, 31, -1;
    """
    aside = "$ASIDE: add.s32 %r2, %r2, 100; bra $BACK;"
    expected = np.where(LANE > 15, LANE + 100, LANE)[LANE ^ 16]
    assert np.array_equal(outcome(body + STORE + aside), expected)


def test_nested_branches_and_a_lane_that_ends_early() -> None:
    body = """
    setp.eq.u32 %p1, %r1, 3; @%p1 ret;
    and.b32 %r4, %r1, 1; and.b32 %r5, %r1, 2; mov.b32 %r2, 0;
    setp.ne.u32 %p2, %r4, 0; @!%p2 bra $EVEN;
    setp.ne.u32 %p3, %r5, 0; @%p3 bra $THREE;
    mov.b32 %r2, 1; bra $JOIN;
    $THREE: mov.b32 %r2, 3; bra $JOIN;
    $EVEN: mov.b32 %r2, %r5;
    $JOIN: activemask.b32 %r6; setp.ne.b32 %p4, %r6, 0xFFFFFFF7; @%p4 mov.b32 %r2, 99;
    """
    assert np.array_equal(outcome(body + STORE), np.where(LANE == 3, 0xDEAD, LANE % 4))


def test_guarded_instructions_leave_other_lanes_alone() -> None:
    body = """
    setp.lt.u32 %p1, %r1, 4; mov.b32 %r2, 1;
    @%p1 add.s32 %r2, %r2, 10; @!%p1 shl.b32 %r2, %r2, 3;
    """
    assert np.array_equal(outcome(body + STORE), np.where(LANE < 4, 11, 8))


def test_a_warp_of_fewer_than_32_threads() -> None:
    body = "mov.b32 %r2, 1; vote.sync.ballot.b32 %r2, 1, 0xFFFFF;"
    out = outcome(body + STORE, block=20)
    assert np.array_equal(out, np.where(LANE < 20, 0xFFFFF, 0xDEAD))


def test_lanes_that_never_come_are_named() -> None:
    body = """
    setp.lt.u32 %p1, %r1, 16; @%p1 bra $OTHER;
    shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; bra $END;
    $OTHER: shfl.sync.bfly.b32 %r2, %r1, 2, 31, -1;
    $END: ret;
    """
    out = np.zeros(32, np.uint32)
    (found,) = run_ptx(HEAD + body, {"out": out}).findings
    assert found.kind is FindingKind.DEADLOCK
    assert found.message.count("waits for the other lanes of its warp to come here") == 2


def test_a_register_nothing_has_written() -> None:
    out = np.zeros(32, np.uint32)
    (found,) = run_ptx(HEAD + "add.s32 %r2, %r9, %r1;" + STORE, {"out": out}).findings
    assert found.kind is FindingKind.FAULT
    assert "%r9: read before anything wrote it" in found.message
    assert "PTX line" in found.message


def test_a_uniform_branch_that_is_not() -> None:
    out = np.zeros(32, np.uint32)
    body = "setp.lt.u32 %p1, %r1, 5; @%p1 bra.uni $A; $A: ret;"
    (found,) = run_ptx(HEAD + body, {"out": out}).findings
    assert "bra.uni: got lanes that take the branch and lanes that do not" in found.message


@pytest.mark.parametrize("policy", ["eager", "lazy", "seed:0", "seed:77"])
def test_no_policy_changes_a_kernel_without_asynchrony(policy: str) -> None:
    body = """
    mov.b32 %r2, %r1; mov.b32 %r3, 0;
    $LOOP: mad.lo.s32 %r2, %r2, 1103515245, 12345; add.s32 %r3, %r3, 1;
    setp.lt.u32 %p1, %r3, 50; @%p1 bra $LOOP;
    """
    expected = LANE.copy()
    with np.errstate(over="ignore"):
        for _ in range(50):
            expected = expected * np.uint32(1103515245) + np.uint32(12345)
    assert np.array_equal(outcome(body + STORE, policy=policy), expected)


def test_policies_by_name() -> None:
    assert Policy.parse("seed:12").name == "seed:12"
    with pytest.raises(KeyError, match="unknown policy: got 'seed:x', known: eager, lazy, seed:N"):
        Policy.parse("seed:x")
