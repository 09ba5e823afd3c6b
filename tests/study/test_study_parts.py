"""Grids, peers' points, fronts, files and labels of studies."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4gen.core.dtypes import DType
from fa4gen.core.errors import ConfigError, NoFeasibleKernel, ResourceError, UnknownName
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.hardware import Sku, load_sku
from fa4gen.space import space_for
from fa4gen.study import StudyPlan, exp2_split_plan, knobs_plan
from fa4gen.study.files import knob_value, read_study
from fa4gen.study.front import contenders, error_level, pareto_front
from fa4gen.study.peers import peer_points


@dataclass(frozen=True)
class Point:
    gain: float | None
    accuracy: dict[str, float] = field(default_factory=dict)
    gain_low: float | None = None
    gain_high: float | None = None


def point(gain: float, error: float, width: float = 0.0) -> Point:
    return Point(gain, {"e": error}, gain - width, gain + width)


def test_a_grid_lists_what_cannot_run_with_its_reason(speed_plan: StudyPlan) -> None:
    grid = speed_plan.grid
    assert grid.combinations == 27
    assert len(grid.configs) + len(grid.refused) == 27
    assert grid.refused
    assert all(str(refused.verdict) for refused in grid.refused)
    assert all(grid.verdict(config) for config in grid.configs)


def test_a_grid_has_each_kernel_once(problem: AttentionProblem, sku: Sku) -> None:
    """Without a polynomial its degree has no effect, and in 16 bits 1 is spelled 2."""
    grid = knobs_plan(problem, sku.arch, ["exp2_poly_fraction", "exp2_poly_degree"]).grid
    assert grid.combinations == 28
    assert len(grid.configs) == 1 + 6 * 3


def test_all_other_knobs_are_the_defaults(speed_plan: StudyPlan) -> None:
    default = speed_plan.grid.default
    changed = set(itertools.chain(*(c.differences(default) for c in speed_plan.grid.configs)))
    # Registers follow from the tile, and one consumer has nobody to take turns with.
    assert changed <= {"tile_m", "tile_n", "regs_consumer", "pingpong"}


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        (["tile_k"], UnknownName, "tile_k"),
        ([], ConfigError, "none"),
        (["tile_n", "tile_n"], ConfigError, "each once"),
        (["exp2_poly_start"], UnknownName, "exp2_poly_start"),  # Blackwell's
    ],
)
def test_knobs_that_cannot_be_studied(
    problem: AttentionProblem, sku: Sku, names: list[str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        knobs_plan(problem, sku.arch, names)


def test_no_such_measure_or_head_dim(problem: AttentionProblem, sku: Sku) -> None:
    with pytest.raises(UnknownName, match="o_error_ratio"):
        exp2_split_plan(problem, sku.arch, "beauty")
    with pytest.raises(NoFeasibleKernel):
        exp2_split_plan(replace(problem, head_dim=512, head_dim_v=512), sku.arch)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_flash_attention_4s_point_is_the_default_on_blackwell(head_dim: int, causal: bool) -> None:
    """The space's rows are said to be its constants."""
    signature = KernelSignature(DType.BF16, head_dim, head_dim, causal, 1)
    for arch in ("sm100", "sm103"):
        default = space_for(arch).default(signature)
        theirs = [p for p in peer_points(signature, arch) if p.who.startswith("FlashAttention-4")]
        assert any(
            all(getattr(default, knob) == value for knob, value in p.knobs.items()) for p in theirs
        )


def test_no_peers_choice_for_16_bits_stands_beside_8() -> None:
    wide = KernelSignature(DType.BF16, 128, 128, False, 1)
    assert peer_points(wide, "sm90")
    assert not peer_points(replace(wide, dtype=DType.E4M3), "sm90")


@pytest.mark.parametrize("name", ["h200", "b200", "b300"])
def test_peers_are_in_every_split(name: str, problem: AttentionProblem) -> None:
    plan = exp2_split_plan(replace(problem, head_dim=128, head_dim_v=128), load_sku(name).arch)
    assert any("FlashAttention-4" in who for who, _, _ in plan.marks)
    assert any("cuDNN" in who for who, _, _ in plan.marks)
    assert all(source for _, _, source in plan.marks)
    assert all(plan.grid.verdict(config) for _, config, _ in plan.marks)


SPEEDS = st.floats(0.5, 1.5)
ERRORS = st.floats(0.1, 10.0)


@given(st.lists(st.builds(point, SPEEDS, ERRORS), min_size=1, max_size=30))
def test_nothing_beats_the_front_and_the_front_beats_the_rest(points: list[Point]) -> None:
    front = pareto_front(points, "e")

    def as_good(a: Point, b: Point) -> bool:
        exact = error_level(a.accuracy["e"]) <= error_level(b.accuracy["e"])
        return exact and (a.gain or 0.0) >= (b.gain or 0.0)

    def beats(a: Point, b: Point) -> bool:
        return as_good(a, b) and not as_good(b, a)

    assert not any(beats(a, b) for a in points for b in front)
    assert all(b in front or any(as_good(a, b) for a in front) for b in points)


def test_the_front_takes_the_fastest_of_what_is_equally_exact() -> None:
    points = [point(1.0, 1.0), point(1.2, 1.001), point(1.1, 1.002), point(1.3, 1.5)]
    assert pareto_front(points, "e") == [points[3], points[1]]


def test_what_has_no_time_takes_no_part() -> None:
    assert pareto_front([Point(None, {"e": 0.1}), point(1.0, 1.0)], "e") == [point(1.0, 1.0)]


def test_contenders_are_those_that_noise_may_hide() -> None:
    best, near, slow = point(1.1, 1.0, 0.01), point(1.09, 1.0, 0.01), point(1.0, 1.0, 0.01)
    exact = point(0.9, 0.5, 0.01)
    assert contenders([slow, best, near, exact], "e", 9) == [best, near, exact]
    assert contenders([slow, best, near, exact], "e", 1) == [best]
    assert contenders([slow, best, near, exact], "", 9) == [best, near]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tile_n", "96", 96),
        ("exp2_poly_fraction", "0.25", 0.25),
        ("exp2_poly_fraction", "0", 0.0),
        ("pingpong", "true", True),
        ("pingpong", "false", False),
        ("scheduler", "lpt", "lpt"),
    ],
)
def test_knob_values_survive_the_csv(name: str, text: str, value: object) -> None:
    got = knob_value(name, text)
    assert got == value
    assert type(got) is type(value)


def test_a_folder_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"study\.json"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    (tmp_path / "results.csv").write_text("")
    with pytest.raises(ResourceError, match="run the study again"):
        read_study(tmp_path)
