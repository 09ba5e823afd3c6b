"""tcgen05.alloc, .dealloc and .relinquish_alloc_permit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ptx_kernel import run_ptx
from tcgen05_kernels import POLICIES, PROLOGUE, kinds

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

CLUSTER_SYNC = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n"


def alloc(columns: int, at: int = 0, group: int = 1) -> str:
    return (
        f"tcgen05.alloc.cta_group::{group}.sync.aligned.shared::cta.b32 [%r1+{at}], {columns};\n"
        f"ld.shared.b32 %r{20 + at // 4}, [%r1+{at}];\n"
    )


def dealloc(columns: int, at: int = 0, group: int = 1) -> str:
    return f"tcgen05.dealloc.cta_group::{group}.sync.aligned.b32 %r{20 + at // 4}, {columns};\n"


RELINQUISH = "tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;\n"


def run(body: str, count: int = 4, block: int = 32, **options: Any) -> tuple[list[int], Any]:
    """The allocated addresses (%r20 and following of thread 0 of each CTA), and the run."""
    ctas = options.get("cluster", 1)
    out = np.full((ctas, count), -1, np.int32)
    store = (
        f"ld.param.u64 %d0, [out];\nmul.wide.u32 %d1, %r3, {4 * count};\nadd.s64 %d0, %d0, %d1;\n"
    )
    for i in range(count):
        store += f"@%p0 st.global.b32 [%d0+{4 * i}], %r{20 + i};\n"
    start = "".join(f"mov.b32 %r{20 + i}, -1;\n" for i in range(count))
    emulation = run_ptx(
        PROLOGUE + start + body + store + "ret;\n",
        {"out": out},
        smem=64,
        block=block,
        grid=ctas,
        **options,
    )
    return out.ravel().tolist(), emulation


def test_columns_are_given_from_the_first_on() -> None:
    body = alloc(256) + alloc(128, 4) + alloc(64, 8) + alloc(32, 12) + RELINQUISH
    body += dealloc(128, 4) + dealloc(256) + dealloc(32, 12) + dealloc(64, 8)
    addresses, emulation = run(body)
    assert emulation.ok, emulation.findings
    assert addresses == [0, 256, 384, 448]


def test_freed_columns_are_given_again() -> None:
    body = alloc(128) + alloc(128, 4) + alloc(128, 8) + dealloc(128, 4) + alloc(64, 12)
    addresses, emulation = run(body + dealloc(128) + dealloc(128, 8) + dealloc(64, 12))
    assert emulation.ok, emulation.findings
    assert addresses == [0, 128, 256, 128]


@pytest.mark.parametrize("policy", POLICIES)
def test_waits_until_columns_are_free(policy: str) -> None:
    """Two warps want 512 columns each."""
    body = "shl.b32 %r9, %r2, 2;\nadd.u32 %r1, %r1, %r9;\n" + alloc(512) + dealloc(512)
    addresses, emulation = run(body, block=64, policy=policy)
    assert emulation.ok, emulation.findings
    assert addresses[0] == 0


def test_waiting_for_ever_is_a_deadlock() -> None:
    _, emulation = run(alloc(512) + alloc(32, 4))
    assert FindingKind.DEADLOCK in kinds(emulation)
    assert "32 free columns of tensor memory of CTA 0" in str(emulation.findings[-1])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (alloc(64), "64 columns from 0 on are still allocated"),
        (alloc(64) + dealloc(32) + alloc(64, 4), "got 32 columns from lane 0, column 0"),
        (alloc(64) + dealloc(64) + dealloc(64), "got 64 columns from lane 0, column 0 on"),
        (alloc(64) + "add.u32 %r21, %r20, 32;\n" + dealloc(32, 4), "column 32 on"),
        (alloc(32) + alloc(64, 4), "sizes of successive allocations must not increase"),
        (RELINQUISH + alloc(32) + dealloc(32), "may not allocate again"),
    ],
)
def test_resources_are_accounted_for(body: str, text: str) -> None:
    _, emulation = run(body)
    assert kinds(emulation) == {FindingKind.RESOURCE}
    assert text in "\n".join(map(str, emulation.findings))


def test_a_wrong_size_still_frees() -> None:
    """Else one mistake would be reported twice."""
    _, emulation = run(alloc(64) + dealloc(32))
    assert len(emulation.findings) == 1


@pytest.mark.parametrize("columns", [0, 16, 48, 1024])
def test_sizes(columns: int) -> None:
    _, emulation = run(alloc(columns))
    assert kinds(emulation) == {FindingKind.FAULT}
    assert f"got {columns} columns, allowed: a power of two from 32 to 512" in str(
        emulation.findings[0]
    )


@pytest.mark.parametrize("what", [alloc(32).partition("\n")[0], RELINQUISH])
def test_needs_the_whole_warp(what: str) -> None:
    _, emulation = run("setp.lt.u32 %p3, %r0, 31;\n@%p3 " + what)
    assert kinds(emulation) == {FindingKind.FAULT}
    assert "31 active lanes" in str(emulation.findings[0])


def test_the_address_is_an_ordinary_store() -> None:
    """Another warp that reads it needs a barrier."""
    body = "setp.eq.u32 %p2, %r2, 0;\n@!%p2 bra OTHER;\n" + alloc(32) + dealloc(32) + "OTHER:\n"
    read = "@%p2 bra END;\nld.shared.b32 %r21, [%r1];\nEND:\n"
    _, emulation = run(body + "bar.sync 0;\n" + read, block=64)
    assert emulation.ok, emulation.findings
    _, emulation = run(body + read, block=64)
    assert kinds(emulation) == {FindingKind.RACE}


def test_generic_address() -> None:
    body = "cvt.u64.u32 %d5, %r1;\ncvta.shared.u64 %d4, %d5;\n"
    body += "tcgen05.alloc.cta_group::1.sync.aligned.b32 [%d4], 32;\nld.shared.b32 %r20, [%r1];\n"
    addresses, emulation = run(body + dealloc(32))
    assert emulation.ok, emulation.findings
    assert addresses[0] == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_pairs_get_the_same_columns(policy: str) -> None:
    """CTA 1 gives back and takes columns in step with CTA 0."""
    body = alloc(128, 0, 2) + alloc(128, 4, 2) + dealloc(128, 0, 2) + alloc(64, 8, 2)
    body += dealloc(128, 4, 2) + dealloc(64, 8, 2)
    addresses, emulation = run(body, 3, cluster=2, policy=policy)
    assert emulation.ok, emulation.findings
    assert addresses[:3] == addresses[3:]
    assert addresses[:2] == [0, 128]
    # What CTA 0 has given back is free only when CTA 1 has given it back too.
    assert addresses[2] in {0, 256}


def test_pairs_of_one_cluster_are_apart() -> None:
    """CTAs 2 and 3 allocate twice, CTAs 0 and 1 once."""
    body = "setp.lt.u32 %p2, %r3, 2;\n@%p2 bra ONCE;\n" + alloc(256, 0, 2) + "ONCE:\n"
    body += (
        alloc(128, 4, 2) + dealloc(128, 4, 2) + "@%p2 bra END;\n" + dealloc(256, 0, 2) + "END:\n"
    )
    addresses, emulation = run(body, 2, cluster=4)
    assert emulation.ok, emulation.findings
    assert addresses == [-1, 0, -1, 0, 0, 256, 0, 256]


def test_a_pair_needs_both() -> None:
    body = "setp.eq.u32 %p2, %r3, 0;\n@!%p2 bra END;\n" + alloc(64, 0, 2) + "END:\n"
    _, emulation = run(body, cluster=2)
    assert kinds(emulation) == {FindingKind.DEADLOCK}
    assert "of the peer CTA" in str(emulation.findings[0])


def test_a_pair_must_agree() -> None:
    body = alloc(64, 0, 2).replace("64", "%r9")
    body = "shl.b32 %r9, %r3, 6;\nadd.u32 %r9, %r9, 64;\n" + body
    _, emulation = run(body + CLUSTER_SYNC, cluster=2)
    assert FindingKind.RESOURCE in kinds(emulation)
    assert "the peer CTA asks for" in str(emulation.findings[0])


def test_each_cta_of_a_pair_gives_back() -> None:
    body = alloc(64, 0, 2) + CLUSTER_SYNC + "setp.eq.u32 %p2, %r3, 0;\n@!%p2 bra END;\n"
    _, emulation = run(body + dealloc(64, 0, 2) + "END:\n", cluster=2)
    assert [f.kind for f in emulation.findings] == [FindingKind.RESOURCE]
    assert "tensor memory of CTA 1" in str(emulation.findings[0])


def test_groups_must_not_be_mixed() -> None:
    _, emulation = run(alloc(64) + dealloc(64, 0, 2))
    assert kinds(emulation) >= {FindingKind.FAULT}
    assert "all tcgen05 instructions of a kernel must have the same" in str(emulation.findings)


def test_a_pair_needs_a_cluster() -> None:
    _, emulation = run(alloc(64, 0, 2))
    assert kinds(emulation) == {FindingKind.FAULT}
    assert "no peer" in str(emulation.findings[0])


@pytest.mark.parametrize(
    "body",
    [
        alloc(64).replace(".cta_group::1", ""),
        alloc(64).replace(".sync.aligned", ""),
        alloc(64).replace(".b32", ".b64", 1),
        "tcgen05.fence::sideways;\n",
        "tcgen05.shift.cta_group::1.down [%r0];\n",
    ],
)
def test_does_not_know(body: str) -> None:
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+"):
        run(body)


def test_fences_do_nothing() -> None:
    _, emulation = run("tcgen05.fence::before_thread_sync;\ntcgen05.fence::after_thread_sync;\n")
    assert emulation.ok, emulation.findings
