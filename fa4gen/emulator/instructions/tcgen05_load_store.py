"""tcgen05.ld, .st and their waits: tensor memory to registers and back.

Source: PTX ISA 9.1, sections 9.7.16.2.3 (shapes), 9.7.16.8 (ld, st, wait) and 9.7.16.6 (order).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.clocks import Source
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.instructions.tcgen05_pipe import take_sync_aligned, whole_warp
from fa4gen.emulator.layouts.tensor_memory_access import (
    REGISTERS_PER_NUM,
    TmemAccess,
    load_cells,
    store_cells,
    tmem_access,
)
from fa4gen.emulator.pending import InFlight
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.shadow import Access, Cells
from fa4gen.emulator.shared import asynchronous
from fa4gen.emulator.tensor_memory import (
    GROUP_LANES,
    LANES,
    QUARTER_LANES,
    Region,
    TensorMemory,
    Values,
    region_cells,
    split_address,
    tensor_memory,
)
from fa4gen.emulator.warp import Signal
from fa4gen.numerics.minmax import max32, min32
from fa4gen.ptx.ir import Immediate, Operand

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_KEY = "tcgen05 transfers"
_NUMS = tuple(f"x{1 << i}" for i in range(8))
Reduction: TypeAlias = Callable[[Values], Values]
"""From the ``(registers, 32)`` values of a load to one a lane."""


class Load:
    """A ``tcgen05.ld`` on its way; the destination registers refer to it.

    Its values may be used without ``wait::ld`` (PTX ISA 9.7.16.6.4.5): the first use delivers them.
    """

    def __init__(self, transfers: Transfers, slots: tuple[int, ...]) -> None:
        transfers.load_count += 1
        self.number, self._slots, self._transfers = transfers.load_count, slots, transfers
        transfers.loads[self.number] = self
        self.op: AsyncOp | None = None
        self.values: Values | None = None
        """``(registers, 32)``, once the cells are read."""

    def arrive(self, warp: Warp) -> Values:
        """Have the values read and put into the registers that still wait for them."""
        loads = self._transfers.loads
        if loads.pop(self.number, None) is not None:
            if self.op is not None:
                warp.cta.cluster.engine.force(self.op)
            regs = warp.regs
            for slot, value in zip(self._slots, self._values(), strict=True):
                held = regs[slot]
                if slot >= 0 and held.__class__ is InFlight and held.owner is self:
                    regs[slot] = value
            oldest = next(iter(loads), self._transfers.load_count + 1)
            warp.agent.observed(Source.TMEM_LOAD, oldest - 1)
        return self._values()

    def deliver(self, warp: Warp, value: InFlight) -> Values:
        """What a register gets that holds ``value``: the destination, or one it was copied to."""
        values: Values = self.arrive(warp)[value.part]
        return values

    def _values(self) -> Values:
        assert self.values is not None  # the engine has performed the load
        return self.values

    def __str__(self) -> str:
        return "a tcgen05.ld"


@dataclass(slots=True)
class Transfers:
    """The loads and stores of tensor memory of one warp.

    Attributes:
        loads: Those not observed to be over, by number.
        stores: Those that no ``wait::st`` has waited for.
    """

    load_count: int = 0
    store_count: int = 0
    loads: dict[int, Load] = field(default_factory=dict)
    stores: list[AsyncOp] = field(default_factory=list)


def transfers_of(warp: Warp) -> Transfers:
    """The transfers of ``warp``."""
    transfers = warp.state.get(_KEY)
    if transfers is None:
        transfers = warp.state[_KEY] = Transfers()
    assert isinstance(transfers, Transfers)  # nobody else uses the key
    return transfers


@dataclass(frozen=True, slots=True)
class _Form:
    """What the modifiers and the literal operands say.

    Attributes:
        lanes: Of tensor memory that are touched, from the address on: 16 or 32.
        columns: Up to the last that is touched.
        runs: Runs of columns that are touched: (first, how many).
    """

    cells: TmemAccess
    lanes: int
    columns: int
    runs: tuple[tuple[int, int], ...]


def _take_form(
    b: Builder, half_modifier: str, offset_at: int, count: int = 2
) -> tuple[_Form, tuple[Operand, ...]]:
    """The form, and the operands but ``immHalfSplitoff``.

    Args:
        offset_at: Where among the operands shape ``16x32bx2`` has that.
        count: How many operands there are beside that.
    """
    take_sync_aligned(b)
    shape, num = b.mods.one_of(*REGISTERS_PER_NUM), b.mods.one_of(*_NUMS, default="x0")
    packed = b.mods.flag(half_modifier)
    b.mods.ignore("b32")
    splits = shape == "16x32bx2"
    operands, offset = list(b.expect(count + splits)), 0
    if splits:
        literal = operands.pop(offset_at)
        if not isinstance(literal, Immediate):
            b.fail(f"got {literal} as immHalfSplitoff, must be a literal")
        offset = literal.value
    try:
        cells = tmem_access(shape, int(num[1:]), packed, offset)
    except UnsupportedInstruction as error:
        b.fail(str(error))
    return _Form(cells, cells.lanes, cells.columns, _runs(cells)), tuple(operands)


def _runs(cells: TmemAccess) -> tuple[tuple[int, int], ...]:
    """Runs of neighbouring columns."""
    columns = np.unique([cells.column, cells.column + cells.packed])
    pieces = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    return tuple((int(piece[0]), len(piece)) for piece in pieces)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one execution goes."""

    memory: TensorMemory
    form: _Form
    lane: int
    column: int
    regions: tuple[Region, ...]

    def cells(self) -> Values:
        """The window of the memory, a view."""
        lanes = slice(self.lane, self.lane + self.form.lanes)
        return self.memory.data[lanes, self.column : self.column + self.form.columns]

    def record(self, access: Access, check: Callable[[Cells, Access], None]) -> None:
        """Have all that is touched checked by ``check``, which is the shadow's read or write."""
        for region in self.regions:
            if self.memory.still_there(region, access.place):
                check(region_cells(region), access)


