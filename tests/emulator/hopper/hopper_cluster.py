"""Clusters: ranks, addresses of peers, their memory and mbarriers, the barrier of all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from hopper_kernel import Agreement, Arrays, Index, Kernel, Launch, Output
from hopper_pieces import CLUSTER_SYNC, init, wait

SHAPES: tuple[tuple[Index, Index], ...] = (
    ((4, 2, 1), (1, 1, 1)),
    ((4, 2, 2), (2, 1, 1)),
    ((2, 4, 1), (1, 4, 1)),
    ((4, 4, 2), (2, 2, 1)),
    ((4, 2, 4), (2, 1, 2)),
    ((8, 1, 1), (8, 1, 1)),
    ((2, 2, 4), (1, 2, 4)),
)
OUT = "{ .reg .b64 %at; mad.wide.u32 %at, %id, 4, %out; st.global.b32 [%at], %r20; }\n"


def ranks() -> Iterator[Kernel]:
    """What a CTA knows of its place in its cluster."""
    names = [f"%{n}.{axis}" for n in ("cluster_ctaid", "cluster_nctaid", "ctaid") for axis in "xyz"]
    names += ["%cluster_ctarank", "%cluster_nctarank"]
    names += [f"%nclusterid.{axis}" for axis in "xyz"] + [f"%clusterid.{axis}" for axis in "xyz"]
    for grid, cluster in SHAPES:
        count = int(np.prod(grid))
        body = ".reg .b64 %to; mad.wide.u32 %to, %cta, 4, %out;\n"
        for row, name in enumerate(names):
            body += f"mov.u32 %r10, {name}; @%lead st.global.b32 [%to+{4 * count * row}], %r10;\n"
        yield Kernel(
            name=f"cluster/ranks-{'x'.join(map(str, cluster))}",
            question="%cluster_ctarank runs along x first",
            body=body,
            outputs={"out": Output((len(names), count), "uint32")},
            launch=Launch(grid=grid, cluster=cluster),
            expected=partial(_ranks, grid=grid, cluster=cluster),
        )


def _ranks(inputs: Arrays, grid: Index, cluster: Index) -> Arrays:
    rows: list[list[int]] = []
    for z, y, x in itertools.product(*(range(n) for n in reversed(grid))):
        at = (x, y, z)
        inside = [a % c for a, c in zip(at, cluster, strict=True)]
        rank = inside[0] + cluster[0] * (inside[1] + cluster[1] * inside[2])
        clusters = [g // c for g, c in zip(grid, cluster, strict=True)]
        mine = [a // c for a, c in zip(at, cluster, strict=True)]
        rows.append([*inside, *cluster, *at, rank, int(np.prod(cluster)), *clusters, *mine])
    return {"out": np.array(rows, np.uint32).T.copy()}


def addresses() -> Iterator[Kernel]:
    """The bits of shared addresses."""
    body = (
        ".reg .b64 %to; mad.wide.u32 %to, %cta, 64, %out; .reg .b64 %high; "
        "mad.wide.u32 %high, %cta, 16, %windows;\n"
    )
    found = ["mov.u32 %r10, smem"]
    for rank in range(4):
        found.append(f"mov.u32 %r11, {rank}; mapa.shared::cluster.u32 %r10, %base, %r11")
    found.append(
        "mov.u32 %r11, 3; mapa.shared::cluster.u32 %r12, %base, %r11;"
        " getctarank.shared::cluster.u32 %r10, %r12"
    )
    found.append("getctarank.shared::cluster.u32 %r10, %base")
    found.append("and.b32 %r10, %base, 0xfeffffff")
    found.append("cvta.shared.u64 %rd10, smem; mapa.u64 %rd11, %rd10, 2; cvt.u32.u64 %r10, %rd11")
    found.append("getctarank.u64 %r10, %rd11")
    found.append("cvta.to.shared::cluster.u64 %rd12, %rd11; cvt.u32.u64 %r10, %rd12")
    found.append("isspacep.shared::cta %p1, %rd11; selp.b32 %r10, 1, 0, %p1")
    found.append("isspacep.shared::cluster %p1, %rd11; selp.b32 %r10, 1, 0, %p1")
    for row, text in enumerate(found):
        body += f"{text}; @%lead st.global.b32 [%to+{4 * row}], %r10;\n"
    body += "@%lead st.global.v2.b64 [%high], {%rd10, %rd11};\n"
    # Reaching into the peers keeps them alive until all addresses are made.
    body += CLUSTER_SYNC
    yield Kernel(
        name="cluster/addresses",
        question="the CTA's rank is in bits 24 to 31 of shared addresses; mapa, windows",
        body=body,
        outputs={
            "out": Output((8, 16), "uint32"),
            "windows": Output((8, 2), "uint64", Agreement.FACT),
        },
        launch=Launch(grid=(8, 1, 1), cluster=(4, 1, 1), smem=1024),
        why="where the window of shared memory lies among generic addresses differs",
    )


def memory() -> Iterator[Kernel]:
    """Stores, loads and atomics on peers' memory."""
    body = (
        "add.u32 %r10, %rank, 1; and.b32 %r10, %r10, 3; "
        "mapa.shared::cluster.u32 %r11, %base, %r10;\n"
    )
    body += "shl.b32 %r12, %thr, 2; add.u32 %r13, %r11, %r12; add.u32 %r14, %base, %r12;\n"
    body += "mad.lo.u32 %r15, %rank, 1000, %thr; st.shared.b32 [%r14+512], %r15;\n"
    body += "@%lead st.shared.b32 [%base+256], 0;\n"
    body += "st.shared::cluster.b32 [%r13], %r15;\n" + CLUSTER_SYNC
    body += "ld.shared.b32 %r20, [%r14]; ld.shared::cluster.b32 %r16, [%r13+512];\n"
    body += "mad.lo.u32 %r20, %r20, 10000, %r16;\n"
    body += "mov.u32 %r17, 0; mapa.shared::cluster.u32 %r18, %base, %r17;\n"
    body += "red.relaxed.cluster.shared::cluster.add.u32 [%r18+256], %r15;\n" + CLUSTER_SYNC
    body += "ld.shared::cluster.b32 %r19, [%r18+256]; add.u32 %r20, %r20, %r19;\n" + CLUSTER_SYNC
    yield Kernel(
        name="cluster/peer-memory",
        question="st, ld and red on a peer's shared memory",
        body=body + OUT,
        outputs={"out": Output((128,), "uint32")},
        launch=Launch(grid=(4, 1, 1), cluster=(4, 1, 1), smem=1024),
        expected=_peers,
    )
    body = "and.b32 %r10, %base, 0xfeffffff; shl.b32 %r12, %thr, 2; add.u32 %r13, %r10, %r12;\n"
    body += "mad.lo.u32 %r11, %rank, 128, %r13; mad.lo.u32 %r15, %rank, 1000, %thr;\n"
    body += "st.shared::cluster.b32 [%r11], %r15;\n" + CLUSTER_SYNC
    body += "ld.shared::cluster.b32 %r20, [%r13]; ld.shared::cluster.b32 %r16, [%r13+128];\n"
    body += "xor.b32 %r20, %r20, %r16;\n" + CLUSTER_SYNC
    yield Kernel(
        name="cluster/even-cta",
        question="0xFEFFFFFF turns an address into that of the even CTA of a pair",
        body=body + OUT,
        outputs={"out": Output((128,), "uint32")},
        launch=Launch(grid=(4, 1, 1), cluster=(2, 1, 1), smem=1024),
        expected=lambda inputs: {
            "out": np.tile(np.arange(32) ^ (1000 + np.arange(32)), 4).astype(np.uint32)
        },
    )


