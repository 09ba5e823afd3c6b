"""``fa4gen report``: one HTML page about a tuning database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa4gen.cli.options import DbOption, JsonOption, SkuFilter, examples
from fa4gen.cli.output import EXIT_NOTHING, emit, fail, say
from fa4gen.cli.session import open_store
from fa4gen.core.errors import ReportError
from fa4gen.core.files import check_writable
from fa4gen.hardware import load_sku

if TYPE_CHECKING:
    from fa4gen.db import TuningStore
    from fa4gen.report.page.gather import Gathered

PEERS_SUFFIX = ".peers.csv"
"""What a file of peers beside the database is called, after the database's stem."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog=examples(
            "fa4gen report",
            "fa4gen report --db team.sqlite --sku h200 --peers peers.csv --out h200.html",
            "fa4gen report --studies studies.sqlite && optuna-dashboard sqlite:///studies.sqlite",
            "fa4gen report --json | jq '.report.problems[].verdict'",
        )
    )(report)


def report(
    db: DbOption = None,
    sku: SkuFilter = None,
    peers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="CSV of benchmarks/peers.py to compare winners with; may be repeated. Default: "
            f"STEM{PEERS_SUFFIX} beside the database STEM.sqlite, where there is one.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")
    ] = Path("report.html"),
    studies: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the trials as Optuna studies, for optuna-dashboard; takes some 30 ms "
            "a trial.",
        ),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Show the page in the browser.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about a tuning database: winners, gains, peers, knobs, failures.

    The page is one file that needs no network, and no server: winner against default and peers for
    every problem, speed-up over shapes, what bounds each kernel, which knobs matter, why trials
    failed, and where every number is from. Rows that fa4gen ships are in it only where they were
    imported.
    """
    name = load_sku(sku).name if sku is not None else None
    with open_store(db, read_only=True, with_shipped=False) as store:
        files = _peer_files(peers, store)
        _check_outputs([out, *([studies] if studies else [])], [Path(store.location), *files])
        gathered = _gathered(store, name, files)
        _write(gathered, (out, studies), as_json=as_json)
    if open_page:
        import webbrowser

        webbrowser.open(out.absolute().as_uri())


def _peer_files(given: Sequence[Path] | None, store: TuningStore) -> list[Path]:
    """The files asked for, else the one beside the database."""
    if given:
        return list(given)
    location = Path(store.location)
    beside = location.with_name(f"{location.stem}{PEERS_SUFFIX}")
    if not (location.is_file() and beside.is_file()):
        return []
    say(f"peers: {beside}")
    return [beside]


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse what cannot be written, or must not be, before minutes are spent on it.

    Raises:
        ReportError: a file to write is one to read, two are one, or a folder takes no files.
    """
    taken = [path.resolve() for path in inputs]
    for path in outputs:
        if path.resolve() in taken:
            raise ReportError(
                f"report: got {path} to write, which is read or written by the same command; "
                f"allowed: another file; name one with --out or --studies"
            )
        taken.append(path.resolve())
        try:
            check_writable(path)
        except OSError as error:
            raise ReportError(
                f"report: {path} cannot be written: {error.strerror}; name a file in a folder "
                f"where you may write"
            ) from error


def _gathered(store: TuningStore, sku: str | None, files: Sequence[Path]) -> Gathered:
    from fa4gen.report.page.gather import gather
    from fa4gen.report.page.peers import read_peers

    found = gather(store, sku=sku, peers=read_peers(files))
    if not found.report.problems and not found.report.skipped:
        rows = "rows" if sku is None else f"rows of {sku}"
        raise fail(f"{store.location}: no {rows} to report; `fa4gen tune` makes some", EXIT_NOTHING)
    for file in found.report.peer_files:
        if file.note:
            say(f"peers {file.file}: {file.note}")
    return found


def _write(gathered: Gathered, files: tuple[Path, Path | None], *, as_json: bool) -> None:
    from fa4gen.report.page.render import write
    from fa4gen.report.page.summary import summary
    from fa4gen.report.page.views import WrittenReport
    from fa4gen.tune.history import write_studies

    out, studies = files
    size = write(gathered.report, out)
    if studies is not None:
        write_studies(gathered.studies, studies)
    written = WrittenReport(str(out), size, str(studies or ""), gathered.report)
    emit(written, summary(written), as_json=as_json)
