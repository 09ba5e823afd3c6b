"""What NVML says about one GPU: clocks, power, limits in force, other processes.

A card that cannot be asked (no driver library, a partition, no permission) gives ``None`` and
empty answers; :attr:`Nvml.problem` says why, and the record keeps it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fa4gen.evaluate.protocol import GpuConditions

THROTTLE_REASONS: Mapping[int, str] = {
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bit -> name; bit 0x1, idle, limits nothing that is being timed and is left out.

Source: NVML reference, nvmlClocksEventReasons.
"""


def throttle_names(bits: int) -> tuple[str, ...]:
    """Names of the set bits, unknown ones as hexadecimal."""
    bits &= ~0x1
    known = tuple(name for bit, name in THROTTLE_REASONS.items() if bits & bit)
    unknown = bits & ~sum(THROTTLE_REASONS)
    return (*known, hex(unknown)) if unknown else known


def uuid_hash(uuid: str) -> str:
    """Identity of a card that does not give its serial away."""
    return hashlib.sha256(uuid.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One reading."""

    sm_clock_mhz: int | None
    power_w: float | None
    temperature_c: int | None
    throttle: tuple[str, ...]
    other_processes: tuple[int, ...]


def conditions(samples: Iterable[GpuSample]) -> GpuConditions:
    """Many readings as one: medians, the highest temperature, every reason and process."""
    readings = list(samples)
    clocks = [r.sm_clock_mhz for r in readings if r.sm_clock_mhz is not None]
    powers = [r.power_w for r in readings if r.power_w is not None]
    temperatures = [r.temperature_c for r in readings if r.temperature_c is not None]
    return GpuConditions(
        sm_clock_mhz=round(statistics.median(clocks)) if clocks else None,
        power_w=round(statistics.median(powers), 1) if powers else None,
        temperature_c=max(temperatures, default=None),
        throttle=tuple(sorted({name for r in readings for name in r.throttle})),
        other_processes=tuple(sorted({pid for r in readings for pid in r.other_processes})),
    )


class Nvml:
    """NVML, opened before the process has a CUDA context and then tied to one card.

    Inside a container NVML may report process ids of the host, so a process does not always find
    its own. What is new on the card after this process made its context, if it is one process,
    is taken to be this one.
    """

    def __init__(self, library: Any = None) -> None:
        self.problem = ""
        """Empty when NVML answers, else why it does not."""
        self.driver = ""
        self._handle: Any = None
        self._own: frozenset[int] = frozenset()
        self._before: dict[str, frozenset[int]] = {}
        try:
            self._nvml = library if library is not None else importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self.driver = str(self._nvml.nvmlSystemGetDriverVersion())
            for index in range(self._nvml.nvmlDeviceGetCount()):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                self._before[str(self._nvml.nvmlDeviceGetUUID(handle))] = self._pids(handle)
        except Exception as error:  # a missing or broken library comes in many types
            self.problem = f"{type(error).__name__}: {error}"

    def attach(self, uuid: str) -> None:
        """Tie to the card with this UUID; call once the process has its CUDA context.

        Args:
            uuid: as CUDA or NVML spells it, with or without the ``GPU-``.
        """
        if self.problem:
            return
        full = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(full)
            now = self._pids(self._handle)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            return
        new = now - self._before.get(full, frozenset())
        if os.getpid() in now:
            self._own = frozenset({os.getpid()})
        elif len(new) == 1:
            self._own = new

    def sample(self) -> GpuSample:
        """A reading of the card; a quantity it does not give is ``None``."""
        if self._handle is None or self.problem:
            return GpuSample(None, None, None, (), ())
        nvml, handle = self._nvml, self._handle
        clock = self._read(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)
        milliwatts = self._read(nvml.nvmlDeviceGetPowerUsage, handle)
        degrees = self._read(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        bits = self._read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        others = self._read(self._pids, handle)
        return GpuSample(
            sm_clock_mhz=None if clock is None else int(clock),
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=None if degrees is None else int(degrees),
            throttle=() if bits is None else throttle_names(int(bits)),
            other_processes=tuple(sorted((others or frozenset()) - self._own)),
        )

    def _pids(self, handle: Any) -> frozenset[int]:
        processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return frozenset(int(process.pid) for process in processes)

    @staticmethod
    def _read(query: Any, *arguments: Any) -> Any:
        """The answer, or ``None`` where this card or driver has none."""
        try:
            return query(*arguments)
        except Exception:  # NVMLError is a family made at run time
            return None
