"""Fences and hints: what is let through, and what the race checks make of proxy fences."""

from __future__ import annotations

import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

FORMS = [
    "fence.acq_rel.gpu;",
    "fence.gpu;",
    "fence.sc.sys;",
    "fence.acquire.cta;",
    "fence.release.cluster;",
    "fence.mbarrier_init.release.cluster;",
    "fence.acquire.sync_restrict::shared::cluster.cluster;",
    "fence.release.sync_restrict::shared::cta.cluster;",
    "fence.proxy.alias;",
    "fence.proxy.async;",
    "fence.proxy.async.global;",
    "fence.proxy.async.shared::cta;",
    "fence.proxy.async.shared::cluster;",
    "fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;",
    "fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster;",
    "fence.proxy.tensormap::generic.release.gpu;",
    "fence.proxy.tensormap::generic.acquire.gpu [mem], 128;",
    "membar.cta;",
    "membar.gl;",
    "membar.sys;",
    "membar.proxy.alias;",
    "membar.proxy.async;",
    "griddepcontrol.wait;",
    "griddepcontrol.launch_dependents;",
    "nanosleep.u32 100;",
    "nanosleep.u32 x;",
    "pmevent 3;",
    "pmevent.mask 3;",
]


def test_every_form_that_ptxas_takes() -> None:
    body = "mov.b32 x, 5;" + "\n".join(FORMS)
    out, run = run_lanes(body, {}, {"x": "u4"}, {"mem": np.zeros(128, np.uint8)})
    assert run.ok
    assert set(out["x"]) == {5}


@pytest.mark.parametrize(
    "line",
    [
        "fence;",
        "fence.acq_rel;",
        "fence.relaxed.cta;",
        "fence.proxy.texture;",
        "fence.proxy.async.shared;",
        "fence.proxy.tensormap::generic.gpu;",
        "membar.cluster;",
        "griddepcontrol.start;",
        "nanosleep.u64 5;",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)


def test_a_breakpoint_ends_the_run() -> None:
    _, run = run_lanes("brkpt;")
    assert "brkpt" in fault(run)


@pytest.mark.parametrize(
    ("fence", "found"),
    [
        ("", ["proxy"]),
        ("fence.proxy.async;", []),
        ("fence.proxy.async.shared::cta;", []),
        ("fence.proxy.async.shared::cluster;", []),
        ("membar.proxy.async;", []),
        ("fence.proxy.async.global;", ["proxy"]),
        ("fence.acq_rel.cta;", ["proxy"]),
        ("fence.proxy.alias;", ["proxy"]),
        ("fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster;", []),
    ],
)
def test_a_bulk_copy_needs_a_proxy_fence_after_ordinary_stores(
    fence: str, found: list[str]
) -> None:
    room = np.zeros(256, np.uint8)
    start = -room.ctypes.data % 16
    mem = room[start : start + 128].view(np.uint32)
    body = f"""mov.b32 word, smem; mad.lo.u32 word, tid, 4, word; st.shared.b32 [word], tid;
    {fence} bar.warp.sync -1; .reg .pred one; setp.eq.u32 one, tid, 0; mov.b32 word, smem;
    @one cp.async.bulk.global.shared::cta.bulk_group [mem], [word], 128;
    @one cp.async.bulk.commit_group; @one cp.async.bulk.wait_group 0;"""
    _, run = run_lanes(body, {}, {}, {"mem": mem}, smem=128)
    assert kinds(run) == found, run.findings
    assert mem.tolist() == list(range(32))
