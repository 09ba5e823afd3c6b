"""mbarriers: phases, counts, states, lifetimes, and what they order."""

from __future__ import annotations

import numpy as np
import pytest
from async_kernels import always, check, init, kinds, message, only, run, wait

from fa4gen.emulator.findings import FindingKind

# Warp 0 writes 32 words at byte 128, warp 1 stores twice each to the output.
WRITE = "shl.b32 %r1, %lane, 2; add.u32 %r1, %r1, %base; st.shared.u32 [%r1+128], %thr;\n"
READ = """
shl.b32 %r1, %lane, 2; add.u32 %r1, %r1, %base; ld.shared.u32 %r2, [%r1+128];
ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %lane, 4; add.u64 %rd1, %rd1, %rd2;
add.u32 %r2, %r2, %r2; st.global.u32 [%rd1], %r2;
"""
ARRIVE = "mbarrier.arrive.shared.b64 %rd3, [%base];\n"
TWICE = 2 * np.arange(32, dtype=np.uint32)


def out(count: int = 32) -> np.ndarray:
    return np.zeros(count, np.uint32)


def handed_over(arrive: str = ARRIVE, waits: str = wait("%base", 0), count: int = 32) -> str:
    return init(count) + only(0, WRITE + arrive) + only(1, waits + READ)


def store(register: str, kind: str = "u32") -> str:
    """Every thread's value to ``out[tid]``."""
    size = 8 if kind.endswith("64") else 4
    return f"""
ld.param.u64 %rd30, [out]; mul.wide.u32 %rd31, %thr, {size}; add.u64 %rd30, %rd30, %rd31;
st.global.{kind} [%rd30], {register};
"""


def test_an_arrival_hands_over_what_was_written() -> None:
    check(handed_over(), out(), TWICE, block=64, smem=256)


@pytest.mark.parametrize(
    "waits",
    ["", "mbarrier.test_wait.parity.relaxed.cta.shared.b64 %p1, [%base], 0;"],
    ids=["no wait", "relaxed wait"],
)
def test_reading_without_having_waited_is_a_race(waits: str) -> None:
    """Even where the value happens to be right, because the writer ran first."""
    always(FindingKind.RACE, handed_over(waits=waits), {"out": out()}, block=64, smem=256)


def test_the_wrong_parity_reads_too_early_or_waits_forever() -> None:
    body = handed_over(waits=wait("%base", 1))
    for policy, found in kinds(body, {"out": out()}, block=64, smem=256).items():
        assert found & {FindingKind.RACE, FindingKind.UNINITIALISED, FindingKind.DEADLOCK}, policy


@pytest.mark.parametrize(("fence", "clean"), [("fence.acq_rel.cta;\n", True), ("", False)])
def test_a_relaxed_arrival_releases_what_a_fence_before_it_covers(fence: str, clean: bool) -> None:
    body = handed_over(fence + "mbarrier.arrive.relaxed.cta.shared.b64 _, [%base];\n")
    if clean:
        check(body, out(), TWICE, block=64, smem=256)
    else:
        always(FindingKind.RACE, body, {"out": out()}, block=64, smem=256)


def test_a_relaxed_wait_takes_over_with_the_fence_behind_it() -> None:
    waits = wait("%base", 0).replace("parity.shared", "parity.relaxed.cta.shared")
    check(handed_over(waits=waits + "fence.acq_rel.cta;\n"), out(), TWICE, block=64, smem=256)


def test_a_barrier_with_too_few_arrivals_is_a_deadlock_that_says_so() -> None:
    body = handed_over(count=33)
    always(FindingKind.DEADLOCK, body, {"out": out()}, block=64, smem=256)
    text = message(body, {"out": out()}, block=64, smem=256)
    assert "1 of 2 warps wait for what cannot happen" in text
    assert "CTA 0 warp 1" in text
    assert "mbarrier.try_wait.parity.shared::cta.b64" in text
    assert (
        "waits for parity 0 of the mbarrier at byte 0 of the shared memory of CTA 0 "
        "(phase 0, 1 of 33 arrivals pending, 0 bytes outstanding), initialised at PTX line" in text
    )


def test_arrivals_beyond_the_count_are_reported() -> None:
    body = init(2) + only(0, "mbarrier.arrive.shared.b64 _, [%base], 3;\n")
    always(FindingKind.BARRIER, body, smem=64)
    assert "got 3 more arrivals where 2 are pending" in message(body, smem=64)


