"""A cycle model's prediction: as plain values, and drawn."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku
from fa4gen.perf import Prediction
from fa4gen.report import build
from fa4gen.report.tables import MODELLED_NOTICE, grid

NOT_PIPES = frozenset({"block", "tile_overhead", "total"})
"""What a breakdown says besides how long each pipe is busy."""


@dataclass(frozen=True, slots=True)
class PredictionView:
    """What a model expects of one kernel on one problem."""

    problem: AttentionProblem
    sku: str
    changed: dict[str, KnobValue]
    """Knobs that differ from the default's."""
    model: str
    """``formulas`` or ``trace``."""
    time_us: float
    tflops: float
    clock_mhz: float
    bound_by: str
    busy: dict[str, float]
    """Cycles that each pipe is in use, mean over the SMs; most first."""
    block_cycles: float
    """One KV block of a query tile."""
    tile_overhead_cycles: float
    """A query tile besides its blocks."""
    total_cycles: float
    not_modelled: tuple[str, ...]

    @classmethod
    def of(
        cls,
        problem: AttentionProblem,
        config: KernelConfig,
        sku: Sku,
        prediction: Prediction,
        not_modelled: tuple[str, ...],
        *,
        traced: bool,
    ) -> PredictionView:
        """The view of a prediction."""
        pipes = {k: v for k, v in prediction.breakdown.items() if k not in NOT_PIPES and v > 0}
        return cls(
            problem=problem,
            sku=sku.name,
            changed=build.changed(problem, config, sku),
            model="trace" if traced else "formulas",
            time_us=prediction.time_us,
            tflops=problem.flops / prediction.time_us * 1e-6,
            clock_mhz=prediction.clock_mhz,
            bound_by=prediction.bound_by,
            busy=dict(sorted(pipes.items(), key=lambda item: -item[1])),
            block_cycles=prediction.breakdown["block"],
            tile_overhead_cycles=prediction.breakdown["tile_overhead"],
            total_cycles=prediction.breakdown["total"],
            not_modelled=not_modelled,
        )


def table(view: PredictionView) -> RenderableType:
    """The view as text: the time, then the pipes by how busy they are."""
    knobs = " ".join(f"{name}={value}" for name, value in view.changed.items()) or "the default"
    how = "replayed from the emulator" if view.model == "trace" else "by formulas"
    rows = grid("pipe", "cycles", "busy", right=frozenset({"cycles", "busy"}))
    for pipe, cycles in view.busy.items():
        rows.add_row(pipe, f"{cycles:,.0f}", f"{cycles / view.total_cycles:.0%}")
    text = [
        f"{view.problem} on {view.sku}, {knobs}",
        f"{view.time_us:.1f} us, {view.tflops:.0f} TFLOP/s at {view.clock_mhz:.0f} MHz, "
        f"modelled ({how}); bound by {view.bound_by}",
        f"{view.block_cycles:,.0f} cycles a KV block; a query tile takes "
        f"{view.tile_overhead_cycles:,.0f} besides",
    ]
    left_out = [Text(f"not modelled: {'; '.join(view.not_modelled)}")] if view.not_modelled else []
    return Group(*map(Text, text), "", rows, "", *left_out, Text(MODELLED_NOTICE))
