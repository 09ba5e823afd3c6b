"""Clusters: their barrier, and addresses in the shared memory of other CTAs.

Source: PTX ISA 9.1, sections 9.7.13.3 (barrier.cluster), 9.7.9.23 (mapa), 9.7.9.24 (getctarank).
The bits of an address are those that ptxas computes: see :mod:`fa4gen.emulator.shared`.
"""

from __future__ import annotations

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.memory import SHARED_WINDOW, WINDOW_MASK
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.rendezvous import ClusterWait
from fa4gen.emulator.shared import OFFSET_MASK, RANK_SHIFT
from fa4gen.emulator.warp import Signal, Warp

_HERE = "cluster barrier"
_RANK_MASK = 0xFF
_WIDE = 64


@instruction("barrier.cluster.arrive", pipe=Pipe.BARRIER, isa="9.7.13.3")
def arrive(b: Builder) -> Op:
    """Count the warp in; what it did before is released unless ``.relaxed``."""
    b.mods.ignore("aligned")
    relaxed = b.mods.one_of("release", "relaxed") == "relaxed"
    b.expect(0)

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        warp.state[_HERE] = warp.cta.cluster.barrier.arrive(warp, relaxed)
        return None

    return run


@instruction("barrier.cluster.wait", pipe=Pipe.BARRIER, isa="9.7.13.3")
def wait(b: Builder) -> Op:
    """Wait for all warps of the cluster that have not ended, and take over what they released."""
    b.mods.ignore("aligned", "acquire")
    b.expect(0)

    def run(warp: Warp) -> Signal | None:
        if (blocked := warp.together()) is not None:
            return blocked
        generation: int | None = warp.state.get(_HERE)
        if generation is None:
            raise warp.fault("barrier.cluster.wait: got no barrier.cluster.arrive before it")
        barrier = warp.cta.cluster.barrier
        if barrier.generation <= generation:
            return ClusterWait(barrier, generation)
        del warp.state[_HERE]
        barrier.acquire(warp)
        warp.cta.cluster.trace_pass(warp, ("cluster", generation))
        return None

    return run


@instruction("mapa", pipe=Pipe.ALU, isa="9.7.9.23")
def mapa(b: Builder) -> Op:
    """The address of the same byte in another CTA of the cluster."""
    generic = not b.mods.flag("shared::cluster")
    width = _take_width(b)
    if generic and width != _WIDE:
        b.fail("a generic address has 64 bits")
    destination, address, rank = b.expect(3)
    dst, src, other = b.dst(destination, width), b.src(address, width), b.src(rank, 32)
    dtype = np.dtype(f"u{width // 8}").type
    keep, window = dtype(OFFSET_MASK), dtype(SHARED_WINDOW if generic else 0)

    def run(warp: Warp) -> None:
        addresses, ranks = warp.regs[src], warp.regs[other].astype(dtype)
        if generic:
            _check_window(warp, addresses)
        moved = (addresses & keep) | (ranks & dtype(_RANK_MASK)) << dtype(RANK_SHIFT)
        warp.write(dst, moved | window)

    return run


@instruction("getctarank", pipe=Pipe.ALU, isa="9.7.9.24")
def getctarank(b: Builder) -> Op:
    """The rank of the CTA that an address of shared memory lies in."""
    generic = not b.mods.flag("shared::cluster")
    width = _take_width(b)
    destination, address = b.expect(2)
    dst, src = b.dst(destination, 32), b.src(address, width)
    shift, keep = np.uint64(RANK_SHIFT), np.uint64(_RANK_MASK)

    def run(warp: Warp) -> None:
        addresses = warp.regs[src].astype(np.uint64)
        if generic:
            _check_window(warp, addresses)
        warp.write(dst, (addresses >> shift & keep).astype(np.uint32))

    return run


def _take_width(b: Builder) -> int:
    kind = b.mods.one_of("u32", "u64")
    if not kind:
        b.fail("got no .u32 or .u64")
    return int(kind[1:])


def _check_window(warp: Warp, addresses: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> None:
    active = addresses if warp.mask is None else addresses[warp.mask]
    outside = (active & np.uint64(WINDOW_MASK)) != np.uint64(SHARED_WINDOW)
    if outside.any():
        at = int(active[outside.argmax()])
        raise warp.fault(f"got the generic address {at:#x}, which is not in shared memory")
