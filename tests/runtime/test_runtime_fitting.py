"""Rows of one batch answer for another: with as many splits as fill the SMs there."""

from __future__ import annotations

from functools import cache

import pytest

from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import DispatchRow, TuningStore
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import load_sku
from fa4gen.perf import predict
from fa4gen.runtime import Rung
from fa4gen.runtime.fitting import fit_splits
from fa4gen.runtime.selector import Selector, distance_log2
from fa4gen.space import space_for

H200, B200 = load_sku("h200"), load_sku("b200")


def problem(text: str) -> AttentionProblem:
    return parse_problem(text.split())


@cache
def shipped() -> tuple[DispatchRow, ...]:
    with TuningStore.open(":memory:") as store:
        return tuple(store.dispatch_rows(sku="h200"))


def decode(splits: int, text: str = "b1 s1x8192 h32/8 d128"):
    """A decode kernel with this many splits; the default's other knobs."""
    signature = problem(text).signature
    small = {"tile_m": 64, "tile_n": 64, "pingpong": False, "pack_gqa": True, "num_splits": splits}
    config = space_for("sm90").default(signature).vary(small)
    return canonicalise(signature, config, H200.arch)


@pytest.mark.parametrize(
    ("splits", "measured", "asked", "wanted"),
    [
        (16, "b1 s1x8192 h32/8 d128", "b1 s1x32768 h32/8 d128", 16),  # as many tiles
        (16, "b1 s1x8192 h32/8 d128", "b2 s1x8192 h32/8 d128", 8),
        (16, "b1 s1x8192 h32/8 d128", "b8 s1x8192 h32/8 d128", 2),
        (16, "b1 s1x8192 h32/8 d128", "b64 s1x8192 h32/8 d128", 1),
        (2, "b8 s1x8192 h32/8 d128", "b1 s1x8192 h32/8 d128", 16),
        (1, "b64 s1x8192 h32/8 d128", "b2 s1x8192 h32/8 d128", 8),  # 132 SMs over 16 tiles
        (16, "b1 s1x8192 h32/8 d128", "b1 s1x512 h32/8 d128", 16),
        (1, "b64 s1x8192 h32/8 d128", "b1 s1x256 h32/8 d128", 4),  # four blocks of 64 keys
        (4, "b32 s1x8192 h32/8 d128", "b4 s1x8192 h32/8 d128", 4),  # 1024 CTAs are 132 SMs
    ],
)
def test_as_many_ctas_as_the_row_has(splits, measured, asked, wanted):
    config = decode(splits)
    fitted = fit_splits(config, problem(measured), problem(asked), H200)
    assert fitted.num_splits == wanted
    assert check(problem(asked).signature, fitted, H200.arch)
    if wanted == splits:
        assert fitted == config


def test_heads_that_share_a_tile_only_with_splits_keep_two():
    text = "b1 s1x8192 h28/4 d128"
    fitted = fit_splits(decode(32, text), problem(text), problem("b64 s1x8192 h28/4 d128"), H200)
    assert fitted.num_splits == 2
    assert fitted.pack_gqa


@pytest.mark.parametrize("sku", [H200, B200])
def test_prefill_is_left_alone(sku):
    measured, asked = problem("b16 s4096 h16 d128 causal"), problem("b1 s512 h16 d128 causal")
    config = space_for(sku.arch.name).default(measured.signature)
    assert fit_splits(config, measured, asked, sku) == config


def test_an_arch_without_splits_is_left_alone():
    measured, asked = problem("b64 s1x8192 h32/8 d128"), problem("b1 s1x8192 h32/8 d128")
    config = space_for(B200.arch.name).default(measured.signature)
    assert fit_splits(config, measured, asked, B200) == config


def test_neighbours_answer_for_every_decode_row_of_the_table():
    """Each shape asked of the nearest other row of its signature, however far; *modelled*."""
    rows = [row for row in shipped() if row.problem.seqlen_q <= 16 < row.problem.seqlen_k]
    as_they_are, fitted = [], []
    for row in rows:
        others = [
            other
            for other in shipped()
            if other.problem.signature == row.problem.signature and other.problem != row.problem
        ]
        if not others:
            continue
        near = min(others, key=lambda other: distance_log2(other.problem, row.problem))
        fit = fit_splits(near.config, near.problem, row.problem, H200)
        own_us = predict(row.problem, row.config, H200).time_us
        as_they_are.append(predict(row.problem, near.config, H200).time_us / own_us)
        fitted.append(predict(row.problem, fit, H200).time_us / own_us)
    assert len(fitted) == 30
    assert sum(ratio > 1.15 for ratio in as_they_are) >= 6
    assert max(as_they_are) > 4
    assert max(fitted) < 1.15


def test_the_selector_fits_and_says_so():
    selector = Selector(shipped(), H200)
    taken = selector.select(problem("b2 s1x8192 h32/8 d128"))
    assert taken.rung is Rung.BUCKET
    assert taken.row.config.num_splits == 16
    assert taken.config.num_splits == 8
    assert taken.notes[0] == "num_splits is 8 instead of the row's 16: as many CTAs"
    exact = selector.select(problem("b1 s1x8192 h32/8 d128"))
    assert exact.config == exact.row.config
    assert not any("num_splits" in note for note in exact.notes)
