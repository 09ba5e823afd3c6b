"""Which knobs matter, and which of their values win."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.errors import NoFeasibleKernel
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem
from fa4gen.report.page.views import ImportanceView, KnobUse, ValueUse
from fa4gen.report.tables import knob_text
from fa4gen.space import Knob, SearchSpace
from fa4gen.tune.history import History
from fa4gen.tune.importance import MIN_TRIALS, knob_importance

Choice = tuple[AttentionProblem, KernelConfig]


def default_kernel(space: SearchSpace | None, problem: AttentionProblem) -> KernelConfig | None:
    """The default of a problem; ``None`` where the space of today does not take it."""
    if space is None:
        return None
    try:
        return space.default(problem.signature)
    except NoFeasibleKernel:
        return None


def importance(studies: Sequence[History]) -> tuple[ImportanceView, ...]:
    """Over all trials of a place, then for each head_dim that has enough of them and is not all."""
    views = [ImportanceView("all problems", knob_importance(studies))]
    dims = sorted({history.key.problem.head_dim for history in studies})
    for head_dim in dims if len(dims) > 1 else ():
        part = [history for history in studies if history.key.problem.head_dim == head_dim]
        if _num_ran(part) >= MIN_TRIALS:
            views.append(ImportanceView(f"head_dim {head_dim}", knob_importance(part)))
    return tuple(views)


def _num_ran(studies: Iterable[History]) -> int:
    rows = (row for history in studies for row in history.records)
    return sum(row.evaluation.outcome is Outcome.OK for row in rows)


def knob_uses(
    space: SearchSpace, winners: Sequence[Choice], studies: Iterable[History]
) -> tuple[KnobUse, ...]:
    """How often each value won, for every knob of which more than one value was tried."""
    defaults = [default_kernel(space, problem) for problem, _ in winners]
    tried: Counter[tuple[str, KnobValue]] = Counter()
    for history in studies:
        for row in history.records:
            if row.evaluation.outcome is Outcome.OK:
                tried.update((knob.name, getattr(row.config, knob.name)) for knob in space.knobs)
    uses = (_use(knob, [config for _, config in winners], defaults, tried) for knob in space.knobs)
    return tuple(use for use in uses if len(use.values) > 1)


def _use(
    knob: Knob,
    winners: Sequence[KernelConfig],
    defaults: Sequence[KernelConfig | None],
    tried: Counter[tuple[str, KnobValue]],
) -> KnobUse:
    won = Counter(getattr(config, knob.name) for config in winners)
    default = Counter(getattr(config, knob.name) for config in defaults if config is not None)
    # A value that the space has lost since may still have won.
    known = dict.fromkeys([*knob.values, *sorted(won, key=str)])
    values = tuple(
        ValueUse(knob_text(value), won[value], default[value], tried[knob.name, value])
        for value in known
        if won[value] or default[value] or tried[knob.name, value]
    )
    pairs = zip(winners, defaults, strict=True)
    changed = sum(
        other is not None and getattr(config, knob.name) != getattr(other, knob.name)
        for config, other in pairs
    )
    return KnobUse(knob.name, knob.meaning, values, changed)
