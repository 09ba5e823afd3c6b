"""Times callables side by side on one device: the engine under the GPU worker and the benchmarks.

:func:`interleave` is the public part: it takes any callables ``launch(i)``, where ``i`` counts
launches so that a callable can rotate its buffers, and returns microseconds per launch by callable
and round. Nothing in it knows about attention.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fa4gen.core.evaluation import Execution, MeasurementPolicy, Thermal
from fa4gen.evaluate.nvml import GpuSample, conditions
from fa4gen.evaluate.protocol import GpuConditions, Stage
from fa4gen.evaluate.timing import (
    TimingPlan,
    balanced_orders,
    finished,
    hopeless,
    launches_per_sample,
    rounds_to_decision,
)
from fa4gen.evaluate.warmth import Heat

Launch = Callable[[int], object]
"""``launch(i)``: enqueue launch number ``i`` on torch's current stream, do not wait."""

Replay = Callable[[], object]
"""Enqueue one sample's launches."""

SUSTAINED_BATCH_S = 0.25
"""Samples between two looks at the clock and at the parent's deadline."""
BURST_BATCH_S = 0.008
"""Longest burst; the power limit acts over longer times than this."""
BURST_IDLE_SHARE = 9.0
"""Idle time after a burst, in lengths of that burst: a duty cycle of 10 %."""
BURST_IDLE_S = 0.05
"""Least idle time before a burst."""
BURST_IDLE_MOST_S = 1.0
"""Longest; one launch of a very long problem is no burst whatever comes before it."""
BURST_LEAD_S = 0.002
"""Untimed start of a burst, in which the clock comes up from idle."""
_ESTIMATE_LAUNCHES = 3
_PAIR = 2


class Clock(Protocol):
    """Runs launches on a device and times them there."""

    def sample(self, launch: Launch, launches: int) -> Replay:
        """What enqueues ``launch(0)`` to ``launch(launches - 1)`` at one go."""

    def time(self, replays: Sequence[Replay], meanwhile: Callable[[], None]) -> list[float]:
        """Enqueue all of them back to back, wait, and give the microseconds of each.

        ``meanwhile`` is called while the device is busy.
        """


class Observer(Protocol):
    """Is told what happens, and reads the card."""

    def progress(self, stage: Stage, label: str = "") -> None:
        """A stage begins."""

    def read(self) -> GpuSample:
        """The card's state now."""


class SilentObserver:
    """Tells nobody and reads nothing."""

    def progress(self, stage: Stage, label: str = "") -> None:
        """Nothing to do."""

    def read(self) -> GpuSample:
        """No reading."""
        return GpuSample(None, None, None, (), ())


class CudaClock:
    """CUDA events around CUDA graphs or eager launches, on a stream of its own.

    Inside, the stream is torch's current one, which is where compiled kernels launch.
    """

    def __init__(self, execution: Execution = Execution.GRAPH) -> None:
        import torch

        self._execution = execution
        cuda: Any = torch.cuda  # its classes have no annotations
        self._stream: Any = cuda.Stream()

    def sample(self, launch: Launch, launches: int) -> Replay:
        """A captured graph, or a loop for eager execution; warmed up."""
        import torch

        def eager() -> None:
            for index in range(launches):
                launch(index)

        self._stream.wait_stream(torch.cuda.current_stream())  # inputs may still be on their way
        with torch.cuda.stream(self._stream):
            launch(0)  # loads the module: not allowed while capturing
        self._stream.synchronize()
        if self._execution is Execution.EAGER:
            return eager
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            eager()
        return graph.replay

    def time(self, replays: Sequence[Replay], meanwhile: Callable[[], None]) -> list[float]:
        """One wait for the whole batch, so that no sample begins on an idle device."""
        import torch

        cuda: Any = torch.cuda
        marks = [cuda.Event(enable_timing=True) for _ in range(len(replays) + 1)]
        with torch.cuda.stream(self._stream):
            marks[0].record(self._stream)
            for replay, mark in zip(replays, marks[1:], strict=True):
                replay()
                mark.record(self._stream)
        meanwhile()
        marks[-1].synchronize()
        return [before.elapsed_time(after) * 1e3 for before, after in itertools.pairwise(marks)]


class HostClock:
    """Wall clock around callables that finish before they return: CPU code, tests."""

    def sample(self, launch: Launch, launches: int) -> Replay:
        """A loop."""

        def loop() -> None:
            for index in range(launches):
                launch(index)

        loop()
        return loop

    def time(self, replays: Sequence[Replay], meanwhile: Callable[[], None]) -> list[float]:
        """Microseconds of each call."""
        times = []
        for replay in replays:
            begin = time.perf_counter()
            replay()
            times.append((time.perf_counter() - begin) * 1e6)
        meanwhile()
        return times


@dataclass(frozen=True, slots=True)
class Samples:
    """Microseconds per launch, by callable and round, and how the card was meanwhile."""

    times_us: tuple[tuple[float, ...], ...]
    launches: int
    stopped_early: bool
    conditions: GpuConditions


