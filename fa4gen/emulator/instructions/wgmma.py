"""wgmma: the asynchronous matrix multiply of Hopper, by four warps together.

Each warp computes its own 16 of the 64 rows. The accumulator's registers hold
:class:`~fa4gen.emulator.pending.InFlight` values from issue until their first use. A use before the
warp has waited for the group is caught whatever the policy; only a ``wgmma`` that accumulates into
all of them in the same order may take them on. A use behind the wait brings the values, and wants a
``wgmma.fence`` before the next ``wgmma`` on these registers (9.7.15.7.1); without one, none is due.

Registers that feed A are captured at issue: overwriting one before the wait goes unnoticed.

Source: PTX ISA 9.1, section 9.7.15.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.instructions.wgmma_product import ELEMENT_BITS, K_BYTES, Shape, multiply
from fa4gen.emulator.pending import InFlight
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shared import asynchronous
from fa4gen.emulator.warp import Signal, Wait, Warp
from fa4gen.ptx.ir import Immediate, Vector

WARPGROUP = 4
"""Warps of a warpgroup."""


@dataclass(slots=True)
class _Groups:
    """The wgmma groups of one warp.

    Attributes:
        fenced: The registers as the last ``wgmma.fence`` found them; ``None`` before the first.
    """

    committed: int = 0
    fenced: list[Any] | None = None
    open: list[_Product] = field(default_factory=list)
    closed: list[tuple[int, list[_Product]]] = field(default_factory=list)
    issued: int = 0


class _Product:
    """One warp's part of one wgmma.

    Attributes:
        over: Whether the warp has waited for it.
    """

    __slots__ = ("op", "over", "place", "results")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.results: npt.NDArray[np.uint32] | None = None
        self.op: AsyncOp | None = None
        self.over = False

    def deliver(self, warp: Warp, value: InFlight) -> npt.NDArray[np.uint32]:
        """A register of the accumulator is used: bring all of them, and return its value.

        Raises:
            KernelFault: before the wait.
        """
        if self.results is None or not self.over:
            raise warp.fault(
                f"{warp.instruction.opcode}: uses the accumulator of the wgmma at PTX line "
                f"{self.place.instruction.line} before wgmma.wait_group has waited for it"
            )
        regs = warp.regs
        for slot, each in enumerate(regs):
            if each.__class__ is InFlight and each.owner is self:
                regs[slot] = self.results[each.part]
        return cast(npt.NDArray[np.uint32], self.results[value.part])

    def __str__(self) -> str:
        return f"the wgmma at PTX line {self.place.instruction.line}"


@instruction("wgmma.mma_async", pipe=Pipe.TENSOR, isa="9.7.15.5.2")
def mma_async(b: Builder) -> Op:
    """``D = A B`` or ``D = A B + D``."""
    shape = _shape(b)
    d, a, b_descriptor, *rest = b.inst.operands
    d_slots = b.dsts(d, 32)
    wanted = shape.n // (2 if shape.d_type == "f32" else 4)
    if len(d_slots) != wanted:
        b.fail(f"got {len(d_slots)} accumulator registers, N = {shape.n} has {wanted}")
    a_slots = b.srcs(a, 32) if shape.a_in_registers else (b.src(a, 64),)
    b_slot = b.src(b_descriptor, 64)
    scale_d = b.predicate(rest[0])

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        use_d = scale_d(warp)
        if use_d.any() != use_d.all():
            raise warp.fault("wgmma: scale-d differs between lanes")
        groups = _groups(warp)
        before, c = _accumulator(warp, d_slots) if use_d[0] else (None, None)
        a_value: Any
        if shape.a_in_registers:
            a_value = np.stack([warp.regs[slot] for slot in a_slots])
        else:
            a_value = warp.uniform(a_slots[0], "wgmma: descriptor of A")
        b_value = warp.uniform(b_slot, "wgmma: descriptor of B")
        key = (warp.pc, b_value, None if shape.a_in_registers else a_value, bool(use_d[0]))
        _agree(warp, groups, key)
        _check_fence(warp, groups, (*d_slots, *(a_slots if shape.a_in_registers else ())))
        product = _Product(warp.place())
        access = asynchronous(warp, Source.WGMMA, groups.committed + 1)

        def perform() -> None:
            start = before.results if before is not None else c
            product.results = multiply(warp, shape, access, a_value, b_value, start)

        after = (before.op,) if before is not None and before.op is not None else ()
        label = f"wgmma m64n{shape.n}k{shape.k}"
        product.op = AsyncOp(product.place, perform, after, label, (16, shape.n, shape.k))
        warp.cta.cluster.engine.submit(product.op)
        groups.open.append(product)
        for part, slot in enumerate(d_slots):
            warp.regs[slot] = InFlight(product, part)
        return None

    return run


@instruction("wgmma.fence", pipe=Pipe.NONE, isa="9.7.15.7.1")
def fence(b: Builder) -> Op:
    """Orders register accesses before with the wgmmas behind."""
    _aligned(b)

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        _groups(warp).fenced = warp.regs.copy()
        return None

    return run


@instruction("wgmma.commit_group", pipe=Pipe.CONTROL, isa="9.7.15.7.2")
def commit_group(b: Builder) -> Op:
    """Close the group of the wgmmas so far."""
    _aligned(b)

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        groups = _groups(warp)
        groups.committed += 1
        groups.closed.append((groups.committed, groups.open))
        groups.open = []
        return None

    return run


@instruction("wgmma.wait_group", pipe=Pipe.CONTROL, isa="9.7.15.7.3")
def wait_group(b: Builder) -> Op:
    """Wait until at most N groups are outstanding; their accumulators are there then.

    A group is its warpgroup's (9.7.15.7.2), so that the wait is over for the parts of all four
    warps: CUTLASS's fmha for Hopper then overwrites operands that another warp has multiplied.
    """
    _aligned(b)
    (pending,) = b.expect(1)
    if not isinstance(pending, Immediate):
        b.fail("the number of groups must be a literal")
    allowed = pending.value

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        groups = _groups(warp)
        last = groups.committed - allowed
        peers = _warpgroup(warp)
        if not (behind := _PeersWait(peers, last)).ready():
            return behind
        for peer in peers:
            _complete(peer, last)
            component = peer.agent.source(Source.WGMMA)
            warp.agent.vector[component] = max(int(warp.agent.vector[component]), last)
        for number, products in groups.closed:
            for product in products:
                product.over = product.over or number <= last
        groups.closed = [entry for entry in groups.closed if entry[0] > last]
        return None

    return run


def _shape(b: Builder) -> Shape:
    b.mods.ignore("sync", "aligned")
    text = next((part for part in b.mods.left if re.fullmatch(r"m64n\d+k\d+", part)), "")
    if not b.mods.flag(text):
        b.fail("got no shape m64nNkK")
    n, k = map(int, re.findall(r"\d+", text)[1:])
    d_type, a_type, b_type = b.mods.type(), b.mods.type(), b.mods.type()
    if d_type not in ("f32", "f16") or a_type not in ELEMENT_BITS or b_type not in ELEMENT_BITS:
        b.fail(f"got types {d_type} += {a_type} x {b_type}, known: f32 or f16 += 16-bit, tf32, fp8")
    if k * ELEMENT_BITS[a_type] != 8 * K_BYTES or n % 8 or not 8 <= n <= 256:  # noqa: PLR2004
        b.fail(f"got m64n{n}k{k} of {a_type}; N is 8 to 256 in steps of 8, K is {K_BYTES} bytes")
    in_registers = isinstance(b.inst.operands[1], Vector)
    literals = [op.value for op in b.inst.operands[4:] if isinstance(op, Immediate)]
    majors = 0 if ELEMENT_BITS[a_type] != 16 else 1 if in_registers else 2  # noqa: PLR2004
    if len(literals) != 2 + majors:
        b.fail(f"got {len(literals)} literals behind scale-d, known with {2 + majors}")
    a_major = bool(literals[2]) if majors == 2 else False  # noqa: PLR2004
    b_major = bool(literals[-1]) if majors else False
    return Shape(
        n,
        k,
        cast(Literal["f32", "f16"], d_type),
        a_type,
        b_type,
        in_registers,
        literals[0],
        literals[1],
        a_major,
        b_major,
    )


def _warpgroup(warp: Warp) -> list[Warp]:
    first = warp.index - warp.index % WARPGROUP
    return warp.cta.warps[first : first + WARPGROUP]


def _complete(warp: Warp, last: int) -> None:
    """Have a warp's part of all groups up to ``last`` done."""
    for number, products in _groups(warp).closed:
        for product in products:
            if number <= last and product.op is not None:
                warp.cta.cluster.engine.force(product.op)


