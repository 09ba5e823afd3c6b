"""Constants of the cycle model for Blackwell. None is measured by us: there is no such GPU here.

They are those of Hopper where the hardware is alike, and otherwise set so that published times of
FlashAttention-4's own kernels come out (tests/perf/published_blackwell.toml has them).
"""

from __future__ import annotations

MMA_EFFICIENCY = 0.975
"""Share of the tensor-core peak that back-to-back MMAs reach. assumed: as on Hopper, fitted."""

ISSUE_EFFICIENCY = 0.626
"""Share of the issue slots that the softmax's dependent instructions fill. assumed: as Hopper."""

PIPE_LEAK = 0.391
"""Share of the shorter of MUFU and issue time that the longer does not hide. assumed: as Hopper."""

HIDING_LEAK = {1: 0.9, 2: 0.18}
"""By Q tiles of a CTA: share of the shorter of tensor-core and softmax time that stays exposed.

For two: from FlashAttention-4 at 0.82 of the peak on GB300, Llama-3.1 shape, dense, seqlen 8192
(NVIDIA/cudnn-frontend benchmark results, September 2026). For one: assumed, since nothing is left
to work on while S is turned into P."""

LATE_P_LEAK = 0.10
"""What :data:`HIDING_LEAK` grows by if PV may not start before all of P is there. assumed."""

GROUPED_LEAK = 0.04
"""What it grows by when QK of a Q tile waits for PV of the other. assumed."""

LAST_FRAGMENT_LEAK = 0.01
"""What :data:`PIPE_LEAK` grows by with polynomials in the last fragment. assumed."""

HANDOVER_CYCLES = 40.0
"""Two named barriers for each softmax warpgroup and block. assumed."""

BRANCH_CYCLES = 80.0
"""A vote, a branch and the strong fence around O in each block.

From AVO: no branch gained 8 % without a mask and 2 % with one (arXiv 2603.24517); a third of the
larger gain."""

SLAB_CYCLES = 60.0
"""A round trip of a slab of O between tensor memory and registers. assumed."""

RESCALE_EXPOSURE = 0.5
"""Share of the rescaling of O that delays PV. assumed."""

CLUSTER_TILE_CYCLES = 300.0
"""Barriers of a cluster of two CTAs when it starts and ends. assumed."""

CLC_CYCLES = 150.0
"""Asking for the next tile, as far as nothing hides it. assumed."""
