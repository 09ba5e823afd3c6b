"""A worker that behaves as its first argument says; stands in for the GPU worker.

Its second argument is a file to which it appends its process id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fa4gen.evaluate.protocol import (
    CheckReply,
    Failure,
    FailureKind,
    GpuIdentity,
    Message,
    Progress,
    Ready,
    Shutdown,
    Stage,
    decode,
    encode,
)

LONG = 600.0


def say(message: Message) -> None:
    sys.stdout.buffer.write(encode(message))
    sys.stdout.buffer.flush()


def reply(text: str = "fine") -> None:
    say(CheckReply((text,), 0.0, 1.0, text))


def last_words(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def hang() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(LONG)


def crash() -> None:
    last_words("the last words")
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    last_words("gave up")
    os._exit(3)


def nonsense() -> None:
    sys.stdout.write("Traceback (most recent call last)\n")
    sys.stdout.flush()
    time.sleep(LONG)


def fatal() -> None:
    say(Failure(FailureKind.LAUNCH, "illegal memory access", fatal=True, artifact_id="x"))
    time.sleep(LONG)


def slow() -> None:
    for step in range(8):  # every step is within its deadline, all together are not
        say(Progress(Stage.LAUNCH, str(step)))
        time.sleep(0.15)
    reply()


def child() -> None:
    process = subprocess.Popen(["sleep", str(LONG)])
    reply(str(process.pid))


ANSWERS = {
    "hang": hang,
    "crash": crash,
    "leave": leave,
    "nonsense": nonsense,
    "fatal": fatal,
    "slow": slow,
    "child": child,
    "fine": reply,
}


def main() -> None:
    mode, notes = sys.argv[1], Path(sys.argv[2])
    with notes.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if mode == "stillborn":
        last_words("no such device")
        sys.exit(5)
    if mode == "mute":
        time.sleep(LONG)
    say(Ready(GpuIdentity("fake", "", 1, 1, "", "", "", "")))
    for line in sys.stdin.buffer:
        if isinstance(decode(line), Shutdown):
            return
        say(Progress(Stage.LAUNCH, "normal"))
        ANSWERS[mode]()


main()
