"""``fa4gen predict``."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fa4gen.cli.app import app

RUNNER = CliRunner()


def test_says_what_bounds_a_kernel() -> None:
    done = RUNNER.invoke(app, ["predict", "--sku", "b200", "b2", "s8192", "h64", "d128"])
    assert done.exit_code == 0
    assert "bound by mma" in done.output
    assert "modelled" in done.output


def test_as_json() -> None:
    words = ["predict", "--sku", "b300", "s4096", "h16", "d128", "--clock", "1500", "--json"]
    done = RUNNER.invoke(app, words)
    view = json.loads(done.output)
    assert (view["sku"], view["model"], view["clock_mhz"]) == ("b300", "formulas", 1500.0)
    assert view["not_modelled"] == []
    assert max(view["busy"].values()) <= view["total_cycles"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--sku", "b900", "s1", "h1", "d64"], 2, "b900"),
        (["--sku", "h200", "s4096", "h16", "d128", "--set", "tile_m=1000"], 2, "tile_m"),
        (["--sku", "h200", "s4096", "h16", "d128", "--set", "num_kv_stages=9"], 3, "smem: needs"),
    ],
)
def test_mistakes(words: list[str], code: int, message: str) -> None:
    done = RUNNER.invoke(app, ["predict", *words])
    assert done.exit_code == code
    assert message in done.output
