"""From what the library returns to views."""

from __future__ import annotations

from collections.abc import Sequence

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import DispatchRow
from fa4gen.hardware import Sku, load_sku
from fa4gen.report.views import (
    RowView,
    RungView,
    SelectionView,
    TimingView,
    TuneRowView,
    TuneView,
)
from fa4gen.runtime.explanation import Explanation, current_template
from fa4gen.space import space_for
from fa4gen.tune import ProblemReport, TuneReport


def changed(problem: AttentionProblem, config: KernelConfig, sku: Sku) -> dict[str, KnobValue]:
    """Knobs of ``config`` that differ from the default kernel of ``problem``."""
    default = space_for(sku.arch.name).default(problem.signature)
    return {name: mine for name, (mine, _) in config.differences(default).items()}


def dispatch_rows(rows: Sequence[DispatchRow]) -> tuple[RowView, ...]:
    """Rows of the dispatch table."""
    templates = {name: current_template(load_sku(name)) for name in {row.sku for row in rows}}
    return tuple(_dispatch_row(row, templates[row.sku]) for row in rows)


def _dispatch_row(row: DispatchRow, template: str | None) -> RowView:
    return RowView(
        problem=row.problem,
        label="winner",
        sku=row.sku,
        policy=str(row.policy),
        origin=row.origin.value,
        date=row.evaluation.provenance.date,
        config=row.config,
        changed=changed(row.problem, row.config, load_sku(row.sku)),
        timing=TimingView.of(row.problem, row.evaluation),
        note=note(row.evaluation),
        checked=checked(row.evaluation),
        other_template=template not in {None, row.evaluation.provenance.template_hash},
    )


def evaluation_row(
    label: str,
    problem: AttentionProblem,
    config: KernelConfig,
    evaluation: Evaluation,
    place: tuple[Sku, MeasurementPolicy],
) -> RowView:
    """An evaluation that no table holds, or not yet."""
    sku, policy = place
    return RowView(
        problem=problem,
        label=label,
        sku=sku.name,
        policy=str(policy),
        origin="",
        date=evaluation.provenance.date,
        config=config,
        changed=changed(problem, config, sku),
        timing=TimingView.of(problem, evaluation),
        note=note(evaluation),
        checked=checked(evaluation),
    )


def checked(evaluation: Evaluation) -> Source | None:
    """Where the kernel was compared with float64 attention, if anywhere."""
    return None if evaluation.accuracy is None else evaluation.accuracy.source


def note(evaluation: Evaluation) -> str:
    """Why there is no timing; empty when there is one."""
    if evaluation.outcome is Outcome.OK:
        return ""
    return f"{evaluation.outcome.value}: {evaluation.message}".removesuffix(": ")


def selection(explanation: Explanation, sku: Sku) -> SelectionView:
    """Which kernel a problem gets, and why."""
    picked = explanation.selection
    row = picked.row
    return SelectionView(
        problem=explanation.problem,
        sku=sku.name,
        rung=picked.rung.value,
        source=picked.source,
        summary=picked.summary,
        tuned_for=row.problem if row is not None else None,
        row_sku=row.sku if row is not None else "",
        origin=row.origin.value if row is not None else "",
        config=picked.config,
        knobs={k.name: getattr(picked.config, k.name) for k in space_for(sku.arch.name).knobs},
        changed={name: mine for name, (mine, _) in explanation.differences.items()},
        timing=TimingView.of(row.problem, row.evaluation) if row is not None else None,
        predicted_us=explanation.predicted.time_us,
        default_predicted_us=explanation.default_predicted.time_us,
        bound_by=explanation.predicted.bound_by,
        rejected=tuple(
            RungView(other.rung.value, other.candidate, other.reason) for other in picked.rejected
        ),
        rows_looked_at=explanation.num_rows,
        notes=picked.notes,
    )


def tuning(
    report: TuneReport,
    trials: Sequence[dict[str, int]],
    place: tuple[Sku, MeasurementPolicy],
    source: Source,
    database: str,
) -> TuneView:
    """What one run of the tuner came to.

    Args:
        report: what the tuner returned.
        trials: by position in the workload, trials of this run by outcome.
        place: SKU and measurement policy.
        source: what stands behind the numbers.
        database: where they are kept.
    """
    sku, policy = place
    rows = tuple(_tuned(one, trials[one.index], place) for one in report.problems)
    return TuneView(
        sku=sku.name,
        source=source,
        policy=str(policy),
        database=database,
        elapsed_s=round(report.elapsed_s, 1),
        interrupted=report.interrupted,
        geomean_gain=report.geomean_gain,
        rows=rows,
        not_started=report.not_started,
        defaults_from=space_for(sku.arch.name).defaults_from,
    )


def _tuned(
    report: ProblemReport, trials: dict[str, int], place: tuple[Sku, MeasurementPolicy]
) -> TuneRowView:
    winner = None
    if report.winner is not None and report.winner_config is not None:
        label = "default" if report.default_stays else "winner"
        winner = evaluation_row(label, report.problem, report.winner_config, report.winner, place)
    return TuneRowView(
        problem=report.problem,
        winner=winner,
        trials=trials,
        stop=report.stop.value,
        message=report.message,
    )
