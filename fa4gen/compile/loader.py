"""From an artifact on disk to a function that launches the kernel."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

from fa4gen.compile.artifact import FUNCTION_NAME, Artifact
from fa4gen.core.errors import CompileError, MissingDependency

_ONE_AT_A_TIME = threading.Lock()


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
