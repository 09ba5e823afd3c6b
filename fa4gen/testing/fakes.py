"""Stand-ins that behave as told, for testing whatever sits on top of an evaluator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy, Provenance, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.verdict import Reason
from fa4gen.hardware import Sku
from fa4gen.space import space_for


@dataclass(frozen=True)
class Behaviour:
    """What a :class:`FakeEvaluator` does with one configuration."""

    outcome: Outcome = Outcome.OK
    time_us: float | None = None
    """Time when ``ok``; ``None`` takes it from the landscape."""
    delay_s: float = 0.0
    """How long the evaluation takes."""
    raises: BaseException | None = None
    """Raised instead of answering, after the delay."""


Script = Callable[[AttentionProblem, KernelConfig], Behaviour | None]
"""What to do with a configuration; ``None`` is the default :class:`Behaviour`."""


def landscape_us(problem: AttentionProblem, config: KernelConfig) -> float:
    """A smooth, deterministic time with one valley, which no row of defaults lies in.

    Not a model of any hardware. The best is tile_n 160, 3 stages, a polynomial share of 0.25 of
    degree 3, with both overlaps and a threshold of 4; each knob away from there costs its own few
    per cent, and the threshold of the defaults so much that a few random trials beat them.
    """
    steps = (
        abs(math.log2(config.tile_m / 128)),
        abs(config.tile_n - 160) / 32,
        0.8 * abs(config.num_kv_stages - 3),
        6.0 * abs(config.exp2_poly_fraction - 0.25),
        0.3 * abs(config.exp2_poly_degree - 3),
        1.0 * (not config.intra_warpgroup_overlap),
        0.7 * (not config.pingpong),
        0.5 * (not config.p_in_registers),
        2.0 * (config.rescale_threshold_log2 / 8.0 - 0.5) ** 2,
    )
    return problem.flops / 5e8 * math.exp(0.08 * sum(steps))


class FakeEvaluator:
    """An :class:`~fa4gen.evaluate.contract.Evaluator` that follows a script.

    Attributes:
        evaluated: (problem, configuration) pairs in the order they came.
        prepared: batches of configurations announced by ``prepare`` for soon.
        prepared_later: (problem, batch) of those announced for later.
        shootouts: batches of configurations of ``shootout``.
        shootout_budgets_s: what ``shootout`` was given to spend.
        closed: whether ``close`` was called.
    """

    def __init__(
        self,
        sku: Sku,
        script: Script | None = None,
        *,
        source: Source = Source.MEASURED,
        policy: MeasurementPolicy | None = None,
        uncertainty: float = 0.001,
        template_hash: str = "fake-template",
    ) -> None:
        self._sku, self._source, self._policy = sku, source, policy or MeasurementPolicy()
        self.script: Script = script or (lambda problem, config: None)
        self.uncertainty = uncertainty
        self.template_hash = template_hash
        self.evaluated: list[tuple[AttentionProblem, KernelConfig]] = []
        self.prepared: list[tuple[KernelConfig, ...]] = []
        self.prepared_later: list[tuple[AttentionProblem, tuple[KernelConfig, ...]]] = []
        self.shootouts: list[tuple[KernelConfig, ...]] = []
        self.shootout_budgets_s: list[float | None] = []
        self.closed = False

    @property
    def source(self) -> Source:
        """As given."""
        return self._source

    @property
    def policy(self) -> MeasurementPolicy:
        """As given."""
        return self._policy

    @property
    def sku(self) -> Sku:
        """As given."""
        return self._sku

    def prepare(
        self, problem: AttentionProblem, configs: Sequence[KernelConfig], *, later: bool = False
    ) -> None:
        """Note the batch."""
        if later:
            self.prepared_later.append((problem, tuple(configs)))
        else:
            self.prepared.append(tuple(configs))

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """Follow the script."""
        self.evaluated.append((problem, config))
        behaviour = self.script(problem, config) or Behaviour()
        if behaviour.delay_s:
            time.sleep(behaviour.delay_s)
        if behaviour.raises is not None:
            raise behaviour.raises
        provenance = self._provenance()
        if behaviour.outcome is not Outcome.OK:
            message = f"scripted {behaviour.outcome.value}"
            infeasible = behaviour.outcome is Outcome.INFEASIBLE
            reasons = (Reason("scripted", message, 0.5),) if infeasible else ()
            return Evaluation(behaviour.outcome, provenance, message, reasons)
        return Evaluation(
            Outcome.OK, provenance, timing=self._timing(problem, config, behaviour.time_us)
        )

    def shootout(
        self,
        problem: AttentionProblem,
        configs: Sequence[KernelConfig],
        *,
        budget_s: float | None = None,
    ) -> list[Evaluation]:
        """Follow the script for each; ``evaluated`` is not added to."""
        self.shootouts.append(tuple(configs))
        self.shootout_budgets_s.append(budget_s)
        before = list(self.evaluated)
        try:
            return [self.evaluate(problem, config) for config in configs]
        finally:
            self.evaluated = before

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _timing(
        self, problem: AttentionProblem, config: KernelConfig, time_us: float | None
    ) -> Timing:
        anchor = space_for(self._sku.arch.name).default(problem.signature)
        anchor_us = self._time_us(problem, anchor)
        median_us = landscape_us(problem, config) if time_us is None else time_us
        gain = anchor_us / median_us
        exact = self._source is Source.MODELLED or config == anchor
        width = 0.0 if exact else self.uncertainty
        return Timing(
            n=30,
            median_us=median_us,
            spread_us=0.01 * median_us,
            gain=gain,
            gain_low=gain * (1.0 - width),
            gain_high=gain * (1.0 + width),
        )

    def _time_us(self, problem: AttentionProblem, config: KernelConfig) -> float:
        scripted = (self.script(problem, config) or Behaviour()).time_us
        return landscape_us(problem, config) if scripted is None else scripted

    def _provenance(self) -> Provenance:
        return Provenance(
            source=self._source,
            sku=self._sku.name,
            sm_count=self._sku.sm_count,
            template_hash=self.template_hash,
            date="2026-01-01T00:00:00+00:00",
            fa4gen="0",
        )
