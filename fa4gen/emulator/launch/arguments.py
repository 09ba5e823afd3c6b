"""Python values as the arguments of a TVM-FFI function, without TVM-FFI.

Launch code compiled with ``--enable-tvm-ffi`` takes an array of 16-byte tagged values, tensors as
pointers to DLPack's ``DLTensor``. Both layouts are public and stable C interfaces, and the launch
code checks type, rank, shape, strides and alignment of what it is given.

Source: ``tvm/ffi/c_api.h`` of apache-tvm-ffi 0.1.15 (type numbers, ``TVMFFIAny``, ``TVMFFIObject``)
and ``dlpack/dlpack.h`` 1.1 (``DLTensor``, type codes).
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, SupportsInt

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import CaptureFailed

_NONE, _INT, _BOOL, _FLOAT, _POINTER, _TENSOR, _ARRAY = 0, 1, 2, 3, 4, 7, 71
_DEVICES = {"cpu": 1, "cuda": 2}

_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_ML_DTYPES = {
    "bfloat16": (4, 16),
    "float8_e4m3": (8, 8),
    "float8_e4m3b11fnuz": (9, 8),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
}
"""DLPack's (code, bits) of the types that ml_dtypes adds to NumPy."""


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Payload(ctypes.Union):
    _fields_ = (("integer", ctypes.c_int64), ("real", ctypes.c_double), ("ptr", ctypes.c_void_p))


class _Any(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("zero", ctypes.c_uint32), ("payload", _Payload))


class _Array(ctypes.Structure):
    """``TVMFFIObject`` and the part of an array that follows it."""

    _fields_ = (
        ("references", ctypes.c_uint64),
        ("kind", ctypes.c_int32),
        ("zero", ctypes.c_uint32),
        ("deleter", ctypes.c_void_p),
        ("items", ctypes.c_void_p),
        ("size", ctypes.c_int64),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class HostTensor:
    """A tensor in the memory of this process."""

    address: int
    """Of element 0."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Elements."""
    code: int
    """DLPack's type code."""
    bits: int
    """Of one lane of an element."""
    lanes: int
    """1, or how many values an element packs, as float4_e2m1fn_x2 does."""
    owner: object = dataclasses.field(repr=False, compare=False)
    """Keeps the memory alive."""

    @property
    def extent(self) -> tuple[int, int]:
        """First byte and the one behind the last that belong to an element."""
        if 0 in self.shape:
            return self.address, self.address
        steps = [(n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)]
        size = self.bits * self.lanes // 8
        low = self.address + size * sum(min(0, step) for step in steps)
        return low, self.address + size * (1 + sum(max(0, step) for step in steps))


def host_tensor(value: object) -> HostTensor | None:
    """A tensor of NumPy (ml_dtypes included) or of any library that speaks DLPack.

    Returns:
        ``None`` for a value that is no tensor.

    Raises:
        CaptureFailed: a tensor that is not in CPU memory, or of a type without a DLPack code.
    """
    if isinstance(value, np.ndarray):
        return _from_numpy(value)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value)
    return None


def tensors_in(values: Sequence[object]) -> list[HostTensor]:
    """Every tensor among ``values``, those inside tuples, lists and dataclasses included."""
    found = []
    for value in values:
        if (tensor := host_tensor(value)) is not None:
            found.append(tensor)
        elif (items := _items(value)) is not None:
            found += tensors_in(items)
    return found


