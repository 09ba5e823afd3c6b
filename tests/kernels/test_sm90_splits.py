"""Hopper kernels that share the keys of a tile: how O of a split leaves, and what combines them."""

from __future__ import annotations

import re

import pytest

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.launch import Launch, capture
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import kernel_tensors, make_inputs, poisoned_outputs
from fa4gen.feasibility import check
from fa4gen.hardware import load_arch
from fa4gen.ptx.host import CompiledHost
from fa4gen.space import space_for

ARCH = load_arch("sm90")
SM_BYTES = ARCH.smem_per_sm_bytes
CTA_BYTES = SM_BYTES - ARCH.smem_per_cta_bytes


def problem_of(batch: int, seqlen_q: int) -> AttentionProblem:
    return AttentionProblem(
        dtype=DType.BF16,
        batch=batch,
        seqlen_q=seqlen_q,
        seqlen_k=128,
        num_heads_q=32,
        num_heads_kv=8,
        head_dim=128,
        head_dim_v=128,
        causal=False,
    )


def built(problem: AttentionProblem, stages: int = 2) -> tuple[CompiledHost, Workspace]:
    config = space_for("sm90").default(problem.signature)
    config = config.vary(
        {
            "tile_m": 64,
            "tile_n": 64,
            "num_kv_stages": stages,
            "pingpong": False,
            "regs_consumer": 240,
            "scheduler": Scheduler.PERSISTENT,
            "q_prefetch": False,
            "num_splits": 16,
        }
    )
    assert check(problem.signature, config, ARCH)
    artifact = compile_kernel(render(problem.signature, config, ARCH))
    return host_of_artifact(artifact, ARCH.target), Workspace.of(config)


def launches_of(problem: AttentionProblem, stages: int = 2) -> tuple[Launch, Launch]:
    host, workspace = built(problem, stages)
    inputs = make_inputs(problem, Distribution.NORMAL, seed=1)
    tensors = kernel_tensors(inputs, poisoned_outputs(problem), workspace=workspace)
    tile, combine = capture(host, *tensors, 1.0, 132)
    return tile, combine


@pytest.mark.parametrize(
    ("batch", "seqlen_q", "stages", "share", "most"),
    [(1, 1, 2, 1, 1), (1, 16, 2, 1, 1), (1, 16, 5, 1, 4), (2, 16, 2, 2, 3), (4, 16, 2, 4, 6)],
)
def test_ctas_that_combine_take_their_share_of_the_sms(
    batch: int, seqlen_q: int, stages: int, share: int, most: int
) -> None:
    """They are launched early: an SM without a tile must not take those of many others.

    Its share has room beside a tile, whatever the tile's size; `most` fit where there is none.
    """
    tile, combine = launches_of(problem_of(batch, seqlen_q), stages)
    assert share == -(-combine.grid[0] * combine.grid[1] // 132)
    each = combine.dynamic_smem + CTA_BYTES
    assert tile.dynamic_smem + CTA_BYTES + share * each <= SM_BYTES
    assert SM_BYTES // each == most


def ptx_of(marker: str) -> str:
    """The one of the two kernels that has this instruction."""
    host, _ = built(problem_of(1, 16))
    (text,) = set(host.ptx.values())
    (kernel,) = (part for part in re.split(r"\.entry ", text)[1:] if marker in part)
    return kernel


def test_o_of_a_split_leaves_two_columns_at_a_time() -> None:
    text = ptx_of("wgmma")
    body = text[text.index("wgmma") :]
    pairs = re.findall(r"st\.global\.v2\.\w+", body)
    singles = re.findall(r"st\.global\.[bf]32", body)
    assert len(pairs) >= 2 * 128 // 8
    assert len(singles) <= 2, "LSE of two rows"


def test_every_load_of_the_combination_is_under_way_before_one_is_waited_for() -> None:
    """And each has a predicate, since the first pass only fetches the code."""
    text = ptx_of("griddepcontrol.wait")
    lines = [line.strip() for line in text.splitlines()]
    loads = [i for i, line in enumerate(lines) if "ld.global" in line]
    barriers = [i for i, line in enumerate(lines) if re.match(r"bar(rier)?(\.cta)?\.sync", line)]
    assert len(loads) == 16 + 1
    assert all(lines[i].startswith("@") or "@wanted" in lines[i] for i in loads)
    assert len(barriers) == 2
    assert max(loads) < min(barriers)
    (kept,) = (i for i, line in enumerate(lines) if "st.shared" in line)
    assert barriers[0] < kept < barriers[1]
