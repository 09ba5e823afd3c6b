"""Studies whose times come from replays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fa4gen.cli import machine
from fa4gen.cli.app import app
from fa4gen.cli.machine import Machine
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.model import ModelEvaluator
from fa4gen.hardware import Sku
from fa4gen.study import Limits, StudyPlan, carry_out
from fa4gen.study.labels import source_sentence


class Versioned(ModelEvaluator):
    """The formulas, under the name of the replay."""

    model_version = "trace 9"


def test_the_page_says_which_model_it_was(speed_plan: StudyPlan, sku: Sku, tmp_path: Path) -> None:
    for kind, expected in (
        (
            Versioned,
            "replaying what each compiled kernel executed in the emulator (version trace 9)",
        ),
        (ModelEvaluator, "by the cycle model (version "),
    ):
        with kind(sku) as evaluator:
            where = tmp_path / f"{kind.__name__}.sqlite"
            result = carry_out(speed_plan, evaluator, where, limits=Limits(trials=2))
        assert expected in source_sentence(result)


@pytest.mark.extended  # half a minute; each part of it has tests of its own
def test_a_study_by_replays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: AttentionProblem
) -> None:
    """Compiles and emulates two kernels."""
    monkeypatch.setattr(machine, "look", lambda nvml=None: Machine((), "none in this test"))
    monkeypatch.chdir(tmp_path)
    words = ["study", "num_kv_stages", "--trace", "--sku", "h200", "--trials", "2"]
    words += ["b2", "s1024", "h4", "d64", "--out", "out", "--json"]
    result = CliRunner().invoke(app, words, prog_name="fa4gen")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["study"]["setting"]["model_version"].startswith("trace ")
    timed = [row for row in found["study"]["rows"] if row["gain"] is not None]
    assert len(timed) == 2
    assert "compiled, emulated and replayed" in result.stderr
    assert "not modelled: conflicts of shared-memory banks" in result.stderr


def test_gpu_and_trace_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The last one counts, as of every pair of flags."""
    monkeypatch.setattr(machine, "look", lambda nvml=None: Machine((), "none in this test"))
    monkeypatch.chdir(tmp_path)
    words = ["study", "tile_n", "--trace", "--gpu", "--sku", "h200", "s256", "h4", "d64"]
    result = CliRunner().invoke(app, words, prog_name="fa4gen")
    assert result.exit_code != 0
    assert "--gpu" in result.output
