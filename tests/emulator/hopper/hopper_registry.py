"""All kernels, by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import hopper_barriers
import hopper_bulk
import hopper_cluster
import hopper_convert
import hopper_float
import hopper_integer
import hopper_lanes
import hopper_maps
import hopper_matrix
import hopper_memory
import hopper_mufu
import hopper_tensor_kernels
import hopper_wgmma_kernels
from hopper_kernel import Kernel

_MODULES = (
    *(hopper_integer, hopper_float, hopper_convert, hopper_mufu, hopper_lanes, hopper_memory),
    *(hopper_matrix, hopper_wgmma_kernels, hopper_tensor_kernels, hopper_maps, hopper_bulk),
    *(hopper_barriers, hopper_cluster),
)


@cache
def kernels() -> dict[str, Kernel]:
    """Every kernel.

    Raises:
        ValueError: two have one name.
    """
    found: dict[str, Kernel] = {}
    for kernel in _all():
        if kernel.name in found:
            raise ValueError(f"{kernel.name}: two kernels of this name")
        found[kernel.name] = kernel
    return found


def _all() -> Iterator[Kernel]:
    for module in _MODULES:
        yield from module.kernels()
