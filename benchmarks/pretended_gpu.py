"""Run one CuTe-DSL script on a machine without a GPU, with every launch emulated.

    python benchmarks/pretended_gpu.py TARGET RESULT.json POLICY[,POLICY...] SCRIPT [ARGUMENT ...]

The script thinks that there is a GPU: torch answers so, and its "cuda" tensors are in CPU memory.
What it compiles is compiled for TARGET; what it launches runs on the emulator, on those tensors,
under each policy from the same start; then the script goes on with its own comparison, which is not
touched. Left out are its timings: ``cutlass.testing.benchmark`` calls a function once, and only if
nothing has run yet. What a CUDA graph captures runs then, and its replay does nothing.

For :mod:`emulate_examples`, which runs it as a child process: what it changes, it changes for good.
"""

from __future__ import annotations

import copyreg
import ctypes
import json
import os
import runpy
import sys
import traceback
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pretended_memory import CUDA, Memory, dlpack_as_gpu, on_cpu
from torch.overrides import TorchFunctionMode

from fa4gen.compile.emulation import device_of, host_of, packed_arguments, tracing
from fa4gen.core.errors import KernelFault
from fa4gen.emulator import Options, Report, run
from fa4gen.ptx.host import CompiledHost, Device, PackedArguments

_GPU_MEMORY = 80 << 30
_KEPT_FINDINGS = 50


@dataclass
class Call:
    """One call of a compiled function: its launches under each policy."""

    kernels: list[str]
    grid: list[tuple[int, int, int]]
    executed: int
    """Warp instructions, of all policies."""
    seconds: float
    findings: list[str]


@dataclass
class Outcome:
    """What came of a script."""

    end: str = ""
    """Empty if it ran to its end, else the last line of what ended it."""
    kind: str = "passed"
    """Class of the exception that ended it, or ``passed``."""
    trace: str = ""
    compared: int = 0
    """Calls of ``torch.testing.assert_close``, ``torch.allclose`` and ``torch.equal``."""
    benchmarks_skipped: int = 0
    calls: list[Call] = field(default_factory=list)
    seconds: float = 0.0
    """With compiling."""


class Gpu:
    """The GPU that is not there.

    Args:
        target: What everything is compiled for.
        policies: Of each emulation.
    """

    def __init__(self, target: str, policies: tuple[str, ...]) -> None:
        self.target, self.policies = target, policies
        self.device: Device = device_of(target)
        self.outcome = Outcome()
        self._hosts: weakref.WeakKeyDictionary[Any, CompiledHost] = weakref.WeakKeyDictionary()
        self.memory = Memory()

    def call(self, compiled: Any, *arguments: Any) -> None:
        """Emulate what ``compiled`` launches.

        Raises:
            KernelFault: a kernel was stopped, by a fault or a deadlock.
        """
        start = perf_counter()
        report = run(self._host(compiled), *arguments, policies=self.policies, options=Options())
        launches = report.runs[0].launches
        self.outcome.calls.append(
            Call(
                kernels=[launch.program.entry.name for launch in launches],
                grid=[launch.shape.grid for launch in launches],
                executed=report.executed,
                seconds=perf_counter() - start,
                findings=[str(found) for found in report.findings[:_KEPT_FINDINGS]],
            )
        )
        _stop_if_incomplete(report)

    def _host(self, compiled: Any) -> CompiledHost:
        host = self._hosts.get(compiled)
        if host is None:
            host = self._hosts[compiled] = host_of(compiled, self.target, self.device)
        return host


class _Kept:
    """Keeps values alive without showing them."""

    def __init__(self, *values: Any) -> None:
        self._values = values


def _stop_if_incomplete(report: Report) -> None:
    for policy_run in report.runs:
        if not policy_run.completed:
            found = [each for launch in policy_run.launches for each in launch.findings]
            raise KernelFault(f"under {policy_run.policy}: {found[-1] if found else 'stopped'}")


class _CudaMeansCpu(TorchFunctionMode):
    """Every torch function gets the CPU where it is told to use the GPU."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = {name: _cpu(value) for name, value in (kwargs or {}).items()}
        name = getattr(func, "__name__", "")
        if name in {"cuda", "pin_memory"}:
            made = args[0].clone()
        elif name in {"to", "cpu"}:
            made = func(*map(_cpu, args), **kwargs)
            if made is args[0]:  # on a GPU it would be a copy
                made = made.clone()
        else:
            if name in {"allclose", "equal"}:
                self._gpu.outcome.compared += 1
            made = func(*args, **kwargs)
        return self._gpu.memory.adopt(made)


def _cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


class _Idle:
    """A stream, an event or a graph: all is over at once."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> _Idle:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def elapsed_time(self, _: _Idle) -> float:
        """Milliseconds; nothing is timed."""
        return 1.0

    def _nothing(self, *_: Any, **__: Any) -> None:
        pass

    synchronize = record = wait_stream = wait_event = replay = _nothing


