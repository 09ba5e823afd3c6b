"""Views: what one screen says, as plain frozen values.

A view holds facts and no layout. The tables of :mod:`fa4gen.report.tables` and the JSON of
:mod:`fa4gen.report.plain` are two drawings of the same view, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem


@dataclass(frozen=True, slots=True)
class SkuView:
    """One GPU product that fa4gen knows."""

    name: str
    product: str
    arch: str
    sm_count: int
    boost_clock_mhz: float
    peak_tflops: float
    """Dense 16-bit tensor-core peak at boost clock."""
    dram_gbps: float
    l2_bytes: int
    templates: bool
    """Whether fa4gen can generate kernels for its arch."""
    here: bool
    """Whether a GPU of this product is in this machine."""


@dataclass(frozen=True, slots=True)
class KnobView:
    """One knob of a search space."""

    name: str
    values: tuple[KnobValue, ...]
    default: KnobValue
    """Value of the default kernel for the problem that was asked about."""
    meaning: str
    why: str
    """Why the range ends where it does."""


@dataclass(frozen=True, slots=True)
class TimingView:
    """A kernel time, as it is shown."""

    time_us: float
    tflops: float
    gain: float
    """Time of the default kernel divided by this kernel's."""
    gain_low: float
    gain_high: float
    source: Source

    @classmethod
    def of(cls, problem: AttentionProblem, evaluation: Evaluation | None) -> TimingView | None:
        """The view of an evaluation; ``None`` when it has no timing."""
        if evaluation is None or evaluation.timing is None:
            return None
        timing = evaluation.timing
        return cls(
            time_us=timing.median_us,
            tflops=problem.tflops(timing.median_us),
            gain=timing.gain,
            gain_low=timing.gain_low,
            gain_high=timing.gain_high,
            source=evaluation.provenance.source,
        )


@dataclass(frozen=True, slots=True)
class RowView:
    """One row of the dispatch table, or one result of a bench."""

    problem: AttentionProblem
    label: str
    """What this row is, where several share a problem: ``winner``, ``default``; may be empty."""
    sku: str
    policy: str
    origin: str
    """``user``, ``shipped``, or empty for what is not stored."""
    date: str
    config: KernelConfig
    changed: dict[str, KnobValue]
    """Knobs that differ from the default kernel, with their values."""
    timing: TimingView | None
    note: str = ""
    """Why there is no timing."""
    checked: Source | None = None
    """Where it was compared with float64 attention: on the GPU or in the emulator; or nowhere."""
    other_template: bool = False
    """Of a stored row: found with another template than kernels are made from now. Its knobs hold;
    its time may not, and others may be faster by now."""


@dataclass(frozen=True, slots=True)
class TableView:
    """The dispatch table, or the part of it that was asked for."""

    database: str
    rows: tuple[RowView, ...]


@dataclass(frozen=True, slots=True)
class BenchView:
    """Kernels of one problem side by side."""

    problem: AttentionProblem
    sku: str
    policy: str
    rows: tuple[RowView, ...]


@dataclass(frozen=True, slots=True)
class RungView:
    """A candidate that the selector looked at and did not take."""

    rung: str
    candidate: str
    """What was looked at."""
    reason: str


@dataclass(frozen=True, slots=True)
class SelectionView:
    """Which kernel a problem gets, and why."""

    problem: AttentionProblem
    sku: str
    rung: str
    source: Source
    """What stands behind the choice."""
    summary: str
    tuned_for: AttentionProblem | None
    """Problem of the row that was picked; ``None`` when no row was."""
    row_sku: str
    origin: str
    config: KernelConfig
    knobs: dict[str, KnobValue]
    """Those that the kernel of this SKU has, with their values."""
    changed: dict[str, KnobValue]
    timing: TimingView | None
    """Time of the row that was picked (of *its* problem)."""
    predicted_us: float
    """The cycle model's time for this problem with this kernel."""
    default_predicted_us: float
    bound_by: str
    """Pipe that binds, by the cycle model."""
    rejected: tuple[RungView, ...]
    rows_looked_at: int
    notes: tuple[str, ...] = ()
    """What a reader should know of the choice."""


@dataclass(frozen=True, slots=True)
class TuneRowView:
    """What tuning came to for one problem."""

    problem: AttentionProblem
    winner: RowView | None
    trials: dict[str, int]
    """Trials of this run by outcome."""
    stop: str
    """Why the search ended."""
    message: str
    """Why there is no winner; empty otherwise."""


@dataclass(frozen=True, slots=True)
class TuneView:
    """What one run of the tuner came to."""

    sku: str
    source: Source
    policy: str
    database: str
    elapsed_s: float
    interrupted: bool
    geomean_gain: float
    """Geometric mean of the gains over the default kernels."""
    rows: tuple[TuneRowView, ...]
    not_started: tuple[AttentionProblem, ...] = ()
    """Problems left over by an interruption."""
    defaults_from: str = ""
    """Whose choice the default kernels are, over which the gains are."""


@dataclass(frozen=True, slots=True)
class KernelView:
    """A kernel as text."""

    problem: AttentionProblem
    sku: str
    target: str
    module_name: str
    template_hash: str
    config: KernelConfig
    changed: dict[str, KnobValue]
    path: str
    """Where it was written; empty when it was not."""
    source: str
    """The Python module; empty when it was written to a file."""


@dataclass(frozen=True, slots=True)
class SamplerView:
    """How one sampler did on one problem of a recorded sweep, over several seeds."""

    sampler: str
    problem: AttentionProblem
    runs: int
    found: int
    """Runs that came within the tolerance of the sweep's best."""
    median_trials: float | None
    """Median number of trials to get there; ``None`` when most runs did not."""
    median_regret: float
    """Median of: time of the run's best over time of the sweep's best, less 1."""


@dataclass(frozen=True, slots=True)
class ReplayView:
    """Samplers compared on one recorded sweep."""

    recording: str
    sku: str
    source: Source
    trials: int
    """Trials each run may use."""
    tolerance: float
    rows: tuple[SamplerView, ...]


class Health(StrEnum):
    """State of one finding of ``doctor``."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing ``doctor`` looked at."""

    subject: str
    health: Health
    found: str
    remedy: str = ""
    """What to do about it; empty when nothing is to be done."""


@dataclass(frozen=True, slots=True)
class DoctorView:
    """Everything ``doctor`` found."""

    findings: tuple[Finding, ...]
    can: dict[str, bool] = field(default_factory=dict)
    """What this machine can do with fa4gen, in words."""


@dataclass(frozen=True, slots=True)
class TransferView:
    """Rows moved between a database and a file, or another database."""

    verb: str
    """``exported``, ``imported`` or ``merged``."""
    source: str
    target: str
    rows: int
    known: int
    """Rows that were there already."""
    winners: int
    skipped: tuple[str, ...]
    """One line for each row that was refused."""


@dataclass(frozen=True, slots=True)
class CheckView:
    """Health of a tuning database."""

    database: str
    schema_revision: str
    problems: tuple[str, ...]
