"""What there is to choose from: ``list-skus``, ``list-knobs``."""

from __future__ import annotations

from typing import Annotated

import typer

from fa4gen.cli.machine import AUTO, look, resolve
from fa4gen.cli.options import JsonOption, SkuOption, examples
from fa4gen.cli.output import emit
from fa4gen.cli.problem_text import WORDS, parse_problem
from fa4gen.feasibility import supported_archs
from fa4gen.hardware import Sku, list_skus, load_sku
from fa4gen.report import tables
from fa4gen.report.views import KnobView, SkuView

DEFAULT_PROBLEM = "b1 s4096 h32/8 d128 bf16 causal"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("list-skus", epilog=examples("fa4gen list-skus", "fa4gen list-skus --json"))(
        list_skus_command
    )
    app.command(
        "list-knobs",
        epilog=examples(
            "fa4gen list-knobs",
            "fa4gen list-knobs b1 s512 h16 d64 bf16 dense",
            "fa4gen list-knobs --json | jq '.[].name'",
        ),
    )(list_knobs_command)


def list_skus_command(as_json: JsonOption = False) -> None:
    """List the GPU products fa4gen knows."""
    here = {gpu.sku.name for gpu in look().gpus if gpu.sku is not None}
    view = tuple(_sku_view(load_sku(name), here) for name in list_skus())
    emit(view, tables.skus(view), as_json=as_json)


def _sku_view(sku: Sku, here: set[str]) -> SkuView:
    return SkuView(
        name=sku.name,
        product=sku.product,
        arch=sku.arch.name,
        sm_count=sku.sm_count,
        boost_clock_mhz=sku.boost_clock_mhz,
        peak_tflops=sku.peak_tflops,
        dram_gbps=sku.dram_gbps,
        l2_bytes=sku.l2_bytes,
        templates=sku.arch.name in supported_archs(),
        here=sku.name in here,
    )


def list_knobs_command(
    problem: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROBLEM", help=f"Whose default kernel to mark: {WORDS}."),
    ] = None,
    sku: SkuOption = AUTO,
    as_json: JsonOption = False,
) -> None:
    """List the knobs of a kernel: values, meaning, and why the range ends where it does."""
    from fa4gen.space import space_for

    space = space_for(resolve(sku).sku.arch.name)
    asked = parse_problem(problem or [DEFAULT_PROBLEM])
    default = space.default(asked.signature).to_dict()
    view = tuple(
        KnobView(knob.name, tuple(knob.values), default[knob.name], knob.meaning, knob.why)
        for knob in space.knobs
    )
    emit(view, tables.knobs(view), as_json=as_json)
