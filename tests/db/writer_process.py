"""A process that records and declares winners, and says so after each: ``PATH TAG COUNT``.

A line is written only after the store returned, so every line is a promise the file must keep.
"""

from __future__ import annotations

import itertools
import os
import sys

from fa4gen.core.config import KernelConfig
from fa4gen.db import TuningStore
from fa4gen.testing.store_contract import POLICY, sample_evaluation, sample_problem

PROBLEMS = 3


def main(path: str, tag: str, count: int) -> None:
    """Write ``count`` records, or until killed if it is 0."""
    numbers = range(count) if count else itertools.count()
    with TuningStore.open(path, with_shipped=False) as store:
        for i in numbers:
            evaluation = sample_evaluation(message=f"{tag}-{i}")
            problem = sample_problem(batch=1 + i % PROBLEMS)
            config = KernelConfig(num_kv_stages=1 + i % 16)
            record_id = store.record(problem, config, evaluation, POLICY)
            os.write(1, f"{record_id} {tag}-{i}\n".encode())
            store.set_winner(record_id)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
