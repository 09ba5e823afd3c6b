"""Optuna's side of a search, in a thread of its own, so that the card does not wait for it.

An ask takes 20 to 40 ms in a study on disk, and most asks come to nothing: in a search with 20
trials, 5 s beside 7 s of timing (an H200, 2026-11-22). So configurations are asked for ahead of
their evaluation, by the effort's ``lookahead``, and results are told one by one in the order of the
asks, each followed by the asks there is room for then. What is asked depends on results alone,
never on the clock.

A study is opened there too, which takes a quarter of a second: what is sure to be tried first is
evaluated meanwhile without being asked for.
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
from fa4gen.tune.study import Asked, TunerStudy, Wish


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
    wish: Wish | None
    """``None`` for what another tuner found."""
    room: int
    """Configurations that may be asked and not told from now on."""


class Asker:
    """Asks ahead; :meth:`next` and :meth:`tell` are the search's.

    Args:
        begin: opens the study, in the asker's thread; nobody else may use it until :meth:`join`.
        seen: the proposer's memory.
        lookahead: most configurations that are asked and not told.
        prepare: called with each configuration as soon as it is asked.
    """

    def __init__(
        self,
        begin: Callable[[], Proposer],
        seen: Seen,
        *,
        lookahead: int,
        prepare: Callable[[KernelConfig], None],
    ) -> None:
        self._begin, self._seen = begin, seen
        self._lookahead, self._prepare = lookahead, prepare
        self._window: deque[Wish] = deque()
        self._wishes: SimpleQueue[Wish | Exception | None] = SimpleQueue()
        self._news: SimpleQueue[_News | None] = SimpleQueue()
        self._stopped = Event()
        self._job: Future[None] | None = None

    def start(self, executor: Executor, room: int, first: Iterable[Wish] = ()) -> None:
        """Begin to ask.

        Args:
            executor: of one thread.
            room: configurations that may be asked and not told.
            first: what :meth:`next` gives before anything that is asked.
        """
        for wish in first:
            self._window.append(wish)
            self._wishes.put(wish)
        self._job = executor.submit(self._run, room)

    def next(self) -> Wish | None:
        """The next configuration to evaluate; ``None`` when there is none.

        Raises:
            Exception: whatever broke the thread.
        """
        wish = self._wishes.get()
        if isinstance(wish, Exception):
            raise wish
        return wish

    def tell(self, wish: Wish, known: Known, room: int) -> None:
        """What came of it, and how many may be asked and not told from now on."""
        self._news.put(_News(known, wish, room))

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
            proposer = self._begin()
        except Exception as error:
            self._wishes.put(error)
            return
        try:
            while True:
                self._ask(proposer, room)
                if not self._window:
                    self._wishes.put(None)
                if (news := self._news.get()) is None:
                    return
                room = news.room
                self._pass_on(proposer.study, news)
        except Exception as error:
            self._wishes.put(error)
        finally:
            # Whatever broke may have broken the study too; then the next run reaps them.
            for wish in self._window:
                if isinstance(wish, Asked):
                    with contextlib.suppress(Exception):
                        proposer.study.abandon(wish)

    def _ask(self, proposer: Proposer, room: int) -> None:
        while len(self._window) < min(self._lookahead, room) and not self._stopped.is_set():
            asked = proposer.next(self._window, self._seen.best())
            if asked is None:
                return
            self._window.append(asked)
            self._prepare(asked.config)
            self._wishes.put(asked)

    def _pass_on(self, study: TunerStudy, news: _News) -> None:
        self._seen.add(news.known)
        config, evaluation = news.known.config, news.known.evaluation
        if news.wish is not None:
            self._window.remove(news.wish)
        if isinstance(news.wish, Asked):
            study.tell(news.wish, evaluation)
        elif news.wish is not None:
            study.add(config, evaluation, news.wish.origin)
        elif config.config_id not in study.known_ids():
            study.add(config, evaluation)
