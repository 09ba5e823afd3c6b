"""Owns the worker process: starts it, watches every stage's deadline, kills it, starts another.

The worker runs in a session of its own, so that the whole group can be killed and a Ctrl-C in
the terminal does not reach it. It leaves when its standard input closes, and on Linux the kernel
kills it when the parent dies, so no worker outlives a tuner.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from fa4gen.core.errors import EvaluationError
from fa4gen.evaluate.protocol import (
    Failure,
    GpuIdentity,
    Progress,
    Ready,
    Reply,
    Request,
    Shutdown,
    Stage,
    decode,
    encode,
)

_STDERR_TAIL_BYTES = 4000
_READ_BYTES = 1 << 16
_REAP_S = 30.0
"""A process stuck in the driver dies only once the driver has reset its channel."""


class WorkerTimeout(EvaluationError):
    """The worker spent longer in one stage than its deadline; it has been killed."""

    def __init__(self, at: Progress, deadline_s: float) -> None:
        self.at, self.deadline_s = at, deadline_s
        super().__init__(
            f"no answer within {deadline_s:g} s at stage {at.stage.value}"
            f"{f' ({at.label})' if at.label else ''}; the worker was killed"
        )


class WorkerDied(EvaluationError):
    """The worker ended by itself in the middle of a request."""

    def __init__(self, at: Progress, returncode: int | None, stderr: str) -> None:
        self.at, self.returncode, self.stderr = at, returncode, stderr
        super().__init__(
            f"worker ended with {_describe_exit(returncode)} at stage {at.stage.value}"
            f"{f' ({at.label})' if at.label else ''}{f': {stderr}' if stderr else ''}"
        )


def _describe_exit(returncode: int | None) -> str:
    if returncode is None:
        return "a closed pipe"
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each stage may take, for a problem of ordinary size."""

    start: float = 180.0
    load: float = 60.0
    launch: float = 10.0
    check: float = 60.0
    warmup: float = 60.0
    time: float = 30.0

    def of(self, stage: Stage) -> float:
        """The deadline of ``stage``."""
        seconds: float = getattr(self, stage.value)
        return seconds


