"""A study's files: ``results.csv`` with a line for each combination, ``study.json`` with the rest.

The two together are the whole :class:`StudyResult`, so pages can be made on another machine. Beside
them ``trials.jsonl`` has the evaluations themselves, as `fa4gen db export` writes them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.errors import Fa4genError, ResourceError
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.replay import sweep_line
from fa4gen.study.results import (
    Ending,
    Mark,
    ResultRow,
    Setting,
    StudyKind,
    StudyListener,
    StudyResult,
    TrialEvent,
)

CSV_NAME, JSON_NAME, SWEEP_NAME = "results.csv", "study.json", "trials.jsonl"
FORMAT = 1
"""Of the two files together."""

COMPUTED, MEASURED = "computed_", "measured_"
"""Prefixes of the columns with errors: from NumPy, and from the GPU's own output."""

_NUMBERS = ("time_us", "tflops", "gain", "gain_low", "gain_high", "sm_clock_mhz", "power_w")
_INTEGERS = ("samples", "regs_per_thread", "spill_bytes")


def write_study(result: StudyResult, folder: Path) -> None:
    """Write both files; the folder is made.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CSV_NAME).write_text(to_csv(result), encoding="utf-8")
        text = json.dumps(_header(result), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / JSON_NAME).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from None


def read_study(folder: Path) -> StudyResult:
    """The study that :func:`write_study` wrote.

    Raises:
        ResourceError: no such files, or not of this format.
    """
    try:
        header = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        text = (folder / CSV_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"folder {folder}: {error.filename} cannot be read ({error.strerror}); allowed: a "
            f"folder that `fa4gen study` wrote, with {CSV_NAME} and {JSON_NAME}"
        ) from None
    except ValueError as error:
        raise ResourceError(f"{folder / JSON_NAME}: not JSON ({error})") from None
    try:
        return _study(header, text)
    except (KeyError, TypeError, ValueError, Fa4genError) as error:
        raise ResourceError(
            f"folder {folder}: not a study of format {FORMAT} ({type(error).__name__}: {error}); "
            "run the study again"
        ) from None


def to_csv(result: StudyResult) -> str:
    """One line a row, first line the names of the columns."""
    computed = _names(row.accuracy for row in result.rows)
    measured = _names(row.measured_errors for row in result.rows)
    head = ["config_id", "origin", *result.knobs, "outcome", "message", "source", "timed_in"]
    head += [*_NUMBERS, *_INTEGERS]
    head += [*(COMPUTED + name for name in computed), *(MEASURED + name for name in measured)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in result.rows:
        source = result.setting.source.value if row.gain is not None else ""
        cells: list[Any] = [row.config_id, row.origin, *(row.knobs[k] for k in result.knobs)]
        cells += [row.outcome.value, row.message, source, row.timed_in]
        cells += [getattr(row, name) for name in (*_NUMBERS, *_INTEGERS)]
        cells += [row.accuracy.get(name) for name in computed]
        cells += [row.measured_errors.get(name) for name in measured]
        writer.writerow([_cell(value) for value in cells])
    return out.getvalue()


class SweepWriter:
    """A listener that writes each trial down as it comes, and passes everything on.

    Args:
        folder: where ``trials.jsonl`` begins anew; it is made.
        problem: of the study.
        policy: of its evaluator.
        inner: who else listens.

    Raises:
        ResourceError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        problem: AttentionProblem,
        policy: MeasurementPolicy,
        inner: StudyListener,
    ) -> None:
        self._path, self._problem, self._policy = folder / SWEEP_NAME, problem, policy
        self._inner = inner
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.write_text("", encoding="utf-8")
        except OSError as error:
            raise unwritable(folder, error) from None

    def on_start(self, total: int) -> None:
        """Passed on."""
        self._inner.on_start(total)

    def on_trial(self, event: TrialEvent) -> None:
        """One more line; of a configuration with several, the last counts."""
        line = sweep_line(self._problem, event.config, self._policy, event.evaluation)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._inner.on_trial(event)

    def on_shootout(self, count: int) -> None:
        """Passed on."""
        self._inner.on_shootout(count)


def unwritable(folder: Path, error: OSError) -> ResourceError:
    """The error for a folder that a study cannot write to."""
    return ResourceError(
        f"folder {folder}: cannot be written ({error.strerror}); name another with --out"
    )


def _names(mappings: Iterable[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for each in mappings for name in each))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _header(result: StudyResult) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": result.kind.value,
        "problem": result.problem.to_dict(),
        "setting": asdict(result.setting),
        "knobs": list(result.knobs),
        "default": result.default.to_dict(),
        "marks": [asdict(mark) for mark in result.marks],
        "ending": result.ending.value,
        "combinations": result.combinations,
        "candidates": result.candidates,
        "measure": result.measure,
        "message": result.message,
        "elapsed_s": result.elapsed_s,
        "importance": dict(result.importance),
        "optuna_study": result.optuna_study,
        "storage": result.storage,
    }


def _study(header: dict[str, Any], text: str) -> StudyResult:
    if header["format"] != FORMAT:
        raise ValueError(f"format: got {header['format']}")
    knobs = tuple(header["knobs"])
    setting = header["setting"]
    rows = tuple(_row(line, knobs) for line in csv.DictReader(io.StringIO(text)))
    return StudyResult(
        kind=StudyKind(header["kind"]),
        problem=AttentionProblem.from_dict(header["problem"]),
        setting=Setting(**{**setting, "source": Source(setting["source"])}),
        knobs=knobs,
        default=KernelConfig.from_dict(header["default"]),
        rows=rows,
        marks=tuple(Mark(**mark) for mark in header["marks"]),
        ending=Ending(header["ending"]),
        combinations=header["combinations"],
        candidates=header["candidates"],
        measure=header["measure"],
        message=header["message"],
        elapsed_s=header["elapsed_s"],
        importance=header["importance"],
        optuna_study=header["optuna_study"],
        storage=header["storage"],
    )


def _row(line: dict[str, str], knobs: tuple[str, ...]) -> ResultRow:
    numbers: dict[str, Any] = {n: float(line[n]) if line[n] else None for n in _NUMBERS}
    numbers |= {n: int(line[n]) if line[n] else None for n in _INTEGERS}
    return ResultRow(
        config_id=line["config_id"],
        origin=line["origin"],
        knobs={name: knob_value(name, line[name]) for name in knobs},
        outcome=Outcome(line["outcome"]),
        message=line["message"],
        timed_in=line["timed_in"],
        accuracy=_errors(line, COMPUTED),
        measured_errors=_errors(line, MEASURED),
        **numbers,
    )


def _errors(line: dict[str, str], prefix: str) -> dict[str, float]:
    found = {
        name.removeprefix(prefix): float(text)
        for name, text in line.items()
        if name.startswith(prefix) and text
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def knob_value(name: str, text: str) -> KnobValue:
    """The value of a knob that was written as text.

    Raises:
        ConfigError, UnknownName: not a value of it.
    """
    default = KernelConfig().to_dict().get(name)
    value: KnobValue = text
    if isinstance(default, bool):
        value = text == "true"
    elif isinstance(default, int | float):
        value = type(default)(text)
    return KernelConfig.from_dict({name: value}).to_dict()[name]
