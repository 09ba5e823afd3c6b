"""Memory that a kernel needs beside its inputs and outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from fa4gen.core.config import KernelConfig, Scheduler

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a kernel takes between ``lse`` (and descales) and ``softmax_scale``.

    In this order: O of every split, and what it is weighed by (offset and sum of each row), both
    float32, in which nothing is expected; and a counter of tiles, one int32, which is zero before a
    launch and after it, and which no two launches may use at the same time.
    """

    num_splits: int = 1
    tile_counter: bool = False

    @classmethod
    def of(cls, config: KernelConfig) -> Self:
        """What a kernel with these knobs takes."""
        return cls(config.num_splits, config.scheduler is Scheduler.DYNAMIC)

    def split_shapes(self, lse_shape: Shape, head_dim_v: int) -> tuple[Shape, ...]:
        """Shapes of O and of offsets and row sums of all splits; none where no keys are split.

        The rows of all batches and heads are taken in blocks of 8, O of 8 rows and 16 columns lies
        together: ``(num_splits, row_blocks, 8 * head_dim_v rounded up to 16)`` and ``(num_splits,
        row_blocks, 8 * 2)``.

        Args:
            lse_shape: ``(batch, num_heads_q, seqlen_q)``.
        """
        if self.num_splits == 1:
            return ()
        row_blocks = -(-math.prod(lse_shape) // 8)
        columns = -(-head_dim_v // 16) * 16
        return (self.num_splits, row_blocks, 8 * columns), (self.num_splits, row_blocks, 8 * 2)