def test_two_warps_take_turns_through_many_phases() -> None:
    """Each adds 1 to a word that the other hands over; 20 phases of two barriers."""

    def turn(mine: int, other: int, parity: str) -> str:
        return f"""
mov.u32 %r10, 0;
LOOP: and.b32 %r11, %r10, 1; {parity}
{wait(f"%base+{8 * mine}", "%r11")}
ld.shared.u32 %r12, [%base+128]; add.u32 %r12, %r12, 1; st.shared.u32 [%base+128], %r12;
mbarrier.arrive.shared.b64 _, [%base+{8 * other}];
add.u32 %r10, %r10, 1; setp.lt.u32 %p5, %r10, 20; @%p5 bra LOOP;
"""

    begin = "@%lead st.shared.u32 [%base+128], %thr;\n" + init(1, 1)
    first = only(
        0, "setp.ne.u32 %p6, %lane, 0; @%p6 bra ENDS;" + turn(0, 1, "xor.b32 %r11, %r11, 1;")
    )
    second = only(1, "setp.ne.u32 %p6, %lane, 0; @%p6 bra ENDS;" + turn(1, 0, ""))
    body = (
        begin
        + first
        + second
        + f"ENDS: bar.sync 0; ld.shared.u32 %r13, [%base+128];{store('%r13')}"
    )
    check(body, out(64), np.full(64, 40, np.uint32), block=64, smem=256)


def test_an_initialisation_others_cannot_know_of_is_a_race() -> None:
    body = "@%lead mbarrier.init.shared.b64 [%base], 64;\n" + ARRIVE
    for policy, found in kinds(body, block=64, smem=64).items():
        # Where the other warp runs first, it finds no mbarrier at all.
        assert found & {FindingKind.RACE, FindingKind.FAULT}, policy
    assert FindingKind.RACE in kinds(body, block=64, smem=64)["eager"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (ARRIVE, "nothing has initialised one"),
        (init(1) + "mbarrier.inval.shared.b64 [%base];" + ARRIVE, "nothing has initialised one"),
        ("mbarrier.init.shared.b64 [%base], 0;", "got count 0, allowed: 1 to 1048575"),
        ("mbarrier.init.shared.b64 [%base], 1048576;", "allowed: 1 to 1048575"),
        ("mbarrier.init.shared.b64 [%base+4], 1;", "no multiple of 8"),
        ("mbarrier.init.shared.b64 [%base+64], 1;", "got bytes 64 to 71, allowed: 0 to 63"),
        (init(1) + "@%lead st.shared.u32 [%base+4], %thr;", "ordinary write of the mbarrier"),
        (init(1) + "ld.shared.u32 %r1, [%base];", "ordinary read of the mbarrier"),
        (
            init(1) + "mov.u32 %r1, 0; mbarrier.arrive.shared.b64 _, [%base], %r1;",
            "got counts 0 to 0",
        ),
        ("cvta.param.u64 %rd1, out; mbarrier.init.b64 [%rd1], 1;", "not in shared memory"),
    ],
    ids=range(10),
)
def test_faults(body: str, text: str) -> None:
    always(FindingKind.FAULT, body, {"out": 1}, smem=64)
    assert text in message(body, {"out": 1}, smem=64)


def test_initialising_a_live_barrier_again_is_reported() -> None:
    body = init(1) + "mbarrier.init.shared.b64 [%base], 2;"
    always(FindingKind.BARRIER, body, smem=64)
    assert "mbarrier.inval comes first" in message(body, smem=64)


def test_memory_of_an_invalidated_barrier_can_be_used_and_made_one_again() -> None:
    body = (
        init(1)
        + "mbarrier.inval.shared.b64 [%base]; bar.sync 0; @%lead st.shared.u32 [%base], 7;"
        + "bar.sync 0; ld.shared.u32 %r20, [%base]; bar.sync 0;"
        + init(32)
        + ARRIVE
        + wait("%base", 0)
        + store("%r20")
    )
    check(body, out(), np.full(32, 7, np.uint32), smem=64)


def test_bytes_of_an_invalidated_barrier_hold_nothing() -> None:
    body = init(1) + "mbarrier.inval.shared.b64 [%base]; bar.sync 0; ld.shared.u32 %r1, [%base];"
    always(FindingKind.UNINITIALISED, body, smem=64)


