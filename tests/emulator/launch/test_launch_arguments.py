"""Tensors of several libraries, read where they lie."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

from fa4gen.core.errors import CaptureFailed
from fa4gen.emulator.launch import HostTensor, host_tensor, tensors_in
from fa4gen.emulator.launch.arguments import FfiArguments


def facts(value: object) -> tuple[object, ...]:
    made = host_tensor(value)
    assert isinstance(made, HostTensor)
    return made.address, made.shape, made.strides, made.code, made.bits, made.lanes


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "float64", "int8", "int32", "int64", "uint8", "uint16", "bool"],
)
def test_numpy_and_dlpack_say_the_same(dtype: str) -> None:
    import torch

    array = np.ones((3, 4, 5), dtype)[:, ::2]
    tensor = torch.from_numpy(array)
    assert facts(array) == facts(tensor)
    assert facts(array)[:3] == (tensor.data_ptr(), (3, 2, 5), tuple(tensor.stride()))


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz"]
)
def test_types_of_ml_dtypes(dtype: str) -> None:
    import torch

    array = np.zeros((2, 6), getattr(ml_dtypes, dtype))
    tensor = torch.zeros((2, 6), dtype=getattr(torch, dtype))
    assert facts(array)[1:] == facts(tensor)[1:]


def test_a_tensor_with_a_gradient_and_an_offset() -> None:
    import torch

    tensor = torch.zeros(4, 8, requires_grad=True)[1:, 2:]
    assert facts(tensor)[0] == tensor.data_ptr()


def test_empty_and_scalar_tensors() -> None:
    made = host_tensor(np.zeros((0, 4), np.float32))
    assert made is not None
    assert made.extent[0] == made.extent[1]
    assert facts(np.zeros((), np.float32))[1:3] == ((), ())


def test_extent_covers_every_element_and_no_more() -> None:
    whole = np.zeros((4, 5, 6), np.int16)
    for view in (
        whole,
        whole[1:3],
        whole[:, ::-1],
        whole[::-2, 1:4, ::3],
        whole.transpose(2, 0, 1),
    ):
        made = host_tensor(view)
        assert made is not None
        assert made.extent == np.lib.array_utils.byte_bounds(view)


def test_what_is_no_tensor() -> None:
    assert [host_tensor(value) for value in (None, 1, 2.0, "x", (1,))] == [None] * 5


def test_tensors_inside_other_arguments() -> None:
    @dataclass
    class Pair:
        left: object
        right: object

    a, b, c = (np.zeros(n, np.float32) for n in (1, 2, 3))
    found = tensors_in([a, 1, (b, [None, Pair(c, 2)]), None])
    assert [tensor.address for tensor in found] == [x.ctypes.data for x in (a, b, c)]


class Elsewhere:
    """A tensor on a GPU."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __dlpack__(self) -> object:
        raise AssertionError("must not be asked")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Elsewhere(), r"device \(2, 1\), allowed: CPU"),
        (np.zeros(2, "M8[s]"), "dtype datetime64"),
        (np.zeros(2, ">i4"), "dtype int32"),
        (np.zeros(2, ml_dtypes.int4), "dtype int4"),
        (np.ndarray((2,), np.int32, bytes(16), 0, (6,)), r"strides \(6,\) bytes"),
    ],
)
def test_tensors_that_cannot_be_used(value: object, message: str) -> None:
    with pytest.raises(CaptureFailed, match=message):
        host_tensor(value)


def test_values_are_tagged_as_the_interface_says() -> None:
    """Type numbers of ``c_api.h``, as the Python package of TVM-FFI knows them."""
    from cutlass.base_dsl.tvm_ffi_builder.tvm_ffi_builder import TVMFFITypeIndex as Kind

    @dataclass
    class Scalar:  # as CuTe-DSL's numbers
        value: object

    class Stream:  # as those of cuda-bindings
        def __int__(self) -> int:
            return 77

    values = [
        None, True, np.bool_(False), -3, np.int64(1 << 40), 0.5, np.float32(0.25),
        ctypes.c_void_p(4096), np.zeros(2), (1, 2), [], Scalar(9)  , Stream(),
    ]  # fmt: skip
    made = FfiArguments(values, "cuda")
    raw = ctypes.string_at(made.address, 16 * len(values))
    kinds = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 16)]
    payloads = [raw[i + 8 : i + 16] for i in range(0, len(raw), 16)]
    assert kinds == [
        Kind.kTVMFFINone, Kind.kTVMFFIBool, Kind.kTVMFFIBool, Kind.kTVMFFIInt, Kind.kTVMFFIInt,
        Kind.kTVMFFIFloat, Kind.kTVMFFIFloat, Kind.kTVMFFIOpaquePtr, Kind.kTVMFFIDLTensorPtr,
        Kind.kTVMFFIArray, Kind.kTVMFFIArray, Kind.kTVMFFIArray, Kind.kTVMFFIInt,
    ]  # fmt: skip
    integers = [int.from_bytes(one, "little", signed=True) for one in payloads]
    assert integers[1:5] == [1, 0, -3, 1 << 40]
    assert np.frombuffer(b"".join(payloads[5:7]), np.float64).tolist() == [0.5, 0.25]
    assert (integers[7], integers[12]) == (4096, 77)
    assert made.count == len(values)