def _peers(inputs: Arrays) -> Arrays:
    rank, thread = np.divmod(np.arange(128), 32)
    mine = 1000 * rank + thread
    before, after = 1000 * ((rank - 1) % 4) + thread, 1000 * ((rank + 1) % 4) + thread
    return {"out": (before * 10000 + after + mine.sum()).astype(np.uint32)}


def mbarriers() -> Iterator[Kernel]:
    """Arrivals at a peer's mbarrier, with bytes and without."""
    body = (
        init(4 * 32, 4, cluster=True)
        + "mov.u32 %r10, 0; mapa.shared::cluster.u32 %r11, %base, %r10;\n"
    )
    body += "mad.lo.u32 %r12, %id, 4, %r11; mad.lo.u32 %r15, %rank, 1000, %thr;\n"
    body += "st.shared::cluster.b32 [%r12+64], %r15;\n"
    body += "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r11];\n"
    body += (
        "@%lead mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%r11+8], 48;\n"
    )
    body += "mov.u32 %r20, 0; setp.ne.u32 %p1, %rank, 0; @%p1 bra PEER;\n"
    body += wait("%base", 0, 1) + "mad.lo.u32 %r12, %thr, 4, %base;\n"
    body += "".join(
        f"ld.shared.b32 %r16, [%r12+{64 + 128 * i}]; add.u32 %r20, %r20, %r16;\n" for i in range(4)
    )
    body += "PEER:\n" + CLUSTER_SYNC
    body += "@%lead mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r11+8], 48;\n"
    body += "@%p1 bra LAST;\n" + wait("%base+8", 0, 2) + "LAST:\n" + CLUSTER_SYNC
    yield Kernel(
        name="cluster/remote-arrivals",
        question="arrivals and bytes at the first CTA's mbarriers, from all CTAs",
        body=body + OUT,
        outputs={"out": Output((128,), "uint32")},
        launch=Launch(grid=(4, 1, 1), cluster=(4, 1, 1), smem=2048),
        expected=_summed,
        waits=True,
    )


