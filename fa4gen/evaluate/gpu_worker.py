"""The process that owns one GPU: ``python -m fa4gen.evaluate.gpu_worker``.

Reads requests from standard input, writes progress and replies to standard output (everything
else that prints goes to standard error), and is expected to die: a kernel that hangs is ended by
the parent's SIGKILL, one that spoils the CUDA context ends the process after its reply. See
:mod:`fa4gen.evaluate.protocol` for the messages and :mod:`fa4gen.evaluate.supervisor` for the
other side.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import queue
import re
import resource
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fa4gen.core.errors import MissingDependency
from fa4gen.core.evaluation import L2State, ResourceUse
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution, check_cases, own_case
from fa4gen.evaluate.gpu_bench import Bench, Launch, interleave
from fa4gen.evaluate.gpu_check import (
    CaseResult,
    Inputs,
    Kernel,
    Output,
    make_inputs,
    run_case,
    softmax_scale,
)
from fa4gen.evaluate.gpu_device import CpuDevice, CudaDevice, Device
from fa4gen.evaluate.nvml import GpuSample
from fa4gen.evaluate.protocol import (
    CheckReply,
    CheckRequest,
    Failure,
    FailureKind,
    KernelRef,
    Message,
    Progress,
    Ready,
    Reply,
    Shutdown,
    Stage,
    TimeReply,
    TimeRequest,
    decode,
    encode,
)
from fa4gen.evaluate.timing import buffers_past_l2
from fa4gen.evaluate.warmth import next_in

if TYPE_CHECKING:
    from torch import Tensor

Loader = Callable[[KernelRef], Kernel]
"""Turns a reference into a callable; the seam by which tests hand over kernels of their own."""

_KERNELS_KEPT = 64
_PR_SET_PDEATHSIG = 1
_DEVICE_ERROR = re.compile(
    r"cuda.?error|cudaerror|illegal memory access|misaligned address|unspecified launch failure"
    r"|illegal instruction|device-side assert",
    re.IGNORECASE,
)


class LaunchError(Exception):
    """A kernel could not be loaded or launched, or the device complained after it."""

    def __init__(self, artifact_id: str, message: str) -> None:
        self.artifact_id = artifact_id
        super().__init__(message)


class WrongResultError(Exception):
    """A kernel ran and its result is wrong."""

    def __init__(self, artifact_id: str, result: CaseResult) -> None:
        self.artifact_id = artifact_id
        message = result.message
        if result.allowed:
            message += f": error {result.error:.3g}, allowed {result.allowed:.3g}"
        super().__init__(message)


class Worker:
    """Answers requests on one device.

    Args:
        say: sends a message to the parent.
    """

    def __init__(self, device: Device, loader: Loader, say: Callable[[Message], None]) -> None:
        self._device, self._loader, self.say = device, loader, say
        self._kernels: OrderedDict[str, Kernel] = OrderedDict()

    def progress(self, stage: Stage, label: str = "") -> None:
        """Tell the parent what begins."""
        self.say(Progress(stage, label))

    def read(self) -> GpuSample:
        """The card's state now."""
        return self._device.read()

    def answer(self, request: Message) -> Reply:
        """The reply to one request; every exception becomes a :class:`Failure`."""
        try:
            if isinstance(request, CheckRequest):
                return self._check(request)
            if isinstance(request, TimeRequest):
                return self._time(request)
            name = type(request).__name__
            return Failure(FailureKind.EVALUATOR, f"got {name}, allowed: a request", False)
        except WrongResultError as error:
            return self._failure(FailureKind.WRONG, error, error.artifact_id)
        except LaunchError as error:
            return self._failure(FailureKind.LAUNCH, error, error.artifact_id)
        except Exception as error:
            on_device = _DEVICE_ERROR.search(str(error)) and "out of memory" not in str(error)
            kind = FailureKind.LAUNCH if on_device else FailureKind.EVALUATOR
            return self._failure(kind, error, "")

    def _failure(self, kind: FailureKind, error: Exception, artifact_id: str) -> Failure:
        text = " ".join(str(error).split())[:600]
        if not isinstance(error, (WrongResultError, LaunchError)):
            text = f"{type(error).__name__}: {text}"
        return Failure(kind, text, not self._device.healthy(), artifact_id)

    def _kernel(self, ref: KernelRef) -> Kernel:
        """The loaded kernel; the least recently used one is dropped when there are many."""
        if ref.artifact_id in self._kernels:
            self._kernels.move_to_end(ref.artifact_id)
            return self._kernels[ref.artifact_id]
        self.progress(Stage.LOAD, ref.artifact_id)
        try:
            kernel = self._loader(ref)
        except MissingDependency:
            raise
        except Exception as error:
            raise LaunchError(ref.artifact_id, f"load: {_one_line(error)}") from error
        self._kernels[ref.artifact_id] = kernel
        if len(self._kernels) > _KERNELS_KEPT:
            self._kernels.popitem(last=False)
        return kernel

    def _launch(self, ref: KernelRef, label: str, thunk: Callable[[], object]) -> None:
        """One launch, waited for."""
        self.progress(Stage.LAUNCH, label)
        try:
            self._device.launch(thunk)
        except Exception as error:
            raise LaunchError(ref.artifact_id, f"{label}: {_one_line(error)}") from error

    def _check(self, request: CheckRequest) -> CheckReply:
        ref = request.kernel
        kernel = self._kernel(ref)
        results: list[CaseResult] = []
        cases = check_cases(request.problem, ref.config, request.seed)
        if request.own_shape_only:
            cases = (own_case(request.problem, request.seed),)
        for number, case in enumerate(cases):
            self.progress(Stage.CHECK, case.kind)
            inputs = make_inputs(
                case.problem,
                case.distribution,
                request.seed + number,
                self._device.name,
                ref.config.tile_n,
            )

            def launch(thunk: Callable[[], object], kind: str = case.kind) -> None:
                self._launch(ref, kind, thunk)
                self.progress(Stage.CHECK, kind)

            result = run_case(kernel, case, inputs=inputs, launch=launch, exp2_error=ref.exp2_error)
            if result.message:
                raise WrongResultError(ref.artifact_id, result)
            results.append(result)
        worst = max(results, key=lambda r: r.error / r.allowed if r.allowed else r.error)
        kinds = tuple(result.kind for result in results)
        errors = tuple(result.errors for result in results if result.errors is not None)
        return CheckReply(kinds, worst.error, worst.allowed, worst.kind, errors)

    def _time(self, request: TimeRequest) -> TimeReply:
        problem = request.problem
        kernels = [self._kernel(ref) for ref in request.kernels]
        cold = request.policy.l2 is L2State.COLD
        size = input_bytes(problem)
        buffers = buffers_past_l2(size, self._device.identity.l2_bytes) if cold else 1
        self.progress(Stage.WARMUP, f"{buffers} input sets")
        sets = [
            (
                make_inputs(problem, Distribution.NORMAL, request.seed + i, self._device.name),
                Output(problem, self._device.name),
            )
            for i in range(buffers)
        ]
        scale = softmax_scale(problem)
        before = [
            self._bits(ref, kernel, sets[0], scale)
            for ref, kernel in zip(request.kernels, kernels, strict=True)
        ]
        launches = [
            _rotating(ref, kernel, sets, scale)
            for ref, kernel in zip(request.kernels, kernels, strict=True)
        ]
        bench = Bench(self._device.clock(request.policy), request.policy, self, self._device.heat)
        samples = interleave(launches, request.plan, bench, buffers=buffers)
        for ref, kernel, bits in zip(request.kernels, kernels, before, strict=True):
            if not _same_bits(bits, self._bits(ref, kernel, sets[0], scale)):
                message = "problem: the result changed while the kernel was timed, a race"
                raise WrongResultError(ref.artifact_id, CaseResult("problem", 0, 0, message))
        return TimeReply(
            samples.times_us,
            samples.launches,
            buffers,
            samples.stopped_early,
            samples.conditions,
        )

    def _bits(
        self, ref: KernelRef, kernel: Kernel, one: tuple[Inputs, Output], scale: float
    ) -> tuple[object, object]:
        """What the kernel writes for one input set."""
        inputs, output = one
        output.poison()
        label = f"timing {ref.artifact_id}"
        self._launch(ref, label, lambda: inputs.launch(kernel, output, scale))
        return output.bits()


