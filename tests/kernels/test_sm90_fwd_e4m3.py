"""Hopper kernels in e4m3 in the emulator: right under random orders of completion, and wrong where
they should be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from fa4gen.codegen import GeneratedKernel, render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.session import POLICIES, run
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import (
    AttentionReport,
    Trial,
    compare,
    emulate_attention,
    kernel_tensors,
    make_descales,
    make_inputs,
    poisoned_outputs,
)
from fa4gen.feasibility import check
from fa4gen.hardware import load_arch
from fa4gen.numerics import LINE, exp2_error, max_relative_error
from fa4gen.ptx.host import CompiledHost
from fa4gen.space import space_for

ARCH = load_arch("sm90")
ONE_HEAD = {"num_heads_q": 1, "num_heads_kv": 1}
ONE_WARPGROUP = {
    "tile_m": 64,
    "pingpong": False,
    "regs_producer": 24,
    "regs_consumer": 240,
    "num_kv_stages": 2,
    "exp2_poly_fraction": 0.0,
}
"""Without the default's line through each octave, whose allowance would hide small errors."""
DECODE = {**ONE_WARPGROUP, "scheduler": Scheduler.LPT, "q_prefetch": False, "pack_gqa": True}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Distribution]] = {
    # Two blocks a pass of the inner loop: two passes here, one and a block over below.
    "defaults, 64 columns": (
        {**ONE_HEAD, "head_dim": 64, "seqlen_q": 64, "seqlen_k": 600},
        {},
        Distribution.GROWING,
    ),
    "defaults, 128 columns": (
        {**ONE_HEAD, "head_dim": 128, "seqlen_q": 140, "seqlen_k": 740, "causal": True},
        {},
        Distribution.NORMAL,
    ),
    "defaults, 256 columns": (
        {**ONE_HEAD, "head_dim": 256, "seqlen_q": 70, "seqlen_k": 300},
        {},
        Distribution.GROWING,
    ),
    # The one slot of a wide V keeps its own parity when K has three. And P as large as it gets.
    "one slot of V, three of K": (
        {"head_dim": 64, "head_dim_v": 192, "seqlen_q": 64, "seqlen_k": 330},
        {**ONE_WARPGROUP, "tile_n": 64, "num_kv_stages": 3, "rescale_threshold_log2": 4.0},
        Distribution.GROWING,
    ),
    # Padded head dimensions, and the widths that a swizzle spans: 32 bytes here, 64 below.
    "narrow swizzles": (
        {"head_dim": 80, "head_dim_v": 96, "seqlen_q": 40, "seqlen_k": 250},
        {**ONE_WARPGROUP, "tile_n": 96, "exp2_poly_fraction": 0.25, "exp2_poly_degree": 2},
        Distribution.NORMAL,
    ),
    "groups of heads apart": (
        {"head_dim": 64, "num_heads_q": 4, "seqlen_q": 40, "seqlen_k": 300},
        {**ONE_WARPGROUP, "tile_n": 192, "pack_gqa": False},
        Distribution.NORMAL,
    ),
    "groups of heads together": (
        {"head_dim": 64, "num_heads_q": 8, "batch": 2, "seqlen_q": 40, "causal": True},
        {**ONE_WARPGROUP, "pack_gqa": True},
        Distribution.GROWING,
    ),
    "no overlap": (
        {"head_dim": 64, "seqlen_q": 100, "seqlen_k": 40, "causal": True},
        {**ONE_WARPGROUP, "tile_n": 64, "intra_warpgroup_overlap": False},
        Distribution.LARGE,
    ),
    "maxima of every block": (
        {"head_dim": 64, "seqlen_q": 64, "seqlen_k": 300},
        {**ONE_WARPGROUP, "lazy_row_max": False, "rescale_threshold_log2": 0.0},
        Distribution.GROWING,
    ),
    "all exponentials by a line": (
        {"head_dim": 64, "seqlen_q": 64, "seqlen_k": 300, "causal": True},
        {**ONE_WARPGROUP, "exp2_poly_fraction": 1.0, "exp2_poly_degree": 1},
        Distribution.LARGE,
    ),
    "splits, some without a key": (
        {"head_dim": 64, "seqlen_q": 3, "seqlen_k": 200, "num_heads_q": 8, "causal": True},
        {**DECODE, "num_splits": 4},
        Distribution.GROWING,
    ),
    "five heads of two queries": (
        {"head_dim": 64, "seqlen_q": 2, "seqlen_k": 200, "num_heads_q": 10},
        {**DECODE, "num_splits": 2},
        Distribution.NORMAL,
    ),
}


