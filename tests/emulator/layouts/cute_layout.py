"""Layouts in CuTe's sense, evaluated plainly: nested shapes and strides, first mode fastest."""

from __future__ import annotations

from typing import TypeAlias

Nested: TypeAlias = "int | tuple[Nested, ...]"

SWIZZLES = {"NONE": (0, 4, 3), "B32": (1, 4, 3), "B64": (2, 4, 3), "B128": (3, 4, 3)}
SWIZZLES |= {"B128_ATOM32": (2, 5, 2), "B128_ATOM64": (1, 6, 1)}
"""``Swizzle<bits, base, shift>`` on byte addresses."""


def size(shape: Nested) -> int:
    """Number of coordinates."""
    if isinstance(shape, int):
        return shape
    result = 1
    for mode in shape:
        result *= size(mode)
    return result


def offset(shape: Nested, stride: Nested, index: int) -> int:
    """Where the linear coordinate ``index`` of a layout ``shape:stride`` lies."""
    if isinstance(shape, int):
        assert isinstance(stride, int)
        return index * stride
    assert isinstance(stride, tuple)
    total = 0
    for mode, step in zip(shape, stride, strict=True):
        total += offset(mode, step, index % size(mode))
        index //= size(mode)
    assert index == 0
    return total


def swizzled(address: int, name: str) -> int:
    """CuTe's definition: ``bits`` bits from ``base + shift`` on are added, without carry, to those
    from ``base`` on."""
    bits, base, shift = SWIZZLES[name]
    for bit in range(bits):
        if address >> (base + shift + bit) & 1:
            address ^= 1 << (base + bit)
    return address
