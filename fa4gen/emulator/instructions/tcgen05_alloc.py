"""tcgen05.alloc, .dealloc, .relinquish_alloc_permit and .fence.

Source: PTX ISA 9.1, sections 9.7.16.7 (allocation) and 9.7.16.11 (fences).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.instructions.tcgen05_pipe import (
    group_of,
    require_group,
    take_cta_group,
    take_sync_aligned,
    whole_warp,
)
from fa4gen.emulator.memory import SHARED_WINDOW, WINDOW_MASK
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import ordinary
from fa4gen.emulator.tensor_memory import (
    COLUMNS,
    MIN_COLUMNS,
    TensorMemory,
    split_address,
    tensor_memory,
)
from fa4gen.emulator.warp import Signal, Wait

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_PAIR_KEY = "tcgen05.alloc of the pair"
_LOW_HALF = 0xFFFFFFFF


@dataclass(slots=True, eq=False)
class _Request:
    """An allocation that a warp of one or both CTAs of a group has asked for."""

    memories: tuple[TensorMemory, ...]
    count: int
    places: dict[int, Place] = field(default_factory=dict)
    """By rank of the CTA, once its warp has come."""
    column: int | None = None

    def settle(self) -> bool:
        """Whether everyone has come and columns were free, now or before."""
        if self.column is None and len(self.places) == len(self.memories):
            self.column = self.memories[0].free_column(self.count, self.memories[-1])
            if self.column is not None:
                for memory, place in zip(self.memories, self._ordered_places(), strict=True):
                    memory.take(self.column, self.count, place)
        return self.column is not None

    def _ordered_places(self) -> list[Place]:
        return [self.places[rank] for rank in sorted(self.places)]


class _AllocationWait(Wait):
    """For columns, or for the peer's warp."""

    def __init__(self, request: _Request) -> None:
        self._request = request

    def ready(self) -> bool:
        return self._request.settle()

    def describe(self) -> str:
        request = self._request
        if len(request.places) < len(request.memories):
            return "tcgen05.alloc of the peer CTA: with cta_group::2 a warp of each must execute it"
        return f"{request.count} free columns of {request.memories[0].name}"


@instruction("tcgen05.alloc", pipe=Pipe.TMEM, isa="9.7.16.7.1")
def alloc(b: Builder) -> Op:
    """Lend columns to the CTA, or the same to both of a pair; their address goes to shared memory.

    With ``cta_group::2`` a warp of each CTA takes part, and the first may block until the second
    comes (PTX ISA 9.7.16.5, table 46): here it always does.
    """
    cta_group = take_cta_group(b)
    take_sync_aligned(b)
    b.mods.ignore("shared::cta", "b32")
    target, columns = b.expect(2)
    address, count = b.address(target), b.reader(columns, 32)

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        where = _shared_address(warp, int(address(warp)[0]))
        wanted = count(warp)
        if (wanted != wanted[0]).any():
            raise warp.fault("tcgen05.alloc: got different numbers of columns in different lanes")
        require_group(warp, cta_group)
        request = _request(warp, cta_group, int(wanted[0]))
        if not request.settle():
            return _AllocationWait(request)
        del warp.state[_PAIR_KEY]
        _store_address(warp, where, request.column or 0)
        return None

    return run


def _request(warp: Warp, cta_group: int, count: int) -> _Request:
    """What the warp has asked for; at its first coming the rules are checked."""
    known = warp.state.get(_PAIR_KEY)
    if known is not None:
        assert isinstance(known, _Request)  # nobody else uses the key
        return known
    ctas = group_of(warp, cta_group)
    _check_count(warp, count)
    open_requests: list[_Request] = ctas[0].state.setdefault(_PAIR_KEY, [])
    rank = warp.cta.rank
    for request in open_requests:
        if rank not in request.places:
            open_requests.remove(request)
            break
    else:
        request = _Request(tuple(tensor_memory(cta) for cta in ctas), count)
        if len(ctas) > 1:
            open_requests.append(request)
    if request.count != count:
        other = next(iter(request.places.values()))
        warp.report(
            FindingKind.RESOURCE,
            f"tcgen05.alloc: got {count} columns, the peer CTA asks for {request.count}",
            other,
        )
    request.places[rank] = warp.place()
    warp.state[_PAIR_KEY] = request
    return request


