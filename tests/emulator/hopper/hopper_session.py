"""A GPU in a process of its own: one that faults or hangs is ended, and another one begins."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

SECONDS = 30
"""What one task may take; the first one may take twice as long."""
DIED = "its process died"
"""How the message begins of a task whose process ended by itself, as the driver's assembler may."""
_GENTLE = frozenset({0, 1, 200, 209, 218, 222})
"""Errors that leave the context as it is: values, images, PTX."""


class TaskError(Exception):
    """A task that failed; the message says how."""


class Session:
    """Runs tasks one after the other; a context manager."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, task: str, name: str = "", seconds: float = SECONDS) -> Any:
        """The result of a task of :func:`_perform`.

        Args:
            seconds: What it may take; twice as many if it is the first of a process.

        Raises:
            TaskError: it failed, or took too long.
        """
        fresh = self._process is None
        if fresh:
            self._begin()
        pipe = self._pipe
        assert pipe is not None
        pipe.send((task, name))
        if not pipe.poll(2 * seconds if fresh else seconds):
            self._end()
            raise TaskError("took too long; its process was ended")
        try:
            good, value, lost = pipe.recv()
        except (EOFError, ConnectionError):
            process = self._process
            process.join(SECONDS)
            self._end()
            raise TaskError(f"{DIED} with code {process.exitcode}") from None
        if lost:
            self._end()
        if not good:
            raise TaskError(value)
        return value

    def _begin(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def serve(pipe: Connection) -> None:
    """Perform tasks until the other end closes."""
    import hopper_driver

    gpu = hopper_driver.Gpu()
    while True:
        try:
            task, name = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, _perform(gpu, task, name), False))
        except hopper_driver.DriverError as error:
            pipe.send((False, str(error), error.code not in _GENTLE))


def _whole(path: str) -> Any:
    """Launch a whole kernel; whatever goes wrong, the process is not to be used again."""
    import hopper_driver
    import hopper_whole_gpu

    try:
        return hopper_whole_gpu.carry_out(path)
    except Exception as error:
        raise hopper_driver.DriverError(f"{type(error).__name__}: {error}", -1) from error


def _perform(gpu: Any, task: str, name: str) -> Any:
    import hopper_forms
    import hopper_maps
    import hopper_mufu
    import hopper_registry

    if task == "describe":
        return gpu.describe()
    if task == "kernel":
        return gpu.run(hopper_registry.kernels()[name])
    if task == "sweep":
        sweep = next(each for each in hopper_mufu.sweeps() if each.name == name)
        return gpu.run(sweep.kernel()).outputs["d"]
    if task == "forms":
        return hopper_forms.run(gpu, name)
    if task == "whole":
        return _whole(name)
    case = next(each for each in hopper_maps.driver_cases() if each.name == name)
    return gpu.tensor_map(case.map, case)
