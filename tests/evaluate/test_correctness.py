"""The rule of correctness, on kernels emulated on the CPU: right ones pass, wrong ones fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import fake_kernels
import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate import emulated
from fa4gen.evaluate.correctness import (
    CheckCase,
    Distribution,
    allowed_error,
    allowed_lse_error,
    check_cases,
    own_case,
    row_step,
    small_cases,
)
from fa4gen.evaluate.gpu_check import CaseResult, Inputs, make_inputs, run_case, softmax_scale
from fa4gen.evaluate.gpu_reference import reference
from fa4gen.numerics import attention_fp64, max_relative_error

CONFIG = KernelConfig(tile_m=64, tile_n=64, pingpong=False)
DENSE = AttentionProblem(1, 200, 260, 4, 2, 64, 64, DType.BF16, causal=False)
CAUSAL = replace(DENSE, causal=True, seqlen_q=260)


def run(name: str, case: CheckCase, exp2_error: float = 0.0, seed: int = 7) -> CaseResult:
    inputs = make_inputs(case.problem, case.distribution, seed, "cpu", CONFIG.tile_n)

    def launch(thunk: Callable[[], object]) -> None:
        thunk()

    kernel = fake_kernels.make(name, case.problem.causal)
    return run_case(kernel, case, inputs=inputs, launch=launch, exp2_error=exp2_error)


def case_of(kind: str, problem: AttentionProblem = DENSE) -> CheckCase:
    (case,) = [c for c in check_cases(problem, CONFIG, seed=3) if c.kind == kind]
    return case


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "dtype", "problem"),
    [
        ("good", DType.BF16, DENSE),
        ("good", DType.FP16, CAUSAL),
        ("good_lazy", DType.BF16, CAUSAL),
        ("good_lazy", DType.FP16, DENSE),
    ],
)
def test_a_right_kernel_passes_every_kind(
    name: str, dtype: DType, problem: AttentionProblem
) -> None:
    for case in check_cases(replace(problem, dtype=dtype), CONFIG, seed=3):
        result = run(name, case)
        assert result.message == "", result
        assert 0 <= result.error <= result.allowed < 0.2


@pytest.mark.parametrize("head_dim_v", [16, 96])
def test_head_dim_v_may_differ(head_dim_v: int) -> None:
    assert run("good", case_of("ragged", replace(DENSE, head_dim_v=head_dim_v))).message == ""


@pytest.mark.parametrize("kind", ["normal", "large", "growing", "ragged", "offset", "problem"])
def test_one_row_off_by_five_percent_fails(kind: str) -> None:
    result = run("row", case_of(kind))
    problem = case_of(kind).problem
    assert f"{kind}: O at batch {problem.batch - 1}, head 3" in result.message
    assert f"row {problem.seqlen_q // 2}" in result.message
    assert result.error > result.allowed > 0


def test_nan_and_infinity_fail() -> None:
    assert "not finite" in run("nan", case_of("normal")).message
    assert "not finite" in run("infinite", case_of("normal")).message


def test_unwritten_output_fails_with_the_place() -> None:
    result = run("unwritten", case_of("normal"))
    assert "elements of O unwritten, first [0, 127, 0, 0]" in result.message


def test_a_write_outside_the_output_fails() -> None:
    assert "1 elements written outside O" in run("outside", case_of("normal")).message


def test_wrong_lse_fails() -> None:
    result = run("lse", case_of("normal"))
    assert "LSE at batch 1, head 3, row 127" in result.message
    assert result.error == pytest.approx(0.01, rel=0.1)


def test_a_moving_result_is_a_race() -> None:
    assert "differ between two runs" in run("moving", case_of("normal")).message


def test_forgotten_empty_rows_fail_only_where_rows_are_empty() -> None:
    assert "O at" in run("unmasked_rows", case_of("masked", CAUSAL)).message
    assert run("unmasked_rows", case_of("normal", CAUSAL)).message == ""


def test_the_causal_mask_must_be_aligned_bottom_right() -> None:
    case = case_of("offset", CAUSAL)
    assert case.problem.seqlen_k > case.problem.seqlen_q
    inputs = make_inputs(case.problem, case.distribution, 1, "cpu")

    def top_left(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
        rows = q.shape[1]
        fake_kernels.flash(q, k[:, :rows], v[:, :rows], out, lse, scale, causal=True)

    result = run_case(top_left, case, inputs=inputs, launch=lambda f: f() and None, exp2_error=0.0)
    assert "O at" in result.message


def test_degree_2_polynomial_passes_with_its_bound_only() -> None:
    error = max_relative_error(2)
    for case in check_cases(DENSE, CONFIG, seed=3):
        assert run("polynomial", case, exp2_error=error).message == ""
    fp16 = replace(DENSE, dtype=DType.FP16)  # bf16 rounding alone would hide it
    assert any(run("polynomial", case).message for case in check_cases(fp16, CONFIG, seed=3))


def test_the_bound_does_not_hide_a_wrong_row() -> None:
    error = max_relative_error(2)
    assert "O at" in run("row", case_of("normal"), exp2_error=error).message


def test_reference_agrees_with_plain_float64() -> None:
    import torch

    problem = replace(DENSE, causal=True, seqlen_q=40, seqlen_k=30, batch=2)
    inputs = make_inputs(problem, Distribution.NORMAL, 5, "cpu")
    wanted = reference(inputs, True, softmax_scale(problem), [(1, 3)])
    q, k, v = inputs.q[1, :, 3], inputs.k[1, :, 1], inputs.v[1, :, 1]
    scores = q.double() @ k.double().T * 64**-0.5
    hidden = torch.ones(40, 30, dtype=torch.bool).triu(30 - 40 + 1)
    scores.masked_fill_(hidden, -math.inf)
    torch.testing.assert_close(wanted.lse[0], scores.logsumexp(-1))
    o = torch.nan_to_num(scores.softmax(-1)) @ v.double()
    torch.testing.assert_close(wanted.o[0], o)
    assert (wanted.o[0, :10] == 0).all()
    assert wanted.lse[0, :10].isneginf().all()


def test_the_emulator_allows_what_a_gpu_does() -> None:
    """The worst of several draws of P's rounding; a single one may be lucky."""
    import torch

    problem = AttentionProblem(1, 75, 360, 1, 1, 64, 64, DType.FP16, causal=True)
    for seed in range(4):
        arrays = emulated.make_inputs(problem, Distribution.NORMAL, seed)
        o, lse = attention_fp64(*arrays, 0.125, True)
        mine, _ = emulated.compare(problem, arrays, (o, lse), 0.125, 0.0)
        tensors = Inputs(*(torch.from_numpy(array) for array in arrays))
        theirs = reference(tensors, True, 0.125, [(0, 0)])
        worst, largest = (float(x.abs().max()) for x in (theirs.worst_16, theirs.o))
        allowed = allowed_error(worst, largest, problem.dtype.unit_roundoff)
        assert mine.allowed == pytest.approx(allowed, rel=0.02)


