"""How fast the pipes of an SM are: rates of the architecture, and latencies with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fa4gen.core.dtypes import DType
from fa4gen.core.errors import UnknownName
from fa4gen.hardware import Arch
from fa4gen.hardware.toml_facts import check_keys, list_names, read_facts, read_toml

_FOLDER = Path(__file__).parent / "timings"
SUBCORES = 4
"""Of an SM. Source: CUDA C++ Programming Guide, cc 9.0 and 10.0: four warp schedulers."""

LATENCIES = ("alu", "fma", "mufu", "convert", "shuffle", "lsu", "tmem", "control", "wait")
FACTS = (
    *(f"{name}_latency" for name in LATENCIES),
    "convert_lanes_per_clk_sm",
    "shuffle_lanes_per_clk_sm",
    "copy_bytes_per_clk_sm",
    "tmem_bytes_per_clk_sm",
    "arrive",
    "wake",
    "commit",
    "mma_start",
    "mma_latency",
    "load",
    "store",
    "cta_start",
    "window",
    "mufu_queue",
    "issue_slots",
    "stall",
    "steal",
    "port_share",
)


@dataclass(frozen=True)
class Timing:
    """What a replay needs to know of an SM. Cycles, unless a name says otherwise."""

    latencies: dict[str, float]
    """By pipe: from the end of its occupancy to the result."""
    rates: dict[str, float]
    """By pipe of a sub-core: lanes, or bytes, per clock; ``lsu`` of the SM."""
    macs_per_clk: float
    """Multiply-adds of the tensor core of an SM, 16-bit types."""
    smem_bytes_per_clk: float
    copy_bytes_per_clk: float
    """Of the copy engine of an SM, between L2 and shared memory."""
    arrive: float
    """From an arrival to the phase it completes."""
    wake: float
    """From the end of a phase to the instruction behind its wait."""
    commit: float
    mma_start: float
    mma_latency: float
    """From the last multiplication to a result that others see."""
    load: float
    """Latency of a copy from L2."""
    store: float
    cta_start: float
    """From handing a CTA to an SM to its first instruction, besides what the kernel itself does."""
    window: int
    """Instructions among which the compiler is taken to have found the best order, where that is
    not known."""
    mufu_queue: int
    """Instructions that may wait for the MUFU of a sub-core without keeping their warps."""
    steal: float
    """By how much an instruction delays the tensor core of its sub-core, if that is at work: where
    accumulators are registers, both want the ports of the register file."""
    port_share: float
    """Where MMAs and copies want more of the port of shared memory than there is: what part of the
    delay MMAs bear. Copies bear the rest, in which a ring of stages hides it."""
    issue_slots: float
    """Cycles for which a machine instruction takes the issue port, on average; above 1 for
    conflicts of register banks and what else keeps a scheduler from its next warp."""
    stall: float
    """Cycles from one instruction of a warp to its next, on average; other warps may go between."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def occupancy(self, pipe: str, quantity: float) -> float:
        """Cycles for which one warp instruction keeps a pipe busy."""
        rate = self.rates.get(pipe)
        return quantity / rate if rate else 0.0

    def latency(self, pipe: str) -> float:
        """Cycles from the end of the occupancy to the result."""
        return self.latencies[pipe]


@cache
def load_timing(arch: Arch) -> Timing:
    """The timing of an architecture.

    Raises:
        UnknownName: none is known.
        ResourceError: the file has wrong keys, or a number without a source.
    """
    names = list_names(_FOLDER)
    if arch.family not in names:
        raise UnknownName("arch with a trace-driven model", arch.name, names)
    data = read_toml(_FOLDER, "timing", arch.family)
    where = f"timing {arch.family}"
    check_keys(where, data, ("name", "facts"))
    facts = read_facts(where, data["facts"], FACTS)
    value = facts.values
    per_subcore = {
        "alu": arch.alu_lanes_per_clk_sm,
        "fma": arch.fma_lanes_per_clk_sm,
        "mufu": arch.mufu_per_clk_sm,
        "convert": value["convert_lanes_per_clk_sm"],
        "shuffle": value["shuffle_lanes_per_clk_sm"],
        "tmem": value["tmem_bytes_per_clk_sm"],
    }
    rates = {name: rate / SUBCORES for name, rate in per_subcore.items() if rate}
    rates["lsu"] = float(arch.smem_bytes_per_clk_sm)
    return Timing(
        latencies={name: float(value[f"{name}_latency"]) for name in LATENCIES},
        rates=rates,
        macs_per_clk=arch.mma_flops_per_clk_sm[DType.BF16] / 2,
        smem_bytes_per_clk=float(arch.smem_bytes_per_clk_sm),
        copy_bytes_per_clk=float(value["copy_bytes_per_clk_sm"]),
        arrive=value["arrive"],
        wake=value["wake"],
        commit=value["commit"],
        mma_start=value["mma_start"],
        mma_latency=value["mma_latency"],
        load=value["load"],
        store=value["store"],
        cta_start=value["cta_start"],
        window=int(value["window"]),
        mufu_queue=int(value["mufu_queue"]),
        steal=float(value["steal"]),
        port_share=float(value["port_share"]),
        issue_slots=float(value["issue_slots"]),
        stall=float(value["stall"]),
        sources=facts.sources,
    )
