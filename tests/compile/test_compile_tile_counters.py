"""Which counter a launch takes its tiles from, on a GPU that is not there."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from fa4gen.compile import tile_counters
from fa4gen.compile.tile_counters import BLOCK, SHORT, TileCounters, TorchGpu


class Memory:
    """A block of counters; its pieces say where they lie and do not keep it."""

    def __init__(self, device: int, count: int) -> None:
        self.device, self.count = device, count

    def __getitem__(self, at: slice) -> tuple[int, int, int]:
        """Where the piece lies."""
        assert at.stop - at.start == 1
        assert at.stop <= self.count
        return self.device, id(self), at.start


class FakeGpu:
    """Streams and captures as they are set."""

    def __init__(self) -> None:
        self.current = 7
        self.captured: set[int] = set()
        self.blocks: list[weakref.ref[Memory]] = []
        self.zeros_of_graphs = 0

    def stream(self, device: int) -> int:
        return self.current

    def capturing(self, device: int) -> bool:
        return device in self.captured

    def zero(self, device: int) -> Any:
        assert device in self.captured
        self.zeros_of_graphs += 1
        return "of the graph", self.zeros_of_graphs

    def zeros(self, device: int, count: int) -> Any:
        assert device not in self.captured, "what a capture allocates is the graph's"
        made = Memory(device, count)
        self.blocks.append(weakref.ref(made))
        return made


class On:
    """A tensor of a device."""

    def __init__(self, device: int) -> None:
        self.get_device = lambda: device


HERE, THERE = On(0), On(1)


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def counters(gpu: FakeGpu) -> TileCounters:
    return TileCounters(gpu)


def test_launches_on_a_stream_share_a_counter_and_no_others_do(
    gpu: FakeGpu, counters: TileCounters
) -> None:
    first = counters.for_launch(HERE)
    assert counters.for_launch(HERE) == first
    gpu.current = 8
    other = counters.for_launch(HERE)
    assert counters.for_launch(THERE) not in (first, other), "handles are the same on all devices"
    gpu.current = 7
    assert counters.for_launch(HERE) == first != other
    assert len(gpu.blocks) == 2, "one for each device"


def test_a_captured_launch_keeps_its_counter(gpu: FakeGpu, counters: TileCounters) -> None:
    eager = counters.for_launch(HERE)
    gpu.captured.add(0)
    captured = [counters.for_launch(HERE) for _ in range(3)]
    assert len({eager, *captured}) == 4
    gpu.captured.clear()
    assert counters.for_launch(HERE) == eager
    gpu.captured.add(0)
    assert counters.for_launch(HERE) not in (eager, *captured)
    assert len(gpu.blocks) == 1


def test_a_first_launch_under_capture_has_a_zero_of_the_graph(
    gpu: FakeGpu, counters: TileCounters
) -> None:
    gpu.captured.add(0)
    assert [counters.for_launch(HERE) for _ in range(2)] == [
        ("of the graph", 1),
        ("of the graph", 2),
    ]
    gpu.captured.clear()
    counters.for_launch(HERE)
    gpu.captured.add(0)
    assert counters.for_launch(HERE)[0] == 0, "a block was laid in meanwhile"


def test_counters_never_run_out_between_captures(gpu: FakeGpu, counters: TileCounters) -> None:
    """As when a tuner captures one graph after the other, with an eager launch before each."""
    given = []
    for _ in range(5):
        gpu.captured.clear()
        eager = counters.for_launch(HERE)
        gpu.captured.add(0)
        given += [counters.for_launch(HERE) for _ in range(SHORT)]
    assert gpu.zeros_of_graphs == 0
    assert len({eager, *given}) == len(given) + 1
    assert len(gpu.blocks) <= 5 * SHORT // BLOCK + 1


def test_one_long_capture_ends_with_zeros_of_its_own(gpu: FakeGpu, counters: TileCounters) -> None:
    counters.for_launch(HERE)
    gpu.captured.add(0)
    given = [counters.for_launch(HERE) for _ in range(BLOCK + 1)]
    assert len(set(given)) == len(given)
    assert gpu.zeros_of_graphs == 2  # one of the block is the stream's


def test_memory_of_counters_is_kept_for_the_graphs(gpu: FakeGpu, counters: TileCounters) -> None:
    """A graph holds an address, no tensor."""
    counters.for_launch(HERE)
    for _ in range(4):
        gpu.captured.add(0)
        for _ in range(BLOCK):
            counters.for_launch(HERE)
        gpu.captured.clear()
        counters.for_launch(HERE)
    gc.collect()
    assert len(gpu.blocks) == 5
    assert all(block() is not None for block in gpu.blocks)


def test_threads_get_counters_of_their_own(gpu: FakeGpu, counters: TileCounters) -> None:
    mine = threading.local()
    gpu.stream = lambda device: mine.stream  # type: ignore[method-assign]
    gpu.capturing = lambda device: mine.stream % 2 == 1  # type: ignore[method-assign]
    gpu.zero = lambda device: object()  # type: ignore[method-assign]
    gpu.captured = set()
    start = threading.Barrier(8)

    def launches(stream: int) -> list[Any]:
        mine.stream = stream
        start.wait(10)
        return [counters.for_launch(HERE) for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(launches, range(8)))
    eager = {counter for each in found[::2] for counter in each}
    assert len(eager) == 4
    captured = [counter for each in found[1::2] for counter in each]
    assert len({*eager, *captured}) == 4 + 400


class Torch:
    """As much of ``torch.cuda`` as the counters ask: two devices, of which one is current."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        self.current, self.capturing_on, self.made = 0, -1, list[tuple[Any, ...]]()
        cpu_zeros = torch.zeros

        def zeros(count: int, *, dtype: Any, device: str) -> Any:
            self.made.append((count, device, threading.get_ident()))
            return cpu_zeros(count, dtype=dtype)

        monkeypatch.setattr(torch, "zeros", zeros)
        monkeypatch.delattr(torch._C, "_cuda_getCurrentRawStream", raising=False)
        for name in ("current_device", "device", "current_stream", "is_current_stream_capturing"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        self.waited: list[int] = []

    def current_device(self) -> int:
        return self.current

    @contextmanager
    def device(self, index: int) -> Iterator[None]:
        before, self.current = self.current, index
        yield
        self.current = before

    def current_stream(self, index: int) -> Any:
        class Stream:
            cuda_stream = 100 + index
            synchronize = staticmethod(lambda: self.waited.append(index))

        return Stream()

    def is_current_stream_capturing(self) -> bool:
        return self.current == self.capturing_on


def test_torch_is_asked_about_the_device_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """``is_current_stream_capturing`` speaks of the current device, which may be another."""
    torch, gpu = Torch(monkeypatch), TorchGpu()
    assert [gpu.stream(index) for index in (0, 1)] == [100, 101]
    torch.capturing_on = 1
    assert [gpu.capturing(index) for index in (0, 1)] == [False, True]
    torch.current = 1
    assert [gpu.capturing(index) for index in (0, 1)] == [False, True]
    assert torch.current == 1


def test_counters_of_torch_are_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    fake = Torch(monkeypatch)
    monkeypatch.setattr(tile_counters, "BLOCK", 2)
    monkeypatch.setattr(tile_counters, "SHORT", 1)
    counters = TileCounters()
    eager = counters.for_launch(THERE)
    assert fake.made == [(2, "cuda:1", fake.made[0][2])]
    assert fake.made[0][2] != threading.get_ident(), "away from the pool of a graph's warm-up"
    assert fake.waited == [1], "zero for every stream"
    fake.capturing_on = 1
    captured = [counters.for_launch(THERE) for _ in range(2)]
    assert fake.made[1:] == [(1, "cuda:1", threading.get_ident())]
    for counter in (eager, *captured):
        assert counter.shape == (1,)
        assert counter.dtype == torch.int32
        assert not counter.any()
    assert len({counter.data_ptr() for counter in (eager, *captured)}) == 3


def test_memory_that_is_refused_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    Torch(monkeypatch)

    def refuse(*given: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", refuse)
    counters = TileCounters()
    for _ in range(2):  # the lock is free again
        with pytest.raises(torch.OutOfMemoryError):
            counters.for_launch(HERE)
