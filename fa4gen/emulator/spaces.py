"""Where the addresses of an access lie: the state spaces, and generic addresses.

Source: PTX ISA 9.1, sections 5.1 (state spaces), 6.4.1 (addresses as operands, generic addressing,
alignment). The windows are those of :mod:`fa4gen.emulator.memory`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import LANES, UNSIGNED, Lanes
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.memory import (
    LOCAL_WINDOW,
    PARAM_WINDOW,
    SHARED_WINDOW,
    Addresses,
    Block,
    Offsets,
    global_block,
    locate,
)
from fa4gen.emulator.ordering import WEAK, Order, observe, publish
from fa4gen.emulator.shared import RANK_SHIFT, SharedMemory, target
from fa4gen.emulator.variables import LocalMemory, local_memory

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Mask, Warp

Classes = npt.NDArray[np.generic]

_LOW = np.uint64(0xFFFF_FFFF)
_HIGH_SHIFT = np.uint64(32)
_FIRST_WINDOW, _LOCAL = np.uint64(SHARED_WINDOW), np.uint64(LOCAL_WINDOW)
_RANK_SHIFT = np.uint64(RANK_SHIFT)


class Space(ABC):
    """One way to name memory. ``addresses`` are always those of the active lanes only."""

    def classes(self, warp: Warp, addresses: Addresses, size: int) -> Classes | None:
        """Numbers that tell apart which lanes' accesses fall into different blocks.

        ``None`` if all fall into one.
        """
        return None

    @abstractmethod
    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        """The block, and where in it each lane's ``size`` bytes begin.

        Raises:
            KernelFault: outside of the memory, or no multiple of ``align`` (0: of ``size``).
        """


class _Global(Space):
    """The tensors of the launch, and the module's own global and constant variables."""

    def classes(self, warp: Warp, addresses: Addresses, size: int) -> Classes | None:
        memory = warp.cta.cluster.grid.memory
        block = memory.find(int(addresses.min()))
        if block is not None and int(addresses.max()) + size <= block.end:
            return None
        return _if_several(memory.numbers(addresses))

    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        return locate(warp, global_block, addresses, size, align)


class _Shared(Space):
    """The shared memory of the warp's own CTA."""

    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        return locate(warp, warp.cta.shared.block_of, addresses, size, align)


class _Cluster(Space):
    """The shared memory of any CTA of the cluster: see :mod:`fa4gen.emulator.shared`."""

    def classes(self, warp: Warp, addresses: Addresses, size: int) -> Classes | None:
        return _if_several(addresses >> _RANK_SHIFT)

    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        memory, _ = target(warp, int(addresses[0]), "shared::cluster")
        return locate(warp, memory.block_of, addresses, size, align)


class _Local(Space):
    """Local memory, with or without the upper half of a generic address."""

    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        memory = local_memory(warp)

        def block_of(_: Warp, low: int, high: int) -> Block:
            if high - LOCAL_WINDOW >= memory.size:
                raise warp.fault(
                    f"{memory.name}: got bytes {low - LOCAL_WINDOW} to {high - LOCAL_WINDOW}, "
                    f"allowed: 0 to {memory.size - 1}"
                )
            return memory

        _, offsets = locate(warp, block_of, addresses & _LOW | _LOCAL, size, align)
        lanes = np.arange(LANES) if warp.mask is None else np.flatnonzero(warp.mask)
        return memory, offsets + lanes * memory.stride


class _Param(Space):
    """The parameters of the kernel; those of a call are local memory."""

    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        params = warp.cta.cluster.grid.params

        def block_of(_: Warp, low: int, high: int) -> Block:
            if low < params.base or high >= params.end:
                raise warp.fault(
                    f"{params.name}: got bytes {low:#x} to {high:#x}, allowed: {params.base:#x} to "
                    f"{params.end - 1:#x}"
                )
            return params

        if int(addresses[0]) >= LOCAL_WINDOW:
            return LOCAL.locate(warp, addresses, size, align)
        return locate(warp, block_of, addresses, size, align)


class _Generic(Space):
    """Generic addresses: the upper half says which window, if any."""

    def classes(self, warp: Warp, addresses: Addresses, size: int) -> Classes | None:
        windows = np.where(addresses >= _FIRST_WINDOW, addresses >> _HIGH_SHIFT, np.uint64(0))
        if (several := _if_several(windows)) is not None:
            return several
        space, inside = self._resolve(addresses)
        return space.classes(warp, inside, size)

    def locate(
        self, warp: Warp, addresses: Addresses, size: int, align: int = 0
    ) -> tuple[Block, Offsets]:
        space, inside = self._resolve(addresses)
        return space.locate(warp, inside, size, align)

    def _resolve(self, addresses: Addresses) -> tuple[Space, Addresses]:
        window = int(addresses[0]) >> 32 << 32
        if window == SHARED_WINDOW:
            return CLUSTER, addresses & _LOW
        return _WINDOWS.get(window, GLOBAL), addresses


