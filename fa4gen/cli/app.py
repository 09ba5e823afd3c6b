"""The ``fa4gen`` command: every group of commands put together, and one place for errors."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fa4gen import __version__
from fa4gen.cli import (
    bench,
    catalog,
    db,
    doctor,
    emulate,
    kernels,
    predict,
    replay,
    report,
    study,
    table,
    tune,
)
from fa4gen.cli.options import EXIT_CODES
from fa4gen.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOTHING, EXIT_USAGE, fail
from fa4gen.core.errors import (
    ConfigError,
    Fa4genError,
    NoFeasibleKernel,
    ProblemError,
    UnknownName,
)

TRACEBACK_VARIABLE = "FA4GEN_TRACEBACK"
"""Set to 1, errors keep their Python traceback."""


def exit_code(error: Fa4genError) -> int:
    """The exit code that stands for a library error."""
    if isinstance(error, NoFeasibleKernel):
        return EXIT_NOTHING
    if isinstance(error, UnknownName | ProblemError | ConfigError):
        return EXIT_USAGE
    return EXIT_FAILED


class Commands(TyperGroup):
    """A group that turns errors into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise fail("interrupted", EXIT_INTERRUPTED) from None
        except Fa4genError as error:
            if os.environ.get(TRACEBACK_VARIABLE) == "1":
                raise
            raise fail(str(error), exit_code(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            if os.environ.get(TRACEBACK_VARIABLE) == "1" or error.filename is None:
                raise
            raise fail(f"{error.filename}: {error.strerror}", EXIT_FAILED) from None


app = typer.Typer(
    name="fa4gen",
    cls=Commands,
    help="Generate, check, time and dispatch FlashAttention-4-style attention kernels.",
    epilog=f"Start with: fa4gen doctor, then fa4gen tune.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fa4gen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Generate, check, time and dispatch FlashAttention-4-style attention kernels."""


for group in (tune, table, report, kernels, predict, emulate, bench, catalog, doctor, replay):
    group.register(app)
app.add_typer(db.app, name="db")
app.add_typer(study.app, name="study")


def main() -> None:
    """Run the command line; the console script."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    app(prog_name="fa4gen")
