"""The parts of an SM that a replay keeps the time of, and the warps on them."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque

from fa4gen.perf.trace.dataflow import Step, WarpSteps
from fa4gen.perf.trace.sass import BOARDS
from fa4gen.perf.trace.timing import SUBCORES

NEVER = float("inf")


class Sm:
    """The clocks of one SM."""

    def __init__(self) -> None:
        self.tensor = [0.0] * SUBCORES
        self.copies = 0.0
        self.shared = 0.0
        self.busy: dict[str, float] = defaultdict(float)
        self.operands = [Demand() for _ in range(SUBCORES)]
        """What the tensor core of each sub-core takes of shared memory, as if all took alike."""
        self.copied = Demand()
        """What copies take of it."""


class Demand:
    """When how much of the bandwidth of shared memory is taken.

    Its one port serves the operands of MMAs, copies, and loads and stores of warps alike. Where
    they want more than there is together, the tensor core gets what the others leave.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken: deque[tuple[float, float, float]] = deque()
        """(from, to, share), oldest first."""

    def take(self, start: float, end: float, share: float) -> None:
        """Enter what somebody will take; ``start`` never goes back."""
        self.taken.append((start, end, share))

    def excess(self, start: float, end: float, share: float) -> float:
        """Cycles by which the port falls behind if ``share`` is wanted of it as well."""
        total = 0.0
        for first, last, other in self.taken:
            over = other + share - 1.0
            if over > 0.0 and first < end and last > start:
                total += over * (min(last, end) - max(first, start))
        return total

    def forget(self, before: float) -> None:
        """What is over by then, nobody asks for any more."""
        while self.taken and self.taken[0][1] <= before:
            self.taken.popleft()


class Pipe:
    """A pipe of a sub-core, with a queue before it or none.

    Without one, an instruction issues when the pipe can begin with it, and until then its warp
    stands. With one it issues into the queue, where those of several warps wait side by side.
    """

    __slots__ = ("begun", "free", "over")

    def __init__(self, places: int = 0) -> None:
        self.free = self.over = 0.0
        """When it takes the next instruction; when it has done what it has."""
        self.begun = deque([0.0] * places, places)
        """When it begins with each of the latest instructions, as many as may wait."""

    def take(self, time: float, cycles: float) -> float:
        """Give it an instruction at ``time``; when it is done with it."""
        start = max(time, self.over)
        self.over = self.free = start + cycles
        if self.begun.maxlen:
            self.begun.append(start)
            self.free = self.begun[0]
        return self.over


class Queue:
    """The steps of one warp that want one pipe."""

    __slots__ = ("able", "later", "pipe", "warp")

    def __init__(self, warp: WarpState, pipe: Pipe) -> None:
        self.warp, self.pipe = warp, pipe
        self.later: list[tuple[float, int, int]] = []
        """(when its operands are there, number, position), a heap."""
        self.able: list[tuple[int, int]] = []
        """Of those that could go at once, the oldest first: a heap."""

    def earliest(self, floor: float) -> float:
        """When one of its steps can go."""
        floor = max(floor, self.pipe.free, self.warp.again)
        while self.later and self.later[0][0] <= floor:
            heapq.heappush(self.able, heapq.heappop(self.later)[1:])
        if self.able:
            return floor
        return self.later[0][0] if self.later else NEVER

    def take(self) -> int:
        """The step that :meth:`earliest` spoke of."""
        return heapq.heappop(self.able)[1] if self.able else heapq.heappop(self.later)[2]


class SubCore:
    """A sub-core: its issue port and its pipes.

    Of the warps that can issue, the one that issued last goes on, else the youngest.
    Source: Huerta et al., Analyzing Modern NVIDIA GPU Cores, 2025: greedy, then youngest.
    """

    def __init__(self, sm: Sm, number: int, mufu_queue: int = 0) -> None:
        self.sm, self.number = sm, number
        self.issue = 0.0
        self.pipes: dict[str, Pipe] = defaultdict(Pipe, mufu=Pipe(mufu_queue))
        self.queues: list[Queue] = []
        self.version = self.serial = 0
        self.last: WarpState | None = None
        """The warp that issued last."""

    def offer(self, warp: WarpState, at: int, ready: float) -> None:
        """A step whose operands are there at ``ready``."""
        self.serial += 1
        name = warp.steps[at].kind.pipe
        queue = warp.queues.get(name)
        if queue is None:
            queue = warp.queues[name] = Queue(warp, self.pipes[name])
            self.queues.append(queue)
            self.queues.sort(key=lambda each: -each.warp.index)
        heapq.heappush(queue.later, (ready, self.serial, at))

    def best(self) -> tuple[float, Queue | None]:
        """When the next step can go, and from which queue."""
        best, found = NEVER, None
        for queue in self.queues:
            if queue.able or queue.later:
                time = queue.earliest(self.issue)
                if time < best or (time == best and queue.warp is self.last):
                    best, found = time, queue
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
        self.again = 0.0
        """When the warp may issue its next step, by the stall of the one before."""
        self.queues: dict[str, Queue] = {}
        """By pipe."""
        self.missing: dict[int, int] = {}
        """Of steps in the window: operands that are not issued."""
        self.users: dict[int, list[int]] = defaultdict(list)
        self.last_ordered = -1
        self.closing = -1
        """The branch or wait that has to be over before later steps come into the window."""
        self.waited = self.came = 0.0
        self.here = -1
        """The last wait that has told others that the warp has come to it."""
        self.boards = [0.0] * BOARDS
        """When each scoreboard is free."""
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
            step = self.steps[at]
            if at != self.head and (step.kind.control or self.steps[at - 1].kind.control):
                return  # the machine's instructions go one after the other
            self.admitted += 1
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
        step = self.steps[at]
        for each in step.operands:
            ready = max(ready, self.finish[each])
        ready = max(ready, self.cleared(step))
        self.subcore.offer(self, at, ready)

    def cleared(self, step: Step) -> float:
        """When the scoreboards that a machine instruction waits for are free."""
        control = step.kind.control
        return max((self.boards[each] for each in control.waits), default=0.0) if control else 0.0

    def issued(self, at: int) -> None:
        """Tell those who need it, and move the window on."""
        for user in self.users.pop(at, ()):
            self.missing[user] -= 1
            if not self.missing[user]:
                del self.missing[user]
                self.offer(user)
        while self.head < len(self.steps) and self.finish[self.head] != NEVER:
            self.head += 1
