"""``fa4gen bench``: the kernel a problem gets, side by side with the default."""

from __future__ import annotations

import typer

from fa4gen.cli.kernels import by_hand
from fa4gen.cli.machine import AUTO, resolve
from fa4gen.cli.options import (
    DbOption,
    JsonOption,
    KnobsOption,
    ProblemArgument,
    SkuOption,
    examples,
)
from fa4gen.cli.output import EXIT_FAILED, emit, fail
from fa4gen.cli.problem_text import parse_problem
from fa4gen.cli.session import notices, open_evaluator, open_store
from fa4gen.core.outcome import Outcome
from fa4gen.report import tables
from fa4gen.report.views import BenchView


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog=examples(
            "fa4gen bench b4 s4096 h32/8 d128 bf16 causal",
            "fa4gen bench s8192 h16 d64 --set exp2_poly_fraction=0.25 --json",
        )
    )(bench)


def bench(
    problem: ProblemArgument,
    knob: KnobsOption = None,
    sku: SkuOption = AUTO,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time the default kernel, the one the table picks, and one with knobs set by hand.

    Measured on the GPU, or modelled where there is none. Stores nothing.
    """
    from fa4gen.report import build
    from fa4gen.runtime.selector import Selector
    from fa4gen.runtime.settings import RuntimeSettings
    from fa4gen.space import space_for

    asked = parse_problem(problem)
    target = resolve(sku)
    with open_store(db, read_only=True) as store:
        table = store.dispatch_rows()
    selector = Selector(table, target.sku, settings=RuntimeSettings.from_environment())
    configs = {"default": space_for(target.sku.arch.name).default(asked.signature)}
    picked = selector.select(asked)
    configs[f"picked ({picked.rung.value})"] = picked.config
    if knob:
        configs["by hand"] = by_hand(configs["default"], knob, asked, target.sku)
    notices(target)
    distinct = list(dict.fromkeys(configs.values()))
    with open_evaluator(target) as evaluator:
        evaluator.prepare(asked, distinct)
        found = dict(zip(distinct, evaluator.shootout(asked, distinct), strict=True))
        place = (evaluator.sku, evaluator.policy)
    rows = tuple(
        build.evaluation_row(label, asked, config, found[config], place)
        for label, config in configs.items()
    )
    view = BenchView(asked, target.sku.name, str(place[1]), rows)
    emit(view, tables.bench(view), as_json=as_json)
    if any(evaluation.outcome is not Outcome.OK for evaluation in found.values()):
        raise fail("a kernel failed; its row says why", EXIT_FAILED)
