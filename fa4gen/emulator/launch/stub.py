"""The runtime that launch code is linked to instead of CUDA's: it hands launches to a callback.

Every function is a ctypes callback. One that fails keeps the exception, answers with an error code,
which makes the launch code return, and from then on refuses all that is asked, so that nothing is
launched after a failure. :meth:`RuntimeStub.raise_failure` then raises what was kept.

Source: signatures as declared in the LLVM-dialect module of CuTe-DSL 4.8.1 (``ir_module``);
``cudaLaunchConfig_t`` and ``cudaLaunchAttribute``: CUDA runtime API; attribute numbers:
``cudaDeviceAttr``, ``CUfunction_attribute``.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fa4gen.core.errors import CaptureFailed, KernelFault
from fa4gen.emulator.launch.device import RESERVED_SMEM_BYTES, device_attribute
from fa4gen.emulator.launch.launch import Launch, LaunchAttribute, check_launch, cluster_shape
from fa4gen.emulator.launch.tensormap import ELEMENT_BYTES, TensorMap, encode
from fa4gen.ptx.cubin import KernelFacts, find_cubin, kernel_facts
from fa4gen.ptx.elf import MalformedElf
from fa4gen.ptx.host import Device

SUCCESS = 0
FAILURE = 999
"""``cudaErrorUnknown``."""
_RAISED = -1
"""What launch code with TVM-FFI returns for an error that was described already."""

_I32, _U64, _PTR, _TEXT = ctypes.c_int32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p
_CONFIG = struct.Struct("<6IQQQI")
_ATTRIBUTE_BYTES = 72
_MAX_ATTRIBUTES = 64

_SMEM_STATIC, _NUM_REGS = 1, 4
_MAX_DYNAMIC_SMEM, _CARVEOUT, _NON_PORTABLE_CLUSTER = 8, 9, 14
_DEFAULT_SMEM = 48 << 10

_RUNTIME_PREFIXES = ("_cuda", "_cu", "cuda_dialect", "CuteDSLRT", "TVMFFI")
"""Of names that are never looked up in this process, where the real runtime may be loaded."""
_MAP_DTYPES = (
    "u8", "u16", "u32", "s32", "u64", "s64", "f16", "f32", "f64", "bf16", "f32.ftz", "tf32",
    "", "b4x16", "b4x16_p64", "b6x16_p32",
)  # fmt: skip
"""``CUtensorMapDataType`` in the order of its numbers; one that is not emulated is empty."""
_MAP_SWIZZLES = (
    (0, "16B"), (32, "16B"), (64, "16B"), (128, "16B"), (128, "32B"), (128, "32B+8B"), (128, "64B"),
)  # fmt: skip
"""``CUtensorMapSwizzle`` in the order of its numbers, as bytes of a row and what stays together."""


@dataclass(slots=True)
class _Kernel:
    facts: KernelFacts
    static_smem: int
    max_dynamic_smem: int
    non_portable_cluster: bool = False


class RuntimeStub:
    """Answers the functions that launch code calls.

    Args:
        device: what to say about the GPU.
        ptx: PTX text by kernel name.
        on_launch: called for every launch, before the launch code's call returns.

    Attributes:
        read: gives the launch code's data from an address on; set when it has been loaded.
    """

    def __init__(
        self, device: Device, ptx: Mapping[str, str], on_launch: Callable[[Launch], None]
    ) -> None:
        self._device, self._ptx, self._on_launch = device, ptx, on_launch
        self.read: Callable[[int], bytes] = _nothing_loaded
        self._libraries: list[dict[str, _Kernel]] = []
        self._kernels: list[_Kernel] = []
        self._callbacks: dict[str, Any] = {}
        self._failure: BaseException | None = None
        self._message = ""
        self._answers: dict[str, tuple[Any, tuple[Any, ...], Callable[..., Any]]] = {
            "_cudaGetDevice": (_I32, (_PTR,), self._get_device),
            "_cudaSetDevice": (_I32, (_I32,), self._nothing),
            "_cudaGetDeviceCount": (_I32, (_PTR,), self._get_device_count),
            "_cudaDeviceGetAttribute": (_I32, (_PTR, _I32, _I32), self._device_attribute),
            "_cudaLibraryLoadData": (_I32, (_PTR,) * 4 + (_I32, _PTR, _PTR, _I32), self._load),
            "_cudaLibraryUnload": (_I32, (_PTR,), self._nothing),
            "_cudaLibraryGetKernel": (_I32, (_PTR, _PTR, _TEXT), self._get_kernel),
            "_cuKernelGetAttribute": (_I32, (_PTR, _I32, _PTR, _I32), self._kernel_attribute),
            "_cudaKernelSetAttributeForDevice": (
                _I32, (_PTR, _I32, _I32, _I32), self._set_kernel_attribute
            ),
            "_cudaFuncSetAttribute": (_I32, (_PTR, _I32, _I32), self._set_kernel_attribute),
            "_cudaLaunchKernelEx": (_I32, (_PTR, _PTR, _PTR), self._launch),
            "_cuTensorMapEncodeTiled": (
                _I32, (_PTR, _I32, _I32, _PTR, *(_PTR,) * 4, *(_I32,) * 4), self._tensor_map
            ),
            "cuda_dialect_init_library_once": (_I32, (_PTR,) * 4, self._init_library),
            "cuda_dialect_unload_library_once": (None, (_PTR,), self._nothing),
            "cuda_dialect_assert_success": (None, (_I32,), self._assert_success),
            "TVMFFIEnvGetStream": (_PTR, (_I32, _I32), self._nothing),
            "TVMFFIErrorSetRaisedFromCStr": (None, (_TEXT, _TEXT), self._set_message),
            "TVMFFIErrorSetRaisedFromCStrParts": (None, (_TEXT, _PTR, _I32), self._set_parts),
            "CuteDSLRT_TVMFFISetRaisedCudaError": (None, (_PTR, _I32), self._set_code),
        }  # fmt: skip

    def resolve(self, name: str) -> int | None:
        """Address of the function called ``name``: one of ours, or one of the C library's.

        A function of the CUDA runtime that is not answered here stops the launch code when it is
        called; any other unknown name is ``None``.
        """
        if name not in self._callbacks:
            if name in self._answers:
                result, arguments, function = self._answers[name]
            elif name.startswith(_RUNTIME_PREFIXES):
                result, arguments, function = _I32, (), self._refuse(name)
            else:
                return _in_c_library(name)
            self._callbacks[name] = ctypes.CFUNCTYPE(result, *arguments)(
                self._guarded(function, result)
            )
        return ctypes.cast(self._callbacks[name], ctypes.c_void_p).value

    def load_library(self, slot: int, init: int, load: int) -> bool:
        """Let launch code load its cubin and its kernels; whether that went well.

        Args:
            slot: address of the library's handle.
            init, load: addresses of the functions that the launch code has for this:
                ``int init(void** slot)`` and ``int load(void** slot, int device)``.
        """
        code = ctypes.CFUNCTYPE(_I32, _PTR)(init)(slot)
        if code == SUCCESS:
            code = ctypes.CFUNCTYPE(_I32, _PTR, _I32)(load)(slot, 0)
        return bool(code == SUCCESS)

    def raise_failure(self, function_name: str, code: int) -> None:
        """Raise what went wrong in the launch code, if anything did.

        Args:
            code: what the launch code returned.

        Raises:
            CaptureFailed: the launch code refused its arguments, or returned an error.
            BaseException: whatever the launch callback raised.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if code != SUCCESS:
            text = self._message or f"CUDA error {code}"
            raise CaptureFailed(f"host function {function_name}: {text}")

    def _guarded(self, function: Callable[..., Any], result: Any) -> Callable[..., Any]:
        """``function`` that keeps its exception; ``None`` counts as success."""
        failed, fine = (FAILURE, SUCCESS) if result is _I32 else (None, None)

        def answer(*arguments: Any) -> Any:
            if self._failure is not None:
                return failed
            try:
                answered = function(*arguments)
            except BaseException as error:  # an interrupt, too, would be lost in the launch code
                self._failure = error
                return failed
            return fine if answered is None else answered

        return answer

    def _refuse(self, name: str) -> Callable[..., None]:
        def refuse() -> None:
            raise CaptureFailed(
                f"host function: calls {name}, which launch capture does not answer; answered: "
                f"{', '.join(sorted(self._answers))}"
            )

        return refuse

    def _nothing(self, *_: object) -> None:
        """Streams, devices and unloading mean nothing here."""

    def _get_device(self, out: int) -> None:
        _I32.from_address(out).value = 0

    def _get_device_count(self, out: int) -> None:
        _I32.from_address(out).value = 1

    def _device_attribute(self, out: int, number: int, _: int) -> None:
        _I32.from_address(out).value = device_attribute(self._device, number)

    def _load(self, out: int, image: int, *_: object) -> None:
        try:
            facts = kernel_facts(find_cubin(self.read(image)))
        except MalformedElf as error:
            raise CaptureFailed(f"cubin in the host object: {error}; export it again") from error
        self._libraries.append({kernel.name: _kernel(kernel) for kernel in facts})
        _PTR.from_address(out).value = len(self._libraries)

    def _get_kernel(self, out: int, library: int, name: bytes) -> None:
        kernels = self._libraries[library - 1]
        wanted = name.decode()
        if wanted not in kernels:
            raise CaptureFailed(
                f"host function: asks for kernel {wanted}, its cubin has {', '.join(kernels)}"
            )
        self._kernels.append(kernels[wanted])
        _PTR.from_address(out).value = len(self._kernels)

    def _kernel_attribute(self, out: int, number: int, kernel: int, _: int) -> None:
        found = self._kernel(kernel)
        answers = {_SMEM_STATIC: found.static_smem, _NUM_REGS: found.facts.regs_per_thread}
        if number not in answers:
            raise CaptureFailed(
                f"host function: got a question for function attribute {number} of "
                f"{found.facts.name}, answered: {sorted(answers)}"
            )
        _I32.from_address(out).value = answers[number]

    def _set_kernel_attribute(self, kernel: int, number: int, value: int, *_: int) -> None:
        found = self._kernel(kernel)
        if number == _MAX_DYNAMIC_SMEM:
            limit = self._device.smem_optin_bytes - found.static_smem
            if value > limit:
                raise KernelFault(
                    f"kernel {found.facts.name}: got {value} bytes as the most dynamic shared "
                    f"memory, allowed: {self._device.smem_optin_bytes} - {found.static_smem} "
                    f"(static) = {limit}"
                )
            found.max_dynamic_smem = value
        elif number == _NON_PORTABLE_CLUSTER:
            found.non_portable_cluster = bool(value)
        elif number != _CARVEOUT:  # the carve-out is a hint
            raise CaptureFailed(
                f"host function: sets function attribute {number} of {found.facts.name}, known: "
                f"{_MAX_DYNAMIC_SMEM}, {_CARVEOUT}, {_NON_PORTABLE_CLUSTER}"
            )

    def _kernel(self, handle: int | None) -> _Kernel:
        if not handle or handle > len(self._kernels):
            raise CaptureFailed(f"host function: uses kernel {handle!r}, which it has not loaded")
        return self._kernels[handle - 1]

    def _launch(self, config: int, handle: int, arguments: int) -> None:
        *shape, smem, _, at, count = _CONFIG.unpack(ctypes.string_at(config, _CONFIG.size))
        if count > _MAX_ATTRIBUTES:
            raise CaptureFailed(f"launch: got {count} attributes, allowed: {_MAX_ATTRIBUTES}")
        raw = [ctypes.string_at(at + _ATTRIBUTE_BYTES * i, _ATTRIBUTE_BYTES) for i in range(count)]
        attributes = tuple(
            LaunchAttribute(int.from_bytes(one[:4], "little"), one[8:]) for one in raw
        )
        kernel = self._kernel(handle)
        sizes = kernel.facts.param_bytes
        values = (ctypes.c_void_p * len(sizes)).from_address(arguments) if sizes else ()
        launch = Launch(
            name=kernel.facts.name,
            grid=(shape[0], shape[1], shape[2]),
            block=(shape[3], shape[4], shape[5]),
            cluster=cluster_shape(attributes),
            dynamic_smem=smem,
            params=tuple(ctypes.string_at(p, n) for p, n in zip(values, sizes, strict=True)),
            ptx=self._ptx.get(kernel.facts.name),
            regs_per_thread=kernel.facts.regs_per_thread,
            attributes=attributes,
        )
        check_launch(launch, kernel.max_dynamic_smem, kernel.non_portable_cluster)
        self._on_launch(launch)

    def _tensor_map(self, out: int, number: int, rank: int, address: int, *rest: int) -> None:
        dims, strides, box, steps, interleave, swizzle, _, fill = rest
        dtype = _MAP_DTYPES[number] if 0 <= number < len(_MAP_DTYPES) else ""
        if not dtype or not 0 <= swizzle < len(_MAP_SWIZZLES):
            raise KernelFault(
                f"cuTensorMapEncodeTiled: got data type {number} and swizzle {swizzle}, emulated: "
                f"data types 0 to 11 and 13 to 15, swizzles 0 to {len(_MAP_SWIZZLES) - 1}"
            )
        plain = "f32" if dtype == "tf32" else dtype
        outer = (_U64 * (rank - 1)).from_address(strides) if rank > 1 else ()
        tensor_map = TensorMap(
            address=address,
            dtype=plain,
            dims=tuple((_U64 * rank).from_address(dims)),
            strides=(ELEMENT_BYTES.get(plain, 0), *outer),
            box=tuple((_I32 * rank).from_address(box)),
            element_strides=tuple((_I32 * rank).from_address(steps)),
            swizzle=_MAP_SWIZZLES[swizzle][0],
            swizzle_atomicity=_MAP_SWIZZLES[swizzle][1],
            interleave=interleave,
            oob_fill="nan" if fill else "zero",
            tf32=dtype == "tf32",
        )
        raw = encode(tensor_map)
        ctypes.memmove(out, raw, len(raw))

    def _init_library(self, state: int, init: int, load: int, _: int) -> int:
        """Load the cubin. A host function asks once a call, and an object is called once."""
        return SUCCESS if self.load_library(state, init, load) else _RAISED

    def _assert_success(self, code: int) -> None:
        if code != SUCCESS:
            raise CaptureFailed(f"host function: asserts that no CUDA error occurred, got {code}")

    def _set_message(self, kind: bytes, text: bytes) -> None:
        self._message = f"{kind.decode(errors='replace')}: {text.decode(errors='replace')}"

    def _set_parts(self, kind: bytes, parts: int, count: int) -> None:
        texts = (ctypes.c_char_p * count).from_address(parts)
        self._set_message(kind, b"".join(text or b"" for text in texts))

    def _set_code(self, _: int, code: int) -> None:
        self._message = f"CUDA error {code}"


def _kernel(facts: KernelFacts) -> _Kernel:
    static = max(0, facts.static_smem_bytes - RESERVED_SMEM_BYTES)
    return _Kernel(facts, static, max_dynamic_smem=_DEFAULT_SMEM - static)


def _nothing_loaded(address: int) -> bytes:
    raise CaptureFailed(f"host function: got data at {address:#x} before it was loaded")


def _in_c_library(name: str) -> int | None:
    try:
        function = getattr(ctypes.CDLL(None), name)
    except AttributeError:
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
