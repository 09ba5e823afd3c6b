"""Constants of the cycle model that measurements decide.

:data:`FITTED` constants were found together by least squares on the logarithms of times and of
gains. Source: measured on one H200 under sustained load, 2026-11-20 and 21, by
``benchmarks/record_sweep.py`` (16 problems) and ``fa4gen tune`` on ``workloads/peers.toml``; half
of the problems were fitted, docs/model-calibration.md has the error on the other half.

Constants called fixed were set before the fit; all the cycles here are SM cycles.
"""

from __future__ import annotations

FITTED = "measured on an H200, 2026-11-20/21; fitted as docs/model-calibration.md says"
"""Source of every constant whose docstring says fitted."""

# ---- One KV block -----------------------------------------------------------------------------

MMA_EFFICIENCY = 0.975
"""Share of the tensor-core peak, at the clock of the moment, that back-to-back MMAs reach. fitted.

An 8192^3 matmul gave 0.85 to 0.93 of the peak at clocks read beside it, so it is not too low."""

ISSUE_EFFICIENCY = 0.626
"""Share of the issue slots that the softmax's dependent instructions fill. fitted."""

PIPE_LEAK = 0.391
"""Share of the shorter of MUFU and issue time that the longer one does not hide, since one warp
per scheduler and consumer has limited instruction-level parallelism. fitted."""

PLACEMENT_LEAK = 0.014
"""What :data:`PIPE_LEAK` grows by when polynomial and MUFU columns are not interleaved. fitted."""

POLYNOMIAL_CYCLES = 173.0
"""What a polynomial share of any size costs a block, besides its issue slots: registers for its
constants and a schedule less tight. fitted."""

SOFTMAX_LATENCY_CYCLES = {1: 250.0, 2: 260.0, 3: 191.0}
"""By number of consumers: latency of the row maxima's shuffles and of the dependent chain that
follows, as far as the other consumers' work does not fill it. fitted, within a bound (260 or more
for two consumers) that keeps head_dim 64 from preferring two.

That of one consumer, which has nobody to fill it, is the largest of a few values with which decode
is ordered as well as before; a full sweep at head_dim 64, whose 36 kernels with one consumer were
30 % slower than predicted, would have it at 450 (docs/model-calibration.md)."""

HIDING_LEAK = {
    (1, False, False): 1.02,
    (1, True, False): 0.25,
    (2, False, False): 0.82,
    (2, True, False): 0.41,
    (2, False, True): 0.835,
    (2, True, True): 0.34,
    (3, False, False): 0.55,
    (3, True, False): 0.345,
    (3, False, True): 0.52,
    (3, True, True): 0.25,
}
"""(consumers, intra_warpgroup_overlap, pingpong): share of the shorter of tensor-core and softmax
time that stays exposed; the barriers of taking turns are in it. fitted."""

SYNC_CYCLES_PER_CONSUMER = 15.0
"""Barriers and address arithmetic of a block outside the softmax. fixed: the fit tends to 0."""

SHARED_P_CYCLES = 25.0
"""Fence and barrier between writing P and its MMA, for each consumer; its traffic is counted
apart. fixed: the fit lies between 10 and 30 and barely feels it."""

RESCALE_EXPOSURE = 1.78
"""Time of rescaling O over its time at full issue rate: it stands between two PV products, where
nothing hides it. fitted."""

VOTE_CYCLES = 265.0
"""Vote and branch of a conditional rescale: the compiler cannot mix what comes before with what
comes after. fitted."""

LAZY_VOTE_CYCLES = 30.0
"""The same where maxima are looked for only when a row outgrew its limit: shorter, since no thread
waits for another's maximum.

Source: with :data:`PREFETCHED_SHARE` the best of a grid of 8 x 6 values on 34 times of 12 problems
relative to the kernel without either, measured on an H200, 2026-11-21 (docs/hopper.md)."""

MASK_SLOTS_PER_ELEMENT = 2.0
"""Compare and select. fixed: counted from the template."""

SKIPPED_SHARE = 0.56
"""What a KV block costs that a warpgroup lets pass, of its share of a block that all run: it still
waits for K, for its turn and for V, and meanwhile the others hide less of their latency.

Source: least squares on the logarithms of 11 gains over the same kernel without skipping, measured
on an H200, 2026-11-21 (docs/model-calibration.md); rms left 1.4 %, largest 3.0 %."""

SPILL_SLOWDOWN = 20.0
"""Relative slowdown per relative lack of registers. Source: of the sweep, head_dim 64 at 192x128
with 152 registers, 4 or 3 % too few: 1.3 to 1.9 times as long."""

# ---- One tile, one launch ---------------------------------------------------------------------

LAUNCH_US = 2.5
"""Least time between the events around an almost empty kernel in a graph. fixed."""

COMBINE_US = 1.1
"""What the second kernel of split keys adds, its launch overlapped with the first.

Source: 0.8 to 1.5 us measured on an H200, 2026-11-22, since it fetches its code early; 1.6 to 2.0
us before (docs/hopper.md)."""

LAST_BLOCK_SHARE = 0.5
"""Share of a KV block's time that is left when DRAM, where that is the bound, has delivered its
last byte: K comes before V, so some of the block is done by then.

Source: of 0, 1/2, 1, 3/2 and 2 the one that picks best in 214 trials of decode, measured on an
H200, 2026-11-21 and 22 (docs/model-calibration.md)."""

RING_TRIP_US = 1.2
"""From asking DRAM for a block of K and V until its place in the ring can be asked for again, on a
busy Hopper GPU.

Source: 64 CTAs with rings of 64 KiB read 3.42 to 3.55 TB/s in three problems of decode (1.18 to
1.23 us), with rings of 128 KiB 3.9, measured on an H200, 2026-11-22 (docs/model-calibration.md)."""

SPLIT_STORE_BYTES_PER_CLK_SM = 14.0
"""At which an SM stores O of a split, all SMs at the same time.

Source: 33 KB in 1.15 to 1.25 us at 1980 MHz, measured on an H200, 2026-11-22 (docs/hopper.md)."""

CTA_START_CYCLES = 1047.0
"""Starting a CTA: barrier set-up, tensor-map fetch, setmaxnreg. fitted."""

NEXT_TILE_CYCLES = 756.0
"""From one tile to the next in a persistent CTA, whose Q waits for the store of O. fitted."""

PREFETCHED_SHARE = 0.4
"""Share of a tile's start and end that is left where Q of the next tile is there already and
each warpgroup stores its own rows. Source: as of :data:`LAZY_VOTE_CYCLES`."""

STORE_CYCLES = 1397.0
"""From the last PV product to the end of the TMA store of O, without the transfer. fitted."""

LPT_TAIL = 0.73
"""Shortest tiles between the ends of the first and of the last SM. fitted."""

# ---- The clock --------------------------------------------------------------------------------

COOL_CLOCK = 1.168
"""Clock of an SM whose tensor cores idle, over the sustained one. fixed: 1980 / 1695 MHz."""

CLOCK_DROOP = 0.30
"""By how much of the sustained clock the power cap lowers it, times the square of the share of
time that the tensor cores work on real rows.

fixed: NVML read 1980 MHz for decode, 1875 where that share is 0.3, 1785 at 0.55, 1630 at 0.72
and 1580 at 0.78; the fit tends to the low side of what fits these readings, 0.30 to 0.40.
"""
