"""The kernels that are sabotaged, each with a problem small enough to emulate in about a second.

Lengths are such that every ring of stages goes round: a barrier that is used once only, at the end
of whose first phase nobody looks, proves nothing. Counts of tiles and blocks are odd where they can
be, so that mixing up two stages leaves one of them short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from flash_attention_4 import forward_request
from peer_kernels import PeerKernel, PeerRequest, compile_peers
from quack_gemm import TWO_CTA, GemmProblem, GemmTiling, gemm_request

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.emulator.launch import Launch, capture
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import compare, make_inputs, poisoned_outputs
from fa4gen.hardware import load_arch
from fa4gen.numerics import exp2_error, max_relative_error
from fa4gen.ptx.host import CompiledHost
from fa4gen.space import space_for

Array = npt.NDArray[Any]
SMS = 2
"""Of a persistent kernel of ours."""
FLAVOURS = ("normal", "jumpy")
"""Inputs: logits of standard deviation 1, and of 9, whose row maxima jump; two seeds of a GEMM."""


@dataclass(frozen=True)
class Bench:
    """A kernel, its tensors, and what is right.

    Attributes:
        launch: As its host function launches it on ``tensors``.
        tensors: All tensors of the call by name.
        contents: For each of :data:`FLAVOURS`, what ``tensors`` hold at the start.
        judge: For a flavour, which of the outputs is too far off, in words; empty if none is.
    """

    name: str
    launch: Launch
    tensors: dict[str, Array]
    contents: dict[str, dict[str, Array]]
    judge: Callable[[str], str]


def _attention(head_dim: int, **fields: Any) -> AttentionProblem:
    return AttentionProblem.from_dict(
        {"batch": 1, "num_heads_q": 1, "head_dim": head_dim, **fields}
    )


_LONG: dict[str, Any] = {"seqlen_q": 128, "seqlen_k": 600}
_PAIRED: dict[str, Any] = {"num_heads_q": 2, "num_heads_kv": 1}
_GEMM = GemmProblem(384, 128, 640)

_PEERS: dict[str, PeerRequest] = {
    "fa4-sm90-causal": forward_request(_attention(128, causal=True, **_LONG), "sm_90a"),
    "fa4-sm90-gqa": forward_request(
        _attention(64, seqlen_q=200, seqlen_k=331, **_PAIRED), "sm_90a"
    ),
    "fa4-sm100-causal": forward_request(
        _attention(128, causal=True, **_LONG, **_PAIRED), "sm_100a"
    ),
    "fa4-sm100-dense": forward_request(
        _attention(64, seqlen_q=200, seqlen_k=420, num_heads_q=2), "sm_100a", num_sms=1
    ),
    "fa4-sm100-2cta": forward_request(
        _attention(128, seqlen_q=512, seqlen_k=384, **_PAIRED), "sm_100a", cta_group=2, num_sms=2
    ),
    "quack-sm90": gemm_request(
        GemmProblem(768, 128, 640), "sm_90a", GemmTiling(cluster_m=2), num_sms=2
    ),
    "quack-sm90-pingpong": gemm_request(
        GemmProblem(320, 128, 640), "sm_90a", GemmTiling(tile_m=64, pingpong=True), num_sms=1
    ),
    "quack-sm100": gemm_request(_GEMM, "sm_100a", num_sms=1),
    "quack-sm100-2cta": gemm_request(GemmProblem(768, 128, 640), "sm_100a", TWO_CTA, num_sms=2),
}
_OWN: dict[str, tuple[AttentionProblem, dict[str, Any]]] = {
    "own-sm90-causal": (
        _attention(64, causal=True, seqlen_q=256, num_heads_q=2),
        {"exp2_poly_fraction": 0.25, "scheduler": "persistent"},
    ),
    "own-sm90-dense": (
        _attention(128, seqlen_q=128, seqlen_k=640),
        {"p_in_registers": False, "scheduler": "lpt", "pingpong": False},
    ),
}
BENCHES = (*_OWN, *_PEERS)


def load_bench(name: str) -> Bench:
    """Compile a kernel, or take it from the cache, and lay out its tensors."""
    if name in _OWN:
        return _own(name)
    missing = compile_peers([_PEERS[name]])
    (kernel,) = missing
    problem = _PEERS[name].arguments["problem"]
    if name.startswith("fa4"):
        error = max_relative_error(3) if kernel.target == "sm_100a" else 0.0
        attention = AttentionProblem.from_dict(problem)
        return _attention_bench(name, attention, _Call(kernel.host(), kernel.bind), error)
    return _gemm_bench(name, kernel)


def compile_all() -> None:
    """Compile every peer in one process."""
    compile_peers(list(_PEERS.values()))


@dataclass(frozen=True)
class _Call:
    host: CompiledHost
    bind: Callable[[dict[str, Array]], Sequence[Any]]


def _own(name: str) -> Bench:
    problem, knobs = _OWN[name]
    arch = load_arch("sm90")
    base = space_for("sm90").default(problem.signature).to_dict()
    config = KernelConfig.from_dict({**base, **knobs})
    host = host_of_artifact(compile_kernel(render(problem.signature, config, arch)), arch.target)
    scale = float(problem.head_dim) ** -0.5

    def bind(tensors: dict[str, Array]) -> Sequence[Any]:
        return [*(tensors[each] for each in ("q", "k", "v", "out", "lse")), scale, SMS]

    error = exp2_error(config)
    return _attention_bench(name, problem, _Call(host, bind), error)


def _attention_bench(name: str, problem: AttentionProblem, call: _Call, exp2_error: float) -> Bench:
    contents: dict[str, dict[str, Array]] = {}
    for flavour, kind in zip(FLAVOURS, (Distribution.NORMAL, Distribution.LARGE), strict=True):
        q, k, v = make_inputs(problem, kind, 0)
        out, lse = poisoned_outputs(problem)
        contents[flavour] = {"q": q, "k": k, "v": v, "out": out, "lse": lse}
    tensors = {each: value.copy() for each, value in contents[FLAVOURS[0]].items()}

    def judge(flavour: str) -> str:
        given = contents[flavour]
        inputs = (given["q"], given["k"], given["v"])
        outputs = (tensors["out"], tensors["lse"])
        scale = float(problem.head_dim) ** -0.5
        found = compare(problem, inputs, outputs, scale, exp2_error)
        return ", ".join(
            f"{each.name} off by {each.max_error:.3g}, allowed {each.allowed:.3g}"
            for each in found
            if not each.ok
        )

    (launch,) = capture(call.host, *call.bind(tensors))
    return Bench(name, launch, tensors, contents, judge)


def _gemm_bench(name: str, kernel: PeerKernel) -> Bench:
    contents = {}
    for seed, flavour in enumerate(FLAVOURS):
        rng = np.random.default_rng(seed)
        contents[flavour] = {each.name: _filled(each, rng) for each in kernel.tensors}
    tensors = {each: value.copy() for each, value in contents[FLAVOURS[0]].items()}

    def judge(flavour: str) -> str:
        a, b = (contents[flavour][each].astype(np.float64) for each in "ab")
        exact, sums = a @ b.T, np.abs(a) @ np.abs(b).T
        # D is rounded to bf16 once, by at most half a unit of 2^-7; sums in float32 add little.
        allowed = np.abs(exact) * 2.0**-8 + sums * 2.0**-20
        error = np.nan_to_num(np.abs(tensors["d"].astype(np.float64) - exact), nan=np.inf)
        at = int((error - allowed).argmax())
        if error.flat[at] <= allowed.flat[at]:
            return ""
        return f"D off by {error.flat[at]:.3g}, allowed {allowed.flat[at]:.3g}"

    (launch,) = capture(kernel.host(), *kernel.bind(tensors))
    return Bench(name, launch, tensors, contents, judge)


def _filled(spec: Any, rng: np.random.Generator) -> Array:
    dtype = np.dtype(getattr(ml_dtypes, spec.dtype, None) or spec.dtype)
    if spec.role == "counter":
        return np.zeros(spec.shape, dtype)
    if spec.role == "output":
        return np.full(spec.shape, np.nan, dtype)
    values: Array = rng.standard_normal(spec.shape, np.float32).astype(dtype)
    return values
