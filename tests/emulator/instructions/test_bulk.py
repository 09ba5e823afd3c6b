"""Linear bulk copies: what they move, whom they tell, and how they go wrong."""

from __future__ import annotations

import numpy as np
import pytest
from async_kernels import (
    COMMIT,
    FENCE,
    FILL,
    LOAD,
    READ_OUT,
    WAIT_READ,
    aligned,
    always,
    check,
    filled,
    init,
    kinds,
    message,
    only,
    source,
    thread,
    wait,
)

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

SIZE = 512
STORE_BULK = "cp.async.bulk.global.shared::cta.bulk_group"


def load(size: int = SIZE, expect: int | None = None, at: int = 1024) -> str:
    """Thread 0 expects bytes and has them copied; ``in`` is the source."""
    return f"""
ld.param.u64 %rd3, [in];
@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], {size if expect is None else expect};
@%lead {LOAD} [%base+{at}], [%rd3], {size}, [%base];
"""


def store(size: int = SIZE) -> str:
    """Thread 0 has bytes from 1024 on copied to ``out``."""
    return f"ld.param.u64 %rd4, [out]; @%lead {STORE_BULK} [%rd4], [%base+1024], {size};"


# ---- loads ---------------------------------------------------------------------------------------


def test_a_load_is_there_once_its_phase_is_complete() -> None:
    body = init(1) + load() + wait("%base", 0) + READ_OUT
    check(body, aligned(128, "u4"), source(), {"in": source()}, block=128, smem=2048)


def test_hints_change_nothing() -> None:
    body = init(1) + load().replace("bytes [", "bytes.L2::cache_hint [")
    body = body.replace("512, [%base];", "512, [%base], %rd9;")
    body = "mov.u64 %rd9, 0; cp.async.bulk.prefetch.L2.global [%rd9], 16;" + body
    check(
        body + wait("%base", 0) + READ_OUT,
        aligned(128, "u4"),
        source(),
        {"in": source()},
        block=128,
        smem=2048,
    )


def test_each_lane_issues_a_copy_of_its_own() -> None:
    body = (
        init(1)
        + "@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], 512; ld.param.u64 %rd3, [in];"
        + "shl.b32 %r5, %thr, 4; cvt.u64.u32 %rd4, %r5; add.u64 %rd3, %rd3, %rd4;"
        + f"add.u32 %r6, %base, %r5; setp.lt.u32 %p1, %thr, 32; @%p1 {LOAD} "
        + "[%r6+1024], [%rd3], 16, [%base];"
    )
    args = {"in": source()}
    check(
        body + wait("%base", 0) + READ_OUT, aligned(128, "u4"), source(), args, block=128, smem=2048
    )


@pytest.mark.parametrize(
    "opcode", ["cp_mask", "ignore_oob", "multicast::cluster"], ids=lambda value: value
)
def test_forms_that_are_not_emulated_are_refused(opcode: str) -> None:
    kind = {"cp_mask": STORE_BULK, "ignore_oob": LOAD.replace("cluster", "cta")}.get(opcode, LOAD)
    body = f"{kind}.{opcode} [%base+1024], [%base], 16, [%base], %r1, %r2;"
    with pytest.raises(UnsupportedInstruction):
        kinds(body, smem=64)


def test_only_who_waited_may_read() -> None:
    """Even where the data are there: the eager policy completes the copy at once."""
    args = {"in": source(), "out": aligned(128, "u4")}
    body = init(1) + load() + READ_OUT
    for policy, found in kinds(body, args, block=128, smem=2048).items():
        wanted = {FindingKind.NOT_COMPLETED, FindingKind.UNINITIALISED, FindingKind.RACE}
        assert found & wanted, policy
        # Nobody waits at all: the CTA might end before the copy writes.
        assert FindingKind.RESOURCE in found, policy
    one_waits = init(1) + load() + only(0, wait("%base", 0)) + READ_OUT
    for policy, found in kinds(one_waits, args, block=128, smem=2048).items():
        assert found & {FindingKind.NOT_COMPLETED, FindingKind.UNINITIALISED, FindingKind.RACE}, (
            policy
        )
        assert FindingKind.RESOURCE not in found, policy


