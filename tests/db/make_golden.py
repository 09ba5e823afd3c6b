"""Makes the golden files of the current schema revision: ``golden/vNNNN.sqlite`` and ``.jsonl``.

Run it once when a revision is new, before it is released, and commit both; never run it for a
revision that was released: the point of the files is that they are old.

    python tests/db/make_golden.py
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from fa4gen.core.config import Exp2Placement, KernelConfig, Scheduler
from fa4gen.core.outcome import Outcome, Source
from fa4gen.db import TuningStore
from fa4gen.testing.store_contract import (
    BURST,
    POLICY,
    sample_evaluation,
    sample_failure,
    sample_problem,
)

GOLDEN = Path(__file__).resolve().parent / "golden"
PAGE_BYTES = 1024
"""Small pages: the file is kept in the repository."""


def fill(store: TuningStore) -> None:
    """A row of every kind that a table can hold."""
    problem = sample_problem(causal=True, dtype="fp16", head_dim_v=64)
    tuned = KernelConfig(
        tile_n=96,
        scheduler=Scheduler.PERSISTENT,
        exp2_poly_fraction=0.25,
        exp2_poly_placement=Exp2Placement.BACK,
        rescale_threshold_log2=8.0,
    )
    store.record(problem, KernelConfig(), sample_evaluation(1.0), POLICY)
    store.set_winner(store.record(problem, tuned, sample_evaluation(1.25), POLICY))
    store.set_winner(store.record(problem, tuned, sample_evaluation(1.125), BURST))
    modelled = sample_evaluation(1.5, source=Source.MODELLED, sku="b200", model_version="1")
    store.set_winner(store.record(sample_problem(batch=1), tuned, modelled, POLICY))
    for outcome in Outcome:
        if outcome is not Outcome.OK:
            store.record(sample_problem(), KernelConfig(), sample_failure(outcome), POLICY)


def main() -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "golden.sqlite"
        with TuningStore.open(path, with_shipped=False) as store:
            fill(store)
            name = f"v{store.schema_revision}"
            store.export_jsonl(GOLDEN / f"{name}.jsonl")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("VACUUM")
        connection.close()
        (GOLDEN / f"{name}.sqlite").write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