def _locate(warp: Warp, addresses: npt.NDArray[np.uint64], form: _Form, what: str) -> _Place:
    """Where an execution goes.

    Warp ``w`` of a CTA reaches lanes ``32 (w % 4)`` to ``32 (w % 4) + 31`` (PTX ISA 9.7.16.8.1). An
    address in another quarter is reported, and the warp's own quarter taken: CUTLASS's example
    ``1cta_mma_a_from_tmem``, said to have run on a B200, stores with all four warps to lane 0.

    Raises:
        KernelFault: different addresses in the lanes; a first lane that the shape does not have;
            columns not allocated.
    """
    first = addresses[0]
    if (addresses != first).any():
        raise warp.fault(f"{what}: got different addresses in the lanes of the warp")
    lane, column = split_address(int(first))
    quarter = QUARTER_LANES * (warp.index % 4)
    allowed = range(quarter, quarter + QUARTER_LANES - form.lanes + 1, GROUP_LANES)
    if lane not in allowed:
        wrong = (
            f"{what}: got lane {lane}, allowed for warp {warp.index}: "
            f"{' or '.join(map(str, allowed))} (warp w reaches lanes 32 (w % 4) on)"
        )
        own = quarter + lane % QUARTER_LANES
        if lane >= LANES or own not in allowed:
            raise warp.fault(wrong)
        warp.report(FindingKind.OUT_OF_BOUNDS, f"{wrong}; went on with lane {own}")
        lane = own
    group, stop = lane // GROUP_LANES, (lane + form.lanes) // GROUP_LANES
    regions = tuple(Region(group, stop, 1, column + start, count) for start, count in form.runs)
    memory = tensor_memory(warp.cta)
    for region in regions:
        memory.check(warp, region, what)
    return _Place(memory, form, lane, column, regions)