def test_a_wait_can_be_handed_on_by_a_barrier() -> None:
    body = init(1) + load() + only(0, wait("%base", 0)) + "bar.sync 0;" + READ_OUT
    check(body, aligned(128, "u4"), source(), {"in": source()}, block=128, smem=2048)


@pytest.mark.parametrize("expect", [SIZE + 16, SIZE - 16])
def test_expecting_the_wrong_number_of_bytes_is_a_deadlock(expect: int) -> None:
    body = init(1) + load(expect=expect) + wait("%base", 0) + READ_OUT
    args = {"in": source(), "out": aligned(128, "u4")}
    always(FindingKind.DEADLOCK, body, args, block=128, smem=2048)
    text = message(body, args, block=128, smem=2048)
    assert f"0 of 1 arrivals pending, {expect - SIZE} bytes outstanding" in text


def test_expecting_one_of_two_copies_lets_the_reader_go_too_early() -> None:
    body = init(1) + load(256) + "@%lead " + f"{LOAD} [%base+1280], [%rd3+256], 256, [%base];"
    body += wait("%base", 0) + READ_OUT
    args = {"in": source(), "out": aligned(128, "u4")}
    for policy, found in kinds(body, args, block=128, smem=2048).items():
        assert found & {
            FindingKind.NOT_COMPLETED,
            FindingKind.UNINITIALISED,
            FindingKind.DEADLOCK,
        }, policy


def test_a_load_over_data_still_being_read_is_a_race() -> None:
    body = (
        FILL
        + "bar.sync 0;"
        + init(1)
        + "ld.shared.u32 %r9, [%r2+1024];"
        + load()
        + wait("%base", 0)
    )
    for policy, found in kinds(body, {"in": source()}, block=128, smem=2048).items():
        # Seen from the copy, or, where the copy is faster, from the reader.
        assert found & {FindingKind.RACE, FindingKind.NOT_COMPLETED}, policy
    # With a barrier between them it is none.
    right = body.replace("ld.param", "bar.sync 0; ld.param")
    assert all(not found for found in kinds(right, {"in": source()}, block=128, smem=2048).values())


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (f"{LOAD} [%base+1032], [%rd3], 512, [%base];", "allowed: multiples of 16"),
        (f"{LOAD} [%base+1024], [%rd3+8], 512, [%base];", "allowed: multiples of 16"),
        (f"{LOAD} [%base+1024], [%rd3], 500, [%base];", "allowed: multiples of 16"),
        (f"{LOAD} [%base+1024], [%rd3+16], 512, [%base];", "past the end of in"),
        (
            f"{LOAD} [%base+1600], [%rd3], 512, [%base];",
            "got bytes 1600 to 2111, allowed: 0 to 2047",
        ),
        (f"{LOAD} [%base], [%rd3], 512, [%base];", "over the mbarrier at byte 0"),
        (f"{LOAD} [%base+1024], [%rd3], 512, [%base+8];", "nothing has initialised one"),
        (f"{STORE_BULK} [%rd3+8], [%base+1024], 16;", "allowed: multiples of 16"),
        (f"{STORE_BULK} [%rd3+512], [%base+1024], 16;", "in none of the kernel's tensors"),
        (
            "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
            "[%base+1024], [%base+1536], 16, [%base];",
            "has to go to another CTA",
        ),
    ],
    ids=range(10),
)
def test_faults(instruction: str, text: str) -> None:
    body = init(1) + f"ld.param.u64 %rd3, [in]; @%lead {instruction}"
    always(FindingKind.FAULT, body, {"in": source()}, smem=2048)
    assert text in message(body, {"in": source()}, smem=2048)


def test_a_barrier_invalidated_under_a_copy_is_reported() -> None:
    body = init(1) + load() + "@%lead mbarrier.inval.shared.b64 [%base];"
    found = kinds(body, {"in": source()}, smem=2048)
    assert FindingKind.BARRIER in found["lazy"]


# ---- a pipeline, and all that can be wrong with it -----------------------------------------------

STAGES, TILES, TILE = 2, 7, 256


