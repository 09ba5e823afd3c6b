"""Kernels on CPU tensors, good and bad, that a worker loads through its ``--loader`` seam.

The object path of a :class:`KernelRef` is the name of the kernel.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fa4gen.numerics.exp2_poly import coefficients

if TYPE_CHECKING:
    from fa4gen.evaluate.protocol import KernelRef


def _exp2_poly(x: Any) -> Any:
    import torch

    whole = torch.round(x)
    f = x - whole
    a, b, c = coefficients(2)
    return torch.ldexp(a + f * (b + f * c), whole.clamp_min(-126.0))


def flash(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float, **how: Any) -> None:
    """Blockwise forward attention with 16-bit P, as a generated kernel computes it.

    ``how``: ``causal``, ``threshold`` (log2 growth of a row maximum that needs no rescale), and
    ``exp2``.
    """
    import torch

    causal, threshold = how.get("causal", False), how.get("threshold", 0.0)
    exp2, tile_n = how.get("exp2", torch.exp2), 64
    group = q.shape[2] // k.shape[2]
    rows, keys = q.shape[1], k.shape[1]
    qt = q.transpose(1, 2).float()
    kt = k.transpose(1, 2).float().repeat_interleave(group, 1)
    vt = v.transpose(1, 2).repeat_interleave(group, 1)
    scale_log2 = scale * math.log2(math.e)
    row_max = torch.full(qt.shape[:3], -math.inf, device=q.device)
    row_sum = torch.zeros(qt.shape[:3], device=q.device)
    o = torch.zeros((*qt.shape[:3], v.shape[3]), device=q.device)
    for begin in range(0, keys, tile_n):
        s = qt @ kt[:, :, begin : begin + tile_n].transpose(-1, -2) * scale_log2
        if causal:
            key = torch.arange(begin, begin + s.shape[3], device=q.device)
            row = torch.arange(rows, device=q.device)
            s.masked_fill_(key > row[:, None] + keys - rows, -math.inf)
        new_max = torch.maximum(row_max, s.amax(-1))
        keep = (new_max - row_max) <= threshold
        new_max = torch.where(keep & row_max.isfinite(), row_max, new_max)
        base = new_max.clamp_min(-1e30)
        factor = torch.exp2(torch.where(row_max.isfinite(), row_max - base, -math.inf))
        p = torch.where(s.isfinite(), exp2(s - base[..., None]), 0.0)
        row_sum = row_sum * factor + p.sum(-1)
        block = vt[:, :, begin : begin + tile_n].float()
        o = o * factor[..., None] + p.to(v.dtype).float() @ block
        row_max = new_max
    seen = row_sum > 0
    o = torch.where(seen[..., None], o / row_sum.clamp_min(1e-30)[..., None], 0.0)
    out.copy_(o.transpose(1, 2))
    lse.copy_(torch.where(seen, (row_max + row_sum.log2()) * math.log(2), -math.inf))


def _after(change: Callable[[Any, Any], None]) -> Callable[[bool], Callable[..., None]]:
    """A kernel that is right but for what ``change(out, lse)`` does afterwards."""

    def make(causal: bool) -> Callable[..., None]:
        def kernel(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
            flash(q, k, v, out, lse, scale, causal=causal)
            change(out, lse)

        return kernel

    return make


def _good(causal: bool, **options: Any) -> Callable[..., None]:
    return lambda *tensors: flash(*tensors, causal=causal, **options)


def _row(out: Any, lse: Any) -> None:
    out[-1, out.shape[1] // 2, -1] *= 1.05


def _nan(out: Any, lse: Any) -> None:
    out[0, -1, 0, 3] = math.nan


def _infinite(out: Any, lse: Any) -> None:
    out[0, -1, 0, 3] = math.inf


def _lse(out: Any, lse: Any) -> None:
    lse[-1, -1, -1] += 0.01


def _outside(out: Any, lse: Any) -> None:
    import torch

    whole = out.as_strided((1,), (1,), out.storage_offset() - 1)
    whole.copy_(torch.ones_like(whole))


_CALLS = [0]


def _moving(out: Any, lse: Any) -> None:
    _CALLS[0] += 1
    out[0, 0, 0, 0] += 0.001 * _CALLS[0] if float(out[0, 0, 0, 0]) < 1 else -0.01 * _CALLS[0]


def _unwritten(causal: bool) -> Callable[..., None]:
    def kernel(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
        bits = out[:, -1].clone()
        flash(q, k, v, out, lse, scale, causal=causal)
        out[:, -1] = bits

    return kernel


def _unmasked_rows(causal: bool) -> Callable[..., None]:
    """Forgets that a row may see nothing: gives it the mean of V."""

    def kernel(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
        flash(q, k, v, out, lse, scale, causal=causal)
        empty = lse.isinf().transpose(1, 2)
        out[empty] = 0.125

    return kernel


def _hang(*_: Any) -> None:
    time.sleep(3600)


def _abort(*_: Any) -> None:
    print("fake fault: illegal write in kernel", file=sys.stderr, flush=True)
    os.abort()


def _kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _refuse(*_: Any) -> None:
    raise RuntimeError("CUDA error: invalid configuration argument")


def _too_wide(*_: Any) -> None:
    """More threads in a CTA than any GPU has: refused by the driver, harmless to the context."""
    import torch

    compile_kernel: Any = torch.cuda._compile_kernel
    compile_kernel('extern "C" __global__ void wide() {}', "wide")(block=(4096, 1, 1))


def _late_hang(causal: bool) -> Callable[..., None]:
    """Right while it is checked, hangs once it has been called often."""
    calls = [0]

    def kernel(*tensors: Any) -> None:
        calls[0] += 1
        if calls[0] > 20:
            time.sleep(3600)
        flash(*tensors, causal=causal)

    return kernel


def _slow(causal: bool) -> Callable[..., None]:
    def kernel(*tensors: Any) -> None:
        flash(*tensors, causal=causal)
        time.sleep(0.02)

    return kernel


def _cuda(source: str, grid: int = 1) -> Callable[[bool], Callable[..., None]]:
    """A right kernel that launches a CUDA kernel ``bad(float*)`` of ``source`` afterwards."""

    def make(causal: bool) -> Callable[..., None]:
        import torch

        text = f'extern "C" __global__ void bad(float *lse) {{ {source} }}'
        compile_kernel: Any = torch.cuda._compile_kernel
        bad = compile_kernel(text, "bad")

        def kernel(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
            flash(q, k, v, out, lse, scale, causal=causal)
            bad(grid=(grid, 1, 1), block=(1, 1, 1), args=[lse])

        return kernel

    return make


MAKERS: dict[str, Callable[[bool], Callable[..., None]]] = {
    "good": _good,
    "good_lazy": lambda causal: _good(causal, threshold=8.0),
    "polynomial": lambda causal: _good(causal, exp2=_exp2_poly),
    "row": _after(_row),
    "nan": _after(_nan),
    "infinite": _after(_infinite),
    "lse": _after(_lse),
    "outside": _after(_outside),
    "moving": _after(_moving),
    "unwritten": _unwritten,
    "unmasked_rows": _unmasked_rows,
    "hang": lambda causal: _hang,
    "abort": lambda causal: _abort,
    "segv": lambda causal: _kill,
    "refuse": lambda causal: _refuse,
    "late_hang": _late_hang,
    "cuda_hang": _cuda("volatile float *stop = lse; while (*stop != 123.0f) {}"),
    "cuda_fault": _cuda("*(volatile float *)16 = lse[0];"),
    "cuda_misaligned": _cuda("*(volatile double *)((char *)lse + 4) = 0.0;"),
    "cuda_trap": _cuda("__trap();"),
    "cuda_one_row": _cuda("lse[3] += 0.125f;"),
    "cuda_too_wide": lambda causal: _too_wide,
    "slow": _slow,
}


def make(name: str, causal: bool = False) -> Callable[..., None]:
    """The kernel of this name."""
    return MAKERS[name](causal)


def load(ref: KernelRef) -> Callable[..., None]:
    """The worker's loader; ``name`` or ``name-causal``."""
    name, _, causal = ref.object_path.partition("-")
    if name == "unloadable":
        raise OSError("cannot link")
    return make(name, causal == "causal")