def pretend_torch(gpu: Gpu) -> None:
    """Let torch say that there is a GPU, and keep its tensors in CPU memory."""
    capability = gpu.device.compute_capability
    facts = types.SimpleNamespace(
        major=capability[0],
        minor=capability[1],
        multi_processor_count=gpu.device.sm_count,
        shared_memory_per_block_optin=gpu.device.smem_optin_bytes,
        name=f"emulated {gpu.target}",
        total_memory=_GPU_MEMORY,
    )
    constants: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": capability,
        "get_device_name": facts.name,
        "get_device_properties": facts,
        "current_stream": _Idle(),
        "default_stream": _Idle(),
        "stream": _Idle(),
    }
    for name in ("init", "synchronize", "set_device", "empty_cache", "manual_seed_all"):
        constants[name] = None
    for name, value in constants.items():
        setattr(torch.cuda, name, _answering(value))
    for name in ("Stream", "Event", "CUDAGraph", "graph"):
        setattr(torch.cuda, name, _Idle)
    for name, replaced in (
        ("is_cuda", property(lambda self: True)),
        ("__dlpack__", dlpack_as_gpu),
        ("__dlpack_device__", lambda self: (CUDA, 0)),
    ):
        setattr(torch.Tensor, name, replaced)
    original = torch.testing.assert_close

    def assert_close(*args: Any, **kwargs: Any) -> None:
        gpu.outcome.compared += 1
        original(*args, **kwargs)

    _replace(torch.testing, assert_close=assert_close)
    ExitStack().enter_context(_CudaMeansCpu(gpu))  # never left


def pretend_driver() -> None:
    """Let the Python bindings of CUDA succeed at everything and do nothing."""
    driver, runtime = map(import_module, ("cuda.bindings.driver", "cuda.bindings.runtime"))
    helpers = import_module("cutlass.base_dsl.runtime.cuda")
    _replace(helpers, initialize_cuda_context=_answering(None))
    for module, prefix, success in (
        (driver, "cu", driver.CUresult.CUDA_SUCCESS),
        (runtime, "cuda", runtime.cudaError_t.cudaSuccess),
    ):
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith(prefix) and callable(value) and not isinstance(value, type):
                setattr(module, name, _answering((success, 1)))
    stream = _answering((driver.CUresult.CUDA_SUCCESS, driver.CUstream(0)))
    _replace(driver, cuStreamCreate=stream)
    # An export keeps the defaults of a signature, which may be a stream.
    copyreg.pickle(driver.CUstream, lambda value: (driver.CUstream, (int(value),)))


def pretend_launches(gpu: Gpu) -> None:
    """Let the functions that CuTe-DSL compiles run on the emulator."""
    from cutlass import testing
    from cutlass.cute import testing as cute_testing
    from cutlass.cutlass_dsl import cuda_jit_executor, tvm_ffi_provider

    def call_packed(self: Any, *args: Any, **kwargs: Any) -> None:
        packed = packed_arguments(self, *args, **kwargs)
        gpu.call(self, PackedArguments(packed.pointers, (_Kept(packed), gpu.memory.in_use())))

    def run_packed(self: Any, values: list[Any]) -> None:
        pointers = (v.value if isinstance(v, ctypes.c_void_p) else v for v in values)
        owners = (_Kept(values), gpu.memory.in_use())
        gpu.call(self, PackedArguments(tuple(p or 0 for p in pointers), owners))

    plain = cuda_jit_executor.CudaDialectJitCompiledFunction
    _replace(plain, __call__=call_packed, run_compiled_program=run_packed)

    def call_ffi(self: Any, *args: Any) -> None:
        if self.execution_args.has_pointer_address_arg_specs:
            args, _ = self.execution_args.convert_python_pointer_args_for_tvm_ffi(args, {})
        gpu.call(self, *map(on_cpu, args))

    def positional(self: Any) -> Callable[..., None]:
        reference = weakref.ref(self)
        return lambda *args: gpu.call(reference(), *map(on_cpu, args))

    unnamed = tvm_ffi_provider.TVMFFIJitCompiledFunction
    _replace(unnamed, __call__=call_ffi, _create_tvm_ffi_function=_answering(None))
    with_names = tvm_ffi_provider.TVMFFIJitCompiledFunctionWithKwargs
    _replace(with_names, _create_tvm_ffi_function=positional)

    def benchmark(function: Callable[..., Any], *_: Any, **options: Any) -> float:
        gpu.outcome.benchmarks_skipped += 1
        arguments = options.get("kernel_arguments")
        if not gpu.outcome.calls and arguments is not None:
            function(*arguments.args, **arguments.kwargs)
        return 1.0

    for module in (testing, cute_testing):
        _replace(module, benchmark=benchmark)


def _replace(owner: Any, **members: Any) -> None:
    """Give a module or a class other members."""
    for name, member in members.items():
        setattr(owner, name, member)


def _answering(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def run_script(gpu: Gpu, script: Path, arguments: list[str]) -> None:
    """Run ``script`` as a program; how it ends is in ``gpu.outcome``."""
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    start = perf_counter()
    try:
        with tracing(gpu.target, gpu.device):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as error:
        if error.code:
            gpu.outcome.kind, gpu.outcome.end = "SystemExit", f"exit status {error.code}"
    except BaseException as error:
        _describe(gpu.outcome, error)
    gpu.outcome.seconds = perf_counter() - start


def _describe(outcome: Outcome, error: BaseException) -> None:
    chain = list(_causes(error))
    known = [one for one in chain if type(one).__module__.startswith("fa4gen.")]
    told = known[0] if known else error
    outcome.kind, outcome.end = type(told).__name__, str(told).strip()
    outcome.trace = "".join(traceback.format_exception(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def main() -> None:
    """Run what the command line says and leave the outcome in a file."""
    target, result, policies, script, *arguments = sys.argv[1:]
    gpu = Gpu(target, tuple(policies.split(",")))
    pretend_driver()
    pretend_launches(gpu)
    pretend_torch(gpu)
    run_script(gpu, Path(script).resolve(), arguments)
    Path(result).write_text(json.dumps(asdict(gpu.outcome), indent=1), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # the DSL's own clean-up wants a GPU


if __name__ == "__main__":
    main()
