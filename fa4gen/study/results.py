"""What a study finds, as plain frozen values; files, tables and pages are made of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem


class StudyKind(StrEnum):
    """What a study asks."""

    EXP2_SPLIT = "exp2-split"
    """Speed against accuracy over the knobs of the exponential."""
    KNOBS = "knobs"
    """Speed over any knobs."""


class Ending(StrEnum):
    """Why a study ended."""

    EXHAUSTED = "exhausted"
    """Every combination was tried."""
    TRIALS = "trials"
    """As many as were allowed were tried."""
    BUDGET = "budget"
    """The seconds were used up."""
    INTERRUPTED = "interrupted"
    """Ctrl-C or SIGTERM."""
    BROKEN = "broken"
    """The evaluator itself failed."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One combination: what it was, how fast, how exact, or why there is no time."""

    config_id: str
    origin: str
    """``default``, ``peer``, ``grid``, ``sampler`` or ``refused``."""
    knobs: Mapping[str, KnobValue]
    """The studied knobs, in canonical form."""
    outcome: Outcome
    message: str = ""
    """Why it has no time; empty for ``ok``."""
    time_us: float | None = None
    tflops: float | None = None
    gain: float | None = None
    """Time of the default kernel over this one's."""
    gain_low: float | None = None
    gain_high: float | None = None
    samples: int | None = None
    """Timed samples, each paired with one of the default."""
    timed_in: str = ""
    """``trial``, or ``shootout``: longer, together with the other candidates for the front."""
    sm_clock_mhz: float | None = None
    power_w: float | None = None
    regs_per_thread: int | None = None
    spill_bytes: int | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Computed in NumPy as the kernel computes, by measure and by ``<kind>_<measure>``."""
    measured_errors: Mapping[str, float] = field(default_factory=dict)
    """Of the GPU's result, by ``<kind of input>_<o_max | o_rms | lse_max>``."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A configuration that is pointed out: the default, or what somebody set by hand."""

    who: str
    config_id: str
    source: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and with what a study was made; empty where there is no notion of it."""

    sku: str
    source: Source
    """What stands behind the times."""
    policy: str
    template_hash: str = ""
    date: str = ""
    fa4gen: str = ""
    gpu_name: str = ""
    driver: str = ""
    cuda: str = ""
    torch: str = ""
    cutlass_dsl: str = ""
    model_version: str = ""


@dataclass(frozen=True)
class StudyResult:
    """All of a study of kernel knobs."""

    kind: StudyKind
    problem: AttentionProblem
    setting: Setting
    knobs: tuple[str, ...]
    default: KernelConfig
    rows: tuple[ResultRow, ...]
    """Tried ones in the order they were tried, then the refused ones."""
    marks: tuple[Mark, ...]
    ending: Ending
    combinations: int
    """Of the knobs' values, before those that come to the same kernel were put together."""
    candidates: int | None
    """Distinct kernels that may run; ``None`` where there were too many to look at."""
    measure: str = ""
    """What the front's accuracy is; empty in a study of speed alone."""
    message: str = ""
    elapsed_s: float = 0.0
    importance: Mapping[str, float] = field(default_factory=dict)
    """Share of the variance of log time that each knob explains (Optuna's PED-ANOVA)."""
    optuna_study: str = ""
    storage: str = ""
    """Name of the file, beside the tuning database, in which Optuna keeps the study."""

    @property
    def timed(self) -> tuple[ResultRow, ...]:
        """Rows that have a time."""
        return tuple(row for row in self.rows if row.gain is not None)

    @property
    def tried(self) -> tuple[ResultRow, ...]:
        """Rows that were evaluated, whatever came of it."""
        return tuple(row for row in self.rows if row.origin != "refused")

    @property
    def refused(self) -> tuple[ResultRow, ...]:
        """Rows that feasibility refused."""
        return tuple(row for row in self.rows if row.origin == "refused")

    @property
    def not_tried(self) -> int | None:
        """Kernels that may run and were not tried; ``None`` where nobody counted."""
        return None if self.candidates is None else max(0, self.candidates - len(self.tried))


@dataclass(frozen=True, slots=True)
class TrialEvent:
    """One combination was tried, or timed once more in the shoot-out."""

    config: KernelConfig
    evaluation: Evaluation
    row: ResultRow
    done: int
    total: int


class StudyListener(Protocol):
    """Told how a study goes, in order, from its thread; what it raises ends the study."""

    def on_start(self, total: int) -> None:
        """So many trials at most are to come."""

    def on_trial(self, event: TrialEvent) -> None:
        """One more combination was tried."""

    def on_shootout(self, count: int) -> None:
        """So many candidates for the front are timed again, longer and together."""


class NullListener:
    """A listener that does not care."""

    def on_start(self, total: int) -> None:
        """Nothing."""

    def on_trial(self, event: TrialEvent) -> None:
        """Nothing."""

    def on_shootout(self, count: int) -> None:
        """Nothing."""
