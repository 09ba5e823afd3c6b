"""Compiling many kernels at once, in processes that may hang or die without harm."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from fa4gen.codegen import GeneratedKernel
from fa4gen.compile.artifact import Artifact, artifact_key
from fa4gen.compile.cache import ArtifactCache
from fa4gen.compile.process import CompileServer, WorkerDiedError, WorkerProcess
from fa4gen.core.errors import CompileCrash, CompilerUnavailable, Fa4genError

DEFAULT_TIMEOUT_S = 120.0
"""Far more than a FlashAttention-4 forward kernel takes on a slow core."""

COMPILES_PER_PROCESS = 50
"""A process is replaced after this many, because CuTe-DSL keeps about 1 MB of each module."""

_ATTEMPTS = 2
_JOIN_S = 1.5


@dataclass(eq=False, slots=True)
class _Job:
    """One kernel to compile, and everyone who waits for it."""

    key: str
    generated: GeneratedKernel
    futures: list[Future[Artifact]] = field(default_factory=list)
    running: bool = False


class CompilePool:
    """Up to ``workers`` compile processes, forked from a preloaded server when first needed.

    Each process is driven by a thread of its own here; this process never imports CuTe-DSL or
    torch. A process that exceeds ``timeout_s`` on one kernel is killed and replaced. One that dies
    is replaced too, and its kernel tried once more, since an outsider may have killed it. All of
    them die with this process.

    Equal kernels that are submitted while the first is still queued or compiling are compiled
    once; each ``submit`` has its own future. Cancelling a future works while it is queued.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        cache: ArtifactCache | None = None,
    ) -> None:
        """``workers`` defaults to the CPUs this process may use.

        Raises:
            ValueError: fewer than 1 worker, or a time-out that is not above 0.
        """
        workers = _usable_cpus() if workers is None else workers
        if workers < 1 or timeout_s <= 0:
            raise ValueError(
                f"compile pool: got {workers} workers and a time-out of {timeout_s} s, allowed: "
                "1 or more, and above 0"
            )
        self.workers, self.timeout_s = workers, timeout_s
        self.cache = ArtifactCache() if cache is None else cache
        self._folder = Path(tempfile.mkdtemp(prefix="fa4gen-pool-"))
        self._server = CompileServer(self._folder)
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._later: deque[_Job] = deque()
        self._jobs: dict[str, _Job] = {}
        self._threads: list[threading.Thread] = []
        self._processes: set[WorkerProcess] = set()
        self._idle = 0
        self._preloads = 0
        self._closed = False
        self._owner = os.getpid()
        atexit.register(self.close)

    def submit(
        self, generated: GeneratedKernel, *, urgent: bool = False, later: bool = False
    ) -> Future[Artifact]:
        """Compile ``generated``, or take it from the cache.

        ``urgent`` goes before all queued; ``later`` waits until nothing else is queued, and until
        the same kernel is submitted without it.

        The future ends with CompileError (CompileTimeout, CompileCrash) when the kernel is to
        blame, with MissingDependency or CompilerUnavailable when it is not.

        Raises:
            CompilerUnavailable: the pool is closed.
        """
        future: Future[Artifact] = Future()
        key = artifact_key(generated)
        if (found := self.cache.get(key)) is not None:
            future.set_result(found)
            return future
        with self._changed:
            self._check_open()
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, generated)
                self._enqueue(job, urgent, later)
            elif not job.running and (urgent or (job in self._later and not later)):
                (self._later if job in self._later else self._queue).remove(job)
                self._enqueue(job, urgent, later)
            if job.running:
                future.set_running_or_notify_cancel()
            job.futures.append(future)
            self._wake(len(self._queue) + len(self._later))
        return future

    def _enqueue(self, job: _Job, urgent: bool, later: bool) -> None:
        """Put a job where it belongs; the caller holds the condition."""
        if urgent:
            self._queue.appendleft(job)
        else:
            (self._later if later else self._queue).append(job)

    def preload(self) -> None:
        """Start every process now, so that the first kernels do not wait for the import."""
        with self._changed:
            self._check_open()
            self._preloads = self.workers - len(self._processes)
            self._wake(self._preloads)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the compile processes that run now."""
        with self._changed:
            return tuple(sorted(worker.pid for worker in self._processes if worker.alive))

    def close(self) -> None:
        """Kill every process and give up all that is queued or compiling; safe to call twice."""
        atexit.unregister(self.close)
        if os.getpid() != self._owner:  # a fork has the objects but not the processes
            return
        with self._changed:
            self._closed = True
            queued = [*self._queue, *self._later]
            self._queue.clear()
            self._later.clear()
            for job in queued:
                del self._jobs[job.key]
            self._changed.notify_all()
        self._server.kill()
        for job in queued:
            for future in job.futures:
                future.cancel()
                future.set_running_or_notify_cancel()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_S)
        self._server.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        """Refuse work after :meth:`close`."""
        if self._closed:
            raise CompilerUnavailable("compile pool: it is closed; make a new one")

    def _wake(self, tasks: int) -> None:
        """Have up to ``tasks`` threads look for work; the caller holds the condition."""
        for _ in range(min(tasks - self._idle, self.workers - len(self._threads))):
            name = f"fa4gen-compile-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._changed.notify(tasks)

    def _run(self) -> None:
        """One thread: serve jobs with a process of its own until the pool is closed."""
        slot = _Slot(self)
        try:
            while (job := self._next()) is not None:
                if isinstance(job, _Job):
                    self._finish(job, slot)
                else:
                    with suppress(Fa4genError, OSError):
                        slot.process()  # a failure shows again, and is told, at the first job
        finally:
            slot.drop()

    def _next(self) -> _Job | bool | None:
        """The next job; ``True`` to start a process only; ``None`` when the pool is closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                if self._preloads > 0:
                    self._preloads -= 1
                    return True
                while self._queue or self._later:
                    job = (self._queue or self._later).popleft()
                    waiting = [f for f in job.futures if f.set_running_or_notify_cancel()]
                    if waiting:
                        job.futures, job.running = waiting, True
                        return job
                    del self._jobs[job.key]
                self._idle += 1
                self._changed.wait()
                self._idle -= 1

    def _finish(self, job: _Job, slot: _Slot) -> None:
        """Compile a job and tell everyone who waits for it."""
        artifact: Artifact | None = None
        failure: Exception | None = None
        try:
            artifact = slot.compile(job)
        except Exception as error:  # whatever it is, somebody waits for it
            failure = error
        with self._changed:
            del self._jobs[job.key]
        for future in job.futures:
            if artifact is not None:
                future.set_result(artifact)
            else:
                future.set_exception(failure)


