"""Launches of small kernels of ours: what is captured, in which order, how failures come out."""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from object_file import CODE, GLOBAL, ObjectFile

from fa4gen.compile import emulation
from fa4gen.core.errors import CaptureFailed, CompileError, KernelFault
from fa4gen.emulator.launch import (
    CompiledHost,
    Launch,
    PackedArguments,
    TensorMap,
    capture,
    tensors_in,
)
from fa4gen.emulator.launch.stub import RuntimeStub
from fa4gen.emulator.launch.tensormap import decode as decode_map
from fa4gen.emulator.launch.tensormap import encode
from fa4gen.ptx import parse

Floats = npt.NDArray[np.float32]
Numbers = Callable[..., CompiledHost]


def pointer(raw: bytes) -> int:
    (value,) = struct.unpack("<Q", raw[:8])
    return int(value)


@pytest.mark.parametrize("target", ["sm_90a", "sm_100a"])
def test_everything_about_a_tma_copy(kernels: ModuleType, target: str) -> None:
    source = np.zeros((100, 136), np.float16)
    whole = np.zeros((100, 160), np.float16)
    result = whole[:, :136]  # rows further apart than they are long
    host = emulation.compile_function(kernels.tma_copy, source, result, target=target)
    (launch,) = capture(host, source, result)
    assert launch.grid == (4, 3, 1)  # ceil(100 / 32), ceil(136 / 64)
    assert launch.block == (32, 1, 1)
    assert launch.cluster == (2, 1, 1)
    assert launch.dynamic_smem == 1024 + 32 * 64 * 2  # the barrier is padded to the tile
    assert launch.threads == 32
    assert not launch.cooperative
    assert not launch.programmatic
    assert launch.ptx is not None
    assert f".target {target}" in launch.ptx
    entry = parse(launch.ptx).entry(launch.name)
    assert [len(raw) for raw in launch.params] == [param.size for param in entry.params]
    maps = [raw for raw in launch.params if len(raw) == 128]
    for raw, array, pitch in zip(maps, (source, result), (272, 320), strict=True):
        assert decode_map(raw) == TensorMap(
            address=array.ctypes.data,
            dtype="f16",
            dims=(136, 100),
            strides=(2, pitch),
            box=(64, 32),
            swizzle=128,
        )
        assert encode(decode_map(raw))[:64] == raw[:64]
    assert launch.regs_per_thread is not None
    assert 0 < launch.regs_per_thread <= 255


def test_tensor_maps_of_every_kind(kernels: ModuleType) -> None:
    import cutlass
    import torch

    far = np.lib.stride_tricks.as_strided(
        np.zeros(64, np.float16), (2, 3, 2, 2, 64),
        (16 * 7 + (1 << 36), 16 * 5 + (1 << 37), 16 * 3 + (1 << 38), 16 + (1 << 39), 2),
    )  # fmt: skip
    cases = [  # tensor, tile, swizzle bits, element type
        (np.zeros((64, 128), np.float16), (16, 64), 3, "f16"),
        (np.zeros((1000,), np.float32), (128,), 0, "f32"),
        (np.zeros((40, 5, 64), np.uint8), (8, 1, 32), 1, "u8"),
        (np.zeros((4, 96), np.int8), (4, 16), 0, "u8"),
        (torch.zeros(3, 4, 5, 6, 64, dtype=torch.bfloat16), (1, 1, 1, 2, 32), 2, "bf16"),
        (np.zeros((2, 64), ml_dtypes.bfloat16), (2, 8), 0, "bf16"),
        (np.zeros((9, 64), np.int64), (3, 8), 2, "u64"),
        (np.zeros((9, 64), np.int16), (3, 64), 3, "u16"),
        (np.zeros((9, 64), np.int32), (3, 8), 1, "u32"),
        (np.zeros((1024, 4096), np.float32), (3, 4), 0, "f32"),
        (far, (1, 1, 1, 1, 64), 3, "f16"),
        (np.zeros((64, 64), np.float32), (8, 32), 3, "f32"),  # as tf32
    ]
    tensors = [emulation.gpu_tensor(tensor) for tensor, *_ in cases]
    tensors[-1].element_type = cutlass.TFloat32
    host = emulation.compile_function(
        kernels.describe,
        tuple(tensors),
        tuple(case[1] for case in cases),
        tuple(case[2] for case in cases),
        target="sm_90a",
    )
    (launch,) = capture(host, tuple(case[0] for case in cases))
    assert len(launch.params) == len(cases)
    for raw, (tensor, tile, bits, dtype) in zip(launch.params, cases, strict=True):
        made = decode_map(raw)
        assert encode(made)[:64] == raw[:64]
        array = tensor if isinstance(tensor, np.ndarray) else tensor.view(torch.int16).numpy()
        steps = zip(array.shape, array.strides, tile, strict=True)
        assert sorted(zip(made.dims, made.strides, made.box, strict=True)) == sorted(steps)
        assert (made.address, made.dtype) == (array.ctypes.data, dtype)
        assert made.swizzle == (0, 32, 64, 128)[bits]
        assert made.tf32 == (tensor is cases[-1][0])