def problem_of(sizes: dict[str, Any]) -> AttentionProblem:
    given: dict[str, Any] = {"seqlen_q": 200, "num_heads_q": 2, "num_heads_kv": 2, "batch": 1}
    return AttentionProblem.from_dict({**given, **sizes, "dtype": "e4m3"})


@cache
def rendered(problem: AttentionProblem, knobs: tuple[tuple[str, Any], ...]) -> GeneratedKernel:
    config = space_for("sm90").default(problem.signature).vary(dict(knobs))
    verdict = check(problem.signature, config, ARCH)
    assert verdict, str(verdict)
    return render(problem.signature, config, ARCH)


def built(kernel: GeneratedKernel) -> CompiledHost:
    return host_of_artifact(compile_kernel(kernel), ARCH.target)


def workspace_of(kernel: GeneratedKernel) -> Workspace:
    return Workspace.of(kernel.config)


def emulated(
    problem: AttentionProblem, kernel: GeneratedKernel, distribution: Distribution
) -> AttentionReport:
    trial = Trial(problem, distribution, seed=1, num_sms=1)
    config = kernel.config
    error = exp2_error(config)
    return emulate_attention(
        built(kernel),
        trial,
        policies=("seed:1",),
        workspace=workspace_of(kernel),
        exp2_error=error,
    )


@pytest.mark.parametrize("name", CASES)
def test_kernels_are_right_when_copies_and_products_end_at_random(name: str) -> None:
    sizes, knobs, distribution = CASES[name]
    problem = problem_of(sizes)
    found = emulated(problem, rendered(problem, tuple(knobs.items())), distribution)
    assert found.ok, (found.accuracies, found.report.findings[:2])


def test_the_warps_that_turn_v_over_wait_for_their_first_tile() -> None:
    """Tiles of a single block, so that nothing but the first Q, which comes late, holds them up."""
    problem = problem_of(
        {**ONE_HEAD, "head_dim": 64, "seqlen_q": 465, "seqlen_k": 69, "causal": True}
    )
    kernel = rendered(problem, (("num_kv_stages", 2),))
    wait = "    tile = tile_of(grid, bar, q_place)\n    while"
    assert wait in kernel.source
    hasty = replace(
        kernel,
        source=kernel.source.replace(wait, "    tile = grid.cta\n    while"),
        module_name=f"{kernel.module_name}_hasty",
    )
    trial, error = Trial(problem, seed=1, num_sms=1), max_relative_error(LINE)
    for tried, right in ((kernel, True), (hasty, False)):
        found = emulate_attention(
            built(tried),
            trial,
            policies=("lazy",),
            workspace=workspace_of(tried),
            exp2_error=error,
        )
        assert found.ok is right, found.report.findings[:2]


def test_every_order_of_completion_gives_the_same() -> None:
    problem = problem_of({"head_dim": 64, "seqlen_q": 64, "seqlen_k": 330})
    kernel = rendered(problem, tuple({**ONE_WARPGROUP, "tile_n": 64}.items()))
    report = emulate_attention(
        built(kernel), Trial(problem, seed=3), policies=POLICIES, workspace=workspace_of(kernel)
    )
    assert report.ok, (report.accuracies, report.report.findings[:2])


def test_accumulators_of_hopper_stay_near_the_exact_ones() -> None:
    """What a GPU does to 8-bit products: O within its allowance, the LSE within 13 bits."""
    from fa4gen.emulator.emulate import Options

    problem = problem_of({"head_dim": 64, "seqlen_q": 64, "seqlen_k": 200})
    kernel = rendered(problem, tuple(ONE_WARPGROUP.items()))
    options = Options(tensor_core="fused")
    workspace = workspace_of(kernel)
    found = emulate_attention(
        built(kernel), Trial(problem), policies=("eager",), options=options, workspace=workspace
    )
    o, lse = found.accuracies
    assert found.report.ok
    assert o.ok, o
    assert lse.max_error < 2.0**-9


