"""Shared pieces of the studies' tests: a small problem, a plan of nine kernels, a listener."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku, load_sku
from fa4gen.study import StudyPlan, TrialEvent, exp2_split_plan, knobs_plan


@dataclass
class Remembering:
    """Keeps every event."""

    totals: list[int] = field(default_factory=list)
    trials: list[TrialEvent] = field(default_factory=list)
    shootouts: list[int] = field(default_factory=list)

    def on_start(self, total: int) -> None:
        self.totals.append(total)

    def on_trial(self, event: TrialEvent) -> None:
        self.trials.append(event)

    def on_shootout(self, count: int) -> None:
        self.shootouts.append(count)


@pytest.fixture(scope="session")
def sku() -> Sku:
    return load_sku("h200")


@pytest.fixture(scope="session")
def problem() -> AttentionProblem:
    return AttentionProblem.from_dict(
        {"batch": 2, "seqlen_q": 2048, "num_heads_q": 16, "head_dim": 64}
    )


@pytest.fixture
def listener() -> Remembering:
    return Remembering()


@pytest.fixture(scope="session")
def speed_plan(problem: AttentionProblem, sku: Sku) -> StudyPlan:
    """Tiles of a problem: some cannot run."""
    return knobs_plan(problem, sku.arch, ["tile_m", "tile_n"])


@pytest.fixture(scope="session")
def split_plan(problem: AttentionProblem, sku: Sku) -> StudyPlan:
    """An exp2 split of nine kernels, three of them the default and the peers'."""
    plan = exp2_split_plan(problem, sku.arch)
    marked = {config for _, config, _ in plan.marks}
    few = [
        config
        for config in plan.grid.configs
        if config in marked
        or (config.exp2_poly_fraction == 0.5 and config.exp2_poly_placement == "spread")
    ]
    few = few[:9]
    return replace(plan, grid=replace(plan.grid, configs=tuple(few)))
