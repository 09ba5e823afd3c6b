"""Linear bulk copies in clusters: multicasts, and copies and reductions into a peer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from async_kernels import (
    CLUSTER_SYNC,
    FENCE,
    FILL,
    LOAD,
    READ_OUT,
    aligned,
    check,
    cluster_init,
    filled,
    kinds,
    source,
    wait,
)

from fa4gen.emulator.findings import FindingKind


@pytest.mark.parametrize(("cluster", "mask"), [(2, 0b11), (4, 0b1111), (4, 0b1010)])
def test_a_multicast_writes_and_tells_every_cta_of_its_mask(cluster: int, mask: int) -> None:
    body = (
        cluster_init(1)
        + f"mov.u32 %r40, {mask}; shr.u32 %r41, %r40, %rank; and.b32 %r41, %r41, 1;"
        + "setp.eq.u32 %p9, %r41, 1; and.pred %p10, %p9, %lead;"
        + "@%p10 mbarrier.arrive.expect_tx.shared.b64 _, [%base], 512;"
        + CLUSTER_SYNC
        + "setp.eq.u32 %p8, %rank, 0; and.pred %p8, %p8, %lead; ld.param.u64 %rd3, [in];"
        + "cvt.u16.u32 %rs1, %r40;"
        + f"@%p8 {LOAD}.multicast::cluster [%base+1024], [%rd3], 512, [%base], %rs1;"
        + "@!%p9 bra NOTHING;"
        + wait("%base", 0)
        + READ_OUT.replace(
            "st.global",
            "mul.wide.u32 %rd8, %rank, 512; add.u64 %rd1, %rd1, %rd8; st.global",
        )
        + "NOTHING: "
        + CLUSTER_SYNC
    )
    expected = np.zeros((cluster, 128), np.uint32)
    expected[[rank for rank in range(cluster) if mask >> rank & 1]] = source()
    check(
        body,
        aligned((cluster, 128), "u4"),
        expected,
        {"in": source()},
        grid=cluster,
        cluster=cluster,
        block=128,
        smem=2048,
    )


def to_peer(operation: str = "", fence: str = FENCE, awaited: str = wait("%base", 0)) -> str:
    """CTA 0 sends its words to CTA 1, which gives them out; operation: of a reduction."""
    opcode = f"cp.{'reduce.' if operation else ''}async.bulk.shared::cluster.shared::cta"
    opcode += ".mbarrier::complete_tx::bytes" + operation
    return (
        cluster_init(1)
        + FILL.replace("st.shared", "mad.lo.u32 %r3, %rank, 1000, %r3; st.shared")
        + fence
        + CLUSTER_SYNC
        + "setp.eq.u32 %p8, %rank, 1; @%p8 bra RECEIVER;"
        + "mov.u32 %r5, 1; mapa.shared::cluster.u32 %r6, %base, %r5;"
        + "@%lead mbarrier.arrive.expect_tx.shared::cluster.b64 _, [%r6], 512;"
        + f"@%lead {opcode} [%r6+1024], [%base+1024], 512, [%r6]; bra ENDS;"
        + "RECEIVER: "
        + awaited
        + READ_OUT
        + "ENDS: "
        + CLUSTER_SYNC
    )


def test_a_copy_to_a_peer_tells_the_peers_mbarrier() -> None:
    check(to_peer(), aligned(128, "u4"), filled(), grid=2, cluster=2, block=128, smem=2048)


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"fence": ""}, FindingKind.PROXY), ({"awaited": ""}, FindingKind.NOT_COMPLETED)],
)
def test_a_copy_to_a_peer_gone_wrong(change: dict[str, str], kind: FindingKind) -> None:
    found = kinds(
        to_peer(**change), {"out": aligned(128, "u4")}, grid=2, cluster=2, block=128, smem=2048
    )
    assert all(found.values()), found
    assert kind in set().union(*found.values())


def test_reductions_of_several_ctas_may_meet() -> None:
    """CTAs 1 to 3 add to the words of CTA 0, in whatever order."""
    opcode = "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32"
    body = (
        cluster_init(1)
        + FILL
        + FENCE
        + "setp.eq.u32 %p8, %rank, 0; and.pred %p9, %p8, %lead;"
        + "@%p9 mbarrier.arrive.expect_tx.shared.b64 _, [%base], 1536;"
        + CLUSTER_SYNC
        + "@%p8 bra RECEIVER; mov.u32 %r5, 0; mapa.shared::cluster.u32 %r6, %base, %r5;"
        + f"@%lead {opcode} [%r6+1024], [%base+1024], 512, [%r6]; bra ENDS;"
        + "RECEIVER: "
        + wait("%base", 0)
        + READ_OUT
        + "ENDS: "
        + CLUSTER_SYNC
    )
    check(body, aligned(128, "u4"), 4 * filled(), grid=4, cluster=4, block=128, smem=2048)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (".add.u32", lambda a, b: a + b),
        (".add.u64", None),
        (".min.s32", np.minimum),
        (".max.u32", np.maximum),
        (".and.b32", np.bitwise_and),
        (".or.b32", np.bitwise_or),
        (".xor.b32", np.bitwise_xor),
        (".inc.u32", lambda a, b: np.where(a >= b, 0, a + 1)),
        (".dec.u32", lambda a, b: np.where((a == 0) | (a > b), b, a - 1)),
    ],
)
def test_reductions_into_a_peer(operation: str, expected: Any) -> None:
    mine, peers = filled() + np.uint32(1000), filled()
    if expected is None:
        result = (mine.view(np.uint64) + peers.view(np.uint64)).view(np.uint32)
    else:
        result = expected(mine, peers).astype(np.uint32)
    check(to_peer(operation), aligned(128, "u4"), result, grid=2, cluster=2, block=128, smem=2048)
