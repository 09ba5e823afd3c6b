"""Host functions compiled once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fa4gen.compile import emulation
from fa4gen.emulator.launch import CompiledHost, Device


@pytest.fixture(scope="session")
def kernels() -> ModuleType:
    """The module :mod:`launch_kernels`, imported late as it imports CuTe-DSL."""
    emulation.require_compiler()
    import launch_kernels

    return launch_kernels


@pytest.fixture(scope="session")
def chain(kernels: ModuleType) -> CompiledHost:
    """``chain(x, y, term, stream)`` for 300 float32: three launches."""
    import cuda.bindings.driver as cuda
    from cutlass import Float32

    x, y = np.zeros(300, np.float32), np.zeros(300, np.float32)
    return emulation.compile_function(
        kernels.chain, x, y, Float32(0), cuda.CUstream(0), target="sm_90a"
    )


@pytest.fixture(scope="session")
def numbers(kernels: ModuleType) -> Callable[..., CompiledHost]:
    """``numbers("persistent", 1, device)``: the function of that name, for that many integers."""

    @cache
    def compiled(name: str, count: int, device: Device | None = None) -> CompiledHost:
        from cutlass import Int32

        arguments: list[Any] = [Int32(1)] * count
        function = getattr(kernels, name)
        return emulation.compile_function(function, *arguments, target="sm_90a", device=device)

    return compiled
