"""The ablations of benchmarks/ablations.py still know the template."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fa4gen.cli.problem_text import parse_problem
from fa4gen.codegen import render
from fa4gen.hardware import load_arch
from fa4gen.space import space_for

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SPLIT = {"tile_m": 64, "tile_n": 64, "num_splits": 16, "pingpong": False}


@pytest.mark.parametrize(
    ("text", "knobs", "names"),
    [
        ("b4 s4096 h32 d64", {}, {"no-exponentials", "no-maxima", "late-wait", "keep-in-l2"}),
        ("b1 s1x8192 h32/8 d128", SPLIT, {"no-combine", "keep-in-l2"}),
        ("b4 s4096 h16 d128 causal", {"scheduler": "lpt"}, {"no-maxima", "longest-first"}),
    ],
)
def test_every_part_can_be_taken_away(
    monkeypatch: pytest.MonkeyPatch, text: str, knobs: dict[str, object], names: set[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from ablations import variants

    signature = parse_problem(text.split()).signature
    config = space_for("sm90").default(signature).vary(knobs)
    whole = render(signature, config, load_arch("sm90"))
    found = dict(variants(whole, config))
    assert names < set(found)
    for name, kernel in found.items():
        assert ast.parse(kernel.source)
        assert (kernel.source == whole.source) is (name == "whole")
    assert len({kernel.module_name for kernel in found.values()}) == len(found)


def test_a_passage_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from ablations import ABLATIONS

    with pytest.raises(ValueError, match=f"ablation {ABLATIONS[0].name}: got a kernel without"):
        ABLATIONS[0].apply("nothing of the kind")
