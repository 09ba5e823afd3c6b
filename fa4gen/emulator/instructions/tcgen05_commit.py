"""tcgen05.commit: an mbarrier hears when a thread's tcgen05.mma and .cp are over.

The commits of one thread arrive in the order in which they were issued: the ISA does not say so,
but FlashAttention-4 ends with nobody waiting for its commit of Q, as a later one has arrived.
Commits with no mma or cp in between wait for the same, so that they arrive together: CUTLASS's fmha
for Blackwell ends with nobody waiting for the last of three, and its GEMMs with nobody waiting for
the commits of their stages.

Source: PTX ISA 9.1, sections 9.7.16.12 and 9.7.16.6.4 (it contains ``fence::before_thread_sync``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.barriers import MBarrier, mbarrier_at
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.instructions.tcgen05_pipe import Commit, pipe_of, take_cta_group
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import target

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_MASK_BITS = 16


@instruction("tcgen05.commit", pipe=Pipe.BARRIER, isa="9.7.16.12.1")
def commit(b: Builder) -> Op:
    """One arrival, when all mma and cp that the thread has issued are over.

    With ``.multicast::cluster`` it goes to the mbarrier at the same offset in each CTA of the mask.
    A thread is a lane: a commit elected to another lane than the mma before it would not wait for
    that, which is reported.
    """
    cta_group = take_cta_group(b)
    if not b.mods.flag("mbarrier::arrive::one"):
        b.fail("got no .mbarrier::arrive::one")
    multicast = b.mods.flag("multicast::cluster")
    space = b.mods.one_of("shared::cluster")
    b.mods.ignore("b64")
    operands = b.expect(2 if multicast else 1)
    address = b.address(operands[0])
    mask = b.reader(operands[1], _MASK_BITS) if multicast else None

    def run(warp: Warp) -> None:
        addresses = address(warp)
        masks = None if mask is None else mask(warp)
        for lane in warp.lanes():
            ranks = None if masks is None else int(masks[lane])
            _commit(warp, lane, cta_group, _barriers(warp, int(addresses[lane]), space, ranks))

    return run


def _commit(warp: Warp, lane: int, cta_group: int, barriers: list[MBarrier]) -> None:
    pipe = pipe_of(warp, cta_group)
    covered = pipe.by_lane.get(lane)
    if pipe.last is not None and pipe.last_lane != lane:
        warp.report(
            FindingKind.BARRIER,
            f"tcgen05.commit by lane {lane}, but the last tcgen05.mma or .cp was issued by lane "
            f"{pipe.last_lane}; a commit waits for its own thread's only",
            pipe.last.op.place,
        )
    vector, place = warp.agent.release(), warp.place()
    if covered is not None:
        component = warp.agent.source(Source.TENSOR)
        vector[component] = max(int(vector[component]), covered.number)

    def arrive() -> None:
        for barrier in barriers:
            barrier.arrive(1, vector, place)

    engine, earlier = warp.cta.cluster.engine, pipe.commits.get(lane)
    joins = earlier is not None and earlier.covered is covered
    if earlier is not None and joins and not earlier.op.done:
        earlier.arrivals.append(arrive)
        return
    arrivals = [arrive]

    def perform() -> None:
        for each in arrivals:
            each()

    before = covered.op if covered else None, earlier.op if earlier else None
    op = AsyncOp(place, perform, tuple(each for each in before if each is not None), "commit")
    pipe.commits[lane] = Commit(op, covered, arrivals)
    engine.submit(op)
    if joins:
        engine.force(op)


def _barriers(warp: Warp, address: int, space: str, ranks: int | None) -> list[MBarrier]:
    """The mbarriers to arrive at: the one at ``address``, or those of the CTAs in a mask.

    Raises:
        KernelFault: no mbarrier there, or no such CTA in the cluster.
    """
    shared, offset = target(warp, address, space)
    if ranks is None:
        return [mbarrier_at(warp, shared, offset)]
    ctas = warp.cta.cluster.ctas
    if not ranks or ranks >> len(ctas):
        raise warp.fault(
            f"tcgen05.commit: got a mask of CTAs {ranks:#06x}, the cluster has {len(ctas)}"
        )
    return [mbarrier_at(warp, cta.shared, offset) for cta in ctas if ranks >> cta.rank & 1]
