"""Reading the dispatch table: ``show``, ``explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from fa4gen.cli.machine import AUTO, resolve
from fa4gen.cli.options import DbOption, JsonOption, ProblemArgument, SkuFilter, SkuOption, examples
from fa4gen.cli.output import EXIT_NOTHING, emit, fail
from fa4gen.cli.problem_text import parse_problem
from fa4gen.cli.session import open_store
from fa4gen.core.errors import UnknownName
from fa4gen.core.outcome import Source
from fa4gen.hardware import load_sku
from fa4gen.report import tables
from fa4gen.report.views import TableView


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(
        epilog=examples(
            "fa4gen show",
            "fa4gen show --sku h200 --source measured",
            "fa4gen show --json | jq '.rows[].problem.text'",
        )
    )(show)
    app.command(
        epilog=examples(
            "fa4gen explain b4 s4096 h32/8 d128 bf16 causal",
            "fa4gen explain s1x8192 h32/8 d128 --sku h200 --json",
        )
    )(explain)


def show(
    sku: SkuFilter = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="measured|modelled", help="Only rows with this behind them."),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the dispatch table: the winner of each problem that was tuned."""
    from fa4gen.report import build

    wanted = _source(source)
    name = load_sku(sku).name if sku is not None else None
    with open_store(db, read_only=True) as store:
        rows = store.dispatch_rows(sku=name, source=wanted)
        database = store.location
    view = TableView(database, build.dispatch_rows(rows))
    if not rows and not as_json:
        raise fail(f"{database}: no rows to show; `fa4gen tune` makes some", EXIT_NOTHING)
    emit(view, tables.table(view), as_json=as_json)
    if not rows:
        raise typer.Exit(EXIT_NOTHING)


def _source(text: str | None) -> Source | None:
    """The source of this name.

    Raises:
        UnknownName: there is none.
    """
    if text is None:
        return None
    if text not in {source.value for source in Source}:
        raise UnknownName("source", text, (source.value for source in Source))
    return Source(text)


def explain(
    problem: ProblemArgument,
    sku: SkuOption = AUTO,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain which kernel a problem gets: by which rung, and what was rejected and why."""
    from fa4gen.report import build
    from fa4gen.runtime.explanation import explain as explain_selection

    asked = parse_problem(problem)
    target = resolve(sku)
    with open_store(db, read_only=True) as store:
        rows = store.dispatch_rows()
    view = build.selection(explain_selection(asked, target.sku, rows=rows), target.sku)
    emit(view, tables.selection(view), as_json=as_json)
