"""``st.async`` and ``red.async`` into peers, told by mbarriers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.emulate import Emulation

POLICIES = ["eager", "lazy", "seed:2"]
FORM = "shared::cluster.mbarrier::complete_tx::bytes"
EXCHANGE = """.reg .b32 rank, bar, peer, mine, there; .reg .pred one, done;
mov.u32 rank, %cluster_ctarank; mov.b32 bar, smem; setp.eq.u32 one, tid, 0;
@one mbarrier.init.shared.b64 [bar], 1; mad.lo.u32 mine, tid, 16, bar; add.u32 mine, mine, 64;
{start} fence.mbarrier_init.release.cluster; barrier.cluster.arrive; barrier.cluster.wait;
@one mbarrier.arrive.expect_tx.shared.b64 _, [bar], {expected};
xor.b32 peer, rank, 1; mapa.shared::cluster.u32 word, mine, peer;
mapa.shared::cluster.u32 there, bar, peer; mad.lo.u32 x, rank, 1000, tid;
{send}
{wait}
ld.shared.v4.b32 {{a, b, c, d}}, [mine];
barrier.cluster.arrive; barrier.cluster.wait;
mad.wide.u32 at, rank, 512, mem; mad.wide.u32 at, tid, 16, at;
st.global.b32 [at], a; st.global.b32 [at+4], b; st.global.b32 [at+8], c; st.global.b32 [at+12], d;
"""
WAIT = """WAIT: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [bar], 0;
@!done bra WAIT;"""


def exchange(
    send: str, expected: int, wait: str = WAIT, policy: str = "eager", start: str = ""
) -> tuple[np.ndarray, Emulation]:
    """What each of two CTAs got: ``(2, 32, 4)``."""
    mem = np.zeros((2, 32, 4), np.uint32)
    body = EXCHANGE.format(send=send, expected=expected, wait=wait, start=start)
    _, run = run_lanes(
        body,
        {},
        {},
        {"mem": mem},
        before=".reg .b32 a, b, c, d, x;",
        smem=1024,
        grid=2,
        cluster=2,
        policy=policy,
    )
    return mem, run


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("opcode", ["st.async", "st.async.weak", "st.async.cluster"])
def test_vectors(opcode: str, policy: str) -> None:
    got, run = exchange(
        f"{opcode}.{FORM}.v4.s32 [word], {{x, 7, tid, rank}}, [there];", 512, policy=policy
    )
    assert run.ok, run.findings
    lane = np.arange(32)
    for rank in (0, 1):
        assert got[rank, :, 0].tolist() == (1000 * (1 - rank) + lane).tolist()
        assert set(got[rank, :, 1]) == {7}
        assert got[rank, :, 2].tolist() == lane.tolist()
        assert set(got[rank, :, 3]) == {1 - rank}


def test_vector_registers_as_quack_uses_them() -> None:
    send = f"""{{ .reg .v4 .s32 abcd; mov.s32 abcd.x, x; mov.s32 abcd.y, 5; mov.s32 abcd.z, 6;
    mov.s32 abcd.w, 7; st.async.{FORM}.v4.s32 [word], abcd, [there]; }}"""
    got, run = exchange(send, 512)
    assert run.ok, run.findings
    assert got[1, :, 1:].tolist() == [[5, 6, 7]] * 32


def test_generic_addresses() -> None:
    send = """.reg .b64 g, h; cvt.u64.u32 g, word; cvta.shared.u64 g, g; cvt.u64.u32 h, there;
    cvta.shared.u64 h, h; .reg .b64 two; mov.b64 two, {x, rank};
    st.async.mbarrier::complete_tx::bytes.v2.b64 [g], {two, two}, [h];"""
    got, run = exchange(send, 512)
    assert run.ok, run.findings
    assert got[0, 3].tolist() == [1003, 1, 1003, 1]


@pytest.mark.parametrize("policy", POLICIES)
def test_reading_before_the_wait_is_noticed(policy: str) -> None:
    send = f"st.async.{FORM}.v4.b32 [word], {{x, x, x, x}}, [there];"
    _, run = exchange(send, 512, wait="", policy=policy)
    assert {"not_completed", "uninitialised", "race"} & set(kinds(run))


def test_too_few_bytes_are_a_deadlock() -> None:
    send = f"st.async.{FORM}.v2.b32 [word], {{x, x}}, [there];"
    _, run = exchange(send, 512)
    assert kinds(run) == ["deadlock"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("operation", "start", "expected"),
    [
        ("add.u32", 100, lambda lanes: 100 + sum(lanes)),
        ("max.s32", 5, max),
        ("min.s32", -5, lambda lanes: -5),
        ("or.b32", 64, lambda lanes: 64 | 31),
        ("inc.u32", 0, lambda lanes: 32),
    ],
)
def test_reductions(
    operation: str, start: int, expected: Callable[[range], int], policy: str
) -> None:
    value = "x" if operation != "inc.u32" else "4000"
    begin = f"st.shared.v4.b32 [mine], {{{start}, 0, 0, 0}};"
    send = f"""mapa.shared::cluster.u32 word, bar, peer; and.b32 x, x, 31;
    red.async.relaxed.cluster.{FORM}.{operation} [word+64], {value}, [there];"""
    got, run = exchange(send, 128, policy=policy, start=begin)
    assert run.ok, run.findings
    for rank in (0, 1):
        assert np.int32(got[rank, 0, 0]) == expected(range(32))


@pytest.mark.parametrize(
    ("send", "message"),
    [
        (f"st.async.{FORM}.b32 [word+2], x, [there];", "multiples of 4"),
        (f"st.async.{FORM}.b32 [word], x, [bar];", "an mbarrier in CTA"),
        (f"st.async.{FORM}.b32 [there], x, [there];", "over the mbarrier at byte 0"),
        (f"st.async.{FORM}.b32 [word+2048], x, [there];", "allowed: 0 to 1023"),
    ],
)
def test_wrong_addresses(send: str, message: str) -> None:
    _, run = exchange(send, 128)
    assert message in fault(run)


@pytest.mark.parametrize(
    "line",
    [
        "st.async.release.gpu.global.b32 [at], word;",
        "st.async.shared::cluster.b32 [tid], word, [tid];",
        f"st.async.{FORM}.b16 [tid], half, [tid];",
        f"st.async.{FORM}.v4.b64 [tid], {{at, at, at, at}}, [tid];",
        f"red.async.{FORM}.add.u32 [tid], word, [tid];",
        f"red.async.relaxed.cluster.{FORM}.add.f32 [tid], word, [tid];",
        f"red.async.relaxed.cluster.{FORM}.max.u64 [tid], at, [tid];",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)