class _Slot:
    """A thread's process, replaced when it is used up, hung or dead."""

    def __init__(self, pool: CompilePool) -> None:
        self._pool = pool
        self._process: WorkerProcess | None = None

    def compile(self, job: _Job) -> Artifact:
        """The artifact of a job.

        Raises:
            CompileError: the kernel was refused, took too long, or killed two processes.
            MissingDependency, CompilerUnavailable: no process can compile.
        """
        cache = self._pool.cache
        if (found := cache.get(job.key)) is not None:  # another process put it meanwhile
            return found
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                compiled = self.process().compile(job.generated, self._pool.timeout_s)
            except WorkerDiedError as death:
                self._pool._check_open()  # close() kills it: nobody is to blame then
                if attempt == _ATTEMPTS:
                    raise CompileCrash(
                        f"kernel {job.generated.module_name}: the compiler died {_ATTEMPTS} times, "
                        f"last by {death}"
                    ) from death
            else:
                break
        try:
            return cache.put(job.key, compiled)
        except OSError as error:
            raise CompilerUnavailable(
                f"compile cache: neither {cache.root} nor a temporary folder can be written "
                f"({error}); free some space"
            ) from error

    def process(self) -> WorkerProcess:
        """A process that is ready to compile.

        Raises:
            MissingDependency: CuTe-DSL cannot be imported there.
            CompilerUnavailable: it cannot start, or the pool is closed.
        """
        worker = self._process
        if worker is None or not worker.alive or worker.compiles >= COMPILES_PER_PROCESS:
            self.drop()
            worker = WorkerProcess(self._pool._server)
            with self._pool._changed:
                self._process = worker
                self._pool._processes.add(worker)
        return worker

    def drop(self) -> None:
        """Kill the process, if there is one."""
        worker = self._process
        if worker is not None:
            with self._pool._changed:
                self._process = None
                self._pool._processes.discard(worker)
            if worker.alive:
                worker.release()


def _usable_cpus() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
