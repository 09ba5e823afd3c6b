"""Clusters: the barrier of all CTAs, ranks and addresses, and arrivals at a peer's mbarrier."""

from __future__ import annotations

import numpy as np
import pytest
from async_kernels import CLUSTER_SYNC, always, check, cluster_init, init, message, wait

from fa4gen.emulator.findings import FindingKind

STORE = """
mov.u32 %r30, %ctaid.x; mov.u32 %r31, %ntid.x; mad.lo.u32 %r30, %r30, %r31, %thr;
ld.param.u64 %rd30, [out]; mul.wide.u32 %rd31, %r30, 4; add.u64 %rd30, %rd30, %rd31;
st.global.u32 [%rd30], %r20;
"""
NEXT_RANK = "add.u32 %r1, %rank, 1; mov.u32 %r2, %cluster_nctarank; rem.u32 %r1, %r1, %r2;\n"
SLOT = "shl.b32 %r3, %thr, 2; add.u32 %r3, %r3, %base;\n"
# Each thread writes 1000 * rank + its number into the next CTA's shared memory.
PUT = (
    NEXT_RANK
    + SLOT
    + "mapa.shared::cluster.u32 %r4, %r3, %r1; mad.lo.u32 %r5, %rank, 1000, %thr;"
    + "st.shared::cluster.u32 [%r4+64], %r5;\n"
)
GET = "ld.shared.u32 %r20, [%r3+64];\n"


