"""Optuna's side of a search, in a thread of its own, so that the card does not wait for it.

An ask takes 20 to 40 ms in a study on disk, and most asks come to nothing: in a search with 20
trials, 5 s beside 7 s of timing (an H200, 2026-11-22). So configurations are asked for ahead of
their evaluation, by the effort's ``lookahead``, and results are told one by one in the order of the
asks, each followed by the asks there is room for then. What is asked depends on results alone,
never on the clock.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event

from fa4gen.core.config import KernelConfig
from fa4gen.tune.proposer import Proposer
from fa4gen.tune.records import Known
from fa4gen.tune.study import Asked, TunerStudy


class Seen:
    """What the asker has been told; a proposer's memory."""

    def __init__(self, known: Iterable[Known]) -> None:
        self._known = {each.config.config_id: each for each in known}

    def add(self, known: Known) -> None:
        """One more, or a newer one."""
        self._known[known.config.config_id] = known

    def get(self, config: KernelConfig) -> Known | None:
        """What is known of a configuration."""
        return self._known.get(config.config_id)

    def best(self) -> KernelConfig | None:
        """The one with the largest gain; ``None`` while nothing ran."""
        ran = [known for known in self._known.values() if known.gain > 0]
        best = max(ran, key=lambda known: known.gain, default=None)
        return None if best is None else best.config


@dataclass(frozen=True, slots=True)
class _News:
    """What the thread is told."""

    known: Known
    asked: Asked | None
    """``None`` for what another tuner found."""
    room: int
    """Configurations that may be asked and not told from now on."""


class Asker:
    """Asks ahead; :meth:`next` and :meth:`tell` are the search's.

    Args:
        study: nobody else may use it until :meth:`join`.
        proposer: of that study.
        seen: the proposer's memory.
        lookahead: most configurations that are asked and not told.
        prepare: called with each configuration as soon as it is asked.
    """

    def __init__(
        self,
        study: TunerStudy,
        proposer: Proposer,
        seen: Seen,
        *,
        lookahead: int,
        prepare: Callable[[KernelConfig], None],
    ) -> None:
        self._study, self._proposer, self._seen = study, proposer, seen
        self._lookahead, self._prepare = lookahead, prepare
        self._window: deque[Asked] = deque()
        self._asked: SimpleQueue[Asked | Exception | None] = SimpleQueue()
        self._news: SimpleQueue[_News | None] = SimpleQueue()
        self._stopped = Event()
        self._job: Future[None] | None = None

    def start(self, executor: Executor, room: int) -> None:
        """Begin to ask, for ``room`` configurations at most until something is told."""
        self._job = executor.submit(self._run, room)

    def next(self) -> Asked | None:
        """The next configuration to evaluate; ``None`` when there is none.

        Raises:
            Exception: whatever broke the thread.
        """
        asked = self._asked.get()
        if isinstance(asked, Exception):
            raise asked
        return asked

    def tell(self, asked: Asked, known: Known, room: int) -> None:
        """What came of it, and how many may be asked and not told from now on."""
        self._news.put(_News(known, asked, room))

    def learn(self, known: Known, room: int) -> None:
        """What another tuner found."""
        self._news.put(_News(known, None, room))

    def stop(self) -> None:
        """Ask no more; what was told is still passed on, what was not is given up."""
        self._stopped.set()
        self._news.put(None)

    def join(self) -> None:
        """Wait until the thread is done with the study; :meth:`stop` comes first."""
        if self._job is not None:
            wait([self._job])

    def _run(self, room: int) -> None:
        try:
            while True:
                self._ask(room)
                if not self._window:
                    self._asked.put(None)
                if (news := self._news.get()) is None:
                    return
                room = news.room
                self._pass_on(news)
        except Exception as error:
            self._asked.put(error)
        finally:
            # Whatever broke may have broken the study too; then the next run reaps them.
            for asked in self._window:
                with contextlib.suppress(Exception):
                    self._study.abandon(asked)

    def _ask(self, room: int) -> None:
        while len(self._window) < min(self._lookahead, room) and not self._stopped.is_set():
            asked = self._proposer.next(list(self._window), self._seen.best())
            if asked is None:
                return
            self._window.append(asked)
            self._prepare(asked.config)
            self._asked.put(asked)

    def _pass_on(self, news: _News) -> None:
        self._seen.add(news.known)
        if news.asked is not None:
            self._window.remove(news.asked)
            self._study.tell(news.asked, news.known.evaluation)
        elif news.known.config.config_id not in self._study.known_ids():
            self._study.add(news.known.config, news.known.evaluation)
