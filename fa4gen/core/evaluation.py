"""What came of trying a configuration on a problem, with everything needed to trust it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.verdict import Reason


class Execution(StrEnum):
    """How a kernel is launched while it is timed."""

    GRAPH = "graph"
    EAGER = "eager"


class L2State(StrEnum):
    """What the L2 cache holds when a timed launch begins."""

    COLD = "cold"
    WARM = "warm"


class Thermal(StrEnum):
    """State of the card while it is timed."""

    SUSTAINED = "sustained"
    """Under load long enough for the power cap to act; training and prefill."""
    BURST = "burst"
    """Short bursts on a cool card; latency-bound serving."""


@dataclass(frozen=True, slots=True, order=True)
class MeasurementPolicy:
    """How times are taken; part of a record's identity, since winners differ between policies."""

    execution: Execution = Execution.GRAPH
    l2: L2State = L2State.COLD
    thermal: Thermal = Thermal.SUSTAINED

    def __str__(self) -> str:
        return f"{self.execution.value}-{self.l2.value}-{self.thermal.value}"

    @classmethod
    def parse(cls, text: str) -> MeasurementPolicy:
        """The inverse of ``str``.

        Raises:
            ValueError: not three known words joined by ``-``.
        """
        execution, l2, thermal = text.split("-")
        return cls(Execution(execution), L2State(l2), Thermal(thermal))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where, when and with what a number was made.

    A field that a source has no notion of is empty or ``None``: a modelled number has no driver.
    """

    source: Source
    sku: str
    """Name of the SKU file, e.g. ``h200``."""
    sm_count: int
    template_hash: str
    """Identity of the template's text and of all it includes."""
    date: str
    """UTC, ISO 8601 with seconds."""
    fa4gen: str
    """Version of fa4gen."""
    cutlass_dsl: str = ""
    torch: str = ""
    gpu_name: str = ""
    """As NVML reports it."""
    gpu_uuid_hash: str = ""
    """Identity of the very card, hashed."""
    driver: str = ""
    cuda: str = ""
    model_version: str = ""
    """Version of the cycle model, for ``modelled`` numbers."""
    sm_clock_mhz: int | None = None
    """Median SM clock while it was timed."""
    power_w: float | None = None
    """Median board power while it was timed."""
    throttle: str = ""
    """Names of the clock-limiting reasons NVML gave, joined by ``+``; empty for none."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Kernel time, absolute and paired against the anchor, the problem's default kernel.

    ``gain`` is ``anchor time / candidate time``: above 1 is faster than the default.
    """

    n: int
    """Number of samples (of pairs, where there is an anchor)."""
    median_us: float
    spread_us: float
    """Half the interquartile range."""
    gain: float
    gain_low: float
    gain_high: float
    """Bounds of the 95 % bootstrap interval of ``gain``; for a model both equal ``gain``."""

    @property
    def proven(self) -> bool:
        """Whether the interval excludes "no gain over the default"."""
        return self.gain_low > 1.0


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """What ptxas allotted to one kernel."""

    regs_per_thread: int
    spill_bytes: int
    """Bytes of stack frame per thread; 0 is no spill."""
    smem_bytes: int
    """Dynamic shared memory per CTA."""
    code_bytes: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Largest error against float64 attention over the kinds of input that were tried."""

    max_error: float
    """Largest absolute error of O."""
    allowed: float
    """What the rule of correctness allowed for that input."""
    kinds: tuple[str, ...] = ()
    """Names of the input kinds tried."""
    source: Source = Source.MEASURED
    """``measured``: it ran on the GPU. ``emulated``: its PTX ran in the emulator."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of one trial: an outcome, and a timing exactly when the outcome is ``ok``."""

    outcome: Outcome
    provenance: Provenance
    message: str = ""
    """Why it failed; empty for ``ok``."""
    reasons: tuple[Reason, ...] = ()
    """For ``infeasible``: every rule that objected."""
    timing: Timing | None = None
    accuracy: Accuracy | None = None
    resources: ResourceUse | None = None
    compile_s: float | None = None
    evaluate_s: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """Free facts for reports, e.g. the cycle model's per-pipe breakdown; plain JSON values."""

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.OK) != (self.timing is not None):
            raise ValueError(f"timing must be given exactly when ok: outcome {self.outcome.value}")

    def with_timing(self, timing: Timing) -> Evaluation:
        """The same evaluation with a newer timing."""
        return replace(self, timing=timing)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values by field name, nested."""
        return asdict(self)
