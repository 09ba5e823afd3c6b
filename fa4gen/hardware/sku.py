"""SKUs: products that carry an architecture, with their sizes and clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fa4gen.core.errors import ResourceError, UnknownName
from fa4gen.hardware.arch import Arch, load_arch
from fa4gen.hardware.toml_facts import check_keys, list_names, read_facts, read_toml

_FOLDER = Path(__file__).parent / "skus"


@dataclass(frozen=True)
class Sku:
    """One product. Clocks are SM clocks."""

    name: str
    """Name of the file, e.g. ``h200``."""
    arch: Arch
    product: str
    """What the vendor calls it."""
    gpu_names: tuple[str, ...]
    """Exact names NVML reports."""
    sm_count: int
    boost_clock_mhz: float
    """Clock behind the stated peak."""
    max_clock_mhz: float
    """Highest clock, on a cool card."""
    sustained_clock_mhz: float
    """Clock the power cap leaves under long attention load."""
    l2_bytes: int
    dram_gbps: float
    """DRAM bandwidth, 1e9 bytes per second."""
    peak_tflops: float
    """Stated bf16 peak, dense."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)
    """Where each number comes from, by field name."""

    def mma_tflops(self, clock_mhz: float, dtype: str = "bf16") -> float:
        """Dense tensor-core TFLOP/s at a clock: SMs x clock x FLOP/clk."""
        flops_per_clk = self.sm_count * self.arch.mma_flops_per_clk_sm[dtype]
        return flops_per_clk * clock_mhz * 1e-6


_INTEGERS = ("sm_count", "l2_bytes")
_NUMBERS = (
    "boost_clock_mhz",
    "max_clock_mhz",
    "sustained_clock_mhz",
    "dram_gbps",
    "peak_tflops",
)


def list_skus() -> tuple[str, ...]:
    """Names of all SKUs, sorted."""
    return list_names(_FOLDER)


@cache
def load_sku(name: str) -> Sku:
    """The SKU ``name`` with its architecture.

    Raises:
        UnknownName: no such file, or it names an unknown arch.
        ResourceError: the file has wrong keys, or a number without a source.
    """
    data = read_toml(_FOLDER, "sku", name)
    where = f"sku {name}"
    check_keys(where, data, ("name", "arch", "product", "gpu_names", "facts"))
    facts = read_facts(where, data["facts"], (*_INTEGERS, *_NUMBERS))
    for key in _INTEGERS:
        if not isinstance(facts.values[key], int):
            raise ResourceError(f"{where}.{key}: got {facts.values[key]!r}, allowed: an integer")
    gpu_names = data["gpu_names"]
    if not gpu_names or not all(isinstance(gpu_name, str) for gpu_name in gpu_names):
        raise ResourceError(f"{where}.gpu_names: got {gpu_names!r}, allowed: NVML names")
    numbers: dict[str, Any] = {key: int(facts.values[key]) for key in _INTEGERS}
    numbers |= {key: float(facts.values[key]) for key in _NUMBERS}
    return Sku(
        name=name,
        arch=load_arch(data["arch"]),
        product=str(data["product"]),
        gpu_names=tuple(gpu_names),
        sources=dict(facts.sources),
        **numbers,
    )


def sku_for_gpu(gpu_name: str, sm_count: int) -> Sku:
    """The SKU of a GPU as NVML names it, with the SM count the driver reports.

    The count tells a whole card from a slice of one (MIG) and from a variant that shares the name.

    Raises:
        UnknownName: no SKU has this name and this many SMs.
    """
    skus = [load_sku(name) for name in list_skus()]
    for sku in skus:
        if gpu_name in sku.gpu_names and sku.sm_count == sm_count:
            return sku
    known = [f"{name} ({sku.sm_count} SMs)" for sku in skus for name in sku.gpu_names]
    raise UnknownName("GPU", f"{gpu_name} ({sm_count} SMs)", known)


def sibling_skus(sku: Sku) -> tuple[str, ...]:
    """Names of the other SKUs of the same architecture, nearest in SM count first."""
    others = [load_sku(name) for name in list_skus() if name != sku.name]
    siblings = [other for other in others if other.arch.name == sku.arch.name]
    siblings.sort(key=lambda other: (abs(other.sm_count - sku.sm_count), other.name))
    return tuple(other.name for other in siblings)
