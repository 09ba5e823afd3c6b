"""From a kernel module or a CuTe-DSL function to what the emulator runs.

The emulator itself knows nothing of CuTe-DSL: it takes a :class:`CompiledHost`, the exported launch
code with its PTX. Here are the helpers that make one on a machine without a GPU, and the answers to
what kernels ask about the GPU while they are traced.
"""

from __future__ import annotations

import ctypes
import gzip
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fa4gen.compile.artifact import FUNCTION_NAME, Artifact, CompiledKernel
from fa4gen.compile.driver import ONE_AT_A_TIME, compile_source, require_compiler, target_arch
from fa4gen.core.errors import CompileError, UnknownName
from fa4gen.hardware import list_skus, load_arch, load_sku
from fa4gen.ptx.host import CompiledHost, Device, PackedArguments

_SKUS = {"sm90": "h200", "sm100": "b200", "sm103": "b300"}
"""The product that stands for an arch."""
_ENTRY = re.compile(r"^\s*(?:\.visible\s+)?\.entry\s+([\w$]+)", re.MULTILINE)
_KDL_CPU, _KDL_CUDA = 1, 2
_DEVICE_TYPE_OFFSET = 8
_ALIGNMENT = 16


def device_of(target: str, sm_count: int | None = None) -> Device:
    """The GPU that stands for a target: H200 for ``sm_90a``, B200 for ``sm_100a``.

    Args:
        target: e.g. ``sm_90a``.
        sm_count: SMs that a persistent kernel believes in; fewer make it take more tiles each.

    Raises:
        UnknownName: no known arch has that target.
    """
    archs = {load_arch(name).target: load_arch(name) for name in _SKUS}
    if target not in archs:
        raise UnknownName("target", target, archs)
    arch = archs[target]
    return Device(
        sm_count=load_sku(_SKUS[arch.name]).sm_count if sm_count is None else sm_count,
        smem_optin_bytes=arch.smem_per_cta_bytes,
        compute_capability=arch.compute_capability,
    )


def host_of_kernel(
    kernel: CompiledKernel, target: str, device: Device | None = None
) -> CompiledHost:
    """What the emulator runs of a compiled template."""
    return _host(kernel.object_bytes, gzip.decompress(kernel.ptx_gz).decode(), target, device)


def host_of_artifact(artifact: Artifact, target: str, device: Device | None = None) -> CompiledHost:
    """What the emulator runs of a compiled template on disk.

    Raises:
        OSError: one of its files cannot be read.
    """
    return _host(artifact.object_path.read_bytes(), artifact.ptx(), target, device)


