"""Plans, copies, empties and refusals, on CPU tensors with kernels that are Python functions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_fakes import IN_PLACE, VIEWS, FakeSource, draw, problem, reference, small, views

from fa4gen.core.errors import CaptureError, InputError
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import load_sku
from fa4gen.runtime.engine import MAX_PLANS, CudaSources, Engine, TunedKernels


def cpu_engine(source: FakeSource | None = None, **options: Any) -> tuple[Engine, FakeSource]:
    source = FakeSource() if source is None else source
    return Engine(lambda _: source, device_type="cpu", **options), source


def nothing(*_: Any, causal: bool) -> None:
    """A kernel that writes nothing."""


def check(engine: Engine, q: Any, k: Any, v: Any, scale: float | None, causal: bool) -> None:
    """Run twice (plan made, plan used) and hold O, LSE and their layout against float64."""
    import torch

    expected_out, expected_lse = reference(q, k, v, scale, causal)
    for _ in range(2):
        out, lse = engine.run(q, k, v, scale, causal)
        assert out.dtype == q.dtype
        assert lse.dtype == torch.float32
        assert out.is_contiguous()
        assert lse.is_contiguous()
        torch.testing.assert_close(out.double(), expected_out, atol=0.02, rtol=0.02)
        torch.testing.assert_close(lse.double(), expected_lse, atol=1e-3, rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 3),
    seqlens=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    dims=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from(["bf16", "fp16"]),
    scale=st.sampled_from([None, 0.25, 1, -0.5, 0.0]),
    causal=st.booleans(),
)
def test_every_shape_gives_float64s_answer(
    batch: int,
    seqlens: tuple[int, int],
    heads: tuple[int, int],
    dims: tuple[int, int],
    dtype: str,
    scale: float | None,
    causal: bool,
) -> None:
    asked = AttentionProblem.from_dict(
        {
            "batch": batch, "seqlen_q": seqlens[0], "seqlen_k": seqlens[1],
            "num_heads_q": heads[0], "num_heads_kv": heads[1],
            "head_dim": dims[0], "head_dim_v": dims[1], "dtype": dtype, "causal": causal,
        }
    )  # fmt: skip
    engine, source = cpu_engine()
    check(engine, *draw(asked), scale, causal)
    (seen,) = source.asked
    assert (seen.head_dim % 8, seen.head_dim_v % 8) == (0, 0)
    assert (seen.seqlen_q, seen.seqlen_k) == seqlens


@pytest.mark.parametrize("scale", [float("nan"), -float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    engine, _ = cpu_engine()
    with pytest.raises(InputError, match="softmax_scale: got"):
        engine.run(*draw(small()), scale, False)


def test_a_padded_head_dim_keeps_its_own_default_scale() -> None:
    engine, source = cpu_engine()
    q, k, v = draw(small(head_dim=20))
    engine.run(q, k, v, None, False)
    assert source.calls[0][5] == 20**-0.5
    assert source.calls[0][0].shape[3] == 24


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_views_are_read_in_place_where_tma_can(name: str, which: int) -> None:
    engine, source = cpu_engine()
    tensors = list(draw(small()))
    tensors[which] = views(tensors[which])[name]
    check(engine, *tensors, None, True)
    for call in source.calls:
        assert (call[which] is tensors[which]) == (name in IN_PLACE)
        assert all(call[other] is tensors[other] for other in range(3) if other != which)


def test_an_expanded_head_is_copied() -> None:
    engine, source = cpu_engine()
    q, k, v = draw(small(num_heads_kv=1))
    check(engine, q, k.expand(-1, -1, 4, -1), v.expand(-1, -1, 4, -1), None, False)
    assert source.calls[0][1].stride(2) > 0


def test_equal_shapes_share_a_plan_and_different_facts_do_not() -> None:
    import torch

    engine, source = cpu_engine()
    tensors = draw(small())
    for _ in range(3):
        engine.run(*draw(small(), seed=1), None, False)
    assert len(source.asked) == 1
    engine.run(*tensors, None, True)
    engine.run(*draw(small(seqlen_k=8)), None, False)
    engine.run(*(tensor.to(torch.float16) for tensor in tensors), None, False)
    assert len(source.asked) == 4
    assert [asked.causal for asked in source.asked] == [False, True, False, False]


def test_a_causal_call_with_one_query_runs_the_dense_kernel_and_is_remembered() -> None:
    engine, source = cpu_engine()
    decode = small(seqlen_q=1, causal=True)
    for _ in range(2):
        check(engine, *draw(decode), None, True)
    (seen,) = source.asked
    assert not seen.causal


def test_a_misaligned_base_under_a_known_plan_is_noticed() -> None:
    engine, source = cpu_engine()
    q, k, v = draw(small())
    engine.run(q, k, v, None, False)
    for which in range(3):
        tensors = [q, k, v]
        tensors[which] = views(tensors[which])["shifted"]
        assert tensors[which].stride() == (q, k, v)[which].stride()
        check(engine, *tensors, None, False)
    assert len(source.asked) == 1, "the copies have the facts of the first call"


def test_mixed_facts_under_a_known_plan_are_refused() -> None:
    import torch

    engine, _ = cpu_engine()
    q, k, v = draw(small())
    engine.run(q, k, v, None, False)
    with pytest.raises(InputError, match=r"v\.dtype: got torch\.float16, allowed: torch\.bfloat16"):
        engine.run(q, k, v.to(torch.float16), None, False)
    with pytest.raises(InputError, match="causal: got 2"):
        engine.run(q, k, v, None, cast(bool, 2))


def test_results_are_new_on_every_call() -> None:
    engine, _ = cpu_engine()
    tensors = draw(small())
    first, first_lse = engine.run(*tensors, None, False)
    second, second_lse = engine.run(*tensors, None, False)
    assert first.data_ptr() != second.data_ptr()
    assert first_lse.data_ptr() != second_lse.data_ptr()


@pytest.mark.parametrize("sizes", [(0, 5, 7), (2, 0, 7), (0, 0, 0), (2, 5, 0)])
def test_empty_tensors_need_no_kernel(sizes: tuple[int, int, int]) -> None:
    import torch

    batch, seqlen_q, seqlen_k = sizes
    engine, source = cpu_engine()
    q = torch.randn(batch, seqlen_q, 4, 16).bfloat16()
    k = torch.randn(batch, seqlen_k, 2, 16).bfloat16()
    v = torch.randn(batch, seqlen_k, 2, 24).bfloat16()
    out, lse = engine.run(q, k, v, None, False)
    assert out.shape == (batch, seqlen_q, 4, 24)
    assert out.dtype == torch.bfloat16
    assert lse.shape == (batch, 4, seqlen_q)
    assert lse.dtype == torch.float32
    assert not out.any()
    assert (lse == float("-inf")).all()
    assert source.calls == []


def broken(change: Callable[[Any, Any, Any], tuple[Any, Any, Any]]) -> str:
    """The message for Q, K and V after ``change``."""
    engine, source = cpu_engine()
    with pytest.raises(InputError) as caught:
        engine.run(*change(*draw(small())), None, False)
    assert source.calls == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, k, v: (q.float(), k.float(), v.float()), ["q.dtype", "float32", ".to("]),
        (lambda q, k, v: (q, k.half(), v), ["k.dtype", "float16", "allowed: torch.bfloat16"]),
        (lambda q, k, v: (q[0], k, v), ["q:", "3 dimensions", "(batch, seqlen, num_heads"]),
        (lambda q, k, v: (q[:1], k, v), ["batch:", "(1, 5, 4, 16)"]),
        (lambda q, k, v: (q, k[:, :3], v), ["k and v", "seqlen_k"]),
        (lambda q, k, v: (q, k[:, :, :1], v), ["k and v", "num_heads_kv"]),
        (lambda q, k, v: (q, k[..., :8], v), ["head_dim:", "the same in q and k"]),
        (lambda q, k, v: (q[:, :, :3], k, v), ["num_heads_q", "3 % 2 = 1"]),
        (lambda q, k, v: (q[:, :, :0], k, v), ["num_heads_q", "1 or more"]),
        (lambda q, k, v: (q[..., :0], k[..., :0], v), ["head_dim", "1 or more"]),
        (lambda q, k, v: (q, k, v.to("meta")), ["v.device", "meta", "allowed: cpu"]),
    ],
)
def test_refusals_say_what_was_got_and_what_is_allowed(
    change: Callable[[Any, Any, Any], tuple[Any, Any, Any]], words: list[str]
) -> None:
    message = broken(change)
    assert all(word in message for word in words), message
    assert "allowed" in message


@pytest.mark.parametrize("name", ["head_dim", "head_dim_v"])
def test_a_head_dim_beyond_the_arch_is_refused_with_its_limit(name: str) -> None:
    engine, _ = cpu_engine()
    with pytest.raises(InputError, match=f"{name}: got 264, allowed on sm90: up to 256"):
        engine.run(*draw(small(**{name: 264})), None, False)


def test_causal_must_be_a_bool() -> None:
    engine, _ = cpu_engine()
    with pytest.raises(InputError, match="causal: got None"):
        engine.run(*draw(small()), None, cast(bool, None))


def test_a_first_use_inside_a_capture_is_refused_and_a_later_one_is_not() -> None:
    capturing = [True]
    kernel_source = FakeSource(nothing)
    one_kernel = kernel_source.prepare(small())

    class Same(FakeSource):
        def prepare(self, asked: AttentionProblem) -> Any:
            return one_kernel

    engine, _ = cpu_engine(Same(), capturing=lambda: capturing[0])
    tensors = draw(small())
    with pytest.raises(CaptureError, match="once before the capture"):
        engine.run(*tensors, None, False)
    capturing[0] = False
    engine.run(*tensors, None, False)
    capturing[0] = True
    engine.run(*tensors, None, False)
    engine.run(*draw(small(seqlen_q=6)), None, False)


def test_a_failed_launch_is_not_remembered() -> None:
    fail = [True]

    def function(*_: Any, causal: bool) -> None:
        if fail[0]:
            raise RuntimeError("launch failed")

    engine, source = cpu_engine(FakeSource(function))
    with pytest.raises(RuntimeError, match="launch failed"):
        engine.run(*draw(small()), None, False)
    fail[0] = False
    engine.run(*draw(small()), None, False)
    engine.run(*draw(small()), None, False)
    assert len(source.asked) == 2


def test_warm_up_launches_once_per_problem_on_tiny_inputs() -> None:
    capturing = [False]
    engine, source = cpu_engine(FakeSource(nothing), capturing=lambda: capturing[0])
    asked = [problem(num_heads_kv=4), problem(head_dim=100)]
    selections = engine.warm_up(asked, 0)
    assert [each.problem.head_dim for each in selections] == [128, 104]
    assert [call[0].shape for call in source.calls] == [(1, 1, 4, 128), (1, 1, 1, 104)]
    assert engine.select(asked[1], 0).problem.head_dim == 104


def test_reset_asks_the_source_again() -> None:
    engine, source = cpu_engine()
    tensors = draw(small())
    engine.run(*tensors, None, False)
    engine.reset()
    engine.run(*tensors, None, False)
    assert len(source.asked) == 2


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fa4gen.runtime.engine.MAX_PLANS", 3)
    engine, _ = cpu_engine(FakeSource(nothing))
    for seqlen in range(1, 12):
        engine.run(*draw(small(seqlen_q=seqlen)), None, False)
        assert len(engine._plans) <= 3
    assert MAX_PLANS >= 1000


def test_inference_mode_and_no_grad_share_plans() -> None:
    import torch

    engine, source = cpu_engine()
    tensors = draw(small())
    with torch.inference_mode():
        engine.run(*tensors, None, False)
    out, _ = engine.run(*tensors, None, False)
    assert not out.is_inference()
    assert len(source.asked) == 1


def test_threads_call_at_once() -> None:
    import torch

    engine, _ = cpu_engine()
    tensors = {n: draw(small(seqlen_q=n)) for n in range(1, 9)}
    expected = {n: reference(*qkv)[0] for n, qkv in tensors.items()}
    wrong: list[Any] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(10):
            for n, qkv in tensors.items():
                out, _ = engine.run(*qkv, None, False)
                if not torch.allclose(out.double(), expected[n], atol=0.02, rtol=0.02):
                    wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def gpu(monkeypatch: pytest.MonkeyPatch, name: str, sm_count: int, major: int = 9) -> None:
    """Make torch report this GPU."""
    import torch

    facts = SimpleNamespace(name=name, multi_processor_count=sm_count, major=major, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)


def test_a_device_is_opened_as_its_sku(monkeypatch: pytest.MonkeyPatch) -> None:
    h200 = load_sku("h200")
    gpu(monkeypatch, "NVIDIA H200", h200.sm_count)
    sources = CudaSources()
    first, second = sources(0), sources(1)
    assert isinstance(first, TunedKernels)
    assert isinstance(second, TunedKernels)
    assert (first.sku, first.arch, first.num_sms) == (h200, h200.arch, h200.sm_count)
    assert first.launcher is second.launcher, "one arch, one set of compiled kernels"


def test_an_unknown_device_is_warned_about_and_keeps_its_own_sm_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu(monkeypatch, "NVIDIA H20", 78)
    with pytest.warns(RuntimeWarning, match="NVIDIA H20 with 78 SMs"):
        source = CudaSources()(0)
    assert source.num_sms == 78
    assert source.arch.name == "sm90"


def test_the_environment_names_the_sku(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, "NVIDIA H20", 78)
    monkeypatch.setenv("FA4GEN_SKU", "h100_sxm5")
    source = CudaSources()(0)
    assert isinstance(source, TunedKernels)
    assert source.sku.name == "h100_sxm5"


def test_a_device_without_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, "NVIDIA A100", 108, major=8)
    with pytest.raises(InputError, match=r"NVIDIA A100 of compute capability 8\.0"):
        CudaSources()(0)
