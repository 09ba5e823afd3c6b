"""Files of a study of samplers: ``results.csv`` with a line for each run, ``study.json``."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fa4gen.core.errors import Fa4genError, ResourceError
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.study.files import CSV_NAME, FORMAT, JSON_NAME, unwritable
from fa4gen.study.results import Ending
from fa4gen.study.samplers import TOLERANCES, Course, RaceRow, SamplerResult

KIND = "sampler"
_REGRETS = "regret_after_each_trial"


def write_sampler_study(result: SamplerResult, folder: Path) -> None:
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


def to_csv(result: SamplerResult) -> str:
    """One line a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    within = [f"trials_to_{tolerance:.0%}".replace("%", "_percent") for tolerance in TOLERANCES]
    writer.writerow(["course", "recording", "problem", "strategy", "seed", *within, _REGRETS])
    for row in result.rows:
        course = result.courses[row.course]
        counts = [row.trials_within(tolerance) for tolerance in TOLERANCES]
        writer.writerow(
            [
                row.course,
                course.recording,
                str(course.problem),
                row.strategy,
                row.seed,
                *("" if count is None else count for count in counts),
                " ".join(f"{regret:.4g}" for regret in row.regrets),
            ]
        )
    return out.getvalue()


def _header(result: SamplerResult) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": KIND,
        "courses": [
            {**asdict(course), "problem": course.problem.to_dict(), "source": course.source.value}
            for course in result.courses
        ],
        "strategies": list(result.strategies),
        "seeds": result.seeds,
        "trials": result.trials,
        "ending": result.ending.value,
        "left_out": [list(pair) for pair in result.left_out],
        "elapsed_s": result.elapsed_s,
        "date": result.date,
        "fa4gen": result.fa4gen,
    }


def is_sampler_study(folder: Path) -> bool:
    """Whether the folder's study is one of samplers.

    Raises:
        ResourceError: it has no readable ``study.json``.
    """
    path = folder / JSON_NAME
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"{path}: cannot be read ({error}); allowed: a folder that `fa4gen study` wrote"
        ) from None
    return isinstance(header, dict) and header.get("kind") == KIND


def read_sampler_study(folder: Path) -> SamplerResult:
    """The study that :func:`write_sampler_study` wrote.

    Raises:
        ResourceError: no such files, or not of this format.
    """
    try:
        header = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        text = (folder / CSV_NAME).read_text(encoding="utf-8")
        return _result(header, text)
    except (OSError, KeyError, TypeError, ValueError, Fa4genError) as error:
        raise ResourceError(
            f"folder {folder}: not a study of samplers of format {FORMAT} "
            f"({type(error).__name__}: {error}); run the study again"
        ) from None


def _result(header: dict[str, Any], text: str) -> SamplerResult:
    if header["format"] != FORMAT:
        raise ValueError(f"format: got {header['format']}")
    courses = tuple(
        Course(
            **{
                **course,
                "problem": AttentionProblem.from_dict(course["problem"]),
                "source": Source(course["source"]),
            }
        )
        for course in header["courses"]
    )
    rows = tuple(
        RaceRow(
            int(line["course"]),
            line["strategy"],
            int(line["seed"]),
            tuple(float(word) for word in line[_REGRETS].split()),
        )
        for line in csv.DictReader(io.StringIO(text))
    )
    return SamplerResult(
        courses=courses,
        rows=rows,
        strategies=tuple(header["strategies"]),
        seeds=header["seeds"],
        trials=header["trials"],
        ending=Ending(header["ending"]),
        left_out=tuple((who, why) for who, why in header["left_out"]),
        elapsed_s=header["elapsed_s"],
        date=header["date"],
        fa4gen=header["fa4gen"],
    )
