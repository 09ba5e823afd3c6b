"""Keeps a card in its sustained state, and knows how far it is from it.

A card under load settles at a lower clock than a rested one, and samples are taken there. So a card
that had to wait needs load before its next sample, unless it was given something to do meanwhile.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SUSTAINED_WARMUP_S = 4.0
"""Load before a cold card's first sustained sample. Source: measured on an H200, 2026-11-20: 3 s
after idle a card runs at 1980 MHz, after 4 s of load at 1590 to 1785 MHz."""
SUSTAINED_REFRESH_S = 0.05
"""Load before sustained samples of a card that was busy a moment ago.

It need not bring the clock to rest: a gain is the ratio of two samples taken within milliseconds
of each other. Measured on an H200, 2026-11-22: after a check, gains of four pairs of kernels after
0.05 to 1 s of load are within 0.0007 of each other, which is what they spread, and so is a kernel
beside itself; absolute times after 0.05 s are within 1.5 % of those after 1 s."""
SHORT_REST_S = 6.0
"""After which a card is cold. Until then it does not matter how long it rested: products of
matrices take 0.95 of their steady time after 0.1 s of load, 0.97 from 0.2 to 2.5 s, after 0.25
as after 6 s of rest (measured on an H200, 2026-11-22)."""
KEEP_WARM_S = 8.0
"""Longest that a card without work is kept under load: a wait for compilers, not a pause."""
_LOOK_S = 0.004
"""Between two looks at what a card has done of its load; less than a turn of it."""


@dataclass(slots=True)
class Heat:
    """What load a card still lacks for its sustained state; one for the life of a process."""

    lacking_s: float = SUSTAINED_WARMUP_S
    """When it was last under load; at first, of a cold card."""
    last_busy: float | None = None

    def warmup_s(self) -> float:
        """Seconds of load that bring the card to its sustained state."""
        return min(SUSTAINED_WARMUP_S, SUSTAINED_REFRESH_S + self._lacks_s(0.0))

    def busy(self) -> None:
        """The card has just been under load for as long as it lacked."""
        self.lacking_s, self.last_busy = 0.0, time.monotonic()

    def add(self, load_s: float) -> None:
        """The card has just been under load for some seconds."""
        self.lacking_s = max(0.0, self._lacks_s(load_s) - load_s)
        self.last_busy = time.monotonic()

    def _lacks_s(self, load_s: float) -> float:
        """Before a load that ends now."""
        if self.last_busy is None:
            return self.lacking_s
        rested_s = max(0.0, time.monotonic() - self.last_busy - load_s)
        if rested_s > SHORT_REST_S:
            return SUSTAINED_WARMUP_S
        # On the way up from cold, a pause takes back what as much load has brought.
        return min(SUSTAINED_WARMUP_S, self.lacking_s + rested_s) if self.lacking_s else 0.0


class Load:
    """Products of random matrices, which draw as much power as a card allows.

    Zeros would draw less: power follows the bits that change.
    """

    SIDE = 4096
    TURN = 24
    """Products at one go: 5 ms at 660 TFLOP/s."""
    AHEAD = 2
    """Turns enqueued, so that one goes on when the other has ended; a request waits for both."""

    def __init__(self, device: str) -> None:
        import torch

        shape = (self.SIDE, self.SIDE)
        a, b, product = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3))
        torch.mm(a, b, out=product)  # sets up what may not be set up while capturing
        stream = torch.cuda.current_stream()
        stream.synchronize()
        # One call a turn: other threads of the process may be busy importing.
        self._turn = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._turn, stream=stream, capture_error_mode="thread_local"):
            for _ in range(self.TURN):
                torch.mm(a, b, out=product)
        self._matrices = (a, b, product)
        self._going: deque[tuple[Any, Any]] = deque()  # events around each turn, the oldest first

    def go_on(self) -> float:
        """Enqueue turns for those that have ended; the seconds of load that those were."""
        import torch

        cuda: Any = torch.cuda
        ended_s = 0.0
        while self._going and self._going[0][1].query():
            begin, end = self._going.popleft()
            ended_s += begin.elapsed_time(end) / 1e3
        while len(self._going) < self.AHEAD:
            begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            self._turn.replay()
            end.record()
            self._going.append((begin, end))
        return ended_s


def next_in(lines: queue.SimpleQueue[bytes], keep_warm: Callable[[], None] | None) -> bytes:
    """The next line; ``keep_warm`` is called again and again for :data:`KEEP_WARM_S` at most."""
    if keep_warm is not None and lines.empty():
        until = time.monotonic() + KEEP_WARM_S
        # Nobody asked for the load: whatever is wrong shows again at the next request.
        with contextlib.suppress(Exception):
            while time.monotonic() < until:
                keep_warm()
                with contextlib.suppress(queue.Empty):
                    return lines.get(timeout=_LOOK_S)
    return lines.get()
