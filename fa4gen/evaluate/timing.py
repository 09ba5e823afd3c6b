"""Statistics of paired timing: plans, orders, intervals, the early stop. No torch, no clock.

Notation: ``rounds`` samples of each of ``n`` callables; sample ``i`` of all callables belongs to
one round and was taken within milliseconds of the others, so a ratio inside a round is free of
the card's slow drift. A ratio is always ``anchor / candidate``: above 1 the candidate is faster.

Source of the numbers in the defaults: timing one kernel against itself on an H200, 2026-11-20:
30 paired ratios have a standard deviation of 0.0004, two separate medians of 30 one of 0.015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fa4gen.core.evaluation import Timing

RESAMPLES = 2000
"""Bootstrap resamples; the 2.5 % quantile then rests on 50 of them."""

BOOTSTRAP_SEED = 20240229
"""Fixed, so that the same samples always give the same interval."""

CONFIDENCE = 0.95

LEAST_ROUNDS = 12
"""Rounds that no budget takes from a comparison: the interval of a median needs about as many."""

_SMALLEST_SQUARE = 3
"""From three callables on there is more than one fair order."""


@dataclass(frozen=True, slots=True)
class TimingPlan:
    """How long to time, and when to stop.

    A round takes one sample of every callable; a sample is one graph replay (or one burst of
    eager launches) of several launches.
    """

    min_rounds: int = LEAST_ROUNDS
    max_rounds: int = 60
    budget_s: float = 0.5
    """Wall-clock seconds of sampling for each callable; ``min_rounds`` are taken regardless."""
    sample_us: float = 400.0
    """Least length of one sample; launches are repeated to fill it, so that the resolution of an
    event (about 0.5 us) stays below 0.2 %."""
    hopeless_below: float | None = 0.97
    """Give up a pair once the upper bound of the gain is below this; ``None``: never."""
    hopeless_after: int = 6
    """Rounds before the first such decision; the next ones come after twice as many each."""

    def within(self, seconds: float, callables: int) -> TimingPlan:
        """This plan, made to end after ``seconds`` of sampling, but with :data:`LEAST_ROUNDS`."""
        budget_s = max(0.0, seconds) / max(1, callables)
        if budget_s >= self.budget_s:
            return self
        return replace(self, budget_s=budget_s, min_rounds=min(self.min_rounds, LEAST_ROUNDS))


TRIAL_PLAN = TimingPlan(budget_s=0.25)
"""One trial of a search: of the longest problems 30 rounds instead of 60, whose median gain differs
by 0.0001 to 0.0005 from that of 60 (standard deviation over 148 trials with 8192 and 16384 tokens,
an H200, 2026-11-22)."""

SHOOTOUT_PLAN = TimingPlan(min_rounds=40, max_rounds=240, budget_s=4.0, hopeless_below=None)
"""The last comparison of finalists: nobody is given up early."""


def paired_ratios(anchor_us: Sequence[float], candidate_us: Sequence[float]) -> NDArray[np.float64]:
    """``anchor / candidate`` round by round.

    Raises:
        ValueError: no samples, unequal counts, or a time that is not positive.
    """
    anchor = np.asarray(anchor_us, dtype=np.float64)
    candidate = np.asarray(candidate_us, dtype=np.float64)
    if anchor.shape != candidate.shape or anchor.ndim != 1 or not anchor.size:
        raise ValueError(
            f"paired samples: got {anchor.size} anchor and {candidate.size} candidate times, "
            "allowed: equal counts of 1 or more"
        )
    if not (np.all(anchor > 0) and np.all(candidate > 0)):  # also catches NaN
        raise ValueError("paired samples: got a time that is not positive")
    ratios: NDArray[np.float64] = anchor / candidate
    return ratios


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> tuple[float, float]:
    """Percentile interval of the median, by a circular block bootstrap.

    Neighbouring rounds share the card's momentary state, so single values are not independent;
    blocks of ``n ** (1/3)`` consecutive values are resampled instead. One value gives itself
    twice.
    """
    data = np.asarray(values, dtype=np.float64)
    n = data.size
    if not n:
        raise ValueError("bootstrap: got no values, allowed: 1 or more")
    block = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, n, size=(resamples, -(-n // block)))
    index = (starts[:, :, None] + np.arange(block)) % n
    medians = np.median(data[index.reshape(resamples, -1)[:, :n]], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)


def half_iqr(values: Sequence[float]) -> float:
    """Half the interquartile range: a spread that outliers do not move."""
    q1, q3 = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.75])
    return float(q3 - q1) / 2


def summarise(anchor_us: Sequence[float], candidate_us: Sequence[float]) -> Timing:
    """The :class:`Timing` of a candidate from its rounds against the anchor."""
    ratios = paired_ratios(anchor_us, candidate_us)
    low, high = bootstrap_interval(ratios)
    gain = float(np.median(ratios))
    return Timing(
        n=int(ratios.size),
        median_us=float(np.median(np.asarray(candidate_us))),
        spread_us=half_iqr(candidate_us),
        gain=gain,
        # The bootstrap of a few tied values can miss the estimate itself by a rounding.
        gain_low=min(low, gain),
        gain_high=max(high, gain),
    )


def hopeless(plan: TimingPlan, anchor_us: Sequence[float], candidate_us: Sequence[float]) -> bool:
    """Whether even the upper bound of the gain is below what the plan still cares for."""
    if plan.hopeless_below is None or len(candidate_us) < plan.hopeless_after:
        return False
    _, high = bootstrap_interval(paired_ratios(anchor_us, candidate_us))
    return high < plan.hopeless_below


def rounds_to_decision(plan: TimingPlan, done: int) -> int:
    """Rounds after which :func:`hopeless` is asked again, when ``done`` have been taken.

    Few, since the device waits meanwhile. Asked after every six, 277 of 830 trials were given up:
    271 after 6 rounds, 5 after 12, 1 after 36 (an H200, 2026-11-22).
    """
    decision = max(1, plan.hopeless_after)
    while decision <= done:
        decision *= 2
    return decision - done


def finished(plan: TimingPlan, rounds: int, elapsed_s: float, callables: int) -> bool:
    """Whether the plan is fulfilled after ``rounds`` rounds of ``callables`` callables."""
    if rounds >= plan.max_rounds:
        return True
    return rounds >= plan.min_rounds and elapsed_s >= plan.budget_s * callables


def balanced_orders(n: int) -> tuple[tuple[int, ...], ...]:
    """Orders for successive rounds in which no callable is favoured by its place.

    For two: strict alternation, 0 1 0 1 ..., so that each always follows the other. For more: a
    Williams design; over one cycle every callable stands in every place equally often, and
    inside rounds follows every other equally often, which cancels what a predecessor leaves
    behind (heat, clock, cache).
    """
    if n < 1:
        raise ValueError(f"orders: got {n} callables, allowed: 1 or more")
    if n < _SMALLEST_SQUARE:
        return (tuple(range(n)),)
    first = [0]
    for step in range(1, n):
        first.append((first[-1] + (step if step % 2 else -step)) % n)
    rows = [tuple((value + shift) % n for value in first) for shift in range(n)]
    if n % 2:  # an odd square is balanced only together with its mirror image
        rows += [tuple(reversed(row)) for row in rows]
    return tuple(rows)


def launches_per_sample(plan: TimingPlan, launch_us: float, buffers: int) -> int:
    """Launches in one sample: at least ``plan.sample_us`` long, a multiple of ``buffers``.

    The multiple makes every sample walk through all input buffers the same number of times.
    """
    wanted = math.ceil(plan.sample_us / max(launch_us, 1e-3))
    cycles = max(1, -(-wanted // buffers))
    return cycles * buffers


def buffers_past_l2(set_bytes: int, l2_bytes: int, *, times: int = 3, most: int = 512) -> int:
    """Number of input sets so that a set has left the L2 before its turn comes again.

    ``times`` L2 capacities lie between two uses of a set; at least 2 sets, at most ``most``.
    """
    return min(most, max(2, -(-times * l2_bytes // max(1, set_bytes))))
