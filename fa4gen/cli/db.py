"""``fa4gen db``: move, merge and check tuning databases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa4gen.cli.options import EXIT_CODES, DbOption, JsonOption, SkuFilter, examples
from fa4gen.cli.output import EXIT_FAILED, EXIT_NOTHING, emit, fail
from fa4gen.cli.session import open_store
from fa4gen.hardware import load_sku
from fa4gen.report import tables
from fa4gen.report.views import CheckView, TransferView

if TYPE_CHECKING:
    from fa4gen.db import TransferReport

app = typer.Typer(
    help="Move, merge and check tuning databases.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
    rich_markup_mode="markdown",
)


def _emit(verb: str, report: TransferReport, where: tuple[str, str], *, as_json: bool) -> None:
    source, target = where
    view = TransferView(
        verb, source, target, report.rows, report.known, report.winners, report.skipped
    )
    emit(view, tables.transfer(view), as_json=as_json)


@app.command(
    epilog=examples(
        "fa4gen db export h200.jsonl --sku h200",
        "fa4gen db export winners.jsonl --winners",
    )
)
def export(
    file: Annotated[Path, typer.Argument(help="JSON-Lines file to write.")],
    sku: SkuFilter = None,
    winners: Annotated[
        bool, typer.Option("--winners", help="Only the rows that the dispatch table points at.")
    ] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write this database's measurements as JSON Lines, for review or for another machine."""
    name = load_sku(sku).name if sku is not None else None
    with open_store(db, read_only=True) as store:
        report = store.export_jsonl(file, sku=name, winners_only=winners)
        _emit("exported", report, (store.location, str(file)), as_json=as_json)
    if not report.rows:
        raise fail("the database has no such rows", EXIT_NOTHING)


@app.command("import", epilog=examples("fa4gen db import h200.jsonl"))
def import_(
    file: Annotated[Path, typer.Argument(help="JSON-Lines file that `db export` wrote.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the whole file for one bad line.")
    ] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the rows of a JSON-Lines file; rows that are here already stay as they are."""
    with open_store(db) as store:
        report = store.import_jsonl(file, strict=strict)
        _emit("imported", report, (str(file), store.location), as_json=as_json)
    if report.skipped:
        raise fail(f"{len(report.skipped)} lines were refused", EXIT_FAILED)


@app.command(epilog=examples("fa4gen db merge colleague.sqlite", "fa4gen db merge a.sqlite --db b"))
def merge(
    other: Annotated[str, typer.Argument(help="The other database: a path or an SQLAlchemy URL.")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add everything another database has; of two winners for a problem the later stays."""
    with open_store(db) as store:
        report = store.merge(other)
        _emit("merged", report, (other, store.location), as_json=as_json)
    if report.skipped:
        raise fail(f"{len(report.skipped)} rows were refused", EXIT_FAILED)


@app.command(epilog=examples("fa4gen db check", "fa4gen db check --db team.sqlite --json"))
def check(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Check that every stored row is whole and still means what it did."""
    with open_store(db, read_only=True) as store:
        problems = store.check()
        view = CheckView(store.location, store.schema_revision, tuple(problems))
    emit(view, tables.check(view), as_json=as_json)
    if problems:
        raise typer.Exit(EXIT_FAILED)
