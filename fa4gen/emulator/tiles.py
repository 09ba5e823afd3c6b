"""The data side of tensor copies: whole boxes between shared and global memory.

Addresses come from :mod:`fa4gen.emulator.layouts.tma`, maps from
:mod:`fa4gen.emulator.launch.tensormap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import KernelFault
from fa4gen.emulator.launch.tensormap import SUB_BYTE, TENSOR_MAP_BYTES, TensorMap, decode
from fa4gen.emulator.layouts.swizzle import Swizzle
from fa4gen.emulator.layouts.tma import Padding, TmaCopyPlan, box_addresses
from fa4gen.emulator.memory import global_block
from fa4gen.emulator.shared import CELL_BYTES, SharedMemory
from fa4gen.emulator.spaces import GENERIC

if TYPE_CHECKING:
    from fa4gen.emulator.memory import Block
    from fa4gen.emulator.shadow import Cells
    from fa4gen.emulator.warp import Warp

Granules: TypeAlias = npt.NDArray[np.generic]

MAP_ALIGNMENT = 64
"""Bytes; of a tensor map in memory (PTX ISA 5.5.8, CUDA driver API: ``CUtensorMap``)."""
_INFINITY, _NAN_TF32 = np.uint32(0x7F800000), np.uint32(0x7FFFE000)
_PACKED_STEP, _PADDED_STEP = 64, 128
_CHUNK_BYTES = 16
_DTYPES = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "V16"}
_FILLS = {"f16": "7ff7", "bf16": "7ff7", "f32": "7ff77ff7", "f32.ftz": "7ff77ff7"}
"""What an element out of bounds is where the map asks for NaN: no NaN that arithmetic makes
(H200; ``tensor/load-nan-*`` of tests/emulator/hopper)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor map as addressing wants it: with the permutation of shared memory.

    Elements of less than a byte are counted in bytes here.

    Attributes:
        map: The whole map.
        padding: Of chunks of such elements.
    """

    map: TensorMap
    address: int
    rank: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...]
    element_bytes: int
    swizzle: Swizzle
    padding: Padding | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """One box of a tensor, at its place in shared memory.

    Attributes:
        plan: Its granules; ``smem`` are offsets in the memory of whichever CTA.
        block: The global memory it touches; ``None`` if all of it is out of bounds.
        fill: Bytes of a granule out of bounds.
        rounds: Whether f32 becomes tf32 on its way to shared memory.
    """

    plan: TmaCopyPlan
    block: Block | None
    fill: bytes
    rounds: bool = False

    def cells(self, in_bounds_only: bool = False) -> Cells:
        """The cells of shared memory it takes, padding included."""
        plan, size = self.plan, self.plan.granule_bytes
        smem = plan.smem
        if plan.padding is not None:
            size = plan.padding.shared_bytes
            smem = np.unique(smem // size * size)
        if in_bounds_only and plan.in_bounds is not None:
            smem = smem[plan.in_bounds]
            if not smem.size:
                return smem
        low, high = int(smem.min()), int(smem.max()) + size
        if high - low == smem.size * size:
            return np.arange(low // CELL_BYTES, -(-high // CELL_BYTES))
        return np.unique((smem[:, None] + np.arange(0, size, min(size, CELL_BYTES))) // CELL_BYTES)

    def span(self) -> tuple[int, int]:
        """The first offset in shared memory it takes, and the one behind its last."""
        padding = self.plan.padding
        size = self.plan.granule_bytes if padding is None else padding.shared_bytes
        return int(self.plan.smem.min()), int(self.plan.smem.max()) // size * size + size

    def load(self) -> Granules:
        """The box as it is to be written to shared memory, from global memory."""
        data = self._gather()
        return _to_tf32(data) if self.rounds else data

    def _gather(self) -> Granules:
        plan = self.plan
        if plan.in_bounds is None and self.block is not None:
            memory, origin = _granules(self.block, plan.granule_bytes)
            return memory[(plan.global_ - origin) // plan.granule_bytes]
        data = np.frombuffer(self.fill * len(plan.smem), _DTYPES[plan.granule_bytes]).copy()
        if self.block is not None:
            memory, origin = _granules(self.block, plan.granule_bytes)
            wanted = plan.global_[plan.in_bounds]
            data[plan.in_bounds] = memory[(wanted - origin) // plan.granule_bytes]
        return data

    def put(self, shared: SharedMemory, data: Granules) -> None:
        """Write :meth:`load`'s data to shared memory."""
        size = self.plan.granule_bytes
        _granules(shared, size)[0][self.plan.smem // size] = data

    def take(self, shared: SharedMemory) -> Granules:
        """The part of the box that is in bounds, from shared memory."""
        smem, size = self.plan.smem, self.plan.granule_bytes
        if self.plan.in_bounds is not None:
            smem = smem[self.plan.in_bounds]
        return _granules(shared, size)[0][smem // size]

    def store(self, data: Granules) -> None:
        """Write :meth:`take`'s data to global memory."""
        if self.block is not None:
            memory, index = self._targets(self.block)
            memory[index] = data

    def targets(self) -> Granules | None:
        """What :meth:`store` would overwrite."""
        if self.block is None:
            return None
        memory, index = self._targets(self.block)
        return memory[index]

    def _targets(self, block: Block) -> tuple[Granules, npt.NDArray[np.int64]]:
        plan = self.plan
        wanted = plan.global_ if plan.in_bounds is None else plan.global_[plan.in_bounds]
        memory, origin = _granules(block, plan.granule_bytes)
        return memory, (wanted - origin) // plan.granule_bytes


def tensor_at(warp: Warp, address: int) -> Tensor:
    """The tensor map at a generic address.

    Raises:
        KernelFault: outside of every tensor and parameter, misaligned, or not a tensor map.
    """
    block, offsets = GENERIC.locate(
        warp, np.array([address], np.uint64), TENSOR_MAP_BYTES, MAP_ALIGNMENT
    )
    if isinstance(block, SharedMemory):
        raise warp.fault(
            f"got a tensor map in the {block.name}, allowed: global, constant or parameter memory"
        )
    first = int(offsets[0])
    try:
        return _tensor(block.data[first : first + TENSOR_MAP_BYTES].tobytes())
    except KernelFault as error:
        raise warp.fault(f"{error}; it was read from {address:#x} in {block.name}") from error


def tile_at(
    warp: Warp, tensor: Tensor, coordinates: Sequence[int], offset: int, writes: bool = False
) -> Tile:
    """The box at ``coordinates`` of a tensor, at an offset of shared memory.

    Args:
        writes: Whether it is to be stored or reduced, and not loaded: where rows of the tensor end
            within 16 bytes, these are written to their end (recorded of an H200, 2026-11-21,
            ``tensor/store-*`` and ``tensor/reduce-ragged-*`` of tests/emulator/hopper; strides are
            multiples of 16, so that is padding).

    Raises:
        KernelFault: coordinates or the offset do not fit the map, or a part of the box that is in
            the tensor's dimensions is in none of the kernel's tensors.
    """
    try:
        at = _in_bytes(tensor.map, coordinates)
        seen = _written(tensor) if writes else tensor
        plan = box_addresses(seen, at, offset, padding=tensor.padding)
    except KernelFault as error:
        raise warp.fault(str(error)) from error
    touched = plan.global_ if plan.in_bounds is None else plan.global_[plan.in_bounds]
    block = None
    if touched.size:
        low, high = int(touched.min()), int(touched.max()) + plan.granule_bytes - 1
        block = global_block(warp, low, high)
    return Tile(plan, block, _fill(tensor.map, plan.granule_bytes), tensor.map.tf32)


@lru_cache(maxsize=256)
def _tensor(raw: bytes) -> Tensor:
    t = decode(raw)
    narrow, bits = SUB_BYTE.get(t.dtype), t.element_bits
    return Tensor(
        map=t,
        address=t.address,
        rank=t.rank,
        dims=(t.dims[0] * bits // 8, *t.dims[1:]) if narrow else t.dims,
        strides=(1, *t.strides[1:]) if narrow else t.strides,
        box=(t.box[0] * bits // 8, *t.box[1:]) if narrow else t.box,
        element_strides=t.element_strides,
        element_bytes=t.element_bytes or 1,
        swizzle=t.permutation,
        padding=Padding(narrow.chunk_bytes) if narrow and narrow.padded else None,
    )


@lru_cache(maxsize=256)
def _written(tensor: Tensor) -> Tensor:
    """The tensor as far as stores and reductions of all of it write."""
    per = _CHUNK_BYTES // tensor.element_bytes
    return replace(tensor, dims=(-(-tensor.dims[0] // per) * per, *tensor.dims[1:]))


def _in_bytes(t: TensorMap, coordinates: Sequence[int]) -> Sequence[int]:
    """Coordinates of whole chunks of elements of less than a byte, the first one in bytes.

    Raises:
        KernelFault: the first is no multiple of 64, or with padding of 128 (PTX ISA 5.5.1.1).
    """
    narrow = SUB_BYTE.get(t.dtype)
    if narrow is None or not coordinates:
        return coordinates
    step = _PADDED_STEP if narrow.padded else _PACKED_STEP
    if coordinates[0] % step:
        raise KernelFault(
            f"tensor copy: got {coordinates[0]} as the first coordinate for {t.dtype}, allowed: "
            f"multiples of {step}"
        )
    return (coordinates[0] * narrow.bits // 8, *coordinates[1:])


def _fill(t: TensorMap, size: int) -> bytes:
    if t.oob_fill == "zero":
        return bytes(size)
    if t.dtype not in _FILLS:
        raise KernelFault(
            f"tensor map: got a fill with NaN for {t.dtype}, allowed: {', '.join(_FILLS)}"
        )
    element = bytes.fromhex(_FILLS[t.dtype])[::-1]
    return element * (size // len(element))


def _to_tf32(data: Granules) -> Granules:
    """f32 rounded to 10 bits of mantissa, to nearest and to even; a NaN becomes 0x7FFFE000.

    Nobody has documented it; an H200 does it so, subnormals included, and alike where the map says
    ``f32.ftz`` (``tensor/load-as-tf32`` of tests/emulator/hopper).
    """
    bits = data.view(np.uint32)
    even = bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))
    magnitude = bits & np.uint32(0x7FFFFFFF)
    rounded = np.where(magnitude == _INFINITY, bits, even & np.uint32(0xFFFFE000))
    return np.where(magnitude > _INFINITY, _NAN_TF32, rounded).view(data.dtype)


def _granules(block: Block, size: int) -> tuple[Granules, int]:
    """The memory in units of ``size`` bytes, and the address of the first unit."""
    shift = -block.base % size
    whole = (len(block.data) - shift) // size * size
    return block.data[shift : shift + whole].view(_DTYPES[size]), block.base + shift
