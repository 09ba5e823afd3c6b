"""The CUDA driver by ctypes: modules from PTX, memory, launches with clusters, tensor maps.

Numbers are those of ``cuda.h`` of CUDA 13.0.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hopper_kernel import Array, Arrays, Index, Kernel, MapOf
from hopper_maps import DriverCase

from fa4gen.emulator.launch.tensormap import TensorMap, encode

_LOG_BYTES = 1 << 16
_JIT_ERROR_LOG, _JIT_ERROR_LOG_BYTES = 5, 6
_MAX_DYNAMIC_SMEM, _NUM_REGS, _STATIC_SMEM = 8, 4, 1
_CLUSTER_DIMENSION = 4
_MAJOR, _MINOR = 75, 76
_DATA_TYPES = {
    "u8": 0, "u16": 1, "u32": 2, "s32": 3, "u64": 4, "s64": 5, "f16": 6, "f32": 7, "f64": 8,
    "bf16": 9, "f32.ftz": 10,
}  # fmt: skip
_TF32 = {"f32": 11, "f32.ftz": 12}
_SWIZZLES = {
    (0, "16B"): 0, (32, "16B"): 1, (64, "16B"): 2, (128, "16B"): 3,
    (128, "32B"): 4, (128, "32B+8B"): 5, (128, "64B"): 6,
}  # fmt: skip
MAP_BYTES, _MAP_ALIGNMENT = 128, 64


class DriverError(Exception):
    """A call of the driver that failed.

    Attributes:
        code: The ``CUresult``.
        log: What the assembler said, if it was one that compiles.
    """

    def __init__(self, call: str, code: int, log: str = "") -> None:
        super().__init__(f"{call}: error {code}{': ' + log if log else ''}")
        self.code, self.log = code, log


class _Attribute(ctypes.Structure):
    """``CUlaunchAttribute``, whose value is a union of 64 bytes."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint32 * 16))


