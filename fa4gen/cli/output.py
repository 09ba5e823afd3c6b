"""How commands speak: results on stdout (a table, or JSON), everything else on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.console import Console, RenderableType

from fa4gen.report.plain import to_json

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING = 3
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count."""

PIPE_WIDTH = 200
"""Columns for output that is not a terminal: wide enough that no cell is cut."""


def console(*, stderr: bool = False) -> Console:
    """A console for the stream as it is now (tests and pipes replace it)."""
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(
        file=stream, highlight=False, soft_wrap=False, width=PIPE_WIDTH if piped else None
    )


def emit(view: Any, drawing: RenderableType, *, as_json: bool) -> None:
    """Print a result: the view as JSON, or its drawing."""
    if as_json:
        typer.echo(to_json(view))
    else:
        console().print(drawing)


def say(message: str) -> None:
    """A notice for the reader of the terminal; never part of the result."""
    console(stderr=True).print(message, markup=False, soft_wrap=True)


def fail(message: str, code: int) -> typer.Exit:
    """Print one line on stderr and give the exit to raise."""
    say(f"fa4gen: {' '.join(message.split())}")
    return typer.Exit(code)
