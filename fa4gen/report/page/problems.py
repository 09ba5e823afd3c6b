"""One row of the page: a problem, what won it, and everything needed to trust that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import Fa4genError
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import DispatchRow, StoredEvaluation
from fa4gen.hardware import Sku
from fa4gen.perf import MODEL_VERSION, Prediction, predict
from fa4gen.report.page.knobs import default_kernel
from fa4gen.report.page.peers import PeerTable
from fa4gen.report.page.views import (
    BoundView,
    ChangedKnob,
    CheckView,
    Fact,
    PeersView,
    PipeView,
    Place,
    ProblemView,
)
from fa4gen.report.page.words import when
from fa4gen.report.tables import knob_text
from fa4gen.report.views import TimingView
from fa4gen.space import SearchSpace

FASTER, STAYS, UNPROVEN, NONE = "faster", "default stays", "not proven", "no winner"
VERDICTS = (FASTER, STAYS, UNPROVEN, NONE)
"""What may be said of a problem."""

TOTALS = frozenset({"block", "tile_overhead", "total"})
"""What a prediction's breakdown has besides pipes."""


@dataclass(frozen=True)
class Known:
    """What the rows of one place are read with."""

    place: Place
    sku: Sku | None
    """``None`` for a SKU that this fa4gen does not know."""
    space: SearchSpace | None
    peers: PeerTable
    configs: Mapping[str, KernelConfig]
    """Every configuration of the database by its id."""


def problem_view(
    problem: AttentionProblem,
    rows: Sequence[StoredEvaluation],
    winner: DispatchRow | None,
    known: Known,
) -> ProblemView:
    """The view of one problem in one place.

    Args:
        problem: the problem.
        rows: its trials, oldest first.
        winner: its row of the dispatch table, if it has one.
        known: what is known of the place.
    """
    trials = dict(Counter(row.evaluation.outcome.value for row in rows))
    configs = len({row.config.config_id for row in rows})
    timing = None if winner is None else timing_view(problem, winner.evaluation)
    if winner is None or timing is None:
        return ProblemView(
            place=known.place, problem=problem, verdict=NONE, trials=trials, configs=configs,
            timing=None, default_us=None, peak_share=None, config_id="", changed=(), check=None,
            bound=None, bound_note="", peers=None, origin="", provenance=(),
            notes=tuple(_why_none(rows)),
        )  # fmt: skip
    default, notes = _default(problem, winner, known)
    changed = {} if default is None else winner.config.differences(default)
    bound, bound_note = _bound(winner, known)
    return ProblemView(
        place=known.place,
        problem=problem,
        verdict=_verdict(timing, unchanged=default is not None and not changed),
        trials=trials,
        configs=configs,
        timing=timing,
        default_us=_default_us(winner.evaluation),
        peak_share=None if known.sku is None else timing.tflops / known.sku.peak_tflops,
        config_id=winner.config.config_id,
        changed=tuple(
            ChangedKnob(name, knob_text(mine), knob_text(theirs))
            for name, (mine, theirs) in changed.items()
        ),
        check=_check(winner.evaluation),
        bound=bound,
        bound_note=bound_note,
        peers=_peers(winner, known),
        origin=winner.origin.value,
        provenance=tuple(fact for fact in _provenance(winner) if fact.value),
        notes=tuple(notes),
    )


def timing_view(problem: AttentionProblem, evaluation: Evaluation) -> TimingView | None:
    """The time as it is shown; ``None`` without one, or with one that is no time."""
    timing = evaluation.timing
    if timing is None or timing.median_us <= 0 or timing.gain <= 0:
        return None
    return TimingView.of(problem, evaluation)


def _verdict(timing: TimingView, *, unchanged: bool) -> str:
    if unchanged:
        return STAYS
    return FASTER if timing.gain_low > 1 else UNPROVEN


def _why_none(rows: Sequence[StoredEvaluation]) -> Iterator[str]:
    ran = sum(row.evaluation.timing is not None for row in rows)
    if not rows:
        yield "no trial is stored"
    elif ran:
        yield f"{ran} trials ran, and none was declared the winner: the search did not end"
    else:
        yield "no trial ran; the reasons are under Failures"


