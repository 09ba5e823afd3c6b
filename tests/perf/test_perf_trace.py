"""The trace-driven model on kernels small enough to count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError, UnknownName
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.emulator.emulate import Options, emulate
from fa4gen.emulator.machine import GridShape
from fa4gen.hardware import load_arch, load_sku
from fa4gen.perf.trace import (
    NOT_MODELLED,
    ClusterSteps,
    Replay,
    Tape,
    TileTapes,
    TileTiming,
    Timing,
    Walk,
    hand_out,
    left_out,
    load_timing,
    predict_traced,
    replay,
    steps_of,
    trace_tiles,
)
from fa4gen.perf.trace.tape import Recorder

HEAD = ".version 8.8\n.target sm_100a\n.address_size 64\n"
REGISTERS = ".reg .b32 %r<99>; .reg .f32 %f<99>; .reg .b64 %rd<9>; .reg .pred %p<9>;\n"
TIMING = replace(
    load_timing(load_arch("sm100")), issue_slots=1.0, stall=1.0, window=64, wake=20.0, arrive=10.0
)


def tape_of(body: str, warps: int = 1) -> Tape:
    text = f"{HEAD}.visible .entry k() {{\n{REGISTERS}{body}\nret;\n}}"
    recorder = Recorder()
    shape = GridShape((1, 1, 1), (32 * warps, 1, 1))
    found = emulate(text, shape, [], [], Options(observer=recorder.observer()))
    assert found.findings == ()
    ((tapes, counts),) = recorder.tapes
    return Tape(found.program, shape, tapes, counts)


def steps(body: str, warps: int = 1) -> ClusterSteps:
    return steps_of(tape_of(body, warps))


def cycles(body: str, warps: int = 1, timing: Timing = TIMING) -> float:
    return replay(steps(body, warps), timing).cycles


def exponentials(count: int, first: int = 1) -> str:
    return "\n".join(f"ex2.approx.ftz.f32 %f{first + i}, 0f3F000000;" for i in range(count))


def chain(opcode: str, count: int) -> str:
    return "mov.f32 %f1, 0f3F800000;\n" + f"{opcode} %f1, %f1, %f1;\n" * count


def test_independent_exponentials_take_the_pipe_s_time() -> None:
    # 32 lanes at 16 / 4 a clock are 8 cycles of a sub-core's MUFU.
    more, fewer = cycles(exponentials(40)), cycles(exponentials(20))
    assert more - fewer == pytest.approx(20 * 8)


def test_sm103_has_twice_the_exponentials() -> None:
    fast = replace(load_timing(load_arch("sm103")), issue_slots=1.0, stall=1.0, window=64)
    assert cycles(exponentials(40), timing=fast) - cycles(
        exponentials(20), timing=fast
    ) == pytest.approx(20 * 4)


def test_a_chain_takes_the_latency() -> None:
    step = 1 + TIMING.latency("fma")  # one cycle of the pipe, then the latency
    assert cycles(chain("mul.f32", 40)) - cycles(chain("mul.f32", 20)) == pytest.approx(20 * step)


def test_warps_of_one_sub_core_share_its_pipes() -> None:
    body = exponentials(30)
    alone, four, five = (replay(steps(body, warps), TIMING) for warps in (1, 4, 5))
    assert four.cycles == pytest.approx(alone.cycles, abs=4)
    assert five.cycles - alone.cycles == pytest.approx(30 * 8, abs=12)
    assert five.busy["mufu"] == pytest.approx(30 * 8 * 5 / 4)


def test_a_warp_keeps_the_compiler_s_distance_and_others_go_between() -> None:
    def body(count: int) -> str:
        return "\n".join(f"add.f32 %f{i}, 0f3F000000, 0f3F000000;" for i in range(1, count))

    apart = replace(TIMING, stall=3.0)
    alone, more = (cycles(body(count), timing=apart) for count in (20, 40))
    assert more - alone == pytest.approx(20 * 3)
    # Warps 0 and 4 share a sub-core: the second fits between.
    assert cycles(body(40), 5, apart) == pytest.approx(more, abs=4)


def test_of_two_warps_one_is_served_first() -> None:
    found = replay(steps(exponentials(30), 5), TIMING)
    first, last = sorted((found.ends[0, 0], found.ends[0, 4]))
    assert first == pytest.approx(30 * 8, abs=40)
    assert last == pytest.approx(60 * 8, abs=40)


def test_the_compiler_s_window_hides_latency() -> None:
    twice = "mov.f32 %f1, 0f3F800000;\nmov.f32 %f2, 0f3F800000;\n"
    first, second = "mul.f32 %f1, %f1, %f1;\n" * 20, "mul.f32 %f2, %f2, %f2;\n" * 20
    wide, narrow = (
        cycles(twice + first + second, timing=replace(TIMING, window=window)) for window in (64, 1)
    )
    assert wide < 0.6 * narrow


def test_what_ptxas_folds_costs_nothing() -> None:
    moves = "\n".join(f"mov.f32 %f{i + 1}, %f{i};" for i in range(1, 40))
    start = "mov.f32 %f1, 0f3F800000;\n"
    end = "mul.f32 %f90, %f40, %f40;"
    assert cycles(start + moves + end) == cycles(start + end.replace("%f40", "%f1"))


SYNC = """
mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; setp.ne.u32 %p1, %r2, 0; @%p1 bra LATE;
{work}
LATE: bar.sync 1, 64; {after}
"""


def test_a_barrier_is_over_when_the_last_has_come() -> None:
    body = SYNC.format(work=exponentials(30), after="")
    # No queue before the MUFU: what waits in it is not what the barrier waits for.
    found = replay(steps(body, 2), replace(TIMING, mufu_queue=0))
    first, second = found.ends[0, 0], found.ends[0, 1]
    assert min(first, second) > 30
    assert first == pytest.approx(second, abs=8)
    assert found.waited[1] > found.waited[0]


MBARRIER = """
.shared .align 8 .b64 bar;
mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; mov.u32 %r3, bar; setp.eq.u32 %p1, %r1, 0;
@%p1 mbarrier.init.shared::cta.b64 [%r3], 32; bar.sync 0;
setp.ne.u32 %p2, %r2, 0; @%p2 bra WAIT;
{work}
mbarrier.arrive.shared::cta.b64 %rd1, [%r3]; bra END;
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r3], 0; @!%p3 bra WAIT;
END:
"""


def test_a_phase_of_an_mbarrier_wakes_who_waits() -> None:
    quick, slow = (
        replay(steps(MBARRIER.format(work=exponentials(count)), 2), TIMING) for count in (10, 40)
    )
    # The arrival is behind the exponentials in order of issue, not of completion.
    assert slow.ends[0, 1] - quick.ends[0, 1] == pytest.approx(30 * 8, abs=30)


def test_a_tape_that_is_cut_off() -> None:
    whole = steps(SYNC.format(work="", after=""), 2)
    cut = replace(whole, contributions=tuple(count + 1 for count in whole.contributions))
    with pytest.raises(EvaluationError, match=r"2 warps wait .* at bar\.sync"):
        replay(cut, TIMING)


def test_what_has_no_timing_is_named() -> None:
    found = steps("nanosleep.u32 10;\nnanosleep.u32 10;\n" + exponentials(3))
    assert found.untimed == {"nanosleep.u32": 2}
    walk = Walk(found, 1, 1)
    first, *rest = left_out(TileTapes(walk, walk, None))
    assert first == "nanosleep.u32: no timing, taken for one issue slot (2 executed)"
    assert tuple(rest) == NOT_MODELLED
    counted = TileTapes(walk, walk, None, "instruction counts: SASS (2 loops)", 2.1)
    outside = "what ptxas made of code outside these loops"
    assert left_out(counted)[1] == f"{outside} (instruction counts: SASS (2 loops))"


def test_every_number_has_a_source() -> None:
    for name in ("sm90", "sm100", "sm103"):
        timing = load_timing(load_arch(name))
        assert all(timing.sources.values())
    with pytest.raises(UnknownName, match="sm70"):
        load_timing(replace(load_arch("sm90"), name="sm70", family="sm70"))


@pytest.mark.parametrize(
    ("lengths", "places", "expected"),
    [
        ([4, 4], 2, 10 + 4 * 100),
        ([4, 4], 1, 10 + 4 * 100 + 5 + 4 * 100),
        ([4, 3, 2, 1], 2, 10 + 400 + 5 + 100),  # 4 then 1; 3 then 2
        ([1, 2, 3, 4], 2, 10 + 200 + 5 + 400),  # 1 then 3; 2 then 4
    ],
)
def test_tiles_are_handed_out(lengths: Sequence[int], places: int, expected: float) -> None:
    tile = TileTiming(block=100.0, first=10.0, next=5.0, busy={})
    assert hand_out(lengths, tile, places) == expected


def traced_us(scheduler: Scheduler, *, causal: bool, next_tile: float = 5.0) -> float:
    sku = load_sku("h200")
    sizes = {"batch": 4, "seqlen_q": 2048, "num_heads_q": 20, "head_dim": 128}
    problem = AttentionProblem.from_dict({**sizes, "causal": causal})
    tile = TileTiming(block=1000.0, first=900.0, next=next_tile, busy={})
    return predict_traced(problem, KernelConfig(scheduler=scheduler), sku, tile, 1500.0).time_us


def test_a_dynamic_walk_has_the_order_of_lpt_and_the_tiles_of_a_persistent_cta() -> None:
    lpt, dynamic = (
        traced_us(each, causal=True, next_tile=900.0) for each in (Scheduler.LPT, Scheduler.DYNAMIC)
    )
    assert dynamic == lpt, "where a next tile takes as long as a first"
    assert traced_us(Scheduler.DYNAMIC, causal=True) < dynamic
    assert traced_us(Scheduler.DYNAMIC, causal=True) < traced_us(Scheduler.PERSISTENT, causal=True)
    dense = [traced_us(each, causal=False) for each in (Scheduler.DYNAMIC, Scheduler.PERSISTENT)]
    assert dense[0] == dense[1]


@pytest.mark.parametrize(
    ("scheduler", "queries", "walks"),
    [(Scheduler.LPT, 128, 2), (Scheduler.DYNAMIC, 128, 3), (Scheduler.PERSISTENT, 256, 3)],
)
def test_what_is_recorded_of_a_causal_kernel(
    scheduler: Scheduler, queries: int, walks: int
) -> None:
    """A fixed walk takes tiles in pairs; a dynamic one shows its next tile by one more."""
    asked: list[AttentionProblem] = []

    def record(problem: AttentionProblem, num_sms: int) -> list[Tape]:
        assert num_sms == 1
        asked.append(problem)
        return [tape]

    signature = KernelSignature(DType.BF16, 128, 128, causal=True, qhead_per_kvhead=1)
    tape = tape_of(exponentials(3))
    tapes = trace_tiles(record, signature, KernelConfig(scheduler=scheduler), load_arch("sm90"))
    assert {problem.seqlen_q for problem in asked} == {queries}
    assert len(tapes.walks) == len(asked) == walks
    assert [walk.tiles for walk in tapes.walks] == [queries // 128 * n for n in (1, 1, 2)][:walks]


def test_a_replay_says_what_was_busy() -> None:
    found: Replay = replay(steps(exponentials(12) + chain("mul.f32", 8)), TIMING)
    assert found.busy["mufu"] == pytest.approx(12 * 8 / 4)
    assert found.busy["fma"] == pytest.approx(8 / 4)
