"""The line through each octave: as near to ``2 ** x`` as it says, and exact at powers of two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fa4gen.numerics import LINE, exp2_line, line_bias, max_relative_error
from fa4gen.numerics.exp2_by_line import LEAST_EXPONENT


def test_the_stated_error_holds_and_is_not_stated_too_large() -> None:
    x = np.random.default_rng(1).uniform(LEAST_EXPONENT, 100.0, 2_000_000).astype(np.float32)
    error = exp2_line(x) / np.exp2(x.astype(np.float64)) - 1.0
    assert error.min() > -1e-4  # nowhere below, but for half a step
    assert 0.999 * max_relative_error(LINE) < error.max() <= max_relative_error(LINE)


def test_powers_of_two_are_exact() -> None:
    x = np.arange(LEAST_EXPONENT, 101.0, dtype=np.float32)
    assert (exp2_line(x) == np.exp2(x.astype(np.float64))).all()


def test_it_rises_and_is_straight_between_powers_of_two() -> None:
    steps = np.diff(exp2_line(np.linspace(4.0, 5.0, 1025, dtype=np.float32)).astype(np.float64))
    assert (steps == 2.0**-6).all()


@pytest.mark.parametrize("x", [-math.inf, -3e38, -1000.0, LEAST_EXPONENT])
def test_far_below_it_is_negligible_and_normal(x: float) -> None:
    assert exp2_line(np.array([x], np.float32))[0] == 2.0**LEAST_EXPONENT


@pytest.mark.parametrize("start", [0.0, -112.0])
def test_the_bias_makes_of_the_start_its_power_of_two(start: float) -> None:
    """What Hopper's kernels add, whose fixed point begins where ``fma.sat`` clamps."""
    nothing = np.array([1.5 * 2**23], np.float32).view(np.uint32) << np.uint32(8)
    assert (nothing + np.uint32(line_bias(start))).view(np.float32)[0] == 2.0**start
