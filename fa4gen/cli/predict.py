"""``fa4gen predict``: how long will a kernel take, and what bounds it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fa4gen.cli.kernels import by_hand
from fa4gen.cli.machine import AUTO, resolve
from fa4gen.cli.options import JsonOption, KnobsOption, ProblemArgument, SkuOption, examples
from fa4gen.cli.output import emit
from fa4gen.cli.problem_text import parse_problem

if TYPE_CHECKING:
    from fa4gen.perf import Prediction

TraceOption = Annotated[
    bool,
    typer.Option(
        "--trace",
        help="Compile the kernel and replay what it executes in the emulator, instead of the "
        "formulas that the tuner ranks with.",
    ),
]
ClockOption = Annotated[
    float | None,
    typer.Option(
        metavar="MHZ",
        min=1.0,
        help="SM clock. Default: what the power cap is expected to leave this kernel.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog=examples(
            "fa4gen predict b4 s4096 h16 d128",
            "fa4gen predict --sku b300 b2 s8192 h64/8 d128 causal --set exp2_poly_fraction=0",
            "fa4gen predict --sku b200 --trace b2 s8192 h64 d128",
        )
    )(predict)


def predict(
    problem: ProblemArgument,
    knob: KnobsOption = None,
    sku: SkuOption = AUTO,
    trace: TraceOption = False,
    clock: ClockOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict a kernel's time with a cycle model, and say which pipe is busy how long."""
    from fa4gen.report import predictions
    from fa4gen.space import space_for

    asked, target = parse_problem(problem), resolve(sku).sku
    default = space_for(target.arch.name).default(asked.signature)
    config = by_hand(default, knob or [], asked, target)
    found: Prediction
    left_out: tuple[str, ...] = ()
    if trace:
        from fa4gen.evaluate.traced import predict_by_trace

        traced = predict_by_trace(asked, config, target, clock)
        found, left_out = traced.prediction, traced.not_modelled
    else:
        from fa4gen.perf import predict as by_formulas

        found = by_formulas(asked, config, target, clock)
    view = predictions.PredictionView.of(asked, config, target, found, left_out, traced=trace)
    emit(view, predictions.table(view), as_json=as_json)
