"""``fa4gen replay``: samplers scored offline, on a sweep that was recorded once."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Annotated

import typer

from fa4gen.cli.options import JsonOption, examples
from fa4gen.cli.output import emit, say
from fa4gen.report import tables
from fa4gen.report.views import ReplayView, SamplerView

DEFAULT_SAMPLERS = ("random", "tpe")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog=examples(
            "fa4gen db export sweep.jsonl --sku h200",
            "fa4gen replay sweep.jsonl",
            "fa4gen replay sweep.jsonl --sampler tpe --sampler gp --seeds 20 --json",
        )
    )(replay)


def replay(
    sweep: Annotated[Path, typer.Argument(help="JSON-Lines file, as `fa4gen db export` writes.")],
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="May be repeated: tpe, model+tpe ... Default: random, tpe."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each sampler.")] = 5,
    trials: Annotated[int, typer.Option(min=1, help="Trials a run may use.")] = 100,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="How much slower than the best counts as found.")
    ] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Score search strategies on a recorded sweep; needs no GPU and no compiler.

    A trial is an evaluation, as in tuning; what the rules refuse and what was asked before is free.
    An ask for what the sweep does not hold is answered by the nearest configuration that it holds.
    `fa4gen study sampler` compares more of them, with quartiles and a page.
    """
    from fa4gen.evaluate.replay import read_sweep
    from fa4gen.tune.replay import score_samplers

    recorded = read_sweep(sweep)
    scores = []
    for name in sampler or DEFAULT_SAMPLERS:
        say(f"scoring {name}: {len(recorded.problems)} problems, {seeds} runs each")
        scores += score_samplers(
            recorded, (name,), seeds=range(seeds), trials=trials, tolerance=tolerance
        )
    rows = tuple(
        SamplerView(
            sampler=score.sampler,
            problem=score.problem,
            runs=len(score.trials_to),
            found=sum(1 for count in score.trials_to if count is not None),
            median_trials=None if math.isinf(score.median_trials) else score.median_trials,
            median_regret=statistics.median(score.regret),
        )
        for score in sorted(scores, key=lambda score: recorded.problems.index(score.problem))
    )
    view = ReplayView(str(sweep), recorded.sku, recorded.source, trials, tolerance, rows)
    emit(view, tables.replay(view), as_json=as_json)
