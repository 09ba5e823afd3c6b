"""The committed polynomials: their stated error holds, and they are the best there are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import fa4gen.numerics
from fa4gen.core.errors import UnknownName
from fa4gen.numerics import DEGREES, LINE, coefficients, evaluate, max_relative_error
from fa4gen.numerics.fit_exp2 import float32_error, minimax, octave

STRIDE = 127


@pytest.mark.parametrize("degree", DEGREES)
def test_stated_error_holds_on_a_dense_float32_grid(degree: int) -> None:
    terms = coefficients(degree)
    error = float32_error(terms, STRIDE)
    assert error <= max_relative_error(degree)
    assert error > 0.9 * max_relative_error(degree)  # and is not stated too large


@pytest.mark.parametrize("degree", DEGREES)
def test_coefficients_are_float32_and_start_with_one(degree: int) -> None:
    terms = coefficients(degree)
    assert len(terms) == degree + 1
    assert terms[0] == 1.0
    assert all(float(np.float32(term)) == term for term in terms)
    assert evaluate(np.zeros(1, np.float32), terms)[0] == 1.0


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_rounding_to_float32_costs_little(degree: int) -> None:
    """Within 3 % of the best any polynomial of this form can do in real arithmetic."""
    _, best = minimax(degree)
    assert best < max_relative_error(degree) < 1.03 * best


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_fit_equioscillates(degree: int) -> None:
    """The mark of a minimax polynomial: degree + 1 extremes of equal size."""
    terms, best = minimax(degree)
    f = np.linspace(-0.5, 0.5, 40_001)
    powers = sum(c * f ** (i + 1) for i, c in enumerate(terms))
    error = np.abs((1.0 + powers) / np.exp2(f) - 1.0)
    inner = (error[1:-1] >= error[:-2]) & (error[1:-1] >= error[2:])
    peaks = [*error[1:-1][inner], error[0], error[-1]]
    assert sum(peak > 0.999 * best for peak in peaks) == degree + 1


def test_more_terms_err_less_and_two_suffice_for_bf16() -> None:
    errors = {degree: max_relative_error(degree) for degree in (LINE, *DEGREES)}
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert errors[LINE] < 2.0**-4  # what rounding P to e4m3 may cost
    assert errors[2] < 2.0**-8  # the same for bf16
    assert errors[3] < 2.0**-11  # and for fp16


def test_the_readable_copy_in_the_file_is_the_same() -> None:
    folder = Path(fa4gen.numerics.__file__).parent
    data = tomllib.loads((folder / "exp2_poly.toml").read_text())
    for degree in DEGREES:
        assert tuple(data[f"degree_{degree}"]["decimal"]) == coefficients(degree)


def test_octave_covers_both_signs_and_its_ends() -> None:
    f = octave(-2, 1 << 20)
    assert f.min() == -0.5
    assert f.max() == 0.5
    assert np.abs(f).min() == 0.25


@pytest.mark.parametrize("degree", [0, LINE, 7])
def test_unknown_degree(degree: int) -> None:
    with pytest.raises(UnknownName, match=str(degree)):
        coefficients(degree)
