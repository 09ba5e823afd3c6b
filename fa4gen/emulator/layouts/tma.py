"""Which bytes one tensor copy (TMA, tile mode) moves between global and shared memory.

Element e of the box, dimension 0 fastest, lies at ``smem_start + e * element_bytes`` before the
swizzle of the absolute address, and at ``address + sum((coord_j + i_j * element_stride_j) *
stride_j)`` in global memory. It is out of bounds where any of those coordinates is outside
``[0, dim_j)``: loads then write zero (or NaN), stores skip it (PTX ISA 5.5.3, 5.5.7, 9.7.9.25.5).
With an element stride s, a box dimension of b holds ceil(b / s) elements; dimension 0 has none,
whatever the map says (CUDA driver API, cuTensorMapEncodeTiled).

The first coordinate has to be a multiple of 16 bytes: an H200 stops with "illegal instruction"
otherwise, wherever the box lies (2026-11-21, ``tensor/load-unaligned-*`` of tests/emulator/hopper).
Rows of a box that is narrower than its swizzle lie as far apart as the swizzle spans (CUDA C++
programming guide, 10.30.3: the shared memory has to hold the full swizzle width).

Elements of 4 and 6 bits come in chunks of 16, addressed here as bytes; in shared memory padding may
follow each chunk, see :class:`Padding` (PTX ISA 5.5.1.1).

A plan lists *granules*: runs of at most 16 bytes that are contiguous on both sides, aligned to
their size on both, and either all in bounds or all out. What depends on the box alone is cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.layouts.swizzle import Swizzle

Addresses: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

SMEM_ALIGNMENT = 128
"""Bytes; of the shared-memory address of every tensor copy."""
_ALIGNMENT = 16
"""Bytes; of the global address, the strides, the inner extent of the box and where it begins."""


@dataclass(frozen=True, slots=True)
class Padding:
    """How chunks of a box grow on their way to shared memory."""

    chunk_bytes: int
    """In global memory."""
    shared_bytes: int = 16
    """With the padding behind, whose contents are nowhere defined."""


class TensorMapLike(Protocol):
    """What addressing needs to know of a tensor map; dimension 0 is the contiguous one."""

    @property
    def address(self) -> int:
        """Global address of element 0."""

    @property
    def rank(self) -> int:
        """Dimensions, 1 to 5."""

    @property
    def dims(self) -> tuple[int, ...]:
        """Elements of the tensor per dimension."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next per dimension; the first is ``element_bytes``."""

    @property
    def box(self) -> tuple[int, ...]:
        """Elements of the box per dimension, before element strides."""

    @property
    def element_strides(self) -> tuple[int, ...]:
        """Of every so many elements of the box, one is copied; not along dimension 0."""

    @property
    def element_bytes(self) -> int:
        """1, 2, 4 or 8."""

    @property
    def swizzle(self) -> Swizzle:
        """How the box lies in shared memory."""


@dataclass(frozen=True, slots=True)
class TmaCopyPlan:
    """One tensor copy, granule by granule, in the order of the box.

    Array i of each belongs to the same granule; ``granule_bytes`` bytes from there on.
    """

    granule_bytes: int
    """1, 2, 4, 8 or 16; a multiple of the element size."""
    smem: Addresses
    """Absolute shared addresses, swizzled; multiples of ``granule_bytes``."""
    global_: Addresses
    """Global addresses; meaningless where out of bounds."""
    in_bounds: Mask | None
    """``None`` where everything is."""
    padding: Padding | None = None

    @property
    def box_bytes(self) -> int:
        """Bytes of the full box, which is what complete_tx counts, out of bounds or not.

        Padding does not count.
        """
        return len(self.smem) * self.granule_bytes


def box_addresses(
    tensor_map: TensorMapLike,
    coords: Sequence[int],
    smem_start: int,
    mode: str = "tile",
    padding: Padding | None = None,
) -> TmaCopyPlan:
    """The plan of one tensor copy.

    Args:
        tensor_map: the tensor and the box.
        coords: of the box's first element, dimension 0 first, signed.
        smem_start: absolute shared address of the box, as the instruction gives it.
        mode: the modifier of the instruction.
        padding: of chunks in shared memory.

    Raises:
        KernelFault: the wrong number of coordinates, a misaligned shared address or first
            coordinate, or a map that hardware refuses.
        UnsupportedInstruction: a mode other than ``tile`` (im2col, gather4, scatter4).
    """
    if mode != "tile":
        raise UnsupportedInstruction(f"cp.async.bulk.tensor: got .{mode}, emulated: .tile")
    if len(coords) != tensor_map.rank:
        raise KernelFault(
            f"tensor copy: got {len(coords)} coordinates for a tensor map of rank {tensor_map.rank}"
        )
    if smem_start % SMEM_ALIGNMENT:
        raise KernelFault(
            f"tensor copy: shared address {smem_start:#x} is {smem_start % SMEM_ALIGNMENT} past a "
            f"multiple of {SMEM_ALIGNMENT} bytes"
        )
    inner = coords[0] * tensor_map.element_bytes
    if inner % _ALIGNMENT:
        raise KernelFault(
            f"tensor copy: got a first coordinate of {coords[0]} * {tensor_map.element_bytes} "
            f"bytes = {inner} bytes, allowed: multiples of {_ALIGNMENT}"
        )
    box = _box_of(tensor_map, padding)
    inside = [
        _inside(size, step, at, extent)
        for size, step, at, extent in zip(
            box.counts, box.element_strides, coords, tensor_map.dims, strict=True
        )
    ]
    granule = _granule(box, inside[0], coords[0], tensor_map.address)
    smem, offsets = _box_grid(box, granule, smem_start % box.swizzle.period_bytes)
    start = tensor_map.address + sum(
        at * stride for at, stride in zip(coords, box.strides, strict=True)
    )
    return TmaCopyPlan(
        granule,
        smem + (smem_start - smem_start % box.swizzle.period_bytes),
        offsets + start,
        _in_bounds(box, granule, inside),
        padding,
    )


