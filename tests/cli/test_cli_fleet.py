"""One ``fa4gen tune`` on several GPUs."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fa4gen.cli.app import app
from fa4gen.cli.fleet import TURNS, VISIBLE, Outcome, Part, chosen_gpus, exit_code, merged, tune_on
from fa4gen.core.errors import ConfigError
from fa4gen.tune import load_workload

TELLS = """
import json, os, sys
print("hello", file=sys.stderr)
names = ("CUDA_VISIBLE_DEVICES", "FA4GEN_TURNS")
print(json.dumps([*(os.environ[name] for name in names), sys.argv[1:]]))
"""
WAITS = """
import os, signal, sys, time
from pathlib import Path
def stop(number, frame):
    print(number)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
Path(sys.argv[1], str(os.getpid())).touch()
time.sleep(60)
"""


def test_parts_hold_every_problem_once() -> None:
    problems = list("abcdefg")
    parts = [Part(i, 3).of(problems) for i in (1, 2, 3)]
    assert parts == [("a", "f", "g"), ("b", "e"), ("c", "d")]
    alternating = [Part(i, 2).of("dcdcdcdc") for i in (1, 2)]
    assert [sorted(part) for part in alternating] == [list("ccdd")] * 2, "both kinds for each"
    assert Part.parse("2/3") == Part(2, 3)
    assert str(Part(2, 3)) == "2/3"


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "a/b", "1/-1", "1/2/3"])
def test_a_wrong_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--part: got .*, allowed: I/N with 1 <= I <= N"):
        Part.parse(text)


def test_gpus_are_chosen_among_those_that_are_there() -> None:
    assert chosen_gpus("all", 2) == (0, 1)
    assert chosen_gpus("1, 0", 2) == (1, 0)
    for text, present in (("2", 2), ("0,0", 2), ("", 2), ("x", 2), ("0", 0), ("all", 0)):
        with pytest.raises(ConfigError, match="--gpus: got"):
            chosen_gpus(text, present)


@pytest.mark.parametrize(("visible", "names"), [("", ["0", "2"]), ("7,5,GPU-a", ["7", "GPU-a"])])
def test_each_process_sees_its_gpu_and_the_turns_of_all(
    visible: str, names: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv(VISIBLE, visible)
    first, second = tune_on((0, 2), ["--effort", "full"], [sys.executable, "-c", TELLS])
    sees, turns, arguments = json.loads(first.output)
    assert (sees, arguments) == (names[0], ["--effort", "full"])
    assert json.loads(second.output) == [names[1], turns, ["--effort", "full"]]
    assert turns.startswith("2:")
    assert not Path(turns[2:]).exists(), "the folder of the turns is gone at the end"
    assert (first.gpu, second.gpu, first.code) == (0, 2, 0)
    said = capfd.readouterr().err
    assert "gpu 0: hello" in said
    assert "gpu 2: hello" in said


def test_an_interrupt_reaches_every_process_once(tmp_path: Path) -> None:
    """And each ends in its own way."""

    def interrupt() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    outcomes = tune_on((0, 1), [str(tmp_path)], [sys.executable, "-c", WAITS])
    helper.join()
    assert [(o.output.strip(), o.code) for o in outcomes] == [(str(int(signal.SIGINT)), 130)] * 2
    assert exit_code(outcomes) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_results_of_all_processes_are_one() -> None:
    def view(gain: float, elapsed_s: float) -> str:
        winner = {"timing": {"gain": gain}}
        rows = [
            {"problem": f"first at {gain}", "winner": winner},
            {"problem": f"second at {gain}", "winner": None},
        ]
        return json.dumps(
            {
                "sku": "h200",
                "rows": rows,
                "not_started": ["second at 8.0", "left by both"],
                "elapsed_s": elapsed_s,
                "interrupted": False,
                "geomean_gain": gain,
            }
        )

    whole = merged([Outcome(0, view(2.0, 3.0), 0), Outcome(1, view(8.0, 5.0), 0)])
    assert len(whole["rows"]) == 4
    assert whole["not_started"] == ["left by both"]
    assert math.isclose(whole["geomean_gain"], 4.0)
    assert (whole["elapsed_s"], whole["sku"]) == (5.0, "h200")
    assert exit_code([Outcome(0, "", 0), Outcome(1, "", -9)]) == 9
    assert merged([Outcome(0, "", 1)])["rows"] == []


def test_processes_share_the_problems_of_a_workload(tmp_path: Path) -> None:
    """Two at once, at a glance: every problem has one row, in one of them."""
    arguments = ["--effort", "glance", "--sku", "h200", "--workload", "quick", "--json"]
    outcomes = tune_on((0, 1), [*arguments, "--db", str(tmp_path / "t.sqlite")])
    assert exit_code(outcomes) == 0
    rows = [row["problem"]["text"] for row in merged(outcomes)["rows"]]
    assert sorted(rows) == sorted(str(problem) for problem in load_workload("quick").problems)
    assert merged(outcomes)["not_started"] == []


def test_who_comes_too_late_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = tmp_path / "turns"
    turns.mkdir()
    (turns / "README").touch()
    for index in range(len(load_workload("quick").problems)):
        (turns / str(index)).touch()
    monkeypatch.setenv(TURNS, f"2:{turns}")
    asked = ["tune", "--effort", "glance", "--sku", "h200", "--db", str(tmp_path / "t.sqlite")]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rows"] == []
    assert "nothing is left to tune: other processes have all 6 problems" in result.stderr
    result = CliRunner().invoke(app, [*asked, "--part", "1/2"])
    assert result.exit_code == 2
    assert "--part: got it with FA4GEN_TURNS" in result.stderr


def test_turns_of_the_environment_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TURNS, "8:/shared")
    (outcome,) = tune_on((0,), [], [sys.executable, "-c", TELLS])
    assert json.loads(outcome.output)[1] == "8:/shared"


@pytest.mark.parametrize("text", ["2", "two:/", "0:/", "2:", "2:/no/such/folder"])
def test_wrong_turns_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TURNS, text)
    result = CliRunner().invoke(app, ["tune", "--effort", "glance", "--sku", "h200"])
    assert result.exit_code == 2
    assert f"FA4GEN_TURNS: got {text!r}, allowed: PROCESSES:FOLDER" in " ".join(
        result.stderr.split()
    )


def test_a_part_of_a_workload_is_tuned(tmp_path: Path) -> None:
    asked = ["tune", "--effort", "glance", "--sku", "h200", "--workload", "quick"]
    database = ["--db", str(tmp_path / "t.sqlite")]
    result = CliRunner().invoke(app, [*asked, *database, "--part", "2/6", "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["rows"]) == 1
    result = CliRunner().invoke(app, [*asked, *database, "--part", "7/7"])
    assert result.exit_code == 2
    assert "at most 6 parts, since workload quick has as many problems" in result.stderr
