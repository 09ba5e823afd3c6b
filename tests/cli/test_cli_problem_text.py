"""Problems as words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import ProblemError
from fa4gen.core.problem import AttentionProblem

sizes = st.integers(1, 10**6)
problems = st.builds(
    lambda sizes, heads, dtype, causal: AttentionProblem(
        *sizes[:3], heads[0] * heads[1], heads[0], *sizes[3:], dtype, causal
    ),
    st.tuples(sizes, sizes, sizes, sizes, sizes),
    st.tuples(st.integers(1, 64), st.integers(1, 16)),
    st.sampled_from(DType),
    st.booleans(),
)


@given(problems)
def test_what_str_writes_is_read_back(problem: AttentionProblem) -> None:
    assert parse_problem([str(problem)]) == problem.simplified
    assert parse_problem(reversed(str(problem).split())) == problem.simplified


def test_a_mask_that_hides_nothing_is_left_out() -> None:
    decode = parse_problem(["b4", "s1x4096", "h32/8", "d128", "causal"])
    assert str(decode) == "b4 s1x4096 h32/8 d128 bf16 dense"
    assert decode.visible_pairs == 4096
    assert parse_problem(["b4", "s2x4096", "h32/8", "d128", "causal"]).causal


def test_what_is_left_out_takes_the_usual_value() -> None:
    problem = parse_problem(["s4096", "h32/8", "d128"])
    assert str(problem) == "b1 s4096 h32/8 d128 bf16 dense"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("s4096 h32 d128 casual", "got 'casual', allowed words: b4"),
        ("s4096 s1 h32 d128", "got 's4096' and 's1', allowed: one of them"),
        ("s4096 h32", "missing head_dim, such as d128"),
        ("", "missing seqlen_q"),
        ("s4096 h32/7 d128", "num_heads_q: got 32"),
        ("s0 h8 d64", "seqlen_q: got 0"),
        ("s4096x h8 d64", "got 's4096x'"),
    ],
)
def test_a_bad_problem_says_what_is_wrong(words: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message.replace("(", r"\(")):
        parse_problem([words])
