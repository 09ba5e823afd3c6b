"""``fa4gen study``: what each knob, or each sampler, is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fa4gen.cli import study_sampler
from fa4gen.cli.machine import AUTO, Target, resolve
from fa4gen.cli.options import JsonOption, SkuOption, examples
from fa4gen.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, emit, fail, say
from fa4gen.cli.problem_text import WORDS, parse_problem
from fa4gen.cli.session import notices, open_evaluator
from fa4gen.core.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from fa4gen.evaluate.contract import Evaluator
    from fa4gen.study import StudyPlan, StudyResult

KNOBS_COMMAND = "knobs"
STUDIES = ("exp2-split", KNOBS_COMMAND, "sampler", "plot")


class Studies(TyperGroup):
    """A group in which a word that is no command names knobs: ``fa4gen study tile_n ...``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word, or that for knobs with all the words."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return KNOBS_COMMAND, self.commands[KNOBS_COMMAND], args
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Studies,
    help="Studies: which share of exp2 is worth a polynomial, what a knob does, which sampler "
    "finds the best kernel soonest.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MeansOption = Annotated[
    bool | None,
    typer.Option(
        "--gpu/--trace",
        help="Measure on the GPU of this machine; or model by replaying what each compiled kernel "
        "executes, some ten seconds each. Otherwise times are modelled by formulas.",
    ),
]
"""``True``: measure. ``False``: replay. ``None``: formulas."""
TrialsOption = Annotated[
    int,
    typer.Option(
        min=1, help="Most combinations to try: all where they are no more, else a search."
    ),
]
BudgetOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="90s, 10m, 1h30m. Default: no limit.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="For results.csv, study.json, page and picture."),
]
ProblemWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROBLEM", help=f"Attention problem: {WORDS}."),
]


