"""What the page says, as plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.report.views import TimingView
from fa4gen.tune.importance import Importance


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """What rows must share to be compared."""

    sku: str
    source: Source
    policy: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of provenance."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ChangedKnob:
    """A knob in which the winner differs from the default kernel."""

    name: str
    value: str
    default: str


@dataclass(frozen=True, slots=True)
class PipeView:
    """How long one pipe is busy, by the cycle model."""

    name: str
    share: float
    """Of the kernel's cycles."""
    critical: bool


@dataclass(frozen=True, slots=True)
class BoundView:
    """What the cycle model says of a kernel; always modelled, whatever the row's times are."""

    bound_by: str
    """The critical pipe, or ``latency`` where none is busy for long."""
    pipes: tuple[PipeView, ...]
    """Busiest first."""
    time_us: float
    clock_mhz: float
    clock_source: Source
    """Whether that clock was read beside the measurement or is the model's own."""
    model_version: str


@dataclass(frozen=True, slots=True)
class PeerView:
    """One peer on one problem, timed in turns with fa4gen's kernel; always measured."""

    kernel: str
    time_us: float
    tflops: float
    speedup: float
    """Time of the peer divided by fa4gen's; above 1 fa4gen is faster."""
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True, slots=True)
class PeersView:
    """The peers on one problem, the fastest first."""

    peers: tuple[PeerView, ...]
    ours_us: float
    """fa4gen's own time in that comparison."""
    ours_tflops: float
    same_config: bool | None
    """Whether fa4gen's kernel there was the winner here; ``None`` where the file does not say."""
    gpu: str
    date: str
    file: str

    @property
    def best(self) -> PeerView:
        """The fastest."""
        return self.peers[0]


@dataclass(frozen=True, slots=True)
class CheckView:
    """How a kernel was compared with float64 attention."""

    source: Source
    max_error: float
    allowed: float
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProblemView:
    """One problem in one place: what was tried, what won, and how sure that is."""

    place: Place
    problem: AttentionProblem
    verdict: str
    """``faster``, ``default stays``, ``not proven`` or ``no winner``."""
    trials: dict[str, int]
    """By outcome."""
    configs: int
    """Different configurations tried."""
    timing: TimingView | None
    """``None`` when nothing won."""
    default_us: float | None
    """The default's time, in turns with the winner's."""
    peak_share: float | None
    """TFLOP/s over the SKU's stated dense peak."""
    config_id: str
    changed: tuple[ChangedKnob, ...]
    check: CheckView | None
    bound: BoundView | None
    bound_note: str
    """Why the model says nothing."""
    peers: PeersView | None
    origin: str
    provenance: tuple[Fact, ...]
    notes: tuple[str, ...]
    """What a reader should know of this row."""


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell of a heat map: a factor, over one or several problems."""

    factor: float
    """The factor, or the geometric mean of several."""
    problems: tuple[tuple[str, float], ...]
    """Each problem with its own."""


@dataclass(frozen=True, slots=True)
class PanelView:
    """The part of a heat map for one mask."""

    mask: str
    columns: tuple[str, ...]
    """Head dimensions that this mask has."""
    cells: tuple[tuple[CellView | None, ...], ...]
    """One tuple a row of the map."""


@dataclass(frozen=True, slots=True)
class HeatMapView:
    """Factors over shapes: sequence length down, head dimension across."""

    rows: tuple[str, ...]
    panels: tuple[PanelView, ...]


@dataclass(frozen=True, slots=True)
class ImportanceView:
    """Knob importance over a part of the trials of a place."""

    scope: str
    """Which trials, e.g. ``head_dim 128``."""
    importance: Importance


@dataclass(frozen=True, slots=True)
class ValueUse:
    """How often one value of a knob was the winner's."""

    value: str
    winners: int
    defaults: int
    """Problems whose default kernel has it."""
    trials: int
    """Trials that had it and ran."""


@dataclass(frozen=True, slots=True)
class KnobUse:
    """The values of one knob, in the order of the search space."""

    knob: str
    meaning: str
    values: tuple[ValueUse, ...]
    changed: int
    """Winners whose value is not their default's."""


@dataclass(frozen=True, slots=True)
class PlaceView:
    """Everything about one place but the problems themselves."""

    place: Place
    product: str
    """What the vendor calls it; empty for a SKU that this fa4gen does not know."""
    problems: int
    verdicts: dict[str, int]
    trials: dict[str, int]
    """By outcome."""
    geomean_gain: float | None
    """Over all problems with a winner; the default counts as 1."""
    largest_gain: TimingView | None
    defaults_from: str
    """Whose choice the default kernels are."""
    peer_cells: int
    peer_wins: int
    """Cells in which fa4gen is faster than every peer beyond doubt."""
    geomean_peer: float | None
    """fa4gen's speed over that of the best peer."""
    bounds: dict[str, int]
    """Winners by what bounds them, by the model."""
    gains: HeatMapView | None
    against_peers: HeatMapView | None
    importance: tuple[ImportanceView, ...]
    knobs: tuple[KnobUse, ...]
    outside: int
    """Trials left out of the importance: their configuration is not in today's search space."""


@dataclass(frozen=True, slots=True)
class FailureExample:
    """A failure with its reason, and how often that reason came."""

    reason: str
    count: int
    problem: AttentionProblem
    place: Place
    config_id: str
    date: str


@dataclass(frozen=True, slots=True)
class FailureView:
    """All failures of one outcome."""

    outcome: str
    count: int
    problems: int
    reasons: int
    """Different reasons; the examples are the most frequent ones."""
    examples: tuple[FailureExample, ...]


@dataclass(frozen=True, slots=True)
class StackView:
    """Trials made on one machine with one set of versions."""

    place: Place
    gpu: str
    driver: str
    cuda: str
    cutlass_dsl: str
    torch: str
    fa4gen: str
    template_hash: str
    model_version: str
    trials: int
    winners: int
    first: str
    last: str
    """Dates, UTC."""
    clocks_mhz: tuple[int, int] | None
    """Least and most SM clock."""
    powers_w: tuple[float, float] | None
    throttle: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerFileView:
    """A file of peers that was read, and what of it is in the page."""

    file: str
    cells: int
    used: int
    gpus: tuple[str, ...]
    dates: tuple[str, ...]
    note: str
    """What was left out, and why; empty for nothing."""


@dataclass(frozen=True, slots=True)
class ReportView:
    """The page."""

    database: str
    schema_revision: str
    fa4gen: str
    made: str
    """When, UTC."""
    filtered: str
    """What of the database is shown; empty for all of it."""
    places: tuple[PlaceView, ...]
    problems: tuple[ProblemView, ...]
    failures: tuple[FailureView, ...]
    stacks: tuple[StackView, ...]
    peer_files: tuple[PeerFileView, ...]
    skipped: tuple[str, ...]
    """Rows of the database that this fa4gen cannot read, with the reason."""

    @property
    def num_trials(self) -> int:
        """Trials of all places."""
        return sum(sum(place.trials.values()) for place in self.places)


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A page that was written."""

    path: str
    size_bytes: int
    studies: str
    """The Optuna database beside it; empty when none was asked for."""
    report: ReportView
