"""The parts of an SM that a replay keeps the time of, and the warps on them."""

from __future__ import annotations

import heapq
from collections import defaultdict

from fa4gen.perf.trace.dataflow import WarpSteps
from fa4gen.perf.trace.timing import SUBCORES

NEVER = float("inf")


class Sm:
    """The clocks of one SM."""

    def __init__(self) -> None:
        self.tensor = [0.0] * SUBCORES
        self.copies = 0.0
        self.shared = 0.0
        self.busy: dict[str, float] = defaultdict(float)


class Pipe:
    """A pipe of a sub-core, and the steps that want it."""

    __slots__ = ("able", "free", "later")

    def __init__(self) -> None:
        self.free = 0.0
        self.later: list[tuple[float, int, WarpState, int]] = []
        """(when its operands are there, number, warp, position), a heap."""
        self.able: list[tuple[int, WarpState, int]] = []
        """Of those that could go at once, the oldest first: a heap."""

    def earliest(self, floor: float) -> float:
        """When one of its steps can go."""
        floor = max(floor, self.free)
        while self.later and self.later[0][0] <= floor:
            heapq.heappush(self.able, heapq.heappop(self.later)[1:])
        if self.able:
            return floor
        return self.later[0][0] if self.later else NEVER

    def take(self) -> tuple[WarpState, int]:
        """The step that :meth:`earliest` spoke of."""
        return heapq.heappop(self.able)[1:] if self.able else heapq.heappop(self.later)[2:]


class SubCore:
    """A sub-core: its issue port and its pipes."""

    def __init__(self, sm: Sm, number: int) -> None:
        self.sm, self.number = sm, number
        self.issue = 0.0
        self.pipes: dict[str, Pipe] = defaultdict(Pipe)
        self.version = self.serial = 0

    def offer(self, warp: WarpState, at: int, ready: float) -> None:
        """A step whose operands are there at ``ready``."""
        self.serial += 1
        entry = ready, self.serial, warp, at
        heapq.heappush(self.pipes[warp.steps[at].kind.pipe].later, entry)

    def best(self) -> tuple[float, Pipe | None]:
        """When the next step can go, and on which pipe."""
        best, found = NEVER, None
        for pipe in self.pipes.values():
            time = pipe.earliest(self.issue)
            if time < best:
                best, found = time, pipe
        return best, found


class WarpState:
    """Where a warp is in its steps."""

    def __init__(self, warp: WarpSteps, subcore: SubCore, window: int) -> None:
        self.cta, self.index, self.steps, self.subcore = warp.cta, warp.index, warp.steps, subcore
        self.window = window
        self.finish: list[float] = [NEVER] * len(warp.steps)
        """When the result of each step is there; NEVER while it is not issued."""
        self.head = 0
        """The first step that is not issued."""
        self.admitted = 0
        """Steps that are in the window, or have been."""
        self.opens = 0.0
        """When the steps at hand may begin: after the branch or wait before them."""
        self.missing: dict[int, int] = {}
        """Of steps in the window: operands that are not issued."""
        self.users: dict[int, list[int]] = defaultdict(list)
        self.last_ordered = -1
        self.closing = -1
        """The branch or wait that has to be over before later steps come into the window."""
        self.waited = self.came = 0.0
        self.here = -1
        """The last wait that has told others that the warp has come to it."""
        self.loads = self.stores = 0.0
        """When the last load from and store to tensor memory are over."""
        self.products = 0.0
        """When the last MMA of this warp is over."""
        self.open_group: list[float] = []
        self.groups: list[float] = []
        self.open_copies: list[float] = []
        self.copies: list[float] = []

    @property
    def done(self) -> bool:
        return self.head >= len(self.steps)

    def admit(self) -> None:
        """Take steps into the window."""
        end = min(self.head + self.window, len(self.steps))
        while self.admitted < end and self.closing < 0:
            at = self.admitted
            self.admitted += 1
            step = self.steps[at]
            if step.kind.closes:
                self.closing = at
                return
            # ptxas does not let others know of work before it has issued that work.
            needed = range(self.head, at) if step.signals else step.operands
            before = [each for each in needed if self.finish[each] == NEVER]
            if step.kind.ordered:
                last, self.last_ordered = self.last_ordered, at
                if last >= 0 and self.finish[last] == NEVER and last not in before:
                    before.append(last)
            for each in before:
                self.users[each].append(at)
            if before:
                self.missing[at] = len(before)
            else:
                self.offer(at)

    def offer(self, at: int) -> None:
        """Nothing that ``at`` needs is unissued any more."""
        ready = self.opens
        for each in self.steps[at].operands:
            ready = max(ready, self.finish[each])
        self.subcore.offer(self, at, ready)

    def issued(self, at: int) -> None:
        """Tell those who need it, and move the window on."""
        for user in self.users.pop(at, ()):
            self.missing[user] -= 1
            if not self.missing[user]:
                del self.missing[user]
                self.offer(user)
        while self.head < len(self.steps) and self.finish[self.head] != NEVER:
            self.head += 1
