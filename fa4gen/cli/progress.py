"""What a running tuner shows: a live board on a terminal, lines in a log. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live

from fa4gen.cli.output import console, say
from fa4gen.report.board import Board, ending
from fa4gen.report.tables import gain_text
from fa4gen.report.views import TimingView
from fa4gen.tune import (
    IncumbentEvent,
    ProblemReport,
    ProblemStart,
    TrialEvent,
    TuneListener,
)

REFRESH_PER_S = 4
LINE_EVERY_S = 10.0
"""How often a log hears about a search that goes on."""


class LineListener:
    """Plain lines: the end of each problem, and now and then how a long search stands."""

    def __init__(self, board: Board) -> None:
        self.board, self._last_s = board, time.monotonic()

    def on_problem_start(self, event: ProblemStart) -> None:
        """The tuner turns to a problem."""
        self.board.on_problem_start(event)

    def on_trial(self, event: TrialEvent) -> None:
        """One more trial."""
        self.board.on_trial(event)
        if time.monotonic() - self._last_s >= LINE_EVERY_S:
            self._last_s = time.monotonic()
            line = self.board.lines[event.index]
            say(
                f"[{event.index + 1}/{len(self.board.lines)}] {event.problem}: "
                f"{self._standing(line.incumbent)}, {self.board.left(line)} left"
            )

    def on_incumbent(self, event: IncumbentEvent) -> None:
        """A new best."""
        self.board.on_incumbent(event)

    def on_problem_end(self, report: ProblemReport) -> None:
        """A problem is done."""
        self.board.on_problem_end(report)
        self._last_s = time.monotonic()
        trials = self.board.lines[report.index].trials
        say(ending(report, len(self.board.lines), trials))

    @staticmethod
    def _standing(incumbent: TimingView | None) -> str:
        if incumbent is None:
            return "nothing runs yet"
        return f"{incumbent.tflops:.1f} TFLOP/s, gain {gain_text(incumbent)}"


@contextmanager
def shown(board: Board) -> Iterator[TuneListener]:
    """The listener to tune with; the live board is on the screen while the block runs."""
    if not sys.stderr.isatty():
        say(board.title)
        yield LineListener(board)
        return
    with Live(
        board, console=console(stderr=True), refresh_per_second=REFRESH_PER_S, transient=True
    ):
        yield board
