"""Cluster launch control: a running cluster takes over the work of one that has not begun.

The queue is the grid's clusters that have not started. Clusters run one after the other here, so a
request could always be granted until none is left; under ``seed:N`` some are refused, as hardware
refuses when it has started the cluster itself.

Source: PTX ISA 9.1, sections 9.7.13.17 (try_cancel) and 9.7.13.18 (query_cancel). The bits of the
response are those that ptxas's code for ``query_cancel`` looks at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import LANES, Builder
from fa4gen.emulator.copies import Route, guard, shared_address, span_cells
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.warp import Warp

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cluster

RESPONSE_BYTES = 16
_GRANTED = 1
"""Bit 64 of a response, bit 0 of its upper half."""
_NOBODY = 0xA5A5A5A5
"""Coordinates of a refused request, which PTX leaves undefined."""
_STATE = "launch control"
_WIDE = 128


@instruction("clusterlaunchcontrol.try_cancel", pipe=Pipe.BARRIER, isa="9.7.13.17")
def try_cancel(b: Builder) -> Op:
    """Ask for a cluster; 16 bytes of response go to shared memory and to an mbarrier."""
    if not b.mods.flag("async") or not b.mods.flag("mbarrier::complete_tx::bytes"):
        b.fail("known with .async and .mbarrier::complete_tx::bytes only")
    everyone = b.mods.flag("multicast::cluster::all")
    space = b.mods.one_of("shared::cta", default="")
    b.mods.ignore("b128")
    response, told = b.expect(2)
    dst, barrier = b.address(response), b.address(told)
    route = Route("shared::cluster", multicast=everyone)

    def run(warp: Warp) -> None:
        where, barriers = dst(warp), barrier(warp)
        for lane in warp.lanes():
            _ask(warp, route, space, int(where[lane]), int(barriers[lane]))

    return run


@instruction("clusterlaunchcontrol.query_cancel.is_canceled", pipe=Pipe.ALU, isa="9.7.13.18")
def is_canceled(b: Builder) -> Op:
    """Whether a response says that the request was granted."""
    b.mods.ignore("pred", "b128")
    destination, response = b.expect(2)
    dst, src = b.dst(destination, 1), b.src(response, _WIDE)

    def run(warp: Warp) -> None:
        warp.write(dst, (warp.regs[src][:, 1] & np.uint64(_GRANTED)) != 0)

    return run


@instruction(
    "clusterlaunchcontrol.query_cancel.get_first_ctaid",
    *(f"clusterlaunchcontrol.query_cancel.get_first_ctaid::{axis}" for axis in "xyz"),
    pipe=Pipe.ALU,
    isa="9.7.13.18",
)
def get_first_ctaid(b: Builder) -> Op:
    """``%ctaid`` of the first CTA of the cluster that was handed over.

    Kernels read it before they look whether the request was granted; then it is garbage.
    """
    vector = b.mods.flag("v4")
    b.mods.ignore("b32", "b128")
    destination, response = b.expect(2)
    slots, src = b.dsts(destination, 32), b.src(response, _WIDE)
    axis = b.inst.parts[2].partition("::")[2]
    if len(slots) != (4 if vector else 1) or vector == bool(axis):
        b.fail(f"got {len(slots)} destinations")
    axes = range(3) if vector else ("xyz".index(axis),)

    def run(warp: Warp) -> None:
        words = np.ascontiguousarray(warp.regs[src]).view(np.uint16).reshape(LANES, 8)
        low = np.ascontiguousarray(words[:, :2]).view(np.uint32).ravel()
        values = (low, words[:, 2].astype(np.uint32), words[:, 3].astype(np.uint32))
        granted = (words[:, 4] & _GRANTED) != 0
        for slot, at in zip(slots, axes, strict=False):
            warp.write(slot, np.where(granted, values[at], np.uint32(_NOBODY)))

    return run


def _ask(warp: Warp, route: Route, space: str, address: int, barrier: int) -> None:
    cluster = warp.cta.cluster
    refused: list[tuple[int, int]] = cluster.ctas[0].state.setdefault(_STATE, [])
    if any(warp.agent.vector[source] >= clock for source, clock in refused):
        warp.report(
            FindingKind.BARRIER,
            "clusterlaunchcontrol.try_cancel: got another request after the response to one before "
            "was seen to be a refusal",
        )
    address = shared_address(warp, address, space)
    barrier = shared_address(warp, barrier, space)
    if address % RESPONSE_BYTES:
        raise warp.fault(f"got a response at {address:#x}, allowed: multiples of {RESPONSE_BYTES}")
    landings = route.landings(warp, address, barrier, (1 << len(cluster.ctas)) - 1)
    for landing in landings:
        guard(warp, landing.shared, landing.offset, landing.offset + RESPONSE_BYTES)
    vector, place = warp.agent.vector.copy(), warp.place()

    def perform() -> None:
        response = _decide(cluster)
        for landing in landings:
            end = landing.offset + RESPONSE_BYTES
            landing.shared.data[landing.offset : end] = response
            if not response[8] & _GRANTED:
                refused.append(landing.barrier.stamp)
            landing.complete(span_cells(landing.offset, end), RESPONSE_BYTES, vector, place)

    cluster.engine.submit(AsyncOp(place, perform, label="cluster launch control response"))


def _decide(cluster: Cluster) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """A response: a cluster that has not begun and now never will, or a refusal."""
    waiting = cluster.grid.unstarted
    if not waiting or cluster.refuses():
        return np.zeros(RESPONSE_BYTES, np.uint8)
    x, y, z = waiting.pop(0)
    image = x | y << 32 | z << 48 | _GRANTED << 64
    return np.frombuffer(image.to_bytes(RESPONSE_BYTES, "little"), np.uint8)
