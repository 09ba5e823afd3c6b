"""Ctrl-C and SIGTERM that never cut a database transaction in half."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Holds a first SIGINT or SIGTERM back until it can do no harm; a second one acts at once.

    Inside :meth:`allowed` (around evaluator calls, which may take long) a signal raises
    ``KeyboardInterrupt`` right away. Elsewhere it only sets :attr:`requested`, and the tuner
    stops at its next step. Only the main thread can catch signals; in another thread this does
    nothing, and the owner of the main thread decides.
    """

    def __init__(self) -> None:
        self.requested = False
        self._inside = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._inside or again:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` when a signal came."""
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A stretch in which a signal takes effect at once."""
        self.check()
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
