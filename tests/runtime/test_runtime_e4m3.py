"""e4m3 calls and their descales, on CPU tensors with kernels that are Python functions."""

from __future__ import annotations

from typing import Any

import pytest
from runtime_fakes import FakeSource, draw, reference, small

from fa4gen.core.dtypes import DType
from fa4gen.core.errors import InputError
from fa4gen.core.problem import AttentionProblem

NAMES = ("q_descale", "k_descale", "v_descale")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> FakeSource:
    """The public function and the operator, serving CPU tensors."""
    from fa4gen.runtime import api, ops
    from fa4gen.runtime.engine import Engine

    fake = FakeSource()
    engine = Engine(lambda _: fake, device_type="cpu")
    monkeypatch.setattr(ops, "engine", lambda: engine)
    monkeypatch.setattr(api, "_run", engine.run)
    monkeypatch.setattr(api, "_run_scaled", engine.run_scaled)
    return fake


def given(**changes: Any) -> tuple[AttentionProblem, Any, dict[str, Any]]:
    """A problem, its Q, K and V, and its descales."""
    import torch

    problem = small(dtype="e4m3", **changes)
    generator = torch.Generator().manual_seed(1)
    shape = (problem.batch, problem.num_heads_kv)
    drawn = [torch.rand(shape, generator=generator) + 0.5 for _ in NAMES]
    return problem, draw(problem), dict(zip(NAMES, drawn, strict=True))


def expected(qkv: Any, descales: dict[str, Any], scale: float | None, causal: bool) -> Any:
    q, k, v = (tensor.double() for tensor in qkv)
    group = q.shape[2] // k.shape[2]
    by_head = [descales.get(name) for name in NAMES]
    if by_head[0] is not None:
        q = q * by_head[0].repeat_interleave(group, 1)[:, None, :, None]
    if by_head[1] is not None:
        k = k * by_head[1][:, None, :, None]
    if by_head[2] is not None:
        v = v * by_head[2][:, None, :, None]
    return reference(q, k, v, scale, causal)


def check(result: Any, wanted: Any) -> None:
    import torch

    out, lse = result
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous()
    torch.testing.assert_close(out.double(), wanted[0], atol=0.02, rtol=0.02)
    torch.testing.assert_close(lse.double(), wanted[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("names", [NAMES, (), ("v_descale",)])
@pytest.mark.parametrize(("scale", "causal"), [(None, True), (-0.5, False), (0.0, False)])
@pytest.mark.parametrize("head_dim", [16, 24])
def test_descales_multiply_what_they_are_of(
    source: FakeSource, names: tuple[str, ...], scale: float | None, causal: bool, head_dim: int
) -> None:
    from fa4gen import flash_attn_func

    _, qkv, descales = given(head_dim=head_dim)
    some = {name: descales[name] for name in names}
    for _ in range(2):  # the plan is made, the plan is used
        result = flash_attn_func(*qkv, scale, causal, return_lse=True, **some)
        check(result, expected(qkv, some, scale, causal))
    assert {asked.dtype for asked in source.asked} == {DType.E4M3}
    assert len(source.asked) == 1


def test_the_operator_takes_descales(source: FakeSource) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    assert flash_attn_func is not None  # registers the operator
    _, qkv, descales = given()
    result = torch.ops.fa4gen.fwd(*qkv, None, False, *descales.values())
    check(result, expected(qkv, descales, None, False))
    result = torch.ops.fa4gen.fwd(*qkv, k_descale=descales["k_descale"])
    check(result, expected(qkv, {"k_descale": descales["k_descale"]}, None, False))


def test_compiled_calls_take_descales(source: FakeSource) -> None:
    import torch

    from fa4gen import flash_attn_func

    _, qkv, descales = given()
    compiled = torch.compile(flash_attn_func, backend="eager", fullgraph=True)
    check(compiled(*qkv, return_lse=True, **descales), expected(qkv, descales, None, False))


def test_empty_tensors_give_bf16(source: FakeSource) -> None:
    import torch

    from fa4gen import flash_attn_func

    q, k, v = given()[1]
    out, lse = flash_attn_func(q, k[:, :0], v[:, :0], return_lse=True)
    assert out.dtype == torch.bfloat16
    assert not out.any()
    assert bool((lse == -torch.inf).all())


def test_descales_that_do_not_fit_are_refused(source: FakeSource) -> None:
    import torch

    from fa4gen import flash_attn_func

    _, qkv, descales = given()
    good = descales["k_descale"]
    for wrong, message in (
        (good[:, :1], r"k_descale: got torch.float32 \(2, 1\), allowed: torch.float32 \(2, 2\)"),
        (good.double(), r"k_descale: got torch.float64"),
        (0.5, r"k_descale: got float, allowed: a torch.Tensor"),
        (good.clone().requires_grad_(), r"requires_grad: got True for k_descale"),
    ):
        for _ in range(2):
            with pytest.raises(InputError, match=message):
                flash_attn_func(*qkv, k_descale=wrong)
            flash_attn_func(*qkv)  # also where there is a plan
    bf16 = tuple(tensor.to(torch.bfloat16) for tensor in qkv)
    with pytest.raises(InputError, match=r"v_descale: got a tensor with q, k and v in bfloat16"):
        flash_attn_func(*bf16, v_descale=good)
    with pytest.raises(TypeError, match=r"unknown keyword p_descale, allowed: .*q_descale"):
        flash_attn_func(*qkv, p_descale=good)


def test_gradients_are_refused(source: FakeSource) -> None:
    from fa4gen import flash_attn_func

    q, k, v = given()[1]
    with pytest.raises(InputError, match=r"requires_grad: got True for q"):
        flash_attn_func(q.requires_grad_(), k, v)


def test_a_warmed_up_problem_needs_no_descales(source: FakeSource) -> None:
    from fa4gen.runtime.engine import Engine

    engine = Engine(lambda _: source, device_type="cpu")
    engine.warm_up([small(dtype="e4m3")], 0)
    assert len(source.calls) == 1