def _default(
    problem: AttentionProblem, winner: DispatchRow, known: Known
) -> tuple[KernelConfig | None, list[str]]:
    """The default that the gain refers to, and what to know of it."""
    today = default_kernel(known.space, problem)
    anchor_id = winner.evaluation.details.get("anchor")
    if not isinstance(anchor_id, str) or (today is not None and today.config_id == anchor_id):
        return today, []
    then = known.configs.get(anchor_id)
    text = "the gain refers to the default of that time, which is not today's"
    if then is None:
        return today, [f"{text}; its knobs are not stored, so those below are beside today's"]
    return then, [text]


def _default_us(evaluation: Evaluation) -> float | None:
    anchor_us = evaluation.details.get("anchor_median_us")
    if isinstance(anchor_us, float) and anchor_us > 0:
        return anchor_us
    timing = evaluation.timing
    return None if timing is None else timing.median_us * timing.gain


def _check(evaluation: Evaluation) -> CheckView | None:
    accuracy = evaluation.accuracy
    if accuracy is None:
        return None
    return CheckView(accuracy.source, accuracy.max_error, accuracy.allowed, accuracy.kinds)


def _bound(winner: DispatchRow, known: Known) -> tuple[BoundView | None, str]:
    """What the model says of the winner, at the clock it was measured at."""
    if known.sku is None:
        return None, f"this fa4gen does not know the SKU {winner.sku}"
    measured_mhz = winner.evaluation.provenance.sm_clock_mhz
    try:
        prediction = predict(
            winner.problem, winner.config, known.sku, float(measured_mhz) if measured_mhz else None
        )
    except Fa4genError as error:
        return None, str(error)
    return (
        BoundView(
            bound_by=prediction.bound_by,
            pipes=_pipes(prediction),
            time_us=prediction.time_us,
            clock_mhz=prediction.clock_mhz,
            clock_source=Source.MEASURED if measured_mhz else Source.MODELLED,
            model_version=MODEL_VERSION,
        ),
        "",
    )


def _pipes(prediction: Prediction) -> tuple[PipeView, ...]:
    total = prediction.breakdown["total"]
    pipes = (
        PipeView(name, cycles / total, name == prediction.bound_by)
        for name, cycles in prediction.breakdown.items()
        if name not in TOTALS
    )
    return tuple(sorted(pipes, key=lambda pipe: -pipe.share))


def _peers(winner: DispatchRow, known: Known) -> PeersView | None:
    """The peers; only beside a measured row, and of the same kind of GPU."""
    made = winner.evaluation.provenance
    cell = known.peers.cells.get((winner.problem, made.gpu_name))
    if cell is None or made.source is not Source.MEASURED:
        return None
    return cell.view(winner.config.config_id)


def _provenance(winner: DispatchRow) -> Iterator[Fact]:
    """Where, when and with what; a fact without a value is not shown."""
    evaluation = winner.evaluation
    made, timing, used = evaluation.provenance, evaluation.timing, evaluation.resources
    temperature = evaluation.details.get("temperature_c")
    yield Fact("GPU", made.gpu_name)
    yield Fact("card", made.gpu_uuid_hash)
    yield Fact("driver", made.driver)
    yield Fact("CUDA", made.cuda)
    yield Fact("CuTe-DSL", made.cutlass_dsl)
    yield Fact("torch", made.torch)
    yield Fact("fa4gen", made.fa4gen)
    yield Fact("cycle model", made.model_version)
    yield Fact("template", made.template_hash)
    yield Fact("policy", str(winner.policy))
    yield Fact("SM clock", f"{made.sm_clock_mhz} MHz" if made.sm_clock_mhz else "")
    yield Fact("power", f"{made.power_w:.0f} W" if made.power_w else "")
    yield Fact("temperature", f"{temperature} °C" if isinstance(temperature, int) else "")
    yield Fact("throttle", made.throttle or ("none" if made.sm_clock_mhz else ""))
    if timing is not None and timing.gain_low != timing.gain_high:
        yield Fact(
            "samples", f"{timing.n} pairs, half interquartile range {timing.spread_us:.2f} µs"
        )
    if used is not None:
        spills = f"{used.spill_bytes} B spilled" if used.spill_bytes else "no spills"
        yield Fact("registers", f"{used.regs_per_thread} a thread at launch, {spills}")
        yield Fact("shared memory", f"{used.smem_bytes / 1024:.0f} KiB a CTA")
    yield Fact("tried, UTC", when(made.date))
    yield Fact("won, UTC", when(winner.decided_at))
    yield Fact("configuration", winner.config.config_id)
    yield Fact("record", f"{winner.record_id}")
