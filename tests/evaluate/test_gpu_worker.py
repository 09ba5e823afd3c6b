"""What the worker does before its first request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from fa4gen.core.errors import MissingDependency
from fa4gen.evaluate.gpu_device import CpuDevice
from fa4gen.evaluate.gpu_worker import Worker, serve
from fa4gen.evaluate.protocol import Message, Shutdown, encode


@pytest.fixture
def worker() -> Worker:
    def nothing(*_: object) -> Callable[..., object]:
        raise AssertionError("no kernel is asked for")

    said: list[Message] = []
    return Worker(CpuDevice(), nothing, said.append)


def goodbye() -> Iterator[bytes]:
    """One line; the end of the input would end this process."""
    yield encode(Shutdown())
    threading.Event().wait()


def test_the_card_is_kept_warm_while_the_runtime_is_imported(worker: Worker) -> None:
    """A request that is there already would wait for the import too, on a card that cools."""
    turns, warm = [], threading.Event()

    def importing() -> None:
        assert warm.wait(timeout=30)

    def keep_warm() -> None:
        turns.append(1)
        if len(turns) == 3:
            warm.set()

    serve(worker, goodbye(), begin=importing, keep_warm=keep_warm)
    assert len(turns) >= 3


@pytest.mark.parametrize("error", [MissingDependency("CuTe-DSL"), OSError("disk")])
def test_an_import_that_fails_is_left_to_the_first_kernel(worker: Worker, error: Exception) -> None:
    def importing() -> None:
        raise error

    serve(worker, goodbye(), begin=importing)