class _PeersWait(Wait):
    """For the other warps of a warpgroup to commit a group, too."""

    def __init__(self, peers: list[Warp], last: int) -> None:
        self._peers, self._last = peers, last

    def ready(self) -> bool:
        return all(each.done or _groups(each).committed >= self._last for each in self._peers)

    def describe(self) -> str:
        behind = [each.index for each in self._peers if _groups(each).committed < self._last]
        return f"warps {behind} of its warpgroup to commit wgmma group {self._last}, too"


def _aligned(b: Builder) -> None:
    b.mods.ignore("sync", "aligned")


def _groups(warp: Warp) -> _Groups:
    groups = warp.state.get("wgmma")
    if groups is None:
        groups = warp.state["wgmma"] = _Groups()
    return groups


def _accumulator(
    warp: Warp, slots: tuple[int, ...]
) -> tuple[_Product | None, npt.NDArray[np.uint32] | None]:
    """What D holds: the product it is still waiting for, or its values ``(registers, 32)``."""
    values = [warp.regs[slot] for slot in slots]
    first = values[0]
    if not isinstance(first, InFlight):
        return None, np.stack(values)
    same = all(
        isinstance(v, InFlight) and v.owner is first.owner and v.part == i
        for i, v in enumerate(values)
    )
    if not same or not isinstance(first.owner, _Product):
        raise warp.fault(
            "wgmma: accumulates into registers of which some are still written by another wgmma of "
            "another shape or order"
        )
    return first.owner, None