def test_reference_does_not_depend_on_chunking(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    inputs = make_inputs(DENSE, Distribution.NORMAL, 5, "cpu")
    whole = reference(inputs, True, 0.1, [(0, 0), (0, 3)])
    monkeypatch.setattr("fa4gen.evaluate.gpu_reference.CHUNK_BYTES", 8 * 260 * 2 * 7)
    for mine, theirs in zip(reference(inputs, True, 0.1, [(0, 0), (0, 3)]), whole, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_growing_logits_cross_the_threshold_block_after_block() -> None:
    case = case_of("growing")
    inputs = make_inputs(case.problem, case.distribution, 1, "cpu", CONFIG.tile_n)
    scale_log2 = softmax_scale(case.problem) * math.log2(math.e)
    scores = inputs.q[0, :, 0].float() @ inputs.k[0, :, 0].float().T * scale_log2
    maxima = scores.unflatten(-1, (-1, CONFIG.tile_n)).amax(-1)
    growth = maxima.diff(dim=-1)
    assert case.problem.seqlen_k >= (2 * CONFIG.num_kv_stages + 1) * CONFIG.tile_n
    assert (growth[0] > 8).all(), "the fastest rows cross every threshold at every block"
    assert (growth < 0).any(), "some rows fall"
    small = (growth > 0.5) & (growth < 8)
    assert small.any(), "some stay below the largest threshold"


def test_masked_kind_has_a_query_tile_that_sees_nothing() -> None:
    problem = case_of("masked", CAUSAL).problem
    assert problem.seqlen_q - problem.seqlen_k >= CONFIG.tile_m
    assert "masked" not in [c.kind for c in check_cases(DENSE, CONFIG, seed=1)]


def test_small_cases_stay_small_and_keep_the_signature() -> None:
    big = AttentionProblem(8, 8192, 8192, 64, 1, 128, 128, DType.BF16, causal=True)
    for case in small_cases(big, KernelConfig()):
        assert case.problem.signature == big.signature
        assert case.problem.flops < 2e10
        assert case.slices is None


def test_own_case_samples_first_last_and_others() -> None:
    problem = replace(DENSE, batch=3, num_heads_q=8)
    case = own_case(problem, seed=1)
    assert case.problem == problem
    assert {(0, 0), (2, 7)} <= set(case.slices or ())
    assert len(case.slices or ()) == 4
    assert own_case(problem, seed=2) != case
    tiny = own_case(replace(problem, batch=1, num_heads_q=1, num_heads_kv=1), 1)
    assert tiny.slices == ((0, 0),)
    assert tiny.rows is None


@pytest.mark.parametrize(
    ("seqlen", "dtype", "step"),
    [
        (2048, DType.BF16, 1),
        (8192, DType.BF16, 3),
        (16384, DType.BF16, 7),
        (131072, DType.BF16, 63),
        (2048, DType.E4M3, 3),
        (16384, DType.E4M3, 63),
    ],
)
def test_long_problems_compare_rows_of_every_query_tile(
    seqlen: int, dtype: DType, step: int
) -> None:
    problem = replace(DENSE, batch=2, num_heads_q=16, seqlen_q=seqlen, seqlen_k=seqlen)
    problem = replace(problem, dtype=dtype)
    assert row_step(problem) == step
    drawn = [own_case(problem, seed) for seed in range(20)]
    for case in drawn:
        assert {(0, 0), (1, 15)} <= set(case.slices or ())
        assert len(case.slices or ()) == 4
        rows = case.rows or tuple(range(seqlen))
        assert rows[-1] == seqlen - 1
        assert {row // 64 for row in rows} == set(range(seqlen // 64))
        assert max(b - a for a, b in pairwise(rows)) == step
    assert len({case.slices for case in drawn}) > 5, "the others are another draw each time"
    assert step == 1 or len({case.rows for case in drawn}) > 1


def test_one_query_row_is_compared_however_many_keys() -> None:
    case = own_case(replace(DENSE, seqlen_q=1, seqlen_k=1 << 27), seed=1)
    assert case.rows in (None, (0,))


def test_rows_that_are_left_out_change_nothing_of_the_others() -> None:
    import torch

    problem = replace(DENSE, causal=True, seqlen_q=40, seqlen_k=50)
    inputs = make_inputs(problem, Distribution.NORMAL, 5, "cpu")
    slices, rows = [(0, 0), (0, 3)], (2, 9, 16, 39)
    whole = reference(inputs, True, 0.1, slices)
    for some, every in zip(reference(inputs, True, 0.1, slices, rows), whole, strict=True):
        torch.testing.assert_close(some, every[:, list(rows)])


def test_an_error_in_a_compared_row_is_named_by_its_number() -> None:
    case = replace(case_of("normal"), slices=((1, 3),))
    middle, last = case.problem.seqlen_q // 2, case.problem.seqlen_q - 1
    with_both = replace(case, rows=(3, middle, last))
    assert f"O at batch 1, head 3, row {middle}" in run("row", with_both).message
    assert f"LSE at batch 1, head 3, row {last}" in run("lse", with_both).message
    with_neither = replace(case, rows=(3, middle + 1, last - 1))
    assert run("row", with_neither).message == run("lse", with_neither).message == ""


def test_allowance_is_twice_the_baseline_and_at_least_one_rounding() -> None:
    assert allowed_error(0.01, 1.0, 2**-8) == 0.02
    assert allowed_error(0.0, 4.0, 2**-8) == 4 * 2**-8
    assert allowed_lse_error(1e-6, 0.0, 0.0) == pytest.approx(2e-6 + 2**-17)
    assert allowed_lse_error(0.0, 50.0, 0.001) == pytest.approx(50 * 2**-17 + 0.001, rel=1e-3)


def test_fresh_seeds_give_fresh_inputs() -> None:
    first = make_inputs(DENSE, Distribution.LARGE, 1, "cpu")
    again = make_inputs(DENSE, Distribution.LARGE, 1, "cpu")
    other = make_inputs(DENSE, Distribution.LARGE, 2, "cpu")
    assert all(bool((a == b).all()) for a, b in zip(first[:3], again[:3], strict=True))
    assert not bool((first.q == other.q).all())
