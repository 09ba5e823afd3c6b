"""``fa4gen tune``: search, and keep the winners."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from fa4gen.cli.fleet import TURNS, Part, chosen_gpus, exit_code, merged, shared_turns, tune_on
from fa4gen.cli.machine import AUTO, look, resolve
from fa4gen.cli.options import DbOption, JsonOption, SkuOption, examples
from fa4gen.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, emit, fail, say
from fa4gen.cli.session import notices, open_evaluator, open_store
from fa4gen.core.errors import ConfigError
from fa4gen.core.problem import AttentionProblem
from fa4gen.report import tables
from fa4gen.report.plain import to_json
from fa4gen.report.views import TuneView

if TYPE_CHECKING:
    from fa4gen.db import TuningStore
    from fa4gen.evaluate.contract import Evaluator
    from fa4gen.tune import TuneSettings
    from fa4gen.tune.turns import Turns
    from fa4gen.tune.workload import Workload

WorkloadOption = Annotated[
    str,
    typer.Option(
        metavar="FILE|NAME", help="A TOML list of problems, or a shipped one by its name."
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="For the whole workload: 90s, 10m, 1h30m; the default and two guesses are tried "
        "for every problem in any case. Default: no limit.",
    ),
]
EffortOption = Annotated[
    str,
    typer.Option(
        metavar="glance|quick|full",
        help="How hard to search; at a glance nothing is compiled without a GPU.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume/--fresh", help="Go on from earlier trials, or measure all anew."),
]
GpusOption = Annotated[
    str | None,
    typer.Option(
        metavar="all|LIST",
        help="Share the problems between these GPUs, such as 0,1, one process each.",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Only a part of the problems, dealt in N: for machines that share a database.",
    ),
]

_BUDGET = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog=examples(
            "fa4gen tune",
            "fa4gen tune --workload llama3-8b --budget 10m",
            "fa4gen tune --workload my-shapes.toml --effort full --db team.sqlite",
            "fa4gen tune --workload peers --gpus all",
            "fa4gen tune --sku h100_sxm5 --json > tuned.json",
        )
    )(tune)


def seconds(text: str | None) -> float | None:
    """A duration such as ``90``, ``90s``, ``10m``, ``1h30m``; ``None`` stays ``None``.

    Raises:
        ConfigError: not a duration, or none at all.
    """
    if text is None:
        return None
    match = _BUDGET.fullmatch(text.strip())
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + rest
    if not total:
        raise ConfigError(f"--budget: got {text!r}, allowed: a duration such as 90s, 10m or 1h30m")
    return float(total)


def tune(
    sku: SkuOption = AUTO,
    workload: WorkloadOption = "quick",
    budget: BudgetOption = None,
    effort: EffortOption = "quick",
    db: DbOption = None,
    resume: ResumeOption = True,
    gpus: GpusOption = None,
    part: PartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best kernel for each problem of a workload and keep it in the tuning database.

    With a GPU of the SKU the kernels are compiled, checked against float64 attention and timed.
    Without one, they are compiled and emulated, a cycle model predicts their times, and every row
    says so. A winner is in the database as soon as it is proven; Ctrl-C keeps what there is, and
    the next run goes on from it.
    """
    from fa4gen.space import space_for
    from fa4gen.tune import TuneSettings, load_workload
    from fa4gen.tune.effort import effort_named

    work = load_workload(workload)
    if part is not None:
        work = _part(work, Part.parse(part))
    if gpus is not None:
        if part is not None:
            raise ConfigError("--part: got it with --gpus, allowed: one of them")
        arguments = ["--sku", sku, "--workload", workload, "--effort", effort]
        arguments += ["--budget", budget] if budget else []
        arguments += ["--db", db] if db else []
        arguments += ["--resume" if resume else "--fresh", *(["--json"] if as_json else [])]
        indices = chosen_gpus(gpus, len(look().gpus))[: len(work.problems)]
        raise _on_gpus(indices, arguments, as_json=as_json)
    turns = shared_turns(work.problems)
    if turns is not None and part is not None:
        raise ConfigError(f"--part: got it with {TURNS}, allowed: one of them")
    settings = TuneSettings(
        effort=effort_named(effort), budget_s=seconds(budget), weights=work.weights, resume=resume
    )
    target = resolve(sku)
    proves = settings.effort.proves
    notices(target, prove=proves)
    with open_evaluator(target, prove=proves) as evaluator:
        if (first := turns.likely() if turns is not None else 0) is not None:
            # Its processes take seconds to start, what is imported below another.
            problem = work.problems[first]
            anchor = space_for(target.sku.arch.name).default(problem.signature)
            evaluator.prepare(problem, [anchor])
        title = f"fa4gen tune: {work.name} on {target.sku.name}, {evaluator.source.value}, {effort}"
        with open_store(db) as store:
            view = _run(title, work.problems, (evaluator, store), settings, turns)
    emit(view, tables.tuning(view), as_json=as_json)
    if view.interrupted:
        raise fail("interrupted; the next run goes on from here", EXIT_INTERRUPTED)
    if turns is not None and not view.rows:
        say(f"nothing is left to tune: other processes have all {len(work.problems)} problems")
    elif not any(row.winner for row in view.rows):
        raise fail("no problem has a winner", EXIT_FAILED)


def _part(work: Workload, part: Part) -> Workload:
    problems = part.of(work.problems)
    if not problems:
        raise ConfigError(
            f"--part: got {part}, allowed: at most {len(work.problems)} parts, since workload "
            f"{work.name} has as many problems"
        )
    name = work.name if part.count == 1 else f"{work.name} {part}"
    return replace(work, name=name, problems=problems, weights=part.of(work.weights))


def _on_gpus(indices: Sequence[int], arguments: Sequence[str], *, as_json: bool) -> typer.Exit:
    outcomes = tune_on(indices, arguments)
    if as_json:
        typer.echo(to_json(merged(outcomes)))
    else:
        for outcome in outcomes:
            typer.echo(outcome.output, nl=False)
    return typer.Exit(exit_code(outcomes))


def _run(
    title: str,
    problems: Sequence[AttentionProblem],
    means: tuple[Evaluator, TuningStore],
    settings: TuneSettings,
    turns: Turns | None,
) -> TuneView:
    from fa4gen.cli.progress import shown
    from fa4gen.report import build
    from fa4gen.report.board import Board
    from fa4gen.tune import tune as run_tuner

    evaluator, store = means
    board = Board(title, problems)
    with shown(board) as listener:
        report = run_tuner(
            problems,
            evaluator=evaluator,
            store=store,
            settings=settings,
            listener=listener,
            turns=turns,
        )
    trials = [line.trials for line in board.lines]
    place = (evaluator.sku, evaluator.policy)
    return build.tuning(report, trials, place, evaluator.source, store.location)
