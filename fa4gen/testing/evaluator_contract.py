"""What every evaluator must do, as tests.

Subclass :class:`EvaluatorContract` and say how to make the evaluator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.contract import Evaluator
from fa4gen.space import space_for


class EvaluatorContract(ABC):
    """Tests over an evaluator for :attr:`problem`.

    The evaluator must know the anchor of the problem and the candidate of
    :meth:`candidate`, which must run.
    """

    problem = AttentionProblem.from_dict(
        {"batch": 2, "seqlen_q": 512, "num_heads_q": 4, "head_dim": 128, "causal": True}
    )

    @abstractmethod
    def make(self) -> Evaluator:
        """A new evaluator."""

    @pytest.fixture
    def evaluator(self) -> Iterator[Evaluator]:
        """An evaluator, closed after the test."""
        with self.make() as evaluator:
            yield evaluator

    def anchor(self, evaluator: Evaluator) -> KernelConfig:
        """The default configuration of the problem."""
        return space_for(evaluator.sku.arch.name).default(self.problem.signature)

    def candidate(self, evaluator: Evaluator) -> KernelConfig:
        """Another configuration that runs."""
        return replace(self.anchor(evaluator), tile_n=96)

    def impossible(self, evaluator: Evaluator) -> KernelConfig:
        """A configuration no hardware can run: its rings alone exceed any shared memory."""
        return replace(self.anchor(evaluator), num_kv_stages=32)

    def test_fulfils_the_protocol(self, evaluator: Evaluator) -> None:
        """It has every member of the contract."""
        assert isinstance(evaluator, Evaluator)
        assert evaluator.source in Source

    def test_anchor_has_gain_one(self, evaluator: Evaluator) -> None:
        """The anchor against itself is no gain."""
        timing = evaluator.evaluate(self.problem, self.anchor(evaluator)).timing
        assert timing is not None
        assert timing.gain == pytest.approx(1.0, abs=0.02)

    def test_candidate_is_timed(self, evaluator: Evaluator) -> None:
        """A kernel that runs has a finite, positive time and an ordered interval."""
        evaluation = evaluator.evaluate(self.problem, self.candidate(evaluator))
        assert evaluation.outcome is Outcome.OK, evaluation.message
        timing = evaluation.timing
        assert timing is not None
        assert timing.n >= 1
        assert math.isfinite(timing.median_us)
        assert timing.median_us > 0
        assert 0 < timing.gain_low <= timing.gain <= timing.gain_high < math.inf

    def test_provenance_names_source_and_sku(self, evaluator: Evaluator) -> None:
        """Every evaluation, failed ones too, says where it comes from."""
        for config in (self.anchor(evaluator), self.impossible(evaluator)):
            provenance = evaluator.evaluate(self.problem, config).provenance
            assert provenance.source is evaluator.source
            assert provenance.sku == evaluator.sku.name

    def test_template_hash_is_one(self, evaluator: Evaluator) -> None:
        """Evaluations of one problem stand on the same templates."""
        configs = (self.anchor(evaluator), self.candidate(evaluator), self.impossible(evaluator))
        hashes = {evaluator.evaluate(self.problem, c).provenance.template_hash for c in configs}
        assert len(hashes) == 1

    def test_a_bad_kernel_is_an_outcome(self, evaluator: Evaluator) -> None:
        """What cannot run is answered with a reason, not raised."""
        evaluation = evaluator.evaluate(self.problem, self.impossible(evaluator))
        assert evaluation.outcome is not Outcome.OK
        assert evaluation.message or evaluation.reasons

    def test_goes_on_after_a_bad_kernel(self, evaluator: Evaluator) -> None:
        """One failure leaves the evaluator usable."""
        evaluator.evaluate(self.problem, self.impossible(evaluator))
        evaluation = evaluator.evaluate(self.problem, self.anchor(evaluator))
        assert evaluation.outcome is Outcome.OK, evaluation.message

    def test_prepare_is_only_a_hint(self, evaluator: Evaluator) -> None:
        """It takes anything, even what cannot run or is never evaluated, and changes no answer."""
        evaluator.prepare(self.problem, [])
        evaluator.prepare(self.problem, [self.candidate(evaluator), self.impossible(evaluator)])
        assert evaluator.evaluate(self.problem, self.candidate(evaluator)).outcome is Outcome.OK

    def test_shootout_answers_each_in_order(self, evaluator: Evaluator) -> None:
        """One evaluation a finalist, in the order given, failures in their place."""
        finalists = [self.impossible(evaluator), self.candidate(evaluator)]
        first, second = evaluator.shootout(self.problem, finalists)
        assert first.outcome is not Outcome.OK
        assert second.outcome is Outcome.OK, second.message
        assert evaluator.shootout(self.problem, []) == []

    def test_close_twice(self) -> None:
        """Closing again does nothing."""
        evaluator = self.make()
        evaluator.close()
        evaluator.close()
