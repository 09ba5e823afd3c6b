"""What commands open, and what a running tuner shows where."""

from __future__ import annotations

import io
from typing import Any

import pytest

import fa4gen.evaluate
from fa4gen import versions
from fa4gen.cli.machine import Gpu, Target
from fa4gen.cli.progress import LineListener, shown
from fa4gen.cli.session import notices, open_evaluator
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import load_sku
from fa4gen.report.board import Board

H200 = load_sku("h200")
GPU = Gpu(1, H200.gpu_names[0], H200.sm_count, 2**37, "580.1")
PROBLEM = AttentionProblem.from_dict({"batch": 1, "seqlen_q": 64, "num_heads_q": 2, "head_dim": 64})


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_gpu_is_timed_and_its_absence_modelled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        fa4gen.evaluate, "make_evaluator", lambda *words, **more: asked.append((*words, more))
    )
    open_evaluator(Target(H200, GPU, ""))
    open_evaluator(Target(H200, None, "no GPU here"))
    assert asked == [("gpu", H200, {"device_index": 1}), ("model", H200, {})]


def test_the_notice_is_for_models_and_untested_compilers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notices(Target(H200, GPU, ""))
    assert capsys.readouterr().err == ""
    notices(Target(H200, None, "no GPU here"))
    assert "every row is marked 'modelled'" in capsys.readouterr().err
    monkeypatch.setattr(versions, "TESTED_CUTLASS_DSL", ("4.0.0",))
    notices(Target(H200, GPU, ""))
    assert "tested with 4.0.0" in capsys.readouterr().err


def test_a_terminal_gets_a_live_board(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    board = Board("tuning", [PROBLEM])
    with shown(board) as listener:
        assert listener is board
    assert str(PROBLEM) in terminal.getvalue()


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(Board("tuning", [PROBLEM])) as listener:
        assert isinstance(listener, LineListener)
    assert capsys.readouterr().err == "tuning\n"
