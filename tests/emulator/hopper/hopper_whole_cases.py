"""The suite's whole kernels for sm_90a: which, on which problem, with which inputs.

FlashAttention-4's forwards and quack's GEMMs are those of ``peer_suite``; ours differ in how P
reaches the second product, in the exponentials, in rescaling and in the order of tiles. Inputs are
drawn from the name of the case, with the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from hopper_draw import Draw
from hopper_kernel import Array, Arrays
from peer_kernels import PeerKernel, PeerRequest, TensorArgument, TensorSpec
from peer_suite import FA4, GEMM

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import LARGE_FACTOR
from fa4gen.evaluate.emulated import DEFAULT_NUM_SMS
from fa4gen.hardware import load_arch
from fa4gen.space import space_for

TARGET = "sm_90a"
COMPILED, UNFUSED = "compiled", "unfused"
"""Runs of a kernel: as it is compiled, and assembled with ``--fmad=false``, so that ptxas fuses no
product with a sum that PTX has apart."""


@dataclass(frozen=True)
class Tolerance:
    """How far an emulated output may be from a GPU's.

    Attributes:
        ulps: By which an element may differ.
        share: Of the elements, how many may.
        why: What makes them differ.
    """

    ulps: int
    share: float
    why: str


@dataclass(frozen=True)
class Case:
    """One kernel and one problem.

    Attributes:
        peer: What to compile, if the kernel is not ours.
        problem: Of an attention kernel of ours, with ``config``.
        large: Whether Q and K are so large that row maxima jump.
        tolerances: By run; without one, all bits are equal.
    """

    name: str
    peer: PeerRequest | None = None
    problem: AttentionProblem | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    large: bool = False
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Whose kernel it is, and the file that its recording is in."""
        return self.name.partition("-")[0]

    @property
    def config(self) -> KernelConfig:
        """Of a kernel of ours."""
        assert self.problem is not None
        base = space_for("sm90").default(self.problem.signature).to_dict()
        return KernelConfig.from_dict({**base, **self.knobs})

    @property
    def runs(self) -> tuple[str, ...]:
        """How it is compiled: FlashAttention-4 leaves products and sums to ptxas, others do not."""
        return (COMPILED, UNFUSED) if self.family == "fa4" else (COMPILED,)

    def inputs(self, tensors: Iterable[TensorSpec]) -> Arrays:
        """Every tensor of a call: inputs drawn, outputs full of NaN."""
        return {spec.name: self._tensor(spec) for spec in tensors}

    def _tensor(self, spec: TensorSpec) -> Array:
        dtype = np.dtype(getattr(ml_dtypes, spec.dtype, None) or spec.dtype)
        if spec.role == "output":
            return np.full(spec.shape, np.nan, dtype)
        if spec.role == "counter":
            return np.zeros(spec.shape, dtype)
        drawn = Draw(f"{self.name}/{spec.name}").normal(int(np.prod(spec.shape)))
        factor = LARGE_FACTOR if self.large and spec.name in ("q", "k") else 1.0
        made: Array = (drawn * factor).astype(np.float32).astype(dtype).reshape(spec.shape)
        return made


def _own(name: str, fields: dict[str, Any], large: bool = False, **knobs: Any) -> Case:
    problem = AttentionProblem.from_dict({"batch": 1, "num_heads_q": 1, **fields})
    return Case(name, problem=problem, knobs={"scheduler": "persistent", **knobs}, large=large)


_GQA: dict[str, Any] = {"num_heads_q": 4, "num_heads_kv": 2}
OWN = (
    _own("own-d64-causal", {"head_dim": 64, "seqlen_q": 256, "num_heads_q": 2, "causal": True}),
    _own("own-d128-ragged", {"head_dim": 128, "seqlen_q": 200, "seqlen_k": 333}),
    _own(
        "own-d128-threshold",
        {"head_dim": 128, "seqlen_q": 256, "causal": True},
        large=True,
        rescale_threshold_log2=8.0,
        intra_warpgroup_overlap=False,
        pingpong=False,
        scheduler="lpt",
        q_prefetch=False,
    ),
    _own(
        "own-d64-smem-polynomial",
        {"head_dim": 64, "seqlen_q": 192, "seqlen_k": 256, "dtype": "fp16"},
        p_in_registers=False,
        exp2_poly_fraction=0.25,
    ),
    _own(
        "own-d128-gqa-polynomial",
        {"head_dim": 128, "seqlen_q": 100, "seqlen_k": 300, "causal": True, **_GQA},
        large=True,
        pack_gqa=True,
        exp2_poly_fraction=0.5,
        exp2_poly_degree=4,
        exp2_poly_placement="front",
    ),
)
"""Persistent kernels are told of two SMs, so that each CTA takes several tiles."""


@cache
def cases() -> dict[str, Case]:
    """Every case, by name."""
    peers = {name.replace("-sm90", ""): each for name, each in (FA4 | GEMM).items()}
    found = [Case(name, peer=each) for name, each in peers.items() if each.target == TARGET]
    return {case.name: case for case in (*found, *OWN)}


def own_kernel(case: Case, object_bytes: bytes, ptx: str) -> PeerKernel:
    """A kernel of ours in the form of those of peers."""
    from fa4gen.compile import FUNCTION_NAME
    from fa4gen.compile.emulation import ptx_by_kernel

    p = case.problem
    assert p is not None
    name = p.dtype.torch_name
    statistics = (p.batch, p.num_heads_q, p.seqlen_q)
    tensors = (
        TensorSpec("q", (p.batch, p.seqlen_q, p.num_heads_q, p.head_dim), name, "input"),
        TensorSpec("k", (p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim), name, "input"),
        TensorSpec("v", (p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim_v), name, "input"),
        TensorSpec("out", (p.batch, p.seqlen_q, p.num_heads_q, p.head_dim_v), name, "output"),
        TensorSpec("lse", statistics, "float32", "output"),
    )
    return PeerKernel(
        label=case.name,
        target=load_arch("sm90").target,
        object_bytes=object_bytes,
        function_name=FUNCTION_NAME,
        ptx=ptx,
        cubin=b"",
        kernel_names=tuple(ptx_by_kernel(ptx)),
        tensors=tensors,
        arguments=(
            *(TensorArgument(spec.name) for spec in tensors),
            float(p.head_dim) ** -0.5,
            DEFAULT_NUM_SMS,
        ),
    )
