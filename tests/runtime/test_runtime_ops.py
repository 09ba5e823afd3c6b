"""``flash_attn_func`` and ``fa4gen::fwd`` as torch sees them, with a Python kernel on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
from runtime_fakes import FakeSource, draw, reference, small

from fa4gen.core.errors import InputError


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> FakeSource:
    """The public function and the operator, serving CPU tensors."""
    from fa4gen.runtime import api, ops
    from fa4gen.runtime.engine import Engine

    fake = FakeSource()
    engine = Engine(lambda _: fake, device_type="cpu")
    monkeypatch.setattr(ops, "engine", lambda: engine)
    monkeypatch.setattr(api, "_run", engine.run)
    return fake


def close(result: Any, expected: Any) -> None:
    import torch

    torch.testing.assert_close(result.double(), expected, atol=0.02, rtol=0.02)


def test_the_result_is_out_or_out_and_lse(source: FakeSource) -> None:
    import torch

    from fa4gen import flash_attn_func

    q, k, v = draw(small())
    expected, expected_lse = reference(q, k, v, 0.5, True)
    out = flash_attn_func(q, k, v, 0.5, True)
    assert isinstance(out, torch.Tensor)
    close(out, expected)
    out, lse = flash_attn_func(q, k, v, softmax_scale=0.5, causal=True, return_lse=True)
    close(out, expected)
    close(lse, expected_lse)


def test_cpu_tensors_are_refused_by_the_function_and_by_the_operator() -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    q, k, v = draw(small())
    with pytest.raises(InputError, match=r'q\.device: got cpu, allowed: cuda.*\.to\("cuda"\)'):
        flash_attn_func(q, k, v)
    with pytest.raises(InputError, match=r"q\.device: got cpu"):
        torch.ops.fa4gen.fwd(q, k, v)


def test_what_is_no_tensor_is_refused() -> None:
    from fa4gen.runtime import flash_attn_func

    q, k, v = draw(small())
    with pytest.raises(InputError, match=r"k: got list, allowed: a torch\.Tensor"):
        flash_attn_func(q, [k], v)


def test_gradients_are_refused_by_name_and_not_under_no_grad(source: FakeSource) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    q, k, v = draw(small())
    k.requires_grad_()
    v = torch.nn.Parameter(v)
    for call in (lambda: flash_attn_func(q, k, v), lambda: flash_attn_func(q, k, v.detach())):
        with pytest.raises(InputError, match=r"True for k.*no backward kernel yet.*no_grad"):
            call()
    with torch.no_grad():
        close(flash_attn_func(q, k, v), reference(q, k, v)[0])
    with torch.inference_mode():
        close(flash_attn_func(q, k, v), reference(q, k, v)[0])


def test_a_plain_call_does_not_go_through_the_operator(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fa4gen.runtime import api

    def refuse(*_: Any) -> Any:
        raise AssertionError("the dispatcher was asked")

    monkeypatch.setattr(api, "_op", refuse)
    q, k, v = draw(small())
    close(api.flash_attn_func(q, k, v), reference(q, k, v)[0])


def test_dispatch_modes_see_the_operator(source: FakeSource) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from fa4gen.runtime import flash_attn_func

    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    q, k, v = draw(small())
    with Watch(), torch.no_grad():
        flash_attn_func(q, k, v)
    assert "fa4gen.fwd.default" in seen


def test_fake_tensors_get_shapes_without_a_kernel(source: FakeSource) -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from fa4gen.runtime import flash_attn_func

    with FakeTensorMode(), torch.no_grad():
        q = torch.empty(2, 5, 4, 20, dtype=torch.bfloat16)
        k = torch.empty(2, 7, 2, 20, dtype=torch.bfloat16)
        v = torch.empty(2, 7, 2, 12, dtype=torch.bfloat16)
        out, lse = flash_attn_func(q, k, v, return_lse=True)
        assert (out.shape, out.dtype) == ((2, 5, 4, 12), torch.bfloat16)
        assert (lse.shape, lse.dtype) == ((2, 4, 5), torch.float32)
        with pytest.raises(RuntimeError, match="num_heads_kv"):
            flash_attn_func(q, k[:, :, :1], v)
    assert source.asked == []


def test_meta_tensors_get_shapes_through_the_operator() -> None:
    import torch

    from fa4gen.runtime.ops import fwd_op

    q = torch.empty(2, 5, 4, 16, dtype=torch.float16, device="meta")
    out, lse = fwd_op()(q, q, q)
    assert out.shape == q.shape
    assert lse.shape == (2, 4, 5)


@pytest.mark.parametrize("head_dim", [16, 20])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_keeps_one_graph(source: FakeSource, head_dim: int, dynamic: bool) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    def layer(q: Any, k: Any, v: Any) -> Any:
        out, lse = flash_attn_func(q * 2, k, v, causal=True, return_lse=True)
        return out + 1, lse

    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for seqlen in (5, 6, 9):
        q, k, v = draw(small(head_dim=head_dim, seqlen_q=seqlen, seqlen_k=seqlen))
        with torch.no_grad():
            out, lse = compiled(q, k, v)
        expected, expected_lse = reference(q * 2, k, v, causal=True)
        close(out - 1, expected)
        close(lse, expected_lse)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:Error detected in")
def test_compile_names_the_missing_backward(source: FakeSource) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    q, k, v = draw(small())
    q.requires_grad_()
    compiled = torch.compile(flash_attn_func, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="no backward kernel"):
        compiled(q, k, v).sum().backward()
    torch.compiler.reset()


@pytest.mark.parametrize("changes", [{}, {"head_dim": 20, "head_dim_v": 12}])
def test_the_operator_passes_torchs_own_checks(source: FakeSource, changes: dict[str, int]) -> None:
    import torch

    from fa4gen.runtime.ops import fwd_op

    q, k, v = draw(small(**changes))
    for arguments in ((q, k, v), (q, k, v, 0.25, True)):
        torch.library.opcheck(fwd_op(), arguments)


def test_export_keeps_the_operator(source: FakeSource) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    class Layer(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            return flash_attn_func(q, k, v)

    tensors = draw(small())
    with torch.no_grad():
        program = torch.export.export(Layer(), tensors)
    assert "fa4gen.fwd.default" in program.graph_module.code
    close(program.module()(*tensors), reference(*tensors)[0])


def test_vmap_is_not_silently_wrong(source: FakeSource) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    q, k, v = (torch.stack([tensor, tensor]) for tensor in draw(small()))
    with torch.no_grad():
        try:
            out = torch.vmap(flash_attn_func)(q, k, v)
        except RuntimeError as error:
            assert "fa4gen::fwd" in str(error) or "Batching" in str(error)  # noqa: PT017
        else:
            close(out[1], reference(q[1], k[1], v[1])[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jit_trace_records_the_operator(source: FakeSource) -> None:
    import torch

    from fa4gen.runtime import flash_attn_func

    tensors = draw(small())
    with torch.no_grad():
        traced = torch.jit.trace(flash_attn_func, tensors)
        others = draw(small(), seed=5)
        close(traced(*others), reference(*others)[0])
