"""Why a problem gets the kernel it gets, as plain values for the command line and for reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fa4gen.codegen import template_hash
from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.errors import UnknownName
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku, load_sku
from fa4gen.perf import Prediction, predict
from fa4gen.runtime.inputs import problem_in_memory
from fa4gen.runtime.selection import Selection
from fa4gen.runtime.selector import Selector
from fa4gen.runtime.settings import RuntimeSettings
from fa4gen.runtime.tables import load_rows
from fa4gen.space import space_for

if TYPE_CHECKING:
    from fa4gen.db import DispatchRow


@dataclass(frozen=True, slots=True)
class Explanation:
    """A selection with what a reader needs to judge it."""

    problem: AttentionProblem
    sku: str
    arch: str
    selection: Selection
    default: KernelConfig
    """What would run without a table; the anchor of every gain."""
    differences: dict[str, tuple[KnobValue, KnobValue]]
    """Knobs in which the selected configuration differs: name -> (selected, default)."""
    predicted: Prediction
    """The cycle model's word on the selected configuration."""
    default_predicted: Prediction
    num_rows: int
    """Rows of the table that were looked at, of all SKUs and shapes."""

    @property
    def measured_us(self) -> float | None:
        """Median of the row, where the row is measured and of this very shape."""
        row = self.selection.row
        timing = None if row is None else row.evaluation.timing
        if row is None or timing is None or row.source.value != "measured":
            return None
        return timing.median_us if row.problem == self.problem else None

    def lines(self) -> list[str]:
        """The explanation as text, one fact per line."""
        selection = self.selection
        text = [
            f"problem    {self.problem}",
            f"sku        {self.sku} ({self.arch}), {self.num_rows} rows in the table",
            f"selected   {selection.summary}",
        ]
        if selection.row is not None:
            text.append(f"row        {_row_line(selection.row)}")
        knobs = (f"{name}={mine} (default {theirs})" for name, (mine, theirs) in self._changes())
        text.append(f"knobs      {', '.join(knobs) or 'as the default'}")
        text.append(
            f"predicted  {self.predicted.time_us:.1f} us, bound by {self.predicted.bound_by}; "
            f"the default {self.default_predicted.time_us:.1f} us"
        )
        text += [f"note       {note}" for note in selection.notes]
        text += [
            f"rejected   {each.rung.value}: {each.candidate}: {each.reason}"
            for each in selection.rejected
        ]
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        selection = self.selection
        return {
            "problem": self.problem.to_dict(),
            "sku": self.sku,
            "arch": self.arch,
            "rung": selection.rung.value,
            "source": selection.source.value,
            "distance_log2": selection.distance_log2,
            "config_id": selection.config.config_id,
            "config": selection.config.to_dict(),
            "row": None if selection.row is None else selection.row.record_id,
            "differences": {name: list(pair) for name, pair in self._changes()},
            "measured_us": self.measured_us,
            "predicted_us": self.predicted.time_us,
            "default_predicted_us": self.default_predicted.time_us,
            "notes": list(selection.notes),
            "rejected": [asdict(each) for each in selection.rejected],
        }

    def _changes(self) -> Iterable[tuple[str, tuple[KnobValue, KnobValue]]]:
        return self.differences.items()


def explain(
    problem: AttentionProblem,
    sku: Sku | str,
    *,
    rows: Iterable[DispatchRow] | None = None,
    settings: RuntimeSettings | None = None,
) -> Explanation:
    """Which kernel ``problem`` gets on ``sku``, and why; needs neither a GPU nor torch.

    Head dimensions are rounded up first, as in a call: see :mod:`fa4gen.runtime.inputs`.

    Args:
        rows: the dispatch rows; by default those of the user's and the shipped table.
        settings: by default what the environment says.

    Raises:
        UnknownName: no such SKU.
        NoFeasibleKernel: no configuration fits, or no template is written for the arch.
    """
    problem = problem_in_memory(problem)
    sku = load_sku(sku) if isinstance(sku, str) else sku
    settings = RuntimeSettings.from_environment() if settings is None else settings
    table = load_rows() if rows is None else tuple(rows)
    selector = Selector(table, sku, settings=settings, template_hash=current_template(sku))
    selection = selector.select(problem)
    default = space_for(sku.arch.name).default(problem.signature)
    return Explanation(
        problem=problem,
        sku=sku.name,
        arch=sku.arch.name,
        selection=selection,
        default=default,
        differences=selection.config.differences(default),
        predicted=predict(problem, selection.config, sku),
        default_predicted=predict(problem, default, sku),
        num_rows=len(table),
    )


def current_template(sku: Sku) -> str | None:
    """Identity of the template that kernels for ``sku`` are made from; ``None`` without one."""
    try:
        return template_hash(sku.arch.name)
    except UnknownName:
        return None


def _row_line(row: DispatchRow) -> str:
    """Where a row comes from and what it says."""
    text = f"{row.origin.value} {row.record_id}: {row.problem} on {row.sku}, {row.policy}"
    if (timing := row.evaluation.timing) is not None:
        text += (
            f", {timing.median_us:.1f} us, gain over the default {timing.gain:.3f} "
            f"({timing.gain_low:.3f} to {timing.gain_high:.3f}, n={timing.n})"
        )
    return text