def _summed(inputs: Arrays) -> Arrays:
    out = np.zeros(128, np.uint32)
    out[:32] = 6000 + 4 * np.arange(32)
    return {"out": out}


def barriers() -> Iterator[Kernel]:
    """barrier.cluster, over and over, with uneven CTAs."""
    body = (
        "@%lead st.shared.b32 [%base], %rank;\nmov.u32 %r20, 0;\nadd.u32 %r10, %rank, 1; "
        "and.b32 %r10, %r10, 3;\n"
    )
    body += "mapa.shared::cluster.u32 %r11, %base, %r10;\n" + CLUSTER_SYNC
    for turn in range(5):
        body += (
            "ld.shared::cluster.b32 %r12, [%r11]; mad.lo.u32 %r20, %r20, 7, %r12;\n" + CLUSTER_SYNC
        )
        body += f"add.u32 %r13, %r12, {turn}; @%lead st.shared.b32 [%base], %r13;\n"
        half = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;\n"
        body += CLUSTER_SYNC if turn % 2 else "fence.acq_rel.cluster;\n" + half
    yield Kernel(
        name="cluster/barrier",
        question="barrier.cluster, phase after phase, relaxed with a fence and not",
        body=body + OUT,
        outputs={"out": Output((256,), "uint32")},
        launch=Launch(block=64, grid=(4, 1, 1), cluster=(4, 1, 1), smem=64),
        expected=_passed_on,
    )


def _passed_on(inputs: Arrays) -> Arrays:
    values, totals = list(range(4)), [0] * 4
    for turn in range(5):
        seen = [values[(rank + 1) % 4] for rank in range(4)]
        totals = [
            (7 * total + value) % (1 << 32) for total, value in zip(totals, seen, strict=True)
        ]
        values = [value + turn for value in seen]
    return {"out": np.repeat(np.array(totals, np.uint32), 64)}


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    for part in (ranks, addresses, memory, mbarriers, barriers):
        yield from part()
