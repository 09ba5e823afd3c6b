"""Every command through Typer's runner, on a machine without a GPU."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fa4gen.cli import machine
from fa4gen.cli.app import app
from fa4gen.cli.machine import Machine
from fa4gen.cli.session import open_store
from fa4gen.hardware import list_skus
from fa4gen.testing.fakes import FakeEvaluator
from fa4gen.tune import StopReason

PROBLEM = ["b1", "s256", "h4/2", "d64", "bf16", "causal"]
WORKLOAD = """
name = "tiny"
[[problems]]
batch = 1
seqlen_q = 256
num_heads_q = 4
num_heads_kv = 2
head_dim = 64
causal = true
"""

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line; no GPU, and no limit on the width."""
    monkeypatch.setattr(machine, "look", lambda nvml=None: Machine((), "none in this test"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("FA4GEN_SKU", "h200")
    runner = CliRunner()
    return lambda *words: runner.invoke(app, list(words), prog_name="fa4gen")


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(WORKLOAD)
    return str(path)


@pytest.fixture
def tuned(run: Run, workload: str) -> Any:
    """The JSON of a run of the tuner; its rows are in the test's own database."""
    result = run("tune", "--effort", "glance", "--workload", workload, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_tune_without_a_gpu_is_modelled_and_says_so(run: Run, workload: str) -> None:
    result = run("tune", "--effort", "glance", "--workload", workload)
    assert result.exit_code == 0
    assert "b1 s256 h4/2 d64 bf16 causal" in result.stdout
    assert "modelled: these times come from a cycle model" in result.stdout
    assert "every row is marked 'modelled'" in result.stderr
    assert "[1/1] b1 s256" in result.stderr


@pytest.mark.usefixtures("tuned")
def test_show_says_where_a_kernel_was_checked(run: Run) -> None:
    """The tuned row is a guess; a shipped one of the H200 was checked on the GPU."""
    rows = json.loads(run("show", "--json").stdout)["rows"]
    assert {row["checked"] for row in rows if row["origin"] == "user"} == {None}
    assert {row["checked"] for row in rows if row["origin"] == "shipped"} == {"measured"}


@pytest.mark.usefixtures("tuned")
def test_show_says_which_rows_are_of_the_present_template(run: Run) -> None:
    rows = json.loads(run("show", "--json").stdout)["rows"]
    assert [row["other_template"] for row in rows if row["origin"] == "user"] == [False]
    shipped = [row["other_template"] for row in rows if row["origin"] == "shipped"]
    said = re.search(r"(\d+) of (\d+) rows were found", " ".join(run("show").stdout.split()))
    if any(shipped):
        assert said is not None
        assert said.groups() == (str(sum(shipped)), str(len(shipped)))
    else:
        assert said is None


def test_tune_as_json_is_one_value_on_stdout(tuned: Any) -> None:
    (row,) = tuned["rows"]
    assert row["problem"]["text"] == " ".join(PROBLEM)
    assert row["winner"]["timing"]["source"] == "modelled"
    assert row["winner"]["timing"]["gain"] >= 1
    assert row["trials"]["ok"] >= 1
    assert tuned["source"] == "modelled"


def test_show_has_the_row_that_was_tuned(run: Run, tuned: Any) -> None:
    shown = json.loads(run("show", "--json", "--source", "modelled").stdout)["rows"]
    mine = [row for row in shown if row["origin"] == "user"]
    assert [row["config"] for row in mine] == [tuned["rows"][0]["winner"]["config"]]
    text = run("show", "--sku", "h200")
    assert text.exit_code == 0
    assert "h200, graph-cold-sustained, user" in text.stdout


def test_an_empty_table_is_exit_code_3(run: Run) -> None:
    result = run("show", "--sku", "b200")
    assert result.exit_code == 3
    assert "no rows to show" in result.stderr


def test_explain_climbs_from_exact_to_bucket_to_model(run: Run, tuned: Any) -> None:
    for problem, rung in (
        (PROBLEM, "exact"),
        (["s300", "h4/2", "d64", "causal"], "bucket"),
        (["s300", "h4/2", "d80", "fp16"], "model"),
    ):
        result = run("explain", *problem, "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["rung"] == rung
    text = run("explain", *PROBLEM).stdout
    assert "the user row of h200" in text
    assert "exp2_poly_fraction" in text


def test_render_gives_a_module_with_the_knobs_set(run: Run) -> None:
    result = run("render", *PROBLEM, "--set", "tile_n=96", "--set", "pingpong=false")
    assert result.exit_code == 0, result.output
    compile(result.stdout, "kernel.py", "exec")
    values = json.loads(run("render", *PROBLEM, "--set", "tile_n=96", "--json").stdout)
    assert values["config"]["tile_n"] == 96
    assert values["source"]


def test_knobs_that_nobody_named_follow_those_set_by_hand(run: Run) -> None:
    """A default is dynamic and takes turns, which splits and a single consumer cannot."""
    problem = ("b1", "s1x8192", "h32/8", "d128", "--sku", "h200")

    def chosen(*words: str) -> Any:
        options = [part for word in words for part in ("--set", word)]
        result = run("render", *problem, *options, "--json")
        return json.loads(result.stdout)["config"] if result.exit_code == 0 else result.stderr

    split = chosen("num_splits=8", "tile_m=64")
    assert {k: split[k] for k in ("num_splits", "tile_m", "scheduler", "pingpong")} == {
        "num_splits": 8,
        "tile_m": 64,
        "scheduler": "persistent",
        "pingpong": False,
    }
    refused = chosen("num_splits=8", "scheduler=dynamic")
    assert "num_splits: got 8 with scheduler dynamic" in " ".join(refused.split())


def test_export_writes_the_kernel_that_was_tuned(run: Run, tuned: Any, tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    result = run("export", *PROBLEM, "-o", str(path), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["config"] == tuned["rows"][0]["winner"]["config"]
    compile(path.read_text(), str(path), "exec")
    assert "fa4gen" not in {
        line.split()[1].partition(".")[0]
        for line in path.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }


def test_bench_sets_kernels_side_by_side(run: Run, tuned: Any) -> None:
    result = run("bench", *PROBLEM, "--set", "num_kv_stages=3", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [row["label"] for row in rows] == ["default", "picked (exact)", "by hand"]
    assert rows[0]["timing"]["gain"] == 1
    assert rows[1]["config"] == tuned["rows"][0]["winner"]["config"]
    assert rows[2]["changed"]["num_kv_stages"] == 3


def test_list_skus_lists_every_file(run: Run) -> None:
    rows = json.loads(run("list-skus", "--json").stdout)
    assert [row["name"] for row in rows] == list(list_skus())
    assert run("list-skus").stdout.count("\n") >= len(rows)


def test_list_knobs_marks_the_default_of_the_problem(run: Run) -> None:
    knobs = {row["name"]: row for row in json.loads(run("list-knobs", "--json").stdout)}
    assert knobs["tile_m"]["default"] in knobs["tile_m"]["values"]
    assert all(row["meaning"] and row["why"] for row in knobs.values())
    assert "tile_m" in run("list-knobs", "s512", "h16", "d64").stdout


def test_doctor_names_the_database_and_what_is_missing(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json")
    findings = {row["subject"]: row for row in json.loads(result.stdout)["findings"]}
    assert str(tmp_path) in findings["database"]["found"]
    assert {"fa4gen", "nvidia-cutlass-dsl", "torch", "cache"} <= set(findings)
    text = run("doctor")
    assert text.exit_code == result.exit_code
    assert "can search with the cycle model" in text.stdout


def test_doctor_survives_a_broken_database(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.sqlite"
    path.write_text("this is not a database, and long enough to be looked at " * 20)
    result = run("doctor", "--db", str(path), "--json")
    assert result.exit_code == 1
    (finding,) = [
        row for row in json.loads(result.stdout)["findings"] if row["subject"] == "database"
    ]
    assert finding["health"] == "missing"


def test_rows_travel_through_a_file(run: Run, tuned: Any, tmp_path: Path) -> None:
    file, other = tmp_path / "rows.jsonl", tmp_path / "other.sqlite"
    exported = json.loads(run("db", "export", str(file), "--json").stdout)
    assert exported["rows"] == len(file.read_text().splitlines()) > 0
    imported = json.loads(run("db", "import", str(file), "--db", str(other), "--json").stdout)
    assert (imported["rows"], imported["winners"]) == (exported["rows"], 1)
    again = json.loads(run("db", "merge", str(other), "--json").stdout)
    assert (again["rows"], again["known"]) == (0, exported["rows"])
    check = run("db", "check", "--db", str(other))
    assert check.exit_code == 0
    assert "healthy" in check.stdout


def test_importing_a_bad_file_fails_and_names_the_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    result = run("db", "import", str(file))
    assert result.exit_code == 1
    assert "1" in result.stderr


def test_nothing_to_export_is_exit_code_3(run: Run, tmp_path: Path, tuned: Any) -> None:
    assert run("db", "export", str(tmp_path / "none.jsonl"), "--sku", "b200").exit_code == 3


def test_replay_scores_samplers_on_what_was_recorded(run: Run) -> None:
    sweep = str(Path(__file__).parent.parent / "recorded" / "h200_model_hd64.jsonl.gz")
    words = ("replay", sweep, "--sampler", "random", "--seeds", "2", "--trials", "20")
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    assert (row["sampler"], row["runs"]) == ("random", 2)
    assert row["median_regret"] >= 0
    assert "random" in run(*words).stdout


def test_replay_of_what_a_tuner_left_ends(run: Run, tuned: Any, tmp_path: Path) -> None:
    sweep = str(tmp_path / "sparse.jsonl")
    assert run("db", "export", sweep).exit_code == 0
    result = run("replay", sweep, "--sampler", "random", "--seeds", "1", "--json")
    (row,) = json.loads(result.stdout)["rows"]
    assert row["found"] == 1
    assert row["median_regret"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["explain", "s4096", "h32", "d128", "casual"], 2, "got 'casual'"),
        (["tune", "--sku", "h20"], 2, "did you mean 'h200'"),
        (["tune", "--workload", "quik"], 2, "did you mean 'quick'"),
        (["tune", "--workload", "absent.toml"], 1, "absent.toml"),
        (["tune", "--budget", "soon"], 2, "allowed: a duration such as 90s"),
        (["tune", "--effort", "heroic"], 2, "heroic"),
        (["show", "--source", "guessed"], 2, "known: emulated, measured, modelled"),
        (["render", *PROBLEM, "--set", "tile_k=1"], 2, "unknown knob"),
        (["render", *PROBLEM, "--set", "tile_n"], 2, "allowed: KNOB=VALUE"),
        (["render", *PROBLEM, "--set", "tile_n=many"], 2, "allowed: an integer"),
        (["render", *PROBLEM, "--set", "pingpong=maybe"], 2, "allowed: true or false"),
        (["render", *PROBLEM, "--set", "num_kv_stages=32"], 3, "smem"),
        (["render", "s16", "h4", "d512"], 3, "head_dim 512"),
        (["render", *PROBLEM, "-o", "/nowhere/kernel.py"], 1, "/nowhere/kernel.py"),
        (["render", *PROBLEM, "--set", "fused_row_max=true", "--sku", "b200"], 3, "tcgen05.ld.red"),
        (["replay", "absent.jsonl"], 1, "absent.jsonl"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    words: list[str], code: int, message: str, run: Run
) -> None:
    result = run(*words)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    if words != ["nonsense"]:
        assert result.stderr.splitlines()[-1].startswith("fa4gen: ")


def test_a_traceback_is_there_for_who_asks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4GEN_TRACEBACK", "1")
    assert isinstance(run("tune", "--sku", "h20").exception, KeyError)


def test_what_takes_seconds_to_start_is_started_first(
    run: Run, workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluator's processes come up while the database and Optuna are imported."""
    events: list[str] = []

    class Slow(FakeEvaluator):
        def prepare(self, problem: Any, configs: Any, *, later: bool = False) -> None:
            events.append(f"prepare {len(configs)} of head_dim {problem.head_dim}")

    def opened(*arguments: Any) -> Any:
        events.append("open")
        return open_store(*arguments)

    monkeypatch.setattr("fa4gen.cli.tune.open_evaluator", lambda target, prove: Slow(target.sku))
    monkeypatch.setattr("fa4gen.cli.tune.open_store", opened)
    result = run("tune", "--workload", workload)
    assert result.exit_code == 0, result.output
    assert events[:2] == ["prepare 1 of head_dim 64", "open"]


def test_ctrl_c_keeps_what_is_proven(
    run: Run, workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fa4gen.evaluate.model import ModelEvaluator

    evaluate, calls = ModelEvaluator.evaluate, []

    def interrupted(self: Any, problem: Any, config: Any) -> Any:
        calls.append(config)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return evaluate(self, problem, config)

    monkeypatch.setattr(ModelEvaluator, "evaluate", interrupted)
    result = run("tune", "--effort", "glance", "--workload", workload, "--json")
    assert result.exit_code == 130
    report = json.loads(result.stdout)
    assert report["interrupted"]
    assert report["rows"][0]["stop"] == StopReason.INTERRUPTED.value
    assert report["rows"][0]["trials"]["ok"] == 5
    assert json.loads(run("show", "--json").stdout)["rows"]


def test_an_interrupt_elsewhere_is_130_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_nvml: Any = None) -> Machine:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "look", interrupt)
    result = run("explain", *PROBLEM)
    assert (result.exit_code, result.stderr) == (130, "fa4gen: interrupted\n")


def every_command() -> list[list[str]]:
    names = [[command.name or command.callback.__name__] for command in app.registered_commands]
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands
        names += [[group.name, each.name or each.callback.__name__] for each in inner]
    return names


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_json_examples_and_exit_codes(words: list[str], run: Run) -> None:
    text = run(*words, "--help").stdout
    assert "--json" in text
    assert f"fa4gen {' '.join(words)}" in text
    assert "Examples:" in text
    assert "130 interrupted" in text


def test_version(run: Run) -> None:
    import fa4gen

    assert run("--version").stdout == f"fa4gen {fa4gen.__version__}\n"
