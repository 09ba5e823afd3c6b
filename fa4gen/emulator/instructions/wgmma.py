"""wgmma: the asynchronous matrix multiply of Hopper, by four warps together.

Each warp computes its own 16 of the 64 rows. The accumulator's registers hold
:class:`~fa4gen.emulator.pending.InFlight` values from issue until the warp waits for the group, so
any use in between is caught whatever the policy; only a ``wgmma`` that accumulates into all of them
in the same order may take them on.

Registers that feed A are captured at issue: overwriting one before the wait goes unnoticed.

Source: PTX ISA 9.1, section 9.7.15.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, cast

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.layouts.fragments import (
    accumulator,
    fragment_to_matrix,
    matrix_to_fragment,
    operand_a,
)
from fa4gen.emulator.layouts.operand import CHUNK_BYTES, check_operand, operand_chunks, read_operand
from fa4gen.emulator.layouts.smem_descriptor import decode_wgmma
from fa4gen.emulator.pending import InFlight
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.shared import CELL_BYTES, RESERVED, asynchronous
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.numerics.formats import decode
from fa4gen.numerics.tensor_core import dot_f64, fused_dot, wgmma_accumulation
from fa4gen.ptx.ir import Immediate, Vector

ROWS = 16
"""Rows of the 64 that one warp computes."""
K_BYTES = 32
"""Bytes of K in one instruction, whatever the type."""
ELEMENT_BITS = {"bf16": 16, "f16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8}

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What does not change from one execution of an instruction to the next."""

    n: int
    k: int
    d_type: Literal["f32", "f16"]
    a_type: str
    b_type: str
    a_in_registers: bool
    a_sign: int
    b_sign: int
    a_mn_major: bool
    b_mn_major: bool


@dataclass(slots=True)
class _Groups:
    """The wgmma groups of one warp."""

    committed: int = 0
    fenced: bool = False
    open: list[_Product] = field(default_factory=list)
    closed: list[tuple[int, list[_Product]]] = field(default_factory=list)
    issued: int = 0


class _Product:
    """One warp's part of one wgmma."""

    __slots__ = ("accumulate", "op", "place", "results")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.results: npt.NDArray[np.uint32] | None = None
        self.op: AsyncOp | None = None

    def deliver(self, warp: Warp, value: InFlight) -> NoReturn:
        """A register of the accumulator was used before the wait."""
        raise warp.fault(
            f"{warp.instruction.opcode}: uses the accumulator of the wgmma at PTX line "
            f"{self.place.instruction.line} before wgmma.wait_group has waited for it"
        )

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
        _check_fence(warp, groups)
        product = _Product(warp.place())
        access = asynchronous(warp, Source.WGMMA, groups.committed + 1)

        def perform() -> None:
            start = before.results if before is not None else c
            product.results = _multiply(warp, shape, access, a_value, b_value, start)

        after = (before.op,) if before is not None and before.op is not None else ()
        label = f"wgmma m64n{shape.n}k{shape.k}"
        product.op = AsyncOp(product.place, perform, after, label)
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
        _groups(warp).fenced = True
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
    """Wait until at most N groups are outstanding; their accumulators are there then."""
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
        done = [p for number, products in groups.closed if number <= last for p in products]
        groups.closed = [entry for entry in groups.closed if entry[0] > last]
        groups.fenced = False
        warp.agent.observed(Source.WGMMA, last)
        _collect(warp, done)
        return None

    return run


def _shape(b: Builder) -> _Shape:
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
    return _Shape(
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
    at = (warp.index // 4, groups.issued)
    first = issues.setdefault(at, [key, 0])
    if first[0] != key:
        raise warp.fault(
            f"wgmma: warp {warp.index} issues another wgmma, or with other descriptors, than the "
            "warps of its warpgroup before it"
        )
    first[1] += 1
    if first[1] == 4:  # noqa: PLR2004 - warps of a warpgroup
        del issues[at]


def _check_fence(warp: Warp, groups: _Groups) -> None:
    if not groups.fenced:
        warp.report(
            FindingKind.RACE,
            "wgmma: no wgmma.fence since the last wait_group, after which its registers may have "
            "been touched",
        )


def _collect(warp: Warp, done: list[_Product]) -> None:
    """Bring the results of finished products into the registers that wait for them."""
    engine = warp.cta.cluster.engine
    for product in done:
        if product.op is not None and not product.op.done:
            engine.force(product.op)
    finished = set(map(id, done))
    for slot, value in enumerate(warp.regs):
        if value.__class__ is InFlight and id(value.owner) in finished:
            warp.regs[slot] = value.owner.results[value.part]


def _multiply(
    warp: Warp,
    shape: _Shape,
    access: Access,
    a_value: Any,
    b_value: int,
    start: npt.NDArray[np.uint32] | None,
) -> npt.NDArray[np.uint32]:
    """This warp's 16 rows of D, as its registers: ``(registers, 32)``."""
    bits = ELEMENT_BITS[shape.a_type]
    if shape.a_in_registers:
        a = decode(fragment_to_matrix(operand_a(shape.k, bits), a_value), shape.a_type)
    else:
        raw = _from_shared(warp, access, a_value, (64, shape.k, bits), shape.a_mn_major, own=True)
        a = decode(raw, shape.a_type)
    raw = _from_shared(warp, access, b_value, (shape.n, shape.k, bits), shape.b_mn_major)
    b = decode(raw, shape.b_type)
    a, b = a * np.float32(shape.a_sign), b * np.float32(shape.b_sign)
    fragment = accumulator(shape.n, 32 if shape.d_type == "f32" else 16)
    if start is None:
        c = np.zeros((ROWS, shape.n), np.float32)
    else:
        c = fragment_to_matrix(fragment, start).view(
            np.float32 if shape.d_type == "f32" else np.float16
        )
        c = c.astype(np.float32)
    if warp.cta.cluster.grid.tensor_core == "fused":
        d = fused_dot(a, b, c, wgmma_accumulation(shape.a_type, shape.b_type, shape.d_type))
    else:
        d = dot_f64(a, b, c)
    codes = d.view(np.uint32) if shape.d_type == "f32" else d.astype(np.float16).view(np.uint16)
    return matrix_to_fragment(fragment, codes)


def _from_shared(
    warp: Warp,
    access: Access,
    descriptor: int,
    size: tuple[int, int, int],
    mn_major: bool,
    *,
    own: bool = False,
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The raw elements ``(rows, k)`` of an operand in shared memory.

    With ``own`` only the 16 rows of A that this warp multiplies. FlashAttention-3 and 4 rely on a
    warp reading no others: its part of P is guarded by no more than a ``bar.warp.sync``.
    """
    rows, k, bits = size
    shared = warp.cta.shared
    decoded = decode_wgmma(descriptor)
    check_operand(decoded, bits, mn_major, "wgmma")
    chunks = operand_chunks(decoded, rows, k, bits, mn_major)
    if int(chunks.min()) < RESERVED:
        raise warp.fault(f"wgmma: descriptor {descriptor:#x} begins below the kernel's memory")
    codes = read_operand(shared.data, decoded, rows, k, bits, mn_major)
    if own:
        first = ROWS * (warp.index % 4)
        codes = codes[first : first + ROWS]
        per_chunk = 8 * CHUNK_BYTES // bits
        columns = slice(first // per_chunk, (first + ROWS) // per_chunk)
        chunks = chunks[:, columns] if mn_major else chunks[first : first + ROWS]
    cells = chunks.reshape(-1, 1) // CELL_BYTES + np.arange(CHUNK_BYTES // CELL_BYTES)
    shared.shadow.read(cells.ravel(), access)
    return codes
