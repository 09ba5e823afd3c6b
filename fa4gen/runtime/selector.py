"""Which configuration to run: rows of the tuning table, nearest first, then the cycle model.

No torch and no database here: the rows are read once and kept in memory, so a selection costs
microseconds where it is remembered and 0.05 to 0.15 ms where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import NoFeasibleKernel
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.feasibility import check
from fa4gen.hardware import Sku, sibling_skus
from fa4gen.runtime.fitting import fit_splits
from fa4gen.runtime.selection import Rejected, Rung, Selection
from fa4gen.runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from fa4gen.db import DispatchRow

MAX_REMEMBERED = 4096
"""Selections kept; beyond it all are dropped and made again."""

SOURCES = (Source.MEASURED, Source.EMULATED, Source.MODELLED)
"""From the best founded down; the ladder is climbed with one source before the next."""

_TABLE_RUNGS = (Rung.EXACT, Rung.BUCKET, Rung.SIBLING)

Picker = Callable[[AttentionProblem], KernelConfig]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row that may stand for the problem asked."""

    row: DispatchRow
    distance_log2: float
    same_problem: bool
    sibling: int
    """Place of its SKU among the siblings; -1 for this very SKU."""

    @property
    def rung(self) -> Rung:
        if self.sibling >= 0:
            return Rung.SIBLING
        return Rung.EXACT if self.same_problem else Rung.BUCKET

    def __str__(self) -> str:
        row = self.row
        return (
            f"{row.origin.value} row {row.record_id}: {row.problem} on {row.sku}, "
            f"{row.source.value}, {row.policy}, config {row.config.config_id}"
        )


def distance_log2(left: AttentionProblem, right: AttentionProblem) -> float:
    """Euclidean distance in log2 of seqlen_q, seqlen_k and batch * num_heads_q.

    These three decide how many tiles there are and how long each takes. Only problems of one
    kernel signature are ever compared. 1 is a factor of 2 in one of them.
    """
    return math.dist(_place(left), _place(right))


