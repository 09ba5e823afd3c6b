"""Tensors of a call: what kernels accept, what is copied so that they do, and what is refused.

A kernel reads Q, K and V through TMA, which wants a base address and strides that are multiples
of 16 bytes, and elements of a row side by side. Views that keep to this are read in place,
whatever their order in memory. Others, and head dimensions that are no multiple of 16 bytes (8
elements, 16 in e4m3), are copied first; zero columns change neither a score nor the other columns
of O.

Source: CUDA driver API, cuTensorMapEncodeTiled: globalAddress, globalStrides.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fa4gen.core.dtypes import DType
from fa4gen.core.errors import InputError
from fa4gen.core.problem import AttentionProblem

if TYPE_CHECKING:
    import torch

TMA_ALIGN_BYTES = 16
"""Source: CUDA driver API, cuTensorMapEncodeTiled."""

_DTYPES = {f"torch.{dtype.torch_name}": dtype for dtype in DType}
_LAYOUT = "(batch, seqlen, num_heads, head_dim)"

SMALLEST_SCALE = 2.0**-100
"""Stands for a scale of 0; its product with log2(e) and a 16-bit score is still normal."""

NUM_DIMS = 4
"""Dimensions of Q, K, V and O."""

SIGN_OF_BYTE = 0x80
"""The sign bit of an e4m3 number."""

DESCALE_NAMES = ("q_descale", "k_descale", "v_descale")
Descales = tuple["torch.Tensor | None", "torch.Tensor | None", "torch.Tensor | None"]
"""Of Q, K and V: float32 ``(batch, num_heads_kv)``, or None for ones."""


def check_tensors(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, device_type: str
) -> DType:
    """Refuse what no kernel accepts; the element type of the rest.

    Raises:
        InputError: naming the first thing that is wrong, what is allowed, and the remedy.
    """
    tensors = {"q": q, "k": k, "v": v}
    for name, tensor in tensors.items():
        check_is_tensor(name, tensor)
        if tensor.dim() != NUM_DIMS:
            raise InputError(
                f"{name}: got {tensor.dim()} dimensions, shape {tuple(tensor.shape)}, allowed: 4, "
                f"{_LAYOUT}; reshape it"
            )
    if type(causal) is not bool:
        raise InputError(f"causal: got {causal!r}, allowed: True or False")
    _check_devices(tensors, device_type)
    dtype = _check_dtypes(tensors)
    _check_shapes(q, k, v)
    return dtype


def check_is_tensor(name: str, tensor: object) -> None:
    """Refuse arrays and lists.

    Raises:
        InputError: not a tensor.
    """
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise InputError(
            f"{name}: got {type(tensor).__name__}, allowed: a torch.Tensor; convert it with "
            "torch.as_tensor(..., device='cuda')"
        )


def refuse_grad(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Say that there is no backward yet.

    Raises:
        InputError: always.
    """
    named = {"q": q, "k": k, "v": v}
    names = ", ".join(name for name, tensor in named.items() if tensor.requires_grad)
    raise InputError(
        f"requires_grad: got True for {names} with gradients enabled, allowed: False; fa4gen has "
        "no backward kernel yet. Call it under torch.no_grad() or torch.inference_mode(), or "
        "detach the inputs; to train, use torch.nn.functional.scaled_dot_product_attention"
    )


