"""What a KV block costs, on any architecture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

L2_LATENCY_CYCLES = 800.0
"""From TMA issue to data in shared memory, L2 hit, loaded machine. assumed."""

RESCALE_SHARE = ((0.0, 1.0), (4.0, 0.25), (8.0, 0.1))
"""(threshold in log2 units, share of the blocks that still rescale O).

Source: about 10x fewer rescales at 8 (FlashAttention-4, Hot Chips 2025); 4 is interpolated.
"""


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Cycles of one KV block of one CTA."""

    pipes: dict[str, float]
    """Busy cycles of mma, mufu, issue, alu, smem and l2."""
    softmax: float
    """Time the softmax would take alone."""
    exposed_softmax: float
    """Of it, or of the tensor-core time if that is shorter, what is not hidden."""
    total: float
    """Time from one block to the next in the steady state."""
    mask: float
    """What a masked block takes on top."""


SPILL_SLOWDOWN_PER_BYTE = 0.0016
"""Relative slowdown for each spilled byte of a thread.

Source: kernels for Hopper on an H200, 2026-11-20: 16 to 24 B cost 0 to 3 %, 408 B 67 %.
"""


def spill_slowdown(spill_bytes: int) -> float:
    """How many times as long a kernel takes that spills so many bytes of each thread."""
    return 1.0 + SPILL_SLOWDOWN_PER_BYTE * spill_bytes


def rescale_share(threshold_log2: float) -> float:
    """Share of the blocks whose O is rescaled, interpolated in :data:`RESCALE_SHARE`."""
    for (low, low_share), (high, high_share) in pairwise(RESCALE_SHARE):
        if threshold_log2 <= high:
            position = (threshold_log2 - low) / (high - low)
            return low_share + position * (high_share - low_share)
    return RESCALE_SHARE[-1][1]
