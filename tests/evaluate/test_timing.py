"""Statistics of paired timing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fa4gen.evaluate.timing import (
    LEAST_ROUNDS,
    SHOOTOUT_PLAN,
    TRIAL_PLAN,
    TimingPlan,
    balanced_orders,
    bootstrap_interval,
    buffers_past_l2,
    finished,
    half_iqr,
    hopeless,
    launches_per_sample,
    paired_ratios,
    rounds_to_decision,
    summarise,
)


def drifting(rounds: int, gain: float, noise: float, seed: int) -> tuple[list[float], list[float]]:
    """Anchor and candidate times of a card that slows down by 17 % while it is timed."""
    rng = np.random.default_rng(seed)
    drift = 100 * np.linspace(1.0, 1.17, rounds)
    anchor = drift * (1 + noise * rng.standard_normal(rounds))
    candidate = drift / gain * (1 + noise * rng.standard_normal(rounds))
    return list(anchor), list(candidate)


def test_pairing_recovers_a_gain_far_below_the_drift() -> None:
    timing = summarise(*drifting(60, gain=1.003, noise=0.0004, seed=1))
    assert timing.gain == pytest.approx(1.003, abs=0.0005)
    assert timing.proven
    assert timing.n == 60


def test_gain_is_anchor_over_candidate() -> None:
    timing = summarise([200.0] * 12, [100.0] * 12)
    assert (timing.gain, timing.gain_low, timing.gain_high) == (2.0, 2.0, 2.0)
    assert (timing.median_us, timing.spread_us) == (100.0, 0.0)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        timing = summarise(*drifting(40, gain=1.0, noise=0.001, seed=seed))
        covered += timing.gain_low <= 1.0 <= timing.gain_high
    assert covered >= 176  # 95 % of 200, less 4 standard deviations


def test_blocks_widen_the_interval_of_correlated_rounds() -> None:
    rng = np.random.default_rng(3)
    slow = np.repeat(rng.standard_normal(25), 8)  # neighbours agree
    shuffled = rng.permutation(slow)
    low, high = bootstrap_interval(slow)
    shuffled_low, shuffled_high = bootstrap_interval(shuffled)
    assert high - low > 1.3 * (shuffled_high - shuffled_low)


def test_interval_is_reproducible_and_holds_the_median() -> None:
    values = list(np.random.default_rng(0).normal(1, 0.01, 31))
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert low < np.median(values) < high
    assert bootstrap_interval([2.5]) == (2.5, 2.5)


def test_half_iqr_ignores_an_outlier() -> None:
    assert half_iqr([1.0, 2.0, 3.0, 4.0, 1000.0]) == 1.0


@pytest.mark.parametrize(
    ("anchor", "candidate"),
    [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([float("nan")], [1.0])],
)
def test_bad_samples_are_refused(anchor: list[float], candidate: list[float]) -> None:
    with pytest.raises(ValueError, match="paired samples"):
        paired_ratios(anchor, candidate)


def test_hopeless_needs_enough_rounds_and_a_clear_loss() -> None:
    anchor, candidate = drifting(6, gain=0.9, noise=0.001, seed=0)
    assert hopeless(TRIAL_PLAN, anchor, candidate)
    assert not hopeless(TRIAL_PLAN, anchor[:5], candidate[:5])
    assert not hopeless(TRIAL_PLAN, *drifting(6, gain=0.98, noise=0.001, seed=0))
    assert not hopeless(TimingPlan(hopeless_below=None), anchor, candidate)


def test_noise_does_not_make_hopeless() -> None:
    wild = drifting(6, gain=1.0, noise=0.2, seed=5)
    assert not hopeless(TRIAL_PLAN, *wild)


def test_finished_by_rounds_or_by_time_after_the_least() -> None:
    plan = TimingPlan(min_rounds=10, max_rounds=20, budget_s=1.0)
    assert not finished(plan, 9, 100.0, 2)
    assert finished(plan, 10, 2.0, 2)
    assert not finished(plan, 19, 1.9, 2)
    assert finished(plan, 20, 0.0, 2)


def test_two_alternate_strictly() -> None:
    assert balanced_orders(2) == ((0, 1),)
    assert balanced_orders(1) == ((0,),)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 12])
def test_orders_favour_nobody(n: int) -> None:
    orders = balanced_orders(n)
    assert all(sorted(order) == list(range(n)) for order in orders)
    for place in range(n):
        counts = np.bincount([order[place] for order in orders], minlength=n)
        assert len(set(counts)) == 1, "place"
    follows = [pair for order in orders for pair in pairwise(order)]
    counts_of_pairs = {pair: follows.count(pair) for pair in follows}
    assert len(counts_of_pairs) == n * (n - 1)
    assert len(set(counts_of_pairs.values())) == 1


def test_no_callables_have_no_order() -> None:
    with pytest.raises(ValueError, match="0 callables"):
        balanced_orders(0)


@pytest.mark.parametrize(
    ("launch_us", "buffers", "launches"),
    [
        (1000.0, 2, 2),
        (100.0, 2, 4),
        (100.0, 3, 6),
        (1.0, 1, 400),
        (5.0, 180, 180),
        (0.0, 1, 400000),
    ],
)
def test_a_sample_is_long_enough_and_uses_every_buffer_alike(
    launch_us: float, buffers: int, launches: int
) -> None:
    assert launches_per_sample(TRIAL_PLAN, launch_us, buffers) == launches


def test_buffers_reach_past_the_l2_three_times() -> None:
    l2 = 60 << 20
    assert buffers_past_l2(256 << 20, l2) == 2
    assert buffers_past_l2(20 << 20, l2) == 9
    assert buffers_past_l2(1, l2) == 512


def test_a_plan_within_seconds_keeps_enough_rounds() -> None:
    long = SHOOTOUT_PLAN
    assert long.within(1000.0, 4) == long
    short = long.within(2.0, 4)
    assert short.budget_s == 0.5
    assert short.min_rounds == LEAST_ROUNDS < long.min_rounds
    assert not finished(short, LEAST_ROUNDS, 1.9, 4)
    assert finished(short, LEAST_ROUNDS, 2.0, 4)
    nothing = long.within(-1.0, 2)
    assert not finished(nothing, LEAST_ROUNDS - 1, 9.0, 2)
    assert finished(nothing, LEAST_ROUNDS, 0.0, 2)


def test_decisions_come_after_twice_as_many_rounds_each() -> None:
    plan = TimingPlan(hopeless_after=6)
    assert [rounds_to_decision(plan, done) for done in (0, 4, 6, 12, 13, 24, 48)] == [
        6,
        2,
        6,
        12,
        11,
        24,
        48,
    ]