def out(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


def from_before(ctas: int, cluster: int, block: int = 32) -> np.ndarray:
    """What each thread gets from the CTA before its own in the cluster."""
    ranks = np.arange(ctas) % cluster
    before = (ranks - 1) % cluster
    return (1000 * before[:, None] + np.arange(block)).astype(np.uint32).ravel()


@pytest.mark.parametrize("cluster", [1, 2, 4])
def test_the_barrier_orders_stores_to_a_peer(cluster: int) -> None:
    body = PUT + CLUSTER_SYNC + GET + STORE
    check(body, out(256), from_before(8, cluster), grid=8, cluster=cluster, smem=256)


@pytest.mark.parametrize(
    "barrier",
    ["", "barrier.cluster.arrive.relaxed; barrier.cluster.wait;", "bar.sync 0;"],
    ids=["none", "relaxed", "of the CTA only"],
)
def test_without_it_they_race(barrier: str) -> None:
    body = PUT + barrier + GET + CLUSTER_SYNC
    always(FindingKind.RACE, body, grid=2, cluster=2, smem=256)


def test_a_fence_before_a_relaxed_arrival_orders() -> None:
    body = (
        PUT
        + "fence.acq_rel.cluster; barrier.cluster.arrive.relaxed; barrier.cluster.wait.acquire;"
        + GET
        + STORE
    )
    check(body, out(64), from_before(2, 2), grid=2, cluster=2, smem=256)


def test_a_fence_for_mbarriers_orders_nothing_else() -> None:
    body = PUT + "@%lead mbarrier.init.shared.b64 [%base], 1;"
    body += "fence.mbarrier_init.release.cluster; barrier.cluster.arrive.relaxed;"
    body += "barrier.cluster.wait;" + GET + CLUSTER_SYNC
    always(FindingKind.RACE, body, grid=2, cluster=2, smem=256)


def test_the_barrier_can_be_used_again_and_again() -> None:
    """A value goes round four CTAs, a step a phase."""
    body = SLOT + NEXT_RANK + "mapa.shared::cluster.u32 %r4, %r3, %r1; mov.u32 %r20, %rank;"
    for _ in range(6):
        body += "st.shared::cluster.u32 [%r4+64], %r20;" + CLUSTER_SYNC + GET + CLUSTER_SYNC
    expected = np.repeat((np.arange(4) - 6) % 4, 32).astype(np.uint32)
    check(body + STORE, out(128), expected, grid=4, cluster=4, smem=256)


def test_ranks_and_addresses() -> None:
    """mapa and getctarank, on shared::cluster and on generic addresses, agree with each other."""
    body = (
        NEXT_RANK
        + "mapa.shared::cluster.u32 %r4, %base, %r1; getctarank.shared::cluster.u32 %r5, %r4;"
        + "cvta.shared.u64 %rd1, smem; mapa.u64 %rd2, %rd1, %r1; getctarank.u64 %r6, %rd2;"
        + "cvta.to.shared.u64 %rd3, %rd2; cvt.u32.u64 %r7, %rd3; setp.eq.u32 %p1, %r7, %r4;"
        + "sub.u32 %r8, %r4, %base; mad.lo.u32 %r20, %r5, 10, %r6; @!%p1 mov.u32 %r20, 999;"
        + "shr.s32 %r8, %r8, 24; mad.lo.u32 %r20, %r8, 100, %r20;"
    )
    rank = np.arange(4)
    after = (rank + 1) % 4
    expected = np.repeat(11 * after + 100 * (after - rank), 32).astype(np.int32).view(np.uint32)
    check(body + STORE, out(128), expected, grid=4, cluster=4, smem=64)


@pytest.mark.parametrize("cluster", [2, 4])
def test_arrivals_at_the_first_ctas_mbarrier(cluster: int) -> None:
    """All CTAs write into the first one's memory and arrive there; it sums up."""
    remote = (
        "mov.u32 %r9, 0; mapa.shared::cluster.u32 %r10, %base, %r9;"
        + "shl.b32 %r11, %rank, 7; add.u32 %r11, %r11, %r10; shl.b32 %r12, %lane, 2;"
        + "add.u32 %r11, %r11, %r12; mad.lo.u32 %r5, %rank, 1000, %thr;"
        + "st.shared::cluster.u32 [%r11+64], %r5;"
        + "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r10];\n"
    )
    sums = "mov.u32 %r20, 0; setp.ne.u32 %p1, %rank, 0; @%p1 bra PEER;" + wait("%base", 0)
    sums += SLOT + "".join(
        f"ld.shared.u32 %r21, [%r3+{64 + 128 * i}]; add.u32 %r20, %r20, %r21;"
        for i in range(cluster)
    )
    body = cluster_init(32 * cluster) + remote + sums + "PEER: " + STORE + CLUSTER_SYNC
    expected = out(32 * cluster)
    expected[:32] = 1000 * sum(range(cluster)) + cluster * np.arange(32)
    check(body, out(32 * cluster), expected, grid=cluster, cluster=cluster, smem=1024)


def test_bytes_can_be_expected_at_a_peer() -> None:
    body = (
        cluster_init(2)
        + "xor.b32 %r1, %rank, 1; mapa.shared::cluster.u32 %r2, %base, %r1;"
        + "@%lead mbarrier.arrive.expect_tx.shared::cluster.b64 _, [%r2], 32;"
        + "@%lead mbarrier.arrive.shared.b64 _, [%base];"
        + "@%lead mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r2], 32;"
        + wait("%base", 0)
        + "mov.u32 %r20, %rank;"
        + STORE
        + CLUSTER_SYNC
    )
    expected = np.repeat(np.arange(2, dtype=np.uint32), 32)
    check(body, out(64), expected, grid=2, cluster=2, smem=64)


def test_a_peers_mbarrier_before_the_clusters_barrier_is_a_race_or_not_there() -> None:
    body = (
        init(1)
        + "xor.b32 %r1, %rank, 1; mapa.shared::cluster.u32 %r2, %base, %r1;"
        + "@%lead mbarrier.arrive.shared::cluster.b64 _, [%r2];"
        + CLUSTER_SYNC
    )
    text = message(body, grid=2, cluster=2, smem=64)
    assert "nothing has initialised one" in text or "nothing orders its initialisation" in text


def test_an_unfenced_initialisation_is_not_handed_on_by_a_relaxed_arrival() -> None:
    fenced = cluster_init(1) + (
        "xor.b32 %r1, %rank, 1; mapa.shared::cluster.u32 %r2, %base, %r1;"
        + "@%lead mbarrier.arrive.shared::cluster.b64 _, [%r2];"
        + CLUSTER_SYNC
    )
    check(
        fenced + "mov.u32 %r20, %thr;" + STORE,
        out(64),
        np.tile(np.arange(32, dtype=np.uint32), 2),
        grid=2,
        cluster=2,
        smem=64,
    )
    unfenced = fenced.replace("fence.mbarrier_init.release.cluster;", "")
    always(FindingKind.RACE, unfenced, grid=2, cluster=2, smem=64)


def test_a_cta_that_ends_while_a_peer_still_needs_it_is_reported() -> None:
    """CTA 1 writes to CTA 0, which does not wait for it."""
    body = (
        CLUSTER_SYNC
        + "setp.eq.u32 %p1, %rank, 0; @%p1 bra ENDS;"
        + "mov.u32 %r1, 0; mapa.shared::cluster.u32 %r2, %base, %r1;"
        + "mov.u32 %r9, 0; SPIN: add.u32 %r9, %r9, 1; setp.lt.u32 %p2, %r9, 3000; @%p2 bra SPIN;"
        + "st.shared::cluster.u32 [%r2], %thr; ENDS: "
    )
    assert "after its own has ended" in message(body, grid=2, cluster=2, smem=64)


def test_a_cta_that_does_not_come_blocks_the_others() -> None:
    """The warps of CTA 1 wait at two barriers of their own, each for the other."""
    body = """
setp.eq.u32 %p1, %rank, 1; @%p1 bra STUCK;
barrier.cluster.arrive; barrier.cluster.wait; ret;
STUCK: add.u32 %r1, %warp, 1; bar.sync %r1, 64;
"""
    always(FindingKind.DEADLOCK, body, grid=2, cluster=2, block=64, smem=64)
    text = message(body, grid=2, cluster=2, block=64, smem=64)
    assert (
        "cluster barrier (2 of 4 warps are there; missing, CTAs by rank: CTA 1 warp 0, "
        "CTA 1 warp 1)" in text
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("barrier.cluster.wait;", "no barrier.cluster.arrive before it"),
        ("barrier.cluster.arrive; barrier.cluster.arrive;", "arrives twice in one phase"),
        (
            "mov.u32 %r1, 2; mapa.shared::cluster.u32 %r2, %base, %r1;"
            "st.shared::cluster.u32 [%r2], %r1;",
            "in CTA 2 of a cluster of 2",
        ),
        (
            cluster_init(1)
            + "xor.b32 %r1, %rank, 1; mapa.shared::cluster.u32 %r2, %base, %r1;"
            + "mbarrier.arrive.shared::cta.b64 _, [%r2];",
            "means the warp's own CTA",
        ),
        ("ld.param.u64 %rd1, [out]; getctarank.u64 %r1, %rd1;", "not in shared memory"),
    ],
    ids=range(5),
)
def test_faults(body: str, text: str) -> None:
    always(FindingKind.FAULT, body, {"out": out(1)}, grid=2, cluster=2, smem=64)
    assert text in message(body, {"out": out(1)}, grid=2, cluster=2, smem=64)
