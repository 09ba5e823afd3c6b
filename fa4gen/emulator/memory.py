"""Global, parameter and local memory, and the map of generic addresses.

Global memory is the memory of this process: kernels get the very addresses of the tensors they
were launched with, and every access has to fall into one of them. Windows for shared, parameter and
local memory lie where no user-space address of x86-64 or AArch64 Linux does.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import UNSIGNED

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

Addresses: TypeAlias = npt.NDArray[np.uint64]
Offsets: TypeAlias = npt.NDArray[np.int64]
Lanes: TypeAlias = npt.NDArray[np.generic]
Bytes: TypeAlias = npt.NDArray[np.uint8]
BlockOf: TypeAlias = "Callable[[Warp, int, int], Block]"
"""``block_of(warp, low, high)``: the block with bytes ``low`` to ``high``, or a KernelFault."""

SHARED_WINDOW = 0xA000_0000_0000_0000
PARAM_WINDOW = 0xB000_0000_0000_0000
LOCAL_WINDOW = 0xC000_0000_0000_0000
WINDOW_MASK = 0xFFFF_FFFF_0000_0000


class Block:
    """A run of bytes at an address.

    Attributes:
        data: The bytes, ``(size,)`` uint8; writing to it writes the memory.
    """

    def __init__(self, base: int, data: Bytes, name: str, writable: bool = True) -> None:
        self.base, self.data, self.name, self.writable = base, data, name, writable
        self._views: dict[int, npt.NDArray[np.generic]] = {8: data}

    @property
    def end(self) -> int:
        return self.base + len(self.data)

    def view(self, bits: int) -> npt.NDArray[np.generic]:
        """The bytes as unsigned integers of ``bits``; a ragged end is left out."""
        view = self._views.get(bits)
        if view is None:
            whole = len(self.data) * 8 // bits * bits // 8
            view = self._views[bits] = self.data[:whole].view(UNSIGNED[bits])
        return view


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory a kernel may touch: where, how much, and what to call it in messages."""

    address: int
    size: int
    """Bytes."""
    name: str


class GlobalMemory:
    """The tensors a kernel was launched with."""

    def __init__(self, buffers: list[Buffer]) -> None:
        self._blocks: list[Block] = []
        for buffer in sorted(buffers, key=lambda b: b.address):
            if buffer.size > 0:
                raw = (ctypes.c_uint8 * buffer.size).from_address(buffer.address)
                data = np.ctypeslib.as_array(raw)
                self._blocks.append(Block(buffer.address, data, buffer.name))
        self._bases = [block.base for block in self._blocks]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All of them, by address."""
        return tuple(self._blocks)

    def find(self, address: int) -> Block | None:
        """The block ``address`` falls into."""
        at = bisect_right(self._bases, address) - 1
        if at >= 0 and address < self._blocks[at].end:
            return self._blocks[at]
        return None

    def add(self, block: Block) -> None:
        """Take in memory of the kernel's own: a variable of the module."""
        at = bisect_right(self._bases, block.base)
        self._blocks.insert(at, block)
        self._bases.insert(at, block.base)

    def numbers(self, addresses: Addresses) -> npt.NDArray[np.intp]:
        """A number for each address, the same for all in one block."""
        return np.searchsorted(np.array(self._bases, np.uint64), addresses, "right")

    def describe(self) -> str:
        """All blocks, for the message of an address that is in none."""
        return "; ".join(f"{b.name}: {b.base:#x} to {b.end:#x}" for b in self._blocks) or "none"


def load(
    warp: Warp, block_of: BlockOf, addresses: Addresses, bits: int, count: int
) -> tuple[Lanes, Block, Offsets]:
    """``count`` elements of ``bits`` from each lane's address on.

    Inactive lanes get what the first active one does. ``block_of`` finds the block of a range.

    Returns:
        ``(count, 32)`` values, the block, and the active lanes' offsets in it, bytes.

    Raises:
        KernelFault: an address outside every block, or not a multiple of the access's size.
    """
    active = addresses if warp.mask is None else addresses[warp.mask]
    block, offsets = locate(warp, block_of, active, bits * count // 8)
    index = offsets // (bits // 8)
    if warp.mask is not None:
        everyone = np.full(len(addresses), index[0])
        everyone[warp.mask] = index
        index = everyone
    return block.view(bits)[index + np.arange(count)[:, None]], block, offsets


def store(
    warp: Warp, block_of: BlockOf, addresses: Addresses, bits: int, values: Lanes
) -> tuple[Block, Offsets]:
    """Write ``values`` ``(count, 32)`` of ``bits`` from each active lane's address on.

    Returns:
        The block and the active lanes' offsets in it, bytes.

    Raises:
        KernelFault: as :func:`load`, or the block is read-only.
    """
    if warp.mask is not None:
        addresses, values = addresses[warp.mask], values[:, warp.mask]
    block, offsets = locate(warp, block_of, addresses, bits * len(values) // 8)
    if not block.writable:
        raise warp.fault(f"{block.name}: written, but it is read-only")
    block.view(bits)[offsets // (bits // 8) + np.arange(len(values))[:, None]] = values
    return block, offsets


def global_block(warp: Warp, low: int, high: int) -> Block:
    """The tensor that bytes ``low`` to ``high`` of global memory lie in.

    Raises:
        KernelFault: they are not in one.
    """
    memory = warp.cta.cluster.grid.memory
    block = memory.find(low)
    if block is None or high >= block.end:
        near = f"past the end of {block.name}" if block else "in none of the kernel's tensors"
        raise warp.fault(
            f"global memory: got bytes {low:#x} to {high:#x}, {near}; allowed: {memory.describe()}"
        )
    return block


def locate(
    warp: Warp, block_of: BlockOf, addresses: Addresses, size: int, align: int = 0
) -> tuple[Block, Offsets]:
    """The block that accesses of ``size`` bytes fall into, and their offsets in it, bytes.

    Args:
        addresses: Of the active lanes only.
        align: A power of two that the addresses must be a multiple of; 0: ``size``.

    Raises:
        KernelFault: an address outside every block, or misaligned.
    """
    block = block_of(warp, int(addresses.min()), int(addresses.max()) + size - 1)
    align = align or size
    beyond = addresses & np.uint64(align - 1)
    if beyond.any():
        at = int(beyond.argmax())
        raise warp.fault(
            f"{block.name}: got an access of {size} bytes at {int(addresses[at]):#x}, which is "
            f"{int(beyond[at])} past a multiple of {align}"
        )
    return block, (addresses - np.uint64(block.base)).astype(np.int64)
