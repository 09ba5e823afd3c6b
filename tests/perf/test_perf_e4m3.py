"""What the cycle model makes of e4m3 on Hopper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import load_arch, load_sku
from fa4gen.perf.memory import dram_bytes
from fa4gen.perf.predict import predict
from fa4gen.perf.sm90_block import block_cost
from fa4gen.space import space_for

SM90, H200 = load_arch("sm90"), load_sku("h200")


def problem(head_dim: int) -> AttentionProblem:
    values = {"batch": 4, "seqlen_q": 4096, "num_heads_q": 16, "head_dim": head_dim}
    return AttentionProblem.from_dict({**values, "dtype": "e4m3"})


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_faster_than_bf16_and_by_less_than_twice(head_dim: int) -> None:
    narrow = problem(head_dim)
    wide = replace(narrow, dtype=DType.BF16)
    times = [
        predict(each, space_for("sm90").default(each.signature), H200).time_us
        for each in (narrow, wide)
    ]
    assert 1.0 < times[1] / times[0] < 2.0


def test_turning_v_over_is_counted() -> None:
    narrow = problem(128)
    config = space_for("sm90").default(narrow.signature)
    mine = block_cost(narrow.signature, config, SM90).pipes
    wide = block_cost(replace(narrow.signature, dtype=DType.BF16), config, SM90).pipes
    tile_n = config.tile_n
    assert mine["mma"] == wide["mma"] / 2
    # Half of what bf16 moves, and a tile of V read and written once more.
    assert mine["smem"] == wide["smem"] / 2 + 2 * tile_n * 128 / SM90.smem_bytes_per_clk_sm
    assert mine["issue"] > wide["issue"]


def test_o_is_written_in_bf16() -> None:
    narrow = problem(128)
    elements = 4 * 16 * 4096 * 128
    assert dram_bytes(narrow) == elements * (1 + 1 + 1 + 2) + 4 * 16 * 4096 * 4
