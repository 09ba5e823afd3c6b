"""What a loaded kernel is called with."""

from __future__ import annotations

from typing import Any

import pytest

from fa4gen.compile import launchable
from fa4gen.core.config import KernelConfig
from fa4gen.core.workspace import workspace_shapes


class FakeTensor:
    """As much of a torch tensor as a launch looks at."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def new_empty(self, shape: tuple[int, ...]) -> FakeTensor:
        return FakeTensor(*shape)


def test_a_kernel_without_workspace_is_left_alone() -> None:
    def function() -> None: ...

    assert launchable(function, KernelConfig()) is function
    assert workspace_shapes(KernelConfig(), (2, 8, 1), 64) is None


@pytest.mark.parametrize("num_splits", [2, 32])
def test_splits_get_their_workspace_between_lse_and_scale(num_splits: int) -> None:
    calls: list[tuple[Any, ...]] = []
    launch = launchable(lambda *given: calls.append(given), KernelConfig(num_splits=num_splits))
    q, k, v = FakeTensor(2, 1, 8, 128), FakeTensor(2, 99, 2, 128), FakeTensor(2, 99, 2, 64)
    out, lse = FakeTensor(2, 1, 8, 64), FakeTensor(2, 8, 1)
    launch(q, k, v, out, lse, 0.125, 132)
    ((*tensors, out_splits, lse_splits, scale, num_sms),) = calls
    assert tensors == [q, k, v, out, lse]
    assert (out_splits.shape, lse_splits.shape) == (
        (num_splits, 2, 8, 1, 64),
        (num_splits, 2, 8, 1),
    )
    assert (scale, num_sms) == (0.125, 132)
