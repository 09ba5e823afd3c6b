"""The board of a running tuner, fed with events."""

from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation, Provenance, Timing
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.report.board import Board, duration, ending
from fa4gen.tune import (
    IncumbentEvent,
    ProblemReport,
    ProblemStart,
    Progress,
    StopReason,
    TrialEvent,
)

PROBLEMS = [
    AttentionProblem.from_dict({"batch": 1, "seqlen_q": n, "num_heads_q": 8, "head_dim": 64})
    for n in (512, 1024)
]
MADE = Provenance(Source.MEASURED, "h200", 1, "t", "2026-01-01T00:00:00+00:00", "0")
PROGRESS = Progress(1, 1, 32, 0, 14, 3, 5, 7, {}, 1.0, 1.0, math.inf)
CONFIG = KernelConfig()


def found(gain: float) -> Evaluation:
    timing = Timing(10, 100.0 / gain, 0.1, gain, gain - 0.01, gain + 0.01)
    return Evaluation(Outcome.OK, MADE, timing=timing)


FAILED = Evaluation(Outcome.TIMEOUT, MADE, message="no answer")


class FakeClock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def board(clock: FakeClock) -> Board:
    made = Board("tuning", PROBLEMS, clock)
    made.on_problem_start(ProblemStart(PROBLEMS[0], 0, 2, CONFIG, 32, 90.0))
    return made


def trial(evaluation: Evaluation) -> TrialEvent:
    return TrialEvent(PROBLEMS[0], 0, 1, "sampler", CONFIG, evaluation, 1, PROGRESS)


def incumbent(evaluation: Evaluation) -> IncumbentEvent:
    return IncumbentEvent(PROBLEMS[0], 0, CONFIG, evaluation, 1, True)


def report(winner: Evaluation | None, **more: Any) -> ProblemReport:
    return ProblemReport(
        PROBLEMS[0], 0, StopReason.CONVERGED, CONFIG, found(1.0),
        KernelConfig(tile_n=96) if winner else None, winner, 1, (), PROGRESS, **more,
    )  # fmt: skip


def text(board: Board) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(board)
    return capture.get()


def test_the_first_that_runs_is_the_incumbent_until_a_better_one_comes(board: Board) -> None:
    board.on_trial(trial(found(1.0)))
    assert "1.000x" in text(board)
    board.on_trial(trial(found(1.2)))
    board.on_incumbent(incumbent(found(1.2)))
    assert "1.200x" in text(board)
    tflops = PROBLEMS[0].tflops(100.0 / 1.2)
    assert f"{tflops:.1f}" in text(board)


def test_trials_are_counted_by_outcome(board: Board) -> None:
    for evaluation in (found(1.0), FAILED, FAILED):
        board.on_trial(trial(evaluation))
    assert board.trials() == {"ok": 1, "timeout": 2}
    assert "3 trials (1 ok, 2 timeout)" in text(board)


def test_time_left_runs_down_and_ends_at_nought(board: Board, clock: FakeClock) -> None:
    assert board.left(board.lines[0]) == "1:30"
    clock.now_s = 60.0
    assert board.left(board.lines[0]) == "0:30"
    clock.now_s = 1000.0
    assert board.left(board.lines[0]) == "0:00"
    assert board.left(board.lines[1]) == "waiting"


def test_without_a_budget_trials_are_left(board: Board) -> None:
    board.on_problem_start(ProblemStart(PROBLEMS[1], 1, 2, CONFIG, 32, math.inf))
    assert board.left(board.lines[1]) == "32 trials"


def test_a_finished_problem_shows_what_the_table_holds(board: Board) -> None:
    board.on_trial(trial(found(1.0)))
    board.on_incumbent(incumbent(found(1.3)))
    board.on_problem_end(report(found(1.25)))
    assert "1.250x" in text(board)
    assert "converged" in text(board)
    assert "1 of 2 problems" in text(board)


def test_a_long_workload_fits_a_screen(clock: FakeClock) -> None:
    many = [
        AttentionProblem.from_dict({"batch": b, "seqlen_q": 8, "num_heads_q": 8, "head_dim": 64})
        for b in range(1, 61)
    ]
    board = Board("tuning", many, clock)
    for line in board.lines[:30]:
        line.ended = "converged"
    shown = text(board)
    assert "b30 s8" in shown
    assert "b31 s8" in shown
    assert len(shown.splitlines()) < 24


def test_the_line_of_a_log_says_how_a_problem_ended() -> None:
    line = ending(report(found(1.25)), 2, {"ok": 4})
    assert line.startswith("[1/2] b1 s512 h8 d64 bf16 dense: ")
    assert "gain 1.250x ±0.010; 4 trials (4 ok), converged" in line
    failed = ending(report(None, message="the default hangs"), 2, {"timeout": 1})
    assert "no winner (the default hangs)" in failed


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0, 42, 725, 3720)] == ["0:00", "0:42", "12:05", "1:02:00"]
