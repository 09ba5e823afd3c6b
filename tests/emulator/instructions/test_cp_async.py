"""``cp.async``: what arrives, when, and what is said of reading too early."""

from __future__ import annotations

import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

RNG = np.random.default_rng(26)
POLICIES = ["eager", "lazy", "seed:0", "seed:7"]


def aligned(size: int) -> np.ndarray:
    """Random bytes at a multiple of 16."""
    room = RNG.integers(0, 256, size + 16, dtype=np.uint8)
    start = -room.ctypes.data % 16
    return room[start : start + size]


@pytest.mark.parametrize(
    ("opcode", "size"),
    [
        ("cp.async.ca.shared.global", 4),
        ("cp.async.ca.shared::cta.global", 8),
        ("cp.async.ca.shared.global.L2::128B", 16),
        ("cp.async.cg.shared.global", 16),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_copies(opcode: str, size: int, policy: str) -> None:
    data = aligned(32 * size)
    body = f"""mov.b32 word, smem; mad.lo.u32 word, tid, {size}, word;
    sub.u32 x, 31, tid; mad.wide.u32 at, x, {size}, data; {opcode} [word], [at], {size};
    cp.async.wait_all; ld.shared.b32 x, [word+{size - 4}];"""
    out, run = run_lanes(body, {}, {"x": "u4"}, {"data": data}, smem=1024, policy=policy)
    assert run.ok, run.findings
    assert out["x"].tolist() == data.view(np.uint32).reshape(32, -1)[::-1, -1].tolist()


@pytest.mark.parametrize("policy", ["eager", "lazy"])
def test_the_rest_is_filled_with_zeros(policy: str) -> None:
    data = aligned(32 * 16)
    sizes = (np.arange(32) % 17).astype(np.uint32)
    names = [f"x{i}" for i in range(4)]
    body = f"""mov.b32 word, smem; mad.lo.u32 word, tid, 16, word; st.shared.v4.b32 [word], {{9, 9,
    9, 9}}; mad.wide.u32 at, tid, 16, data; cp.async.cg.shared.global [word], [at], 16, size;
    cp.async.wait_all; ld.shared.v4.b32 {{{", ".join(names)}}}, [word];"""
    out, run = run_lanes(
        body, {"size": sizes}, dict.fromkeys(names, "u4"), {"data": data}, smem=512, policy=policy
    )
    assert run.ok, run.findings
    for lane, size in enumerate(sizes.tolist()):
        got = b"".join(out[name][lane].tobytes() for name in names)
        assert got == data[16 * lane :][:size].tobytes() + bytes(16 - size)


@pytest.mark.parametrize("negated", ["", "!"])
def test_a_source_may_be_ignored_and_then_lie_anywhere(negated: str) -> None:
    data = aligned(32 * 16)
    ignore = RNG.integers(0, 2, 32).astype(bool)
    skipped = ignore if not negated else ~ignore
    body = f"""mov.b32 word, smem; mad.lo.u32 word, tid, 16, word; mad.wide.u32 at, tid, 16, data;
    .reg .pred away; mov.pred away, ignore; {"not.pred away, away;" if negated else ""}
    @away mov.b64 at, 16; cp.async.ca.shared.global [word], [at], 16, {negated}ignore;
    cp.async.wait_all; ld.shared.b32 x, [word+8];"""
    out, run = run_lanes(body, {"ignore": ignore}, {"x": "u4"}, {"data": data}, smem=512)
    assert run.ok, run.findings
    words = data.view(np.uint32).reshape(32, 4)[:, 2]
    assert (out["x"] == np.where(skipped, 0, words)).all()


def test_sources_in_different_tensors_and_a_policy() -> None:
    first, second = aligned(128), aligned(128)
    which = np.arange(32) % 3 == 0
    body = """.reg .b64 policy; mov.b64 policy, 0; selp.b64 at, second, first, which;
    mad.wide.u32 at, tid, 4, at; mov.b32 word, smem; mad.lo.u32 word, tid, 4, word;
    cp.async.ca.shared.global.L2::cache_hint [word], [at], 4, policy; cp.async.wait_all;
    ld.shared.b32 x, [word];"""
    memory = {"first": first, "second": second}
    out, run = run_lanes(body, {"which": which}, {"x": "u4"}, memory, smem=128)
    assert run.ok, run.findings
    words = np.where(which, second.view(np.uint32), first.view(np.uint32))
    assert (out["x"] == words).all()


GROUPS = """mov.b32 word, smem; mad.lo.u32 word, tid, 4, word; mad.wide.u32 at, tid, 4, data;
cp.async.ca.shared.global [word], [at], 4; cp.async.commit_group;
cp.async.ca.shared.global [word+128], [at+128], 4; cp.async.commit_group;
cp.async.ca.shared.global [word+256], [at+256], 4; {last}
{wait} {read}"""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("wait", "offset", "late"),
    [
        ("", 0, True),
        ("cp.async.wait_group 2;", 0, True),
        ("cp.async.wait_group 1;", 0, False),
        ("cp.async.wait_group 1;", 128, True),
        ("cp.async.wait_group 0;", 128, False),
        ("cp.async.wait_group 0;", 256, True),
        ("cp.async.wait_all;", 256, False),
        ("cp.async.commit_group; cp.async.wait_group 0;", 256, False),
        ("cp.async.commit_group; cp.async.wait_group 1;", 256, True),
        ("cp.async.commit_group; cp.async.wait_group 1;", 128, False),
    ],
)
def test_groups(wait: str, offset: int, late: bool, policy: str) -> None:
    data = aligned(384)
    body = GROUPS.format(last="", wait=wait, read=f"ld.shared.b32 x, [word+{offset}];")
    out, run = run_lanes(body, {}, {"x": "u4"}, {"data": data}, smem=384, policy=policy)
    assert ("not_completed" in kinds(run) or "uninitialised" in kinds(run)) == late, run.findings
    if not late:
        assert run.ok
        assert (out["x"] == data.view(np.uint32)[offset // 4 :][:32]).all()
    elif policy == "eager":
        assert kinds(run) == ["not_completed"]


@pytest.mark.parametrize("policy", POLICIES)
def test_halves_of_a_warp_have_groups_of_their_own(policy: str) -> None:
    data = aligned(128)
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; mov.b32 word, smem; mov.b32 x, 0;
    mad.lo.u32 word, tid, 4, word; mad.wide.u32 at, tid, 4, data;
    @low cp.async.ca.shared.global [word], [at], 4; @low cp.async.commit_group;
    @!low cp.async.ca.shared.global [word], [at], 4;
    cp.async.wait_group 0; @low ld.shared.b32 x, [word];
    @!low cp.async.commit_group; cp.async.wait_group 0; @!low ld.shared.b32 x, [word];"""
    out, run = run_lanes(body, {}, {"x": "u4"}, {"data": data}, smem=128, policy=policy)
    assert run.ok, run.findings
    assert (out["x"] == data.view(np.uint32)).all()


BARRIER = """.reg .b32 bar; .reg .pred one, done; mov.b32 bar, smem; setp.eq.u32 one, tid, 0;
@one mbarrier.init.shared.b64 [bar], {count}; bar.sync 0; mov.b32 word, smem;
mov.b32 x, 0; mov.b32 y, 0; .reg .pred first; setp.lt.u32 first, tid, 32; @!first bra READ;
mad.lo.u32 word, tid, 4, word; mad.wide.u32 at, tid, 4, data;
cp.async.ca.shared.global [word+128], [at], 4;
cp.async.ca.shared.global [word+256], [at+128], 4;
{arrive}
bra END;
READ: mbarrier.try_wait.parity.shared.b64 done, [bar], 0; @!done bra READ;
mad.lo.u32 word, tid, 4, word; ld.shared.b32 x, [word]; ld.shared.b32 y, [word+128];
END:"""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("count", "arrive"),
    [
        (32, "cp.async.mbarrier.arrive.noinc.shared.b64 [bar];"),
        (32, "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [bar];"),
        (
            32,
            "cp.async.mbarrier.arrive.shared.b64 [bar]; mbarrier.arrive.shared.b64 _, [bar];",
        ),
    ],
)
def test_an_mbarrier_tells_another_warp(count: int, arrive: str, policy: str) -> None:
    data = aligned(256)
    body = BARRIER.format(count=count, arrive=arrive)
    out, run = run_lanes(
        body, {}, {"x": "u4", "y": "u4"}, {"data": data}, smem=512, block=64, policy=policy
    )
    assert run.ok, run.findings
    words = data.view(np.uint32)
    assert out["x"][32:].tolist() == words[:32].tolist()
    assert out["y"][32:].tolist() == words[32:].tolist()


def test_an_ordinary_arrival_does_not_speak_for_copies() -> None:
    data = aligned(256)
    body = BARRIER.format(count=32, arrive="mbarrier.arrive.shared.b64 _, [bar];")
    _, run = run_lanes(
        body, {}, {"x": "u4", "y": "u4"}, {"data": data}, smem=512, block=64, policy="eager"
    )
    assert "not_completed" in kinds(run)


def test_an_arrival_too_many_is_noticed() -> None:
    data = aligned(256)
    body = BARRIER.format(count=31, arrive="cp.async.mbarrier.arrive.noinc.shared.b64 [bar];")
    _, run = run_lanes(
        body, {}, {"x": "u4", "y": "u4"}, {"data": data}, smem=512, block=64, policy="eager"
    )
    assert "barrier" in kinds(run)


def test_copies_over_what_is_still_read_are_a_race() -> None:
    data = aligned(128)
    body = """mov.b32 word, smem; and.b32 x, tid, 31; mad.lo.u32 word, x, 4, word;
    .reg .pred first; setp.lt.u32 first, tid, 32; @first st.shared.b32 [word], tid; bar.sync 0;
    @!first ld.shared.b32 x, [word]; mad.wide.u32 at, tid, 4, data;
    {sync} @first cp.async.ca.shared.global [word], [at], 4; cp.async.wait_all;"""

    def found(sync: str, policy: str) -> list[str]:
        _, run = run_lanes(
            body.format(sync=sync),
            {},
            {"x": "u4"},
            {"data": data},
            smem=128,
            block=64,
            policy=policy,
        )
        return kinds(run)

    for policy in ("eager", "lazy"):
        assert found("", policy) in (["race"], ["not_completed"])
    assert found("bar.sync 0;", "eager") == found("bar.sync 0;", "lazy") == []


def test_a_source_size_above_the_copy_s() -> None:
    body = "mov.b32 word, smem; cp.async.cg.shared.global [word], [data], 16, 17;"
    _, run = run_lanes(body, {}, {}, {"data": aligned(32)}, smem=64)
    assert "src-size of 17, allowed: 0 to 16" in fault(run)


def test_addresses_are_checked_when_the_copy_starts() -> None:
    body = "mov.b32 word, smem; cp.async.cg.shared.global [word], [data+16], 16; ret;"
    _, run = run_lanes(body, {}, {}, {"data": aligned(16)}, smem=64, policy="lazy")
    assert "global memory: got bytes" in fault(run)
    body = "mov.b32 word, smem; cp.async.cg.shared.global [word+8], [data], 16;"
    _, run = run_lanes(body, {}, {}, {"data": aligned(16)}, smem=64, policy="lazy")
    assert "8 past a multiple of 16" in fault(run)


def test_no_mbarrier_there() -> None:
    body = "mov.b32 word, smem; cp.async.mbarrier.arrive.noinc.shared.b64 [word+8];"
    _, run = run_lanes(body, smem=64)
    assert "byte 8" in fault(run)


@pytest.mark.parametrize(
    "line",
    [
        "cp.async.cg.shared.global [tid], [at], 8;",
        "cp.async.ca.shared.global [tid], [at], 12;",
        "cp.async.ca.shared.global [tid], [at], tid;",
        "cp.async.ca.shared::cluster.global [tid], [at], 4;",
        "cp.async.ca.global.shared [at], [tid], 4, tid, at;",
        "cp.async.wait_group tid;",
        "cp.async.mbarrier.arrive.noinc.shared::cluster.b64 [tid];",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)
