"""Kernels whose warpgroups let KV blocks pass of which their rows see no key: counts and gains."""

from __future__ import annotations

from typing import Any

import pytest

from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import canonicalise
from fa4gen.hardware import load_sku
from fa4gen.perf import count_work, predict
from fa4gen.space import space_for

H200 = load_sku("h200")
SPACE = space_for("sm90")


def attention(**sizes: Any) -> AttentionProblem:
    return AttentionProblem.from_dict({"batch": 2, "num_heads_q": 16, "head_dim": 128, **sizes})


def test_counting_what_each_warpgroup_runs() -> None:
    """Three warpgroups of 64 rows: 22 of 96 blocks hold no key that the one has a query for."""
    problem = attention(batch=1, seqlen_q=1024, num_heads_q=1, causal=True)
    config = KernelConfig(tile_m=192)
    mine = count_work(problem, config, H200.arch)
    assert [round(3 * run) for run in reversed(mine.run_per_tile)] == [4, 8, 13, 17, 22, 10]
    assert mine.loaded_per_tile == (8, 8, 6, 5, 3, 2)
    before = count_work(problem, config, H200.arch, skips_blocks=False)
    assert before.run_per_tile == before.blocks_per_tile == before.loaded_per_tile
    assert before.loaded_per_tile == mine.loaded_per_tile
    assert 3 * before.num_run == 96
    assert mine.num_run < mine.num_blocks < before.num_blocks
    # 64 rows cross one diagonal block of 128 keys; 192 rows cross two, of the last tile one.
    assert mine.masked_blocks_per_tile == 1
    assert before.masked_blocks_per_tile == pytest.approx(11 / 6)
    # Of the last tile 64 rows are queries; the others run a block of padding each.
    assert before.filled_rows == pytest.approx(1 - 8 * 2 / 96)
    assert mine.filled_rows == pytest.approx(72 / 74)


def test_warpgroups_without_queries_run_one_block_under_any_mask() -> None:
    one = {"batch": 1, "num_heads_q": 1, "seqlen_k": 1280}
    dense = count_work(attention(seqlen_q=128 + 64, **one), KernelConfig(), H200.arch)
    assert dense.run_per_tile == ((10 + 1) / 2, 10)
    assert dense.loaded_per_tile == (10, 10)
    whole = count_work(attention(seqlen_q=128 + 65, **one), KernelConfig(), H200.arch)
    assert whole.run_per_tile == whole.blocks_per_tile == (10, 10)
    packed = attention(seqlen_q=1, seqlen_k=1280, num_heads_q=8, num_heads_kv=1, batch=1)
    decode = KernelConfig(pack_gqa=True)
    assert count_work(packed, decode, H200.arch).run_per_tile == ((10 + 1) / 2,)


def test_only_hopper_s_templates_skip() -> None:
    b200 = load_sku("b200")
    problem = attention(seqlen_q=1000, causal=True)
    config = space_for("sm100").default(problem.signature)
    one, other = (
        count_work(problem, config, b200.arch, skips_blocks=skips) for skips in (None, False)
    )
    assert one == other
    assert one.run_per_tile == one.loaded_per_tile


SKIPPING_GAINS = [
    # problem, tile_m, tile_n: gain over the same kernel without skipping
    ("b32 s512 h32 d64", 192, 128, 1.072),
    ("b32 s512 h32 d64", 128, 128, 0.994),
    ("b16 s1024 h32 d64", 192, 128, 1.106),
    ("b16 s1024 h32 d64", 128, 128, 0.996),
    ("b8 s2048 h32 d64", 192, 128, 1.057),
    ("b4 s4096 h32 d64", 192, 128, 1.051),
    ("b1 s16384 h32 d64", 192, 128, 1.014),
    ("b32 s512 h16 d128", 192, 80, 1.11),
    ("b32 s512 h16 d128", 128, 128, 0.998),
    ("b16 s1024 h16 d128", 192, 80, 1.134),
    ("b16 s1024 h16 d128", 128, 128, 1.010),
    ("b4 s4096 h16 d128", 192, 80, 1.047),
    ("b4 s4096 h16 d128", 128, 128, 1.023),
    ("b1 s16384 h16 d128", 192, 80, 1.014),
    ("b1 s16384 h16 d128", 128, 128, 1.028),
    ("b16 s1024 h21 d96", 192, 128, 1.140),
    ("b16 s1024 h21 d96", 128, 128, 1.035),
    ("b16 s1024 h8 d256", 128, 64, 1.025),
]


@pytest.mark.parametrize(("sizes", "tile_m", "tile_n", "measured"), SKIPPING_GAINS)
def test_what_skipping_gains_under_a_mask(
    sizes: str, tile_m: int, tile_n: int, measured: float
) -> None:
    """Measured on an H200, 2026-11-21, interleaved, dynamic scheduler; one constant is fitted to
    the eleven tiles that leave blocks out.

    Tiles of 128x128 leave none out: what they gained or lost is not in the model, 3.5 % at most.
    """
    problem = parse_problem([*sizes.split(), "causal"])
    config = SPACE.default(problem.signature).vary(
        {"tile_m": tile_m, "tile_n": tile_n, "scheduler": "dynamic"}
    )
    config = canonicalise(problem.signature, config, H200.arch)
    before, now = (
        predict(problem, config, H200, 1600.0, skips_blocks=skips).time_us
        for skips in (False, True)
    )
    assert before / now == pytest.approx(measured, rel=0.04)
    if (tile_m, tile_n) == (128, 128):
        assert before == now
    else:
        assert before / now > 1.005


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_without_a_mask_padding_alone_is_skipped(head_dim: int) -> None:
    """Measured on an H200, 2026-11-21: 0.997 to 1.008."""
    problem = attention(seqlen_q=8192, head_dim=head_dim)
    config = SPACE.default(problem.signature)
    before, now = (predict(problem, config, H200, 1600.0, skips_blocks=s) for s in (False, True))
    assert 1.0 <= before.time_us / now.time_us < 1.008
    if problem.seqlen_q % config.tile_m == 0:
        assert before == now
