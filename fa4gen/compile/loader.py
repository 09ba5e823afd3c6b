"""From an artifact on disk to a function that launches the kernel."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

from fa4gen.compile.artifact import FUNCTION_NAME, Artifact
from fa4gen.compile.tile_counters import TileCounters
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import CompileError, MissingDependency
from fa4gen.core.workspace import Workspace

TILE_COUNTERS = TileCounters()
"""Of this process: kernels that follow each other on a stream may share a counter."""
_ONE_AT_A_TIME = threading.Lock()


def launchable(
    function: Callable[..., Any], config: KernelConfig, dtype: DType = DType.BF16
) -> Callable[..., Any]:
    """A loaded forward kernel, called with ``(q, k, v, out, lse, softmax_scale, num_sms)``.

    In e4m3 ``q_descale, k_descale, v_descale`` come before the scale, and Q, K and V are handed
    over as bytes, which every version of DLPack knows (source: DLPack 1.1 added the 8-bit
    floating-point types; torch exports them since 2.10 or so). Where the kernel takes workspace,
    every call brings it: what splits leave is allocated beside ``lse`` (torch's allocator gives
    the same memory again, also while a CUDA graph is captured), and a counter of tiles comes from
    :class:`~fa4gen.compile.tile_counters.TileCounters`.
    """
    raw = _torch_bytes() if dtype is DType.E4M3 else None
    workspace = Workspace.of(config)
    if workspace == Workspace() and raw is None:
        return function
    if workspace.tile_counter and raw is None:

        def launch_dynamic(q: Any, k: Any, v: Any, out: Any, lse: Any, *scalars: Any) -> None:
            function(q, k, v, out, lse, TILE_COUNTERS.for_launch(lse), *scalars)

        return launch_dynamic

    def launch(q: Any, k: Any, v: Any, out: Any, lse: Any, *rest: Any) -> None:
        if raw is not None:
            q, k, v = q.view(raw), k.view(raw), v.view(raw)
        taken: list[Any] = []
        if workspace.num_splits > 1:
            shapes = workspace.split_shapes(tuple(lse.shape), out.shape[-1])
            taken += map(lse.new_empty, shapes)
        if workspace.tile_counter:
            taken.append(TILE_COUNTERS.for_launch(lse))
        function(q, k, v, out, lse, *rest[:-2], *taken, *rest[-2:])

    return launch


def _torch_bytes() -> Any:
    import torch

    return torch.uint8


def import_runtime() -> Any:
    """CuTe-DSL's module that loads kernels: seconds the first time.

    Raises:
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    try:
        runtime = importlib.import_module("cutlass.cute.runtime")
        importlib.import_module("tvm_ffi")
    except (ImportError, AttributeError) as error:  # a broken mix of versions gives the latter
        raise MissingDependency(
            f"CuTe-DSL: cannot be imported ({type(error).__name__}: {error}); "
            "pip install nvidia-cutlass-dsl apache-tvm-ffi"
        ) from error
    return runtime


def load(artifact: Artifact) -> Callable[..., Any]:
    """The compiled host function of ``artifact``; it keeps its code alive by itself.

    Loading needs CuTe-DSL and TVM-FFI but no GPU: the driver is first asked at the first call.
    The function takes what the template's ``build`` declared, tensors by DLPack on a GPU.

    Raises:
        CompileError: the object cannot be read or linked.
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    runtime = import_runtime()
    with _ONE_AT_A_TIME:
        try:
            module = runtime.load_module(str(artifact.object_path), enable_tvm_ffi=True)
            function: Callable[..., Any] = module[FUNCTION_NAME]
        except Exception as error:  # the DSL's own errors share no public base
            raise CompileError(
                f"artifact {artifact.artifact_id}: {artifact.object_path} cannot be loaded: "
                f"{type(error).__name__}: {error}; remove it to compile the kernel again"
            ) from error
    return function
