"""Tensor copies in clusters: multicasts, and pairs of CTAs that share an mbarrier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from async_kernels import (
    CLUSTER_SYNC,
    aligned,
    always,
    check,
    cluster_init,
    kinds,
    message,
    wait,
)
from tensor_cases import (
    MAP,
    START,
    TILE,
    loaded,
    out_of_shared,
    setting,
)

from fa4gen.emulator.findings import FindingKind

OUT_OF_CTA = (
    out_of_shared(START, TILE.box_bytes).replace(
        "[out];",
        f"[out]; mul.wide.u32 %rd4, %rank, {TILE.box_bytes}; add.u64 %rd1, %rd1, %rd4;",
    )
    + CLUSTER_SYNC
)
LOAD_2D = "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"


@pytest.mark.parametrize("ctas", [2, 4])
def test_a_multicast(ctas: int) -> None:
    """Every CTA loads a slice of rows and sends it to all, as GEMMs with clusters do."""
    rows = 16 // ctas
    case = replace(TILE, box=(64, rows))
    memory = case.memory()
    body = (
        cluster_init(1)
        + MAP
        + f"@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], {TILE.box_bytes};"
        + CLUSTER_SYNC
        + f"mul.lo.u32 %r40, %rank, {rows}; mul.lo.u32 %r41, %rank, {128 * rows};"
        + f"add.u32 %r41, %r41, %base; mov.u16 %rs1, {(1 << ctas) - 1};"
        + f"@%lead {LOAD_2D}.multicast::cluster "
        + f"[%r41+{START}], [%rd10, {{0, %r40}}], [%base], %rs1;"
        + wait("%base", 0)
        + OUT_OF_CTA
    )
    expected = np.tile(loaded(TILE, memory), ctas)
    args = {"map": case.map(memory), "in": memory}
    check(
        body,
        aligned(ctas * TILE.box_bytes, "u1"),
        expected,
        args,
        grid=ctas,
        cluster=ctas,
        block=64,
        smem=8192,
    )


def pair_load(group: str, expect: int, waits: str) -> str:
    """Both CTAs of a pair load 16 rows each and tell the mbarrier of the even one."""
    return (
        cluster_init(1)
        + MAP
        + "and.b32 %r42, %base, 0xFEFFFFFF; shl.b32 %r40, %rank, 4; setp.eq.u32 %p9, %rank, 0;"
        + "and.pred %p10, %p9, %lead;"
        + f"@%p10 mbarrier.arrive.expect_tx.shared.b64 _, [%base], {expect};"
        + CLUSTER_SYNC
        + f"@%lead {LOAD_2D}{group} [%base+{START}], [%rd10, {{0, %r40}}], [%r42];"
        + "@!%p9 bra PEER;"
        + waits
        + "PEER: "
        + CLUSTER_SYNC
        + OUT_OF_CTA
    )


PAIR = replace(TILE, dims=(64, 32))


def test_a_pair_tells_the_even_ctas_mbarrier() -> None:
    memory = PAIR.memory()
    body = pair_load(".cta_group::2", 2 * TILE.box_bytes, wait("%base", 0))
    halves = [loaded(replace(PAIR, coords=(0, 16 * i)), memory) for i in range(2)]
    args = {"map": PAIR.map(memory), "in": memory}
    check(
        body,
        aligned(2 * TILE.box_bytes, "u1"),
        np.concatenate(halves),
        args,
        grid=2,
        cluster=2,
        block=64,
        smem=8192,
    )


def test_without_the_pair_the_mbarrier_has_to_be_the_destinations() -> None:
    args = setting(PAIR, out=aligned(2 * TILE.box_bytes, "u1"))
    for group in ("", ".cta_group::1"):
        body = pair_load(group, 2 * TILE.box_bytes, wait("%base", 0))
        always(FindingKind.FAULT, body, args, grid=2, cluster=2, block=64, smem=8192)
        text = message(body, args, grid=2, cluster=2, block=64, smem=8192)
        assert "a destination in CTA 1 of the cluster, an mbarrier in CTA 0" in text


def test_expecting_one_half_of_a_pair_is_noticed() -> None:
    args = setting(PAIR, out=aligned(2 * TILE.box_bytes, "u1"))
    body = pair_load(".cta_group::2", TILE.box_bytes, wait("%base", 0))
    found = kinds(body, args, grid=2, cluster=2, block=64, smem=8192)
    assert all(found.values()), found


@pytest.mark.parametrize("parity", [0, 1])
def test_a_multicast_of_pairs_signals_the_cta_of_like_parity(parity: int) -> None:
    """CTA 0 loads for all four; the bytes of a pair count in its CTA of the mbarrier's parity."""
    memory = TILE.memory()
    body = (
        cluster_init(1)
        + MAP
        + f"and.b32 %r43, %rank, 1; setp.eq.u32 %p9, %r43, {parity}; and.pred %p10, %p9, %lead;"
        + f"@%p10 mbarrier.arrive.expect_tx.shared.b64 _, [%base], {2 * TILE.box_bytes};"
        + CLUSTER_SYNC
        + "setp.eq.u32 %p8, %rank, 0; and.pred %p8, %p8, %lead; mov.u16 %rs1, 15;"
        + f"and.b32 %r42, %base, 0xFEFFFFFF; or.b32 %r42, %r42, {parity << 24};"
        + f"@%p8 {LOAD_2D}.multicast::cluster.cta_group::2 "
        + f"[%base+{START}], [%rd10, {{0, 0}}], [%r42], %rs1;"
        + "@!%p9 bra PEER;"
        + wait("%base", 0)
        + "PEER: "
        + CLUSTER_SYNC
        + OUT_OF_CTA
    )
    args = {"map": TILE.map(memory), "in": memory}
    expected = np.tile(loaded(TILE, memory), 4)
    check(
        body,
        aligned(4 * TILE.box_bytes, "u1"),
        expected,
        args,
        grid=4,
        cluster=4,
        block=64,
        smem=8192,
    )
