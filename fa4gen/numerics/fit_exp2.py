"""Makes ``exp2_poly.toml``: minimax polynomials for ``2 ** f`` with the constant term fixed to 1.

Run ``python -m fa4gen.numerics.fit_exp2`` to print the file anew.

With ``c0 = 1`` the relative error ``p(f) / 2**f - 1`` is ``f * 2**-f * (q(f) - g(f))`` with ``p =
1 + f * q`` and ``g(f) = (2**f - 1) / f``: a weighted approximation of ``g`` by a polynomial one
degree lower. Remez' exchange finds the one whose weighted error alternates ``degree + 1`` times.
The weight vanishes at ``f = 0``, which is therefore never an extreme point.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from fa4gen.numerics.exp2_poly import DEGREES, evaluate

HALF_WIDTH = 0.5
GRID_POINTS = 20_001
MAX_EXCHANGES = 100
FULL_FROM_EXPONENT = -12
ULPS_TRIED = (-2, -1, 0, 1, 2)
"""Float32 steps around the rounded optimum that are tried for the two leading low terms."""

Float64Array = npt.NDArray[np.float64]


def minimax(degree: int) -> tuple[Float64Array, float]:
    """Coefficients ``c1 .. c_degree`` in float64, and the largest relative error.

    Raises:
        ArithmeticError: the exchange did not settle.
    """
    grid = np.linspace(-HALF_WIDTH, HALF_WIDTH, GRID_POINTS)
    grid = grid[grid != 0.0]
    powers = np.arange(1, degree + 1)
    basis = grid[:, None] ** powers * np.exp2(-grid)[:, None]
    target = 1.0 - np.exp2(-grid)
    # Signs of the weighted error alternate; the weight f * 2**-f itself changes sign at 0.
    weight_sign = np.sign(grid)
    angles = np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)
    points = np.unique(np.searchsorted(grid, -HALF_WIDTH * np.cos(angles)).clip(0, len(grid) - 1))
    for _ in range(MAX_EXCHANGES):
        alternation = (-1.0) ** np.arange(degree + 1) * weight_sign[points]
        system = np.column_stack([basis[points], alternation])
        *terms, level = np.linalg.solve(system, target[points])
        error = basis @ np.array(terms) - target
        exchanged = _extremes(error * weight_sign, degree + 1)
        if float(np.max(np.abs(error))) <= abs(level) * (1 + 1e-9):
            return np.array(terms), float(np.max(np.abs(error)))
        points = exchanged
    raise ArithmeticError(f"degree {degree}: no minimax after {MAX_EXCHANGES} exchanges")


def _extremes(error: Float64Array, count: int) -> npt.NDArray[np.intp]:
    """Indices of the ``count`` largest extremes of ``error`` whose signs alternate."""
    edges = np.flatnonzero(np.diff(np.sign(error))) + 1
    runs = np.split(np.arange(len(error)), edges)
    peaks = [int(run[np.argmax(np.abs(error[run]))]) for run in runs]
    while len(peaks) > count:  # drop from the end whose peak is lower
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return np.array(peaks, dtype=np.intp)


def float32_error(terms: tuple[float, ...], stride: int = 1) -> float:
    """Largest relative error of the float32 evaluation on every ``stride``-th float32.

    Magnitudes below ``2**FULL_FROM_EXPONENT`` are thinned out further: the polynomial's own error
    vanishes towards 0, and float32's is left.
    """
    worst = 0.0
    for exponent in range(-24, -1):
        thinned = stride if exponent >= FULL_FROM_EXPONENT else 64 * stride
        f = octave(exponent, thinned)
        exact = np.exp2(f.astype(np.float64))
        worst = max(worst, float(np.max(np.abs(evaluate(f, terms) / exact - 1.0))))
    return worst


def octave(exponent: int, stride: int) -> npt.NDArray[np.float32]:
    """Every ``stride``-th float32 with ``2**exponent <= |f| <= 2**(exponent + 1)``, both signs."""
    low, high = (int(np.float32(2.0**e).view(np.uint32)) for e in (exponent, exponent + 1))
    bits = np.append(np.arange(low, high, stride, dtype=np.uint32), np.uint32(high))
    positive = bits.view(np.float32)
    return np.concatenate([-positive[::-1], positive])


def rounded(terms: Float64Array) -> tuple[float, ...]:
    """``(1.0, c1, ...)`` in float32: the roundings near ``terms`` with the least error."""
    nearest = [np.float32(term) for term in terms]
    best: tuple[float, tuple[float, ...]] = (math.inf, ())
    tried = min(2, len(nearest))
    for steps in itertools.product(ULPS_TRIED, repeat=tried):
        moved = list(nearest)
        for index, step in enumerate(steps):
            moved[index] = np.float32(moved[index] + step * np.spacing(moved[index]))
        candidate = (1.0, *(float(term) for term in moved))
        best = min(best, (float32_error(candidate, 4099), candidate))
    return best[1]


def _rounded_up(error: float) -> str:
    """``error`` with four digits, never below it."""
    step = 10.0 ** (math.floor(math.log10(error)) - 3)
    return f"{math.ceil(error / step) * step:.3e}"


def main() -> None:
    """Print the data file."""
    print("# Minimax polynomials for 2**f on [-0.5, 0.5] with c0 = 1, lowest order first, float32.")
    print("# Made by `python -m fa4gen.numerics.fit_exp2`; do not edit.")
    print(
        "# max_relative_error: over every float32 of magnitude 2**-12 to 0.5 and one in 64 below,"
    )
    print("# evaluated by Horner's rule with FMA in float32.")
    for degree in DEGREES:
        terms, real_error = minimax(degree)
        result = rounded(terms)
        error = float32_error(result)
        print(f"\n[degree_{degree}]")
        print(f"coefficients = [{', '.join(repr(term.hex()) for term in result)}]")
        print(f"decimal = {list(result)}")
        print(f"max_relative_error = {_rounded_up(error)}")
        print(f"real_arithmetic_error = {real_error:.3e}")


if __name__ == "__main__":
    main()
