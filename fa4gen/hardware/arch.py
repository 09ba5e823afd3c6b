"""Architectures: limits and rates of one streaming multiprocessor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fa4gen.core.errors import ResourceError
from fa4gen.hardware.toml_facts import check_keys, list_names, read_facts, read_toml

_FOLDER = Path(__file__).parent / "archs"

WARPGROUP_THREADS = 128
"""Threads of a warpgroup: 4 warps of 32. Source: PTX ISA, wgmma."""


@dataclass(frozen=True)
class Arch:
    """One instruction set and the SM behind it. Rates are per clock and per SM."""

    name: str
    """Name of the file, e.g. ``sm90``."""
    target: str
    """Compile target, e.g. ``sm_90a``."""
    family: str
    """Name of the arch whose templates and search spaces it uses: its own, or an older one's."""
    compute_capability: tuple[int, int]
    max_regs_per_thread: int
    regs_per_sm: int
    """32-bit registers of one SM."""
    max_threads_per_cta: int
    smem_per_cta_bytes: int
    """Most dynamic shared memory one CTA may ask for."""
    """Shared memory of one SM; what one CTA may not have of it is reserved, for every CTA again."""
    tmem_columns: int
    """Columns of tensor memory; 0 where there is none."""
    mma_rows: int
    """Rows (M) of one MMA instruction of one CTA."""
    mma_max_columns: int
    """Largest N of one MMA instruction."""
    mufu_per_clk_sm: int
    """Exponentials (``ex2``) of the special function unit."""
    fma_lanes_per_clk_sm: int
    """32-bit FMA lanes; also the lanes the four schedulers can issue to."""
    alu_lanes_per_clk_sm: int
    """Lanes for compare, maximum, shift and integer logic."""
    smem_bytes_per_clk_sm: int
    l2_bytes_per_clk_sm: int
    """What one SM gets from L2 when all ask."""
    mma_flops_per_clk_sm: Mapping[str, int] = field(hash=False)
    """Dense FLOP of the tensor cores by dtype (``bf16``, ``fp16``, ``e4m3``)."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)
    """Where each number comes from, by field name."""


_FACTS = (
    "max_regs_per_thread",
    "regs_per_sm",
    "max_threads_per_cta",
    "smem_per_cta_bytes",
    "tmem_columns",
    "mma_rows",
    "mma_max_columns",
    "mufu_per_clk_sm",
    "fma_lanes_per_clk_sm",
    "alu_lanes_per_clk_sm",
    "smem_bytes_per_clk_sm",
    "l2_bytes_per_clk_sm",
)
_DTYPES = ("bf16", "fp16", "e4m3")


def list_archs() -> tuple[str, ...]:
    """Names of all architectures, sorted."""
    return list_names(_FOLDER)


@cache
def load_arch(name: str) -> Arch:
    """The architecture ``name``.

    Raises:
        UnknownName: no such file.
        ResourceError: the file has wrong keys, or a number without a source.
    """
    data = read_toml(_FOLDER, "arch", name)
    where = f"arch {name}"
    check_keys(
        where,
        data,
        ("name", "target", "family", "compute_capability", "facts", "mma_flops_per_clk_sm"),
    )
    facts = read_facts(where, data["facts"], _FACTS)
    mma = read_facts(f"{where}.mma_flops_per_clk_sm", data["mma_flops_per_clk_sm"], _DTYPES)
    numbers: dict[str, Any] = {key: _integer(where, key, facts.values[key]) for key in _FACTS}
    sources = {**facts.sources, **{f"mma_flops_per_clk_sm.{k}": s for k, s in mma.sources.items()}}
    return Arch(
        name=name,
        target=str(data["target"]),
        family=str(data["family"]),
        compute_capability=_capability(where, data["compute_capability"]),
        mma_flops_per_clk_sm={k: _integer(where, k, v) for k, v in mma.values.items()},
        sources=sources,
        **numbers,
    )


def _integer(where: str, key: str, value: float) -> int:
    if not isinstance(value, int):
        raise ResourceError(f"{where}.{key}: got {value!r}, allowed: an integer")
    return value


def _capability(where: str, value: Any) -> tuple[int, int]:
    match value:
        case [int(major), int(minor)]:
            return major, minor
    raise ResourceError(f"{where}.compute_capability: got {value!r}, allowed: [major, minor]")
