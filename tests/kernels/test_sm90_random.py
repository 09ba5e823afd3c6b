"""Random Hopper kernels on random small problems in the emulator: no race, right against float64.

Such draws found multiplications behind a fence, which no chosen case had.
"""

from __future__ import annotations

import random

import pytest

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import Workspace
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import Trial, emulate_attention
from fa4gen.hardware import load_arch
from fa4gen.numerics import exp2_error
from fa4gen.space import space_for

ARCH = load_arch("sm90")
EVERY_RUN, DRAWS = 1, 120


def drawn(rng: random.Random) -> AttentionProblem:
    """Few tiles of few blocks, some without a key that they see."""
    head_dim, group = rng.choice([64, 64, 128]), rng.choice([1, 1, 2, 4])
    seqlen_q = rng.choice([rng.randint(1, 40), rng.randint(100, 500)])
    return AttentionProblem(
        batch=rng.choice([1, 2]),
        seqlen_q=seqlen_q,
        seqlen_k=rng.choice([rng.randint(1, 70), rng.randint(60, 420), seqlen_q]),
        num_heads_q=group,
        num_heads_kv=1,
        head_dim=head_dim,
        head_dim_v=rng.choice([head_dim, head_dim, 64]),
        dtype=rng.choice([DType.BF16, DType.FP16, DType.E4M3, DType.E4M3]),
        causal=rng.random() < 0.6,
    )


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=[pytest.mark.extended] if seed >= EVERY_RUN else [])
        for seed in range(DRAWS)
    ],
)
def test_a_random_kernel_is_right(seed: int) -> None:
    rng = random.Random(seed)
    problem = drawn(rng)
    config = space_for("sm90").sample(rng, problem.signature, ARCH)
    artifact = compile_kernel(render(problem.signature, config, ARCH))
    trial = Trial(problem, rng.choice(list(Distribution)), seed, num_sms=rng.choice([1, 2, 3]))
    found = emulate_attention(
        host_of_artifact(artifact, ARCH.target),
        trial,
        policies=(rng.choice(["eager", "lazy", f"seed:{seed}"]),),
        exp2_error=exp2_error(config),
        workspace=Workspace.of(config),
    )
    assert found.ok, (trial, config, found.accuracies, found.report.findings[:2])
