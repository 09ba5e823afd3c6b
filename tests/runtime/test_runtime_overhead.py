"""What a warm call does in Python, counted rather than timed, so that the test cannot flicker."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from runtime_fakes import FakeSource, draw, small

PYTHON_CALLS = 4
"""The public function, the question whether Dynamo traces, the look-up, and the kernel."""

C_CALLS = 25
"""3 shapes' strides, 3 devices, 3 addresses, 2 allocations, 1 look-up, 5 questions to torch, ..."""


def calls_of(function: Any, *arguments: Any) -> tuple[list[str], list[str]]:
    """Names of the Python and the C functions that a call enters."""
    python: list[str] = []
    native: list[str] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            python.append(frame.f_code.co_name)
        elif event == "c_call":
            native.append(argument.__name__)

    sys.setprofile(profile)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return python, [name for name in native if name != "setprofile"]


def nothing(*_: Any) -> None:
    """A kernel that writes nothing."""


def test_a_warm_call_does_little(monkeypatch: pytest.MonkeyPatch) -> None:
    from fa4gen.runtime import api
    from fa4gen.runtime.engine import Engine
    from fa4gen.runtime.launcher import Kernel

    class Bare(FakeSource):
        def prepare(self, asked: Any) -> Any:
            selection, kernel = super().prepare(asked)
            return selection, Kernel(kernel.signature, kernel.config, nothing)

    engine = Engine(lambda _: Bare(), device_type="cpu")
    monkeypatch.setattr(api, "_run", engine.run)
    q, k, v = draw(small())
    api.flash_attn_func(q, k, v)
    python, native = calls_of(api.flash_attn_func, q, k, v)
    assert len(python) <= PYTHON_CALLS, python
    assert len(native) <= C_CALLS, native
    assert native.count("empty_like") == 2
    assert native.count("get") == 1
