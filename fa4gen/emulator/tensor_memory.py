"""Tensor memory of one CTA: 128 lanes of 512 columns of 32 bits, on loan in runs of columns.

Source: PTX ISA 9.1, sections 9.7.16.1 (addressing and allocation), 9.7.16.5 (who issues what) and
9.7.16.7 (alloc, dealloc, relinquish_alloc_permit). Other CTAs on the same SM, which compete for the
columns on hardware, are not modelled: a CTA finds all 512 free.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.findings import FindingKind, Place
from fa4gen.emulator.shadow import Access, Cells, Shadow

if TYPE_CHECKING:
    from fa4gen.emulator.machine import Cta
    from fa4gen.emulator.warp import Warp

LANES, COLUMNS = 128, 512
GROUP_LANES = 16
"""Lanes that every access takes or leaves together: the race checks have a cell for each column of
such a group. Only ``tcgen05.cp.4x256b`` and a disable-output-lane mask touch less; they count as
touching the group."""
GROUPS = LANES // GROUP_LANES
QUARTER_LANES = 32
"""Lanes that one warp reaches with ``tcgen05.ld`` and ``.st`` (PTX ISA 9.7.16.8.1)."""
LANE_SHIFT, COLUMN_MASK = 16, 0xFFFF
MIN_COLUMNS = 32

POISON = 0x7FFFA5A5
"""What cells hold that nothing has written: a NaN as f32; the upper half is one as bf16 and f16."""
POISON_HIGH = POISON & 0xFFFF0000
"""The upper half of a cell of which only the lower 16 bits are defined."""

Values: TypeAlias = npt.NDArray[np.uint32]
_KEY = "tensor memory"


class Region(NamedTuple):
    """Whole groups of 16 lanes, in a run of columns."""

    first: int
    """First group."""
    stop: int
    step: int
    column: int
    """First column."""
    columns: int
    """How many."""

    @property
    def lanes(self) -> int:
        """How many lanes it has."""
        return len(range(self.first, self.stop, self.step)) * GROUP_LANES

    def meets(self, other: Region) -> bool:
        """Whether a region of the same lanes has columns in common with this one."""
        first = max(self.column, other.column)
        return first < min(self.column + self.columns, other.column + other.columns)

    def __str__(self) -> str:
        last = range(self.first, self.stop, self.step)[-1]
        return (
            f"lanes {self.first * GROUP_LANES} to {last * GROUP_LANES + GROUP_LANES - 1}, "
            f"columns {self.column} to {self.column + self.columns - 1}"
        )


@dataclass(frozen=True, slots=True)
class Allocation:
    """Columns on loan."""

    column: int
    count: int
    place: Place
    """The ``tcgen05.alloc``."""


class TensorMemory:
    """The tensor memory of one CTA.

    Attributes:
        data: ``(128, 512)`` uint32.
        blocks: The same cells as ``(8, 16, 512)``: groups of 16 lanes.
        allocations: What is on loan, by first column.
        last_count: Columns of the last allocation; the next may not be larger.
        relinquished: Where the permit to allocate was given up.
        shadow: Of its cells, one for each column of a group of 16 lanes.
    """

    def __init__(self, cta: Cta) -> None:
        self._cluster = cta.cluster
        self.name = f"tensor memory of CTA {cta.linear_index}"
        self.data: Values = np.full((LANES, COLUMNS), POISON, np.uint32)
        self.blocks = self.data.reshape(GROUPS, GROUP_LANES, COLUMNS)
        self.allocations: dict[int, Allocation] = {}
        self.last_count = COLUMNS
        self.relinquished: Place | None = None
        self._taken = 0
        self.shadow = Shadow(
            GROUPS * COLUMNS, self.name, _locate, self._cluster.clocks, self._cluster.report
        )
        self._cluster.at_end.append(self._report_leaks)

    def free_column(self, count: int, also: TensorMemory | None = None) -> int | None:
        """First of ``count`` free columns, a multiple of their number; ``None`` if there are none.

        Args:
            also: A peer's memory, in which the same columns must be free.
        """
        taken = self._taken | (also._taken if also else 0)
        ones = (1 << count) - 1
        return next((c for c in range(0, COLUMNS, count) if not taken >> c & ones), None)

    def take(self, column: int, count: int, place: Place) -> None:
        """Lend columns out; what they hold is undefined (PTX ISA 9.7.16.7.1), so it is poisoned."""
        self.allocations[column] = Allocation(column, count, place)
        self._taken |= ((1 << count) - 1) << column
        self.last_count = count
        self.data[:, column : column + count] = POISON
        self.shadow.forget(region_cells(Region(0, GROUPS, 1, column, count)))

    def give_back(self, column: int, access: Access) -> None:
        """End the loan that begins at ``column``: for the race checks a write of all of it."""
        count = self.allocations.pop(column).count
        self._taken &= ~(((1 << count) - 1) << column)
        cells = region_cells(Region(0, GROUPS, 1, column, count))
        self.shadow.write(cells, access)
        self.shadow.forget(cells)

    def check(self, warp: Warp, region: Region, what: str) -> None:
        """Refuse columns that are not on loan.

        Raises:
            KernelFault: ``region`` has a column outside the memory or outside every allocation.
        """
        if not self._has(region):
            loans = [f"{a.column} to {a.column + a.count - 1}" for a in self.allocations.values()]
            raise warp.fault(
                f"{self.name}: {what}: got {region}, allocated columns: "
                f"{', '.join(loans) or 'none'}"
            )

    def still_there(self, region: Region, place: Place) -> bool:
        """Whether asynchronous work finds its columns; that they were freed is reported."""
        if self._has(region):
            return True
        self._cluster.report(
            FindingKind.RACE,
            f"{self.name}: {region}: freed while asynchronous work on them was outstanding",
            place,
        )
        return False

    def report(self, kind: FindingKind, message: str, place: Place) -> None:
        """Note something wrong with what is in it."""
        self._cluster.report(kind, f"{self.name}: {message}", place)

    def read(self, region: Region) -> Values:
        """The cells of ``region``, ``(lanes, columns)``; fresh or a view, not to be changed."""
        first, stop, step, column, columns = region
        block = self.blocks[first:stop:step, :, column : column + columns]
        return block.reshape(-1, columns)

    def write(self, region: Region, values: npt.NDArray[np.uint32]) -> None:
        """Set the cells of ``region`` to ``(lanes, columns)`` values."""
        first, stop, step, column, columns = region
        block = self.blocks[first:stop:step, :, column : column + columns]
        block[...] = values.reshape(block.shape)

    def _has(self, region: Region) -> bool:
        ones = (1 << region.columns) - 1
        return self._taken >> region.column & ones == ones

    def _report_leaks(self) -> None:
        for loan in self.allocations.values():
            self._cluster.report(
                FindingKind.RESOURCE,
                f"{self.name}: {loan.count} columns from {loan.column} on are still allocated at "
                "the kernel's end; tcgen05.dealloc must give them back",
                loan.place,
            )


def tensor_memory(cta: Cta) -> TensorMemory:
    """The tensor memory of ``cta``, made at its first use."""
    memory = cta.state.get(_KEY)
    if memory is None:
        memory = cta.state[_KEY] = TensorMemory(cta)
    assert isinstance(memory, TensorMemory)  # nobody else uses the key
    return memory


@lru_cache(maxsize=2048)
def region_cells(region: Region) -> Cells:
    """Numbers of the shadow's cells of ``region``."""
    groups = np.arange(region.first, region.stop, region.step)[:, None] * COLUMNS
    cells = (groups + np.arange(region.column, region.column + region.columns)).ravel()
    cells.flags.writeable = False
    return cells


def split_address(address: int) -> tuple[int, int]:
    """(lane, column) of an address, which is ``lane << 16 | column`` (PTX ISA 9.7.16.1.1)."""
    return address >> LANE_SHIFT & COLUMN_MASK, address & COLUMN_MASK


def _locate(cell: int) -> str:
    group, column = divmod(cell, COLUMNS)
    first = group * GROUP_LANES
    return f"lanes {first} to {first + GROUP_LANES - 1}, column {column}"
