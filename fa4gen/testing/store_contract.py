"""What every tuning store must do, as tests; a third party subclasses and gets them all.

::

    class TestMyStore(StoreContract):
        def open_store(self, folder):
            return MyStore(folder / "table")

Opening the same folder twice must give the same table.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreError
from fa4gen.core.evaluation import (
    Accuracy,
    Evaluation,
    Execution,
    L2State,
    MeasurementPolicy,
    Provenance,
    ResourceUse,
    Thermal,
    Timing,
)
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.verdict import Reason
from fa4gen.db import Origin, Store

POLICY = MeasurementPolicy()
BURST = MeasurementPolicy(Execution.EAGER, L2State.WARM, Thermal.BURST)
THREADS, RECORDS_EACH = 4, 5


def sample_problem(**changes: Any) -> AttentionProblem:
    """A small problem; keyword arguments replace its fields."""
    given = {"batch": 2, "seqlen_q": 1024, "num_heads_q": 8, "num_heads_kv": 2, "head_dim": 128}
    return AttentionProblem.from_dict({**given, **changes})


def sample_evaluation(
    gain: float = 1.1, *, median_us: float = 100.0, message: str = "", **provenance: Any
) -> Evaluation:
    """A measured success with every field filled; keywords replace fields of its provenance."""
    made = Provenance(
        source=Source.MEASURED,
        sku="h200",
        sm_count=8,
        template_hash="0123456789abcdef",
        date="2026-01-02T03:04:05+00:00",
        fa4gen="0.1.0",
        cutlass_dsl="4.8.1",
        torch="2.13.0",
        gpu_name="NVIDIA H200",
        gpu_uuid_hash="feedfacefeedface",
        driver="595.1",
        cuda="13.1",
        sm_clock_mhz=1500,
        power_w=612.5,
        throttle="sw_power_cap",
    )
    return Evaluation(
        outcome=Outcome.OK,
        provenance=replace(made, **provenance),
        message=message,
        timing=Timing(40, median_us, 0.25, gain, gain - 0.01, gain + 0.01),
        accuracy=Accuracy(0.001, 0.002, ("normal", "ragged")),
        resources=ResourceUse(240, 0, 200_000, 40_960),
        compile_s=3.5,
        evaluate_s=0.75,
        details={"pipes": {"mma": 10.0, "mufu": 7.5}, "bound_by": "mma", "waves": [1, 2]},
    )


def sample_failure(outcome: Outcome = Outcome.INFEASIBLE, **provenance: Any) -> Evaluation:
    """A trial that failed, with its reasons."""
    return replace(
        sample_evaluation(**provenance),
        outcome=outcome,
        message="smem: got 300000 B, allowed 200000 B",
        reasons=(Reason("smem", "got 300000 B, allowed 200000 B", 0.5),),
        timing=None,
        accuracy=None,
        resources=None,
    )


class StoreContract(ABC):
    """Subclass it under a name that pytest collects and give :meth:`open_store`."""

    @abstractmethod
    def open_store(self, folder: Path) -> Store:
        """The store of this folder, made at the first call; it must ship no rows of its own."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """An empty store."""
        opened = self.open_store(tmp_path)
        yield opened
        opened.close()

    def test_starts_empty(self, store: Store) -> None:
        assert store.evaluations() == []
        assert store.dispatch_rows() == []

    @pytest.mark.parametrize(
        "evaluation",
        [sample_evaluation(), *(sample_failure(o) for o in Outcome if o is not Outcome.OK)],
        ids=lambda evaluation: evaluation.outcome.value,
    )
    def test_gives_back_what_it_was_given(self, store: Store, evaluation: Evaluation) -> None:
        problem, config = sample_problem(causal=True, dtype="fp16"), KernelConfig(tile_n=64)
        record_id = store.record(problem, config, evaluation, BURST)
        (row,) = store.evaluations(problem)
        assert (row.record_id, row.problem, row.config) == (record_id, problem, config)
        assert (row.evaluation, row.policy, row.origin) == (evaluation, BURST, Origin.USER)

    def test_appends_and_never_replaces(self, store: Store) -> None:
        problem, config = sample_problem(), KernelConfig()
        made = [sample_evaluation(1.0), sample_evaluation(1.0), sample_evaluation(1.2)]
        ids = [store.record(problem, config, evaluation, POLICY) for evaluation in made]
        assert len(set(ids)) == len(made)
        assert [row.evaluation for row in store.evaluations(problem)] == made

    def test_filters_by_every_part_of_the_key(self, store: Store) -> None:
        problem, config = sample_problem(), KernelConfig()
        wanted = store.record(problem, config, sample_evaluation(), POLICY)
        store.record(sample_problem(batch=4), config, sample_evaluation(), POLICY)
        store.record(problem, config, sample_evaluation(sku="h100"), POLICY)
        store.record(problem, config, sample_evaluation(source=Source.MODELLED), POLICY)
        store.record(problem, config, sample_evaluation(template_hash="f" * 16), POLICY)
        store.record(problem, config, sample_evaluation(), BURST)
        found = store.evaluations(
            problem,
            sku="h200",
            source=Source.MEASURED,
            policy=POLICY,
            template_hash="0123456789abcdef",
        )
        assert [row.record_id for row in found] == [wanted]

    def test_the_winner_is_the_one_set_last(self, store: Store) -> None:
        problem = sample_problem()
        slow = store.record(problem, KernelConfig(), sample_evaluation(1.0), POLICY)
        fast = store.record(problem, KernelConfig(tile_n=64), sample_evaluation(1.3), POLICY)
        for winner in (slow, fast, slow, fast):
            store.set_winner(winner)
            assert [row.record_id for row in store.dispatch_rows()] == [winner]
        (row,) = store.dispatch_rows()
        assert (row.problem, row.config) == (problem, KernelConfig(tile_n=64))
        assert (row.sku, row.source, row.policy) == ("h200", Source.MEASURED, POLICY)
        assert row.evaluation == sample_evaluation(1.3)

    def test_keeps_one_winner_for_each_key(self, store: Store) -> None:
        problem, config = sample_problem(), KernelConfig()
        keys = [
            (problem, sample_evaluation(), POLICY),
            (problem, sample_evaluation(), BURST),
            (problem, sample_evaluation(sku="h100"), POLICY),
            (problem, sample_evaluation(source=Source.MODELLED), POLICY),
            (sample_problem(batch=4), sample_evaluation(), POLICY),
        ]
        ids = [store.record(asked, config, made, policy) for asked, made, policy in keys]
        for record_id in ids:
            store.set_winner(record_id)
        assert {row.record_id for row in store.dispatch_rows()} == set(ids)
        assert [row.record_id for row in store.dispatch_rows(sku="h100")] == [ids[2]]
        assert [row.record_id for row in store.dispatch_rows(source=Source.MODELLED)] == [ids[3]]
        assert [row.record_id for row in store.dispatch_rows(policy=BURST)] == [ids[1]]

    def test_a_failed_trial_cannot_win(self, store: Store) -> None:
        record_id = store.record(sample_problem(), KernelConfig(), sample_failure(), POLICY)
        with pytest.raises(StoreError, match="failed trial cannot win"):
            store.set_winner(record_id)
        assert store.dispatch_rows() == []

    def test_an_unknown_record_cannot_win(self, store: Store) -> None:
        with pytest.raises(StoreError, match="record"):
            store.set_winner(123_456)

    def test_refuses_a_timing_that_is_not_finite(self, store: Store) -> None:
        broken = sample_evaluation(median_us=float("nan"))
        with pytest.raises(StoreError, match="median_us"):
            store.record(sample_problem(), KernelConfig(), broken, POLICY)
        assert store.evaluations() == []

    def test_keeps_an_error_that_is_not_finite(self, store: Store) -> None:
        wrong = replace(
            sample_failure(Outcome.WRONG_RESULT), accuracy=Accuracy(float("inf"), 0.5, ("normal",))
        )
        store.record(sample_problem(), KernelConfig(), wrong, POLICY)
        (row,) = store.evaluations()
        assert row.evaluation == wrong

    def test_another_opening_sees_the_rows(self, store: Store, tmp_path: Path) -> None:
        record_id = store.record(sample_problem(), KernelConfig(), sample_evaluation(), POLICY)
        store.set_winner(record_id)
        other = self.open_store(tmp_path)
        try:
            assert other.evaluations() == store.evaluations()
            assert other.dispatch_rows() == store.dispatch_rows()
        finally:
            other.close()

    def test_threads_lose_nothing(self, store: Store) -> None:
        ids: list[int] = []

        def work(number: int) -> None:
            for i in range(RECORDS_EACH):
                problem = sample_problem(batch=1 + (number + i) % 3)
                new = store.record(problem, KernelConfig(), sample_evaluation(), POLICY)
                store.set_winner(new)
                ids.append(new)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(set(ids)) == THREADS * RECORDS_EACH
        assert {row.record_id for row in store.evaluations()} == set(ids)

    def test_refuses_work_after_close(self, tmp_path: Path) -> None:
        store = self.open_store(tmp_path)
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.evaluations()