@dataclass(slots=True)
class _Running:
    """One live worker process."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    identity: GpuIdentity | None = None
    """Once it has come up."""
    buffer: bytearray = field(default_factory=bytearray)


class Supervisor:
    """A worker that is there when needed.

    Args:
        command: program and arguments of the worker.
        deadlines: of each stage.
        environment: variables set on top of the parent's.
    """

    def __init__(
        self,
        command: Sequence[str],
        deadlines: Deadlines | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = tuple(command)
        self._deadlines = deadlines or Deadlines()
        self._environment = dict(environment or {})
        self._running: _Running | None = None
        self._finalizer: weakref.finalize[..., Supervisor] | None = None
        self.starts = 0
        """Workers started so far."""

    @property
    def pid(self) -> int | None:
        """Process id of the live worker; also the id of its process group."""
        return self._running.process.pid if self._running else None

    def begin(self) -> None:
        """Start a worker unless one is live, and do not wait: it takes seconds to come up.

        A worker that ended while nobody asked it anything is replaced: no kernel is to blame.

        Raises:
            OSError: no process can be had.
        """
        if self._running is not None:
            if self._running.process.poll() is None:
                return
            self.kill()
        stderr = _unnamed_file()
        process = subprocess.Popen(
            [*self._command, *_parent_arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, **self._environment},
        )
        self._running = _Running(process, stderr)
        self._finalizer = weakref.finalize(self, _kill, process, stderr)
        self.starts += 1

    def start(self) -> GpuIdentity:
        """See to it that a worker is there; the card it sits on.

        Raises:
            EvaluationError: it did not come up.
        """
        try:
            self.begin()
        except OSError as error:
            raise EvaluationError(f"GPU worker did not start: {error}") from error
        running = self._running
        if running is not None and running.identity is not None:
            return running.identity
        try:
            reply = self._receive(Progress(Stage.START), 1.0)
        except EvaluationError as error:
            raise EvaluationError(
                f"GPU worker did not start: {error}; run {' '.join(self._command)} by hand"
            ) from error
        if isinstance(reply, Failure):
            self.kill()
            raise EvaluationError(f"GPU worker did not start: {reply.message}")
        if not isinstance(reply, Ready):
            self.kill()
            raise EvaluationError(
                f"GPU worker: got {type(reply).__name__} first, allowed: Ready; check that "
                "parent and worker run the same fa4gen"
            )
        if running is not None:
            running.identity = reply.identity
        return reply.identity

    def call(self, request: Request, scale: float = 1.0) -> Reply:
        """The worker's reply to ``request``; a worker is started if none is live.

        Args:
            scale: factor on all deadlines, for problems that take long by nature.

        Raises:
            WorkerTimeout: a stage took too long; the worker is gone.
            WorkerDied: the worker ended; its exit and the end of its stderr are attached.
            EvaluationError: no worker could be started, or it spoke nonsense.
        """
        self.start()
        at = Progress(Stage.LOAD)
        running = self._running
        if running is None or running.process.stdin is None:
            raise EvaluationError("GPU worker: lost between start and call")
        try:
            running.process.stdin.write(encode(request))
            running.process.stdin.flush()
        except OSError:
            raise self._died(at) from None
        reply = self._receive(at, scale)
        if isinstance(reply, Failure) and reply.fatal:
            self.kill()
        return reply

    def kill(self) -> None:
        """End the worker's process group now and reap it; nothing happens when none is live."""
        if self._running is not None and self._finalizer is not None:
            self._running = None
            self._finalizer()

    def close(self) -> None:
        """Ask the worker to leave, then see to it."""
        running = self._running
        if running is None:
            return
        if running.identity is not None:  # one that is still coming up would answer seconds later
            with contextlib.suppress(OSError):
                if running.process.stdin is not None:
                    running.process.stdin.write(encode(Shutdown()))
                    running.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(timeout=5)
        self.kill()

    def _receive(self, at: Progress, scale: float) -> Reply:
        """Read lines up to a reply; every progress line starts the deadline anew."""
        deadline_s = self._deadlines.of(at.stage) * scale
        until = time.monotonic() + deadline_s
        while True:
            line = self._line(until)
            if line is None:
                self.kill()
                raise WorkerTimeout(at, deadline_s)
            if not line:
                raise self._died(at)
            try:
                message = decode(line)
            except EvaluationError:
                self.kill()
                raise
            if isinstance(message, Progress):
                at = message
                deadline_s = self._deadlines.of(at.stage) * scale
                until = time.monotonic() + deadline_s
            elif isinstance(message, Reply):
                return message
            else:
                self.kill()
                raise EvaluationError(
                    f"GPU worker: got a {type(message).__name__}, allowed: a reply"
                )

    def _line(self, until: float) -> bytes | None:
        """The next line; empty at end of file, ``None`` when ``until`` has passed."""
        running = self._running
        if running is None or running.process.stdout is None:
            return b""
        descriptor = running.process.stdout.fileno()
        while (end := running.buffer.find(b"\n")) < 0:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return None
            chunk = os.read(descriptor, _READ_BYTES)
            if not chunk:
                return b""
            running.buffer += chunk
        line = bytes(running.buffer[: end + 1])
        del running.buffer[: end + 1]
        return line

    def _died(self, at: Progress) -> WorkerDied:
        """The error for a worker that closed its pipe; reaps it."""
        running = self._running
        if running is None:
            return WorkerDied(at, None, "")
        returncode: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            returncode = running.process.wait(timeout=5)
        stderr = _tail(running.stderr)
        self.kill()
        return WorkerDied(at, returncode, stderr)


def _parent_arguments() -> tuple[str, ...]:
    """Tell the worker whose death ends it.

    Linux delivers the death signal when the *thread* that forked ends, so it is asked for only
    when the main thread forks; otherwise the closed pipe has to do.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and sys.platform == "linux":
        return ("--parent", str(os.getpid()))
    return ()


def _unnamed_file() -> IO[bytes]:
    """A temporary file without a name; it is gone once closed."""
    descriptor, path = tempfile.mkstemp(prefix="fa4gen-worker-")
    os.unlink(path)
    return os.fdopen(descriptor, "w+b")


def _tail(stderr: IO[bytes]) -> str:
    """The last lines of a worker's stderr, on one line."""
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_TAIL_BYTES))
    lines = stderr.read().decode(errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-6:] if line.strip())


def _kill(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """SIGKILL the group, reap the leader, close the pipes.

    Raises:
        EvaluationError: the process survives; it is stuck in the driver, and so is the GPU.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(timeout=_REAP_S)
    except subprocess.TimeoutExpired:
        raise EvaluationError(
            f"GPU worker {process.pid}: still there {_REAP_S:g} s after SIGKILL, stuck in the "
            "driver; look at the GPU with nvidia-smi before going on"
        ) from None