def pipeline(full_wait: str = "", empty_wait: str = "", arrive: str = "") -> str:
    """Warp 0 loads tiles of 64 words into a ring, warp 1 adds them up word by word.

    mbarriers: full at 8 * stage, empty at 16 + 8 * stage; tiles at 1024 + 256 * stage.
    """
    addresses = """
and.b32 %r10, %r9, 1; shl.b32 %r11, %r10, 3; add.u32 %r11, %r11, %base;
shl.b32 %r12, %r10, 8; add.u32 %r12, %r12, %base; shr.u32 %r13, %r9, 1; and.b32 %r13, %r13, 1;
"""
    again = f"add.u32 %r9, %r9, 1; setp.lt.u32 %p1, %r9, {TILES}; @%p1 bra LOOP;"
    producer = f"""
setp.ne.u32 %p2, %lane, 0; @%p2 bra OUT;
ld.param.u64 %rd3, [in]; mov.u32 %r9, 0;
LOOP: {addresses} xor.b32 %r14, %r13, 1;
{empty_wait or wait("%r11+16", "%r14")}
mbarrier.arrive.expect_tx.shared.b64 _, [%r11], {TILE};
{LOAD} [%r12+1024], [%rd3], {TILE}, [%r11];
add.u64 %rd3, %rd3, {TILE};
{again} OUT: mov.u32 %r8, 0;
"""
    consumer = f"""
mov.u32 %r9, 0; mov.u32 %r20, 0; mov.u32 %r21, 0; shl.b32 %r19, %lane, 3;
LOOP: {addresses} add.u32 %r12, %r12, %r19;
{full_wait or wait("%r11", "%r13")}
ld.shared.v2.u32 {{%r22, %r23}}, [%r12+1024]; add.u32 %r20, %r20, %r22; add.u32 %r21, %r21, %r23;
{arrive or "mbarrier.arrive.shared.b64 _, [%r11+16];"}
{again}
ld.param.u64 %rd5, [out]; mul.wide.u32 %rd6, %lane, 8; add.u64 %rd5, %rd5, %rd6;
st.global.v2.u32 [%rd5], {{%r20, %r21}};
"""
    inits = init(*([1] * STAGES), *([32] * STAGES))
    return inits + only(0, producer) + only(1, consumer)