class _Config(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("smem", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Ran:
    """What a launch left behind.

    Attributes:
        registers: A thread, as the driver's assembler chose.
        maps: By argument, who made its bytes: ``driver``, or ``fa4gen`` where the driver refuses.
        unstable: Outputs that another launch gave other bits of.
    """

    outputs: Arrays
    registers: int
    maps: dict[str, str]
    unstable: tuple[str, ...] = ()


class Gpu:
    """The first GPU, through its primary context.

    Raises:
        DriverError: any call of the driver failed.
        OSError: there is no driver.
    """

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", ctypes.c_uint(0))
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._device = device
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def describe(self) -> dict[str, str]:
        """Name, compute capability and driver."""
        name, version = ctypes.create_string_buffer(128), ctypes.c_int()
        self._call("cuDeviceGetName", name, ctypes.c_int(128), self._device)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self._call(
                "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), self._device
            )
            numbers.append(str(value.value))
        return {
            "gpu": name.value.decode(),
            "compute_capability": ".".join(numbers),
            "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
            "driver": driver_version(),
        }

    def run(self, kernel: Kernel) -> Ran:
        """Compile a kernel, launch it twice, each time with fresh arrays, and wait for it.

        Raises:
            DriverError: also if the kernel must not run with the registers that it was given.
        """
        with Module(self, kernel.text) as module:
            function = module.function("kernel")
            registers = module.attribute(function, _NUM_REGS)
            wanted = kernel.launch.max_registers
            if wanted and registers != wanted:
                raise DriverError(
                    f"{kernel.name}: compiled to {registers} registers, not {wanted}", 0
                )
            first, makers = self._once(kernel, function)
            second, _ = self._once(kernel, function)
            other = [n for n, v in first.items() if v.tobytes() != second[n].tobytes()]
            return Ran(first, registers, makers, tuple(other))

    def _once(self, kernel: Kernel, function: ctypes.c_void_p) -> tuple[Arrays, dict[str, str]]:
        launch = kernel.launch
        arrays = {**kernel.inputs, **{n: o.fresh() for n, o in kernel.outputs.items()}}
        with Buffers(self, arrays) as buffers:
            params, makers = self._parameters(kernel, buffers)
            self.launch(function, launch.grid, launch.block, params, launch.cluster, launch.smem)
            return {n: buffers.read(n) for n in kernel.outputs}, makers

    def _parameters(self, kernel: Kernel, buffers: Buffers) -> tuple[list[bytes], dict[str, str]]:
        params, makers = [], {}
        for name, value in (*kernel.arguments.items(), *kernel.outputs.items()):
            if isinstance(value, MapOf):
                wanted = value.at(buffers.address(value.buffer))
                try:
                    params.append(self.tensor_map(wanted))
                    makers[name] = "driver"
                except DriverError:
                    params.append(encode(wanted))
                    makers[name] = "fa4gen"
            elif isinstance(value, int):
                params.append((value & 0xFFFFFFFF).to_bytes(4, "little"))
            else:
                params.append(buffers.address(name).to_bytes(8, "little"))
        return params, makers

    def launch(
        self,
        function: ctypes.c_void_p,
        grid: Index,
        block: int,
        params: Sequence[bytes],
        cluster: Index = (1, 1, 1),
        smem: int = 0,
    ) -> None:
        """Launch and wait; ``params`` are the bytes of each parameter."""
        if smem:
            self._call(
                "cuFuncSetAttribute", function, ctypes.c_int(_MAX_DYNAMIC_SMEM), ctypes.c_int(smem)
            )
        room = [_aligned_bytes(each) for each in params]
        pointers = (ctypes.c_void_p * len(room))(*(at for at, _ in room))
        attribute = _Attribute(_CLUSTER_DIMENSION)
        attribute.value[0], attribute.value[1], attribute.value[2] = cluster
        config = _Config(
            (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(block, 1, 1), smem, None,
            ctypes.pointer(attribute), int(cluster != (1, 1, 1)),
        )  # fmt: skip
        self._call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)
        self.synchronise()

    def synchronise(self) -> None:
        """Wait for the GPU."""
        self._call("cuCtxSynchronize")

    def tensor_map(self, wanted: TensorMap, case: DriverCase | None = None) -> bytes:
        """The driver's 128 bytes for a tensor; ``case`` says what a :class:`TensorMap` cannot."""
        rank = wanted.rank
        at, space = _aligned_bytes(bytes(MAP_BYTES))
        dtype = _TF32[wanted.dtype] if wanted.tf32 else _DATA_TYPES[wanted.dtype]
        if case is not None and case.dtype is not None:
            dtype = case.dtype
        self._call(
            "cuTensorMapEncodeTiled",
            ctypes.c_void_p(at),
            ctypes.c_int(dtype),
            ctypes.c_uint(rank),
            ctypes.c_void_p(wanted.address),
            (ctypes.c_uint64 * rank)(*wanted.dims),
            (ctypes.c_uint64 * max(1, rank - 1))(*wanted.strides[1:]),
            (ctypes.c_uint32 * rank)(*wanted.box),
            (ctypes.c_uint32 * rank)(*wanted.element_strides),
            ctypes.c_int(case.interleave if case else 0),
            ctypes.c_int(_SWIZZLES[wanted.swizzle, wanted.swizzle_atomicity]),
            ctypes.c_int(case.l2 if case else 2),
            ctypes.c_int(int(wanted.oob_fill == "nan")),
        )
        made = ctypes.string_at(at, MAP_BYTES)
        del space
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise DriverError(name, code)


def driver_version() -> str:
    """Of the driver that is installed, by NVML; empty if NVML is not there."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    text = ctypes.create_string_buffer(80)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, ctypes.c_uint(80)):
        return ""
    return text.value.decode()


class Module:
    """PTX compiled by the driver; a context manager."""

    def __init__(self, gpu: Gpu, text: str) -> None:
        self._gpu, self._handle = gpu, ctypes.c_void_p()
        log = ctypes.create_string_buffer(_LOG_BYTES)
        options = (ctypes.c_int * 2)(_JIT_ERROR_LOG, _JIT_ERROR_LOG_BYTES)
        # A number travels in the pointer itself.
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
        try:
            gpu._call(
                "cuModuleLoadDataEx", ctypes.byref(self._handle), ctypes.c_char_p(text.encode()),
                ctypes.c_uint(2), options, values,
            )  # fmt: skip
        except DriverError as error:
            raise DriverError("cuModuleLoadDataEx", error.code, log.value.decode()) from None

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            # After a fault of the kernel the context is lost, and unloading fails as well.
            self._gpu._cuda.cuModuleUnload(self._handle)

    def function(self, name: str) -> ctypes.c_void_p:
        """A kernel of the module."""
        function = ctypes.c_void_p()
        self._gpu._call("cuModuleGetFunction", ctypes.byref(function), self._handle, name.encode())
        return function

    def attribute(self, function: ctypes.c_void_p, number: int) -> int:
        """A ``CUfunction_attribute``."""
        value = ctypes.c_int()
        self._gpu._call("cuFuncGetAttribute", ctypes.byref(value), ctypes.c_int(number), function)
        return value.value


class Buffers:
    """Device memory with the contents of arrays; a context manager."""

    def __init__(self, gpu: Gpu, arrays: Mapping[str, Array]) -> None:
        self._gpu, self._arrays = gpu, dict(arrays)
        self._addresses: dict[str, int] = {}

    def __enter__(self) -> Buffers:
        for name, value in self._arrays.items():
            pointer = ctypes.c_uint64()
            size = ctypes.c_size_t(max(16, value.nbytes))
            self._gpu._call("cuMemAlloc_v2", ctypes.byref(pointer), size)
            self._addresses[name] = pointer.value
            raw = np.ascontiguousarray(value)
            self._gpu._call(
                "cuMemcpyHtoD_v2",
                pointer,
                ctypes.c_void_p(raw.ctypes.data),
                ctypes.c_size_t(raw.nbytes),
            )
        return self

    def __exit__(self, *_: object) -> None:
        for address in self._addresses.values():
            self._gpu._cuda.cuMemFree_v2(ctypes.c_uint64(address))

    def address(self, name: str) -> int:
        """Where an array begins."""
        return self._addresses[name]

    def read(self, name: str) -> Array:
        """What is there now."""
        value = self._arrays[name]
        found = np.empty(value.shape, value.dtype)
        self._gpu._call(
            "cuMemcpyDtoH_v2",
            ctypes.c_void_p(found.ctypes.data),
            ctypes.c_uint64(self._addresses[name]),
            ctypes.c_size_t(found.nbytes),
        )
        return found


def _aligned_bytes(raw: bytes) -> tuple[int, Any]:
    """An aligned copy of ``raw``: its address, and what keeps it alive."""
    space = (ctypes.c_uint8 * (len(raw) + _MAP_ALIGNMENT))()
    at = -(-ctypes.addressof(space) // _MAP_ALIGNMENT) * _MAP_ALIGNMENT
    ctypes.memmove(at, raw, len(raw))
    return at, space