GLOBAL, SHARED, CLUSTER, LOCAL, PARAM = _Global(), _Shared(), _Cluster(), _Local(), _Param()
GENERIC = _Generic()
_WINDOWS: dict[int, Space] = {PARAM_WINDOW: PARAM, LOCAL_WINDOW: LOCAL}

SPACES: dict[str, Space] = {
    "": GENERIC,
    "global": GLOBAL,
    "const": GLOBAL,
    "shared": SHARED,
    "shared::cta": SHARED,
    "shared::cluster": CLUSTER,
    "local": LOCAL,
    "param": PARAM,
    "param::entry": PARAM,
    "param::func": PARAM,
}
"""By the modifier that names them."""


def active(warp: Warp, lanes: Addresses) -> Addresses:
    """The values of the active lanes."""
    return lanes if warp.mask is None else lanes[warp.mask]


def parts(warp: Warp, space: Space, addresses: Addresses, size: int) -> Iterator[Mask | None]:
    """The active lanes in sets that each access one block, made the warp's mask one by one.

    Args:
        addresses: Of all 32 lanes.
    """
    classes = space.classes(warp, active(warp, addresses), size)
    if classes is None:
        yield warp.mask
        return
    outer = warp.mask
    lanes = np.arange(LANES) if outer is None else np.flatnonzero(outer)
    try:
        for number in np.unique(classes):
            warp.mask = np.zeros(LANES, bool)
            warp.mask[lanes[classes == number]] = True
            # What is one part now may be several tensors, or several CTAs, still.
            yield from parts(warp, space, addresses, size)
    finally:
        warp.mask = outer


def read(
    warp: Warp,
    space: Space,
    addresses: Addresses,
    bits: int,
    count: int,
    order: Order = WEAK,
) -> Lanes:
    """``count`` elements of ``bits`` from each active lane's address on: ``(count, 32)``.

    Raises:
        KernelFault: outside of the memory, misaligned, or on an mbarrier.
    """
    result = np.zeros((count, LANES), UNSIGNED[bits])
    size = bits * count // 8
    for mask in parts(warp, space, addresses, size):
        block, offsets = space.locate(warp, active(warp, addresses), size)
        note_read(warp, block, offsets, size, order)
        values = block.view(bits)[offsets // (bits // 8) + np.arange(count)[:, None]]
        if mask is None:
            result = values
        else:
            result[:, mask] = values
    return result


def write(
    warp: Warp, space: Space, addresses: Addresses, bits: int, values: Lanes, order: Order = WEAK
) -> None:
    """Store ``values`` ``(count, 32)`` of ``bits`` from each active lane's address on.

    Of lanes that store to the same address the highest wins; PTX leaves that open.

    Raises:
        KernelFault: as :func:`read`, or the memory is read-only.
    """
    count = len(values)
    size = bits * count // 8
    for mask in parts(warp, space, addresses, size):
        block, offsets = space.locate(warp, active(warp, addresses), size)
        note_write(warp, block, offsets, size, order)
        chosen = values if mask is None else values[:, mask]
        block.view(bits)[offsets // (bits // 8) + np.arange(count)[:, None]] = chosen


def note_read(warp: Warp, block: Block, offsets: Offsets, size: int, order: Order) -> None:
    """Check and remember that the warp itself reads ``size`` bytes from each offset on."""
    if isinstance(block, SharedMemory):
        block.touched(warp, offsets, size, write=False, strong=order.strong)
    elif isinstance(block, LocalMemory):
        written = block.written[offsets[:, None] + np.arange(size)]
        if not written.all():
            at = int(offsets[int((~written).any(axis=1).argmax())]) % block.stride
            warp.report(
                FindingKind.UNINITIALISED,
                f"{block.name}, byte {at} of {block.size}: read, but nothing has written it",
            )
    if order.strong:
        observe(warp, block, offsets, order)


def note_write(
    warp: Warp, block: Block, offsets: Offsets, size: int, order: Order, adds_to: bool = False
) -> None:
    """Check and remember that the warp itself writes ``size`` bytes from each offset on.

    Raises:
        KernelFault: the memory is read-only, or holds an mbarrier there.
    """
    if not block.writable:
        raise warp.fault(f"{block.name}: written, but it is read-only")
    if isinstance(block, SharedMemory):
        block.touched(warp, offsets, size, write=True, strong=order.strong)
    elif isinstance(block, LocalMemory):
        block.written[offsets[:, None] + np.arange(size)] = True
    if order.strong:
        publish(warp, block, offsets, order, adds_to)


def _if_several(classes: Classes) -> Classes | None:
    return classes if (classes != classes[0]).any() else None
