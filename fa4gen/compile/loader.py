"""From an artifact on disk to a function that launches the kernel."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

from fa4gen.compile.artifact import FUNCTION_NAME, Artifact
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import CompileError, MissingDependency
from fa4gen.core.workspace import workspace_shapes

_ONE_AT_A_TIME = threading.Lock()


def launchable(
    function: Callable[..., Any], config: KernelConfig, dtype: DType = DType.BF16
) -> Callable[..., Any]:
    """A loaded forward kernel, called with ``(q, k, v, out, lse, softmax_scale, num_sms)``.

    In e4m3 ``q_descale, k_descale, v_descale`` come before the scale. Where the kernel takes
    workspace, every call allocates it beside ``lse`` (torch's allocator gives the same memory
    again, also while a CUDA graph is captured).
    """
    if dtype is DType.E4M3:
        return _launchable_e4m3(function, config)
    if workspace_shapes(config, (), 0) is None:
        return function

    def launch(q: Any, k: Any, v: Any, out: Any, lse: Any, *rest: Any) -> None:
        shapes = workspace_shapes(config, tuple(lse.shape), out.shape[-1])
        function(q, k, v, out, lse, *map(lse.new_empty, shapes or ()), *rest)

    return launch


def _launchable_e4m3(function: Callable[..., Any], config: KernelConfig) -> Callable[..., Any]:
    """As :func:`launchable`; hands Q, K and V over as bytes, which every version of DLPack knows.

    Source: DLPack 1.1 added the 8-bit floating-point types; torch exports them since 2.10 or so.
    """
    import torch

    raw = torch.uint8

    def launch(q: Any, k: Any, v: Any, out: Any, lse: Any, *rest: Any) -> None:
        shapes = workspace_shapes(config, tuple(lse.shape), out.shape[-1]) or ()
        descales, scalars = rest[:3], rest[3:]
        workspace = map(lse.new_empty, shapes)
        function(q.view(raw), k.view(raw), v.view(raw), out, lse, *descales, *workspace, *scalars)

    return launch


def load(artifact: Artifact) -> Callable[..., Any]:
    """The compiled host function of ``artifact``; it keeps its code alive by itself.

    Loading needs CuTe-DSL and TVM-FFI but no GPU: the driver is first asked at the first call.
    The function takes what the template's ``build`` declared, tensors by DLPack on a GPU.

    Raises:
        CompileError: the object cannot be read or linked.
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
