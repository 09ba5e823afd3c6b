"""Kernels as text: ``render`` any configuration, ``export`` the one a problem gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from fa4gen.cli.machine import AUTO, resolve
from fa4gen.cli.options import (
    DbOption,
    JsonOption,
    KnobsOption,
    OutputOption,
    ProblemArgument,
    SkuOption,
    examples,
)
from fa4gen.cli.output import emit
from fa4gen.cli.problem_text import parse_problem
from fa4gen.cli.session import open_store
from fa4gen.core.config import KNOB_NAMES, KernelConfig
from fa4gen.core.errors import ConfigError, NoFeasibleKernel, UnknownName
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku
from fa4gen.report import tables
from fa4gen.report.views import KernelView


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(
        epilog=examples(
            "fa4gen render s4096 h32/8 d128 causal",
            "fa4gen render s4096 h16 d64 --set tile_n=96 --set pingpong=false -o kernel.py",
        )
    )(render)
    app.command(
        epilog=examples(
            "fa4gen export b4 s4096 h32/8 d128 bf16 causal -o attention.py",
            "fa4gen export s16384 h16 d64 --sku h200 > attention.py",
        )
    )(export)


def knobs(base: KernelConfig, words: Sequence[str]) -> KernelConfig:
    """``base`` with the knobs that ``KNOB=VALUE`` words set.

    Raises:
        ConfigError: not of that form, or an illegal value.
        UnknownName: no such knob.
    """
    values: dict[str, Any] = base.to_dict()
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--set: got {word!r}, allowed: KNOB=VALUE, such as tile_n=96")
        if name not in KNOB_NAMES:
            raise UnknownName("knob", name, KNOB_NAMES)
        values[name] = _value(name, text, values[name])
    return KernelConfig.from_dict(values)


def by_hand(
    base: KernelConfig, words: Sequence[str], problem: AttentionProblem, sku: Sku
) -> KernelConfig:
    """As :func:`knobs`, and able to run.

    Where that takes it, knobs that are not named follow: registers a tile, turns the consumers, the
    scheduler splits of the keys.

    Raises:
        NoFeasibleKernel: it cannot; with every reason.
    """
    from fa4gen.feasibility import canonicalise, check

    config = knobs(base, words)
    verdict = check(problem.signature, config, sku.arch)
    if verdict:
        return config
    followed = canonicalise(problem.signature, config, sku.arch)
    named = {word.partition("=")[0] for word in words}
    kept = not named & set(followed.differences(config))
    if kept and check(problem.signature, followed, sku.arch):
        return followed
    reasons = "; ".join(reason.message for reason in verdict.reasons)
    raise NoFeasibleKernel(f"{problem} on {sku.name}: {reasons}")


def _value(name: str, text: str, like: Any) -> Any:
    """``text`` as the type of ``like``.

    Raises:
        ConfigError: it cannot be one.
    """
    if isinstance(like, bool):
        if text.lower() not in {"true", "false"}:
            raise ConfigError(f"{name}: got {text!r}, allowed: true or false")
        return text.lower() == "true"
    if isinstance(like, str):
        return text
    try:
        return type(like)(text)
    except ValueError:
        kind = "an integer" if isinstance(like, int) else "a number"
        raise ConfigError(f"{name}: got {text!r}, allowed: {kind}") from None


def render(
    problem: ProblemArgument,
    knob: KnobsOption = None,
    sku: SkuOption = AUTO,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Render a kernel as a Python module: the default for a problem, with knobs set by hand."""
    from fa4gen.space import space_for

    asked = parse_problem(problem)
    target = resolve(sku).sku
    config = by_hand(
        space_for(target.arch.name).default(asked.signature), knob or [], asked, target
    )
    _write(asked, config, target, output, as_json=as_json)


def export(
    problem: ProblemArgument,
    sku: SkuOption = AUTO,
    db: DbOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the kernel that a problem gets as one file that runs without fa4gen."""
    from fa4gen.runtime.selector import Selector
    from fa4gen.runtime.settings import RuntimeSettings

    asked = parse_problem(problem)
    target = resolve(sku).sku
    with open_store(db, read_only=True) as store:
        rows = store.dispatch_rows()
    selector = Selector(rows, target, settings=RuntimeSettings.from_environment())
    _write(asked, selector.select(asked).config, target, output, as_json=as_json)


def _write(
    problem: AttentionProblem,
    config: KernelConfig,
    sku: Sku,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    from fa4gen.codegen import render as render_kernel
    from fa4gen.report import build

    generated = render_kernel(problem.signature, config, sku.arch)
    if output is not None:
        output.write_text(generated.source, encoding="utf-8")
    elif not as_json:
        typer.echo(generated.source, nl=not generated.source.endswith("\n"))
        return
    view = KernelView(
        problem=problem,
        sku=sku.name,
        target=generated.target,
        module_name=generated.module_name,
        template_hash=generated.template_hash,
        config=config,
        changed=build.changed(problem, config, sku),
        path=str(output) if output is not None else "",
        source="" if output is not None else generated.source,
    )
    emit(view, tables.kernel(view), as_json=as_json)