@dataclass(slots=True)
class Bench:
    """How to time: the device's clock, the policy, and who is told."""

    clock: Clock
    policy: MeasurementPolicy = field(default_factory=MeasurementPolicy)
    observer: Observer = field(default_factory=SilentObserver)
    heat: Heat = field(default_factory=Heat)


def interleave(
    launches: Sequence[Launch], plan: TimingPlan, bench: Bench, *, buffers: int = 1
) -> Samples:
    """Time callables in interleaved rounds; the first is the anchor.

    Args:
        launches: each ``launch(i)`` enqueues one launch on buffer set ``i % buffers``.
        plan: rounds, budget and early stop (which applies to two callables only).
        bench: the device; ``Bench(CudaClock())`` outside a worker.
        buffers: sets of inputs the callables rotate through.

    Raises:
        ValueError: no callables.
    """
    if not launches:
        raise ValueError("interleave: got no callables, allowed: 1 or more")
    clock, observer = bench.clock, bench.observer
    per_sample, replays = _prepare(launches, plan, bench, buffers)
    rounds: list[list[float]] = []
    readings: list[GpuSample] = []
    orders = balanced_orders(len(launches))
    round_s = _warm_up(replays, bench)
    begin = time.monotonic()
    stopped = False
    while not stopped and not finished(plan, len(rounds), time.monotonic() - begin, len(launches)):
        count = _rounds_in_batch(bench.policy, round_s, plan, len(rounds))
        order = [i for r in range(count) for i in orders[(len(rounds) + r) % len(orders)]]
        lead = _lead(order, round_s, bench.policy, len(launches))
        observer.progress(Stage.TIME, f"round {len(rounds)}")
        if bench.policy.thermal is Thermal.BURST:
            idle_s = max(BURST_IDLE_S, BURST_IDLE_SHARE * round_s * count)
            time.sleep(min(BURST_IDLE_MOST_S, idle_s))
        times = clock.time(
            [replays[i] for i in (*lead, *order)], lambda: readings.append(observer.read())
        )[len(lead) :]
        bench.heat.busy()
        for r in range(count):
            row = [0.0] * len(launches)
            for place in range(r * len(launches), (r + 1) * len(launches)):
                row[order[place]] = times[place] / per_sample
            rounds.append(row)
        if len(launches) == _PAIR:
            stopped = hopeless(plan, [r[0] for r in rounds], [r[1] for r in rounds])
    columns = tuple(tuple(row[i] for row in rounds) for i in range(len(launches)))
    return Samples(columns, per_sample, stopped, conditions(readings))


def _prepare(
    launches: Sequence[Launch], plan: TimingPlan, bench: Bench, buffers: int
) -> tuple[int, list[Replay]]:
    """Launches per sample, from an estimate of the first callable, and everybody's replays."""
    bench.observer.progress(Stage.WARMUP, "estimate")
    probe = bench.clock.sample(launches[0], _ESTIMATE_LAUNCHES)
    estimate = min(bench.clock.time([probe] * 3, _nothing)) / _ESTIMATE_LAUNCHES
    per_sample = launches_per_sample(plan, estimate, buffers)
    replays = []
    for index, launch in enumerate(launches):
        bench.observer.progress(Stage.WARMUP, f"capture {index}")
        replays.append(bench.clock.sample(launch, per_sample))
    return per_sample, replays


def _warm_up(replays: Sequence[Replay], bench: Bench) -> float:
    """Bring the card to its thermal state; the seconds of one round."""
    bench.observer.progress(Stage.WARMUP, bench.policy.thermal.value)
    round_s = sum(bench.clock.time(replays, _nothing)) / 1e6
    if bench.policy.thermal is Thermal.SUSTAINED:
        until = time.monotonic() + bench.heat.warmup_s()
        while (left_s := until - time.monotonic()) > 0:
            length_s = min(SUSTAINED_BATCH_S, left_s)
            count = max(1, min(100, int(length_s / max(round_s, 1e-6))))
            round_s = sum(bench.clock.time([*replays] * count, _nothing)) / 1e6 / count
    bench.heat.busy()
    return max(round_s, 1e-6)


def _rounds_in_batch(policy: MeasurementPolicy, round_s: float, plan: TimingPlan, done: int) -> int:
    """Rounds to enqueue at once: as long as the policy likes, no further than a decision."""
    length = SUSTAINED_BATCH_S if policy.thermal is Thermal.SUSTAINED else BURST_BATCH_S
    count = max(1, int(length / round_s))
    nearest = plan.max_rounds - done
    if plan.hopeless_below is not None:
        nearest = min(nearest, rounds_to_decision(plan, done))
    return max(1, min(count, nearest))


def _lead(
    order: Sequence[int], round_s: float, policy: MeasurementPolicy, callables: int
) -> list[int]:
    """Untimed replays before a batch, ending on what would have come before its first sample.

    Without them the first sample would begin on an idle device, on a risen clock.
    """
    wanted = 1
    if policy.thermal is Thermal.BURST:
        wanted = min(100, max(1, round(BURST_LEAD_S / round_s * callables)))
    turns = -(-wanted // callables)
    return [*list(order[:callables]) * turns][-wanted:]


def _nothing() -> None:
    return None
