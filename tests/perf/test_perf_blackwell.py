"""The cycle model for Blackwell: near published times, and in the right direction."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.hardware import load_arch, load_sku
from fa4gen.perf import block_cost, predict, spill_slowdown
from fa4gen.space import space_for

SERIES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("published_blackwell.toml").read_text()
)["series"]
POINTS = [
    pytest.param(series, seqlen, tflops, id=f"{series['sku']} s{seqlen} {series['problem']}")
    for series in SERIES
    for seqlen, tflops in zip(series["seqlens"], series["tflops"], strict=True)
]
DENSE = parse_problem(["b2", "s8192", "h64/8", "d128", "dense"])
CAUSAL = parse_problem(["b2", "s8192", "h64/8", "d128", "causal"])
SM100 = load_arch("sm100")


def block(**changes: Any) -> float:
    config = replace(space_for("sm100").default(DENSE.signature), **changes)
    return block_cost(DENSE.signature, config, SM100).total


@pytest.mark.parametrize(("series", "seqlen", "tflops"), POINTS)
def test_published_times(series: dict[str, Any], seqlen: int, tflops: float) -> None:
    sku = load_sku(series["sku"])
    problem = parse_problem([f"s{seqlen}", *series["problem"].split()])
    config = space_for(sku.arch.name).default(problem.signature)
    expected = problem.flops / predict(problem, config, sku).time_us * 1e-6
    assert abs(expected / tflops - 1) <= series["allowed"], f"{expected:.0f} TFLOP/s"


def test_the_paper_s_block() -> None:
    """Table 1 of the FlashAttention-4 paper: 128 x 128 x 128 is 1024 cycles of MMA and of exp."""
    one = KernelConfig(num_q_stages=1, num_kv_stages=3)
    pipes = block_cost(DENSE.signature, one, SM100).pipes
    assert pipes["mma"] * 0.975 == pytest.approx(1024)
    assert pipes["mufu"] == pytest.approx(1024 + 8)
    # 768 cycles of operands, and K and V on their way into shared memory.
    assert pipes["smem"] == pytest.approx(768 + 512)


def test_directions() -> None:
    """What the paper's and AVO's ablations found."""
    assert block(exp2_poly_fraction=0.1875) < block(exp2_poly_fraction=0.0)
    assert block(exp2_poly_fraction=0.5) > block(exp2_poly_fraction=0.1875)
    assert block(rescale_branch=False) < block()
    assert block(rescale_threshold_log2=8.0) < block(rescale_threshold_log2=0.0)
    assert block(num_q_stages=1) / 1.2 > block() / 2  # per Q tile
    assert block(p_publish_columns=64) < block(p_publish_columns=128)
    two, one = (
        block_cost(DENSE.signature, KernelConfig(num_kv_stages=3, cta_group=group), SM100)
        for group in (2, 1)
    )
    assert two.pipes["smem"] < one.pipes["smem"]


def test_polynomials_do_not_pay_on_sm103() -> None:
    sm103 = load_arch("sm103")
    base = space_for("sm103").default(DENSE.signature)
    with_polynomial = replace(base, exp2_poly_fraction=0.1875)
    costs = [block_cost(DENSE.signature, each, sm103).total for each in (base, with_polynomial)]
    assert costs[0] < costs[1]


def test_a_fused_row_maximum_saves_issue_slots() -> None:
    sm103 = load_arch("sm103")
    base = replace(space_for("sm103").default(DENSE.signature), fused_row_max=False)
    fused = replace(base, fused_row_max=True)
    plain, saved = (block_cost(DENSE.signature, each, sm103).pipes for each in (base, fused))
    assert saved["issue"] < plain["issue"]
    assert saved["alu"] < plain["alu"]


@pytest.mark.parametrize("scheduler", Scheduler)
def test_never_faster_than_the_tensor_cores(scheduler: Scheduler) -> None:
    sku = load_sku("b200")
    for problem in (DENSE, CAUSAL):
        config = replace(space_for("sm100").default(problem.signature), scheduler=scheduler)
        found = predict(problem, config, sku)
        peak = sku.mma_tflops(found.clock_mhz)
        assert problem.flops / found.time_us * 1e-6 < peak


def test_spills_cost() -> None:
    assert spill_slowdown(0) == 1.0
    assert spill_slowdown(408) == pytest.approx(1.65, abs=0.03)