def empty_result(
    q: torch.Tensor, v: torch.Tensor, seqlen_k: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Out and LSE where no key can be seen at all, or no row asks; ``None`` otherwise.

    Without keys O is 0 and LSE is -inf, as for a row that the mask hides completely.
    """
    import torch

    batch, seqlen_q, num_heads_q, _ = q.shape
    if batch and seqlen_q and seqlen_k:
        return None
    out = q.new_zeros((batch, seqlen_q, num_heads_q, v.shape[3]), dtype=out_dtype(q.dtype))
    lse_shape = (batch, num_heads_q, seqlen_q)
    return out, q.new_full(lse_shape, float("-inf"), dtype=torch.float32)


def head_dim_in_memory(head_dim: int, itemsize: int) -> int:
    """``head_dim`` rounded up so that rows start at multiples of 16 bytes."""
    step = TMA_ALIGN_BYTES // itemsize
    return -(-head_dim // step) * step


def problem_in_memory(problem: AttentionProblem) -> AttentionProblem:
    """The problem that a kernel sees: head dimensions rounded up as :func:`fitted` does."""
    itemsize = problem.dtype.itemsize
    return replace(
        problem,
        head_dim=head_dim_in_memory(problem.head_dim, itemsize),
        head_dim_v=head_dim_in_memory(problem.head_dim_v, itemsize),
    )


def with_positive_scale(q: torch.Tensor, softmax_scale: float) -> tuple[torch.Tensor, float]:
    """Q and a positive scale that give the same scores: kernels take the maximum before scaling.

    A negative scale costs a negated copy of Q. Zero becomes :data:`SMALLEST_SCALE`, under which
    visible scores do not differ in float32 and a masked one is still -inf.

    Raises:
        InputError: NaN or an infinity.
    """
    if not math.isfinite(softmax_scale):
        raise InputError(f"softmax_scale: got {softmax_scale}, allowed: a finite number")
    return (negated(q), -softmax_scale) if softmax_scale < 0 else (q, SMALLEST_SCALE)


def negated(tensor: torch.Tensor) -> torch.Tensor:
    """``-tensor``, for 8-bit elements too, of which torch has no arithmetic."""
    import torch

    if tensor.element_size() > 1:
        return -tensor
    return tensor.view(torch.uint8).bitwise_xor(SIGN_OF_BYTE).view(tensor.dtype)


def fitted(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """``tensor`` with ``head_dim`` columns, as TMA wants it: itself where it is so already."""
    columns = tensor.shape[3]
    if columns == head_dim:
        if readable_in_place(tensor):
            return tensor
        copied: torch.Tensor = tensor.new_empty(tensor.shape)
        return copied.copy_(tensor)
    padded: torch.Tensor = tensor.new_zeros((*tensor.shape[:3], head_dim))
    padded[..., :columns].copy_(tensor)
    return padded


def readable_in_place(tensor: torch.Tensor) -> bool:
    """Whether TMA can read ``tensor`` as it lies in memory."""
    *outer, inner = tensor.stride()
    if inner != 1 or tensor.data_ptr() % TMA_ALIGN_BYTES:
        return False
    itemsize = tensor.element_size()
    # An expanded dimension has stride 0, which no tensor map is documented to take.
    return all(
        stride * itemsize % TMA_ALIGN_BYTES == 0 and (stride > 0 or size == 1)
        for stride, size in zip(outer, tensor.shape, strict=False)
    )


def out_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of O for Q, K and V of this type."""
    import torch

    known = _DTYPES.get(str(dtype))
    found: torch.dtype = dtype if known is None else getattr(torch, known.out.torch_name)
    return found


def check_descales(k: torch.Tensor, dtype: DType, descales: Descales) -> None:
    """Refuse descales that do not fit K, or that 16-bit tensors have no use for.

    Raises:
        InputError: naming the first one, what is allowed, and the remedy.
    """
    import torch

    shape = (k.shape[0], k.shape[2])
    for name, descale in zip(DESCALE_NAMES, descales, strict=True):
        if descale is None:
            continue
        check_is_tensor(name, descale)
        if dtype is not DType.E4M3:
            raise InputError(
                f"{name}: got a tensor with q, k and v in {dtype.torch_name}, allowed: None, as "
                "only float8_e4m3fn has descales; leave it out"
            )
        if tuple(descale.shape) != shape or descale.dtype is not torch.float32:
            raise InputError(
                f"{name}: got {descale.dtype} {tuple(descale.shape)}, allowed: torch.float32 "
                f"{shape}, which is (batch, num_heads_kv); expand it with .expand{shape}"
            )
        if descale.device != k.device:
            raise InputError(
                f"{name}.device: got {descale.device}, allowed: {k.device}, where k is; move it "
                f'with .to("{k.device}")'
            )
        if descale.requires_grad and torch.is_grad_enabled():
            raise InputError(
                f"requires_grad: got True for {name} with gradients enabled, allowed: False; "
                "fa4gen has no backward kernel yet. Detach it"
            )


def _check_devices(tensors: dict[str, torch.Tensor], device_type: str) -> None:
    q = tensors["q"]
    for name, tensor in tensors.items():
        if tensor.device.type != device_type:
            raise InputError(
                f"{name}.device: got {tensor.device}, allowed: {device_type}; move it with "
                f'.to("{device_type}"), or use '
                "torch.nn.functional.scaled_dot_product_attention elsewhere"
            )
        if tensor.device != q.device:
            raise InputError(
                f"{name}.device: got {tensor.device}, allowed: {q.device}, where q is; move it "
                f'with .to("{q.device}")'
            )


def _check_dtypes(tensors: dict[str, torch.Tensor]) -> DType:
    q = tensors["q"]
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in _DTYPES:
            raise InputError(
                f"{name}.dtype: got {tensor.dtype}, allowed: {', '.join(_DTYPES)}; cast q, k and "
                "v with .to(torch.bfloat16)"
            )
        if tensor.dtype != q.dtype:
            raise InputError(
                f"{name}.dtype: got {tensor.dtype}, allowed: {q.dtype}, as q; cast it with "
                f".to({q.dtype})"
            )
    return _DTYPES[str(q.dtype)]


def _check_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    shape_q, shape_k, shape_v = tuple(q.shape), tuple(k.shape), tuple(v.shape)
    got = f"got q {shape_q}, k {shape_k}, v {shape_v}, each {_LAYOUT}"
    if not shape_q[0] == shape_k[0] == shape_v[0]:
        raise InputError(f"batch: {got}, allowed: one batch for all three")
    if shape_k[1:3] != shape_v[1:3]:
        raise InputError(f"k and v: {got}, allowed: the same seqlen_k and num_heads_kv in both")
    if shape_q[3] != shape_k[3]:
        raise InputError(f"head_dim: {got}, allowed: the same in q and k")
    for name, size in (
        ("num_heads_q", shape_q[2]),
        ("num_heads_kv", shape_k[2]),
        ("head_dim", shape_q[3]),
        ("head_dim_v", shape_v[3]),
    ):
        if size < 1:
            raise InputError(f"{name}: {got}, allowed: 1 or more")
    if shape_q[2] % shape_k[2]:
        raise InputError(
            f"num_heads_q: {got}, allowed: a multiple of num_heads_kv ({shape_q[2]} % "
            f"{shape_k[2]} = {shape_q[2] % shape_k[2]}); repeat or drop heads"
        )
