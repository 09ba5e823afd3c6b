"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fa4gen.cli.machine import FALLBACK_SKU
from fa4gen.cli.problem_text import WORDS

ProblemArgument = Annotated[
    list[str],
    typer.Argument(metavar="PROBLEM", help=f"Attention problem, as the tables print it: {WORDS}."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SkuOption = Annotated[
    str,
    typer.Option(
        metavar="auto|NAME",
        help=f"GPU product, see list-skus; auto is the GPU in this machine, or {FALLBACK_SKU} if "
        "there is none.",
    ),
]
SkuFilter = Annotated[
    str | None, typer.Option("--sku", metavar="NAME", help="Only rows of this GPU product.")
]
DbOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="PATH",
        help="Tuning database: a path or an SQLAlchemy URL; default FA4GEN_DB, "
        "else the user's data folder.",
    ),
]
KnobsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KNOB=VALUE", help="A knob of the kernel, see list-knobs; may be repeated."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to stdout."),
]

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing found or infeasible, 130 interrupted."
)


def examples(*lines: str) -> str:
    """Closing text of a command's ``--help``: its examples, one per line, and the exit codes."""
    commands = "\n".join(f"    {line}" for line in lines)
    return f"Examples:\n\n{commands}\n\n{EXIT_CODES}"
