"""What a running study shows, on stderr: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fa4gen.cli.output import console, say
from fa4gen.study import StudyListener, TrialEvent

LINE_EVERY_S = 10.0


class LineListener:
    """Plain lines, now and then."""

    def __init__(self) -> None:
        self._last_s, self._best = time.monotonic(), 0.0

    def on_start(self, total: int) -> None:
        """Its size."""
        say(f"{total} combinations to try")

    def on_trial(self, event: TrialEvent) -> None:
        """How it stands."""
        self._best = max(self._best, event.row.gain or 0.0)
        if time.monotonic() - self._last_s >= LINE_EVERY_S:
            self._last_s = time.monotonic()
            say(f"{event.done} of {event.total} tried, best gain {self._best:.3f}x")

    def on_shootout(self, count: int) -> None:
        """The last step."""
        say(f"timing the {count} candidates for the front again, together and longer")


class BarListener:
    """A bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._best = bar, 0.0
        self._task = bar.add_task("", total=None, start=True)

    def on_start(self, total: int) -> None:
        """Its size."""
        self._bar.update(self._task, total=total)

    def on_trial(self, event: TrialEvent) -> None:
        """One more."""
        self._best = max(self._best, event.row.gain or 0.0)
        text = f"best gain {self._best:.3f}x"
        self._bar.update(self._task, completed=event.done, total=event.total, description=text)

    def on_shootout(self, count: int) -> None:
        """The last step."""
        text = f"{count} candidates for the front again, longer"
        self._bar.update(self._task, description=text)


@contextmanager
def shown(title: str) -> Iterator[StudyListener]:
    """The listener to study with."""
    say(title)
    if not sys.stderr.isatty():
        yield LineListener()
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    words = TextColumn("{task.description}")
    with Progress(*columns, words, console=console(stderr=True), transient=True) as bar:
        yield BarListener(bar)
