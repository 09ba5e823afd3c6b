"""The interleaving engine, on a clock of our own: order, pairing, budget, early stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from fa4gen.core.evaluation import MeasurementPolicy, Thermal
from fa4gen.evaluate.gpu_bench import (
    Bench,
    HostClock,
    Launch,
    Replay,
    Samples,
    interleave,
)
from fa4gen.evaluate.nvml import GpuSample
from fa4gen.evaluate.protocol import Stage
from fa4gen.evaluate.timing import TimingPlan, summarise
from fa4gen.evaluate.warmth import Heat


class Virtual:
    """A clock that advances by what each callable says it takes, on a card that slows down."""

    def __init__(self, drift_per_launch: float = 0.0) -> None:
        self.drift = 1.0
        self.drift_per_launch = drift_per_launch
        self.order: list[str] = []
        self.batches: list[int] = []
        self.taken = 0.0

    def sample(self, launch: Launch, launches: int) -> Replay:
        def replay() -> None:
            for index in range(launches):
                name, microseconds = cast("tuple[str, float]", launch(index))
                self.taken += microseconds * self.drift
                self.drift *= 1 + self.drift_per_launch
            self.order.append(name)

        return replay

    def time(self, replays: Sequence[Replay], meanwhile: Callable[[], None]) -> list[float]:
        self.batches.append(len(replays))
        times = []
        for replay in replays:
            self.taken = 0.0
            replay()
            times.append(self.taken)
        meanwhile()
        return times


class Ready(Heat):
    """A card that is warm."""

    def warmup_s(self) -> float:
        return 0.0


class Watcher:
    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.readings = 0

    def progress(self, stage: Stage, label: str = "") -> None:
        self.stages.append(stage)

    def read(self) -> GpuSample:
        self.readings += 1
        return GpuSample(1500 + self.readings, 600.0, 60, ("sw_power_cap",), ())


def takes(name: str, microseconds: float) -> Launch:
    return lambda index: (name, microseconds)


def run(
    clock: Virtual,
    launches: Sequence[Launch],
    plan: TimingPlan,
    thermal: Thermal = Thermal.SUSTAINED,
    watcher: Watcher | None = None,
) -> Samples:
    bench = Bench(clock, MeasurementPolicy(thermal=thermal), watcher or Watcher(), Ready())
    return interleave(launches, plan, bench, buffers=2)


PLAN = TimingPlan(min_rounds=12, max_rounds=12, budget_s=0.0, sample_us=400.0)


def test_times_are_per_launch() -> None:
    got = run(Virtual(), [takes("a", 100.0), takes("b", 50.0)], PLAN)
    assert got.launches == 4
    assert got.times_us[0] == pytest.approx((100.0,) * 12)
    assert got.times_us[1] == pytest.approx((50.0,) * 12)
    assert not got.stopped_early


def test_pairs_cancel_a_card_that_slows_down_fast() -> None:
    clock = Virtual(drift_per_launch=1e-4)
    got = run(clock, [takes("a", 100.0), takes("b", 99.0)], PLAN)
    assert got.times_us[0][-1] > 1.005 * got.times_us[0][0]
    assert summarise(*got.times_us).gain == pytest.approx(100 / 99, rel=1e-3)


def test_of_two_each_sample_follows_the_other_kernel() -> None:
    clock = Virtual()
    run(clock, [takes("a", 100.0), takes("b", 100.0)], PLAN)
    timed = "".join(clock.order)[-26:]  # two batches of six rounds, each led by an untimed b
    assert clock.batches[-2:] == [13, 13]
    assert timed == ("b" + "ab" * 6) * 2


def test_many_take_every_place_equally_often() -> None:
    clock = Virtual()
    plan = TimingPlan(min_rounds=12, max_rounds=12, budget_s=0.0, hopeless_below=None)
    launches = [takes(name, 100.0 + i) for i, name in enumerate("abcd")]
    got = run(clock, launches, plan)
    timed = clock.order[-48:]
    for place in range(4):
        names = timed[place::4]
        assert {names.count(name) for name in "abcd"} == {3}
    for i, times in enumerate(got.times_us):  # each sample landed in its own column
        assert times == pytest.approx((100.0 + i,) * 12)


@pytest.mark.parametrize("microseconds", [100.0, 10_000.0, 25_000.0, 1e6])
def test_a_hopeless_pair_stops_after_the_first_decision(microseconds: float) -> None:
    plan = TimingPlan(min_rounds=12, max_rounds=60, budget_s=0.0)
    got = run(Virtual(), [takes("a", microseconds), takes("b", 1.3 * microseconds)], plan)
    assert got.stopped_early
    assert len(got.times_us[0]) == plan.hopeless_after


def test_more_than_two_never_stop_early() -> None:
    got = run(Virtual(), [takes("a", 100.0), takes("b", 500.0), takes("c", 500.0)], PLAN)
    assert not got.stopped_early
    assert len(got.times_us[0]) == 12


def test_bursts_are_short_and_sustained_batches_long() -> None:
    slow = [takes("a", 1000.0), takes("b", 1000.0)]
    plan = TimingPlan(min_rounds=24, max_rounds=24, budget_s=0.0, hopeless_below=None)
    long, short = Virtual(), Virtual()
    run(long, slow, plan)
    run(short, slow, plan, Thermal.BURST)
    assert max(long.batches) == 2 * 24 + 1
    assert max(short.batches[2:]) * 2000 <= 16_000, "8 ms of samples and the lead"


def test_the_card_is_read_once_a_batch_and_the_parent_told() -> None:
    watcher = Watcher()
    got = run(Virtual(), [takes("a", 1.0), takes("b", 1.0)], PLAN, watcher=watcher)
    assert watcher.readings == watcher.stages.count(Stage.TIME) >= 1
    assert watcher.stages[0] is Stage.WARMUP
    assert got.conditions.throttle == ("sw_power_cap",)
    assert got.conditions.power_w == 600.0


def test_callables_are_told_which_launch_it_is() -> None:
    seen: set[int] = set()

    def launch(index: int) -> tuple[str, float]:
        seen.add(index)
        return "a", 100.0

    run(Virtual(), [launch], PLAN)
    assert seen == {0, 1, 2, 3}


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no callables"):
        run(Virtual(), [], PLAN)


def test_host_clock_times_functions_of_the_host() -> None:
    calls = [0]

    def launch(index: int) -> None:
        calls[0] += 1

    bench = Bench(HostClock(), heat=Ready())
    plan = TimingPlan(min_rounds=5, max_rounds=5, budget_s=0.0, sample_us=1.0)
    got = interleave([launch, launch], plan, bench)
    assert len(got.times_us[0]) == len(got.times_us[1]) == 5
    assert all(time > 0 for times in got.times_us for time in times)
    assert calls[0] > 10


def test_a_refresh_does_not_overshoot_by_a_batch() -> None:
    """Kernels of 10 ms on a busy card: 0.05 s of load, not a whole batch of 0.25 s."""

    class Real(Virtual):
        def time(self, replays: Sequence[Replay], meanwhile: Callable[[], None]) -> list[float]:
            times = super().time(replays, meanwhile)
            time.sleep(sum(times) / 1e6)
            return times

    heat = Heat()
    heat.busy()
    watcher = Watcher()
    begin = time.monotonic()
    bench = Bench(Real(), MeasurementPolicy(), watcher, heat)
    plan = TimingPlan(min_rounds=1, max_rounds=1, budget_s=0.0, hopeless_below=None)
    interleave([takes("a", 5000.0), takes("b", 5000.0)], plan, bench)
    busy_s = time.monotonic() - begin
    # probe 45 ms, first round 10 ms, refresh 50 ms, lead and one round 15 ms
    assert 0.1 < busy_s < 0.25
