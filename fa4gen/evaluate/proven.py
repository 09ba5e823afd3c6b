"""Times from the cycle model, of kernels that are compiled and proven in the emulator."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from typing import cast

from fa4gen.compile import Artifact, ArtifactCache
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import CompileError, EvaluationError
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy, Timing
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.evaluate.builds import Build, KernelBuilds, PoolBuilds, await_build
from fa4gen.evaluate.model import ModelEvaluator
from fa4gen.evaluate.proof import Claim, Proof, ProofPool
from fa4gen.hardware import Sku
from fa4gen.perf import spill_slowdown
from fa4gen.versions import CUTLASS_DSL, installed

Key = tuple[KernelSignature, KernelConfig]


class ProvenModelEvaluator(ModelEvaluator):
    """A :class:`ModelEvaluator` that vouches for the kernels behind its times.

    Every configuration is rendered, compiled, and emulated on small problems before its expected
    time counts. A kernel is proven once for all problems of its signature.
    """

    def __init__(
        self,
        sku: Sku,
        policy: MeasurementPolicy | None = None,
        *,
        builds: KernelBuilds | None = None,
        cache: ArtifactCache | None = None,
        proofs: ProofPool | None = None,
    ) -> None:
        super().__init__(sku, policy)
        self._builds = PoolBuilds(sku.arch, cache=cache) if builds is None else builds
        self._pool = ProofPool() if proofs is None else proofs
        self._proofs: dict[Key, Future[Proof]] = {}
        self._turn = threading.RLock()
        # Kernels are made ready few at a time, since a search may change its mind about the rest.
        self._waiting: deque[Key] = deque()
        self._under_way: set[Key] = set()
        self._signature: KernelSignature | None = None

    def prepare(
        self, problem: AttentionProblem, configs: Sequence[KernelConfig], *, later: bool = False
    ) -> None:
        """Start compiling and proving the feasible ones, as many at once as there are CPUs."""
        if later:
            return
        signature = problem.signature
        with self._turn:
            self._turn_to(signature)
            for config in configs:
                key = (signature, config)
                known = key in self._proofs or key in self._under_way or key in self._waiting
                if not known and self._builds.verdict(signature, config):
                    self._waiting.append(key)
            self._start_some()

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """Compile, prove, and ask the model.

        Raises:
            EvaluationError: the compiler or the emulator is broken.
        """
        begin = time.monotonic()
        expected = super().evaluate(problem, config)
        if expected.outcome is not Outcome.OK:
            return expected
        key = (problem.signature, config)
        with self._turn:
            self._turn_to(problem.signature)
            if key in self._waiting:
                self._waiting.remove(key)
        pending = self._builds.submit(*key, urgent=True)
        build = await_build(pending)
        provenance = replace(expected.provenance, cutlass_dsl=installed(CUTLASS_DSL) or "")
        if isinstance(build, Exception):
            failed = isinstance(build, CompileError)
            outcome = Outcome.COMPILE_ERROR if failed else Outcome.RENDER_ERROR
            return Evaluation(outcome, provenance, str(build))
        proof = self._proof(key, pending)
        known = replace(
            expected,
            provenance=provenance,
            timing=_with_spills(expected.timing, build.resources.spill_bytes),
            accuracy=proof.accuracy,
            resources=build.resources,
            compile_s=build.compile_s,
            evaluate_s=time.monotonic() - begin,
            details={
                **expected.details,
                "spill_slowdown": spill_slowdown(build.resources.spill_bytes),
                "emulated_policies": list(proof.policies),
                "emulated_instructions": proof.executed,
            },
        )
        if proof.outcome is Outcome.OK:
            return known
        return replace(known, outcome=proof.outcome, message=proof.message, timing=None)

    def close(self) -> None:
        """End the processes that compile and prove."""
        with self._turn:
            self._waiting.clear()
        self._builds.close()
        self._pool.close()

    def _turn_to(self, signature: KernelSignature) -> None:
        """Forget what was to be made ready for another signature: its problem is over."""
        if signature == self._signature:
            return
        self._signature = signature
        self._waiting.clear()
        for key, proof in list(self._proofs.items()):
            if key[0] != signature and proof.cancel():
                self._proofs.pop(key, None)

    def _start_some(self) -> None:
        while self._waiting and len(self._under_way) < self._pool.workers:
            key = self._waiting.popleft()
            self._under_way.add(key)
            self._builds.submit(*key).add_done_callback(partial(self._when_built, key))

    def _when_built(self, key: Key, built: Future[Build]) -> None:
        with self._turn:
            if built.cancelled() or built.exception() is not None:
                self._when_proven(key)
                return
            try:
                proof = self._begin_proof(key, built)
            except (EvaluationError, RuntimeError):  # evaluate will say so, or it is closed
                self._when_proven(key)
                return
        proof.add_done_callback(lambda done: self._when_proven(key))

    def _when_proven(self, key: Key) -> None:
        with self._turn:
            self._under_way.discard(key)
            self._start_some()

    def _begin_proof(self, key: Key, built: Future[Build]) -> Future[Proof]:
        """Have a compiled kernel proven, once."""
        with self._turn:
            if key not in self._proofs:
                artifact = cast(Artifact, built.result())
                self._proofs[key] = self._pool.submit(Claim(artifact, *key, self.sku.arch))
            return self._proofs[key]

    def _proof(self, key: Key, built: Future[Build]) -> Proof:
        """The proof of a kernel that is compiled.

        Raises:
            EvaluationError: the emulator is broken, or its process dies twice.
        """
        name = key[1].config_id
        for _ in range(2):
            try:
                return self._begin_proof(key, built).result()
            except BrokenProcessPool:
                with self._turn:
                    self._proofs.pop(key, None)
            except Exception as error:
                raise EvaluationError(
                    f"proof of {name}: {type(error).__name__}: {error}; the emulator is broken, "
                    "please report it"
                ) from error
        raise EvaluationError(f"proof of {name}: its process died twice; is there enough memory?")


def _with_spills(timing: Timing | None, spill_bytes: int) -> Timing | None:
    """What the model could not know before ptxas had the kernel; defaults spill nothing."""
    if timing is None or not spill_bytes:
        return timing
    slowdown = spill_slowdown(spill_bytes)
    gain = timing.gain / slowdown
    return replace(
        timing,
        median_us=timing.median_us * slowdown,
        gain=gain,
        gain_low=gain,
        gain_high=gain,
    )