def test_tensor_map_of_the_driver(kernels: ModuleType) -> None:
    import cuda.bindings.driver as cuda
    from cutlass.experimental.cuda import TensorMapFloatOOBFill, TensorMapSwizzle

    fill = TensorMapFloatOOBFill(
        int(cuda.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA)
    )
    tensor = np.zeros((64, 128), np.float32)
    host = emulation.compile_function(
        kernels.driver_map, tensor, TensorMapSwizzle.s64b, fill, target="sm_90a"
    )
    (launch,) = capture(host, tensor)
    assert decode_map(launch.params[0]) == TensorMap(
        address=tensor.ctypes.data,
        dtype="f32",
        dims=(128, 64),
        strides=(4, 512),
        box=(16, 8),
        swizzle=64,
        oob_fill="nan",
    )


def arrays(launch: Launch) -> list[Floats]:
    """The float32 arrays of 300 elements that the pointers of a launch point to."""
    return [
        np.ctypeslib.as_array((ctypes.c_float * 300).from_address(pointer(raw)))
        for raw in launch.params
        if len(raw) == 8
    ]


def execute(launch: Launch) -> None:
    """What the kernels of ``chain`` do, in NumPy."""
    if "_add_" in launch.name:
        x, y = arrays(launch)
        y[:] = x + np.frombuffer(launch.params[2], np.float32)
    else:
        (x,) = arrays(launch)
        x *= 2


def test_each_launch_sees_what_those_before_have_done(chain: CompiledHost) -> None:
    start = np.arange(300, dtype=np.float32)
    x, y = start.copy(), np.full(300, np.nan, np.float32)
    launches = capture(chain, x, y, 0.5, 0, on_launch=execute)
    np.testing.assert_array_equal(y, 2 * (start + 0.5))
    np.testing.assert_array_equal(x, 2 * (start + 0.5) + 0.5)
    assert [launch.name.split("_")[2] for launch in launches] == ["add", "double", "add"]
    assert {launch.grid for launch in launches} == {(3, 1, 1)}
    assert [launch.dynamic_smem for launch in launches] == [0, 4096, 0]
    assert [launch.programmatic for launch in launches] == [False, True, False]
    assert [pointer(launch.params[0]) for launch in launches] == [
        x.ctypes.data, y.ctypes.data, y.ctypes.data
    ]  # fmt: skip
    assert launches[0].params[2] == struct.pack("<f", 0.5)


def test_a_failure_of_the_callback_comes_out_and_ends_the_host_function(
    chain: CompiledHost,
) -> None:
    seen: list[str] = []

    def fails_in_the_second_kernel(launch: Launch) -> None:
        seen.append(launch.name)
        if len(seen) == 2:
            raise LookupError("as the emulator would")

    x, y = np.zeros(300, np.float32), np.zeros(300, np.float32)
    with pytest.raises(LookupError, match="as the emulator would") as caught:
        capture(chain, x, y, 1.0, 0, on_launch=fails_in_the_second_kernel)
    assert len(seen) == 2
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "fails_in_the_second_kernel"
    assert len(capture(chain, x, y, 1.0, 0)) == 3  # nothing sticks


def test_an_interrupt_comes_out_too(chain: CompiledHost) -> None:
    def interrupted(_: Launch) -> None:
        raise KeyboardInterrupt

    x, y = np.zeros(300, np.float32), np.zeros(300, np.float32)
    with pytest.raises(KeyboardInterrupt):
        capture(chain, x, y, 1.0, 0, on_launch=interrupted)


def test_a_callback_may_capture_as_well(chain: CompiledHost) -> None:
    x, y = np.zeros(300, np.float32), np.zeros(300, np.float32)
    inner: list[int] = []

    def nested(_: Launch) -> None:
        inner.append(len(capture(chain, x, y, 1.0, 0)))

    assert len(capture(chain, x, y, 1.0, 0, on_launch=nested)) == 3
    assert inner == [3, 3, 3]


