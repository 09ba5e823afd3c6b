"""Proof that a compiled kernel is right, without a GPU: what the emulator says of small problems.

A proof is about a kernel, not about a problem: all problems of one signature share it. The work is
done in processes of its own, since emulating a kernel takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from typing import NoReturn

from fa4gen.compile import Artifact
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.errors import EmulationError, EvaluationError
from fa4gen.core.evaluation import Accuracy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.findings import FindingKind
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import AttentionReport, Trial, emulate_attention
from fa4gen.feasibility import rows_per_cta, rows_per_query
from fa4gen.hardware import Arch
from fa4gen.numerics import exp2_error

RAGGED_ROWS, RAGGED_KEYS = 37, 29
"""What the ragged problem has beyond half a tile of rows and whole blocks of keys."""

ROUNDS = 2
"""KV blocks of the longer problem beyond those that the slots of K and V hold."""

LEAST_BLOCKS, MOST_BLOCKS = 3, 6
"""Bounds on them: enough to change the row maximum, few enough to take seconds."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What the emulator found on the small problems of one kernel."""

    outcome: Outcome
    """``ok``, ``wrong_result``, ``timeout`` for a deadlock, ``crashed`` for a fault."""
    message: str
    accuracy: Accuracy
    policies: tuple[str, ...]
    """Orders of events under which it was run."""
    executed: int
    """Warp instructions."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A kernel that is to be proven right."""

    artifact: Artifact
    signature: KernelSignature
    config: KernelConfig
    arch: Arch


@dataclass(frozen=True, slots=True)
class Case:
    """One small problem, and the orders of events to try it under."""

    kind: str
    trial: Trial
    policies: tuple[str, ...]


def cases(signature: KernelSignature, config: KernelConfig, arch: Arch) -> tuple[Case, ...]:
    """Small problems that cross the edges of a kernel's tiles and go round its ring of slots.

    * ``ragged``: neither length a multiple of a tile, more keys than queries; where a CTA may take
      several tiles, enough of them that it does;
    * ``growing``: logits that rise from block to block, so that O is rescaled again and again, and
      enough blocks to use every slot twice.
    """
    rows = rows_per_cta(config, arch) * config.cta_group
    blocks = min(max(config.num_kv_stages // 2 + ROUNDS, LEAST_BLOCKS), MOST_BLOCKS)
    group = signature.qhead_per_kvhead
    queries = max(1, rows // rows_per_query(signature, config))
    # A persistent kernel is told of one SM (or one pair of them).
    goes_on = config.scheduler is not Scheduler.LPT
    heads = 2 if goes_on and (group == 1 or config.pack_gqa) else 1
    problem = AttentionProblem(
        batch=1,
        seqlen_q=queries // 2 + RAGGED_ROWS,
        seqlen_k=queries // 2 + RAGGED_ROWS + config.tile_n + RAGGED_KEYS,
        num_heads_q=group * heads,
        num_heads_kv=heads,
        head_dim=signature.head_dim,
        head_dim_v=signature.head_dim_v,
        dtype=signature.dtype,
        causal=signature.causal,
    )
    growing = replace(
        problem,
        seqlen_q=max(1, queries // 2),
        seqlen_k=max(blocks * config.tile_n, queries // 2),
        num_heads_q=group,
        num_heads_kv=1,
    )
    ragged = Trial(problem, Distribution.NORMAL, num_sms=config.cta_group)
    return (
        Case("ragged", ragged, ("lazy", "seed:1")),
        Case("growing", Trial(growing, Distribution.GROWING, seed=1), ("eager",)),
    )


def prove(claim: Claim) -> Proof:
    """Emulate the small problems of a kernel until one fails."""
    start = time.perf_counter()
    host = host_of_artifact(claim.artifact, claim.arch.target)
    config = claim.config
    worst, allowed, executed = 0.0, 0.0, 0
    kinds: list[str] = []
    policies: list[str] = []
    outcome, message = Outcome.OK, ""
    for case in cases(claim.signature, config, claim.arch):
        try:
            report = emulate_attention(
                host,
                case.trial,
                policies=case.policies,
                exp2_error=exp2_error(config),
                workspace=Workspace.of(config),
            )
        except EmulationError as error:
            outcome, message = Outcome.CRASHED, f"{case.kind}: {error}"
            break
        executed += report.report.executed
        kinds.append(case.kind)
        policies += [policy for policy in case.policies if policy not in policies]
        out = report.accuracies[0]
        if allowed == 0.0 or out.max_error / out.allowed > worst / allowed:
            worst, allowed = out.max_error, out.allowed
        if not report.ok:
            outcome, message = _failure(case, report)
            break
    accuracy = Accuracy(worst, allowed, tuple(kinds), Source.EMULATED)
    seconds = time.perf_counter() - start
    return Proof(outcome, message, accuracy, tuple(policies), executed, seconds)


def _failure(case: Case, report: AttentionReport) -> tuple[Outcome, str]:
    """What a case that failed comes to."""
    where = f"emulated, {case.kind} ({case.trial.problem})"
    for finding in report.report.findings:
        hangs = finding.kind is FindingKind.DEADLOCK
        outcome = Outcome.TIMEOUT if hangs else Outcome.WRONG_RESULT
        return outcome, f"{where}: {finding}"
    bad = next(accuracy for accuracy in report.accuracies if not accuracy.ok)
    return Outcome.WRONG_RESULT, (
        f"{where}: {bad.name} differs from float64 by {bad.max_error:.3g}, allowed: "
        f"{bad.allowed:.3g}"
    )


class ProofPool:
    """Processes that prove kernels; a process that dies fails its proof only."""

    def __init__(self, workers: int | None = None) -> None:
        """``workers`` defaults to the CPUs this process may use."""
        self.workers = len(os.sched_getaffinity(0)) if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False

    def submit(self, claim: Claim) -> Future[Proof]:
        """Begin to prove.

        Raises:
            EvaluationError: no process can be started, or the pool was closed.
        """
        if self._closed:
            raise EvaluationError("proof: the pool is closed; make another evaluator")
        for _ in range(2):
            pool = self._running()
            try:
                return pool.submit(prove, claim)
            except BrokenProcessPool:  # a kernel of before has killed it
                self._pool = None
        raise EvaluationError("proof: no process can be started; see the system's limits")

    def close(self) -> None:
        """End the processes; what they have not begun to prove is dropped."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _running(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, _context(), initializer=_follow_parent)
        return self._pool


@cache
def _context() -> multiprocessing.context.BaseContext:
    # Not "fork": this process has threads.
    return multiprocessing.get_context("spawn")


def _follow_parent() -> None:
    """End when the parent does, and only then.

    Ctrl-C reaches the whole process group, but the parent decides what ends; and a parent that is
    killed can tell nobody.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> NoReturn:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