def tiles() -> tuple[np.ndarray, np.ndarray]:
    data = source(TILES * TILE // 4)
    return data, data.reshape(TILES, -1).sum(axis=0, dtype=np.uint32)


def test_a_pipeline() -> None:
    data, expected = tiles()
    check(pipeline(), aligned(64, "u4"), expected, {"in": data}, block=64, smem=2048)


@pytest.mark.parametrize(
    "change",
    [
        {"full_wait": "mov.u32 %r8, 1;"},
        {"empty_wait": "mov.u32 %r8, 1;"},
        {"full_wait": wait("%r11", "%r14")},
        {"empty_wait": wait("%r11+16", "%r13")},
        {"arrive": "mov.u32 %r8, 1;"},
        {"arrive": "@%p3 mbarrier.arrive.shared.b64 _, [%r11+16];"},
        {"arrive": "mbarrier.arrive.relaxed.cta.shared.b64 _, [%r11+16];"},
        {"arrive": "mbarrier.arrive.shared.b64 _, [%r11+16], 2;"},
    ],
    ids=[
        "no wait for full",
        "no wait for empty",
        "wrong parity of full",
        "wrong parity of empty",
        "no arrival",
        "arrival of some lanes",
        "relaxed arrival",
        "two arrivals for one",
    ],
)
def test_a_sabotaged_pipeline_is_noticed_under_every_policy(change: dict[str, str]) -> None:
    data, _ = tiles()
    body = "setp.ne.u32 %p3, %lane, 7; and.b32 %r14, %lane, 0;" + pipeline(**change)
    found = kinds(body, {"in": data, "out": aligned(64, "u4")}, block=64, smem=2048)
    assert all(found.values()), found


# ---- stores and groups ---------------------------------------------------------------------------


def test_a_store_takes_what_was_fenced() -> None:
    body = FILL + FENCE + "bar.sync 0;" + store() + COMMIT + WAIT_READ
    check(body, aligned(128, "u4"), filled(), block=128, smem=2048)


def test_a_store_without_a_proxy_fence_is_reported() -> None:
    body = FILL + "bar.sync 0;" + store() + COMMIT + WAIT_READ
    always(FindingKind.PROXY, body, {"out": aligned(128, "u4")}, block=128, smem=2048)


def test_a_fence_behind_the_barrier_fences_only_what_the_thread_knows_of() -> None:
    """A fence by the storing thread after the barrier covers what it was told of (PTX ISA 8)."""
    body = FILL + "bar.sync 0;" + FENCE + store() + COMMIT + WAIT_READ
    check(body, aligned(128, "u4"), filled(), block=128, smem=2048)
    early = FENCE + FILL + "bar.sync 0;" + store() + COMMIT + WAIT_READ
    always(FindingKind.PROXY, early, {"out": aligned(128, "u4")}, block=128, smem=2048)


REUSE = "bar.sync 0; st.shared.u32 [%r2+1024], %thr;"


def test_the_source_may_be_written_again_when_its_reads_are_waited_for() -> None:
    body = FILL + FENCE + "bar.sync 0;" + store() + COMMIT + WAIT_READ + REUSE
    check(body, aligned(128, "u4"), filled(), block=128, smem=2048)


@pytest.mark.parametrize(
    "groups",
    [
        "",
        COMMIT,
        WAIT_READ + COMMIT,
        COMMIT + "cp.async.bulk.wait_group.read 1;",
        COMMIT + thread(1, WAIT_READ),
        thread(1, COMMIT + WAIT_READ),
        thread(1, COMMIT) + thread(0, WAIT_READ),
    ],
    ids=[
        "nothing",
        "no wait",
        "wait before commit",
        "too many kept",
        "other waits",
        "other commits",
        "other only commits",
    ],
)
def test_a_source_written_before_that_is_a_race(groups: str) -> None:
    body = FILL + FENCE + "bar.sync 0;" + store() + groups + REUSE
    args = {"out": aligned(128, "u4")}
    found = kinds(body, args, block=128, smem=2048)
    assert FindingKind.RACE in found["eager"], found
    for policy, each in found.items():
        # Under the lazy policies the write comes first, and the copy reads what is not its own.
        assert each & {FindingKind.RACE, FindingKind.PROXY}, policy
        assert FindingKind.RESOURCE in each, policy
    assert ("waited for" if COMMIT in groups and "%thr, 1" not in groups else "") in message(
        body, args, block=128, smem=2048
    )


def test_waiting_keeps_the_latest_groups() -> None:
    """Three groups from three buffers; after wait_group 1 the first two may be written."""
    stores = "".join(
        f"@%lead {STORE_BULK} [%rd4+{128 * i}], [%base+{1024 + 128 * i}], 128; {COMMIT}"
        for i in range(3)
    )
    begin = FILL + FENCE + "bar.sync 0; ld.param.u64 %rd4, [out];" + stores
    begin += "cp.async.bulk.wait_group.read 1; bar.sync 0;"
    free = "setp.lt.u32 %p1, %thr, 64; @%p1 st.shared.u32 [%r2+1024], %thr;"
    check(begin + free + WAIT_READ, aligned(96, "u4"), filled(96), block=96, smem=2048)
    busy = free.replace("64", "65")
    out = aligned(96, "u4")
    for policy, found in kinds(begin + busy + WAIT_READ, {"out": out}, block=96, smem=2048).items():
        assert found & {FindingKind.RACE, FindingKind.PROXY}, policy


def test_each_thread_has_groups_of_its_own() -> None:
    """Threads 0 and 1 store; each waits for its own. One that does not is the one reported."""
    begin = FILL + FENCE + "bar.sync 0; ld.param.u64 %rd4, [out]; setp.lt.u32 %p1, %thr, 2;"
    stores = (
        "shl.b32 %r5, %thr, 8; add.u32 %r6, %r5, %base; cvt.u64.u32 %rd5, %r5;"
        + f"add.u64 %rd4, %rd4, %rd5; @%p1 {STORE_BULK} [%rd4], [%r6+1024], 256;"
    )
    check(
        begin + stores + COMMIT + WAIT_READ + REUSE,
        aligned(128, "u4"),
        filled(),
        block=128,
        smem=2048,
    )
    body = begin + stores + COMMIT + "@%lead " + WAIT_READ + REUSE
    out = aligned(128, "u4")
    for policy, found in kinds(body, {"out": out}, block=128, smem=2048).items():
        assert found & {FindingKind.RACE, FindingKind.PROXY}, policy


def test_a_store_of_what_nothing_has_written_is_reported() -> None:
    body = store() + COMMIT + WAIT_READ
    always(FindingKind.UNINITIALISED, body, {"out": aligned(128, "u4")}, smem=2048)
