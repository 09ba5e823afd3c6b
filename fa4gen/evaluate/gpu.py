"""Measures on one GPU: the parent side. Imports neither torch nor CuTe-DSL.

Kernels are compiled ahead in a pool; one worker process checks and times them and may be killed
by any of them. What the worker says, and how it ends, becomes an :class:`Evaluation`.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fa4gen.compile import ArtifactCache
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import EvaluationError, RenderError
from fa4gen.core.evaluation import (
    Accuracy,
    Evaluation,
    MeasurementPolicy,
    Thermal,
)
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.evaluate.builds import KernelBuilds, PoolBuilds, await_build
from fa4gen.evaluate.protocol import (
    CheckReply,
    CheckRequest,
    Failure,
    FailureKind,
    GpuIdentity,
    KernelRef,
    Reply,
    Request,
    TimeReply,
    TimeRequest,
)
from fa4gen.evaluate.records import CheckedKernel, KernelFailure, Recorder
from fa4gen.evaluate.supervisor import Deadlines, Supervisor, WorkerDied, WorkerTimeout
from fa4gen.evaluate.timing import (
    SHOOTOUT_PLAN,
    TRIAL_PLAN,
    TimingPlan,
)
from fa4gen.hardware import Sku
from fa4gen.numerics import exp2_error

FLOPS_PER_DEADLINE = 1e14
"""Deadlines grow by their length for every so many operations of a launch: a kernel at a tenth
of an H200's speed needs a second for these."""

_FAILURE_OUTCOMES = {
    FailureKind.LAUNCH: Outcome.LAUNCH_ERROR,
    FailureKind.WRONG: Outcome.WRONG_RESULT,
}


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """What a user may change about measuring."""

    trial_plan: TimingPlan = TRIAL_PLAN
    shootout_plan: TimingPlan = SHOOTOUT_PLAN
    deadlines: Deadlines = field(default_factory=Deadlines)
    allow_shared_gpu: bool = False
    """Give numbers even when another process was on the GPU; ``details`` then names it."""
    seed: int | None = None
    """Of the inputs; fresh for every trial when ``None``."""
    loader: str = ""
    """``module:function`` that loads kernels in the worker instead of ``fa4gen.compile.load``."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables set in the worker."""
    on_cpu: bool = False
    """Run the worker on the CPU: tries everything but the GPU, its times mean nothing."""


