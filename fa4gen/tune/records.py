"""What the tuning database knows about one search, kept in memory and kept fresh."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome
from fa4gen.db.values import Origin, Store
from fa4gen.tune.study import StudyKey

REFRESH_S = 2.0
"""How often to look for what other tuners wrote."""


@dataclass(frozen=True, slots=True)
class Known:
    """The newest evaluation of one configuration."""

    record_id: int
    config: KernelConfig
    evaluation: Evaluation

    @property
    def gain(self) -> float:
        """Gain over the anchor; 0 for a failure."""
        timing = self.evaluation.timing
        return 0.0 if timing is None else timing.gain

    @property
    def gain_low(self) -> float:
        """Lower bound of the gain; 0 for a failure."""
        timing = self.evaluation.timing
        return 0.0 if timing is None else timing.gain_low

    @property
    def gain_high(self) -> float:
        """Upper bound of the gain; 0 for a failure."""
        timing = self.evaluation.timing
        return 0.0 if timing is None else timing.gain_high

    @property
    def proven(self) -> bool:
        """Whether it is faster than the anchor beyond doubt."""
        timing = self.evaluation.timing
        return timing is not None and timing.proven


class Records:
    """Evaluations under one :class:`StudyKey`, by configuration; the newest counts.

    Args:
        store: where evaluations are appended.
        key: which evaluations to read.
        reuse: whether times from before this search are believed.
        retry_failed: whether failures from before this search are forgotten.
        checked_only: whether times of kernels that nobody compared with float64 are ignored.
    """

    def __init__(
        self,
        store: Store,
        key: StudyKey,
        *,
        reuse: bool,
        retry_failed: bool,
        checked_only: bool = False,
    ) -> None:
        self._store, self._key, self._checked_only = store, key, checked_only
        self._known: dict[str, Known] = {}
        self._mine: set[int] = set()
        self._skip: set[int] = set()
        self._refreshed_s = -REFRESH_S
        for known in self._read():
            failed = known.evaluation.outcome is not Outcome.OK
            if (failed and retry_failed) or (not failed and not reuse):
                self._skip.add(known.record_id)
        self.refresh()

    def _read(self) -> list[Known]:
        key = self._key
        stored = self._store.evaluations(
            key.problem,
            sku=key.sku,
            source=key.source,
            policy=key.policy,
            template_hash=key.template_hash,
        )
        # A shipped measurement was made on another card, perhaps with another compiler: its
        # configuration is a good start, its time is not evidence here.
        return [
            Known(row.record_id, row.config, row.evaluation)
            for row in stored
            if row.origin is Origin.USER and self.believes(row.evaluation)
        ]

    def believes(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation is evidence in this search: a failure is, a guess may not be."""
        guess = evaluation.outcome is Outcome.OK and evaluation.accuracy is None
        return not (guess and self._checked_only)

    def refresh(self) -> list[Known]:
        """Read what others wrote, at most every :data:`REFRESH_S`; gives what is new."""
        now_s = time.monotonic()
        if now_s - self._refreshed_s < REFRESH_S:
            return []
        self._refreshed_s = now_s
        new = []
        for known in self._read():
            if known.record_id in self._skip | self._mine:
                continue
            self._mine.add(known.record_id)
            self._known[known.config.config_id] = known
            new.append(known)
        return new

    def add(self, config: KernelConfig, evaluation: Evaluation) -> Known:
        """Append an evaluation to the database."""
        key = self._key
        record_id = self._store.record(key.problem, config, evaluation, key.policy)
        known = Known(record_id, config, evaluation)
        self._mine.add(record_id)
        self._known[config.config_id] = known
        return known

    def get(self, config: KernelConfig) -> Known | None:
        """What is known of a configuration."""
        return self._known.get(config.config_id)

    def all(self) -> list[Known]:
        """Everything known, oldest configuration first."""
        return list(self._known.values())

    def __len__(self) -> int:
        return len(self._known)
