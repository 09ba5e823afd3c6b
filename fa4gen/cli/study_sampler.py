"""``fa4gen study sampler``: search strategies raced on recorded sweeps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa4gen import __version__
from fa4gen.cli.options import JsonOption, examples
from fa4gen.cli.output import EXIT_INTERRUPTED, emit, fail, say

if TYPE_CHECKING:
    from fa4gen.study.samplers import Course, SamplerResult

LINE_EVERY_S = 10.0


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        "sampler",
        epilog=examples(
            "fa4gen study sampler sweep.jsonl",
            "fa4gen study sampler *.jsonl --sampler tpe --sampler model+tpe --seeds 20",
            "fa4gen study sampler study-tile_n-h200/trials.jsonl --sampler gp --seeds 3",
        ),
    )(sampler)


class _Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def on_race(self, done: int, total: int, course: Course, strategy: str) -> None:
        """How it stands."""
        if time.monotonic() - self._last_s >= LINE_EVERY_S:
            self._last_s = time.monotonic()
            say(f"{done} of {total} races run, now {course.problem}, {strategy}")


def sampler(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Recorded sweeps: trials.jsonl of a study, or what `fa4gen db export` writes.",
        ),
    ],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler",
            metavar="NAME",
            help="May be repeated: random, nsga2, cmaes, tpe or gp, or model+tpe and the like to "
            "begin with the cycle model's favourites. Default: all but gp, which thinks for a "
            "second before each trial.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy on each problem.")] = 20,
    trials: Annotated[int, typer.Option(min=1, help="Most trials of a run.")] = 40,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="For results.csv, study.json, page and picture.")
    ] = Path("study-sampler"),
    as_json: JsonOption = False,
) -> None:
    """Timed trials until a kernel within 1 % and 3 % of the best recorded: Optuna's samplers,
    random search, and the tuner's own strategy (model+tpe).

    Needs no GPU and no compiler. Best on full sweeps; where a sweep has holes, an ask is answered
    by the nearest configuration that it holds.
    """
    from fa4gen.cli.study_tables import drawn
    from fa4gen.evaluate.replay import read_sweep
    from fa4gen.study.results import Ending
    from fa4gen.study.sampler_files import write_sampler_study
    from fa4gen.study.samplers import STRATEGIES, SamplerResult, courses_of, run_races, usable

    begin_s = time.monotonic()
    able, missing = usable(strategy or STRATEGIES)
    field, left_out = courses_of([(path.name, read_sweep(path)) for path in recordings])
    say(f"{len(field)} problems, {len(able)} strategies, {seeds} seeds each")
    rows, ending = run_races(field, able, seeds=seeds, trials=trials, listener=_Lines())
    result = SamplerResult(
        courses=tuple(course for course, _ in field),
        rows=tuple(rows),
        strategies=able,
        seeds=seeds,
        trials=trials,
        ending=ending,
        left_out=(*missing, *left_out),
        elapsed_s=round(time.monotonic() - begin_s, 1),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        fa4gen=__version__,
    )
    write_sampler_study(result, out)
    drawn(result, out)
    show(result, out, as_json=as_json)
    if ending is Ending.INTERRUPTED:
        raise fail(f"interrupted; {len(rows)} runs are in {out}", EXIT_INTERRUPTED)


def show(result: SamplerResult, folder: Path, *, as_json: bool) -> None:
    """Print it."""
    from fa4gen.cli.study_tables import sampler_json, sampler_table

    emit(sampler_json(result, folder), sampler_table(result, folder), as_json=as_json)
