"""cuDNN's fp8 attention through the ``cudnn`` module (package nvidia-cudnn-frontend)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch

from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.gpu_check import Inputs

SCALE_S = 256.0
"""Factor on P before it becomes e4m3, whose largest number is 448."""


BF16_OUT_FROM = 10
"""Compute capability from which fp8 attention may write O in bf16. Source: cudnn-frontend 1.18,
sdpa_support_surface.h."""


class CudnnMissing(Exception):
    """cuDNN's fp8 cannot be run here; the message says why."""


def plan(problem: AttentionProblem, inputs: Inputs, out: Any) -> Callable[[Inputs, Any], None]:
    """``launch(inputs, out)`` on the current stream, with one descale for a whole tensor.

    Args:
        inputs: e4m3, for shapes and strides; later ones must have the same.
        out: bf16 ``(batch, seqlen_q, num_heads_q, head_dim_v)``. Before Blackwell cuDNN writes O in
            e4m3 only, which it then does to a tensor of its own: half the bytes of ours.

    Raises:
        CudnnMissing: no module, no library, or no engine for this problem.
    """
    try:
        cudnn: Any = importlib.import_module("cudnn")
    except ImportError as error:
        raise CudnnMissing(
            f"no cudnn module ({error}); pip install nvidia-cudnn-frontend"
        ) from None
    try:
        return _plan(cudnn, problem, inputs, out)
    except Exception as error:  # cudnn's own errors share no base
        lines = str(error).splitlines() or [""]
        raise CudnnMissing(f"{type(error).__name__}: {lines[0][:200]}") from error


def _plan(
    cudnn: Any, problem: AttentionProblem, inputs: Inputs, out: Any
) -> Callable[[Inputs, Any], None]:
    kinds = cudnn.data_type
    handle = cudnn.create_handle()
    graph = cudnn.pygraph(
        io_data_type=kinds.FP8_E4M3,
        intermediate_data_type=kinds.FLOAT,
        compute_data_type=kinds.FLOAT,
        handle=handle,
    )

    def described(tensor: Any) -> Any:
        by_head = tensor.transpose(1, 2)
        return graph.tensor(
            dim=list(by_head.shape), stride=list(by_head.stride()), data_type=kinds.FP8_E4M3
        )

    tensors = [described(tensor) for tensor in inputs[:3]]
    names = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
    values = (1.0, 1.0, 1.0, 1 / SCALE_S, SCALE_S, 1.0)
    scales = {
        name: graph.tensor(dim=[1] * 4, stride=[1] * 4, data_type=kinds.FLOAT) for name in names
    }
    o, _, amax_s, amax_o = graph.sdpa_fp8(
        q=tensors[0],
        k=tensors[1],
        v=tensors[2],
        **scales,
        generate_stats=False,
        attn_scale=1 / math.sqrt(problem.head_dim),
        use_causal_mask=problem.causal,
    )
    own = None
    if torch.cuda.get_device_capability(out.device)[0] < BF16_OUT_FROM:
        own = torch.empty(out.shape, dtype=torch.float8_e4m3fn, device=out.device)
    by_head = (out if own is None else own).transpose(1, 2)
    o.set_output(True).set_dim(list(by_head.shape)).set_stride(list(by_head.stride()))
    o.set_data_type(kinds.BFLOAT16 if own is None else kinds.FP8_E4M3)
    for amax in (amax_s, amax_o):
        amax.set_output(True).set_dim([1] * 4).set_stride([1] * 4).set_data_type(kinds.FLOAT)
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    graph.check_support()
    graph.build_plans()
    workspace = torch.empty(graph.get_workspace_size(), dtype=torch.uint8, device=out.device)
    device = {"device": out.device, "dtype": torch.float32}
    numbers = {
        scales[name]: torch.full((1, 1, 1, 1), value, **device)
        for name, value in zip(names, values, strict=True)
    }
    numbers |= {amax: torch.zeros((1, 1, 1, 1), **device) for amax in (amax_s, amax_o)}

    def launch(given: Inputs, target: Any) -> None:
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        named = dict(zip(tensors, (x.transpose(1, 2) for x in given[:3]), strict=True))
        written = (target if own is None else own).transpose(1, 2)
        graph.execute({**named, **numbers, o: written}, workspace, handle=handle)

    return launch