def _agree(warp: Warp, groups: _Groups, key: tuple[Any, ...]) -> None:
    """Check that the four warps of the warpgroup issue the same wgmma."""
    groups.issued += 1
    issues = warp.cta.state.setdefault("wgmma", {})
    at = (warp.index // WARPGROUP, groups.issued)
    first = issues.setdefault(at, [key, 0])
    if first[0] != key:
        raise warp.fault(
            f"wgmma: warp {warp.index} issues another wgmma, or with other descriptors, than the "
            "warps of its warpgroup before it"
        )
    first[1] += 1
    if first[1] == WARPGROUP:
        del issues[at]


def _check_fence(warp: Warp, groups: _Groups, slots: tuple[int, ...]) -> None:
    """Registers must not be touched between the last fence and a wgmma that uses them.

    Values are never changed in place, so one that was there at the fence is the same object, and
    accumulators that nobody has touched since a wgmma are in flight. Literals are let pass: NVVM 23
    moves the clearing of an accumulator behind the fence, as in CUTLASS's dense_gemm_persistent.
    """
    before = groups.fenced
    if before is None:
        warp.report(FindingKind.RACE, "wgmma: no wgmma.fence before")
        return
    for slot in slots:
        value = warp.regs[slot]
        if value is before[slot] or value.__class__ is InFlight:
            continue
        if any(value is literal for literal in warp.program.constants.values()):
            continue
        name = warp.program.entry.registers[slot].name
        warp.report(FindingKind.RACE, f"wgmma: {name} was touched since the last wgmma.fence")
        return