@app.command(
    "exp2-split",
    epilog=examples(
        "fa4gen study exp2-split --sku b200",
        "fa4gen study exp2-split --sku h200 --gpu --budget 2m s4096 b4 h32 d64",
        "fa4gen study exp2-split --sku b300 --trials 2000 --out split-b300",
        "fa4gen study exp2-split --sku b200 --trace --trials 40 --budget 20m",
    ),
)
def exp2_split(
    problem: ProblemWords = None,
    sku: SkuOption = AUTO,
    means: MeansOption = None,
    trials: TrialsOption = 200,
    budget: BudgetOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Speed against accuracy: which share of exp2 on the polynomial, of which degree, placed where,
    under which rescale threshold.

    Speed is measured with --gpu and modelled without. How exact a kernel is, is computed in NumPy
    as the kernel computes it; with --gpu its output is compared with float64 as well. The front is
    about the RMS error of O; the page has the fronts of other errors.
    """
    from fa4gen.study import DEFAULT_PROBLEM, exp2_split_plan

    target = _target(sku, gpu=means is True)
    asked = parse_problem(problem) if problem else DEFAULT_PROBLEM
    plan = exp2_split_plan(asked, target.sku.arch)
    folder = out or Path(f"study-exp2-split-{target.sku.name}")
    with _evaluator(target, means) as evaluator:
        _study(plan, evaluator, (trials, budget), folder, as_json=as_json)


@app.command(
    KNOBS_COMMAND,
    epilog=examples(
        "fa4gen study tile_n s4096 h16 d128",
        "fa4gen study tile_n,num_kv_stages --sku h200 --gpu b4 s4096 h16 d128 causal",
        "fa4gen study tile_m,tile_n,scheduler --trials 100 s8192 h16 d64",
    ),
)
def knobs(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KNOB[,KNOB...] [PROBLEM]",
            help=f"Knobs of the kernel, see list-knobs; then the problem: {WORDS}.",
        ),
    ],
    sku: SkuOption = AUTO,
    means: MeansOption = None,
    trials: TrialsOption = 200,
    budget: BudgetOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Speed over every value of the knobs, all others as in the default: `fa4gen study tile_n ...`.

    The word `knobs` may be left out. Values that cannot run are listed with the rule that says so.
    """
    from fa4gen.space import space_for
    from fa4gen.study import DEFAULT_PROBLEM, knobs_plan

    target = _target(sku, gpu=means is True)
    asked = parse_problem(words[1:]) if words[1:] else DEFAULT_PROBLEM
    chosen = [name.strip() for name in words[0].split(",") if name.strip()]
    known = [knob.name for knob in space_for(target.sku.arch.name).knobs]
    if len(chosen) == 1 and chosen[0] not in known:
        raise UnknownName("study or knob", chosen[0], [*STUDIES, *known])
    plan = knobs_plan(asked, target.sku.arch, chosen)
    folder = out or Path(f"study-{'-'.join(chosen)}-{target.sku.name}")
    with _evaluator(target, means) as evaluator:
        _study(plan, evaluator, (trials, budget), folder, as_json=as_json)


@app.command("plot", epilog=examples("fa4gen study plot study-exp2-split-h200"))
def plot(
    folder: Annotated[Path, typer.Argument(help="With results.csv and study.json of a study.")],
    as_json: JsonOption = False,
) -> None:
    """Make the page and the picture of a study again, also on another machine."""
    from fa4gen.cli.study_tables import drawn
    from fa4gen.study.files import read_study
    from fa4gen.study.sampler_files import is_sampler_study, read_sampler_study

    complete: bool
    if is_sampler_study(folder):
        races = read_sampler_study(folder)
        study_sampler.show(races, folder, as_json=as_json)
        complete = drawn(races, folder)
    else:
        result = read_study(folder)
        _show(result, folder, as_json=as_json)
        complete = drawn(result, folder)
    if not complete:
        raise fail("study plot: not everything could be drawn", EXIT_FAILED)


study_sampler.register(app)


def _target(sku: str, *, gpu: bool) -> Target:
    """The SKU; with its GPU only where one was asked for.

    Raises:
        ConfigError: a GPU was asked for, and there is none.
    """
    target = resolve(sku)
    if gpu and target.gpu is None:
        raise ConfigError(
            f"--gpu: got {target.notice}, allowed: a machine with the GPU of --sku; leave --gpu "
            "out, and times are modelled"
        )
    if gpu:
        return target
    return Target(target.sku, None, target.notice or "--gpu not given")


def _evaluator(target: Target, means: bool | None) -> Evaluator:
    """The GPU, the replay, or the formulas: see :data:`MeansOption`."""
    from fa4gen.evaluate import make_evaluator

    notices(target)
    if means is False:
        say("each kernel is compiled, emulated and replayed: some ten seconds each")
        return make_evaluator("traced", target.sku)
    return open_evaluator(target)


def _study(
    plan: StudyPlan,
    evaluator: Evaluator,
    limits: tuple[int, str | None],
    folder: Path,
    *,
    as_json: bool,
) -> None:
    """Carry it out, write its files, show it.

    Args:
        plan: What to try.
        evaluator: Who answers.
        limits: trials, and the budget as it was written.
        folder: For its files.
        as_json: Whether to print it as JSON.
    """
    from fa4gen.cli.study_progress import shown
    from fa4gen.cli.study_tables import drawn
    from fa4gen.cli.tune import seconds
    from fa4gen.study import Limits, carry_out
    from fa4gen.study.files import SweepWriter, write_study

    trials, budget = limits
    stop = Limits(trials=trials, budget_s=seconds(budget))
    title = f"study {plan.kind.value} of {plan.problem} on {evaluator.sku.name}"
    with shown(title) as shown_on:
        listener = SweepWriter(folder, plan.problem, evaluator.policy, shown_on)
        result = carry_out(plan, evaluator, limits=stop, listener=listener)
    write_study(result, folder)
    drawn(result, folder)
    _show(result, folder, as_json=as_json)
    for missing in getattr(evaluator, "not_modelled", ()):
        say(f"not modelled: {missing}")
    _finish(result, folder)


def _finish(result: StudyResult, folder: Path) -> None:
    from fa4gen.study import Ending

    if result.ending is Ending.INTERRUPTED:
        tried = len(result.tried)
        raise fail(f"interrupted; what {tried} trials found is in {folder}", EXIT_INTERRUPTED)
    if result.ending is Ending.BROKEN:
        raise fail(f"{result.message}; what was found before is in {folder}", EXIT_FAILED)
    if not result.timed:
        raise fail(f"no combination ran; {folder / 'results.csv'} says why", EXIT_FAILED)


def _show(result: StudyResult, folder: Path, *, as_json: bool) -> None:
    from fa4gen.cli.study_tables import study_json, study_table

    emit(study_json(result, folder), study_table(result, folder), as_json=as_json)
