"""Rendered Hopper kernels in the emulator, under a random order of completion, against float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import KernelFault
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.session import run
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import (
    Trial,
    compare,
    emulate_attention,
    kernel_tensors,
    make_inputs,
    poisoned_outputs,
)
from fa4gen.feasibility import check
from fa4gen.hardware import load_arch
from fa4gen.ptx.host import CompiledHost
from fa4gen.space import space_for

ARCH = load_arch("sm90")
DECODE = {
    "tile_m": 64,
    "pingpong": False,
    "regs_consumer": 240,
    "scheduler": Scheduler.LPT,
    "q_prefetch": False,
    "pack_gqa": True,
}
"""What a short query wants; ``num_splits`` comes on top."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Distribution]] = {
    # Boxes of Q and of O begin together: without that a warpgroup stores O over another's queries.
    "wide queries": ({"head_dim": 192, "head_dim_v": 128}, {}, Distribution.NORMAL),
    "wide queries, next ones early": (
        {"head_dim": 192, "head_dim_v": 128},
        {"tile_n": 64, "pingpong": True, "q_prefetch": True},
        Distribution.NORMAL,
    ),
    "wide values": ({"head_dim": 64, "head_dim_v": 128}, {"tile_m": 128}, Distribution.LARGE),
    "three warpgroups": (
        {"head_dim": 128, "causal": True},
        {"tile_m": 192, "tile_n": 80, "regs_consumer": 160},
        Distribution.NORMAL,
    ),
    "groups that share no box": (
        {"head_dim": 64, "num_heads_q": 6, "seqlen_q": 150, "causal": True},
        {"pack_gqa": True},
        Distribution.GROWING,
    ),
    "a mask of two words": (
        {"head_dim": 128, "seqlen_k": 411, "causal": True},
        {"tile_n": 176, "q_prefetch": False},
        Distribution.NORMAL,
    ),
    "half precision": ({"head_dim": 64, "dtype": DType.FP16}, {"tile_m": 128}, Distribution.LARGE),
    "maxima of every block": (
        {"head_dim": 64},
        {"lazy_row_max": False, "rescale_threshold_log2": 0.0},
        Distribution.GROWING,
    ),
    # O is multiplied while QK runs, and wgmma.fence has to come after the last product.
    "maxima of every block, wide values": (
        {"head_dim": 256},
        {"lazy_row_max": False, "rescale_threshold_log2": 0.0},
        Distribution.GROWING,
    ),
    # The same without overlap: the products stand right before the fence of PV.
    "maxima of every block, no overlap": (
        {"head_dim": 64},
        {
            "lazy_row_max": False,
            "rescale_threshold_log2": 0.0,
            "intra_warpgroup_overlap": False,
        },
        Distribution.GROWING,
    ),
    "two buffers of P, one pass and a block over": (
        {"head_dim": 64, "seqlen_q": 100, "seqlen_k": 370},
        {"tile_m": 128, "tile_n": 80, "p_buffers": 2},
        Distribution.GROWING,
    ),
    "splits": (
        {"head_dim": 128, "seqlen_q": 1, "seqlen_k": 700, "num_heads_q": 8},
        {**DECODE, "num_splits": 4},
        Distribution.NORMAL,
    ),
    "splits without a key": (
        {"head_dim": 64, "seqlen_q": 3, "seqlen_k": 300, "num_heads_q": 8, "causal": True},
        {**DECODE, "num_splits": 8},
        Distribution.GROWING,
    ),
    "splits of odd columns": (
        {"head_dim": 64, "head_dim_v": 80, "seqlen_q": 2, "seqlen_k": 300, "num_heads_q": 4},
        {**DECODE, "num_splits": 2},
        Distribution.NORMAL,
    ),
    "splits of many columns": (
        {"head_dim": 64, "head_dim_v": 256, "seqlen_q": 1, "seqlen_k": 300, "num_heads_q": 4},
        {**DECODE, "tile_n": 64, "num_splits": 4},
        Distribution.NORMAL,
    ),
    # Rows that no head has stand between those of one query and the next.
    "seven heads of two queries": (
        {"head_dim": 64, "seqlen_q": 2, "seqlen_k": 300, "num_heads_q": 14, "num_heads_kv": 2},
        {**DECODE, "tile_n": 64, "num_splits": 3},
        Distribution.LARGE,
    ),
    "five heads of queries in three tiles": (
        {"head_dim": 128, "seqlen_q": 20, "seqlen_k": 150, "num_heads_q": 5, "num_heads_kv": 1}
        | {"causal": True},
        {**DECODE, "tile_n": 64, "num_splits": 2},
        Distribution.GROWING,
    ),
    "three heads and two warpgroups": (
        {"head_dim": 64, "seqlen_q": 70, "seqlen_k": 200, "num_heads_q": 3, "num_heads_kv": 1},
        {"tile_m": 128, "scheduler": Scheduler.PERSISTENT, "num_splits": 2, "pack_gqa": True},
        Distribution.NORMAL,
    ),
    "persistent splits": (
        {"head_dim": 64, "head_dim_v": 128, "seqlen_q": 70, "seqlen_k": 400},
        {"tile_m": 128, "scheduler": Scheduler.PERSISTENT, "num_splits": 2},
        Distribution.NORMAL,
    ),
    # Its tiles go in pairs, and the last of three begins a pair with one past the end.
    "a fixed walk": (
        {"head_dim": 64, "causal": True},
        {"tile_m": 128, "tile_n": 80, "scheduler": Scheduler.PERSISTENT, "q_prefetch": True},
        Distribution.GROWING,
    ),
}

