"""``fa4gen study`` through Typer's runner, on a machine without a GPU."""

from __future__ import annotations

import gzip
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fa4gen.cli import machine
from fa4gen.cli.app import app
from fa4gen.cli.machine import Machine

PROBLEM = ["b1", "s256", "h4", "d64"]
RECORDED = Path(__file__).parents[1] / "recorded"

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line in a folder of its own; no GPU, and no limit on the width."""
    monkeypatch.setattr(machine, "look", lambda nvml=None: Machine((), "none in this test"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("FA4GEN_SKU", "h200")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, list(words), prog_name="fa4gen")


def test_a_knob_is_studied_without_the_word_knobs(run: Run, tmp_path: Path) -> None:
    result = run("study", "tile_n", *PROBLEM)
    assert result.exit_code == 0, result.output
    assert "modelled: these times come from a cycle model" in result.stdout
    assert "default" in result.stdout
    folder = tmp_path / "study-tile_n-h200"
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.csv", "study.json", "trials.jsonl", "index.html", "speed.png"}
    lines = (folder / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 9
    assert run("study", "knobs", "tile_n", *PROBLEM, "--out", "same").exit_code == 0
    assert (tmp_path / "same" / "results.csv").read_text() == (folder / "results.csv").read_text()


def test_values_that_cannot_run_are_listed_with_the_rule(run: Run) -> None:
    result = run("study", "tile_n", "b1", "s256", "h4", "d256", "--out", "out")
    assert result.exit_code == 0, result.output
    assert "infeasible: tile_n=192: " in result.stdout
    assert "needs" in result.stdout


def test_the_result_as_json_has_the_front_and_every_row(run: Run) -> None:
    result = run("study", "exp2-split", *PROBLEM, "--trials", "5", "--out", "out", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = found["study"]["rows"]
    assert [row["origin"] for row in rows] == ["default", "peer", "peer", "peer", "sampler"]
    assert found["study"]["setting"]["source"] == "modelled"
    assert set(found["front"]) <= {row["config_id"] for row in rows}
    assert all(row["accuracy"]["o_error_ratio"] > 0.9 for row in rows)


def test_the_split_says_where_its_numbers_come_from(run: Run, tmp_path: Path) -> None:
    result = run("study", "exp2-split", "--sku", "b200", *PROBLEM, "--trials", "5", "--out", "out")
    assert result.exit_code == 0, result.output
    assert "FlashAttention-4" in result.stdout
    assert "cuDNN" in result.stdout
    assert "errors are computed in NumPy" in " ".join(result.stdout.split())
    assert (tmp_path / "out" / "pareto.png").is_file()


def test_without_plotly_the_files_are_there_and_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    plotting = {"plotly", "matplotlib"}

    def without(name: str, *rest: Any) -> Any:
        return None if name in plotting else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    result = run("study", "tile_n", *PROBLEM, "--out", "out")
    assert result.exit_code == 0, result.output
    assert "plotly, matplotlib not installed" in result.stderr
    assert "fa4gen study plot out" in " ".join(result.stderr.split())
    assert not (tmp_path / "out" / "index.html").exists()
    assert run("study", "plot", "out").exit_code == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run("study", "plot", "out").exit_code == 0
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["exp2-splt", *PROBLEM], 2, "did you mean 'exp2-split'"),
        (["tile_n,tile_x", *PROBLEM], 2, "did you mean 'tile_n'"),
        (["tile_n", "s256"], 2, "missing num_heads_q"),
        (["exp2-split", "--sku", "h2000"], 2, "did you mean 'h200'"),
        (["exp2-split", "--gpu"], 2, "leave --gpu out"),
        (["exp2-split", "d512", "s256", "h4"], 3, "allowed: up to"),
        (["tile_n", *PROBLEM, "--budget", "soon"], 2, "allowed: a duration"),
        (["plot", "nowhere"], 1, "study.json"),
        (["sampler", "absent.jsonl"], 1, "absent.jsonl"),
        (["sampler", "absent.jsonl", "--sampler", "tpee"], 2, "did you mean 'tpe'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, words: list[str], code: int, text: str
) -> None:
    result = run("study", *words)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_study_that_cannot_write_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = run("study", "tile_n", *PROBLEM, "--out", "taken")
    assert result.exit_code == 1
    assert "name another with --out" in " ".join(result.stderr.split())


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two problems of the recorded sweep, one of them with one line only."""
    text = gzip.decompress((RECORDED / "h200_sweep.jsonl.gz").read_bytes()).decode()
    lines = text.splitlines()[:29]
    path = tmp_path / "two.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_samplers_are_compared(run: Run, sweep: Path, tmp_path: Path) -> None:
    words = ("study", "sampler", str(sweep), "--sampler", "random", "--sampler", "model+tpe")
    result = run(*words, "--seeds", "3", "--out", "races")
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "b16 s1024 h32 d64 bf16 causal" in shown
    assert "left out: two.jsonl: b16 s1024 h32 d64 bf16 dense: 1 timed configurations" in shown
    assert "the target of 20 trials (median) is met on 1 of 1 problems" in shown
    assert len((tmp_path / "races" / "results.csv").read_text().splitlines()) == 1 + 2 * 3
    again = run("study", "plot", "races", "--json")
    assert again.exit_code == 0, again.output
    summary = json.loads(again.stdout)["summary"]
    assert {each["strategy"] for each in summary} == {"random", "model+tpe"}
    assert "measured" in (tmp_path / "races" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    words = ["study", "exp2-split", "--sku", "h200", *PROBLEM, "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fa4gen", *words], stderr=subprocess.PIPE, text=True
    )
    trials = tmp_path / "out" / "trials.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if trials.exists() and len(trials.read_text().splitlines()) >= 4:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what" in said
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert 5 <= len(lines) < 112
    assert json.loads((tmp_path / "out" / "study.json").read_text())["ending"] == "interrupted"
