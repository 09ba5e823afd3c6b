"""What the tuner tells: events while it runs, reports when it is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem


class StopReason(StrEnum):
    """Why the search on a problem ended."""

    MAX_TRIALS = "max_trials"
    """As many configurations were evaluated as the effort allows."""
    CONVERGED = "converged"
    """No better one for as long as the effort's patience."""
    BUDGET = "budget"
    """The problem's share of the seconds is used up."""
    EXHAUSTED = "exhausted"
    """No configuration is left that could run and is not known."""
    ANCHOR_FAILED = "anchor_failed"
    """The default kernel itself does not run, so no gain can be stated."""
    INTERRUPTED = "interrupted"
    """Ctrl-C or SIGTERM."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the search on one problem stands."""

    evaluated: int
    """Evaluations in this run, the anchor's included."""
    known: int
    """Configurations known in all, earlier runs included."""
    max_trials: int
    since_better: int
    """Evaluations since the last better one."""
    patience: int
    infeasible_asks: int
    """Wishes of the sampler that the rules refused."""
    duplicate_asks: int
    """Wishes of the sampler that were known already."""
    hopeless_asks: int
    """Wishes of the sampler that the cycle model sees far behind the incumbent."""
    failures: Mapping[Outcome, int]
    """Evaluations of this run that failed, by outcome."""
    best_gain: float
    """Largest gain over the default so far; 1 at the start."""
    elapsed_s: float
    budget_s: float
    """Seconds this problem may use; infinite without a limit."""


@dataclass(frozen=True, slots=True)
class ProblemStart:
    """The tuner turns to a problem."""

    problem: AttentionProblem
    index: int
    """Position in the workload, from 0."""
    count: int
    """Problems in the workload."""
    anchor: KernelConfig
    """The default every gain is relative to."""
    max_trials: int
    budget_s: float
    """Seconds this problem may use; infinite without a limit."""


@dataclass(frozen=True, slots=True)
class TrialEvent:
    """One configuration was evaluated and recorded."""

    problem: AttentionProblem
    index: int
    number: int | None
    """Number in the Optuna study; ``None`` for the anchor and the shoot-out."""
    origin: str
    """``anchor``, ``model``, ``nearest``, ``sampler``, ``fallback`` or ``shootout``."""
    config: KernelConfig
    evaluation: Evaluation
    record_id: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class IncumbentEvent:
    """The best so far changed."""

    problem: AttentionProblem
    index: int
    config: KernelConfig
    evaluation: Evaluation
    record_id: int
    stored: bool
    """Whether it is proven, and so is the winner in the table from now on."""


@dataclass(frozen=True, slots=True)
class ProblemReport:
    """What came of one problem."""

    problem: AttentionProblem
    index: int
    stop: StopReason
    anchor_config: KernelConfig
    anchor: Evaluation | None
    """``None`` when the run was interrupted before it was evaluated."""
    winner_config: KernelConfig | None
    """What this run knows the table to hold; ``None`` when it decided nothing."""
    winner: Evaluation | None
    winner_record_id: int | None
    finalists: tuple[tuple[KernelConfig, Evaluation], ...]
    """The shoot-out, in the order of the search; empty when there was none."""
    progress: Progress
    message: str = ""
    """Why it could not be tuned; empty otherwise."""

    @property
    def gain(self) -> float:
        """Gain of the winner over the default; 1 where the default stays."""
        timing = None if self.winner is None else self.winner.timing
        return 1.0 if timing is None or self.default_stays else timing.gain

    @property
    def default_stays(self) -> bool:
        """Whether the default is the winner, or there is none."""
        return self.winner_config is None or self.winner_config == self.anchor_config


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What came of a workload."""

    problems: tuple[ProblemReport, ...]
    interrupted: bool = False
    not_started: tuple[AttentionProblem, ...] = ()
    """Problems left over by an interruption."""
    elapsed_s: float = 0.0

    @property
    def geomean_gain(self) -> float:
        """Geometric mean of the gains; 1 for no problems."""
        if not self.problems:
            return 1.0
        return math.exp(sum(math.log(report.gain) for report in self.problems) / len(self.problems))


class TuneListener(Protocol):
    """Told what happens, in order, from the tuner's thread; what it raises ends the tuning."""

    def on_problem_start(self, event: ProblemStart) -> None:
        """The tuner turns to a problem."""

    def on_trial(self, event: TrialEvent) -> None:
        """One configuration was evaluated and recorded."""

    def on_incumbent(self, event: IncumbentEvent) -> None:
        """The best so far changed."""

    def on_problem_end(self, report: ProblemReport) -> None:
        """The tuner is done with a problem, for whatever reason."""


class NullListener:
    """A listener that does not care."""

    def on_problem_start(self, event: ProblemStart) -> None:
        """Nothing."""

    def on_trial(self, event: TrialEvent) -> None:
        """Nothing."""

    def on_incumbent(self, event: IncumbentEvent) -> None:
        """Nothing."""

    def on_problem_end(self, report: ProblemReport) -> None:
        """Nothing."""


@dataclass
class Tally:
    """Counters behind :class:`Progress`."""

    evaluated: int = 0
    since_better: int = 0
    best_gain: float = 1.0
    failures: dict[Outcome, int] = field(default_factory=dict)
    _to_beat: float = 1.0

    def expect(self, gain: float) -> None:
        """A gain that was known before, or that another tuner found."""
        self.best_gain = max(self.best_gain, gain)
        self._to_beat = max(self._to_beat, gain)

    def improves(self, gain: float, worthwhile: float) -> bool:
        """Whether this is the best gain so far; a search goes on for those that are worthwhile.

        Args:
            worthwhile: least factor over the last such gain.
        """
        if gain <= self.best_gain:
            return False
        self.best_gain = gain
        if gain >= worthwhile * self._to_beat:
            self._to_beat, self.since_better = gain, 0
        return True

    def count(self, evaluation: Evaluation) -> None:
        """One more evaluation."""
        self.evaluated += 1
        self.since_better += 1
        if evaluation.outcome is not Outcome.OK:
            self.failures[evaluation.outcome] = self.failures.get(evaluation.outcome, 0) + 1
