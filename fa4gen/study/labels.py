"""The words of a study's tables and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fa4gen.core.config import KnobValue
from fa4gen.core.outcome import Source
from fa4gen.study.results import Ending, ResultRow, StudyResult

_SHORT = {
    "exp2_poly_fraction": "share",
    "exp2_poly_degree": "degree",
    "exp2_poly_placement": "place",
    "exp2_poly_frequency": "period",
    "exp2_poly_start": "start",
    "exp2_poly_last": "last",
    "rescale_threshold_log2": "threshold",
}
"""For columns; a study of other knobs has their own names."""

TRACE = "trace "
"""What the versions of the trace-driven model begin with."""

_ENDINGS = {
    Ending.EXHAUSTED: "every combination was tried",
    Ending.TRIALS: "as many as --trials allows; Optuna's multi-objective TPE chose them",
    Ending.BUDGET: "the budget is used up",
    Ending.INTERRUPTED: "interrupted",
    Ending.BROKEN: "the evaluator broke",
}


def short_names(knobs: Sequence[str]) -> dict[str, str]:
    """Knob -> a heading for it."""
    return {name: _SHORT.get(name, name) for name in knobs}


def value_text(value: KnobValue) -> str:
    """A knob's value as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def knobs_text(row: ResultRow) -> str:
    """``share 0.25, degree 3, ...``."""
    names = short_names(list(row.knobs))
    return ", ".join(f"{short} {value_text(row.knobs[name])}" for name, short in names.items())


def gain_text(row: ResultRow) -> str:
    """``1.012x ±0.002``."""
    text = f"{row.gain:.3f}x"
    if row.gain_low is not None and row.gain_high is not None and row.gain_low != row.gain_high:
        text += f" ±{(row.gain_high - row.gain_low) / 2:.3f}"
    return text


def ending_text(result: StudyResult) -> str:
    """Why it ended, and how many were left."""
    text = _ENDINGS[result.ending]
    left = result.not_tried
    if left:
        text += f"; {left} that may run were not tried"
    elif left is None:
        text += f"; {result.combinations} combinations, too many to look at all"
    return text


def source_sentence(result: StudyResult) -> str:
    """What stands behind times and errors."""
    made = result.setting
    errors = ""
    if result.measure:
        errors = " Errors are computed in NumPy as the kernel computes, on one small head."
    if made.source is Source.MODELLED:
        by = f"by the cycle model (version {made.model_version}); no kernel was run"
        if made.model_version.startswith(TRACE):
            by = (
                "by replaying what each compiled kernel executed in the emulator (version "
                f"{made.model_version}); none ran on a GPU"
            )
        return f"Times are modelled for {made.sku} {by}.{errors}"
    if made.source is Source.MEASURED:
        return (
            f"Times are measured on {made.gpu_name or made.sku} ({made.policy}), paired with the "
            f"default; every kernel matched float64 attention first.{errors}"
        )
    return f"Times are {made.source.value} for {made.sku}.{errors}"


def marks_of(result: StudyResult) -> Mapping[str, list[str]]:
    """Configuration -> who set it by hand, or that it is the default."""
    found: dict[str, list[str]] = {}
    for mark in result.marks:
        found.setdefault(mark.config_id, []).append(mark.who)
    return found
