"""From a tuning database to the views of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fa4gen import __version__
from fa4gen.core.errors import UnknownName
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import DispatchRow, StoredEvaluation, TuningStore
from fa4gen.hardware import Sku, load_sku
from fa4gen.report.page.failures import failures, place_of
from fa4gen.report.page.heatmaps import geometric_mean, heat_map
from fa4gen.report.page.knobs import importance, knob_uses
from fa4gen.report.page.peers import PeerTable
from fa4gen.report.page.problems import VERDICTS, Known, problem_view
from fa4gen.report.page.stacks import stacks
from fa4gen.report.page.views import Place, PlaceView, ProblemView, ReportView
from fa4gen.space import SearchSpace, space_for
from fa4gen.tune.history import History, histories

NO_PEERS = PeerTable({}, {})

Key = tuple[Place, AttentionProblem]


@dataclass(frozen=True)
class Gathered:
    """A report, and the studies it speaks of."""

    report: ReportView
    studies: tuple[History, ...]


def gather(store: TuningStore, *, sku: str | None = None, peers: PeerTable = NO_PEERS) -> Gathered:
    """Everything the page says of a database.

    Args:
        store: the database; what it lays beneath its own rows is shown too.
        sku: only rows of this one.
        peers: what to compare winners with.

    Raises:
        StoreError: the database cannot be read.
    """
    stored = store.evaluations(sku=sku)
    winners = {(_place(row), row.problem): row for row in store.dispatch_rows(sku=sku)}
    rows: dict[Key, list[StoredEvaluation]] = {}
    for row in stored:
        rows.setdefault((place_of(row), row.problem), []).append(row)
    keys = sorted(rows.keys() | winners.keys(), key=_order)
    configs = {row.config.config_id: row.config for row in stored}
    studies = histories(stored)
    places, problems = [], []
    for place in dict.fromkeys(place for place, _ in keys):
        known = Known(place, *_sku_and_space(place.sku), peers, configs)
        mine = [
            problem_view(
                problem, rows.get((place, problem), []), winners.get((place, problem)), known
            )
            for where, problem in keys
            if where == place
        ]
        won = [row for (where, _), row in winners.items() if where == place]
        there = [history for history in studies if _place_of_study(history) == place]
        places.append(_place_view(known, mine, won, there))
        problems += mine
    used = [(view.problem, view.peers.gpu) for view in problems if view.peers is not None]
    report = ReportView(
        database=store.location,
        schema_revision=store.schema_revision,
        fa4gen=__version__,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        filtered="" if sku is None else f"rows of {sku} only",
        places=tuple(places),
        problems=tuple(problems),
        failures=failures(stored),
        stacks=stacks(stored, winners.values()),
        peer_files=peers.files(used),
        skipped=tuple(str(row) for row in store.skipped),
    )
    return Gathered(report, tuple(studies))


def _place(row: DispatchRow) -> Place:
    return Place(row.sku, row.source, str(row.policy))


def _place_of_study(history: History) -> Place:
    key = history.key
    return Place(key.sku, key.source, str(key.policy))


def _order(key: Key) -> tuple[object, ...]:
    """Places by name; in each, problems by head dimension, mask, then size."""
    place, problem = key
    return (
        place,
        problem.head_dim,
        problem.head_dim_v,
        problem.causal,
        problem.seqlen_q,
        problem.seqlen_k,
        problem.batch,
        str(problem),
    )


def _sku_and_space(name: str) -> tuple[Sku | None, SearchSpace | None]:
    try:
        sku = load_sku(name)
    except UnknownName:
        return None, None
    try:
        return sku, space_for(sku.arch.name)
    except UnknownName:
        return sku, None


def _place_view(
    known: Known,
    problems: Sequence[ProblemView],
    winners: Sequence[DispatchRow],
    studies: Sequence[History],
) -> PlaceView:
    trials: Counter[str] = Counter()
    for view in problems:
        trials.update(view.trials)
    verdicts = Counter(view.verdict for view in problems)
    won = [view for view in problems if view.timing is not None]
    gains = [(view.problem, view.timing.gain) for view in won if view.timing is not None]
    peers = [(view.problem, view.peers.best) for view in won if view.peers is not None]
    largest = max(won, key=lambda view: view.timing.gain if view.timing else 0.0, default=None)
    space = known.space
    choices = [(row.problem, row.config) for row in winners]
    return PlaceView(
        place=known.place,
        product="" if known.sku is None else known.sku.product,
        problems=len(problems),
        verdicts={name: verdicts[name] for name in VERDICTS},
        trials={
            outcome.value: trials[outcome.value] for outcome in Outcome if trials[outcome.value]
        },
        geomean_gain=geometric_mean(gain for _, gain in gains),
        largest_gain=None if largest is None else largest.timing,
        defaults_from="" if space is None else space.defaults_from,
        peer_cells=len(peers),
        peer_wins=sum(best.speedup_low > 1 for _, best in peers),
        geomean_peer=geometric_mean(best.speedup for _, best in peers),
        bounds=_bounds(problems),
        gains=heat_map(gains),
        against_peers=heat_map([(problem, best.speedup) for problem, best in peers]),
        importance=() if space is None else importance(studies),
        knobs=() if space is None else knob_uses(space, choices, studies),
        outside=sum(history.outside for history in studies),
    )


def _bounds(problems: Sequence[ProblemView]) -> dict[str, int]:
    """Winners by what bounds them, the most frequent first."""
    counted = Counter(view.bound.bound_by for view in problems if view.bound is not None)
    return dict(counted.most_common())