TILES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    # Six tiles of one to three blocks for two CTAs.
    "causal": (
        {"head_dim": 64, "seqlen_q": 190, "causal": True},
        {"q_prefetch": False},
        ("lazy", "seed:2"),
    ),
    "causal, next queries early": (
        {"head_dim": 64, "seqlen_q": 190, "causal": True},
        {"q_prefetch": True},
        ("lazy", "eager", "seed:3"),
    ),
    "dense, next queries early, in turns": (
        {"head_dim": 64, "seqlen_q": 300, "seqlen_k": 100},
        {"q_prefetch": True, "tile_m": 128, "pingpong": True},
        ("lazy", "seed:5"),
    ),
    "groups of heads in one tile": (
        {"head_dim": 64, "num_heads_q": 8, "seqlen_q": 60, "causal": True},
        {"q_prefetch": True, "pack_gqa": True},
        ("lazy", "seed:6"),
    ),
}
"""Sizes, knobs and policies of kernels that take their tiles from a counter; the last policy is of
the second launch."""


def problem_of(sizes: dict[str, Any]) -> AttentionProblem:
    given: dict[str, Any] = {
        "seqlen_q": 300,
        "num_heads_q": 2,
        "num_heads_kv": 2,
        "batch": 1,
        "causal": False,
        "dtype": DType.BF16,
    }
    given |= sizes
    given.setdefault("seqlen_k", given["seqlen_q"])
    given.setdefault("head_dim_v", given["head_dim"])
    return AttentionProblem(**given)


def built(problem: AttentionProblem, knobs: dict[str, Any]) -> tuple[CompiledHost, KernelConfig]:
    regs = {"regs_consumer": 240} if knobs.get("tile_m") == 128 else {}
    config = space_for("sm90").default(problem.signature).vary(regs | knobs)
    verdict = check(problem.signature, config, ARCH)
    assert verdict, str(verdict)
    artifact = compile_kernel(render(problem.signature, config, ARCH))
    return host_of_artifact(artifact, ARCH.target), config


@pytest.mark.parametrize("name", CASES)
def test_kernels_are_right_when_copies_and_products_end_at_random(name: str) -> None:
    sizes, knobs, distribution = CASES[name]
    problem = problem_of(sizes)
    host, config = built(problem, knobs)
    trial = Trial(problem, distribution, seed=1, num_sms=1)
    found = emulate_attention(host, trial, policies=("seed:1",), workspace=Workspace.of(config))
    assert found.ok, (found.accuracies, found.report.findings[:2])


@pytest.mark.parametrize("name", TILES)
def test_a_counter_hands_out_every_tile_and_ends_at_zero(name: str) -> None:
    """Twice, the second time from what the first left behind and into outputs of NaN again."""
    sizes, knobs, policies = TILES[name]
    problem = problem_of(sizes)
    small = {"tile_m": 64, "tile_n": 64, "pingpong": False, "scheduler": Scheduler.DYNAMIC}
    host, config = built(problem, {**small, "regs_consumer": 240, **knobs})
    inputs = make_inputs(problem, Distribution.NORMAL, seed=4)
    outputs = poisoned_outputs(problem)
    tensors = kernel_tensors(inputs, outputs, workspace=Workspace.of(config))
    *_, counter = tensors
    assert (counter.shape, counter.dtype) == ((1,), np.int32)
    scale = problem.head_dim**-0.5
    for at, tried in enumerate((policies[:-1], policies[-1:])):
        for out in outputs:
            out[...] = np.nan
        report = run(host, *tensors, scale, 2, policies=tried)
        assert report.ok, (at, report.findings[:2])
        assert not counter.any(), at
        for accuracy in compare(problem, inputs, outputs, scale, 0.0):
            assert accuracy.ok, (at, accuracy)


