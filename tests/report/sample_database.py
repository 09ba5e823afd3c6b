"""Small tuning databases with known contents, for the tests of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Accuracy, Evaluation, MeasurementPolicy, Provenance, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import TuningStore
from fa4gen.space import space_for

POLICY = MeasurementPolicy()
MADE = Provenance(
    source=Source.MEASURED,
    sku="h200",
    sm_count=8,
    template_hash="template-one",
    date="2026-03-04T05:06:07+00:00",
    fa4gen="0.1.0",
    cutlass_dsl="4.8.1",
    torch="2.11.0",
    gpu_name="NVIDIA H200",
    gpu_uuid_hash="card-one",
    driver="580.1",
    cuda="13.0",
    sm_clock_mhz=1700,
    power_w=650.0,
    throttle="sw_power_cap",
)
MODELLED = Provenance(
    Source.MODELLED,
    "b200",
    8,
    "template-b",
    "2026-03-05T00:00:00+00:00",
    "0.1.0",
    model_version="2",
)


def problem(**changes: Any) -> AttentionProblem:
    """``b2 s1024 h8 d128 bf16 dense``, with these fields changed."""
    given = {"batch": 2, "seqlen_q": 1024, "num_heads_q": 8, "head_dim": 128}
    return AttentionProblem.from_dict({**given, **changes})


def default(asked: AttentionProblem, arch: str = "sm90") -> KernelConfig:
    """The default kernel of today."""
    return space_for(arch).default(asked.signature)


def ran(
    gain: float,
    *,
    median_us: float = 100.0,
    half: float = 0.01,
    made: Provenance = MADE,
    **details: Any,
) -> Evaluation:
    """A trial that ran, with an interval of plus and minus ``half``."""
    timing = Timing(40, median_us, 0.5, gain, gain - half, gain + half)
    accuracy = Accuracy(0.001, 0.002, ("normal",)) if made.source is Source.MEASURED else None
    return Evaluation(Outcome.OK, made, timing=timing, accuracy=accuracy, details=details)


def failed(outcome: Outcome, message: str, made: Provenance = MADE) -> Evaluation:
    """A trial that did not."""
    return Evaluation(outcome, made, message=message)


def add_problem(
    store: TuningStore, asked: AttentionProblem, gain: float, changes: dict[str, Any], **how: Any
) -> int:
    """The default and a winner with these knobs changed; gives the winner's record."""
    made = how.get("made", MADE)
    arch = "sm100" if made.sku == "b200" else "sm90"
    anchor = default(asked, arch)
    first = store.record(asked, anchor, ran(1.0, half=0.0, made=made), POLICY)
    if not changes:
        store.set_winner(first)
        return first
    details = {"anchor": anchor.config_id, "anchor_median_us": 100.0 * gain}
    winner = store.record(asked, anchor.vary(changes), ran(gain, **how, **details), POLICY)
    store.set_winner(winner)
    return winner


def fill(store: TuningStore) -> None:
    """Four measured problems, one of them without a winner, and one modelled."""
    add_problem(store, problem(), 1.25, {"tile_n": 64})
    add_problem(store, problem(batch=8), 1.0, {})
    add_problem(store, problem(head_dim=64, causal=True), 1.10, {"tile_n": 64, "pingpong": False})
    lost = problem(seqlen_q=1, seqlen_k=4096)
    for attempt in range(3):
        store.record(lost, default(lost), failed(Outcome.TIMEOUT, "no answer in 30 s"), POLICY)
        store.record(
            lost,
            default(lost).vary({"tile_n": 32}),
            failed(Outcome.WRONG_RESULT, f"error of try {attempt}"),
            POLICY,
        )
    add_problem(store, problem(), 1.05, {"cta_group": 1}, made=MODELLED, half=0.0)


def other(**changes: Any) -> Provenance:
    """The provenance of the measured rows, with these fields changed."""
    return replace(MADE, **changes)
