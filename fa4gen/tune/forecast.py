"""What is expected of a configuration beside the incumbent: who need not be timed, who comes first.

The cycle model says it before anything is timed, and what a search has timed says where the model
is wrong.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku
from fa4gen.perf import predict

DOUBT = 0.33
"""Variance of what no knob explains, where that of a knob's value is 1 (ridge regression).

Twelve of the trials of a problem put the others into an order with a rank correlation of 0.82 with
the measured one (median of 31 problems on H200s with 34 kernels or more, 2026-11-22); the cycle
model's has 0.72, and a doubt of 0.1 or 1 does about as well."""


class Forecast:
    """Expected times of one problem, each asked for once.

    Args:
        problem: what is tuned.
        sku: the machine.
        anchor: the default configuration, which objectives are relative to.
        hopeless_above: how many times the incumbent's expected time is too much; infinite to try
            everything.
    """

    def __init__(
        self, problem: AttentionProblem, sku: Sku, anchor: KernelConfig, hopeless_above: float
    ) -> None:
        self._problem, self._sku, self._anchor = problem, sku, anchor
        self._above = hopeless_above
        self._times_us: dict[str, float] = {}
        self._correction = Correction(anchor)

    def hopeless(self, config: KernelConfig, incumbent: KernelConfig | None) -> bool:
        """Whether the model sees it too far behind the incumbent (or the anchor) for a trial."""
        limit_us = self._above * self._time_us(incumbent or self._anchor)
        return self._time_us(config) > limit_us

    def objective(self, config: KernelConfig) -> float:
        """``log(time / anchor time)`` as the model expects it."""
        return math.log(self._time_us(config) / self._time_us(self._anchor))

    def corrected(self, config: KernelConfig) -> float:
        """``log(time / anchor time)`` as expected after what was learned."""
        return self.objective(config) + self._correction.of(config)

    def learn(self, config: KernelConfig, evaluation: Evaluation) -> None:
        """What came of a configuration; without a time it says nothing about times."""
        timing = evaluation.timing
        if timing is not None and timing.gain > 0 and math.isfinite(timing.gain):
            self._correction.add(config, -math.log(timing.gain) - self.objective(config))

    def _time_us(self, config: KernelConfig) -> float:
        if config.config_id not in self._times_us:
            prediction = predict(self._problem, config, self._sku)
            self._times_us[config.config_id] = prediction.time_us
        return self._times_us[config.config_id]


Changes = frozenset[tuple[str, KnobValue]]
"""The knobs in which a configuration differs from the anchor, with its values."""


class Correction:
    """How far the model is off, as a sum over the knobs that differ from the anchor's.

    A Gaussian process whose kernel counts the changes that two configurations share, which is a
    ridge regression on them.
    """

    def __init__(self, anchor: KernelConfig) -> None:
        self._anchor = anchor
        self._changes: list[Changes] = []
        self._errors: list[float] = []
        self._weights: NDArray[np.float64] | None = None

    def add(self, config: KernelConfig, error: float) -> None:
        """The logarithm of measured over expected time of a configuration."""
        self._changes.append(self._changes_of(config))
        self._errors.append(error)
        self._weights = None

    def of(self, config: KernelConfig) -> float:
        """The expected logarithm of measured over expected time; 0 for what nothing is known of."""
        if not self._errors:
            return 0.0
        if self._weights is None:
            shared = np.array([self._shared(changes) for changes in self._changes])
            self._weights = np.linalg.solve(
                shared + DOUBT * np.eye(len(shared)), np.array(self._errors)
            )
        return float(np.dot(self._shared(self._changes_of(config)), self._weights))

    def _shared(self, changes: Changes) -> list[float]:
        return [float(len(changes & others)) for others in self._changes]

    def _changes_of(self, config: KernelConfig) -> Changes:
        differences = config.differences(self._anchor)
        return frozenset((name, mine) for name, (mine, _) in differences.items())
