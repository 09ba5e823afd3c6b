"""The rule for e4m3 on the CPU: an honest kernel passes, one that forgets something does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import DESCALES, CheckCase, small_cases
from fa4gen.evaluate.gpu_accumulator import accumulated
from fa4gen.evaluate.gpu_check import CaseResult, make_inputs, run_case
from fa4gen.evaluate.gpu_reference import reference
from fa4gen.evaluate.gpu_worker import input_bytes
from fa4gen.numerics.tensor_core import fused_dot, wgmma_accumulation

CONFIG = KernelConfig(tile_m=64, tile_n=64, pingpong=False)
PROBLEM = AttentionProblem.from_dict(
    {"batch": 1, "seqlen_q": 256, "num_heads_q": 4, "num_heads_kv": 2, "head_dim": 32,
     "dtype": "e4m3", "causal": True}
)  # fmt: skip
CASES = {case.kind: case for case in small_cases(PROBLEM, CONFIG)}


def attention(
    arguments: tuple[Any, ...], *, p_log2: float = 4.0, descales: tuple[int, ...] = (0, 1, 2)
) -> None:
    """What a kernel does, with P of the row maximum at ``2 ** p_log2`` and only some descales."""
    import torch

    q, k, v, out, lse, *given, scale = arguments
    ones = torch.ones_like(given[0])
    qd, kd, vd = (given[i] if i in descales else ones for i in range(3))
    group = q.shape[2] // k.shape[2]
    rows, keys = q.shape[1], k.shape[1]
    hidden = torch.ones(rows, keys, dtype=torch.bool).triu(1 + keys - rows)
    for b in range(q.shape[0]):
        for head in range(q.shape[2]):
            of = head // group
            scores = accumulated(q[b, :, head], k[b, :, of].transpose(0, 1))
            scores = (scores * (scale * qd[b, of] * kd[b, of])).masked_fill(hidden, -math.inf)
            peak = scores.amax(-1, keepdim=True).clamp_min(-1e30)
            p = (scores - peak + p_log2 * math.log(2)).exp()
            total = p.sum(-1, keepdim=True)
            product = accumulated(p.to(v.dtype), v[b, :, of])
            out[b, :, head] = product / total.clamp_min(1e-30) * vd[b, of]
            level = peak[:, 0] + total[:, 0].log() - p_log2 * math.log(2)
            lse[b, head] = level.where(total[:, 0] > 0, -math.inf)


def judged(case: CheckCase, **how: Any) -> CaseResult:
    def launch(thunk: Callable[[], object]) -> None:
        thunk()

    inputs = make_inputs(case.problem, case.distribution, 3, "cpu", CONFIG.tile_n)

    def kernel(*arguments: Any) -> None:
        attention(arguments, **how)

    return run_case(kernel, case, inputs=inputs, launch=launch, exp2_error=0.0)


@pytest.mark.parametrize("spread", [0.1, 1.0, 12.0])
def test_accumulators_are_those_of_the_machine(spread: float) -> None:
    """Beside the numpy model, which was compared with an H200 bit for bit."""
    import torch

    rng = np.random.default_rng(7)
    shapes = (24, 96), (40, 96)
    a, b = (
        torch.from_numpy(rng.standard_normal(shape).astype(np.float32) * np.float32(spread))
        for shape in shapes
    )
    a[:, 0] *= 20.0
    a[::3, 5] = 0.0
    a, b = (x.to(torch.float8_e4m3fn) for x in (a, b))
    how = wgmma_accumulation("e4m3", "e4m3", "f32")
    wanted = np.zeros((24, 40), np.float32)
    for k in range(0, 96, 32):
        parts = (x[:, k : k + 32].float().numpy() for x in (a, b))
        wanted = fused_dot(*parts, wanted, how)
    found = accumulated(a, b.T).numpy()
    np.testing.assert_array_equal(found, wanted)
    assert (found != (a.float() @ b.T.float()).numpy()).any()


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("p_log2", [0.0, 8.0])
def test_an_honest_kernel_passes_wherever_its_p_lies(kind: str, p_log2: float) -> None:
    result = judged(CASES[kind], p_log2=p_log2)
    assert not result.message, result


@pytest.mark.parametrize("without", [0, 1, 2])
def test_a_forgotten_descale_is_seen(without: int) -> None:
    kept = tuple(i for i in range(3) if i != without)
    assert judged(CASES["normal"], descales=kept).message


def test_p_beyond_the_type_is_seen() -> None:
    assert judged(CASES["normal"], p_log2=-8.0).message


def test_descales_are_drawn_for_each_kv_head_and_are_no_ones() -> None:
    inputs = make_inputs(PROBLEM, CASES["normal"].distribution, 1, "cpu")
    assert [tuple(descale.shape) for descale in inputs.descales] == [(1, 2)] * 3
    values = np.concatenate([descale.numpy().ravel() for descale in inputs.descales])
    assert len(set(values.tolist())) == values.size
    assert DESCALES[0] <= values.min() < values.max() <= DESCALES[1]


def test_the_reference_is_of_the_true_values() -> None:
    import torch

    inputs = make_inputs(PROBLEM, CASES["normal"].distribution, 1, "cpu")
    wanted = reference(inputs, False, 0.125, [(0, 3)])
    qd, kd, vd = (descale[0, 1].double() for descale in inputs.descales)
    scores = inputs.q[0, :, 3].double() @ inputs.k[0, :, 1].double().T * (0.125 * qd * kd)
    torch.testing.assert_close(wanted.lse[0], scores.logsumexp(-1))
    torch.testing.assert_close(wanted.o[0], scores.softmax(-1) @ inputs.v[0, :, 1].double() * vd)


def test_input_bytes_count_o_in_its_own_type() -> None:
    assert input_bytes(PROBLEM) == 256 * 32 * (4 + 2 + 2 + 4 * 2)
