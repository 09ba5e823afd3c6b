"""One ``fa4gen tune`` on several GPUs: a process for each, all on one database."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from fa4gen.cli.output import EXIT_INTERRUPTED, say
from fa4gen.core.errors import ConfigError

if TYPE_CHECKING:
    from fa4gen.core.problem import AttentionProblem
    from fa4gen.tune.turns import Turns

VISIBLE = "CUDA_VISIBLE_DEVICES"
TURNS = "FA4GEN_TURNS"
"""Environment variable of processes that take turns, as :func:`tune_on` sets it:
``PROCESSES:FOLDER``."""
TUNE = (sys.executable, "-m", "fa4gen", "tune")


@dataclass(frozen=True, slots=True)
class Part:
    """One of ``count`` hands of a workload's problems; ``index`` counts from 1.

    They are dealt back and forth: where every other problem is causal, no hand has all of those.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """From ``2/4``.

        Raises:
            ConfigError: not a part.
        """
        index, slash, count = text.partition("/")
        if slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
            return cls(int(index), int(count))
        raise ConfigError(f"--part: got {text!r}, allowed: I/N with 1 <= I <= N, such as 2/4")

    def of(self, things: Sequence[Any]) -> tuple[Any, ...]:
        """Its things, in their order."""
        return tuple(thing for i, thing in enumerate(things) if self._dealt_to(i) == self.index - 1)

    def _dealt_to(self, i: int) -> int:
        round_, place = divmod(i, self.count)
        return place if round_ % 2 == 0 else self.count - 1 - place

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a process came to."""

    gpu: int
    output: str
    code: int


def shared_turns(problems: Sequence[AttentionProblem]) -> Turns | None:
    """The turns that this process shares with others, if the environment says that it does.

    The longest problems come first: at the end, no process should wait long for the others.

    Raises:
        ConfigError: it says so in another way than :func:`tune_on`.
    """
    text = os.environ.get(TURNS)
    if not text:
        return None
    processes, _, folder = text.partition(":")
    named = bool(folder) and Path(folder).is_dir()
    if not named or not processes.isdecimal() or not int(processes):
        raise ConfigError(
            f"{TURNS}: got {text!r}, allowed: PROCESSES:FOLDER, with the number of processes and a "
            "folder that is empty at the start; unset it to tune all problems here"
        )
    from fa4gen.tune.turns import Turns, longest_first

    order = longest_first(problems)
    return Turns(len(problems), Path(folder), int(processes), order)


def chosen_gpus(text: str, present: int) -> tuple[int, ...]:
    """Indices of GPUs, as CUDA counts those it sees, from ``all`` or ``0,2``.

    Raises:
        ConfigError: none, one that is not there, or one twice.
    """
    if text.strip() == "all" and present:
        return tuple(range(present))
    words = [word.strip() for word in text.split(",")]
    indices = [int(word) for word in words if word.isdecimal()]
    if len(indices) == len(words) == len(set(indices)) and all(i < present for i in indices):
        return tuple(indices)
    seen = f"each one of 0 to {present - 1}" if present else "none, for no GPU is to be seen"
    raise ConfigError(f"--gpus: got {text!r}, allowed: all, or indices such as 0,1, {seen}")


def tune_on(
    gpus: Sequence[int], arguments: Sequence[str], command: Sequence[str] = TUNE
) -> list[Outcome]:
    """Run ``fa4gen tune`` on every GPU, each taking problems as long as there are any.

    Turns that the environment names are kept, so that several machines can share them.

    A first Ctrl-C or SIGTERM is passed on, so that each process ends as it would by itself; a
    second one too, and makes them stop at once.

    Args:
        gpus: as CUDA counts those it sees.
        arguments: of the command.
        command: stands in for ``fa4gen tune`` in tests.
    """
    processes: list[subprocess.Popen[str]] = []
    outputs: dict[int, str] = {}
    readers: list[threading.Thread] = []
    with TemporaryDirectory(prefix="fa4gen-turns-") as folder, _passed_on(processes):
        turns = os.environ.get(TURNS) or f"{len(gpus)}:{folder}"
        for gpu in gpus:
            process = subprocess.Popen(
                [*command, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {VISIBLE: _name(gpu), TURNS: turns},
                start_new_session=True,  # the terminal's Ctrl-C comes through this process alone
            )
            processes.append(process)
            readers += _read(gpu, process, outputs)
        for process in processes:
            process.wait()
    for reader in readers:
        reader.join()
    return [
        Outcome(gpu, outputs[gpu], process.returncode)
        for gpu, process in zip(gpus, processes, strict=True)
    ]


def merged(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The JSON results of all processes as one; what one of them did not print is missing."""
    views = [json.loads(outcome.output) for outcome in outcomes if outcome.output.strip()]
    if not views:
        return {"rows": [], "not_started": []}
    whole: dict[str, Any] = dict(views[0])
    whole["rows"] = [row for view in views for row in view["rows"]]
    # What one process left, another may have begun, and what nobody began is in all views.
    seen = [row["problem"] for row in whole["rows"]]
    whole["not_started"] = []
    for problem in (problem for view in views for problem in view["not_started"]):
        if problem not in [*seen, *whole["not_started"]]:
            whole["not_started"].append(problem)
    whole["elapsed_s"] = max(view["elapsed_s"] for view in views)
    whole["interrupted"] = any(view["interrupted"] for view in views)
    timings = [row["winner"]["timing"] for row in whole["rows"] if row["winner"]]
    logs = [math.log(timing["gain"]) for timing in timings if timing]
    whole["geomean_gain"] = math.exp(sum(logs) / len(logs)) if logs else 1.0
    return whole


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Interrupted if one was, else the worst."""
    codes = [outcome.code for outcome in outcomes]
    return EXIT_INTERRUPTED if EXIT_INTERRUPTED in codes else max(abs(code) for code in codes)


def _name(gpu: int) -> str:
    """What CUDA must be told to see this GPU alone."""
    visible = os.environ.get(VISIBLE)
    return visible.split(",")[gpu].strip() if visible else str(gpu)


def _read(
    gpu: int, process: subprocess.Popen[str], outputs: dict[int, str]
) -> list[threading.Thread]:
    """Threads that keep a process's results and repeat what it says."""

    def results(stream: IO[str]) -> None:
        outputs[gpu] = stream.read()

    def words(stream: IO[str]) -> None:
        for line in stream:
            say(f"gpu {gpu}: {line.rstrip()}")

    todo: list[tuple[Callable[[IO[str]], None], IO[str] | None]] = [
        (results, process.stdout),
        (words, process.stderr),
    ]
    threads = [threading.Thread(target=what, args=(stream,)) for what, stream in todo]
    for thread in threads:
        thread.start()
    return threads


@contextmanager
def _passed_on(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    def pass_on(number: int, _: Any) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
