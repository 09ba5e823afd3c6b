"""What the cycle model expects of a configuration beside the incumbent: who need not be timed."""

from __future__ import annotations

import math

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku
from fa4gen.perf import predict


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

    def hopeless(self, config: KernelConfig, incumbent: KernelConfig | None) -> bool:
        """Whether the model sees it too far behind the incumbent (or the anchor) for a trial."""
        limit_us = self._above * self._time_us(incumbent or self._anchor)
        return self._time_us(config) > limit_us

    def objective(self, config: KernelConfig) -> float:
        """``log(time / anchor time)`` as expected."""
        return math.log(self._time_us(config) / self._time_us(self._anchor))

    def _time_us(self, config: KernelConfig) -> float:
        if config.config_id not in self._times_us:
            prediction = predict(self._problem, config, self._sku)
            self._times_us[config.config_id] = prediction.time_us
        return self._times_us[config.config_id]
