"""``fa4gen emulate`` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fa4gen.cli.app import app

KERNELS = str(Path(__file__).parents[1] / "emulator" / "launch" / "launch_kernels.py")
COPY = "tma_copy(f16:64x128, f16:64x128=0)"

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("COLUMNS", raising=False)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["emulate", *words], prog_name="fa4gen")


@pytest.mark.slow
def test_a_rendered_kernel_is_right(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    words = ["b1", "s100", "h1", "d64", "fp16", "causal"]
    rendered = CliRunner().invoke(app, ["render", *words, "--sku", "h200", "-o", str(path)])
    assert rendered.exit_code == 0
    trace = tmp_path / "trace.json"
    found = run(str(path), "--problem", " ".join(words), "--trace", str(trace), "--json")
    assert found.exit_code == 0, found.output
    view = json.loads(found.stdout)
    assert view["policies"] == ["eager", "lazy", "seed:0"]
    assert [a["output"] for a in view["accuracies"]] == ["O", "LSE"]
    assert all(a["max_error"] <= a["allowed"] for a in view["accuracies"])
    assert view["findings"] == []
    assert view["target"] == "sm_90a"
    assert json.loads(trace.read_text())["traceEvents"]
    wrong = run(str(path), "--problem", "b1 s100 h1 d64 fp16 dense", "--policy", "eager")
    assert wrong.exit_code == 1
    assert "wrong: kernel.py on b1 s100 h1 d64 fp16 dense" in wrong.stdout
    assert "the kernel is wrong; see above" in wrong.stderr


def test_any_function_of_a_module(run: Run) -> None:
    found = run(KERNELS, "--call", COPY, "--policy", "eager", "--policy", "seed:5")
    assert found.exit_code == 0, found.output
    assert "right: launch_kernels.py, tma_copy" in found.stdout
    assert "emulated under eager, seed:5" in found.stdout
    assert "grid 2x2x1, block 32x1x1, cluster 2x1x1, 5120 bytes of shared memory" in found.stdout
    assert "more; --coverage shows all" in found.stdout
    whole = run(KERNELS, "--call", COPY, "--policy", "eager", "--coverage")
    assert "cp.async.bulk.wait_group" in whole.stdout
    assert "never ran, PTX lines: " in whole.stdout


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([KERNELS], 2, "got both or neither of --problem and --call"),
        ([KERNELS, "-p", "s1", "--call", COPY], 2, "got both or neither"),
        ([KERNELS, "--call", "tma_copy"], 2, "got 'tma_copy', allowed: NAME(ARGUMENT, ...)"),
        ([KERNELS, "--call", "tma_copy(f17:64x128)"], 2, "got the argument 'f17:64x128'"),
        ([KERNELS, "--call", "tma_copi(1)"], 2, "unknown function: got 'tma_copi'"),
        ([KERNELS, "--call", COPY, "--policy", "keen"], 2, "unknown policy: got 'keen'"),
        (["missing.py", "-p", "s256 h1 d64"], 1, "missing.py: No such file"),
        ([KERNELS, "-p", "s256 h1 d0"], 2, "head_dim"),
        ([KERNELS, "-p", "b1 s256 h1 d64"], 1, "build"),
    ],
)
def test_mistakes(run: Run, words: list[str], code: int, text: str) -> None:
    found = run(*words)
    assert found.exit_code == code, found.output
    assert text in found.stderr
    assert "Traceback" not in found.output
