"""What the computed errors say of degrees, shares and thresholds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution
from fa4gen.hardware import Sku
from fa4gen.numerics import LINE, max_relative_error
from fa4gen.space import space_for
from fa4gen.study.accuracy import MEASURES, RESCALED, AccuracyLab
from fa4gen.study.grid import Grid, make_grid
from fa4gen.study.plans import EXP2_KNOBS


@pytest.fixture(scope="module")
def grid(problem: AttentionProblem, sku: Sku) -> Grid:
    space = space_for(sku.arch.name)
    knobs = [knob for knob in space.knobs if knob.name in EXP2_KNOBS]
    return make_grid(problem.signature, sku.arch, knobs, space.default(problem.signature))


@pytest.fixture(scope="module")
def lab(problem: AttentionProblem, sku: Sku) -> AccuracyLab:
    return AccuracyLab(problem, sku.arch)


def test_the_kernel_that_takes_no_liberty_is_the_measure_of_all(
    lab: AccuracyLab, grid: Grid
) -> None:
    plain = lab.of(grid.make({"rescale_threshold_log2": 0.0}))
    assert plain["o_error_ratio"] == pytest.approx(1.0)
    assert 0.24 < plain["p_mean_ulp"] < 0.26  # rounding to nearest, evenly spread
    assert plain["p_max_ulp"] < 0.51
    assert plain["p32_max_ulp"] <= 2.0  # what ex2 promises
    assert set(MEASURES) <= set(plain)
    assert {f"{kind.value}_{RESCALED}" for kind in Distribution} <= set(plain)


def test_a_degree_costs_what_its_polynomial_errs(lab: AccuracyLab, grid: Grid) -> None:
    found = [
        lab.of(
            grid.make(
                {
                    "exp2_poly_fraction": 0.5,
                    "exp2_poly_degree": degree,
                    "rescale_threshold_log2": 0.0,
                }
            )
        )
        for degree in (2, 3, 4)
    ]
    assert found[0]["p32_max_ulp"] > 10 * found[1]["p32_max_ulp"] > 100 * found[2]["p32_max_ulp"]
    # 2.0e-3 is half a bf16 ulp at 1.0 to 2.0, and adds to the half that rounding takes.
    assert 0.8 < found[0]["p_max_ulp"] < 1.05
    assert found[0]["o_error_ratio"] > 1.03
    assert found[1]["o_error_ratio"] == pytest.approx(1.0, abs=0.005)


def test_degree_3_is_felt_in_fp16(sku: Sku, problem: AttentionProblem, grid: Grid) -> None:
    lab = AccuracyLab(replace(problem, dtype=DType.FP16), sku.arch)
    cubic = lab.of(grid.make({"exp2_poly_fraction": 0.5, "exp2_poly_degree": 3}))
    assert 0.6 < cubic["p_max_ulp"] < 0.75
    assert cubic["o_error_ratio"] > 1.005


def test_in_e4m3_rounding_hides_a_polynomial_and_most_of_a_line(
    sku: Sku, problem: AttentionProblem
) -> None:
    narrow = replace(problem, dtype=DType.E4M3)
    lab, default = AccuracyLab(narrow, sku.arch), space_for("sm90").default(narrow.signature)
    plain, degree_2, line = [
        lab.of(
            default.vary(
                {
                    "exp2_poly_fraction": share,
                    "exp2_poly_degree": degree,
                    "rescale_threshold_log2": 0.0,
                    "lazy_row_max": False,
                }
            )
        )
        for share, degree in ((0.0, 3), (0.5, 2), (0.5, 1))
    ]
    assert plain["o_error_ratio"] == pytest.approx(1.0)
    assert plain["p_max_ulp"] < 0.51
    assert plain["lse_max"] < 1e-4
    assert degree_2["o_error_ratio"] == pytest.approx(1.0, abs=0.01)
    # A line is up to 0.086 of a power of two off, and an ulp an eighth of it; rounding adds a half.
    assert 1.1 < line["p_max_ulp"] < 8 * 0.0861 + 0.5
    assert 1.1 < line["o_error_ratio"] < 1.6
    assert 0.01 < line["lse_max"] < max_relative_error(LINE)


def test_a_threshold_rescales_less_and_costs_accuracy(lab: AccuracyLab, grid: Grid) -> None:
    plain, lazy = (lab.of(grid.make({"rescale_threshold_log2": each})) for each in (0.0, 8.0))
    assert lazy["large_" + RESCALED] < 0.5 * plain["large_" + RESCALED]
    # The heaviest weight is exactly 1 only relative to the true maximum.
    assert lazy["large_o_error_ratio"] > 1.05


def test_what_computes_the_same_is_computed_once(lab: AccuracyLab, grid: Grid) -> None:
    front = lab.of(grid.make({"exp2_poly_degree": 2}))  # no effect without a polynomial
    assert front is lab.of(grid.make({}))