class Selector:
    """Selections for one SKU; safe to use from several threads.

    The ladder, once for each source from measured to modelled:

    1. ``exact``    a row of the very problem;
    2. ``bucket``   the nearest row of the same signature within ``settings.radius_log2``;
    3. ``sibling``  likewise, from another SKU of the same arch;

    and then ``model``: what ``pick`` says. So no modelled number goes before a measured one of
    any rung. On one rung, rows of the preferred policy go first, then nearer ones, then the
    user's before the shipped. Every row is checked by ``feasibility`` again, and one of another
    shape gets as many splits as fill the SMs there (:func:`fa4gen.runtime.fitting.fit_splits`).

    Args:
        rows: the dispatch rows of any SKU; those of other archs are left out.
        sku: where the kernels will run.
        pick: the last rung; by default a :class:`fa4gen.runtime.model_picker.ModelPicker`.
        template_hash: identity of the template kernels are now made from; a row of another one
            is taken, with a note.
        stand_in: the GPU is unknown and ``sku`` is the nearest known one of its arch, so the rows
            of ``sku`` are a sibling's.
    """

    def __init__(
        self,
        rows: Iterable[DispatchRow],
        sku: Sku,
        *,
        settings: RuntimeSettings | None = None,
        pick: Picker | None = None,
        template_hash: str | None = None,
        stand_in: bool = False,
    ) -> None:
        self.sku = sku
        self.settings = RuntimeSettings() if settings is None else settings
        self._pick = _model_pick(sku) if pick is None else pick
        self._template_hash = template_hash
        ranked = [sku.name, *sibling_skus(sku)]
        self._ranks = {name: place - (not stand_in) for place, name in enumerate(ranked)}
        self._rows: dict[KernelSignature, list[DispatchRow]] = {}
        for row in rows:
            if row.sku in self._ranks:
                self._rows.setdefault(row.problem.signature, []).append(row)
        self._selections: dict[AttentionProblem, Selection] = {}

    def select(self, problem: AttentionProblem) -> Selection:
        """The configuration to run ``problem`` with.

        Raises:
            NoFeasibleKernel: no configuration fits; or ``settings.require_exact`` is set and the
                table has no row of this very problem.
        """
        found = self._selections.get(problem)
        if found is None:
            found = self._climb(problem)
            if len(self._selections) >= MAX_REMEMBERED:
                self._selections.clear()
            self._selections[problem] = found
        return found

    def _climb(self, problem: AttentionProblem) -> Selection:
        rejected: list[Rejected] = []
        candidates = self._candidates(problem)
        for source in SOURCES:
            for rung in _TABLE_RUNGS:
                for candidate in candidates:
                    if candidate.row.source is not source or candidate.rung is not rung:
                        continue
                    reason = self._refusal(problem, candidate)
                    if reason is None:
                        return self._taken(problem, candidate, rejected)
                    rejected.append(Rejected(rung, str(candidate), reason))
        if self.settings.require_exact:
            raise NoFeasibleKernel(_no_exact_row(problem, self.sku, rejected))
        return Selection(
            problem,
            self._pick(problem),
            Rung.MODEL,
            Source.MODELLED,
            rejected=tuple(rejected),
            notes=("no row of the table applies; run `fa4gen tune` for this problem",),
        )

    def _candidates(self, problem: AttentionProblem) -> list[_Candidate]:
        """Rows of the same signature within the radius, else the nearest; the best in front."""
        found = [
            _Candidate(
                row,
                distance_log2(problem, row.problem),
                row.problem == problem,
                self._ranks[row.sku],
            )
            for row in self._rows.get(problem.signature, ())
        ]
        near = [each for each in found if each.distance_log2 <= self.settings.radius_log2]
        if not near and found:
            near = [min(found, key=lambda each: (each.distance_log2, *self._order(each)))]
        return sorted(near, key=self._order)

    def _order(self, candidate: _Candidate) -> tuple[object, ...]:
        row = candidate.row
        return (
            row.policy != self.settings.policy,
            candidate.distance_log2,
            not candidate.same_problem,
            candidate.sibling,
            row.origin.value != "user",
            row.policy,
            row.problem.problem_id,
            SOURCES.index(row.source),
        )

    def _refusal(self, problem: AttentionProblem, candidate: _Candidate) -> str | None:
        """Why this row may not stand for ``problem``; ``None`` if it may."""
        if self.settings.require_exact and candidate.rung is not Rung.EXACT:
            return "not exact, and FA4GEN_REQUIRE_EXACT is set"
        limit = self.settings.radius_log2
        if candidate.distance_log2 > limit:
            return f"distance: got {candidate.distance_log2:.2f}, allowed: up to {limit:g} in log2"
        verdict = check(problem.signature, candidate.row.config, self.sku.arch)
        return None if verdict else f"infeasible: {verdict}"

    def _taken(
        self, problem: AttentionProblem, candidate: _Candidate, rejected: list[Rejected]
    ) -> Selection:
        row, notes = candidate.row, []
        config = fit_splits(row.config, row.problem, problem, self.sku)
        if config != row.config:
            notes.append(
                f"num_splits is {config.num_splits} instead of the row's {row.config.num_splits}: "
                "as many CTAs"
            )
        return Selection(
            problem,
            config,
            candidate.rung,
            row.source,
            row=row,
            distance_log2=candidate.distance_log2,
            rejected=tuple(rejected),
            notes=(*notes, *self._notes(row)),
        )

    def _notes(self, row: DispatchRow) -> Iterator[str]:
        theirs = row.evaluation.provenance.template_hash
        if row.source is not Source.MEASURED:
            yield f"the row is {row.source.value}, not measured: no measured row applies"
        if row.policy != self.settings.policy:
            yield f"timed under {row.policy}, preferred is {self.settings.policy}"
        if self._template_hash is not None and theirs != self._template_hash:
            yield (
                f"timed with template {theirs or 'unknown'}, the template is now "
                f"{self._template_hash}; the configuration still holds, its time may not"
            )


def _place(problem: AttentionProblem) -> tuple[float, float, float]:
    tiles = problem.batch * problem.num_heads_q
    return math.log2(problem.seqlen_q), math.log2(problem.seqlen_k), math.log2(tiles)


def _model_pick(sku: Sku) -> Picker:
    from fa4gen.runtime.model_picker import ModelPicker

    picker = ModelPicker(sku)
    return lambda problem: picker.pick(problem).config


def _no_exact_row(problem: AttentionProblem, sku: Sku, rejected: list[Rejected]) -> str:
    near = f"; nearest: {rejected[0].candidate} ({rejected[0].reason})" if rejected else ""
    return (
        f"{problem} on {sku.name}: got no exact row in the tuning table, required by "
        f"FA4GEN_REQUIRE_EXACT=1{near}; run `fa4gen tune` for it, or unset the variable"
    )
