"""Counters from which the CTAs of a launch take their tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

BLOCK = 8192
"""Counters that are allocated, and set to zero, at a time: 32 KiB."""
SHORT = BLOCK // 2
"""Fewer left than this, and the next launch that no graph captures sees to more."""


class Gpu(Protocol):
    """What the counters ask of torch; a device is given by its index."""

    def stream(self, device: int) -> int:
        """The handle of the device's current stream."""
        ...

    def capturing(self, device: int) -> bool:
        """Whether a CUDA graph is being captured on that stream."""
        ...

    def zero(self, device: int) -> Any:
        """``(1,)`` int32, set to zero in the order of that stream."""
        ...

    def zeros(self, device: int, count: int) -> Any:
        """``(count,)`` int32, zero by now for every stream, and of no graph's memory."""
        ...


class TileCounters:
    """int32 counters on GPUs, one for each launch that others may overlap.

    A kernel leaves its counter as it found it, at zero, so launches that follow each other on a
    stream share one. A launch that a CUDA graph captures keeps its own for good, since the graph
    may run beside anything: four bytes for each such launch. Streams are told apart by their
    handles, so two threads must not both launch on what CUDA calls the per-thread default stream.

    Safe to use from several threads.

    Args:
        gpu: where counters live; by default what torch runs on, looked for at the first launch.
    """

    def __init__(self, gpu: Gpu | None = None) -> None:
        self._gpu = gpu
        self._of_stream: dict[tuple[int, int], Any] = {}
        # All there ever were: a graph keeps the address of its counters, but not their memory.
        self._blocks: list[Any] = []
        self._spare: dict[int, Iterator[Any]] = {}
        self._left: dict[int, int] = {}
        self._short = False
        self._lock = threading.Lock()

    def for_launch(self, like: Any) -> Any:
        """A zero, ``(1,)`` int32, for a launch on the current stream of the device of ``like``."""
        gpu = self._gpu or self._connect()
        device = like.get_device()
        if gpu.capturing(device):
            return self._of_graph(gpu, device)
        stream = gpu.stream(device)
        counter = self._of_stream.get((device, stream))
        if counter is None or self._short:
            counter = self._prepare(gpu, device, stream)
        return counter

    def _connect(self) -> Gpu:
        self._gpu = gpu = TorchGpu()
        return gpu

    def _of_graph(self, gpu: Gpu, device: int) -> Any:
        with self._lock:
            if self._left.get(device, 0):
                counter = self._take(device)
                self._short = self._short or self._left[device] < SHORT
                return counter
        # What is allocated now is the graph's, which sets it to zero again at every replay: right,
        # but one more node beside every kernel.
        return gpu.zero(device)

    def _prepare(self, gpu: Gpu, device: int, stream: int) -> Any:
        """The counter of a stream, and enough others for graphs to come."""
        with self._lock:
            for each in {device, *(self._left if self._short else ())}:
                if self._left.get(each, 0) < SHORT:
                    block = gpu.zeros(each, BLOCK)
                    self._blocks.append(block)
                    # Cut when taken, for a tensor of four bytes takes hundreds in Python.
                    self._spare[each] = (block[i : i + 1] for i in range(BLOCK))
                    self._left[each] = BLOCK
            self._short = False
            if (device, stream) not in self._of_stream:
                self._of_stream[device, stream] = self._take(device)
            return self._of_stream[device, stream]

    def _take(self, device: int) -> Any:
        self._left[device] -= 1
        return next(self._spare[device])


class TorchGpu:
    """The GPUs that torch sees."""

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        # What Triton asks, too: a twentieth of the time of making a torch.cuda.Stream.
        raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
        self.stream: Callable[[int], int] = raw or self._public_stream
        """As :meth:`Gpu.stream`."""

    def capturing(self, device: int) -> bool:
        """As :meth:`Gpu.capturing`; torch answers for the current device only."""
        cuda = self._torch.cuda
        if cuda.current_device() == device:
            return bool(cuda.is_current_stream_capturing())
        with cuda.device(device):
            return bool(cuda.is_current_stream_capturing())

    def zero(self, device: int) -> Any:
        """As :meth:`Gpu.zero`."""
        torch = self._torch
        return torch.zeros(1, dtype=torch.int32, device=f"cuda:{device}")

    def zeros(self, device: int, count: int) -> Any:
        """As :meth:`Gpu.zeros`.

        In a thread of its own: while torch.compile warms a graph up, all that its thread allocates
        goes to the graph's pool, whose memory is used again whoever still holds it.
        """
        torch = self._torch

        def make() -> Any:
            block = torch.zeros(count, dtype=torch.int32, device=f"cuda:{device}")
            torch.cuda.current_stream(device).synchronize()  # other streams use them, too
            return block

        with ThreadPoolExecutor(1) as alone:
            return alone.submit(make).result()

    def _public_stream(self, device: int) -> int:
        return int(self._torch.cuda.current_stream(device).cuda_stream)
