"""Which evaluations of before a search believes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fa4gen.core.evaluation import Accuracy, MeasurementPolicy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.db import TuningStore
from fa4gen.space import space_for
from fa4gen.testing.store_contract import sample_evaluation, sample_failure, sample_problem
from fa4gen.tune.records import Records
from fa4gen.tune.study import StudyKey


@pytest.mark.parametrize(("checked_only", "known"), [(False, {0, 1, 2}), (True, {1, 2})])
def test_times_of_kernels_that_nobody_ran_are_no_evidence(
    tmp_path: Path, checked_only: bool, known: set[int]
) -> None:
    """After a glance, which only asks the model, a search that proves starts without its times."""
    problem = sample_problem()
    anchor = space_for("sm90").default(problem.signature)
    configs = [replace(anchor, num_kv_stages=stages) for stages in (1, 2, 3)]
    guess = replace(sample_evaluation(), accuracy=None)
    emulated = replace(guess, accuracy=Accuracy(0.001, 0.002, ("ragged",), Source.EMULATED))
    evaluations = [guess, emulated, sample_failure(Outcome.WRONG_RESULT)]
    provenance = guess.provenance
    policy = MeasurementPolicy()
    key = StudyKey(problem, provenance.sku, provenance.source, policy, provenance.template_hash)
    with TuningStore.open(tmp_path / "tuning.sqlite") as store:
        for config, evaluation in zip(configs, evaluations, strict=True):
            given = replace(evaluation, provenance=provenance)
            store.record(problem, config, given, policy)
        records = Records(store, key, reuse=True, retry_failed=False, checked_only=checked_only)
        found = {i for i, config in enumerate(configs) if records.get(config) is not None}
    assert found == known
