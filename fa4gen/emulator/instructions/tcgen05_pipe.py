"""What the tcgen05 instructions of one warp share: their order, and the CTA pair they work on.

A warp's ``tcgen05.mma`` and ``tcgen05.cp`` complete in the order in which they were issued. The ISA
promises that for fewer pairs than kernels need: mma after mma only for the same accumulator, shape
and kind, and cp before mma (PTX ISA 9.7.16.6.2). FlashAttention-4 reads P from tensor memory in one
product and overwrites these very columns with the next block's S = QK, with no commit in between;
CUTLASS's block-scaled GEMM overwrites scale factors with the next copy likewise. Both are known to
be right on hardware, so the order is kept for all pairs. Work of different warps, and everything
else, needs a commit (or ``wait::ld``, ``wait::st``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.shared import asynchronous
from fa4gen.emulator.warp import Wait

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cta
    from fa4gen.emulator.warp import Warp

_KEY = "tcgen05"
_GROUP_KEY = "tcgen05 cta_group"


@dataclass(slots=True)
class Issued:
    """An mma or a cp: its number among those of its warp, and the work itself."""

    number: int
    op: AsyncOp


@dataclass(slots=True)
class Commit:
    """A commit, what it waits for, and its arrivals: later ones that wait for no more join it."""

    op: AsyncOp
    covered: Issued | None
    arrivals: list[Callable[[], None]]


@dataclass(slots=True)
class TensorPipe:
    """What one warp has issued to the tensor core.

    Attributes:
        count: Operations so far: the clock of :attr:`Source.TENSOR`.
        last: The latest.
        last_lane: The lane that issued it.
        by_lane: The latest of each lane; a commit covers those of its own lane only.
        commits: The latest commit of each lane.
        cta_group: What the kernel was seen to use; 0 before the first.
    """

    count: int = 0
    last: Issued | None = None
    last_lane: int = -1
    by_lane: dict[int, Issued] = field(default_factory=dict)
    commits: dict[int, Commit] = field(default_factory=dict)
    cta_group: int = 0

    def next_access(self, warp: Warp) -> Access:
        """The accesses of the operation about to be submitted.

        It may rely on what the warp knows now, and on its pipe's earlier operations.
        """
        self.count += 1
        access = asynchronous(warp, Source.TENSOR, self.count)
        access.vector[access.stamp[0]] = self.count
        return access

    def submit(
        self,
        warp: Warp,
        lane: int,
        perform: Callable[[], None],
        label: str,
        size: tuple[int, ...] = (),
    ) -> None:
        """Put the operation whose access was asked for last behind the others of the warp."""
        after = (self.last.op,) if self.last else ()
        op = AsyncOp(warp.place(), perform, after, label, size)
        self.last = self.by_lane[lane] = Issued(self.count, op)
        self.last_lane = lane
        warp.cta.cluster.engine.submit(op)


def pipe_of(warp: Warp, cta_group: int) -> TensorPipe:
    """The pipe of ``warp``.

    Raises:
        KernelFault: the kernel has used another ``.cta_group`` (PTX ISA 9.7.16.5: all tcgen05
            instructions of a kernel must have the same).
    """
    pipe = warp.state.get(_KEY)
    if pipe is None:
        pipe = warp.state[_KEY] = TensorPipe()
    assert isinstance(pipe, TensorPipe)  # nobody else uses the key
    if pipe.cta_group != cta_group:
        require_group(warp, cta_group)
        pipe.cta_group = cta_group
    return pipe


def require_group(warp: Warp, cta_group: int) -> None:
    """Hold the kernel to one ``.cta_group``.

    Raises:
        KernelFault: it has used another.
    """
    state = warp.cta.cluster.ctas[0].state
    group, place = state.setdefault(_GROUP_KEY, (cta_group, warp.place()))
    if group != cta_group:
        raise warp.fault(
            f"tcgen05: got cta_group::{cta_group}, but PTX line {place.instruction.line} has "
            f"cta_group::{group}; all tcgen05 instructions of a kernel must have the same"
        )


def group_of(warp: Warp, cta_group: int) -> tuple[Cta, ...]:
    """The CTAs that an instruction of ``warp`` works on, the even one of a pair first.

    CTAs whose ranks differ in the last bit are a pair (PTX ISA 9.7.16.5.1).

    Raises:
        KernelFault: there is no such pair in the cluster.
    """
    if cta_group == 1:
        return (warp.cta,)
    ctas, even = warp.cta.cluster.ctas, warp.cta.rank & ~1
    if even + 1 >= len(ctas):
        raise warp.fault(
            f"cta_group::2: got CTA {warp.cta.rank} of a cluster of {len(ctas)}, which has no peer"
        )
    return ctas[even], ctas[even + 1]


def require_running(warp: Warp, ctas: tuple[Cta, ...]) -> None:
    """Report a peer that has exited: it must be active when a pair's operation is issued.

    Source: PTX ISA 9.7.16.5, table 46.
    """
    for cta in ctas:
        if cta.ended:
            warp.report(
                FindingKind.RESOURCE,
                f"cta_group::2: the peer, CTA {cta.linear_index}, has exited already",
            )


def whole_warp(warp: Warp) -> Wait | None:
    """The wait to return until all lanes are together; ``None`` once they are.

    Raises:
        KernelFault: some lanes are predicated off or have exited: ``.sync.aligned`` wants all 32.
    """
    wait = warp.together()
    if wait is None and warp.mask is not None:
        raise warp.fault(
            f"got {int(warp.mask.sum())} active lanes, .sync.aligned needs all 32 of the warp"
        )
    return wait


def take_cta_group(b: Builder) -> int:
    """The ``.cta_group`` modifier, which the instruction must have."""
    found = b.mods.one_of("cta_group::1", "cta_group::2")
    if not found:
        b.fail("got no .cta_group")
    return int(found[-1])


def take_sync_aligned(b: Builder) -> None:
    """The modifiers ``.sync.aligned``, which the instruction must have."""
    if not (b.mods.flag("sync") and b.mods.flag("aligned")):
        b.fail("got no .sync.aligned")
