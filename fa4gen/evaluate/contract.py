"""What an evaluator is: the one seam between the tuner and whatever produces times.

An evaluator answers "what comes of this configuration on this problem?" by measuring on a GPU, by
asking the cycle model, or by reading a recorded sweep. The tuner cannot tell them apart, and
neither may anything else above this package: no evaluator is assumed to be local, to have a GPU,
or to share a disk with its caller.

``fa4gen.testing.evaluator_contract`` turns this text into tests that every evaluator passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import Sku


@runtime_checkable
class Evaluator(Protocol):
    """Turns (problem, configuration) into an :class:`Evaluation`.

    The *anchor* of a problem is ``space_for(arch).default(problem.signature)``. Every
    ``Timing.gain`` is the anchor's time over the candidate's, so the anchor's own gain is 1.

    One evaluator is used by one thread at a time, but for ``prepare``, which another thread may
    call meanwhile. It owns its worker processes; ``close`` ends them, and so does leaving the
    ``with`` block.
    """

    @property
    def source(self) -> Source:
        """What stands behind the numbers of this evaluator."""

    @property
    def policy(self) -> MeasurementPolicy:
        """How times are taken; part of every record's identity."""

    @property
    def sku(self) -> Sku:
        """The GPU product the numbers are for."""

    def prepare(
        self, problem: AttentionProblem, configs: Sequence[KernelConfig], *, later: bool = False
    ) -> None:
        """Hint that these configurations will be evaluated soon, in this order.

        With ``later`` the problem's turn is still to come: whatever is prepared or evaluated
        without it goes first.

        Returns at once. An evaluator that compiles starts compiling, so that compilation runs
        ahead of timing; others do nothing. A kernel that fails to compile shows in ``evaluate``.
        """

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """Try one configuration once.

        Never raises because of the kernel: whatever it does ends as an outcome.

        Raises:
            EvaluationError: the evaluator itself is broken (no GPU, worker cannot start).
        """

    def shootout(
        self,
        problem: AttentionProblem,
        configs: Sequence[KernelConfig],
        *,
        budget_s: float | None = None,
    ) -> list[Evaluation]:
        """Time the finalists longer and in rotated order, against the anchor and each other.

        One evaluation per configuration, in the order given; the anchor need not be among them.

        Args:
            problem: the problem.
            configs: the finalists.
            budget_s: seconds that timing all of them may take together, as far as that leaves
                enough samples for an interval; ``None`` leaves it to the evaluator.

        Raises:
            EvaluationError: as for :meth:`evaluate`.
        """

    def close(self) -> None:
        """Give back processes and devices; calling it again does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
