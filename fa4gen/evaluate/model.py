"""Answers from the cycle model: no GPU, no compiler, some ten microseconds each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import Self

from fa4gen import __version__
from fa4gen.codegen import template_hash
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy, Provenance, Thermal, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import check
from fa4gen.hardware import Sku
from fa4gen.perf import MODEL_VERSION, Prediction, predict
from fa4gen.space import SearchSpace, space_for


class ModelEvaluator:
    """An :class:`~fa4gen.evaluate.contract.Evaluator` over :func:`fa4gen.perf.predict`.

    Of the policy only the thermal state matters to the model: ``sustained`` runs at the clock the
    power cap leaves, ``burst`` at the SKU's highest. Where the architecture has no kernel yet,
    every configuration is infeasible.
    """

    source = Source.MODELLED
    model_version = MODEL_VERSION

    def __init__(self, sku: Sku, policy: MeasurementPolicy | None = None) -> None:
        self.sku = sku
        self.policy = policy or MeasurementPolicy()
        burst = self.policy.thermal is Thermal.BURST
        self._clock_mhz = sku.max_clock_mhz if burst else None
        self._anchor_us: dict[str, float] = {}

    def prepare(
        self, problem: AttentionProblem, configs: Sequence[KernelConfig], *, later: bool = False
    ) -> None:
        """Nothing to prepare."""

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """What the model expects, or every rule that refuses the configuration."""
        verdict = check(problem.signature, config, self.sku.arch)
        if not verdict:
            return Evaluation(
                Outcome.INFEASIBLE, self._provenance(), str(verdict), reasons=verdict.reasons
            )
        prediction = self._predict(problem, config)
        gain = self._anchor_time_us(problem) / prediction.time_us
        return Evaluation(
            Outcome.OK,
            self._provenance(),
            timing=Timing(1, prediction.time_us, 0.0, gain, gain, gain),
            details={
                "bound_by": prediction.bound_by,
                "breakdown_cycles": prediction.breakdown,
                "clock_mhz": prediction.clock_mhz,
            },
        )

    def shootout(
        self,
        problem: AttentionProblem,
        configs: Sequence[KernelConfig],
        *,
        budget_s: float | None = None,
    ) -> list[Evaluation]:
        """The same answers again; a model does not get sharper by repeating."""
        return [self.evaluate(problem, config) for config in configs]

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _predict(self, problem: AttentionProblem, config: KernelConfig) -> Prediction:
        return predict(problem, config, self.sku, self._clock_mhz)

    def _anchor_time_us(self, problem: AttentionProblem) -> float:
        """Expected time of the problem's default kernel."""
        known = self._anchor_us.get(problem.problem_id)
        if known is None:
            anchor = self._space.default(problem.signature)
            known = self._predict(problem, anchor).time_us
            self._anchor_us[problem.problem_id] = known
        return known

    @cached_property
    def _space(self) -> SearchSpace:
        return space_for(self.sku.arch.name)

    @cached_property
    def _template_hash(self) -> str:
        """Identity of the template a modelled winner would be rendered from; empty without one."""
        try:
            return template_hash(self.sku.arch.name)
        except UnknownName:
            return ""

    def _provenance(self) -> Provenance:
        return Provenance(
            source=self.source,
            sku=self.sku.name,
            sm_count=self.sku.sm_count,
            template_hash=self._template_hash,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            fa4gen=__version__,
            model_version=self.model_version,
        )
