"""What a loaded kernel is called with."""

from __future__ import annotations

from typing import Any

import pytest

from fa4gen.compile import launchable, loader
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.workspace import Workspace

DYNAMIC = KernelConfig(scheduler=Scheduler.DYNAMIC)


class FakeTensor:
    """As much of a torch tensor as a launch looks at."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def new_empty(self, shape: tuple[int, ...]) -> FakeTensor:
        return FakeTensor(*shape)


class FakeCounters:
    """Gives a new counter to every launch and remembers beside which tensor."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, object]] = []

    def for_launch(self, like: Any) -> object:
        self.given.append((like, object()))
        return self.given[-1][1]


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> FakeCounters:
    fake = FakeCounters()
    monkeypatch.setattr(loader, "TILE_COUNTERS", fake)
    return fake


@pytest.mark.parametrize("scheduler", [Scheduler.LPT, Scheduler.PERSISTENT])
def test_a_kernel_without_workspace_is_left_alone(scheduler: Scheduler) -> None:
    def function() -> None: ...

    config = KernelConfig(scheduler=scheduler)
    assert launchable(function, config) is function
    assert Workspace.of(config) == Workspace()
    assert Workspace().split_shapes((2, 8, 1), 64) == ()


def test_what_a_kernel_takes_follows_from_its_knobs() -> None:
    assert Workspace.of(DYNAMIC) == Workspace(num_splits=1, tile_counter=True)
    assert Workspace.of(KernelConfig(num_splits=4)) == Workspace(num_splits=4)
    shapes = Workspace(num_splits=4).split_shapes((2, 8, 1), 64)
    assert shapes == ((4, 2, 8 * 64), (4, 2, 8 * 2))
    odd = Workspace(num_splits=4).split_shapes((1, 3, 3), 72)
    assert odd == ((4, 2, 8 * 80), (4, 2, 8 * 2)), "whole blocks of 8 rows and 16 columns"


def test_a_dynamic_kernel_gets_a_counter_between_lse_and_scale(counters: FakeCounters) -> None:
    calls: list[tuple[Any, ...]] = []
    launch = launchable(lambda *given: calls.append(given), DYNAMIC)
    tensors = [FakeTensor(2, 5, 8, 64) for _ in range(4)]
    lse = FakeTensor(2, 8, 5)
    for at in range(2):
        launch(*tensors, lse, 0.125, 132)
        beside, counter = counters.given[at]
        assert beside is lse
        assert calls[at] == (*tensors, lse, counter, 0.125, 132)
    assert counters.given[0][1] is not counters.given[1][1], "asked anew for every launch"


@pytest.mark.parametrize("num_splits", [2, 32])
def test_splits_get_their_workspace_between_lse_and_scale(num_splits: int) -> None:
    calls: list[tuple[Any, ...]] = []
    launch = launchable(lambda *given: calls.append(given), KernelConfig(num_splits=num_splits))
    q, k, v = FakeTensor(2, 1, 8, 128), FakeTensor(2, 99, 2, 128), FakeTensor(2, 99, 2, 64)
    out, lse = FakeTensor(2, 1, 8, 64), FakeTensor(2, 8, 1)
    launch(q, k, v, out, lse, 0.125, 132)
    ((*tensors, out_splits, row_splits, scale, num_sms),) = calls
    assert tensors == [q, k, v, out, lse]
    assert (out_splits.shape, row_splits.shape) == (
        (num_splits, 2, 8 * 64),
        (num_splits, 2, 8 * 2),
    )
    assert (scale, num_sms) == (0.125, 132)


@pytest.mark.parametrize("num_splits", [1, 4])
def test_e4m3_goes_in_as_bytes_and_descales_before_workspace(num_splits: int) -> None:
    import torch

    calls: list[Any] = []
    config = KernelConfig(num_splits=num_splits)
    launch = launchable(lambda *given: calls.append(given), config, DType.E4M3)
    q, k, v = (torch.randn(2, 5, 4, 16).to(torch.float8_e4m3fn) for _ in range(3))
    out = torch.empty(2, 5, 4, 16, dtype=torch.bfloat16)
    lse, descales = torch.empty(2, 4, 5), torch.rand(3, 2, 4)
    launch(q, k, v, out, lse, *descales, 0.5, 132)
    given = calls.pop()
    for tensor, original in zip(given[:3], (q, k, v), strict=True):
        assert tensor.dtype == torch.uint8
        assert tensor.data_ptr() == original.data_ptr()
    assert given[3] is out
    assert given[4] is lse
    assert all(torch.equal(a, b) for a, b in zip(given[5:8], descales, strict=True))
    assert given[-2:] == (0.5, 132)
    shapes = [tuple(each.shape) for each in given[8:-2]]
    assert shapes == ([] if num_splits == 1 else [(4, 5, 8 * 16), (4, 5, 8 * 2)])


@pytest.mark.parametrize("num_splits", [1, 4])
def test_in_e4m3_the_counter_is_the_last_of_the_workspace(
    num_splits: int, counters: FakeCounters
) -> None:
    import torch

    calls: list[Any] = []
    # Feasibility refuses splits here; what comes first would not change.
    config = KernelConfig(scheduler=Scheduler.DYNAMIC, num_splits=num_splits)
    launch = launchable(lambda *given: calls.append(given), config, DType.E4M3)
    q, k, v = (torch.randn(2, 5, 4, 16).to(torch.float8_e4m3fn) for _ in range(3))
    out, lse = torch.empty(2, 5, 4, 16, dtype=torch.bfloat16), torch.empty(2, 4, 5)
    descales = tuple(torch.rand(3, 2, 4))
    launch(q, k, v, out, lse, *descales, 0.5, 132)
    given = calls.pop()
    ((beside, counter),) = counters.given
    assert beside is lse
    assert all(tensor.dtype == torch.uint8 for tensor in given[:3])
    assert all(a is b for a, b in zip(given[5:8], descales, strict=True))
    assert len(given) == (11 if num_splits == 1 else 13)
    assert given[-3] is counter
    assert given[-2:] == (0.5, 132)