def compile_file(path: Path, target: str, device: Device | None = None) -> CompiledHost:
    """Compile a rendered kernel, a file with a ``build()`` of its own.

    Raises:
        OSError: the file cannot be read.
        CompileError: the module fails, or CuTe-DSL or ptxas refuses the kernel.
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    made_for = device_of(target) if device is None else device
    require_compiler()
    with hardware_info(made_for):
        kernel = compile_source(path.read_text(encoding="utf-8"), path.stem, target)
    return host_of_kernel(kernel, target, made_for)


def compile_function(
    function: Any, *arguments: Any, target: str, device: Device | None = None, options: str = ""
) -> CompiledHost:
    """Compile a ``@cute.jit`` function for the arguments it is going to be called with.

    Args:
        function: the host function.
        arguments: CPU tensors of NumPy or torch, which become tensors of global memory with a
            static layout and 16-byte alignment; anything else goes to CuTe-DSL as it is.
        options: more options for ``cute.compile``.

    Raises:
        CompileError: CuTe-DSL or ptxas refuses the function.
        MissingDependency: CuTe-DSL or TVM-FFI cannot be imported.
    """
    made_for = device_of(target) if device is None else device
    require_compiler()
    from cutlass import cute

    given = [gpu_tensor(one) if _is_tensor(one) else one for one in arguments]
    options = f"--gpu-arch={target} --enable-tvm-ffi {options}"
    with tracing(target, made_for):
        try:
            compiled = cute.compile(function, *given, options=options)
        except Exception as error:  # the DSL's own errors share no public base
            name = getattr(function, "__name__", type(function).__name__)
            raise CompileError(f"function {name}: {type(error).__name__}: {error}") from error
    return host_of(compiled, target, made_for)


def host_of(compiled: Any, target: str, device: Device | None = None) -> CompiledHost:
    """What the emulator runs of a function that ``cute.compile`` returned, in either form.

    It has to have been compiled with ``--keep-ptx`` or inside :func:`tracing`. A function compiled
    without ``--enable-tvm-ffi`` is called with :func:`packed_arguments`.

    Raises:
        CompileError: its PTX was not kept, or it cannot be exported.
    """
    text = compiled.__ptx__
    if text is None:
        raise CompileError(
            f"function {compiled.function_name}: got no PTX, needed to emulate it; compile with "
            "the option --keep-ptx"
        )
    return _host(_exported(compiled), text.rstrip("\0"), target, device)


def packed_arguments(compiled: Any, *arguments: Any, **keywords: Any) -> PackedArguments:
    """The arguments of a function compiled without TVM-FFI, laid out by CuTe-DSL itself.

    Among their ``owners`` is every tensor in a form that the emulator can read. A bare pointer
    does not say how much memory is behind it: the emulator lets nothing be read there.
    """
    values, owners = compiled.execution_args.generate_execution_args(arguments, keywords)
    given = (*arguments, *keywords.values())
    pointers = tuple(
        value.value if isinstance(value, ctypes.c_void_p) else ctypes.c_void_p(value).value
        for value in values
    )
    return PackedArguments(
        tuple(pointer or 0 for pointer in pointers),
        (_readable(given), values, owners, given),
    )


def gpu_tensor(tensor: Any, alignment: int = _ALIGNMENT) -> Any:
    """A CPU tensor as the ``cute.Tensor`` that the same tensor on a GPU would be.

    The kernel then addresses it as global memory; from a plain CPU tensor CuTe-DSL makes generic
    addresses, another instruction.
    """
    from cutlass.cute.runtime import from_dlpack

    return from_dlpack(_OnGpu(tensor), assumed_align=alignment, enable_tvm_ffi=True)


def ptx_by_kernel(ptx: str) -> Mapping[str, str]:
    """A PTX module under the name of each of its kernels."""
    return dict.fromkeys(_ENTRY.findall(ptx), ptx)


@contextmanager
def tracing(target: str, device: Device) -> Iterator[None]:
    """Let every ``cute.compile`` in the block trace for ``target`` and keep its PTX.

    For code that compiles by itself; the functions it makes can be given to :func:`host_of`. Such
    blocks take turns with all other compiles of the process, so there is none inside another.
    """
    require_compiler()
    from cutlass.cutlass_dsl import CuTeDSL

    environment = CuTeDSL._get_dsl().envar
    with (
        ONE_AT_A_TIME,
        tempfile.TemporaryDirectory(prefix="fa4gen-trace-") as folder,
        target_arch(target),
        hardware_info(device),
        mock.patch.object(environment, "keep_ptx", True),
        mock.patch.object(environment, "dump_dir", folder),
    ):
        yield


@contextmanager
def hardware_info(device: Device) -> Iterator[None]:
    """Answer ``cutlass.utils.HardwareInfo`` without a driver.

    Persistent kernels ask it for SM and cluster counts while they are traced. Clusters that fit are
    taken as SMs divided by the cluster's size; a real GPU may have room for fewer, as the CTAs of
    a cluster share one of its processing clusters.
    """
    from cutlass.utils import HardwareInfo

    def start(self: Any, device_id: int = 0) -> None:
        self.device_id = device_id

    def clusters(self: Any, cluster_size: int, stream: Any = None) -> int:
        return device.sm_count // cluster_size

    answers: dict[str, Any] = {
        "__init__": start,
        "get_max_active_clusters": clusters,
        "get_device_multiprocessor_count": lambda self: device.sm_count,
        "get_l2_cache_size_in_bytes": lambda self: _l2_bytes(device),
    }
    with mock.patch.multiple(HardwareInfo, **answers):
        yield


def _host(object_bytes: bytes, ptx: str, target: str, device: Device | None) -> CompiledHost:
    return CompiledHost(
        object_bytes=object_bytes,
        function_name=FUNCTION_NAME,
        ptx=ptx_by_kernel(ptx),
        device=device_of(target) if device is None else device,
        target=target,
    )


def _l2_bytes(device: Device) -> int:
    for name in list_skus():
        sku = load_sku(name)
        if sku.arch.compute_capability == device.compute_capability:
            return sku.l2_bytes
    raise UnknownName("compute capability", str(device.compute_capability), [])


def _exported(compiled: Any) -> bytes:
    """The host object of a compiled function."""
    from cutlass.cutlass_dsl.tvm_ffi_provider import TVMFFIJitCompiledFunctionBase

    try:
        if not isinstance(compiled, TVMFFIJitCompiledFunctionBase):
            made: bytes = compiled.dump_to_object(FUNCTION_NAME)
            return made
        with tempfile.TemporaryDirectory(prefix="fa4gen-export-") as folder:
            path = Path(folder) / "host.o"
            compiled.export_to_c(object_file_path=str(path), function_name=FUNCTION_NAME)
            return path.read_bytes()
    except Exception as error:  # the DSL's own errors share no public base
        raise CompileError(
            f"function {compiled.function_name}: cannot be exported: "
            f"{type(error).__name__}: {error}"
        ) from error


def _is_tensor(value: Any) -> bool:
    """A tensor of a library other than CuTe-DSL."""
    from cutlass.cute import Tensor

    return hasattr(value, "__dlpack__") and not isinstance(value, Tensor)


def _readable(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """``values`` with CuTe-DSL's tensors replaced by what they were made from."""
    found: list[Any] = []
    for value in values:
        capsule = getattr(value, "_dlpack_data", None)
        if isinstance(value, tuple | list):
            found.append(_readable(tuple(value)))
        elif capsule is not None:
            found.append(_OnCpu(capsule))
    return tuple(found)


class _OnCpu:
    """The tensor behind a DLPack capsule, which is in CPU memory whatever it claims."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _KDL_CPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule


class _OnGpu:
    """A CPU tensor that claims, by DLPack, to be on the first GPU."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = _known_to_dlpack(tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _KDL_CUDA, 0

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self._tensor.__dlpack__()
        read = ctypes.pythonapi.PyCapsule_GetPointer
        read.restype, read.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        # The description behind the capsule is new at each call, and its owner never reads it.
        at = read(capsule, b"dltensor") + _DEVICE_TYPE_OFFSET
        ctypes.c_int32.from_address(at).value = _KDL_CUDA
        return capsule


def _known_to_dlpack(tensor: Any) -> Any:
    """Types of ml_dtypes by way of torch, as NumPy does not know how to export them."""
    if not isinstance(tensor, np.ndarray):
        return tensor.detach() if hasattr(tensor, "detach") else tensor
    if tensor.dtype.kind in "iufb":
        return tensor
    import torch

    raw = torch.from_numpy(tensor.view(f"u{tensor.dtype.itemsize}"))
    return raw.view(getattr(torch, tensor.dtype.name))
