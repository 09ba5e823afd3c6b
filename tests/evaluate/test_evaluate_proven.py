"""Modelled times of kernels that are compiled and emulated."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_fakes import NamedBuilds

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import Accuracy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import KernelSignature
from fa4gen.evaluate import Evaluator, make_evaluator
from fa4gen.evaluate.proof import Claim, Proof, ProofPool, cases, prove
from fa4gen.evaluate.proven import ProvenModelEvaluator
from fa4gen.hardware import load_arch, load_sku
from fa4gen.space import space_for
from fa4gen.testing.evaluator_contract import EvaluatorContract

B200 = load_sku("b200")
GOOD = Proof(
    Outcome.OK, "", Accuracy(1e-3, 2e-3, ("ragged",), Source.EMULATED), ("eager", "lazy"), 1234, 0.5
)
RACE = replace(GOOD, outcome=Outcome.WRONG_RESULT, message="emulated, ragged: race: ...")
PROBLEM = EvaluatorContract.problem


class ScriptedProofs(ProofPool):
    """Answers without a process."""

    def __init__(self, answer: Callable[[Claim], Proof | Exception]) -> None:
        super().__init__(workers=2)
        self.answer, self.claims = answer, list[Claim]()

    def submit(self, claim: Claim) -> Future[Proof]:
        self.claims.append(claim)
        future: Future[Proof] = Future()
        answer = self.answer(claim)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def evaluator_with(
    answer: Callable[[Claim], Proof | Exception], names: list[str] | None = None
) -> tuple[ProvenModelEvaluator, ScriptedProofs]:
    proofs = ScriptedProofs(answer)
    builds: Any = NamedBuilds(names or ["anchor"])
    builds._name = lambda config: names[config.num_kv_stages - 2] if names else "anchor"
    return ProvenModelEvaluator(B200, builds=builds, proofs=proofs), proofs


class TestProvenContract(EvaluatorContract):
    """The contract, on kernels that nobody compiles."""

    def make(self) -> Evaluator:
        return evaluator_with(lambda claim: GOOD)[0]


def test_a_good_kernel_is_modelled_and_emulated() -> None:
    evaluator, proofs = evaluator_with(lambda claim: GOOD)
    config = space_for("sm100").default(PROBLEM.signature)
    evaluation = evaluator.evaluate(PROBLEM, config)
    plain = make_evaluator("model", B200).evaluate(PROBLEM, config)
    assert evaluation.timing == plain.timing
    assert evaluation.provenance.source is Source.MODELLED
    assert evaluation.accuracy == GOOD.accuracy
    assert evaluation.details["emulated_policies"] == ["eager", "lazy"]
    assert evaluation.resources is not None
    assert [claim.config for claim in proofs.claims] == [config]


def test_problems_of_one_signature_share_a_proof() -> None:
    evaluator, proofs = evaluator_with(lambda claim: GOOD)
    config = space_for("sm100").default(PROBLEM.signature)
    evaluator.prepare(PROBLEM, [config])
    evaluator.evaluate(PROBLEM, config)
    evaluator.evaluate(replace(PROBLEM, seqlen_q=8192, seqlen_k=8192), config)
    assert len(proofs.claims) == 1
    evaluator.evaluate(replace(PROBLEM, causal=False), config)
    assert len(proofs.claims) == 2


def test_queued_proofs_of_a_problem_that_is_over_are_dropped() -> None:
    evaluator, proofs = evaluator_with(lambda claim: GOOD)
    waiting: list[Future[Proof]] = []

    def queued(claim: Claim) -> Future[Proof]:
        waiting.append(Future())
        return waiting[-1]

    proofs.submit = queued  # type: ignore[method-assign]
    config = space_for("sm100").default(PROBLEM.signature)
    evaluator.prepare(PROBLEM, [config])
    waiting[0].set_running_or_notify_cancel()
    evaluator.prepare(PROBLEM, [replace(config, num_kv_stages=2)])
    evaluator.prepare(replace(PROBLEM, causal=False), [config])
    assert [proof.cancelled() for proof in waiting] == [False, True, False]


def test_what_is_prepared_for_later_is_not_proven_yet() -> None:
    evaluator, proofs = evaluator_with(lambda claim: GOOD)
    config = space_for("sm100").default(PROBLEM.signature)
    evaluator.prepare(PROBLEM, [config], later=True)
    assert not proofs.claims
    evaluator.prepare(PROBLEM, [config])
    assert len(proofs.claims) == 1


def test_a_bad_kernel_keeps_its_reason_and_has_no_time() -> None:
    evaluation = evaluator_with(lambda claim: RACE)[0].evaluate(
        PROBLEM, space_for("sm100").default(PROBLEM.signature)
    )
    assert evaluation.outcome is Outcome.WRONG_RESULT
    assert evaluation.message == RACE.message
    assert evaluation.timing is None


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("render", Outcome.RENDER_ERROR), ("compile", Outcome.COMPILE_ERROR)],
)
def test_a_kernel_that_is_not_built(name: str, outcome: Outcome) -> None:
    evaluator, proofs = evaluator_with(lambda claim: GOOD, [name, name])
    config = replace(space_for("sm100").default(PROBLEM.signature), num_kv_stages=2)
    evaluation = evaluator.evaluate(PROBLEM, config)
    assert evaluation.outcome is outcome
    assert not proofs.claims


def test_a_process_that_dies_once_is_forgiven() -> None:
    answers = [BrokenProcessPool("killed"), GOOD]
    evaluator, _ = evaluator_with(lambda claim: answers.pop(0))
    config = space_for("sm100").default(PROBLEM.signature)
    assert evaluator.evaluate(PROBLEM, config).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("error", "message"),
    [(BrokenProcessPool("killed"), "died twice"), (ValueError("a bug"), "a bug; the emulator")],
)
def test_a_broken_emulator_is_no_outcome(error: Exception, message: str) -> None:
    evaluator, _ = evaluator_with(lambda claim: error)
    with pytest.raises(EvaluationError, match=message):
        evaluator.evaluate(PROBLEM, space_for("sm100").default(PROBLEM.signature))


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def is_running(pid: int) -> bool:
    """Whether a process is there, other than as a zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_processes_end_with_a_killed_parent() -> None:
    program = """if __name__ == "__main__":
        from fa4gen.evaluate.proof import ProofPool
        pool = ProofPool(workers=2)
        print(*[pool.submit(None).exception() for _ in range(2)], flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert "NoneType" in parent.stdout.readline()  # they run, and are idle
        workers = children(parent.pid)
        assert len(workers) >= 2
        parent.kill()
    until = time.monotonic() + 20
    while (left := [pid for pid in workers if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def test_a_closed_pool_says_so() -> None:
    pool = ProofPool(workers=1)
    pool.close()
    claim: Any = None
    with pytest.raises(EvaluationError, match="the pool is closed"):
        pool.submit(claim)


def test_cases_go_round_the_ring_and_over_the_edges() -> None:
    signature = KernelSignature(DType.BF16, 128, 128, True, 4)
    arch = load_arch("sm100")
    two = KernelConfig(num_kv_stages=6, cta_group=2, pack_gqa=True, scheduler=Scheduler.PERSISTENT)
    ragged, growing = (case.trial for case in cases(signature, two, arch))
    # A tile of a pair of CTAs has 512 rows, 128 queries with their groups of 4.
    assert (ragged.problem.seqlen_q, ragged.problem.num_heads_kv) == (64 + 37, 2)
    assert ragged.problem.seqlen_k > ragged.problem.seqlen_q + 128
    assert ragged.num_sms == 2
    assert growing.problem.seqlen_k == (6 // 2 + 2) * 128
    hopper, _ = cases(signature, KernelConfig(tile_m=64), load_arch("sm90"))
    assert hopper.trial.problem.seqlen_q == 32 + 37
    assert (hopper.trial.problem.num_heads_q, hopper.trial.num_sms) == (4, 1)


@pytest.mark.slow
def test_a_kernel_that_forgets_to_rescale_is_found_out() -> None:
    arch = load_arch("sm100")
    signature = KernelSignature(DType.BF16, 64, 64, False, 1)
    config = replace(space_for("sm100").default(signature), num_kv_stages=2)
    good = render(signature, config, arch)
    assert "factor < 1.0" in good.source
    bad = replace(good, source=good.source.replace("factor < 1.0", "factor < 0.0"))
    proofs = [prove(Claim(compile_kernel(each), signature, config, arch)) for each in (good, bad)]
    assert [proof.outcome for proof in proofs] == [Outcome.OK, Outcome.WRONG_RESULT]
    assert proofs[0].accuracy.kinds == ("ragged", "growing")
    assert "growing" in proofs[1].message
    assert "differs from float64" in proofs[1].message
