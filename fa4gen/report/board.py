"""The board of a running tuner: one line for each problem, kept up to date by its events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Outcome
from fa4gen.core.problem import AttentionProblem
from fa4gen.report.tables import gain_text, grid, trials_text
from fa4gen.report.views import TimingView
from fa4gen.tune import IncumbentEvent, ProblemReport, ProblemStart, TrialEvent

Clock = Callable[[], float]

VISIBLE_DONE = 12
"""Finished problems that stay on the live board; the closing table has them all."""


@dataclass
class Line:
    """What the board says of one problem."""

    problem: AttentionProblem
    incumbent: TimingView | None = None
    trials: dict[str, int] = field(default_factory=dict)
    max_trials: int = 0
    budget_s: float = math.inf
    started_s: float | None = None
    ended: str = ""
    """Why the search ended; empty until it has."""


class Board:
    """A listener of the tuner that remembers what is worth showing.

    Args:
        title: what is being tuned for, and how times are made.
        problems: the workload.
        clock: seconds since any moment.
    """

    def __init__(
        self, title: str, problems: Sequence[AttentionProblem], clock: Clock = time.monotonic
    ) -> None:
        self.title, self.clock = title, clock
        self.lines = [Line(problem) for problem in problems]
        self.asks = (0, 0, 0)
        self.begun_s = clock()

    def on_problem_start(self, event: ProblemStart) -> None:
        """The tuner turns to a problem."""
        line = self.lines[event.index]
        line.started_s, line.max_trials = self.clock(), event.max_trials
        line.budget_s = event.budget_s

    def on_trial(self, event: TrialEvent) -> None:
        """One more trial."""
        line = self.lines[event.index]
        outcome = event.evaluation.outcome.value
        line.trials[outcome] = line.trials.get(outcome, 0) + 1
        progress = event.progress
        self.asks = (progress.infeasible_asks, progress.duplicate_asks, progress.hopeless_asks)
        if line.incumbent is None and event.evaluation.outcome is Outcome.OK:
            self._set(event.index, event.evaluation)

    def on_incumbent(self, event: IncumbentEvent) -> None:
        """A new best."""
        self._set(event.index, event.evaluation)

    def on_problem_end(self, report: ProblemReport) -> None:
        """A problem is done: from now on the line shows what the table holds."""
        line = self.lines[report.index]
        line.ended = report.stop.value
        if report.winner is not None:
            self._set(report.index, report.winner)

    def _set(self, index: int, evaluation: Evaluation) -> None:
        line = self.lines[index]
        line.incumbent = TimingView.of(line.problem, evaluation)

    def trials(self) -> dict[str, int]:
        """Trials of all problems by outcome."""
        total: dict[str, int] = {}
        for line in self.lines:
            for outcome, count in line.trials.items():
                total[outcome] = total.get(outcome, 0) + count
        return total

    def left(self, line: Line) -> str:
        """What is left for a problem: seconds where there is a budget, else trials."""
        if line.ended:
            return line.ended
        if line.started_s is None:
            return "waiting"
        if math.isinf(line.budget_s):
            return f"{max(0, line.max_trials - sum(line.trials.values()))} trials"
        return duration(max(0.0, line.started_s + line.budget_s - self.clock()))

    def __rich__(self) -> RenderableType:
        table = grid("problem", "TFLOP/s", "gain", "trials", "left", right=_RIGHT)
        for line in self._shown():
            timing = line.incumbent
            table.add_row(
                str(line.problem),
                "" if timing is None else f"{timing.tflops:.1f}",
                Text("") if timing is None else gain_text(timing, interval=False),
                str(sum(line.trials.values()) or ""),
                Text(self.left(line), style="dim" if line.ended else ""),
            )
        done = sum(1 for line in self.lines if line.ended)
        infeasible, known, hopeless = self.asks
        footer = (
            f"{done} of {len(self.lines)} problems, {trials_text(self.trials())}, "
            f"{duration(self.clock() - self.begun_s)}; asks refused {infeasible}, "
            f"known {known}, hopeless {hopeless}. Ctrl-C keeps what is proven."
        )
        return Group(Text(self.title, style="bold"), table, Text(footer, style="dim"))

    def _shown(self) -> list[Line]:
        """Lines for a screen: the last finished ones, the running one, the next few."""
        done = [line for line in self.lines if line.ended]
        todo = [line for line in self.lines if not line.ended]
        return done[-VISIBLE_DONE:] + todo[: max(4, VISIBLE_DONE - len(done))]


_RIGHT = frozenset({"TFLOP/s", "gain", "trials", "left"})


def duration(seconds: float) -> str:
    """``0:42``, ``12:05``, ``1:02:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ending(report: ProblemReport, count: int, trials: dict[str, int]) -> str:
    """One plain line on a finished problem, for logs."""
    head = f"[{report.index + 1}/{count}] {report.problem}: "
    tail = f"{trials_text(trials)}, {report.stop.value}"
    timing = TimingView.of(report.problem, report.winner)
    if timing is None:
        return f"{head}no winner ({report.message or tail})"
    what = "the default stays" if report.default_stays else f"gain {gain_text(timing)}"
    return f"{head}{timing.tflops:.1f} TFLOP/s {timing.source.value}, {what}; {tail}"