def test_functions_compiled_without_tvm_ffi(kernels: ModuleType, chain: CompiledHost) -> None:
    import cuda.bindings.driver as cuda
    from cutlass import Float32, cute
    from cutlass.cute.runtime import from_dlpack

    x, y = np.zeros(300, np.float32), np.zeros(300, np.float32)
    given = from_dlpack(x), from_dlpack(y), Float32(0.5), cuda.CUstream(0)
    with emulation.tracing("sm_90a", emulation.device_of("sm_90a")):
        compiled = cute.compile(kernels.chain, *given)
    host = emulation.host_of(compiled, "sm_90a")
    packed = emulation.packed_arguments(compiled, *given)
    plain, same = capture(host, packed), capture(chain, x, y, 0.5, 0)
    for one, other in zip(plain, same, strict=True):
        assert replace(one, name="", ptx="", regs_per_thread=0, attributes=()) == replace(
            other, name="", ptx="", regs_per_thread=0, attributes=()
        )
    extents = [tensor.extent for tensor in tensors_in(packed.owners)]
    assert extents == [np.lib.array_utils.byte_bounds(array) for array in (x, y)]
    with pytest.raises(LookupError):
        capture(host, packed, on_launch=lambda launch: {}["nothing"])
    with pytest.raises(CaptureFailed, match="one PackedArguments, as it was compiled without"):
        capture(host, x, y, 0.5, 0)
    with pytest.raises(CaptureFailed, match="got PackedArguments, allowed: tensors"):
        capture(chain, packed)


def test_ptx_that_was_not_kept_is_missed(kernels: ModuleType) -> None:
    from cutlass import Int32, cute

    compiled = cute.compile(kernels.greedy, Int32(1), Int32(0), options="--gpu-arch=sm_90a")
    with pytest.raises(CompileError, match=r"got no PTX.*--keep-ptx"):
        emulation.host_of(compiled, "sm_90a")


def test_what_the_kernel_was_told_about_the_gpu(numbers: Numbers) -> None:
    from cutlass.utils import HardwareInfo

    original = HardwareInfo.get_max_active_clusters
    device = emulation.device_of("sm_90a", sm_count=7)
    host = numbers("persistent", 1, device)
    assert HardwareInfo.get_max_active_clusters is original
    assert capture(host, 3)[0].grid == (3, 1, 1)
    assert capture(host, 500)[0].grid == (7, 1, 1)
    with emulation.hardware_info(device):
        info = HardwareInfo()
        assert info.get_device_multiprocessor_count() == 7
        assert info.get_max_active_clusters(2) == 3
        assert info.get_l2_cache_size_in_bytes() == 50 << 20


@pytest.mark.parametrize(
    ("work", "smem", "message"),
    [
        (1, 300_000, r"got 300000 bytes of dynamic shared memory, allowed: \d+"),
        (0, 0, r"got grid \(0, 1, 1\)"),
    ],
)
def test_launches_the_driver_would_refuse(
    numbers: Numbers, work: int, smem: int, message: str
) -> None:
    host = numbers("greedy", 2)
    limit = host.device.smem_optin_bytes
    assert capture(host, 1, limit)[0].dynamic_smem == limit
    with pytest.raises(KernelFault, match=message):
        capture(host, work, smem)


def test_static_shared_memory_counts_against_the_limit(kernels: ModuleType) -> None:
    from cutlass import Int32

    x = np.zeros(256, np.float32)
    host = emulation.compile_function(kernels.reverse_with, x, Int32(0), target="sm_90a")
    limit = host.device.smem_optin_bytes - 256 * 4
    assert capture(host, x, limit)[0].dynamic_smem == limit
    with pytest.raises(KernelFault, match=f"got {limit + 1} bytes .* allowed: {limit}"):
        capture(host, x, limit + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x: (x, x, 1.0), "TypeError: Expects 4 parameters"),
        (lambda x: (x.astype(np.float16), x, 1.0, 0), "expected dtype=float32"),
        (lambda x: (x[:299], x, 1.0, 0), "shape"),
        (lambda x: (x[::2], x, 1.0, 0), "Mismatched|Invalid"),
        (lambda x: (x.reshape(2, 150), x, 1.0, 0), "expected ndim=1"),
        (lambda x: (x, x, None, 0), "expected float"),
        (lambda x: (x.view(np.uint8)[4:1204].view(np.float32), x, 1.0, 0), "alignment=16"),
        (lambda x: (x, x, "1.0", 0), "argument: got str, allowed"),
        (lambda x: (x.astype(">f4"), x, 1.0, 0), "got NumPy dtype"),
    ],
)
def test_arguments_that_do_not_fit(
    chain: CompiledHost, arguments: Callable[[Floats], tuple[object, ...]], message: str
) -> None:
    with pytest.raises(CaptureFailed, match=message):
        capture(chain, *arguments(np.zeros(301, np.float32)[:300]))


