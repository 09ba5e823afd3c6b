"""Which GPU is here, and which SKU a command is about."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any

from fa4gen.core.errors import NoFeasibleKernel, UnknownName
from fa4gen.feasibility import supported_archs
from fa4gen.hardware import Sku, list_skus, load_sku, sku_for_gpu

AUTO = "auto"
FALLBACK_SKU = "b200"
"""What ``auto`` means where there is no GPU: the product fa4gen is about, in the emulator."""

CORES_PER_SM = 128
"""FP32 lanes of an SM, which NVML calls cores.

Source: CUDA C++ Programming Guide, "Arithmetic Instructions", compute capability 9.0 and 10.x.
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process may use."""

    index: int
    """As CUDA counts under ``CUDA_VISIBLE_DEVICES``."""
    name: str
    sm_count: int
    memory_bytes: int
    driver: str

    @property
    def sku(self) -> Sku | None:
        """The product it is; ``None`` when fa4gen does not know it."""
        try:
            return sku_for_gpu(self.name, self.sm_count)
        except UnknownName:
            return None


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPUs of this machine, or why there are none."""

    gpus: tuple[Gpu, ...]
    problem: str = ""
    """Why no GPU was found; empty when one was."""


@dataclass(frozen=True, slots=True)
class Target:
    """The SKU a command is about, and the GPU that stands for it, if one does."""

    sku: Sku
    gpu: Gpu | None
    notice: str
    """Why there is no GPU for it; empty when there is one."""


def look(nvml: Any = None) -> Machine:
    """The GPUs that NVML reports and ``CUDA_VISIBLE_DEVICES`` leaves; makes no CUDA context.

    Args:
        nvml: a stand-in for the ``pynvml`` module.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in {"", "-1"}:
        return Machine((), "CUDA_VISIBLE_DEVICES hides every GPU")
    try:
        library = nvml if nvml is not None else importlib.import_module("pynvml")
        library.nvmlInit()
        driver = str(library.nvmlSystemGetDriverVersion())
        handles = _visible(library, visible)
        gpus = tuple(_gpu(library, handle, i, driver) for i, handle in enumerate(handles))
    except Exception as error:  # NVML's errors are a family made at run time
        return Machine((), f"NVML: {error}")
    return Machine(gpus, "" if gpus else "the driver reports no GPU")


def _visible(nvml: Any, visible: str | None) -> list[Any]:
    """NVML handles in the order of ``CUDA_VISIBLE_DEVICES``."""
    count = nvml.nvmlDeviceGetCount()
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    if visible is None:
        return handles
    chosen = []
    for word in (word.strip() for word in visible.split(",")):
        if word.isdigit() and int(word) < count:
            chosen.append(handles[int(word)])
        else:
            chosen += [h for h in handles if word and str(nvml.nvmlDeviceGetUUID(h)) == word]
    return chosen


def _gpu(nvml: Any, handle: Any, index: int, driver: str) -> Gpu:
    return Gpu(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        sm_count=int(nvml.nvmlDeviceGetNumGpuCores(handle)) // CORES_PER_SM,
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        driver=driver,
    )


def resolve(sku_name: str, machine: Machine | None = None) -> Target:
    """The SKU that ``--sku`` names, with the GPU of this machine that is one.

    Raises:
        UnknownName: no such SKU.
        NoFeasibleKernel: fa4gen has no kernels for its arch yet.
    """
    target = _named(sku_name, look() if machine is None else machine)
    if target.sku.arch.name not in supported_archs():
        names = [name for name in list_skus() if load_sku(name).arch.name in supported_archs()]
        raise NoFeasibleKernel(
            f"sku {target.sku.name}: got arch {target.sku.arch.name}, which no kernel template is "
            f"written for yet; allowed: {', '.join(names)}"
        )
    return target


def _named(sku_name: str, machine: Machine) -> Target:
    if sku_name == AUTO:
        sku_name = os.environ.get("FA4GEN_SKU") or AUTO
    if sku_name != AUTO:
        sku = load_sku(sku_name)
        for gpu in machine.gpus:
            if gpu.sku == sku:
                return Target(sku, gpu, "")
        return Target(sku, None, f"no {sku.name} in this machine")
    for gpu in machine.gpus:
        if gpu.sku is not None:
            return Target(gpu.sku, gpu, "")
    if machine.gpus:
        gpu = machine.gpus[0]
        why = f"fa4gen has no SKU file for {gpu.name} with {gpu.sm_count} SMs"
    else:
        why = f"no GPU here ({machine.problem})"
    return Target(load_sku(FALLBACK_SKU), None, why)
