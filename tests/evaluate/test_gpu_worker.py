"""What the worker does before its first request, and how it judges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import fake_kernels
import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import MissingDependency
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import allowed_error
from fa4gen.evaluate.gpu_check import Inputs
from fa4gen.evaluate.gpu_device import CpuDevice
from fa4gen.evaluate.gpu_reference import reference
from fa4gen.evaluate.gpu_worker import Worker, serve
from fa4gen.evaluate.protocol import (
    CheckReply,
    CheckRequest,
    Failure,
    KernelRef,
    Message,
    Shutdown,
    encode,
)


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


def unlucky(times_allowed: float, launches: int) -> Callable[..., object]:
    """A kernel whose first ``launches`` results have one error of so many times its allowance.

    A case takes two launches.
    """
    left = [launches]

    def kernel(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
        fake_kernels.flash(q, k, v, out, lse, scale)
        if left[0]:
            left[0] -= 1
            whole = reference(Inputs(q, k, v), False, scale, [(0, 0)])
            flat = allowed_error(
                float(whole.worst_16.max()), float(whole.o.abs().max()), DType.FP16.unit_roundoff
            )
            at = int(whole.o[0].abs().argmin())  # where 16 bits are finest
            place = (0, at // out.shape[3], 0, at % out.shape[3])
            out[place] = float(whole.o[0].flatten()[at]) + times_allowed * flat

    return kernel


@pytest.mark.parametrize(
    ("times_allowed", "launches", "right"),
    [(0.9, 2, True), (1.1, 2, True), (1.1, 4, False), (1.5, 2, False)],
)
def test_an_error_that_may_be_chance_is_judged_on_a_second_draw(
    times_allowed: float, launches: int, right: bool
) -> None:
    problem = AttentionProblem(1, 32, 48, 1, 1, 64, 64, DType.FP16, causal=False)
    kernel = unlucky(times_allowed, launches)
    worker = Worker(CpuDevice(), lambda _: kernel, lambda _: None)
    reply = worker.answer(CheckRequest(problem, KernelRef("id", "", KernelConfig()), 1, True))
    assert isinstance(reply, CheckReply if right else Failure), reply