def test_a_counter_left_behind_is_found() -> None:
    """Right numbers, and a next launch that would begin in the middle: one answer too few wraps."""
    problem = problem_of({"head_dim": 64, "seqlen_q": 50})
    small = {"tile_m": 64, "tile_n": 64, "pingpong": False, "scheduler": Scheduler.DYNAMIC}
    config = space_for("sm90").default(problem.signature).vary({**small, "regs_consumer": 240})
    good = render(problem.signature, config, ARCH)
    limit = "[grid.tile_counter, grid.num_tiles - 1]"
    assert limit in good.source
    bad = replace(
        good,
        source=good.source.replace(limit, "[grid.tile_counter, grid.num_tiles]"),
        module_name=f"{good.module_name}_never_wraps",
    )
    host = host_of_artifact(compile_kernel(bad), ARCH.target)
    trial = Trial(problem, num_sms=2)
    with pytest.raises(KernelFault, match="tile counter: got 2 after the launch, allowed: 0"):
        emulate_attention(host, trial, policies=("eager",), workspace=Workspace.of(config))


@pytest.mark.parametrize("shift", [-12.0, -60.0])
@pytest.mark.parametrize("dtype", [DType.BF16, DType.FP16])
def test_logits_far_below_zero_find_their_maxima(dtype: DType, shift: float) -> None:
    """Where bit patterns do not order floats: all logits negative, some blocks far above others.

    ``shift`` is in units of the logit's natural logarithm, on both sides of what the threshold
    would forgive; rows see the best block first, last or in between.
    """
    problem = problem_of({"head_dim": 64, "seqlen_q": 64, "seqlen_k": 512, "dtype": dtype})
    host, config = built(problem, {"tile_m": 64, "pingpong": False, "regs_consumer": 240})
    assert config.lazy_row_max
    kind = {DType.BF16: ml_dtypes.bfloat16, DType.FP16: np.float16}[dtype]
    rng = np.random.default_rng(5)
    shape = (1, 512, 2, 64)
    q = rng.standard_normal((1, 64, 2, 64)).astype(np.float32)
    k, v = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    scale = 64**-0.5
    # Dimension 0 carries the level of a row's logits, block by block: up, then down, then up.
    q[..., 0] = 8.0
    level = np.repeat([1.0, 0.4, 0.8, 0.2], 128) * shift / 2
    k[..., 0] = (level / (8.0 * scale))[None, :, None]
    inputs = tuple(x.astype(kind) for x in (q, k, v))
    out, lse = poisoned_outputs(problem)
    tensors = kernel_tensors(inputs, (out, lse), workspace=Workspace.of(config))
    report = run(host, *tensors, scale, 1, policies=("eager",))
    assert report.ok, report.findings[:2]
    for accuracy in compare(problem, inputs, (out, lse), scale, 0.0):
        assert accuracy.ok, accuracy


@pytest.mark.parametrize("scheduler", [Scheduler.DYNAMIC, Scheduler.PERSISTENT])
def test_a_warpgroup_skips_blocks_that_none_of_its_rows_sees(scheduler: Scheduler) -> None:
    """What is masked has weight 0, and 0 times NaN is NaN: rows stay clean by not looking at all.

    One tile of three warpgroups and three blocks of 64 keys; V of the last block is NaN, which the
    first two warpgroups must not touch.
    """
    problem = problem_of({"head_dim": 64, "seqlen_q": 192, "causal": True})
    host, config = built(problem, {"tile_m": 192, "tile_n": 64, "scheduler": scheduler})
    q, k, v = make_inputs(problem, Distribution.NORMAL, seed=6)
    poisoned = v.copy()
    poisoned[:, 128:] = np.nan
    out, lse = poisoned_outputs(problem)
    tensors = kernel_tensors((q, k, poisoned), (out, lse), workspace=Workspace.of(config))
    scale = problem.head_dim**-0.5
    report = run(host, *tensors, scale, 1, policies=("seed:1",))
    assert report.ok, report.findings[:2]
    assert np.isnan(out[:, 128:].astype(np.float32)).all()
    seen = problem_of({"head_dim": 64, "seqlen_q": 128, "causal": True})
    halves = (q[:, :128], k[:, :128], v[:, :128])
    for accuracy in compare(seen, halves, (out[:, :128], lse[..., :128]), scale, 0.0):
        assert accuracy.ok, accuracy