class FfiArguments:
    """The array that a TVM-FFI function takes; keeps everything it points to alive.

    Args:
        values: tensors, numbers, ``None``, ctypes pointers, and tuples, lists or dataclasses of
            these.
        tensor_device: what tensors claim to be on: ``cuda`` or ``cpu``.

    Raises:
        CaptureFailed: a value of another kind.
    """

    def __init__(self, values: Sequence[object], tensor_device: str) -> None:
        if tensor_device not in _DEVICES:
            raise CaptureFailed(
                f"tensor_device: got {tensor_device!r}, allowed: {sorted(_DEVICES)}"
            )
        self._device_type = _DEVICES[tensor_device]
        self._alive: list[object] = []
        self.count = len(values)
        self.address = self._pack(values)

    def _pack(self, values: Sequence[object]) -> int:
        array = (_Any * max(1, len(values)))()
        self._alive.append(array)
        for slot, value in zip(array, values, strict=False):
            self._fill(slot, value)
        return ctypes.addressof(array)

    def _fill(self, slot: Any, value: object) -> None:
        if value is None:
            slot.kind = _NONE
        elif isinstance(value, bool | np.bool_):
            slot.kind, slot.payload.integer = _BOOL, int(value)
        elif isinstance(value, Integral):
            slot.kind, slot.payload.integer = _INT, int(value)
        elif isinstance(value, Real):
            slot.kind, slot.payload.real = _FLOAT, float(value)
        elif isinstance(value, ctypes.c_void_p):
            slot.kind, slot.payload.ptr = _POINTER, value.value
        elif (tensor := host_tensor(value)) is not None:
            slot.kind, slot.payload.ptr = _TENSOR, self._tensor(tensor)
        elif (items := _items(value)) is not None:
            slot.kind, slot.payload.ptr = _ARRAY, self._array(items)
        elif isinstance(plain := getattr(value, "value", None), int | float):
            self._fill(slot, plain)  # a scalar of CuTe-DSL
        elif isinstance(value, SupportsInt):  # a stream of cuda-bindings
            slot.kind, slot.payload.integer = _INT, int(value)
        else:
            raise CaptureFailed(
                f"argument: got {type(value).__name__}, allowed: tensors in CPU memory, numbers, "
                "None, pointers, and tuples, lists or dataclasses of these"
            )

    def _tensor(self, tensor: HostTensor) -> int:
        rank = len(tensor.shape)
        shape = (ctypes.c_int64 * max(1, rank))(*tensor.shape)
        strides = (ctypes.c_int64 * max(1, rank))(*tensor.strides)
        made = _DLTensor(
            data=tensor.address,
            device_type=self._device_type,
            device_id=0,
            ndim=rank,
            code=tensor.code,
            bits=tensor.bits,
            lanes=tensor.lanes,
            shape=shape,
            strides=strides,
            byte_offset=0,
        )
        self._alive += [tensor, shape, strides, made]
        return ctypes.addressof(made)

    def _array(self, items: Sequence[object]) -> int:
        made = _Array(references=1, kind=_ARRAY, items=self._pack(items), size=len(items))
        self._alive.append(made)
        return ctypes.addressof(made)


def _items(value: object) -> Sequence[object] | None:
    """What is inside a tuple, list or dataclass."""
    if isinstance(value, tuple | list):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def _from_numpy(array: npt.NDArray[Any]) -> HostTensor:
    name, size = array.dtype.name, array.dtype.itemsize
    if name in _ML_DTYPES:
        code, bits = _ML_DTYPES[name]
    elif array.dtype.kind in _CODES and array.dtype.isnative:
        code, bits = _CODES[array.dtype.kind], 8 * size
    else:
        raise CaptureFailed(
            f"tensor: got NumPy dtype {name}, allowed: native integers, floats, bool and "
            f"{', '.join(_ML_DTYPES)}"
        )
    if any(step % size for step in array.strides):
        raise CaptureFailed(
            f"tensor: got strides {array.strides} bytes, allowed: multiples of the {size} bytes "
            "of an element"
        )
    strides = tuple(step // size for step in array.strides)
    return HostTensor(array.ctypes.data, array.shape, strides, code, bits, 1, array)


def _from_dlpack(value: Any) -> HostTensor:
    device_type, device_id = value.__dlpack_device__()
    if device_type != _DEVICES["cpu"]:
        raise CaptureFailed(
            f"tensor: got one on DLPack device ({int(device_type)}, {device_id}), allowed: CPU "
            f"memory ({_DEVICES['cpu']}, 0); copy it to the CPU first"
        )
    value = value.detach() if hasattr(value, "detach") else value
    capsule = value.__dlpack__()
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(read(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(tensor.strides[: tensor.ndim])
    else:  # row-major
        strides = tuple(int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))
    address = (tensor.data or 0) + tensor.byte_offset
    owner = (value, capsule)
    return HostTensor(address, shape, strides, tensor.code, tensor.bits, tensor.lanes, owner)
