"""The runtime on a GPU: right answers, capture, compile, views, streams, threads, host time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_fakes import VIEWS, draw, problem, reference, views

from fa4gen.core.errors import CaptureError, InputError
from fa4gen.core.problem import AttentionProblem
from fa4gen.runtime import Rung, RuntimeSettings

pytestmark = pytest.mark.gpu

SIGNATURES: list[dict[str, Any]] = [
    {"head_dim": 64, "causal": True, "num_heads_q": 4},
    {"head_dim": 128, "causal": False, "num_heads_q": 3},
    {"head_dim": 128, "causal": True, "num_heads_q": 8, "num_heads_kv": 2},
    {"head_dim": 96, "head_dim_v": 64, "causal": True, "num_heads_q": 2, "dtype": "fp16"},
    {"head_dim": 100, "causal": False, "num_heads_q": 2},
    {"head_dim": 256, "causal": True, "num_heads_q": 2, "num_heads_kv": 1},
]
"""Few, since each is a compile of seconds."""

LSE_ATOL = 1e-3


def same_precision(q: Any, k: Any, v: Any, causal: bool) -> Any:
    """O with 16-bit inputs, float32 scores and sums, P and O rounded to 16 bits."""
    import torch

    group = q.shape[2] // k.shape[2]
    queries = q.float().transpose(1, 2)
    keys = k.float().transpose(1, 2).repeat_interleave(group, 1)
    values = v.float().transpose(1, 2).repeat_interleave(group, 1)
    scores = queries @ keys.transpose(2, 3) * q.shape[3] ** -0.5
    if causal:
        rows, columns = scores.shape[2:]
        ones = torch.ones(rows, columns, dtype=torch.bool, device=q.device)
        scores = scores.masked_fill(ones.triu(1 + columns - rows), float("-inf"))
    row_max = scores.amax(3, keepdim=True).nan_to_num(neginf=0.0)
    weights = (scores - row_max).exp()
    row_sum = weights.sum(3, keepdim=True).clamp_min(1e-30)
    out = weights.to(q.dtype).float() @ values / row_sum
    return out.to(q.dtype).transpose(1, 2)


def check(result: tuple[Any, Any], q: Any, k: Any, v: Any, causal: bool) -> None:
    """Error of O at most twice that of the same-precision computation; LSE close."""
    import torch

    out, lse = (tensor.double().cpu() for tensor in result)
    expected, expected_lse = reference(q, k, v, causal=causal)
    baseline = (same_precision(q, k, v, causal).double().cpu() - expected).abs().max().item()
    floor = expected.abs().max().item() * torch.finfo(q.dtype).eps / 4
    error = (out - expected).abs().max().item()
    assert error <= 2 * max(baseline, floor), (error, baseline)
    hidden = expected_lse == float("-inf")
    assert torch.equal(lse == float("-inf"), hidden)
    visible = (lse - expected_lse)[~hidden].abs()
    assert visible.numel() == 0 or visible.max().item() <= LSE_ATOL
    assert not out.isnan().any()


def poison(of: AttentionProblem) -> None:
    """Leave NaN in the memory that the next results will probably get."""
    import torch

    dtype = getattr(torch, of.dtype.torch_name)
    out = (of.batch, of.seqlen_q, of.num_heads_q, -(-of.head_dim_v // 8) * 8)
    lse = (of.batch, of.num_heads_q, of.seqlen_q)
    left = [torch.full(out, float("nan"), dtype=dtype, device="cuda") for _ in range(4)]
    left += [torch.full(lse, float("nan"), device="cuda") for _ in range(4)]
    del left


def call(q: Any, k: Any, v: Any, causal: bool = False) -> tuple[Any, Any]:
    from fa4gen import flash_attn_func

    return flash_attn_func(q, k, v, causal=causal, return_lse=True)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    signature=st.sampled_from(SIGNATURES),
    batch=st.integers(1, 3),
    seqlen_q=st.integers(1, 700),
    seqlen_k=st.integers(1, 700),
    seed=st.integers(0, 2**31),
)
def test_every_problem_gives_float64s_answer(
    signature: dict[str, Any], batch: int, seqlen_q: int, seqlen_k: int, seed: int
) -> None:
    sizes = {"batch": batch, "seqlen_q": seqlen_q, "seqlen_k": seqlen_k}
    asked = AttentionProblem.from_dict({**sizes, **signature})
    tensors = draw(asked, seed, "cuda")
    for _ in range(2):  # a plan made, a plan used
        poison(asked)
        check(call(*tensors, asked.causal), *tensors, asked.causal)


def test_rows_that_see_nothing_are_zero() -> None:
    q, k, v = draw(problem(batch=1, seqlen_q=300, seqlen_k=70, head_dim=64, causal=True), 1, "cuda")
    out, lse = call(q, k, v, True)
    assert not out[:, : 300 - 70].any()
    assert (lse[:, :, : 300 - 70] == float("-inf")).all()
    check((out, lse), q, k, v, True)


def test_a_scale_is_taken_as_given() -> None:
    import torch

    from fa4gen import flash_attn_func

    q, k, v = draw(problem(batch=1, seqlen_q=100, head_dim=64), 2, "cuda")
    for scale in (0.05, 1.0, 1, -0.5, 0.0):
        out = flash_attn_func(q, k, v, scale, causal=True)
        torch.testing.assert_close(
            out.double().cpu(), reference(q, k, v, scale, True)[0], atol=0.02, rtol=0.02
        )


@pytest.mark.parametrize("name", VIEWS)
def test_views_give_the_same_bits(name: str) -> None:
    import torch

    asked = problem(batch=2, seqlen_q=200, num_heads_q=4, head_dim=64)
    tensors = draw(asked, 3, "cuda")
    expected = call(*tensors)
    for which in range(3):
        changed = list(tensors)
        changed[which] = views(tensors[which])[name]
        assert all(map(torch.equal, call(*changed), expected))


def test_one_query_head_of_one_batch_with_odd_outer_strides() -> None:
    import torch

    whole = torch.randn(1, 50, 1, 67, device="cuda", dtype=torch.bfloat16)
    q = whole[..., :64]
    expected = call(q.contiguous(), q.contiguous(), q.contiguous())
    assert all(map(torch.equal, call(q, q, q), expected))


def test_a_capture_replays_on_new_inputs() -> None:
    import torch

    q, k, v = draw(problem(batch=1, seqlen_q=333, head_dim=64), 4, "cuda")
    call(q, k, v)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(q, k, v)
    for seed in (5, 6):
        fresh = draw(problem(batch=1, seqlen_q=333, head_dim=64), seed, "cuda")
        for target, source in zip((q, k, v), fresh, strict=True):
            target.copy_(source)
        graph.replay()
        assert all(map(torch.equal, captured, call(*fresh)))


def test_a_first_use_in_a_capture_is_refused_unless_warmed_up() -> None:
    import torch

    from fa4gen.runtime.engine import cuda_engine

    asked = problem(batch=1, seqlen_q=222, head_dim=64)
    tensors = draw(asked, 7, "cuda")
    engine = cuda_engine()
    with pytest.raises(CaptureError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        engine.run(*tensors, None, False)
    torch.cuda.synchronize()
    engine.warm_up([asked], torch.cuda.current_device())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = engine.run(*tensors, None, False)
    graph.replay()
    check(captured, *tensors, False)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("head_dim", [64, 100])
def test_compile_keeps_one_graph_and_the_bits(mode: str, head_dim: int) -> None:
    import torch

    from fa4gen import flash_attn_func

    def layer(q: Any, k: Any, v: Any) -> Any:
        return flash_attn_func(q, k, v, causal=True) + 1

    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    with torch.no_grad():
        for seed in range(4):
            tensors = draw(problem(batch=1, seqlen_q=260, head_dim=head_dim), seed, "cuda")
            assert torch.equal(compiled(*tensors), layer(*tensors))
    torch.compiler.reset()


def test_the_operator_passes_torchs_own_checks() -> None:
    import torch

    from fa4gen.runtime.ops import fwd_op

    tensors = draw(problem(batch=1, seqlen_q=130, head_dim=64), 8, "cuda")
    torch.library.opcheck(fwd_op(), (*tensors, None, True))


def test_the_current_stream_is_used() -> None:
    import torch

    asked = problem(batch=1, seqlen_q=256, head_dim=64)
    old, new = draw(asked, 9, "cuda"), draw(asked, 10, "cuda")
    expected = call(*new)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for target, source in zip(old, new, strict=True):
            target.copy_(source)
        result = call(*old)
    stream.synchronize()
    assert all(map(torch.equal, result, expected))


def test_threads_call_at_once_on_their_streams() -> None:
    import torch

    lengths = (100, 129, 256, 300)
    tensors = {n: draw(problem(batch=1, seqlen_q=n, head_dim=64), n, "cuda") for n in lengths}
    expected = {n: call(*qkv)[0].clone() for n, qkv in tensors.items()}
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                for n, qkv in tensors.items():
                    if not torch.equal(call(*qkv)[0], expected[n]):
                        wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_calls_repeat_bit_for_bit() -> None:
    import torch

    tensors = draw(problem(batch=2, seqlen_q=1000, head_dim=128, causal=True), 11, "cuda")
    first = call(*tensors, True)
    assert all(all(map(torch.equal, call(*tensors, True), first)) for _ in range(20))


def test_nothing_is_written_outside_the_results() -> None:
    import torch

    asked = problem(batch=1, seqlen_q=77, head_dim=64)
    tensors = draw(asked, 12, "cuda")
    before = [tensor.clone() for tensor in tensors]
    guards = [torch.full((4096,), 3.0, device="cuda") for _ in range(8)]
    result = call(*tensors)
    guards += [torch.full((4096,), 3.0, device="cuda") for _ in range(8)]
    call(*tensors)
    assert all(map(torch.equal, tensors, before))
    assert all((guard == 3.0).all() for guard in guards)
    check(result, *tensors, False)


def test_empty_tensors_and_refusals() -> None:
    import torch

    q, k, v = draw(problem(batch=1, seqlen_q=10, head_dim=64), 13, "cuda")
    out, lse = call(q, k[:, :0], v[:, :0])
    assert not out.any()
    assert (lse == float("-inf")).all()
    assert call(q[:0], k[:0], v[:0])[0].shape[0] == 0
    with pytest.raises(InputError, match=r"k\.device: got cpu"):
        call(q, k.cpu(), v)
    with pytest.raises(InputError, match="head_dim: got 512"):
        call(*draw(problem(batch=1, seqlen_q=8, head_dim=512), 14, "cuda"))
    with pytest.raises(InputError, match="no backward kernel"):
        call(q.requires_grad_(), k, v)
    torch.cuda.synchronize()


def test_warm_up_names_what_was_selected() -> None:
    import torch

    from fa4gen.runtime import explain, warm_up
    from fa4gen.runtime.devices import GpuFacts, resolve_sku
    from fa4gen.runtime.ops import engine

    asked = problem(batch=1, seqlen_q=512, head_dim=64)
    (selection,) = warm_up([asked])
    assert selection.rung in Rung
    facts = torch.cuda.get_device_properties(0)
    gpu = GpuFacts(facts.name, facts.multi_processor_count, (facts.major, facts.minor))
    sku = resolve_sku(gpu).sku
    told = explain(asked, sku, settings=RuntimeSettings.from_environment()).selection
    assert told.config == selection.config == engine().select(asked, 0).config


CHILD = """
import time, torch
import fa4gen.compile.driver as driver
start = time.perf_counter()
from fa4gen import flash_attn_func
{prepare}
q = torch.randn(1, 128, 2, 64, device="cuda", dtype=torch.bfloat16)
flash_attn_func(q, q, q)
torch.cuda.synchronize()
print("first call after", round(time.perf_counter() - start, 2), "s")
"""

FORBID = """
def refuse(*_):
    raise SystemExit("a kernel was compiled again")