def test_tensors_of_the_wrong_device(chain: CompiledHost) -> None:
    x = np.zeros(300, np.float32)
    with pytest.raises(CaptureFailed, match="expected device_type=cuda"):
        capture(replace(chain, tensor_device="cpu"), x, x, 1.0, 0)
    with pytest.raises(CaptureFailed, match="got 'tpu', allowed"):
        capture(replace(chain, tensor_device="tpu"), x, x, 1.0, 0)


def test_no_truncated_object_is_run(chain: CompiledHost) -> None:
    x = np.zeros(300, np.float32)
    whole = chain.object_bytes
    for size in [*range(0, 200, 7), *range(200, len(whole), 997), len(whole) - 1]:
        with pytest.raises(CaptureFailed, match="host object"):
            capture(replace(chain, object_bytes=whole[:size]), x, x, 1.0, 0)


def damaged(host: CompiledHost, old: bytes, new: bytes) -> CompiledHost:
    assert old in host.object_bytes
    return replace(host, object_bytes=host.object_bytes.replace(old, new, 1))


def test_damaged_cubins_are_refused(chain: CompiledHost) -> None:
    x = np.zeros(300, np.float32)
    magic = struct.pack("<I", 0xBA55ED50)
    start = chain.object_bytes.index(magic)
    header = chain.object_bytes[start : start + 16]
    cubin = chain.object_bytes.index(b"\x7fELF", start)
    head = chain.object_bytes[cubin : cubin + 64]
    for old, new, message in [
        (magic, bytes(4), "got no fat binary"),
        (header, header[:8] + struct.pack("<Q", 1 << 30), "fat binary is cut short"),
        (head, bytes(64), "without an uncompressed ELF member"),
        (head, head[:0x28] + struct.pack("<Q", 1 << 30) + head[0x30:], "cut short"),
    ]:
        with pytest.raises(CaptureFailed, match=f"cubin in the host object: .*{message}"):
            capture(damaged(chain, old, new), x, x, 1.0, 0)


def test_a_function_that_is_not_there(chain: CompiledHost) -> None:
    with pytest.raises(CaptureFailed, match=r"got no function 'other'; it defines .*fa4gen_fwd"):
        capture(replace(chain, function_name="other"), PackedArguments((), ()))


def test_runtime_functions_that_are_not_answered() -> None:
    # sub rsp, 8; call _cudaMalloc; call _cudaFree; add rsp, 8; ret, whatever the first one returns
    code = b"\x48\x83\xec\x08\xe8" + bytes(4) + b"\xe8" + bytes(4) + b"\x48\x83\xc4\x08\xc3"
    symbols = [(name, 0, 0, GLOBAL) for name in ("_cudaMalloc", "_cudaFree")]
    made = ObjectFile(
        code,
        symbols=[("__tvm_ffi_f", CODE, 0, GLOBAL), *symbols],
        relocations=[(CODE, 5, 4, 2, -4), (CODE, 10, 4, 3, -4)],
    )
    host = CompiledHost(made.build(), "f", {}, emulation.device_of("sm_90a"), "sm_90a")
    with pytest.raises(CaptureFailed, match="calls _cudaMalloc, which launch capture does not"):
        capture(host)


def test_a_function_that_fails_says_so_and_so_do_all_after_it() -> None:
    stub = RuntimeStub(emulation.device_of("sm_90a"), {}, lambda launch: None)

    def call(name: str) -> int:
        code: int = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(stub.resolve(name) or 0)(0)
        return code

    assert call("_cudaSetDevice") == 0
    assert call("_cudaMalloc") == call("_cudaSetDevice") == 999
    with pytest.raises(CaptureFailed, match="_cudaMalloc"):
        stub.raise_failure("f", 0)
    assert call("_cudaSetDevice") == 0


def test_the_real_runtime_is_never_reached(chain: CompiledHost) -> None:
    from cutlass.cute.runtime import find_runtime_libraries

    for path in find_runtime_libraries(enable_tvm_ffi=False):  # as FlashAttention-4 does
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    x = np.zeros(300, np.float32)
    assert len(capture(chain, x, x, 1.0, 0)) == 3


ELSEWHERE = """
import pickle, sys
import numpy as np
from fa4gen.emulator.launch import capture
host = pickle.load(open(sys.argv[1], "rb"))
x = np.zeros(300, np.float32)
print([launch.grid for launch in capture(host, x, x, 1.0, 0)])
print(sorted({"cutlass", "torch", "tvm_ffi", "subprocess"} & set(sys.modules)))
"""


def test_a_run_needs_no_compiler_no_dsl_and_no_torch(chain: CompiledHost, tmp_path: Path) -> None:
    stored = tmp_path / "host.pickle"
    stored.write_bytes(pickle.dumps(chain))
    environment = os.environ | {"PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(stored)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[(3, 1, 1), (3, 1, 1), (3, 1, 1)]", "[]"]