def test_a_state_names_the_phase_to_wait_for() -> None:
    """Two phases, each waited for by the state of its own arrivals."""
    waits = "AGAIN{0}: mbarrier.test_wait.shared.b64 %p1, [%base], %rd3; @!%p1 bra AGAIN{0};\n"
    body = init(64)
    for phase in range(2):
        body += WRITE.replace("%thr", "%lane") if phase == 0 else ""
        body += "mbarrier.arrive.shared.b64 %rd3, [%base];\n" + waits.format(phase)
    body = body.replace("st.shared.u32 [%r1+128]", "@%lead st.shared.u32 [%base+128]")
    body += "ld.shared.u32 %r2, [%base+128];" + store("%r2")
    check(body, out(64), np.zeros(64, np.uint32), block=64, smem=256)


def test_states_count_pending_arrivals_lane_by_lane() -> None:
    body = (
        init(100)
        + "mbarrier.arrive.noComplete.shared.b64 %rd3, [%base], 2;"
        + "mbarrier.pending_count.b64 %r5, %rd3;"
        + store("%r5")
    )
    check(body, out(), 100 - 2 * np.arange(32, dtype=np.uint32), smem=64)


def test_the_image_of_a_state_is_that_of_hardware() -> None:
    """Counts c as 0x100000 - c, by 1 in the lower word and by 11 in the upper; phase on top.

    Source: the constants that ptxas computes for mbarrier.init and .pending_count.
    """
    body = (
        init(5)
        + "@!%lead bra ENDS; mbarrier.arrive.shared.b64 %rd3, [%base], 2;"
        + "mbarrier.arrive.shared.b64 %rd4, [%base], 3; mbarrier.arrive.shared.b64 %rd5, [%base];"
        + wait("%base", 0)
        + "ld.param.u64 %rd1, [out]; st.global.v2.u64 [%rd1], {%rd3, %rd4};"
        + "st.global.u64 [%rd1+16], %rd5; ENDS: "
    )

    def image(phase: int, pending: int) -> int:
        high = phase << 31 | (0x100000 - pending) << 11
        return high << 32 | (0x100000 - 5) << 1

    expected = np.array([image(0, 5), image(0, 3), image(1, 5)], np.uint64)
    check(body, np.zeros(3, np.uint64), expected, smem=64)


def test_no_complete_must_not_complete() -> None:
    body = init(1) + "@%lead mbarrier.arrive.noComplete.shared.b64 %rd3, [%base], 1;"
    always(FindingKind.BARRIER, body, smem=64)


def test_a_dropped_arrival_is_not_expected_in_later_phases() -> None:
    """Warp 1 drops out in phase 0; warp 0 alone completes phases 1 and 2."""
    body = init(64) + only(1, "mbarrier.arrive_drop.shared.b64 _, [%base]; exit;")
    for phase in range(3):
        body += "mbarrier.arrive.shared.b64 _, [%base];" + wait("%base", phase & 1)
    check(body + store("%thr"), out(), np.arange(32, dtype=np.uint32), block=64, smem=64)


def test_dropping_the_last_expected_arrival_is_reported() -> None:
    body = init(1) + "@%lead mbarrier.arrive_drop.shared.b64 _, [%base];"
    always(FindingKind.BARRIER, body, smem=64)


@pytest.mark.parametrize("early", [False, True])
def test_a_phase_needs_arrivals_and_bytes(early: bool) -> None:
    """Bytes may arrive before they are expected: the count is negative for a while."""
    expect, complete = (
        "@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], 48;",
        "@%lead mbarrier.complete_tx.shared.b64 [%base], 48;",
    )
    body = init(1) + (complete + expect if early else expect + complete)
    body += wait("%base", 0) + store("%thr")
    check(body, out(), np.arange(32, dtype=np.uint32), smem=64)


@pytest.mark.parametrize("size", [32, 64])
def test_a_wrong_number_of_bytes_blocks(size: int) -> None:
    body = (
        init(1)
        + "@%lead mbarrier.expect_tx.relaxed.cta.shared.b64 [%base], 48;"
        + "@%lead mbarrier.arrive.shared.b64 _, [%base];"
        + f"@%lead mbarrier.complete_tx.shared.b64 [%base], {size};"
        + wait("%base", 0)
    )
    always(FindingKind.DEADLOCK, body, smem=64)
    assert f"0 of 1 arrivals pending, {48 - size} bytes outstanding" in message(body, smem=64)


