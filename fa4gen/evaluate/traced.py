"""Expected times from what a kernel executes: compiled, recorded in the emulator, replayed."""

from __future__ import annotations

from dataclasses import dataclass

from fa4gen.codegen import render
from fa4gen.compile import Artifact, compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import make_inputs, poisoned_outputs
from fa4gen.hardware import Arch, Sku
from fa4gen.perf import Prediction
from fa4gen.perf.trace import (
    Record,
    Tape,
    TileTiming,
    load_timing,
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


def recorder(artifact: Artifact, arch: Arch, seed: int = 0) -> Record:
    """How to record a kernel of ours: on normal random inputs."""
    host = host_of_artifact(artifact, arch.target)

    def run(problem: AttentionProblem, num_sms: int) -> list[Tape]:
        q, k, v = make_inputs(problem, Distribution.NORMAL, seed=seed)
        out, lse = poisoned_outputs(problem)
        scale = float(problem.head_dim) ** -0.5
        return record(host, q, k, v, out, lse, scale, num_sms)

    return run


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
    signature = problem.signature
    artifact = compile_kernel(render(signature, config, sku.arch))
    tapes = trace_tiles(recorder(artifact, sku.arch), signature, config, sku.arch)
    tile = time_tile(tapes, timing)
    walks = (tapes.short, tapes.long, tapes.again)
    executed = sum(walk.tape.executed for walk in walks if walk is not None)
    return TracedPrediction(predict_traced(problem, config, sku, tile, clock_mhz), tile, executed)