def _check_count(warp: Warp, count: int) -> None:
    """The rules of PTX ISA 9.7.16.7.1 and 9.7.16.1.2.

    Raises:
        KernelFault: no power of two from 32 to 512.
    """
    if count & (count - 1) or not MIN_COLUMNS <= count <= COLUMNS:
        raise warp.fault(
            f"tcgen05.alloc: got {count} columns, allowed: a power of two from {MIN_COLUMNS} to "
            f"{COLUMNS}"
        )
    memory = tensor_memory(warp.cta)
    if memory.relinquished is not None:
        warp.report(
            FindingKind.RESOURCE,
            "tcgen05.alloc after tcgen05.relinquish_alloc_permit: the CTA may not allocate again",
            memory.relinquished,
        )
    if count > memory.last_count:
        warp.report(
            FindingKind.RESOURCE,
            f"tcgen05.alloc: got {count} columns after an allocation of {memory.last_count}; sizes "
            "of successive allocations must not increase",
        )


def _shared_address(warp: Warp, address: int) -> int:
    """The shared address of a shared or generic one.

    Raises:
        KernelFault: a generic address outside shared memory.
    """
    if address > _LOW_HALF and address & WINDOW_MASK != SHARED_WINDOW:
        raise warp.fault(f"tcgen05.alloc: got address {address:#x}, must be in shared memory")
    return address & _LOW_HALF


def _store_address(warp: Warp, where: int, column: int) -> None:
    """An ordinary weak store by one lane (PTX ISA 9.7.16.7.1, 9.7.16.6.1)."""
    warp.mask = np.arange(32) == 0
    try:
        addresses = np.full(32, where, np.uint64)
        warp.cta.shared.write(warp, addresses, 32, np.full((1, 32), column, np.uint32))
    finally:
        warp.mask = None


@instruction("tcgen05.dealloc", pipe=Pipe.TMEM, isa="9.7.16.7.1")
def dealloc(b: Builder) -> Op:
    """Give back exactly what one ``tcgen05.alloc`` lent.

    With ``cta_group::2`` each CTA gives back its own; whether the first waits for the second is
    open (PTX ISA 9.7.16.5, table 48), so here it does not.
    """
    cta_group = take_cta_group(b)
    take_sync_aligned(b)
    b.mods.ignore("b32")
    address, columns = b.expect(2)
    start, count = b.src(address, 32), b.reader(columns, 32)

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        lane, column = split_address(warp.uniform(start, "tcgen05.dealloc: address"))
        wanted = int(count(warp)[0])
        require_group(warp, cta_group)
        memory = tensor_memory(warp.cta)
        loan = memory.allocations.get(column)
        if loan is None or lane or loan.count != wanted:
            loans = [f"{a.count} from {a.column} on" for a in memory.allocations.values()]
            warp.report(
                FindingKind.RESOURCE,
                f"{memory.name}: tcgen05.dealloc: got {wanted} columns from lane {lane}, column "
                f"{column} on, allocated: {'; '.join(loans) or 'none'}",
            )
        if loan is not None:
            memory.give_back(column, ordinary(warp))
        warp.cta.cluster.progress += 1
        return None

    return run


@instruction("tcgen05.relinquish_alloc_permit", pipe=Pipe.NONE, isa="9.7.16.7.1")
def relinquish(b: Builder) -> Op:
    """Promise that the CTA allocates no more."""
    cta_group = take_cta_group(b)
    take_sync_aligned(b)
    b.expect(0)

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        require_group(warp, cta_group)
        tensor_memory(warp.cta).relinquished = warp.place()
        return None

    return run


@instruction(
    "tcgen05.fence::before_thread_sync",
    "tcgen05.fence::after_thread_sync",
    pipe=Pipe.NONE,
    isa="9.7.16.11",
)
def fence(b: Builder) -> Op:
    """Join tcgen05 work to the synchronisation of threads.

    No effect: kernels known to be right on hardware omit these fences around mbarriers and named
    barriers, so the race checks do not demand them.
    """
    b.expect(0)
    return lambda warp: None
