"""Cluster launch control: clusters that take over what others would have done."""

from __future__ import annotations

import numpy as np
import pytest
from async_kernels import (
    CLUSTER_SYNC,
    POLICIES,
    REGISTERS,
    always,
    check,
    cluster_init,
    init,
    message,
    run,
    wait,
)

from fa4gen.emulator.emulate import emulate
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.machine import GridShape
from fa4gen.emulator.memory import Buffer

TRY = "clusterlaunchcontrol.try_cancel.async.shared::cta.mbarrier::complete_tx::bytes"
QUERY = "clusterlaunchcontrol.query_cancel"
CLUSTERS = 9


def worker(cluster: int) -> str:
    """Count CTAs by where they should have run; then ask for another cluster, until there is none.

    The mbarrier is at byte 0, the response at byte 16; ``owner[cta]`` is the cluster that did it.
    """
    return (
        cluster_init(1)
        + f"""
mov.u32 %r9, 0; mov.u32 %r20, %ctaid.x; mov.u32 %r25, %clusterid.x;
WORK:
@!%lead bra COUNTED;
ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r20, 4; add.u64 %rd1, %rd1, %rd2;
ld.global.u32 %r21, [%rd1]; add.u32 %r21, %r21, 1; st.global.u32 [%rd1], %r21;
ld.param.u64 %rd3, [owner]; add.u64 %rd3, %rd3, %rd2; st.global.u32 [%rd3], %r25;
mbarrier.arrive.expect_tx.shared.b64 _, [%base], 16;
COUNTED:
{CLUSTER_SYNC}
setp.eq.u32 %p5, %rank, 0; and.pred %p5, %p5, %lead;
@%p5 {TRY}.multicast::cluster::all.b128 [%base+16], [%base];
{wait("%base", "%r9")}
xor.b32 %r9, %r9, 1;
ld.shared.v2.u64 {{%rd5, %rd6}}, [%base+16]; mov.b128 %rq0, {{%rd5, %rd6}};
{QUERY}.get_first_ctaid::x.b32.b128 %r20, %rq0;
{QUERY}.is_canceled.pred.b128 %p6, %rq0;
add.u32 %r20, %r20, %rank;
fence.proxy.async.shared::cta;
{CLUSTER_SYNC}
@%p6 bra WORK;
"""
    )


def run_workers(cluster: int, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """How often each CTA's work was done, and by which cluster."""
    done, owner = np.zeros(CLUSTERS * cluster, np.uint32), np.zeros(CLUSTERS * cluster, np.uint32)
    launch = {"grid": CLUSTERS * cluster, "cluster": cluster, "block": 64, "smem": 64}
    emulation = run(worker(cluster), {"out": done, "owner": owner}, policy, **launch)
    assert not emulation.findings, f"{policy}: {emulation.findings[0]}"
    return done, owner


@pytest.mark.parametrize("cluster", [1, 2])
def test_all_work_is_done_once_whoever_does_it(cluster: int) -> None:
    owners = []
    for policy in POLICIES:
        done, owner = run_workers(cluster, policy)
        assert (done == 1).all(), policy
        assert (owner.reshape(-1, cluster) == owner[::cluster, None]).all()
        owners.append(len(set(owner.tolist())))
    # Never refused, the first cluster does it all; where requests are refused, others have to.
    assert owners[0] == 1
    assert max(owners) > 1


def test_the_bits_of_a_response() -> None:
    """ptx.md 5.5: bit 64 says granted; x in bits 0 to 31, y in 32 to 47, z in 48 to 63."""
    low = 0x1234567 | 0xABC << 32 | 0x42 << 48
    body = f"""
mov.u64 %rd5, {low}; mov.u64 %rd6, 1; mov.b128 %rq0, {{%rd5, %rd6}};
{QUERY}.get_first_ctaid::x.b32.b128 %r1, %rq0; {QUERY}.get_first_ctaid::y.b32.b128 %r2, %rq0;
{QUERY}.get_first_ctaid::z.b32.b128 %r3, %rq0;
{QUERY}.get_first_ctaid.v4.b32.b128 {{%r4, %r5, %r6, _}}, %rq0;
{QUERY}.is_canceled.pred.b128 %p1, %rq0; selp.u32 %r7, 1, 0, %p1;
mov.u64 %rd6, 0; mov.b128 %rq1, {{%rd5, %rd6}};
{QUERY}.is_canceled.pred.b128 %p1, %rq1; selp.u32 %r8, 1, 0, %p1;
ld.param.u64 %rd1, [out]; @%lead st.global.v4.u32 [%rd1], {{%r1, %r2, %r3, %r4}};
@%lead st.global.v4.u32 [%rd1+16], {{%r5, %r6, %r7, %r8}};
"""
    expected = np.array([0x1234567, 0xABC, 0x42, 0x1234567, 0xABC, 0x42, 1, 0], np.uint32)
    check(body, np.zeros(8, np.uint32), expected, smem=16)


def test_clusters_of_a_grid_in_space() -> None:
    """The first cluster of a grid of 2 x 3 x 4 takes the others over, wherever they are."""
    done = np.zeros(24, np.uint32)
    text = f"""
.version 8.8
.target sm_100a
.address_size 64
.extern .shared .align 1024 .b8 smem[];
.visible .entry kernel(.param .u64 out)
.reqntid 32, 1, 1
{{
{REGISTERS}
{init(1)}
mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %ctaid.z; mov.u32 %r9, 0;
WORK:
mad.lo.u32 %r4, %r3, 3, %r2; mad.lo.u32 %r4, %r4, 2, %r1;
ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r4, 4; add.u64 %rd1, %rd1, %rd2;
@%lead st.global.u32 [%rd1], 1;
@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], 16;
@%lead {TRY}.b128 [%base+16], [%base];
{wait("%base", "%r9")}
xor.b32 %r9, %r9, 1; ld.shared.v2.u64 {{%rd5, %rd6}}, [%base+16]; mov.b128 %rq0, {{%rd5, %rd6}};
fence.proxy.async.shared::cta; bar.sync 0;
{QUERY}.is_canceled.pred.b128 %p6, %rq0;
{QUERY}.get_first_ctaid.v4.b32.b128 {{%r1, %r2, %r3, _}}, %rq0;
@%p6 bra WORK;
ret;
}}
"""
    buffer = Buffer(done.ctypes.data, done.nbytes, "out")
    shape = GridShape((2, 3, 4), (32, 1, 1), dynamic_smem=64)
    emulation = emulate(text, shape, [done.ctypes.data.to_bytes(8, "little")], [buffer])
    assert not emulation.findings, str(emulation.findings[0])
    assert (done == 1).all()


ASK = (
    "@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], 16;"
    f"@%lead {TRY}.b128 [%base+16], [%base];"
)


def test_asking_again_after_a_refusal_was_seen_is_reported() -> None:
    body = init(1) + ASK + wait("%base", 0) + ASK + wait("%base", 1)
    always(FindingKind.BARRIER, body, smem=64)
    assert "was seen to be a refusal" in message(body, smem=64)


def test_the_response_belongs_to_the_mbarriers_phase() -> None:
    body = init(1) + ASK + "ld.shared.v2.u64 {%rd5, %rd6}, [%base+16];" + wait("%base", 0)
    for policy in POLICIES:
        found = {f.kind for f in run(body, policy=policy, smem=64).findings}
        assert found & {FindingKind.NOT_COMPLETED, FindingKind.UNINITIALISED}, policy


def test_a_misaligned_response_is_a_fault() -> None:
    body = init(1) + ASK.replace("%base+16]", "%base+24]")
    always(FindingKind.FAULT, body, smem=64)
