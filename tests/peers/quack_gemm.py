"""The GEMM of quack-kernels, ``D = A B^T``, compiled without a GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from peer_kernels import PeerKernel, PeerRequest, compile_peer

from fa4gen.core.dtypes import DType

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GemmProblem:
    """``D = A B^T`` with A ``(m, k)``, B ``(n, k)`` and D ``(m, n)``, all row-major."""

    m: int
    n: int
    k: int
    dtype: DType = DType.BF16


@dataclass(frozen=True)
class GemmTiling:
    """How quack's GEMM does it; sizes in elements, clusters in CTAs."""

    tile_m: int = 128
    """Rows of one MMA tile: of one CTA, or of both with ``cta_group`` 2."""
    tile_n: int = 128
    cluster_m: int = 1
    """On sm_100a an even number with ``tile_m`` 256 (or 128) makes a 2-CTA MMA."""
    cluster_n: int = 1
    pingpong: bool = False
    """sm_90a only."""
    persistent: bool = True
    dynamic_persistent: bool = False
    """Take tiles by ``clusterlaunchcontrol``; sm_100a only."""


TWO_CTA = GemmTiling(tile_m=256, cluster_m=2)
"""sm_100a, ``cta_group`` 2."""


def compile_gemm(
    problem: GemmProblem,
    target: str,
    tiling: GemmTiling | None = None,
    *,
    num_sms: int | None = None,
) -> PeerKernel:
    """Compile quack's GEMM for ``target`` (``sm_90a``, ``sm_100a``).

    Raises:
        PeerCompileError: see :func:`peer_kernels.compile_peers`.
    """
    return compile_peer(gemm_request(problem, target, tiling, num_sms=num_sms))


def gemm_request(
    problem: GemmProblem,
    target: str,
    tiling: GemmTiling | None = None,
    *,
    num_sms: int | None = None,
) -> PeerRequest:
    """What :func:`compile_gemm` compiles; the tensors are ``a``, ``b`` and ``d``."""
    tiling = tiling or GemmTiling()
    size = f"{problem.m}x{problem.n}x{problem.k}"
    tile = f"{tiling.tile_m}x{tiling.tile_n}"
    cluster = f"{tiling.cluster_m}x{tiling.cluster_n}"
    return PeerRequest(
        label=f"quack GEMM {target} {size} {problem.dtype} tile {tile} cluster {cluster}",
        target=target,
        module=__name__,
        function="call_gemm",
        arguments={
            "problem": asdict(problem),
            "tiling": asdict(tiling),
            "capability": [int(target.strip("sm_a")) // 10, 0],
        },
        num_sms=num_sms,
    )


def call_gemm(
    problem: dict[str, Any], tiling: dict[str, Any], capability: list[int]
) -> dict[str, tuple[torch.Tensor, str]]:
    """Call quack's GEMM with tensors that have no storage; for :mod:`peer_compiler`."""
    import torch
    from quack import gemm as module
    from quack.cute_dsl_utils import get_max_active_clusters

    # Each would answer from an earlier request: for another SM count, or without compiling.
    get_max_active_clusters.cache_clear()
    module._compile_gemm.cache_clear()
    module._gemm_plan_cache.clear()

    p, t = GemmProblem(**problem), GemmTiling(**tiling)
    dtype = getattr(torch, DType(p.dtype).torch_name)
    a = torch.empty((p.m, p.k), dtype=dtype, device="cuda")
    b = torch.empty((p.n, p.k), dtype=dtype, device="cuda")
    d = torch.empty((p.m, p.n), dtype=dtype, device="cuda")
    with mock.patch.object(module, "get_device_capacity", return_value=tuple(capability)):
        module.gemm(
            a,
            b,
            d,
            None,
            None,
            tile_M=t.tile_m,
            tile_N=t.tile_n,
            cluster_M=t.cluster_m,
            cluster_N=t.cluster_n,
            pingpong=t.pingpong,
            persistent=t.persistent,
            is_dynamic_persistent=t.dynamic_persistent,
        )
    return {"a": (a, "input"), "b": (b, "input"), "d": (d, "output")}
