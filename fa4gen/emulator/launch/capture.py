"""Run compiled launch code on CPU tensors and see every launch it makes.

How it works, and why so:

* The launch code is the ELF object that CuTe-DSL exports (``export_to_c``, ``dump_to_object``), the
  very instructions that run in front of a GPU. :mod:`~fa4gen.emulator.launch.linker` places it in
  memory and links it to :mod:`~fa4gen.emulator.launch.stub`, ctypes functions that answer for the
  CUDA runtime and for TVM-FFI. So a run needs no C compiler, no CuTe-DSL, no torch, no environment
  variable and no other process, and it does not matter whether CuTe-DSL has been imported before
  with the real runtime: two runs share nothing.
* Other ways were weighed: naming a stub in ``CUTE_DSL_LIBS`` works only if that is set before
  CuTe-DSL is imported; linking the object with ``gcc -shared`` wants a compiler and files; a
  stand-in for ``libcuda.so.1`` fails, as the runtime asks it for private tables.
* The function given to :func:`capture` runs inside the launch call. When a host function launches
  several kernels, each therefore starts from what those before it have written.
* The launch code of CuTe-DSL 4.8.1 builds tensor maps itself; ``cuTensorMapEncodeTiled``, which
  ``cutlass.experimental.cuda`` calls, is answered as well.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from fa4gen.core.errors import CaptureFailed
from fa4gen.emulator.launch.arguments import FfiArguments
from fa4gen.emulator.launch.launch import Launch
from fa4gen.emulator.launch.linker import LoadedObject
from fa4gen.emulator.launch.stub import FAILURE, SUCCESS, RuntimeStub
from fa4gen.ptx.host import CompiledHost, PackedArguments

_FFI_PREFIX = "__tvm_ffi_"
_INTERFACE = "__mlir_ciface_"


def capture(
    host: CompiledHost, *arguments: object, on_launch: Callable[[Launch], None] | None = None
) -> tuple[Launch, ...]:
    """Call a compiled host function and return its launches, in order.

    Args:
        host: the function.
        arguments: what it takes: tensors in CPU memory and numbers for one compiled with TVM-FFI,
            a single :class:`PackedArguments` for any other.
        on_launch: called with each launch before the host function goes on. What it raises ends
            the host function and comes out of this call, with its traceback.

    Raises:
        CaptureFailed: the object is damaged or for another machine, an argument does not fit, or
            the host function does something that is not answered.
        KernelFault: a launch that the driver would refuse.
    """
    made: list[Launch] = []

    def launched(launch: Launch) -> None:
        made.append(launch)
        if on_launch is not None:
            on_launch(launch)

    stub = RuntimeStub(host.device, host.ptx, launched)
    loaded = LoadedObject(host.object_bytes, stub.resolve)
    stub.read = loaded.bytes_from
    entry = loaded.address(_FFI_PREFIX + host.function_name)
    if entry is not None:
        if any(isinstance(argument, PackedArguments) for argument in arguments):
            raise CaptureFailed(
                f"host function {host.function_name}: got PackedArguments, allowed: tensors and "
                "numbers, as it was compiled with TVM-FFI"
            )
        code = _call_ffi(entry, FfiArguments(arguments, host.tensor_device))
    else:
        code = _call_packed(host, loaded, stub, arguments)
    stub.raise_failure(host.function_name, code)
    return tuple(made)


def _call_ffi(entry: int, arguments: FfiArguments) -> int:
    """``int f(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result)``."""
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    function = ctypes.CFUNCTYPE(number, pointer, pointer, number, pointer)(entry)
    result = (ctypes.c_uint64 * 2)()
    code: int = function(None, arguments.address, arguments.count, ctypes.addressof(result))
    return code


def _call_packed(
    host: CompiledHost, loaded: LoadedObject, stub: RuntimeStub, arguments: tuple[object, ...]
) -> int:
    """Load the kernels, then ``void f(void** arguments)``, whose last one is the result."""
    wrapper = f"_mlir_{host.function_name}{_INTERFACE}"
    name = next((name for name in loaded.names() if name.startswith(wrapper)), None)
    entry = None if name is None else loaded.address(name)
    if entry is None:
        raise CaptureFailed(
            f"host object: got no function {host.function_name!r}; it defines "
            f"{', '.join(sorted(loaded.names())) or 'nothing'}"
        )
    if len(arguments) != 1 or not isinstance(arguments[0], PackedArguments):
        raise CaptureFailed(
            f"host function {host.function_name}: got {len(arguments)} arguments, allowed: one "
            "PackedArguments, as it was compiled without TVM-FFI; make it with "
            "fa4gen.compile.emulation.packed_arguments, or compile with --enable-tvm-ffi"
        )
    library, code = ctypes.c_void_p(), ctypes.c_int32(SUCCESS)
    slot = ctypes.addressof(library)
    init = loaded.address(f"{host.function_name}_cuda_init")
    load = loaded.address(f"{host.function_name}_cuda_load_to_device")
    if init is not None and load is not None and not stub.load_library(slot, init, load):
        return FAILURE
    packed = arguments[0]
    values = (ctypes.c_void_p * (len(packed.pointers) + 1))(
        *packed.pointers, ctypes.addressof(code)
    )
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(entry)(ctypes.addressof(values))
    return code.value
