"""The memory of the GPU that :mod:`pretended_gpu` pretends: tensors on the CPU that deny it."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fa4gen.core.errors import KernelFault

CUDA, _CPU = 2, 1
_DEVICE_TYPE_OFFSET = 8
_ALIGNMENT = 512
"""Bytes; of every allocation of the CUDA runtime, as CUTLASS's scripts rely on."""


class Memory:
    """All the memory that torch's tensors lie in; a kernel may get any of it as a bare pointer."""

    def __init__(self) -> None:
        self._known: dict[int, _Allocation] = {}

    def adopt(self, made: Any) -> Any:
        """What a torch function returned, its new tensors aligned as on a GPU and remembered."""
        if type(made) in {tuple, list}:
            return type(made)(map(self.adopt, made))
        if type(made) is not torch.Tensor or made.layout != torch.strided:
            return made
        storage = made.untyped_storage()
        known = self._known.get(storage.data_ptr())
        if known is not None and known.alive:
            return made
        low, size = 0, storage.nbytes()
        if storage.data_ptr() % _ALIGNMENT and made.is_leaf and not made.requires_grad:
            made, low = _aligned(made)
            storage = made.untyped_storage()
        self._known[storage.data_ptr()] = _Allocation(weakref.ref(storage), low, size)
        return made

    def in_use(self) -> list[OnCpu]:
        """All the memory of tensors that are alive, as bytes."""
        self._known = {at: memory for at, memory in self._known.items() if memory.alive}
        with torch._C.DisableTorchFunction():  # or these, too, would be adopted
            return [OnCpu.of(memory.bytes()) for memory in self._known.values() if memory.size]


@dataclass(frozen=True)
class _Allocation:
    """``size`` bytes from ``low`` on of a storage of torch."""

    storage: weakref.ref[torch.UntypedStorage]
    low: int
    size: int

    @property
    def alive(self) -> bool:
        """Whether any tensor still uses it."""
        return self.storage() is not None

    def bytes(self) -> torch.Tensor:
        """It as a tensor; keeps it alive."""
        storage = self.storage()
        if storage is None:
            raise KernelFault("memory: got an allocation that is gone, wanted one in use")
        whole = torch.empty(0, dtype=torch.uint8).set_(storage)
        return whole[self.low : self.low + self.size]


def _aligned(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """A copy at an aligned address with the same strides, and where in its storage it begins."""
    old = tensor.untyped_storage()
    room = torch.empty(old.nbytes() + _ALIGNMENT, dtype=torch.uint8)
    shift = -room.data_ptr() % _ALIGNMENT
    room[shift : shift + old.nbytes()] = torch.empty(0, dtype=torch.uint8).set_(old)
    size = tensor.element_size()
    flat = room[shift : shift + old.nbytes() // size * size].view(tensor.dtype)
    start = tensor.storage_offset() + shift // size
    return flat.as_strided(tensor.shape, tensor.stride(), start), shift


class OnCpu:
    """A tensor that admits to be in CPU memory.

    Args:
        capsule: Makes its DLPack capsule, whatever device that tells.
    """

    def __init__(self, capsule: Callable[[], Any]) -> None:
        self._capsule = capsule

    @classmethod
    def of(cls, tensor: torch.Tensor) -> OnCpu:
        """A tensor of torch."""
        plain = tensor.detach()
        return cls(lambda: _PLAIN_DLPACK(plain))

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule()


_PLAIN_DLPACK = torch.Tensor.__dlpack__


def on_cpu(value: Any) -> Any:
    """An argument of a launch, its tensors admitting to be in CPU memory."""
    if isinstance(value, torch.Tensor):
        return OnCpu.of(value)
    if isinstance(value, tuple | list):
        return tuple(map(on_cpu, value))
    if hasattr(value, "_dlpack_data"):  # a tensor of CuTe-DSL
        return OnCpu(lambda: _on_device(value._dlpack_data, _CPU))
    return value


def dlpack_as_gpu(tensor: torch.Tensor, **_: Any) -> Any:
    """``tensor.__dlpack__()`` of a tensor that claims to be on the GPU."""
    return _on_device(_PLAIN_DLPACK(tensor.detach()), CUDA)


def _on_device(capsule: Any, device_type: int) -> Any:
    """A DLPack capsule, saying now that its memory is of another device."""
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    at = read(capsule, b"dltensor") + _DEVICE_TYPE_OFFSET
    ctypes.c_int32.from_address(at).value = device_type
    return capsule