def _take_reduction(b: Builder) -> Reduction | None:
    """What ``.red`` computes from the registers of a lane; ``None`` without it.

    NaN and zeros are taken as ``min`` and ``max`` take them (PTX ISA 9.7.3.11), which the section
    on ``tcgen05.ld`` does not say. Compilers emit it for sm_103a; ptxas refuses it for sm_100a.
    """
    if not b.mods.flag("red"):
        return None
    if "32x32b" not in b.mods.left:
        b.fail("got .red with another shape than .32x32b, whose lanes have all that is reduced")
    operation, kind = b.mods.one_of("min", "max"), b.mods.one_of("u32", "s32", "f32")
    magnitude, nan = b.mods.flag("abs"), b.mods.flag("NaN")
    if not operation or not kind:
        b.fail(f"got .red of {operation or 'no operation'} and type {kind or 'none'}")
    if (magnitude or nan) and kind != "f32":
        b.fail(".abs and .NaN belong to .f32")
    if kind == "f32":
        choose = min32 if operation == "min" else max32

        def combine(values: Values) -> Values:
            numbers = np.abs(values.view(np.float32)) if magnitude else values.view(np.float32)
            total: Values = reduce(lambda x, y: choose(x, y, nan), numbers).view(np.uint32)
            return total

        return combine
    select = np.minimum if operation == "min" else np.maximum
    seen = np.int32 if kind == "s32" else np.uint32

    def pick(values: Values) -> Values:
        picked: Values = select.reduce(values.view(seen), axis=0).view(np.uint32)
        return picked

    return pick


@instruction("tcgen05.ld", pipe=Pipe.TMEM, isa="9.7.16.8.3")
def load(b: Builder) -> Op:
    """Read cells of the warp's quarter; the values are there at their first use or ``wait::ld``.

    With ``.red`` a register more gets the minimum or maximum of the others.
    """
    reduction = _take_reduction(b)
    reduced = reduction is not None
    form, operands = _take_form(b, "pack::16b", offset_at=2 + reduced, count=2 + reduced)
    slots, address = b.dsts(operands[0], 32), b.address(operands[-1])
    if len(slots) != form.cells.registers:
        b.fail(f"got {len(slots)} registers, the shape has {form.cells.registers}")
    if reduced and (len(slots) == 1 or form.cells.packed):
        b.fail("got .red with .x1 or .pack::16b, allowed: .x2 to .x128, unpacked")
    if reduced:
        slots = (*slots, b.dst(operands[1], 32))

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        place = _locate(warp, address(warp), form, "tcgen05.ld")
        going = Load(transfers_of(warp), slots)
        access = asynchronous(warp, Source.TMEM_LOAD, going.number)

        def perform() -> None:
            place.record(access, place.memory.shadow.read)
            values = load_cells(form.cells, place.cells())
            going.values = values if reduction is None else np.vstack([values, reduction(values)])

        for part, slot in enumerate(slots):
            if slot >= 0:
                warp.regs[slot] = InFlight(going, part)
        op = AsyncOp(access.place, perform, label="tcgen05.ld")
        going.op = warp.cta.cluster.engine.submit(op)
        return None

    return run


@instruction("tcgen05.st", pipe=Pipe.TMEM, isa="9.7.16.8.4")
def store(b: Builder) -> Op:
    """Write cells of the warp's quarter; that is over only after ``wait::st``."""
    form, (target, source) = _take_form(b, "unpack::16b", offset_at=1)
    slots, address = b.srcs(source, 32), b.address(target)
    if len(slots) != form.cells.registers:
        b.fail(f"got {len(slots)} registers, the shape has {form.cells.registers}")

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        values = np.array([warp.regs[slot] for slot in slots], np.uint32)
        place = _locate(warp, address(warp), form, "tcgen05.st")
        transfers = transfers_of(warp)
        transfers.store_count += 1
        access = asynchronous(warp, Source.TMEM_STORE, transfers.store_count)

        def perform() -> None:
            place.record(access, place.memory.shadow.write)
            store_cells(form.cells, place.cells(), values)

        op = AsyncOp(access.place, perform, label="tcgen05.st")
        transfers.stores.append(warp.cta.cluster.engine.submit(op))
        return None

    return run


@instruction("tcgen05.wait::ld", pipe=Pipe.TMEM, isa="9.7.16.8.5")
def wait_for_loads(b: Builder) -> Op:
    """Wait for the warp's loads."""
    take_sync_aligned(b)
    b.expect(0)

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        for going in list(transfers_of(warp).loads.values()):
            going.arrive(warp)
        return None

    return run


@instruction("tcgen05.wait::st", pipe=Pipe.TMEM, isa="9.7.16.8.5")
def wait_for_stores(b: Builder) -> Op:
    """Wait for the warp's stores."""
    take_sync_aligned(b)
    b.expect(0)

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        transfers = transfers_of(warp)
        for op in transfers.stores:
            warp.cta.cluster.engine.force(op)
        transfers.stores.clear()
        warp.agent.observed(Source.TMEM_STORE, transfers.store_count)
        return None

    return run
