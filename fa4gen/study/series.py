"""What the pictures of a study are drawn of, without saying with what."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fa4gen.core.config import KnobValue
from fa4gen.evaluate.correctness import Distribution
from fa4gen.study.labels import knobs_text, marks_of, short_names
from fa4gen.study.results import ResultRow, StudyResult

SHARE, DEGREE, THRESHOLD, PLACEMENT = (
    "exp2_poly_fraction",
    "exp2_poly_degree",
    "rescale_threshold_log2",
    "exp2_poly_placement",
)


@dataclass(frozen=True, slots=True)
class Curve:
    """Gain over the share of exp2 on the polynomial, at one degree, placement and threshold."""

    degree: int
    placement: str
    """Empty where the kernels have only one."""
    threshold: float
    rows: tuple[ResultRow, ...]
    """By share, each the fastest of the knobs that are left; share 0 is every degree's."""


def values_of(rows: Iterable[ResultRow], knob: str) -> list[KnobValue]:
    """The values of a knob that occur, numbers ascending."""
    found = dict.fromkeys(row.knobs[knob] for row in rows)
    if all(isinstance(value, bool | str) for value in found):
        return list(found)
    return sorted(found, key=float)


def fastest_by(
    rows: Iterable[ResultRow], knobs: Sequence[str]
) -> dict[tuple[KnobValue, ...], ResultRow]:
    """The fastest row for each combination of these knobs."""
    best: dict[tuple[KnobValue, ...], ResultRow] = {}
    for row in rows:
        key = tuple(row.knobs[name] for name in knobs)
        if key not in best or (row.gain or 0.0) > (best[key].gain or 0.0):
            best[key] = row
    return best


def curves(result: StudyResult) -> list[Curve]:
    """The curves of an exp2 split."""
    placed = PLACEMENT in result.knobs
    names = [THRESHOLD, SHARE, DEGREE, *([PLACEMENT] if placed else [])]
    best = fastest_by(result.timed, names)
    found: dict[tuple[float, int, str], dict[float, ResultRow]] = {}
    for key, row in best.items():
        if float(key[1]) > 0.0:
            place = str(key[3]) if placed else ""
            found.setdefault((float(key[0]), int(key[2]), place), {})[float(key[1])] = row
    plain = {float(key[0]): row for key, row in best.items() if float(key[1]) == 0.0}
    made = []
    for (threshold, degree, place), by_share in sorted(found.items()):
        if threshold in plain:
            by_share[0.0] = plain[threshold]
        rows = tuple(by_share[share] for share in sorted(by_share))
        made.append(Curve(degree, place, threshold, rows))
    return made


def curve_name(curve: Curve) -> str:
    """``degree 3, spread``."""
    return ", ".join(part for part in (f"degree {curve.degree}", curve.placement) if part)


def hover(result: StudyResult, row: ResultRow) -> str:
    """All that is known of a row, in lines of HTML."""
    who = ", ".join(marks_of(result).get(row.config_id, []))
    lines = [f"<b>{who}</b>"] if who else []
    lines.append(knobs_text(row))
    if row.gain is not None and row.time_us is not None:
        interval = ""
        if row.gain_low != row.gain_high:
            interval = f" [{row.gain_low:.4f}, {row.gain_high:.4f}]"
        lines.append(
            f"gain {row.gain:.4f}{interval}, {row.time_us:.1f} us, {row.tflops:.0f} TFLOP/s"
        )
        timed = f", {row.timed_in}" if row.timed_in == "shootout" else ""
        lines.append(f"{result.setting.source.value}{timed}")
    shown = ("o_error_ratio", "p_mean_ulp", "p_max_ulp", "p32_max_ulp", "lse_max")
    errors = [f"{name} {row.accuracy[name]:.4g}" for name in shown if name in row.accuracy]
    if errors:
        lines += [", ".join(errors[:3]), ", ".join(errors[3:])]
    return "<br>".join(lines)


def marked_rows(result: StudyResult) -> list[tuple[str, ResultRow]]:
    """(who, row) of the default and the hand-set points that have a time, one a row."""
    by_id = {row.config_id: row for row in result.timed}
    return [
        (", ".join(dict.fromkeys(names)), by_id[config_id])
        for config_id, names in marks_of(result).items()
        if config_id in by_id
    ]


def names_above(rows: Sequence[ResultRow], measure: str) -> list[bool]:
    """Whether each mark's name stands above its star: those with the larger errors, so that names
    of neighbours keep apart."""
    errors = [row.accuracy[measure] for row in rows]
    return [error > statistics.median(errors) for error in errors]


def short_who(who: str) -> str:
    """A mark's name as it fits beside its star."""
    return who.replace("FlashAttention-4", "FA4").replace("pull request", "PR")


def matrix(
    rows: Iterable[ResultRow],
    across: tuple[str, Sequence[KnobValue]],
    down: tuple[str, Sequence[KnobValue]],
) -> list[list[ResultRow | None]]:
    """The row of each pair of values; ``None`` where there is none."""
    found: Mapping[tuple[KnobValue, KnobValue], ResultRow] = {
        (row.knobs[across[0]], row.knobs[down[0]]): row for row in rows
    }
    return [[found.get((x, y)) for x in across[1]] for y in down[1]]


def axis_names(result: StudyResult) -> dict[str, str]:
    """Knob -> the title of its axis."""
    long = {SHARE: "share of exp2 on the polynomial", THRESHOLD: "rescale threshold (log2)"}
    return {name: long.get(name, short) for name, short in short_names(result.knobs).items()}


def measured_against_computed(
    result: StudyResult,
) -> dict[str, list[tuple[ResultRow, float, float]]]:
    """By kind of input: (row, computed, measured) RMS error of O, over that of the row without
    polynomial and threshold; empty where a GPU measured no errors or there is no such row."""
    plain = [
        row
        for row in result.timed
        if not row.knobs.get(SHARE) and not row.knobs.get(THRESHOLD) and row.measured_errors
    ]
    if not plain:
        return {}
    found: dict[str, list[tuple[ResultRow, float, float]]] = {}
    for kind in (each.value for each in Distribution):
        name = f"{kind}_o_rms"
        least = plain[0].measured_errors.get(name)
        points = [
            (row, row.accuracy[f"{kind}_o_error_ratio"], row.measured_errors[name] / least)
            for row in result.timed
            if least and name in row.measured_errors
        ]
        if points:
            found[kind] = points
    return found