class GpuEvaluator:
    """Checks and times kernels on the GPU ``sku`` stands for.

    Where times are taken under sustained load, the card is kept under load between requests too,
    for :data:`fa4gen.evaluate.warmth.KEEP_WARM_S` seconds at most.

    Args:
        sku: what the records are filed under; the card must be one.
        policy: how times are taken.
        device_index: of the card among those CUDA sees.
        cache: where compiled kernels are kept; the user's own by default.
        builds: where kernels come from instead of a compile pool; closed with this evaluator.
        settings: plans, deadlines and the like.
    """

    def __init__(
        self,
        sku: Sku,
        policy: MeasurementPolicy | None = None,
        *,
        device_index: int = 0,
        cache: ArtifactCache | None = None,
        builds: KernelBuilds | None = None,
        settings: GpuSettings | None = None,
    ) -> None:
        self._sku = sku
        self._policy = policy or MeasurementPolicy()
        self._settings = settings or GpuSettings()
        self._builds = PoolBuilds(sku.arch, cache=cache) if builds is None else builds
        self._device = "cpu" if self._settings.on_cpu else str(device_index)
        command = [sys.executable, "-m", "fa4gen.evaluate.gpu_worker", "--device", self._device]
        if self._policy.thermal is Thermal.SUSTAINED:
            command += ["--keep-warm"]
        if self._settings.loader:
            command += ["--loader", self._settings.loader]
        self._worker = Supervisor(command, self._settings.deadlines, self._settings.environment)
        self._record = Recorder(sku, self._builds.template_hash)
        self._checked: dict[tuple[str, str], CheckedKernel] = {}
        self._passed_small: set[tuple[KernelSignature, str]] = set()

    @property
    def source(self) -> Source:
        """Measured."""
        return Source.MEASURED

    @property
    def policy(self) -> MeasurementPolicy:
        """How times are taken."""
        return self._policy

    @property
    def sku(self) -> Sku:
        """The product."""
        return self._sku

    @property
    def worker_starts(self) -> int:
        """Worker processes started so far; one more for each kernel that killed one."""
        return self._worker.starts

    def prepare(
        self, problem: AttentionProblem, configs: Sequence[KernelConfig], *, later: bool = False
    ) -> None:
        """Start compiling the anchor and the feasible ones of ``configs``, and once the worker.

        May be called while another thread evaluates.
        """
        if not self._worker.starts:  # comes up while the anchor compiles
            with suppress(OSError):  # whoever needs it will say so
                self._worker.begin()
        signature = problem.signature
        for config in (self._builds.anchor(signature), *configs):
            if self._builds.verdict(signature, config):
                self._builds.submit(signature, config, later=later)

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """Build, check, and time against the anchor.

        Raises:
            EvaluationError: no GPU, another process on it, or an anchor that does not work.
        """
        begin = time.monotonic()
        try:
            candidate = self._check(problem, config, fresh=True)
            anchor = self._anchor(problem, candidate)
            reply = self._time(problem, [anchor, candidate], self._settings.trial_plan)
        except KernelFailure as failure:
            return self._record.failed(failure, time.monotonic() - begin)
        return self._record.timed(candidate, anchor, reply, 1, time.monotonic() - begin)

    def shootout(
        self,
        problem: AttentionProblem,
        configs: Sequence[KernelConfig],
        *,
        budget_s: float | None = None,
    ) -> list[Evaluation]:
        """Time all that pass the check, with the anchor, in rounds of balanced order.

        When a kernel fails while many are being timed, the finalists are timed one by one
        against the anchor, so that the failure is found and the others keep their result.

        Raises:
            EvaluationError: as for :meth:`evaluate`.
        """
        begin = time.monotonic()
        finalists: list[CheckedKernel | Evaluation] = []
        for config in configs:
            try:
                finalists.append(self._check(problem, config, fresh=False))
            except KernelFailure as failure:
                finalists.append(self._record.failed(failure, time.monotonic() - begin))
        passed = [each for each in finalists if isinstance(each, CheckedKernel)]
        if not passed:
            return [each for each in finalists if isinstance(each, Evaluation)]
        anchor = self._anchor(problem, passed[0])
        # Each kernel once: a configuration may be given twice, or be the anchor.
        field_of_kernels = {each.ref.artifact_id: each for each in (anchor, *passed)}
        entries = list(field_of_kernels.values())
        if len(entries) == 1:
            entries = [anchor, anchor]
        plan = self._settings.shootout_plan
        if budget_s is not None:
            plan = plan.within(budget_s, len(entries))
        try:
            together = self._time(problem, entries, plan)
        except KernelFailure:
            return [
                each if isinstance(each, Evaluation) else self._alone(problem, anchor, each, plan)
                for each in finalists
            ]
        elapsed = time.monotonic() - begin
        place = {each.ref.artifact_id: i for i, each in enumerate(entries)}
        return [
            each
            if isinstance(each, Evaluation)
            else self._record.timed(each, anchor, together, place[each.ref.artifact_id], elapsed)
            for each in finalists
        ]

    def close(self) -> None:
        """End the worker and the compile pool."""
        self._worker.close()
        self._builds.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _alone(
        self,
        problem: AttentionProblem,
        anchor: CheckedKernel,
        candidate: CheckedKernel,
        plan: TimingPlan,
    ) -> Evaluation:
        """A finalist against the anchor only."""
        begin = time.monotonic()
        try:
            reply = self._time(problem, [anchor, candidate], plan)
        except KernelFailure as failure:
            return self._record.failed(failure, time.monotonic() - begin)
        return self._record.timed(candidate, anchor, reply, 1, time.monotonic() - begin)

    def _anchor(self, problem: AttentionProblem, candidate: CheckedKernel) -> CheckedKernel:
        """The default kernel of the problem, built and checked.

        Raises:
            EvaluationError: it does not work, so there is nothing to compare with.
        """
        config = self._builds.anchor(problem.signature)
        if config == candidate.ref.config:
            return candidate
        try:
            return self._check(problem, config, fresh=False)
        except KernelFailure as failure:
            raise EvaluationError(
                f"anchor {config.config_id} of {problem}: {failure.outcome.value}: {failure}; "
                "gains are relative to it: give the search space a default that works"
            ) from failure

    def _check(
        self, problem: AttentionProblem, config: KernelConfig, *, fresh: bool
    ) -> CheckedKernel:
        """A built kernel that matched float64 attention.

        Small shapes depend on signature and configuration alone, so a kernel that has passed
        them here meets only the problem's own shape when it is checked again.

        Args:
            fresh: check again, on new inputs, a kernel that has passed before.

        Raises:
            KernelFailure: with the outcome.
        """
        verdict = self._builds.verdict(problem.signature, config)
        if not verdict:
            raise KernelFailure(Outcome.INFEASIBLE, str(verdict), reasons=verdict.reasons)
        key = (problem.problem_id, config.config_id)
        if not fresh and key in self._checked:
            return self._checked[key]
        build = await_build(self._builds.submit(problem.signature, config, urgent=True))
        if isinstance(build, Exception):
            render = isinstance(build, RenderError)
            outcome = Outcome.RENDER_ERROR if render else Outcome.COMPILE_ERROR
            raise KernelFailure(outcome, str(build))
        seed = self._settings.seed if self._settings.seed is not None else secrets.randbits(31)
        path, error = str(build.object_path), exp2_error(config)
        ref = KernelRef(build.artifact_id, path, config, error, problem.dtype)
        kernel = (problem.signature, build.artifact_id)
        request = CheckRequest(problem, ref, seed, own_shape_only=kernel in self._passed_small)
        try:
            reply = self._ask(problem, request)
        except KernelFailure as failure:
            failure.build, failure.seed = build, seed
            raise
        if not isinstance(reply, CheckReply):
            raise EvaluationError(f"GPU worker: got {type(reply).__name__}, allowed: CheckReply")
        self._passed_small.add(kernel)
        accuracy = Accuracy(reply.max_error, reply.allowed, reply.kinds)
        self._checked[key] = CheckedKernel(ref, build, accuracy, seed, reply.cases)
        return self._checked[key]

    def _time(
        self, problem: AttentionProblem, kernels: Sequence[CheckedKernel], plan: TimingPlan
    ) -> TimeReply:
        """Interleaved samples of ``kernels``, the anchor first.

        Raises:
            KernelFailure: one of them failed; the last one unless the worker knows better.
            EvaluationError: the anchor failed, or another process used the GPU.
        """
        last = kernels[-1]
        refs = tuple(each.ref for each in kernels)
        try:
            reply = self._ask(problem, TimeRequest(problem, refs, self._policy, plan, last.seed))
        except KernelFailure as failure:
            if failure.artifact_id == refs[0].artifact_id != last.ref.artifact_id:
                raise EvaluationError(
                    f"anchor {refs[0].config.config_id} of {problem}: {failure.outcome.value} "
                    f"while it was timed: {failure}"
                ) from failure
            failure.build, failure.seed = last.build, last.seed
            raise
        if not isinstance(reply, TimeReply):
            raise EvaluationError(f"GPU worker: got {type(reply).__name__}, allowed: TimeReply")
        others = reply.conditions.other_processes
        if others and not self._settings.allow_shared_gpu:
            raise EvaluationError(
                f"GPU {self._device}: got processes {', '.join(map(str, others))} beside "
                "ours while timing, allowed: none, for their work is in our numbers; end them, or "
                "set allow_shared_gpu"
            )
        return reply

    def _ask(self, problem: AttentionProblem, request: Request) -> Reply:
        """The worker's reply; failures and the worker's end become outcomes.

        Raises:
            KernelFailure: the kernel's fault.
            EvaluationError: not the kernel's fault.
        """
        self._meet()
        scale = 1.0 + problem.flops / FLOPS_PER_DEADLINE
        try:
            reply = self._worker.call(request, scale)
        except WorkerTimeout as error:
            raise KernelFailure(Outcome.TIMEOUT, str(error)) from error
        except WorkerDied as error:
            raise KernelFailure(Outcome.CRASHED, str(error)) from error
        if isinstance(reply, Failure):
            if reply.kind is FailureKind.EVALUATOR:
                raise EvaluationError(f"GPU worker on {problem}: {reply.message}")
            outcome = _FAILURE_OUTCOMES[reply.kind]
            raise KernelFailure(outcome, reply.message, artifact_id=reply.artifact_id)
        return reply

    def _meet(self) -> GpuIdentity:
        """The live worker's card, which must be the SKU's.

        Raises:
            EvaluationError: no worker, or a card of another kind.
        """
        identity = self._worker.start()
        if self._record.identity is None and not self._settings.on_cpu:
            sku = self._sku
            if identity.gpu_name not in sku.gpu_names or identity.sm_count != sku.sm_count:
                raise EvaluationError(
                    f"GPU {self._device}: got {identity.gpu_name} with "
                    f"{identity.sm_count} SMs, allowed for SKU {sku.name}: "
                    f"{' or '.join(sku.gpu_names)} with {sku.sm_count} SMs; choose the SKU of "
                    "this card, or add one"
                )
        self._record.identity = identity
        return identity
