"""Memory that a kernel needs beside its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fa4gen.core.config import KernelConfig, Scheduler

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a kernel takes between ``lse`` (and descales) and ``softmax_scale``.

    In this order: O and LSE of every split, float32, in which nothing is expected; and a counter of
    tiles, one int32, which is zero before a launch and after it, and which no two launches may use
    at the same time.
    """

    num_splits: int = 1
    tile_counter: bool = False

    @classmethod
    def of(cls, config: KernelConfig) -> Self:
        """What a kernel with these knobs takes."""
        return cls(config.num_splits, config.scheduler is Scheduler.DYNAMIC)

    def split_shapes(self, lse_shape: Shape, head_dim_v: int) -> tuple[Shape, ...]:
        """Shapes of O and LSE of all splits, none for a kernel that splits no keys.

        They are ``(num_splits, batch, num_heads_q, seqlen_q[, head_dim_v])``.

        Args:
            lse_shape: ``(batch, num_heads_q, seqlen_q)``.
        """
        if self.num_splits == 1:
            return ()
        of_lse = (self.num_splits, *lse_shape)
        return (*of_lse, head_dim_v), of_lse