def input_bytes(problem: AttentionProblem) -> int:
    """Bytes of Q, K, V and O."""
    rows = problem.seqlen_q * problem.num_heads_q
    kv = problem.seqlen_k * problem.num_heads_kv * (problem.head_dim + problem.head_dim_v)
    read = (rows * problem.head_dim + kv) * problem.dtype.itemsize
    return problem.batch * (read + rows * problem.head_dim_v * problem.dtype.out.itemsize)


def _rotating(
    ref: KernelRef, kernel: Kernel, sets: Sequence[tuple[Inputs, Output]], scale: float
) -> Launch:
    """``launch(i)`` on input set ``i % len(sets)``."""

    def launch(index: int) -> None:
        inputs, output = sets[index % len(sets)]
        try:
            inputs.launch(kernel, output, scale)
        except Exception as error:
            raise LaunchError(ref.artifact_id, f"timing: {_one_line(error)}") from error

    return launch


def _same_bits(mine: tuple[object, object], theirs: tuple[object, object]) -> bool:
    import torch

    return all(
        isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
        for a, b in zip(mine, theirs, strict=True)
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def artifact_loader(num_sms: int) -> Loader:
    """The usual loader: the compiled object of an artifact, told how many SMs it has."""
    from fa4gen.compile import Artifact, launchable, load

    def load_kernel(ref: KernelRef) -> Kernel:
        path = Path(ref.object_path)
        unknown = ResourceUse(0, 0, 0, 0)
        function = load(Artifact(ref.artifact_id, path, path, unknown, 0.0))
        function = launchable(function, ref.config, ref.dtype)

        def kernel(*arguments: Tensor | float) -> None:
            function(*arguments, num_sms)

        return kernel

    return load_kernel


def import_early() -> None:
    """CuTe-DSL's runtime, which takes seconds."""
    from fa4gen.compile import import_runtime

    import_runtime()


def serve(
    worker: Worker,
    requests: Iterable[bytes],
    *,
    begin: Callable[[], None] | None = None,
    keep_warm: Callable[[], None] | None = None,
) -> None:
    """Answer until the parent says goodbye, or a reply was fatal.

    A thread reads, so that the end of the input ends the process even while a request is being
    worked on. ``keep_warm`` is called again and again for :data:`KEEP_WARM_S` while none comes, and
    while that thread runs ``begin``; whatever is wrong there shows again at the first request.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        if begin is not None:
            with suppress(Exception):
                begin()
        for line in requests:
            lines.put(line)
        _leave()

    threading.Thread(target=read, daemon=True).start()
    while True:
        request = decode(next_in(lines, keep_warm))
        if isinstance(request, Shutdown):
            return
        reply = worker.answer(request)
        worker.say(reply)
        if isinstance(reply, Failure) and reply.fatal:
            return


def _leave() -> None:
    """End at once, children included: the parent is gone."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when ``parent`` dies, whatever it is doing then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _named(text: str) -> Loader:
    """The loader ``module:function``."""
    module, _, function = text.partition(":")
    loader: Loader = getattr(importlib.import_module(module), function)
    return loader


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="fa4gen.evaluate.gpu_worker", description=__doc__)
    parser.add_argument("--device", default="0", help="index of the CUDA device, or cpu")
    parser.add_argument("--loader", default="", help="module:function that loads a kernel")
    parser.add_argument("--keep-warm", action="store_true", help="keep a waiting card under load")
    parser.add_argument("--parent", type=int, default=0, help="process id to die with")
    options = parser.parse_args(arguments)
    if options.parent:
        _die_with(options.parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is routine, a core file is not
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries may print; the channel is ours alone

    def say(message: Message) -> None:
        channel.write(encode(message))
        channel.flush()

    try:
        cpu = options.device == "cpu"
        device: Device = CpuDevice() if cpu else CudaDevice(int(options.device))
        loader = _named(options.loader) if options.loader else None
    except Exception as error:
        say(Failure(FailureKind.EVALUATOR, _one_line(error), True))
        return 1
    say(Ready(device.identity))
    begin = None if loader else import_early
    worker = Worker(device, loader or artifact_loader(device.identity.sm_count), say)
    keep_warm = device.keep_warm if options.keep_warm else None
    serve(worker, sys.stdin.buffer, begin=begin, keep_warm=keep_warm)
    channel.flush()
    os._exit(0)  # a spoilt CUDA context can hang in its own tear-down


if __name__ == "__main__":
    sys.exit(main())