driver.compile_source = refuse
"""


def test_a_second_process_does_not_compile(tmp_path: Path) -> None:
    environment = {**os.environ, "FA4GEN_CACHE_DIR": str(tmp_path)}
    for prepare in ("", FORBID):
        command = [sys.executable, "-c", CHILD.format(prepare=prepare)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        print(done.stdout.strip())


def host_us(function: Callable[[], Any], calls: int = 200, rounds: int = 15) -> float:
    """Host time of one call in microseconds: median round, the GPU idle at its start."""
    import torch

    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        times.append((time.perf_counter() - start) / calls * 1e6)
    torch.cuda.synchronize()
    return statistics.median(times)


def test_host_time_is_below_that_of_sdpa() -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from fa4gen import flash_attn_func
    from fa4gen.runtime.engine import cuda_engine

    q = torch.randn(1, 128, 1, 64, device="cuda", dtype=torch.bfloat16)
    heads_first = q.transpose(1, 2)
    fresh = cuda_engine()
    out, lse = fresh.run(q, q, q, None, False)
    (plan,) = fresh._plans.values()
    with torch.no_grad():
        flash_attn_func(q, q, q)
        found = {
            "torch.add": host_us(lambda: torch.add(q, q)),
            "torch SDPA": host_us(
                lambda: scaled_dot_product_attention(heads_first, heads_first, heads_first)
            ),
            "flash_attn_func": host_us(lambda: flash_attn_func(q, q, q)),
            "engine.run": host_us(lambda: fresh.run(q, q, q, None, False)),
            "2 x empty_like": host_us(
                lambda: (torch.empty_like(plan.out_like), torch.empty_like(plan.lse_like))
            ),
            "compiled function": host_us(
                lambda: plan.function(q, q, q, out, lse, plan.softmax_scale, plan.num_sms)
            ),
        }
    for name, value in found.items():
        print(f"{name:20s} {value:6.2f} us")
    assert found["flash_attn_func"] <= 1.1 * found["torch SDPA"]
    assert found["flash_attn_func"] <= 2.5 * found["torch.add"]
