"""NVML readings, against a library of our own."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from fa4gen.evaluate.nvml import GpuSample, Nvml, conditions, throttle_names, uuid_hash


class FakeLibrary:
    """One card; ``pids`` are the processes on it now."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.broken: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": None,
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "card",
            "nvmlDeviceGetUUID": "GPU-1-2",
            "nvmlDeviceGetClockInfo": 1755,
            "nvmlDeviceGetPowerUsage": 681_500,
            "nvmlDeviceGetTemperature": 66,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x5,
        }

        def call(*arguments: Any) -> Any:
            if name in self.broken:
                raise OSError(f"{name}: not supported")
            if name == "nvmlDeviceGetComputeRunningProcesses":
                return [SimpleNamespace(pid=pid) for pid in self.pids]
            if name == "nvmlDeviceGetHandleByUUID":
                assert arguments == ("GPU-1-2",)
                return "card"
            return answers[name]

        return call


def attached(before: list[int], after: list[int]) -> tuple[Nvml, FakeLibrary]:
    library = FakeLibrary(before)
    nvml = Nvml(library)
    library.pids = after
    nvml.attach("1-2")
    return nvml, library


def test_a_reading() -> None:
    nvml, _ = attached([], [os.getpid()])
    assert nvml.sample() == GpuSample(1755, 681.5, 66, ("sw_power_cap",), ())
    assert (nvml.driver, nvml.problem) == ("580.1", "")


def test_other_processes_are_seen_whenever_they_come() -> None:
    nvml, library = attached([7], [7, os.getpid()])
    assert nvml.sample().other_processes == (7,)
    library.pids = [os.getpid(), 9]
    assert nvml.sample().other_processes == (9,)


def test_own_process_under_another_id_is_not_taken_for_a_stranger() -> None:
    host_id = 4_000_000
    nvml, library = attached([7], [7, host_id])
    library.pids = [host_id]
    assert nvml.sample().other_processes == ()


def test_a_quantity_the_card_does_not_give_is_none() -> None:
    nvml, library = attached([], [os.getpid()])
    library.broken = {"nvmlDeviceGetPowerUsage", "nvmlDeviceGetComputeRunningProcesses"}
    sample = nvml.sample()
    assert sample.power_w is None
    assert sample.other_processes == ()
    assert sample.sm_clock_mhz == 1755


def test_without_nvml_there_are_no_readings_but_a_reason() -> None:
    library = FakeLibrary([])
    library.broken = {"nvmlInit"}
    nvml = Nvml(library)
    nvml.attach("1-2")
    assert "not supported" in nvml.problem
    assert nvml.sample() == GpuSample(None, None, None, (), ())


def test_conditions_are_medians_and_unions() -> None:
    readings = [
        GpuSample(1980, 300.0, 50, (), ()),
        GpuSample(1600, 690.0, 71, ("sw_power_cap",), (3,)),
        GpuSample(1590, 680.0, 70, ("sw_power_cap", "hw_slowdown"), ()),
        GpuSample(None, None, None, (), ()),
    ]
    got = conditions(readings)
    assert (got.sm_clock_mhz, got.power_w, got.temperature_c) == (1600, 680.0, 71)
    assert got.throttle == ("hw_slowdown", "sw_power_cap")
    assert got.other_processes == (3,)
    assert conditions([]).sm_clock_mhz is None


def test_throttle_names() -> None:
    assert throttle_names(0x1) == ()
    assert throttle_names(0x24) == ("sw_power_cap", "sw_thermal_slowdown")
    assert throttle_names(0x1004) == ("sw_power_cap", "0x1000")


def test_uuid_is_hashed() -> None:
    assert "1-2" not in uuid_hash("1-2")
    assert len(uuid_hash("1-2")) == 16
