"""What each study of knobs is about."""

from __future__ import annotations

from collections.abc import Sequence

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import check
from fa4gen.hardware import Arch
from fa4gen.space import space_for
from fa4gen.study.accuracy import MEASURES
from fa4gen.study.grid import chosen_knobs, make_grid
from fa4gen.study.peers import peer_points
from fa4gen.study.results import StudyKind
from fa4gen.study.run import StudyPlan

EXP2_KNOBS = (
    "exp2_poly_fraction",
    "exp2_poly_degree",
    "exp2_poly_placement",
    "exp2_poly_frequency",
    "exp2_poly_start",
    "exp2_poly_last",
    "rescale_threshold_log2",
)
"""Everything about the exponential; a family of kernels has some of them."""

DEFAULT_PROBLEM = AttentionProblem.from_dict(
    {"batch": 4, "seqlen_q": 4096, "num_heads_q": 16, "head_dim": 128}
)
"""What ``exp2-split`` is about where no problem is given."""

DEFAULT_MEASURE = "o_error_ratio"


def exp2_split_plan(
    problem: AttentionProblem, arch: Arch, measure: str = DEFAULT_MEASURE
) -> StudyPlan:
    """Speed against accuracy over the knobs of the exponential, the peers' points among them.

    Raises:
        UnknownName: no such measure, or no search space for the arch.
        NoFeasibleKernel: the head dimensions are beyond the space.
    """
    if measure not in MEASURES:
        raise UnknownName("measure of accuracy", measure, MEASURES)
    space = space_for(arch.name)
    knobs = [knob for name in EXP2_KNOBS for knob in space.knobs if knob.name == name]
    grid = make_grid(problem.signature, arch, knobs, space.default(problem.signature))
    marks: list[tuple[str, KernelConfig, str]] = []
    for point in peer_points(problem.signature, arch.name):
        config = grid.make(point.knobs)
        # In another tile, or with fewer columns, their split may not be theirs any more.
        as_set = all(getattr(config, name) == value for name, value in point.knobs.items())
        if as_set and check(problem.signature, config, arch):
            marks.append((point.who, config, point.source))
    return StudyPlan(StudyKind.EXP2_SPLIT, problem, grid, tuple(marks), measure)


def knobs_plan(problem: AttentionProblem, arch: Arch, names: Sequence[str]) -> StudyPlan:
    """Speed over every value of some knobs, the others as in the problem's default.

    Raises:
        UnknownName: a knob that the search space has not, or no search space for the arch.
        ConfigError: no knob, or one named twice.
        NoFeasibleKernel: the head dimensions are beyond the space.
    """
    space = space_for(arch.name)
    knobs = chosen_knobs(space, names)
    default = space.default(problem.signature)
    grid = make_grid(problem.signature, arch, knobs, default)
    return StudyPlan(StudyKind.KNOBS, problem, grid)
