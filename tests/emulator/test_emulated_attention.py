"""FlashAttention-4's kernels and fa4gen's own, emulated: right numbers and nothing else wrong."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from peer_kernels import PeerKernel
from peer_suite import FA4, compile_suite

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.session import run
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import Trial, compare, emulate_attention, make_inputs
from fa4gen.evaluate.emulated import poisoned_outputs as outputs
from fa4gen.feasibility import canonicalise
from fa4gen.hardware import load_arch
from fa4gen.numerics import exp2_error, max_relative_error
from fa4gen.space import space_for

POLICIES = ("eager", "lazy", "seed:3")
FA4_EXP2_ERROR = max_relative_error(3)
"""FlashAttention-4 for sm_100 takes a share of the exponentials by a polynomial of degree 3."""


@cache
def peers() -> dict[str, PeerKernel]:
    return compile_suite()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FA4))
def test_flash_attention_4_is_right(name: str) -> None:
    """Known to be right on GPUs, so a finding here is the emulator's mistake."""
    kernel = peers()[name]
    problem = AttentionProblem.from_dict(FA4[name].arguments["problem"])
    q, k, v = make_inputs(problem, Distribution.NORMAL, seed=11)
    out, lse = outputs(problem)
    arguments = kernel.bind({"q": q, "k": k, "v": v, "out": out, "lse": lse})
    report = run(kernel.host(), *arguments, policies=POLICIES)
    assert report.findings == ()
    scale = float(problem.head_dim) ** -0.5
    for accuracy in compare(problem, (q, k, v), (out, lse), scale, FA4_EXP2_ERROR):
        assert accuracy.ok, accuracy


@pytest.mark.slow
@pytest.mark.parametrize("distribution", list(Distribution))
def test_flash_attention_4_survives_large_and_growing_logits(distribution: Distribution) -> None:
    name = "fa4-sm100-d128-causal"
    problem = AttentionProblem.from_dict(FA4[name].arguments["problem"])
    q, k, v = make_inputs(problem, distribution, seed=5)
    out, lse = outputs(problem)
    kernel = peers()[name]
    arguments = kernel.bind({"q": q, "k": k, "v": v, "out": out, "lse": lse})
    assert run(kernel.host(), *arguments, policies=["eager"]).ok
    scale = float(problem.head_dim) ** -0.5
    for accuracy in compare(problem, (q, k, v), (out, lse), scale, FA4_EXP2_ERROR):
        assert accuracy.ok, accuracy


OWN = {
    "default d64": ({"head_dim": 64, "seqlen_q": 256, "causal": True}, {}),
    "default d128": ({"head_dim": 128, "seqlen_q": 200, "seqlen_k": 333}, {}),
    "a fixed walk": (
        {"head_dim": 64, "seqlen_q": 256, "causal": True},
        {"scheduler": "persistent"},
    ),
    "default d256": ({"head_dim": 256, "seqlen_q": 130, "seqlen_k": 170, "causal": True}, {}),
    "padded d72, V d40": ({"head_dim": 72, "head_dim_v": 40, "seqlen_q": 70}, {}),
    "masked rows": ({"head_dim": 64, "seqlen_q": 300, "seqlen_k": 100, "causal": True}, {}),
    "one query, GQA": (
        {"head_dim": 128, "seqlen_q": 1, "seqlen_k": 400, "num_heads_q": 8, "num_heads_kv": 2},
        {"tile_m": 64, "regs_consumer": 256, "pingpong": False},
    ),
    "fp16, P in shared memory, polynomial": (
        {"head_dim": 96, "seqlen_q": 192, "dtype": "fp16"},
        {"p_in_registers": False, "exp2_poly_fraction": 0.25},
    ),
    "threshold, no overlap, one tile per CTA": (
        {"head_dim": 128, "seqlen_q": 256, "causal": True},
        {
            "rescale_threshold_log2": 8.0,
            "intra_warpgroup_overlap": False,
            "pingpong": False,
            "scheduler": "lpt",
            "q_prefetch": False,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_own_kernels_are_right(name: str) -> None:
    fields, knobs = OWN[name]
    problem = AttentionProblem.from_dict({"batch": 1, "num_heads_q": 2, **fields})
    arch = load_arch("sm90")
    base = space_for("sm90").default(problem.signature).to_dict()
    config = KernelConfig.from_dict({**base, **knobs})
    assert canonicalise(problem.signature, config, arch) == config
    host = host_of_artifact(compile_kernel(render(problem.signature, config, arch)), arch.target)
    error = exp2_error(config)
    found = emulate_attention(
        host,
        Trial(problem, seed=2),
        policies=POLICIES,
        exp2_error=error,
        workspace=Workspace.of(config),
    )
    assert found.report.findings == ()
    assert all(accuracy.ok for accuracy in found.accuracies), found.accuracies


def test_a_wrong_output_is_seen() -> None:
    """The comparison itself: one element that is off by a bit more than allowed, or not written."""
    problem = AttentionProblem.from_dict(
        {"batch": 1, "seqlen_q": 4, "num_heads_q": 1, "head_dim": 16, "dtype": "fp16"}
    )
    inputs = make_inputs(problem, Distribution.NORMAL, seed=0)
    out, lse = outputs(problem)
    o, _ = compare(problem, inputs, (out, lse), 0.25, 0.0)
    assert not o.ok
    from fa4gen.numerics.reference import attention_fp64

    exact, exact_lse = attention_fp64(*inputs, 0.25)
    right = (exact.astype(np.float16), exact_lse.astype(np.float32))
    assert all(a.ok for a in compare(problem, inputs, right, 0.25, 0.0))
    right[0][0, 3, 0, 7] += np.float16(0.02)
    o, _ = compare(problem, inputs, right, 0.25, 0.0)
    assert not o.ok
