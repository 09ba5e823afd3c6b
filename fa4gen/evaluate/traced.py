"""Expected times from what a kernel executes: compiled, recorded in the emulator, replayed.

:func:`predict_by_trace` answers for one kernel, :class:`TraceEvaluator` for a study of many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fa4gen.codegen import render
from fa4gen.compile import Artifact, compile_kernel
from fa4gen.compile.cubin import embedded_cubin
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import (
    CompileError,
    CompilerUnavailable,
    EmulationError,
    EvaluationError,
    InputError,
    RenderError,
)
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.decode import Program
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import (
    NO_WORKSPACE,
    kernel_tensors,
    make_descales,
    make_inputs,
    poisoned_outputs,
)
from fa4gen.evaluate.model import ModelEvaluator
from fa4gen.hardware import Arch, Sku
from fa4gen.perf import Prediction
from fa4gen.perf.trace import (
    TRACE_VERSION,
    MachineCode,
    Record,
    Tape,
    TileTapes,
    TileTiming,
    left_out,
    load_timing,
    machine_code_of,
    predict_traced,
    record,
    time_tile,
    trace_tiles,
)


@dataclass(frozen=True, slots=True)
class TracedPrediction:
    """What a replay says of one problem."""

    prediction: Prediction
    tile: TileTiming
    executed: int
    """Warp instructions that were replayed."""
    not_modelled: tuple[str, ...]
    """What it leaves out, this kernel's own gaps first."""


def recorder(
    artifact: Artifact, arch: Arch, seed: int = 0, workspace: Workspace = NO_WORKSPACE
) -> Record:
    """How to record a kernel of ours, which takes this workspace: on normal random inputs."""
    host = host_of_artifact(artifact, arch.target)

    def run(problem: AttentionProblem, num_sms: int) -> list[Tape]:
        inputs = make_inputs(problem, Distribution.NORMAL, seed=seed)
        descales = make_descales(problem, seed)
        outputs = poisoned_outputs(problem)
        tensors = kernel_tensors(inputs, outputs, descales, workspace)
        return record(host, *tensors, float(problem.head_dim) ** -0.5, num_sms)

    return run


def trace_kernel(signature: KernelSignature, config: KernelConfig, arch: Arch) -> TileTapes:
    """Compile a kernel of ours and record a few of its blocks.

    Raises:
        RenderError, CompileError: there is no such kernel.
        EvaluationError: it has splits, or does not come to its end in the emulator.
    """
    if config.num_splits > 1:
        raise EvaluationError(
            f"num_splits: got {config.num_splits}, allowed: 1 in the trace-driven model, which "
            f"replays one kernel and not the one that combines splits; leave --trace out"
        )
    artifact = compile_kernel(render(signature, config, arch))

    def read_code(program: Program) -> MachineCode:
        return machine_code_of(embedded_cubin(artifact.object_path.read_bytes()), program)

    run = recorder(artifact, arch, workspace=Workspace.of(config))
    return trace_tiles(run, signature, config, arch, read_code)


def predict_by_trace(
    problem: AttentionProblem,
    config: KernelConfig,
    sku: Sku,
    clock_mhz: float | None = None,
) -> TracedPrediction:
    """Compile a kernel, record a few of its blocks, replay them; some ten seconds.

    Args:
        problem: what is asked.
        config: which knobs.
        sku: the machine.
        clock_mhz: SM clock; by default the one the power cap leaves this kernel.

    Raises:
        RenderError, CompileError: there is no such kernel.
        EvaluationError: it does not come to its end in the emulator.
        UnknownName: the trace-driven model knows nothing of the machine.
    """
    timing = load_timing(sku.arch)
    tapes = trace_kernel(problem.signature, config, sku.arch)
    tile = time_tile(tapes, timing)
    prediction = predict_traced(problem, config, sku, tile, clock_mhz)
    return TracedPrediction(prediction, tile, tapes.executed, left_out(tapes))


Trace = Callable[[KernelSignature, KernelConfig, Arch], TileTapes]
"""What :func:`trace_kernel` does."""

_OUTCOMES: tuple[tuple[type[Exception], Outcome], ...] = (
    (RenderError, Outcome.RENDER_ERROR),
    (CompileError, Outcome.COMPILE_ERROR),
    (EmulationError, Outcome.CRASHED),
    (InputError, Outcome.CRASHED),
    (EvaluationError, Outcome.CRASHED),
)


class TraceEvaluator(ModelEvaluator):
    """An :class:`~fa4gen.evaluate.contract.Evaluator` that replays what each kernel executes.

    Every kernel is compiled and emulated, so an answer takes some ten seconds where the formulas
    of :class:`ModelEvaluator` take microseconds; a second problem with the same kernel is free.
    """

    model_version = f"trace {TRACE_VERSION}"

    def __init__(
        self, sku: Sku, policy: MeasurementPolicy | None = None, *, trace: Trace = trace_kernel
    ) -> None:
        super().__init__(sku, policy)
        self._trace = trace
        self._timing = load_timing(sku.arch)
        self._tiles: dict[tuple[KernelSignature, str], tuple[TileTiming, tuple[str, ...]]] = {}

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """What the replay expects, why there is none, or every rule that refuses the kernel.

        Raises:
            EvaluationError: there is no compiler here.
        """
        try:
            found = super().evaluate(problem, config)
        except CompilerUnavailable as error:
            raise EvaluationError(f"traced: {error}") from error
        except tuple(kind for kind, _ in _OUTCOMES) as error:
            outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
            return Evaluation(outcome, self._provenance(), str(error))
        if found.outcome is not Outcome.OK:
            return found
        _, not_modelled = self._tile(problem, config)
        return replace(found, details={**found.details, "not_modelled": list(not_modelled)})

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the replays so far leave out, each thing once."""
        found = (each for _, missing in self._tiles.values() for each in missing)
        return tuple(dict.fromkeys(found))

    def _predict(self, problem: AttentionProblem, config: KernelConfig) -> Prediction:
        tile, _ = self._tile(problem, config)
        return predict_traced(problem, config, self.sku, tile, self._clock_mhz)

    def _tile(
        self, problem: AttentionProblem, config: KernelConfig
    ) -> tuple[TileTiming, tuple[str, ...]]:
        """The tile of a kernel, and what its replay leaves out."""
        key = problem.signature, config.config_id
        if key not in self._tiles:
            tapes = self._trace(problem.signature, config, self.sku.arch)
            self._tiles[key] = time_tile(tapes, self._timing), left_out(tapes)
        return self._tiles[key]
