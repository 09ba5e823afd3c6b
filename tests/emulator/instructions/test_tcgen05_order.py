"""tcgen05.commit, and what happens to kernels that forget to wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from ptx_kernel import run_ptx
from tcgen05_kernels import POLICIES, Codes, Frame, Layout, kinds, place, wait

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind

A, B = Layout(start=0), Layout(start=16384)
IDESC = 1 << 4 | 1 << 7 | 1 << 10 | 32 >> 3 << 17 | 128 >> 4 << 24
"""bf16, M = 128, N = 32."""
A_COLUMN, OTHER_COLUMN = 32, 64
COLUMNS = 96


def ones(rows: int) -> Codes:
    return np.full((rows, 16), 1, ml_dtypes.bfloat16).view(np.uint16)


def image() -> Codes:
    found = np.zeros((1, 24576), np.uint8)
    place(found[0], ones(128), A)
    place(found[0], ones(32), B)
    return found


def cells() -> Codes:
    found = np.zeros((1, 128, COLUMNS), np.uint32)
    found[:, :, A_COLUMN : A_COLUMN + 8] = 0x40004000  # 2.0 twice
    return found


IN_SHARED = f"{A.word():#x}"
IN_CELLS = f"[%r7+{A_COLUMN}]"


def mma(a: str = IN_SHARED, d: int = 0, enable: int = 0, who: str = "%p1") -> str:
    return (
        f"@{who} tcgen05.mma.cta_group::1.kind::f16 [%r7+{d}], {a}, {B.word():#x}, {IDESC:#x}, "
        f"{enable};\n"
    )


def store(column: int, value: int = 0x3F800000) -> str:
    return (
        f"mov.b32 %v0, {value:#x};\n"
        f"tcgen05.st.sync.aligned.32x32b.x2.b32 [%r8+{column}], {{%v0, %v0}};\n"
        "tcgen05.wait::st.sync.aligned;\n"
    )


SYNC = "bar.sync 0;\n"


def frame(body: str, **options: Any) -> Frame:
    return Frame(image(), body, COLUMNS, 1, cells(), **options)


def found(body: str, policy: str = "eager", **options: Any) -> set[FindingKind]:
    return kinds(frame(body, **options).run(policy=policy)[1])


@pytest.mark.parametrize("policy", POLICIES)
def test_p_is_read_before_the_next_product_overwrites_it(policy: str) -> None:
    """One warp's instructions keep their order: FlashAttention-4 counts on it."""
    body = mma(IN_CELLS, OTHER_COLUMN) + mma(d=A_COLUMN) + mma(d=OTHER_COLUMN, enable=1)
    after = frame(body).run_clean(policy=policy)[0].view(np.float32)
    assert (after[:, OTHER_COLUMN:] == 32 + 16).all()
    assert (after[:, A_COLUMN:OTHER_COLUMN] == 16).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_reading_d_needs_the_commit(policy: str) -> None:
    """Whatever the policy, and though an eager product is complete by then."""
    assert FindingKind.NOT_COMPLETED in found(mma(), policy, commit=False) or policy != "eager"
    assert found(mma(), policy, commit=False)
    assert not found(mma(), policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_overwriting_p_needs_the_commit(policy: str) -> None:
    body = mma(IN_CELLS) + SYNC + store(A_COLUMN)
    assert FindingKind.RACE in found(body, policy) or policy != "eager"
    assert found(body, policy)
    assert not found(mma(IN_CELLS), policy, after_body=store(A_COLUMN))


@pytest.mark.parametrize("policy", POLICIES)
def test_p_must_be_stored_for_good(policy: str) -> None:
    result = found(mma(IN_CELLS), policy, after_store="")
    assert result & {FindingKind.NOT_COMPLETED, FindingKind.UNINITIALISED, FindingKind.RACE}
    assert not found(mma(IN_CELLS), policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_shared_memory_needs_a_proxy_fence(policy: str) -> None:
    assert found(mma(), policy, fence="") == {FindingKind.PROXY}


@pytest.mark.parametrize("policy", POLICIES)
def test_overwriting_a_needs_the_commit(policy: str) -> None:
    write = "mov.b32 %v0, 0;\nshl.b32 %r20, %r0, 4;\nadd.u32 %r20, %r1, %r20;\n"
    write += "st.shared.b32 [%r20], %v0;\n"
    assert found(mma() + SYNC + write, policy)
    assert FindingKind.RACE in found(mma() + SYNC + write)
    assert not found(mma(), policy, after_body=write)


@pytest.mark.parametrize("policy", POLICIES)
def test_products_wait_for_loads(policy: str) -> None:
    """A load that nobody has used is overwritten by a product."""
    load = "tcgen05.ld.sync.aligned.32x32b.x2.b32 {%v1, %v2}, [%r8];\n"
    use = "add.u32 %v3, %v1, %v2;\n"
    assert found(load + SYNC + mma(), policy, after_body=use)
    assert not found(load + use + SYNC + mma(), policy)
    assert not found(load + "tcgen05.wait::ld.sync.aligned;\n" + SYNC + mma(), policy)
    # Used, but only after the thread that multiplies was let go.
    assert FindingKind.RACE in found(load + SYNC + use + mma())


def test_two_warps_are_not_in_order() -> None:
    """Products of different warps on one accumulator need a commit in between."""
    second = "setp.eq.u32 %p4, %r0, 32;\n"
    body = second + mma() + SYNC + mma(enable=1, who="%p4")
    assert FindingKind.NOT_COMPLETED in found(body)
    commit = (
        "@%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r1+24576];\n"
    )
    body = second + mma() + commit + wait("first", 24576) + SYNC
    body += mma(enable=1, who="%p4")
    last = commit.replace("@%p1", "@%p4") + wait("second", 24576, 1)
    assert not found(body + last, commit=False)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_elected_lane_commits_its_own(policy: str) -> None:
    body = "setp.eq.u32 %p4, %r0, 1;\n" + mma(who="%p4")
    result = found(body, policy)
    assert FindingKind.BARRIER in result
    assert result & {FindingKind.NOT_COMPLETED, FindingKind.RACE}


@pytest.mark.parametrize("policy", POLICIES)
def test_several_commits_for_one_product(policy: str) -> None:
    commit = (
        "@%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r1+{}];\n"
    )
    init = "@%p0 mbarrier.init.shared::cta.b64 [%r1+24600], 2;\n" + SYNC
    body = init + mma() + commit.format(24600) + commit.format(24600) + wait("twice", 24600)
    assert not found(body, policy)


@pytest.mark.parametrize("between", ["", mma(enable=1)])
@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_has_to_wait_for_a_commit_of_the_same(policy: str, between: str) -> None:
    """CUTLASS's fmha for Blackwell commits three times and waits for two; not if there was more."""
    commit = (
        "@%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r1+{}];\n"
    )
    init = "@%p0 mbarrier.init.shared::cta.b64 [%r1+24600], 1;\n" + SYNC
    body = init + mma() + commit.format(24576) + between + commit.format(24600)
    assert bool(found(body + wait("first", 24576), policy, commit=False)) == bool(between)


@pytest.mark.parametrize("waited", [24576, 24600, 24608])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_last_commit_tells_of_those_before(policy: str, waited: int) -> None:
    """CUTLASS's GEMMs wait for the last commit alone, which has its stage's product in common."""
    commit = (
        "@%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r1+{}];\n"
    )
    init = "".join(f"@%p0 mbarrier.init.shared::cta.b64 [%r1+{at}], 1;\n" for at in (24600, 24608))
    body = init + SYNC + mma() + commit.format(24576) + mma(enable=1)
    body += commit.format(24600) + commit.format(24608)
    assert bool(found(body + wait("one", waited), policy, commit=False)) == (waited == 24576)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_commit_without_products_arrives(policy: str) -> None:
    assert not found("", policy)


def test_generic_address_of_the_barrier() -> None:
    body = mma() + "cvt.u64.u32 %d4, %r1;\ncvta.shared.u64 %d4, %d4;\n"
    body += "@%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%d4+24576];\n"
    assert not found(body + wait("generic", 24576), commit=False)


@pytest.mark.parametrize("policy", POLICIES)
def test_freeing_needs_the_commit(policy: str) -> None:
    """Nobody reads D, so only giving its columns back can clash with the product."""
    whole = frame(mma()).text()
    start, end = whole.index("@%p1 tcgen05.commit"), whole.rindex("bar.sync 0;")
    text = whole[:start] + whole[end:]
    assert run_text(text, policy) <= {FindingKind.NOT_COMPLETED, FindingKind.RACE}
    assert run_text(text, policy)
    waits = whole[start : whole.index("ld.param.u64 %d2, [out]")]
    assert not run_text(whole[:start] + waits + whole[end:], policy)


def run_text(text: str, policy: str) -> set[FindingKind]:
    arguments = {"image": image(), "out": np.zeros(4, np.uint32), "cells": cells()}
    return kinds(run_ptx(text, arguments, block=128, smem=24640, policy=policy))


@pytest.mark.parametrize(
    ("commit", "text"),
    [
        ("[%r1+24640]", "where nothing has initialised one"),
        ("[%r1+0x1000000]", "CTA 1 of a cluster of 1"),
    ],
)
def test_refuses_barriers(commit: str, text: str) -> None:
    body = f"@%p1 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 {commit};\n"
    _, emulation = frame(body).run()
    assert FindingKind.FAULT in kinds(emulation)
    assert text in "\n".join(map(str, emulation.findings))


# ---- pairs -------------------------------------------------------------------------------------


def pair(body: str, **options: Any) -> Frame:
    one = image()
    return Frame(
        np.concatenate([one, one]), body, 32, 2, np.zeros((2, 128, 32), np.uint32), **options
    )


PAIR_IDESC = IDESC & ~(31 << 24 | 63 << 17) | 256 >> 4 << 24 | 32 >> 3 << 17
PAIR_MMA = (
    f"@%p1 tcgen05.mma.cta_group::2.kind::f16 [%r7], {A.word():#x}, {B.word():#x}, "
    f"{PAIR_IDESC:#x}, 0;\n"
)


@pytest.mark.parametrize("policy", POLICIES)
def test_multicast_tells_both_ctas(policy: str) -> None:
    after = pair(PAIR_MMA).run_clean(policy=policy)
    assert (after.view(np.float32) == 16).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_peer_needs_the_commit_too(policy: str) -> None:
    """Only CTA 0 hears of the commit; CTA 1 reads its half of D nevertheless."""
    commit = (
        "@%p1 tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.b64 [%r1+24576];\n"
        "setp.ne.u32 %p4, %r3, 0;\n@%p4 bra PEER;\n" + wait("own", 24576) + "PEER:\n"
    )
    assert kinds(pair(PAIR_MMA + commit, commit=False).run(policy=policy)[1])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_remote_barrier(policy: str) -> None:
    """Without multicast the address may lie in the peer; rank in bits 24 and up."""
    commit = (
        "add.u32 %r20, %r1, 0x1000000;\n"
        "@%p1 tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.b64 "
        "[%r20+24576];\n"
        "@%p1 tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.b64 [%r1+24576];\n"
    )
    body = PAIR_MMA + commit + wait("both", 24576)
    after = pair(body, commit=False).run_clean(policy=policy)
    assert (after.view(np.float32) == 16).all()


def test_refuses_a_mask_beyond_the_cluster() -> None:
    text = pair(PAIR_MMA + "mov.b16 %h0, 5;\n")
    _, emulation = text.run()
    assert FindingKind.FAULT in kinds(emulation)
    assert "mask of CTAs 0x0005" in "\n".join(map(str, emulation.findings))


def test_a_peer_that_has_exited_is_reported() -> None:
    body = "setp.ne.u32 %p4, %r3, 0;\n@%p4 bra LEAVE;\nmov.u32 %r20, 0;\nSPIN:\n"
    body += "add.u32 %r20, %r20, 1;\nsetp.lt.u32 %p5, %r20, 5000;\n@%p5 bra SPIN;\n"
    body += PAIR_MMA + "LEAVE:\n"
    _, emulation = replace(pair(body, commit=False), after_body="@%p4 ret;\n").run()
    assert FindingKind.RESOURCE in kinds(emulation)
    assert "has exited already" in "\n".join(map(str, emulation.findings))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".mbarrier::arrive::one", ""),
        (".cta_group::1", ""),
        (".b64", ".b64.multicast::all"),
    ],
)
def test_does_not_know(old: str, new: str) -> None:
    body = "tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r1+24576];\n"
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+"):
        found(body.replace(old, new))
