"""Hopper's accumulators of 8-bit products, in torch.

The arithmetic is that of :func:`fa4gen.numerics.tensor_core.fused_dot` with
:func:`fa4gen.numerics.tensor_core.wgmma_accumulation`, which was compared with an H200 bit for bit.
What it cuts off is most of the error of an e4m3 kernel's scores, so an allowance has to know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fa4gen.numerics.tensor_core import wgmma_accumulation

if TYPE_CHECKING:
    from torch import Tensor

FRACTION_BITS = wgmma_accumulation("e4m3", "e4m3", "f32").fraction_bits
"""Bits below the largest exponent of an instruction that its summands keep, the rest cut off."""
MASK = -(1 << 10)
"""Bits of a float32 that the accumulator keeps: 13 of the mantissa."""
PRODUCT_K = 32
"""Products that one 8-bit wgmma adds to an accumulator. Source: PTX ISA, wgmma.mma_async shapes."""
LEAST_EXPONENT, ZERO_EXPONENT = -6, -126
"""Of a subnormal e4m3 number, and what a zero counts with."""
TOGETHER = 8
"""Products of an element that are worked on at a time: fewer would be many small launches, more
take memory."""


def accumulated(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of e4m3 tensors ``(..., M, K)`` and ``(..., K, N)`` as wgmma adds up."""
    import torch

    total = torch.zeros((*a.shape[:-1], b.shape[-1]), device=a.device)
    wide_a, wide_b = a.float(), b.float()
    for k in range(0, a.shape[-1], PRODUCT_K):
        part = slice(k, k + PRODUCT_K)
        total = _instruction(total, wide_a[..., part], wide_b[..., part, :])
    return total


def _instruction(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One instruction: summands aligned to the largest, cut toward zero, added exactly."""
    import torch

    columns, rows = a.unsqueeze(-1), b.unsqueeze(-3)  # (..., M, K, 1) and (..., 1, K, N)
    of_a, of_b = _exponents(columns, LEAST_EXPONENT), _exponents(rows, LEAST_EXPONENT)
    largest = _exponents(c, ZERO_EXPONENT)
    parts = [slice(k, k + TOGETHER) for k in range(0, a.shape[-1], TOGETHER)]
    for part in parts:
        exponents = (of_a[..., part, :] + of_b[..., part, :]).amax(-2)
        largest = torch.maximum(largest, exponents)
    grid = torch.exp2(largest - FRACTION_BITS)
    total = (c / grid).trunc_()
    for part in parts:
        products = columns[..., part, :] * rows[..., part, :]
        total += products.div_(grid.unsqueeze(-2)).trunc_().sum(-2)
    total *= grid
    total.view(torch.int32).bitwise_and_(MASK)
    return total


def _exponents(x: Tensor, least: int) -> Tensor:
    """Exponents as an aligner sees them, as float32."""
    import torch

    exponent = (torch.frexp(x).exponent - 1).clamp_min(least)
    return exponent.where(x != 0, ZERO_EXPONENT).float()
