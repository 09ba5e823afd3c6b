"""From what an evaluator answers to the rows of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem
from fa4gen.study.grid import Refused
from fa4gen.study.results import ResultRow, Setting

MEASURED_ERRORS = ("o_max", "o_rms", "lse_max")
"""What the correctness check on a GPU says of each kind of input."""


def studied(config: KernelConfig, names: Sequence[str]) -> dict[str, KnobValue]:
    """The knobs of these names, as plain values."""
    plain = config.to_dict()
    return {name: plain[name] for name in names}


def tried_row(
    origin: str,
    problem: AttentionProblem,
    config: KernelConfig,
    evaluation: Evaluation,
    names: Sequence[str],
    timed_in: str = "trial",
) -> ResultRow:
    """The row of one evaluation, without the computed accuracy."""
    timing, made, used = evaluation.timing, evaluation.provenance, evaluation.resources
    row = ResultRow(
        config_id=config.config_id,
        origin=origin,
        knobs=studied(config, names),
        outcome=evaluation.outcome,
        message=evaluation.message,
        regs_per_thread=used.regs_per_thread if used else None,
        spill_bytes=used.spill_bytes if used else None,
    )
    if timing is None:
        return row
    return ResultRow(
        config_id=row.config_id,
        origin=origin,
        knobs=row.knobs,
        outcome=row.outcome,
        time_us=timing.median_us,
        tflops=problem.tflops(timing.median_us),
        gain=timing.gain,
        gain_low=timing.gain_low,
        gain_high=timing.gain_high,
        samples=timing.n,
        timed_in=timed_in,
        sm_clock_mhz=made.sm_clock_mhz,
        power_w=made.power_w,
        regs_per_thread=row.regs_per_thread,
        spill_bytes=row.spill_bytes,
        measured_errors=_measured(evaluation.details.get("errors", {})),
    )


def _measured(errors: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """``{kind: [o_max, o_rms, lse_max]}`` flat."""
    return {
        f"{kind}_{name}": float(value)
        for kind, values in errors.items()
        for name, value in zip(MEASURED_ERRORS, values, strict=True)
    }


def refused_row(refused: Refused, names: Sequence[str]) -> ResultRow:
    """The row of a combination that feasibility refuses."""
    return ResultRow(
        config_id=refused.config.config_id,
        origin="refused",
        knobs=studied(refused.config, names),
        outcome=Outcome.INFEASIBLE,
        message=str(refused.verdict),
    )


def setting_of(evaluation: Evaluation, policy: str) -> Setting:
    """Where and with what a study was made, by its first evaluation."""
    made = evaluation.provenance
    return Setting(
        sku=made.sku,
        source=made.source,
        policy=policy,
        template_hash=made.template_hash,
        date=made.date,
        fa4gen=made.fa4gen,
        gpu_name=made.gpu_name,
        driver=made.driver,
        cuda=made.cuda,
        torch=made.torch,
        cutlass_dsl=made.cutlass_dsl,
        model_version=made.model_version,
    )
