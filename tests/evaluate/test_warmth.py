"""How far a card is from its sustained state, and what it does while it waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import pytest

from fa4gen.core.evaluation import MeasurementPolicy, Thermal
from fa4gen.evaluate import warmth
from fa4gen.evaluate.gpu import GpuEvaluator
from fa4gen.evaluate.gpu_device import CudaDevice
from fa4gen.evaluate.warmth import (
    SHORT_REST_S,
    SUSTAINED_REFRESH_S,
    SUSTAINED_WARMUP_S,
    Heat,
    next_in,
)
from fa4gen.hardware import load_sku


class Time:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(warmth, "time", made)
    return made


def loaded(clock: Time, heat: Heat, seconds: float) -> None:
    """The card works, and tells afterwards."""
    clock.now += seconds
    heat.add(seconds)


def test_a_cold_card_lacks_the_whole_warm_up(clock: Time) -> None:
    heat = Heat()
    clock.now += 1000.0
    assert heat.warmup_s() == SUSTAINED_WARMUP_S


def test_load_in_pieces_makes_up_for_a_cold_start(clock: Time) -> None:
    heat = Heat()
    for _ in range(100):
        loaded(clock, heat, 0.01)
    assert heat.warmup_s() == pytest.approx(SUSTAINED_WARMUP_S - 1.0 + SUSTAINED_REFRESH_S)
    for _ in range(400):
        loaded(clock, heat, 0.01)
    assert heat.warmup_s() == pytest.approx(SUSTAINED_REFRESH_S)


def test_pauses_on_the_way_up_count_against_it(clock: Time) -> None:
    heat = Heat()
    for _ in range(10):
        loaded(clock, heat, 0.1)
        clock.now += 0.02
    lacking = SUSTAINED_WARMUP_S - 10 * 0.1 + 10 * 0.02
    assert heat.warmup_s() == pytest.approx(SUSTAINED_REFRESH_S + lacking)


@pytest.mark.parametrize("rest_s", [0.0, 0.02, 1.5, SHORT_REST_S - 0.1])
def test_a_warm_card_may_rest_for_a_while(clock: Time, rest_s: float) -> None:
    heat = Heat()
    heat.busy()
    clock.now += rest_s
    assert heat.warmup_s() == pytest.approx(SUSTAINED_REFRESH_S)
    loaded(clock, heat, 0.01)
    assert heat.warmup_s() == pytest.approx(SUSTAINED_REFRESH_S)


def test_a_card_that_rested_longer_is_cold(clock: Time) -> None:
    heat = Heat()
    heat.busy()
    clock.now += SHORT_REST_S + 0.1
    assert heat.warmup_s() == SUSTAINED_WARMUP_S
    heat.busy()
    assert heat.warmup_s() == pytest.approx(SUSTAINED_REFRESH_S)


def waiting(keep_warm: Callable[[], None] | None, after: int = 3) -> tuple[bytes, int]:
    """A line that comes with the ``after``-th call of ``keep_warm``, and how many calls there were.

    Without ``keep_warm`` it is there already.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    calls = [0]

    def warm() -> None:
        calls[0] += 1
        if calls[0] == after:
            lines.put(b"line")
        if keep_warm is not None:
            keep_warm()

    if keep_warm is None:
        lines.put(b"line")
    return next_in(lines, warm if keep_warm is not None else None), calls[0]


def test_the_card_works_until_a_line_comes() -> None:
    assert waiting(lambda: None) == (b"line", 3)
    assert waiting(None) == (b"line", 0)


def test_a_line_that_waits_is_taken_at_once() -> None:
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    lines.put(b"line")

    def warm() -> None:
        pytest.fail("there was nothing to wait for")

    assert next_in(lines, warm) == b"line"


def test_the_card_is_given_rest_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmth, "KEEP_WARM_S", 0.05)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    calls: list[float] = []
    begin = time.monotonic()

    def warm() -> None:
        calls.append(time.monotonic() - begin)
        if len(calls) == 1:
            timer.start()

    timer = threading.Timer(0.3, lambda: lines.put(b"line"))
    assert next_in(lines, warm) == b"line"
    assert len(calls) > 1
    assert calls[-1] < 0.2


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), AttributeError("graph")])
def test_a_card_that_cannot_take_the_load_is_no_reason_to_leave(error: Exception) -> None:
    def broken() -> None:
        raise error

    assert waiting(broken, after=1) == (b"line", 1)


@pytest.mark.parametrize("thermal", list(Thermal))
def test_bursts_are_timed_on_a_rested_card(
    monkeypatch: pytest.MonkeyPatch, thermal: Thermal
) -> None:
    commands: list[list[str]] = []

    def noted(command: list[str], *_: object) -> None:
        commands.append(command)

    monkeypatch.setattr("fa4gen.evaluate.gpu.Supervisor", noted)
    GpuEvaluator(load_sku("h200"), MeasurementPolicy(thermal=thermal))
    (command,) = commands
    assert ("--keep-warm" in command) is (thermal is Thermal.SUSTAINED)


@pytest.mark.gpu
def test_a_waiting_card_is_under_load_nearly_all_the_time() -> None:
    device = CudaDevice(0)
    device.keep_warm()  # makes the matrices
    device.launch(lambda: None)
    before = device.heat.lacking_s
    begin = time.monotonic()
    while time.monotonic() - begin < 1.5:
        device.keep_warm()
        time.sleep(0.004)
    spent = time.monotonic() - begin
    gained = before - device.heat.lacking_s
    loaded_s, rested_s = (spent + gained) / 2, (spent - gained) / 2
    assert rested_s < 0.1 * loaded_s