TILES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "causal": ({"causal": True}, {"q_prefetch": False}, ("lazy", "seed:2")),
    "causal, next queries early": ({"causal": True}, {"q_prefetch": True}, ("eager", "seed:3")),
    "dense, groups of heads in one tile": (
        {"num_heads_q": 8, "seqlen_q": 75, "seqlen_k": 100},
        {"q_prefetch": True, "pack_gqa": True},
        ("lazy", "seed:4"),
    ),
}
"""Sizes, knobs and policies of kernels that take their tiles from a counter; the last policy is of
the second launch."""


@pytest.mark.parametrize("name", TILES)
def test_a_counter_hands_out_every_tile_and_ends_at_zero(name: str) -> None:
    """The warps that turn V over follow the same tiles. Twice, from what the first left behind."""
    sizes, knobs, policies = TILES[name]
    problem = problem_of({"head_dim": 64, "seqlen_q": 190, **sizes})
    small = {**ONE_WARPGROUP, "tile_n": 64, "scheduler": Scheduler.DYNAMIC, **knobs}
    kernel = rendered(problem, tuple(small.items()))
    host, scale = built(kernel), 64**-0.5
    inputs, outputs = make_inputs(problem, Distribution.NORMAL, 4), poisoned_outputs(problem)
    descales = make_descales(problem, 4)
    tensors = kernel_tensors(inputs, outputs, descales, workspace_of(kernel))
    for at, tried in enumerate((policies[:-1], policies[-1:])):
        for out in outputs:
            out[...] = np.nan
        report = run(host, *tensors, scale, 2, policies=tried)
        assert report.ok, (at, report.findings[:2])
        assert not tensors[-1].any(), at
        for accuracy in compare(problem, inputs, outputs, scale, 0.0, descales):
            assert accuracy.ok, (at, accuracy)


SABOTAGES = {
    # Keys of V in their own order, while those of P are permuted.
    "order of the keys": ("even, odd = Int32(0x6420), Int32(0x7531)", "0x6420", "0x6240"),
    "a shift of P left in": ("lse_log2 -= P_SHIFT_LOG2", "P_SHIFT_LOG2", "0.0"),
    "no proxy fence": ("            cute.arch.fence_view_async_shared()\n", "cute", "pass  # cute"),
}


@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_is_found(name: str) -> None:
    line, piece, instead = SABOTAGES[name]
    problem = problem_of({"head_dim": 64, "seqlen_q": 64, "seqlen_k": 100})
    kernel = rendered(problem, tuple({**ONE_WARPGROUP, "tile_n": 64}.items()))
    assert line in kernel.source
    source = kernel.source.replace(line, line.replace(piece, instead), 1)
    broken = replace(
        kernel, source=source, module_name=f"{kernel.module_name}_{list(SABOTAGES).index(name)}"
    )
    assert not emulated(problem, broken, Distribution.NORMAL).ok


def test_descales_are_of_each_batch_entry_and_kv_head() -> None:
    """Exchanging two descales is seen: the comparison itself is not blind to them."""
    problem = problem_of({"head_dim": 64, "seqlen_q": 20, "seqlen_k": 40, "batch": 2})
    kernel = rendered(problem, tuple(ONE_WARPGROUP.items()))
    inputs, outputs = make_inputs(problem, Distribution.NORMAL, 0), poisoned_outputs(problem)
    descales = make_descales(problem, 0)
    scale = 64**-0.5
    tensors = kernel_tensors(inputs, outputs, descales, workspace_of(kernel))
    report = run(built(kernel), *tensors, scale, 2, policies=("eager",))
    assert report.ok
    assert all(found.ok for found in compare(problem, inputs, outputs, scale, 0.0, descales))
    for i in range(3):
        exchanged = list(descales)
        exchanged[i] = np.ascontiguousarray(descales[i][::-1])
        found = compare(problem, inputs, outputs, scale, 0.0, tuple(exchanged))
        assert not all(each.ok for each in found), i


def test_a_kernel_config_of_old_renders_the_same_in_16_bits() -> None:
    """Nothing of the 8-bit kernel is in the text of another."""
    problem = replace(problem_of({"head_dim": 64}), dtype=DType.BF16)
    source = render(problem.signature, KernelConfig(), ARCH).source
    for word in ("descale", "e4m3", "turn_", "vt_", "P_SHIFT"):
        assert word not in source, word
