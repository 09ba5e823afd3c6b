"""The peers compile without a GPU, and their host functions launch what they were asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import peer_cache
import pytest
from flash_attention_4 import compile_forward, forward_request, require_cta_group
from peer_kernels import (
    Argument,
    PeerCompileError,
    PeerKernel,
    PeerRequest,
    TensorArgument,
    compile_peers,
)
from peer_suite import FA4, GEMM, compile_suite

from fa4gen.core.problem import AttentionProblem
from fa4gen.emulator.launch import TENSOR_MAP_BYTES, Launch, capture
from fa4gen.emulator.launch.tensormap import decode

Arrays = dict[str, npt.NDArray[np.generic]]


def problem(seqlen: int = 256, head_dim: int = 64, num_heads: int = 2) -> AttentionProblem:
    return AttentionProblem.from_dict(
        {
            "batch": 1,
            "seqlen_q": seqlen,
            "num_heads_q": num_heads,
            "num_heads_kv": 1,
            "head_dim": head_dim,
            "causal": True,
        }
    )


def tensor_maps(launch: Launch) -> set[int]:
    """Addresses in the tensor maps among the parameters."""
    return {decode(p).address for p in launch.params if len(p) == TENSOR_MAP_BYTES}


def addresses(tensors: Arrays, *names: str) -> set[int]:
    return {tensors[name].ctypes.data for name in names}


def arrays(kernel: PeerKernel) -> Arrays:
    types = {"bfloat16": ml_dtypes.bfloat16}
    return {t.name: np.zeros(t.shape, types.get(t.dtype, t.dtype)) for t in kernel.tensors}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "peers"
    monkeypatch.setattr(peer_cache, "FOLDER", folder)
    return folder


@pytest.fixture(scope="module")
def suite() -> dict[str, PeerKernel]:
    return compile_suite()


@pytest.mark.slow
@pytest.mark.parametrize("name", FA4)
def test_fa4_launches_one_kernel_on_the_tensors_of_its_call(
    suite: dict[str, PeerKernel], name: str
) -> None:
    kernel = suite[name]
    tensors = arrays(kernel)
    (launch,) = capture(kernel.host(), *kernel.bind(tensors))
    assert f".entry {launch.name}(" in kernel.ptx
    assert launch.ptx == kernel.ptx
    assert launch.cluster == (kernel.cta_group, 1, 1)
    assert tensor_maps(launch) == addresses(tensors, "q", "k", "v", "out")
    assert tensors["lse"].ctypes.data.to_bytes(8, "little") in {p[:8] for p in launch.params}


@pytest.mark.slow
@pytest.mark.parametrize("name", GEMM)
def test_quack_launches_one_kernel_on_the_tensors_of_its_call(
    suite: dict[str, PeerKernel], name: str
) -> None:
    kernel = suite[name]
    tensors = arrays(kernel)
    (launch,) = capture(kernel.host(), *kernel.bind(tensors))
    assert f".entry {launch.name}(" in kernel.ptx
    assert tensor_maps(launch) == addresses(tensors, "a", "b", "d")


@pytest.mark.slow
def test_the_suite_has_what_it_says(suite: dict[str, PeerKernel]) -> None:
    """Two-CTA MMAs, dynamic tiles and small persistent grids are there, each only where asked."""
    assert {n for n, k in suite.items() if k.cta_group == 2} == {n for n in suite if "2cta" in n}
    dynamic = {n for n, k in suite.items() if "clusterlaunchcontrol.try_cancel" in k.ptx}
    assert dynamic == {n for n in suite if "clc" in n}
    assert {n for n, k in suite.items() if "wgmma.mma_async" in k.ptx} == {
        n for n in suite if "sm90" in n
    }
    assert {n for n, k in suite.items() if "tcgen05.mma" in k.ptx} == {
        n for n in suite if "sm100" in n
    }
    pingpong = suite["quack-sm90-pingpong"]
    (launch,) = capture(pingpong.host(), *pingpong.bind(arrays(pingpong)))
    assert np.prod(launch.grid) == 2, "two SMs were asked for; there are eight tiles"


@pytest.mark.slow
def test_a_peer_that_refuses_is_quoted(own_cache: Path) -> None:
    with pytest.raises(PeerCompileError, match="is not supported on SM90"):
        compile_forward(problem(head_dim=272), "sm_90a")
    assert list(own_cache.glob("*.pickle")) == []


def test_the_cta_group_asked_for_is_checked() -> None:
    made = replace(kernel(), ptx="tcgen05.mma.cta_group::2.kind::f16 ...")
    require_cta_group(made, 2)
    with pytest.raises(ValueError, match=r"got cta_group 2, asked for 1"):
        require_cta_group(made, 1)


def test_a_target_without_a_product_is_refused() -> None:
    with pytest.raises(PeerCompileError, match=r"got 'sm_80', allowed: sm_90a, sm_100a, sm_103a"):
        compile_peers([forward_request(problem(), "sm_80")])


def kernel(*arguments: Argument) -> PeerKernel:
    return PeerKernel("x", "sm_90a", b"", "f", "", b"", (), (), arguments)


def test_bind_puts_tensors_into_nested_places_and_leaves_the_rest() -> None:
    q, k = object(), object()
    made = kernel(TensorArgument("q"), 0.5, None, (None, (TensorArgument("k"), 3)), True)
    assert made.bind({"q": q, "k": k}) == [q, 0.5, None, (None, (k, 3)), True]
    with pytest.raises(KeyError, match="k"):
        made.bind({"q": q})


def test_a_kept_kernel_is_found_by_an_equal_request_only(own_cache: Path) -> None:
    request = PeerRequest("x", "sm_90a", "m", "f", {"n": 1})
    assert peer_cache.find(request) is None
    peer_cache.keep(request, kernel(1))
    assert peer_cache.find(PeerRequest("x", "sm_90a", "m", "f", {"n": 1})) == kernel(1)
    for other in (
        PeerRequest("x", "sm_100a", "m", "f", {"n": 1}),
        PeerRequest("x", "sm_90a", "m", "f", {"n": 2}),
        PeerRequest("x", "sm_90a", "m", "f", {"n": 1}, num_sms=2),
    ):
        assert peer_cache.find(other) is None


def test_a_damaged_file_is_compiled_again(own_cache: Path) -> None:
    request = PeerRequest("x", "sm_90a", "m", "f", {})
    peer_cache.keep(request, kernel(1))
    (file,) = own_cache.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert peer_cache.find(request) is None
