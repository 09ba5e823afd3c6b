"""``fa4gen report`` through Typer's runner."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from typer.testing import CliRunner

from fa4gen.cli.app import app
from fa4gen.core.config import KernelConfig
from fa4gen.db import TuningStore
from fa4gen.report.page.peers import COLUMNS
from fa4gen.testing.store_contract import POLICY, sample_evaluation, sample_problem

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["report", *words], prog_name="fa4gen")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """One measured problem with a winner."""
    path = tmp_path / "tuning.sqlite"
    with TuningStore.open(path, with_shipped=False) as store:
        config = KernelConfig(tile_n=64)
        evaluation = sample_evaluation(1.2, gpu_name="NVIDIA H200")
        store.set_winner(store.record(sample_problem(), config, evaluation, POLICY))
    return path


def peers_file(path: Path) -> Path:
    rows = [
        {**sample_problem().to_dict(), "kernel": kernel, "time_us": 90, "tflops": 500,
         "ratio_to_fa4gen": ratio, "ratio_low": ratio, "ratio_high": ratio,
         "gpu": "NVIDIA H200", "date": "2026-01-01T00:00:00+00:00"}
        for kernel, ratio in (("fa4gen", 1.0), ("cudnn", 0.8))
    ]  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_page_is_written_where_it_was_asked_for(
    run: Run, database: Path, tmp_path: Path
) -> None:
    result = run("--db", str(database), "--out", "page.html")
    assert result.exit_code == 0, result.output
    assert "page.html: " in result.stdout
    assert "needs no network" in result.stdout
    assert "plotly.js v" in (tmp_path / "page.html").read_text()
    assert run("--db", str(database)).exit_code == 0
    assert (tmp_path / "report.html").exists()


def test_as_json_it_prints_what_the_page_says(run: Run, database: Path) -> None:
    result = run("--db", str(database), "--json")
    written = json.loads(result.stdout)
    assert written["path"] == "report.html"
    (view,) = written["report"]["problems"]
    assert view["problem"]["text"] == str(sample_problem())
    assert view["timing"]["gain"] == 1.2


def test_peers_are_given_or_lie_beside_the_database(
    run: Run, database: Path, tmp_path: Path
) -> None:
    def speedup(*words: str) -> Any:
        result = run("--db", str(database), "--json", *words)
        assert result.exit_code == 0, result.output
        peers = json.loads(result.stdout)["report"]["problems"][0]["peers"]
        return peers and peers["peers"][0]["speedup"]

    assert speedup() is None
    assert speedup("--peers", str(peers_file(tmp_path / "mine.csv"))) == 1.25
    peers_file(tmp_path / "tuning.peers.csv")
    assert speedup() == 1.25


def test_studies_are_written_for_the_dashboard(run: Run, database: Path, tmp_path: Path) -> None:
    result = run("--db", str(database), "--studies", "studies.sqlite")
    assert result.exit_code == 0, result.output
    assert "optuna-dashboard sqlite:///studies.sqlite" in result.stdout
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'studies.sqlite'}")
    assert summary.n_trials == 1


def test_an_empty_database_is_exit_code_3(run: Run, database: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    for words in (["--db", str(empty)], [], ["--db", str(database), "--sku", "b200"]):
        result = run(*words)
        assert result.exit_code == 3
        assert "to report; `fa4gen tune` makes some" in result.stderr
    assert not (tmp_path / "report.html").exists()


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE fa4gen_schema SET version_num = '0009'")
    connection.commit()
    connection.close()


def test_a_database_that_cannot_be_read_is_one_line(
    run: Run, database: Path, tmp_path: Path
) -> None:
    old, junk = tmp_path / "old.sqlite", tmp_path / "junk.sqlite"
    shutil.copyfile(database, old)
    newer(old)
    junk.write_bytes(b"not a database " * 500)
    for path, words in (
        (old, "upgrade fa4gen"),
        (junk, "not a database"),
        (tmp_path / "none.sqlite", "no such file"),
        (tmp_path, "got a folder"),
    ):
        result = run("--db", str(path))
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_wrong_names_and_files_are_said_plainly(run: Run, database: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    for words, code, message in (
        (["--sku", "h999"], 2, "unknown sku: got 'h999'"),
        (["--peers", "none.csv"], 1, "none.csv: No such file"),
        (["--peers", "foreign.csv"], 1, "got columns a, b, missing batch"),
        (["--out", str(tmp_path / "nowhere" / "page.html")], 1, "cannot be written"),
        (["--out", str(tmp_path)], 1, "cannot be written"),
        (["--studies", str(tmp_path / "nowhere" / "s.sqlite")], 1, "cannot be written"),
    ):
        result = run("--db", str(database), *words)
        assert result.exit_code == code, result.output
        assert message in result.stderr


def test_what_is_read_is_never_written_over(run: Run, database: Path, tmp_path: Path) -> None:
    peers = peers_file(tmp_path / "p.csv")
    before = database.read_bytes(), peers.read_bytes()
    for words in (
        ["--out", str(database)],
        ["--studies", str(database)],
        ["--peers", str(peers), "--out", str(tmp_path / "." / "p.csv")],
        ["--studies", "report.html"],
    ):
        result = run("--db", str(database), *words)
        assert result.exit_code == 1
        assert "allowed: another file" in result.stderr
    assert (database.read_bytes(), peers.read_bytes()) == before


def test_a_database_in_a_folder_without_write_access_is_read(run: Run, database: Path) -> None:
    folder = database.parent / "shared"
    folder.mkdir()
    shutil.copyfile(database, folder / "t.sqlite")
    (folder / "t.sqlite").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert run("--db", str(folder / "t.sqlite")).exit_code == 0
    finally:
        folder.chmod(0o755)


def test_the_browser_is_opened_only_when_asked(
    run: Run, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    run("--db", str(database))
    assert opened == []
    run("--db", str(database), "--open")
    assert opened == [(tmp_path / "report.html").as_uri()]


def test_the_command_line_starts_without_what_only_the_report_needs() -> None:
    code = (
        "import sys, fa4gen.cli.app; "
        "print(*({'plotly', 'jinja2', 'optuna', 'sqlalchemy', 'webbrowser'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == []
