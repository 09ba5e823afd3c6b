"""e4m3 calls on a GPU: descales, copies, capture, compile, and the rule of the evaluators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from runtime_fakes import problem

from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import CheckCase, Distribution

pytestmark = pytest.mark.gpu

NAMES = ("q_descale", "k_descale", "v_descale")


def called(*arguments: Any, causal: bool) -> None:
    """``flash_attn_func`` as a kernel of the evaluators."""
    from fa4gen import flash_attn_func

    q, k, v, out, lse, *descales, scale = arguments
    result, result_lse = flash_attn_func(
        q, k, v, scale, causal, return_lse=True, **dict(zip(NAMES, descales, strict=True))
    )
    out.copy_(result)
    lse.copy_(result_lse)


def checked(of: AttentionProblem) -> str:
    """Empty where calls of the problem are right."""
    import torch

    from fa4gen.evaluate.gpu_check import make_inputs, run_case
    from fa4gen.numerics import exp2_error
    from fa4gen.runtime.ops import engine

    def launch(thunk: Callable[[], object]) -> None:
        thunk()
        torch.cuda.synchronize()

    def kernel(*arguments: Any) -> None:
        called(*arguments, causal=of.causal)

    case = CheckCase("drawn", of, Distribution.NORMAL)
    inputs = make_inputs(of, Distribution.NORMAL, 1, "cuda")
    config = engine().select(of, 0).config
    error = exp2_error(config)
    return run_case(kernel, case, inputs=inputs, launch=launch, exp2_error=error).message


@pytest.mark.parametrize(
    "sizes",
    [
        {"head_dim": 64, "causal": True},
        {"head_dim": 128, "num_heads_q": 8, "num_heads_kv": 2},
        {"head_dim": 256, "causal": True, "num_heads_q": 2},
        {"head_dim": 128, "seqlen_q": 1, "seqlen_k": 5000, "num_heads_q": 8, "num_heads_kv": 1},
        {"head_dim": 72, "head_dim_v": 40, "causal": True},  # copied, padded
    ],
)
def test_calls_are_right(sizes: dict[str, Any]) -> None:
    of = problem(**{"seqlen_q": 777, "num_heads_q": 4, "dtype": "e4m3", **sizes})
    assert checked(of) == ""


def test_capture_and_compile_give_the_same_bits() -> None:
    import torch

    from fa4gen import flash_attn_func
    from fa4gen.evaluate.gpu_check import make_inputs

    of = problem(dtype="e4m3", seqlen_q=300, num_heads_q=4)
    inputs = make_inputs(of, Distribution.NORMAL, 2, "cuda")
    descales: dict[str, Any] = dict(zip(NAMES, inputs.descales, strict=True))
    expected = flash_attn_func(*inputs[:3], **descales)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = flash_attn_func(*inputs[:3], **descales)
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)
    compiled = torch.compile(flash_attn_func, fullgraph=True)
    assert torch.equal(compiled(*inputs[:3], **descales), expected)


def test_without_descales_they_are_ones() -> None:
    import torch

    from fa4gen import flash_attn_func
    from fa4gen.evaluate.gpu_check import make_inputs

    of = problem(dtype="e4m3", seqlen_q=300, num_heads_q=4)
    inputs = make_inputs(of, Distribution.NORMAL, 3, "cuda")
    ones = torch.ones_like(inputs.descales[0])
    expected = flash_attn_func(*inputs[:3], q_descale=ones, k_descale=ones, v_descale=ones)
    assert torch.equal(flash_attn_func(*inputs[:3]), expected)