@dataclass(frozen=True, slots=True)
class _Box:
    """The part of a tensor map that does not change from copy to copy; hashable."""

    counts: tuple[int, ...]
    """Elements copied per dimension, after element strides."""
    strides: tuple[int, ...]
    element_strides: tuple[int, ...]
    element_bytes: int
    swizzle: Swizzle
    padding: Padding | None

    @property
    def inner_bytes(self) -> int:
        return self.counts[0] * self.element_bytes

    def in_shared(self, positions: Addresses) -> Addresses:
        """Where bytes of the box lie in shared memory, before the swizzle."""
        width = self.inner_bytes
        if self.padding is not None:
            chunk, rest = np.divmod(positions, self.padding.chunk_bytes)
            positions = chunk * self.padding.shared_bytes + rest
            width = width // self.padding.chunk_bytes * self.padding.shared_bytes
        if width >= self.swizzle.span_bytes:
            return positions
        row, rest = np.divmod(positions, width)
        return np.asarray(row * self.swizzle.span_bytes + rest)


def _box_of(tensor_map: TensorMapLike, padding: Padding | None) -> _Box:
    return _checked_box(
        tensor_map.box,
        tensor_map.strides,
        tensor_map.element_strides,
        tensor_map.element_bytes,
        tensor_map.swizzle,
        padding,
    )


@lru_cache(maxsize=256)
def _checked_box(
    box: tuple[int, ...],
    strides: tuple[int, ...],
    element_strides: tuple[int, ...],
    element_bytes: int,
    swizzle: Swizzle,
    padding: Padding | None,
) -> _Box:
    """Check what cuTensorMapEncodeTiled checks of the box (CUDA driver API)."""
    steps = (1, *element_strides[1:])
    counts = tuple(-(-size // step) for size, step in zip(box, steps, strict=True))
    made = _Box(counts, strides, steps, element_bytes, swizzle, padding)
    if made.inner_bytes % _ALIGNMENT:
        raise KernelFault(
            f"tensor map: inner box of {counts[0]} elements * {element_bytes} bytes = "
            f"{made.inner_bytes} bytes, allowed: multiples of {_ALIGNMENT}"
        )
    if swizzle is not Swizzle.NONE and made.inner_bytes > swizzle.span_bytes:
        raise KernelFault(
            f"tensor map: inner box of {counts[0]} elements * {element_bytes} bytes = "
            f"{made.inner_bytes} bytes, allowed with swizzle {swizzle.name}: {swizzle.span_bytes}"
        )
    return made


def _inside(count: int, step: int, at: int, extent: int) -> tuple[int, int]:
    """The box indices ``first`` to ``last`` (exclusive) of a dimension that are in bounds."""
    first = min(max(0, -(at // step)), count)
    last = min(max(0, -((at - extent) // step)), count)
    return first, max(first, last)


def _granule(box: _Box, inside: tuple[int, int], at: int, address: int) -> int:
    """The largest run that neither bounds nor misaligned global addresses cut."""
    size = box.element_bytes
    cuts = address | at * size | inside[0] * size | inside[1] * size | box.inner_bytes
    for stride in box.strides[1:]:
        cuts |= stride
    if box.padding is not None:
        cuts |= box.padding.chunk_bytes
    return min(box.swizzle.granule_bytes, cuts & -cuts or _ALIGNMENT)


@lru_cache(maxsize=256)
def _box_grid(box: _Box, granule: int, seen: int) -> tuple[Addresses, Addresses]:
    """Shared addresses from the last swizzle period on, and global offsets, of all granules.

    Args:
        box: the box.
        granule: bytes.
        seen: where in the swizzle period the box begins.
    """
    offsets = np.arange(0, box.inner_bytes, granule)
    outer = zip(box.counts[1:], box.element_strides[1:], box.strides[1:], strict=True)
    for count, step, stride in outer:
        offsets = (np.arange(count)[:, None] * (step * stride) + offsets.ravel()).ravel()
    smem = box.swizzle.apply(seen + box.in_shared(np.arange(offsets.size) * granule))
    smem.flags.writeable = offsets.flags.writeable = False
    return smem, offsets


def _in_bounds(box: _Box, granule: int, inside: list[tuple[int, int]]) -> Mask | None:
    if all(span == (0, count) for span, count in zip(inside, box.counts, strict=True)):
        return None
    per = granule // box.element_bytes
    first, last = inside[0]
    mask = np.zeros((*reversed(box.counts[1:]), box.counts[0] // per), bool)
    outer = tuple(slice(*span) for span in reversed(inside[1:]))
    mask[(*outer, slice(first // per, last // per))] = True
    return mask.ravel()
