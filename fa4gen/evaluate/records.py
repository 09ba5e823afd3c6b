"""From what the worker said to an :class:`Evaluation` with full provenance."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fa4gen import __version__
from fa4gen.core.evaluation import Accuracy, Evaluation, Provenance
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.verdict import Reason
from fa4gen.evaluate.builds import Build
from fa4gen.evaluate.correctness import CaseErrors
from fa4gen.evaluate.protocol import GpuConditions, GpuIdentity, KernelRef, TimeReply
from fa4gen.evaluate.timing import half_iqr, summarise
from fa4gen.hardware import Sku
from fa4gen.versions import CUTLASS_DSL, installed


@dataclass(frozen=True, slots=True)
class CheckedKernel:
    """A kernel that is built and right."""

    ref: KernelRef
    build: Build
    accuracy: Accuracy
    seed: int
    cases: tuple[CaseErrors, ...] = ()
    """Errors by kind of input; of the small kinds only when it was checked for the first time."""


class KernelFailure(Exception):
    """A kernel's own failure on its way to becoming an :class:`Evaluation`."""

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        artifact_id: str = "",
        reasons: tuple[Reason, ...] = (),
        build: Build | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome, self.artifact_id = outcome, artifact_id
        self.reasons, self.build = reasons, build
        self.seed: int | None = None
        """Of the inputs, where it met any: :class:`~fa4gen.evaluate.gpu.GpuSettings` takes it."""


@dataclass(slots=True)
class Recorder:
    """Makes evaluations for one SKU."""

    sku: Sku
    template_hash: Callable[[], str]
    identity: GpuIdentity | None = None
    """The card, once a worker has met it."""

    def timed(
        self,
        candidate: CheckedKernel,
        anchor: CheckedKernel,
        reply: TimeReply,
        place: int,
        elapsed_s: float,
    ) -> Evaluation:
        """The evaluation of the kernel at ``place`` of a timing; place 0 is the anchor."""
        anchor_us, candidate_us = reply.times_us[0], reply.times_us[place]
        timing = summarise(anchor_us, candidate_us)
        details: dict[str, Any] = {
            "anchor": anchor.ref.config.config_id,
            "anchor_median_us": statistics.median(anchor_us),
            "anchor_spread_us": half_iqr(anchor_us),
            "buffers": reply.buffers,
            "errors": {
                case.kind: [case.o_max, case.o_rms, case.lse_max] for case in candidate.cases
            },
            "launches_per_sample": reply.launches,
            "samples_us": {
                "anchor": [round(value, 4) for value in anchor_us],
                "candidate": [round(value, 4) for value in candidate_us],
            },
            "seed": candidate.seed,
            "stopped_early": reply.stopped_early,
            "temperature_c": reply.conditions.temperature_c,
        }
        if candidate.ref.artifact_id == anchor.ref.artifact_id:
            # By definition 1; what was measured, unless it is one sample twice, is its own error.
            if place:
                details["self_ratio"] = [timing.gain_low, timing.gain, timing.gain_high]
            timing = replace(timing, gain=1.0, gain_low=1.0, gain_high=1.0)
        if reply.conditions.other_processes:
            details["other_processes"] = list(reply.conditions.other_processes)
        if self.identity is not None and self.identity.nvml:
            details["nvml"] = self.identity.nvml
        return Evaluation(
            Outcome.OK,
            self._provenance(reply.conditions),
            timing=timing,
            accuracy=candidate.accuracy,
            resources=candidate.build.resources,
            compile_s=candidate.build.compile_s,
            evaluate_s=elapsed_s,
            details=details,
        )

    def failed(self, failure: KernelFailure, elapsed_s: float) -> Evaluation:
        """The evaluation of a kernel that failed."""
        build = failure.build
        return Evaluation(
            failure.outcome,
            self._provenance(GpuConditions()),
            message=str(failure),
            reasons=failure.reasons,
            resources=build.resources if build is not None else None,
            compile_s=build.compile_s if build is not None else None,
            evaluate_s=elapsed_s,
            details={} if failure.seed is None else {"seed": failure.seed},
        )

    def _provenance(self, conditions: GpuConditions) -> Provenance:
        """Where, when and with what."""
        card = self.identity
        return Provenance(
            source=Source.MEASURED,
            sku=self.sku.name,
            sm_count=card.sm_count if card else self.sku.sm_count,
            template_hash=self.template_hash(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            fa4gen=__version__,
            cutlass_dsl=installed(CUTLASS_DSL) or "",
            torch=card.torch if card else "",
            gpu_name=card.gpu_name if card else "",
            gpu_uuid_hash=card.gpu_uuid_hash if card else "",
            driver=card.driver if card else "",
            cuda=card.cuda if card else "",
            sm_clock_mhz=conditions.sm_clock_mhz,
            power_w=conditions.power_w,
            throttle="+".join(conditions.throttle),
        )
