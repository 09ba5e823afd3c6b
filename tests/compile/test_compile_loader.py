"""What a loaded kernel is called with."""

from __future__ import annotations

from typing import Any

import pytest

from fa4gen.compile import launchable
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
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
    assert shapes == ([] if num_splits == 1 else [(4, 2, 4, 5, 16), (4, 2, 4, 5)])
