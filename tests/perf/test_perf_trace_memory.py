"""Shared memory in a replay: MMAs, copies and warps want its one port."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.hardware import load_arch
from fa4gen.perf.trace import ClusterSteps, Timing, load_timing, replay
from fa4gen.perf.trace.dataflow import Begun, Step, WarpSteps
from fa4gen.perf.trace.kinds import Kind, operand_bytes
from fa4gen.perf.trace.sm import Demand

# Copies fill half of the port, and arrive at once.
SM100 = replace(
    load_timing(load_arch("sm100")),
    copy_bytes_per_clk=64.0,
    load=0.0,
    issue_slots=1.0,
    stall=1.0,
    port_share=1.0,
    mma_start=20.0,
)
ISSUE = Kind("tcgen05.mma", "control", 0.0, True, False, False, 0)
PAIR = "tcgen05.mma.cta_group::2.kind::f16"
ALONE = "tcgen05.mma.cta_group::1.kind::f16"


def mma(opcode: str = ALONE, rows: int = 128, *, a_in_smem: bool = True) -> Begun:
    return Begun(opcode, (rows, 128, 16), (), a_in_smem, operand_bytes(opcode))


def copy(size: int) -> Begun:
    return Begun("cp.async.bulk.tensor", (size,), (0,))


def busy(jobs: list[Begun], ctas: int = 1, timing: Timing = SM100) -> float:
    """Cycles for which the tensor core is at work."""
    first = WarpSteps(0, 0, (Step(ISSUE, (), jobs=tuple(jobs)),))
    rest = (WarpSteps(cta, 0, ()) for cta in range(1, ctas))
    signals = sum(len(job.signals) for job in jobs)
    return replay(ClusterSteps((first, *rest), (signals,), 1), timing).busy["tensor"]


def test_what_is_wanted_beyond_the_port_is_excess() -> None:
    port = Demand()
    port.take(100.0, 200.0, 0.75)
    port.take(200.0, 300.0, 0.25)
    assert port.excess(0.0, 100.0, 1.0) == 0.0
    assert port.excess(150.0, 250.0, 0.5) == pytest.approx(50 * 0.25)
    assert port.excess(150.0, 250.0, 1.0) == pytest.approx(50 * 0.75 + 50 * 0.25)
    port.forget(200.0)
    assert port.excess(0.0, 300.0, 0.5) == 0.0


def test_an_mma_of_one_cta_reads_as_fast_as_the_port_gives() -> None:
    # 16 x (128 + 128) values of 2 bytes are 64 cycles of 128 bytes, as many as the product takes.
    assert busy([mma()] * 8) == pytest.approx(8 * 64)


def test_copies_delay_the_mmas_of_one_cta_and_hardly_those_of_two() -> None:
    # All of 8 MMAs is beside the copy; each reads at 1, or 0.75 in a pair, of the port's rate.
    large = copy(1 << 16)
    alone = busy([large, *[mma()] * 8])
    paired = busy([large, *[mma(PAIR, 256)] * 8], ctas=2)
    assert alone == pytest.approx(8 * 64 * (1 + 0.5), rel=0.01)
    assert paired == pytest.approx(8 * 64 * (1 + 0.25), rel=0.01)
    # P comes from tensor memory: half of the port is left.
    assert busy([large, *[mma(a_in_smem=False)] * 8]) == pytest.approx(8 * 64)


def test_a_copy_that_comes_later_delays_what_is_queued_behind() -> None:
    before, after = [mma()] * 8, [mma()]
    steps = [Step(ISSUE, (), jobs=tuple(jobs)) for jobs in (before, [copy(1 << 14)], after)]
    warp = WarpSteps(0, 0, tuple(steps))
    found = replay(ClusterSteps((warp,), (1,), 3), SM100)
    # The copy takes half of the port from cycle 1 on for 256, MMAs want all of it from 20 on.
    delay = (1 + 256 - 20) / 2
    assert found.cycles == pytest.approx(20 + 9 * 64 + delay + SM100.mma_latency)


def test_what_mmas_do_not_bear_copies_do() -> None:
    kind = WarpSteps(
        0, 0, tuple(Step(ISSUE, (), jobs=(job,)) for job in [*[mma()] * 8, copy(1 << 14)])
    )
    steps = ClusterSteps((kind,), (1,), 9)
    polite = replace(SM100, port_share=0.0)
    conflict = (8 + 256 - 20) / 2
    assert replay(steps, polite).busy["tensor"] == pytest.approx(8 * 64)
    assert replay(steps, polite).busy["copy"] == pytest.approx(256 + conflict, abs=16)
    assert replay(steps, SM100).busy["copy"] == pytest.approx(256)


def test_narrow_operands_go_faster_and_wide_ones_slower() -> None:
    narrow = mma("tcgen05.mma.cta_group::2.kind::f8f6f4", 256)
    wide = mma("tcgen05.mma.cta_group::2.kind::tf32", 256)
    assert busy([narrow] * 4, ctas=2) == pytest.approx(4 * 32)
    assert busy([wide] * 4, ctas=2) == pytest.approx(4 * 128)


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [
        ("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16", 2.0),
        ("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e5m2", 1.0),
        ("wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32", 4.0),
        ("wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.s8", 1.0),
        ("tcgen05.mma.cta_group::1.kind::i8", 1.0),
        ("tcgen05.mma.cta_group::1.kind::mxf4.block_scale.scale_vec::2X", 0.0),
        ("tcgen05.commit", 0.0),
    ],
)
def test_bytes_of_an_operand(opcode: str, expected: float) -> None:
    assert operand_bytes(opcode) == expected


def test_wgmma_is_as_slow_as_its_operands() -> None:
    timing = load_timing(load_arch("sm90"))
    opcode = "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16"
    warps = [
        WarpSteps(0, index, (Step(ISSUE, (), jobs=(Begun(opcode, (16, 32, 16), (), a, 2.0),)),))
        for a in (True, False)
        for index in range(4)
    ]
    for chosen, expected in ((warps[:4], 24.0), (warps[4:], 16.0)):
        found = replay(ClusterSteps(tuple(chosen), (), 4), timing)
        # 64 x 32 x 16 at 2048 a clock are 16 cycles; A and B are 3072 bytes, B alone 1024.
        assert found.busy["tensor"] == pytest.approx(expected)
