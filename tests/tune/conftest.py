"""Shared pieces of the tuner's tests: one small problem, a store, a listener that remembers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from fa4gen.core.problem import AttentionProblem
from fa4gen.db import TuningStore
from fa4gen.hardware import Sku, load_sku
from fa4gen.tune import QUICK, Effort, TuneSettings
from fa4gen.tune.results import IncumbentEvent, ProblemReport, ProblemStart, TrialEvent

# Optuna's TPE takes 10 to 30 ms an ask, random search 1: tests that are not about what the
# search finds use the latter.
SMALL: Effort = replace(
    QUICK,
    max_trials=9,
    patience=50,
    model_seeds=0,
    lookahead=2,
    max_free_asks=24,
    hopeless_above=math.inf,  # the fakes' times are not the model's
)


@dataclass
class Remembering:
    """Keeps every event."""

    starts: list[ProblemStart] = field(default_factory=list)
    trials: list[TrialEvent] = field(default_factory=list)
    incumbents: list[IncumbentEvent] = field(default_factory=list)
    ends: list[ProblemReport] = field(default_factory=list)

    def on_problem_start(self, event: ProblemStart) -> None:
        self.starts.append(event)

    def on_trial(self, event: TrialEvent) -> None:
        self.trials.append(event)

    def on_incumbent(self, event: IncumbentEvent) -> None:
        self.incumbents.append(event)

    def on_problem_end(self, report: ProblemReport) -> None:
        self.ends.append(report)


@pytest.fixture(scope="session")
def sku() -> Sku:
    return load_sku("h200")


@pytest.fixture
def problem() -> AttentionProblem:
    return AttentionProblem.from_dict(
        {"batch": 2, "seqlen_q": 2048, "num_heads_q": 16, "head_dim": 128, "causal": True}
    )


@pytest.fixture
def store() -> Iterator[TuningStore]:
    with TuningStore.open(":memory:", with_shipped=False) as opened:
        yield opened


@pytest.fixture
def small() -> TuneSettings:
    """Nine random trials, studies in memory."""
    return TuneSettings(effort=SMALL, study_storage=None, sampler="random")


@pytest.fixture
def searching(small: TuneSettings) -> TuneSettings:
    """The same with the sampler users get."""
    return replace(small, sampler="tpe")


@pytest.fixture
def listener() -> Remembering:
    return Remembering()