def test_too_many_bytes_are_reported() -> None:
    body = init(1) + "@%lead mbarrier.expect_tx.shared.b64 [%base], 1048576;"
    always(FindingKind.BARRIER, body, smem=64)


def test_a_phase_that_nobody_waited_for_is_reported() -> None:
    """32 arrivals complete two phases of a barrier of 16; a wait comes for the second only."""
    body = init(16) + ARRIVE + wait("%base", 1)
    always(FindingKind.BARRIER, body, smem=64)
    assert "phases 0 to 0 passed and nobody waited for them" in message(body, smem=64)


def test_lanes_wait_for_barriers_of_their_own() -> None:
    """Lane i waits for barrier i, which warp 1 completes in reverse order."""
    inits = "mov.u32 %r4, %lane; shl.b32 %r4, %r4, 3; add.u32 %r4, %r4, %base;\n"
    begin = inits + only(0, "mbarrier.init.shared.b64 [%r4], 1;") + "bar.sync 0;"
    arrives = "".join(
        f"@%p7 mbarrier.arrive.shared.b64 _, [%base+{8 * i}];\n" for i in range(31, -1, -1)
    )
    body = (
        begin
        + only(1, "setp.eq.u32 %p7, %lane, 5;" + arrives)
        + only(0, wait("%r4", 0) + store("%lane"))
    )
    check(body, out(), np.arange(32, dtype=np.uint32), block=64, smem=512)


def test_a_peek_that_fails_says_so() -> None:
    """Nothing else can go on, so the answer is no, and the kernel goes on without."""
    body = (
        init(1)
        + "mbarrier.try_wait.parity.shared.b64 %p1, [%base], 0; selp.u32 %r6, 1, 2, %p1;"
        + store("%r6")
    )
    check(body, out(), np.full(32, 2, np.uint32), smem=64)


def test_generic_addresses() -> None:
    body = (
        init(32)
        + "cvta.shared.u64 %rd9, smem; mbarrier.arrive.b64 _, [%rd9];"
        + "mbarrier.test_wait.parity.b64 %p1, [%rd9], 0; selp.u32 %r6, 1, 2, %p1;"
        + store("%r6")
    )
    check(body, out(), np.full(32, 1, np.uint32), smem=64)


def test_policies_differ_only_in_how_often_a_wait_is_refused() -> None:
    """A wait that is over at once and one that blocks both execute the instruction once.

    Under a random policy it may say no before, and what loops asks again: everything else is the
    same.
    """
    wait_for, branch = "mbarrier.try_wait.parity.shared::cta.b64", "bra"
    refusals = {}
    expected = run(handed_over(), {"out": out()}, block=64, smem=256).opcode_counts()
    assert expected[wait_for] == 1
    for policy in ("eager", "lazy", *(f"seed:{seed}" for seed in range(24))):
        counts = run(handed_over(), {"out": out()}, policy, block=64, smem=256).opcode_counts()
        refusals[policy] = counts[wait_for] - 1
        counts[wait_for] -= refusals[policy]
        counts[branch] -= 2 * refusals[policy]  # one is not taken, the other one goes back
        assert counts == expected, policy
    assert refusals["eager"] == refusals["lazy"] == 0
    assert sum(refusals.values()) > 0


@pytest.mark.parametrize("stays", [False, True])
def test_a_signal_to_a_cta_that_has_ended_is_reported(stays: bool) -> None:
    """CTA 1 arrives at CTA 0's mbarrier, which is CTA 0's to wait for."""
    meet = "barrier.cluster.arrive; barrier.cluster.wait;\n"
    body = (
        "mov.u32 %r10, %cluster_ctarank; setp.eq.u32 %p6, %r10, 1;\n"
        + init(1)
        + meet
        + "mapa.shared::cluster.u32 %r11, %base, 0; and.pred %p7, %p6, %lead;\n"
        + "@%p7 mbarrier.arrive.shared::cluster.b64 _, [%r11];\n"
        + ("@%p6 bra ENDS;" + wait("%base", 0) + "ENDS:\n" if stays else "")
    )
    found = kinds(body, grid=2, cluster=2, smem=64)
    assert any(FindingKind.RACE in each for each in found.values()) is not stays
