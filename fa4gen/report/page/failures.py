"""Trials that failed, by outcome, with the reasons that came most often."""

from __future__ import annotations

from collections.abc import Iterable

from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome
from fa4gen.db import StoredEvaluation
from fa4gen.report.page.views import FailureExample, FailureView, Place

MAX_EXAMPLES = 5
MAX_REASON_CHARS = 600
"""A compiler's message can fill a screen; its beginning says what it is about."""


def place_of(row: StoredEvaluation) -> Place:
    """What the row may be compared within."""
    made = row.evaluation.provenance
    return Place(made.sku, made.source, str(row.policy))


def reason(evaluation: Evaluation) -> str:
    """Why it failed, in at most :data:`MAX_REASON_CHARS`."""
    rules = (f"{refused.rule}: {refused.message}" for refused in evaluation.reasons)
    text = evaluation.message or "; ".join(rules) or "no reason was given"
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}..."


def failures(stored: Iterable[StoredEvaluation]) -> tuple[FailureView, ...]:
    """The failures among these trials, in the order of the outcomes."""
    by_outcome: dict[Outcome, list[StoredEvaluation]] = {}
    for row in stored:
        if row.evaluation.outcome is not Outcome.OK:
            by_outcome.setdefault(row.evaluation.outcome, []).append(row)
    return tuple(
        _view(outcome, by_outcome[outcome]) for outcome in Outcome if outcome in by_outcome
    )


def _view(outcome: Outcome, rows: list[StoredEvaluation]) -> FailureView:
    by_reason: dict[str, list[StoredEvaluation]] = {}
    for row in rows:
        by_reason.setdefault(reason(row.evaluation), []).append(row)
    frequent = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return FailureView(
        outcome=outcome.value,
        count=len(rows),
        problems=len({row.problem for row in rows}),
        reasons=len(by_reason),
        examples=tuple(
            FailureExample(
                reason=text,
                count=len(same),
                problem=same[-1].problem,
                place=place_of(same[-1]),
                config_id=same[-1].config.config_id,
                date=same[-1].evaluation.provenance.date,
            )
            for text, same in frequent[:MAX_EXAMPLES]
        ),
    )
