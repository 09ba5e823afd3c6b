"""What a tuning store takes and gives: frozen values, and the promise every store keeps.

Nothing here knows about a database, so a third party can write a store of another kind and check
it with :class:`fa4gen.testing.store_contract.StoreContract`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem


class Origin(StrEnum):
    """Who put a row into the table."""

    USER = "user"
    """This machine's tuner, or a table the user imported."""
    SHIPPED = "shipped"
    """The reviewed rows that come with fa4gen."""


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """One measurement as stored; never changed after it was written."""

    record_id: int
    """Number within this store; rows of the shipped table have negative numbers."""
    uid: str
    """Identity that survives export, import and merge."""
    problem: AttentionProblem
    config: KernelConfig
    evaluation: Evaluation
    policy: MeasurementPolicy
    origin: Origin


@dataclass(frozen=True, slots=True)
class DispatchRow:
    """The winner of one problem on one SKU, for one source and one measurement policy."""

    problem: AttentionProblem
    sku: str
    source: Source
    policy: MeasurementPolicy
    config: KernelConfig
    evaluation: Evaluation
    record_id: int
    """The measurement this row points at; negative for the shipped table."""
    origin: Origin
    """Who declared the winner; a user's row hides the shipped row of the same key."""
    decided_at: str
    """When it was declared: UTC, ISO 8601. The later of two rows of one key wins a merge."""


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A stored row that was left out because it does not pass the typed values."""

    record_id: int
    origin: Origin
    reason: str

    def __str__(self) -> str:
        return f"record {self.record_id} ({self.origin.value}): {self.reason}"


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What an export, an import or a merge moved."""

    rows: int
    """Measurements written."""
    known: int = 0
    """Measurements that were there already, by uid."""
    winners: int = 0
    """Dispatch rows written or changed."""
    skipped: tuple[str, ...] = ()
    """One line for each row that was refused, with the reason."""

    def __str__(self) -> str:
        text = f"{self.rows} rows, {self.known} known already, {self.winners} winners"
        return f"{text}, {len(self.skipped)} refused" if self.skipped else text


class Store(Protocol):
    """The part of a tuning store that the tuner and the selector rely on.

    Safe to use from several threads and several processes at once. What :meth:`record` and
    :meth:`set_winner` returned from stays, even if the process is killed right after.
    """

    def record(
        self,
        problem: AttentionProblem,
        config: KernelConfig,
        evaluation: Evaluation,
        policy: MeasurementPolicy,
    ) -> int:
        """Append one measurement and give its record id; nothing stored before changes.

        Raises:
            StoreError: it could not be written; nothing of it was kept.
        """
        ...

    def evaluations(
        self,
        problem: AttentionProblem | None = None,
        *,
        sku: str | None = None,
        source: Source | None = None,
        policy: MeasurementPolicy | None = None,
        template_hash: str | None = None,
    ) -> list[StoredEvaluation]:
        """Every measurement that matches what is given, shipped ones first, then oldest first.

        Raises:
            StoreError: it could not be read.
        """
        ...

    def set_winner(self, record_id: int) -> None:
        """Make the dispatch row of (problem, SKU, source, policy) point at this measurement.

        Raises:
            StoreError: no such record, or a record whose outcome is not ``ok``.
        """
        ...

    def dispatch_rows(
        self,
        *,
        sku: str | None = None,
        source: Source | None = None,
        policy: MeasurementPolicy | None = None,
    ) -> list[DispatchRow]:
        """The winners that match what is given, one row per key; the user's hides the shipped.

        Raises:
            StoreError: it could not be read.
        """
        ...

    def close(self) -> None:
        """Let go of the store; every later call raises StoreError."""
        ...
