"""``mma.sync``: one warp multiplies matrices that lie in its registers.

Source: PTX ISA 9.1, section 9.7.14.5 (shapes, fragments, types); what goes with what is what ptxas
13.4 takes for sm_90a and sm_100a. The sums are those of :mod:`fa4gen.numerics.tensor_core`, whose
bits an H200 gives as well (2026-11-21, ``matrix/mma-*`` of tests/emulator/hopper).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.instructions.matrix import whole_warp
from fa4gen.emulator.layouts.fragments import (
    Codes,
    accumulator,
    fragment_to_matrix,
    matrix_to_fragment,
    operand_a,
    operand_b,
)
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.numerics.formats import decode
from fa4gen.numerics.narrow import to_half
from fa4gen.numerics.tensor_core import (
    dot_f64,
    fused_dot,
    mma_of_bytes,
    tcgen05_accumulation,
)

Registers: TypeAlias = npt.NDArray[np.uint32]
Product: TypeAlias = Callable[[Codes, Codes, Codes, bool], Codes]
"""D of A, B (transposed) and C, all raw; the flag asks for the tensor cores' own way to add."""

_SHAPE = re.compile(r"m16n8k(\d+)")
_BITS = {"f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8}
_NARROW, _INTEGER = ("e4m3", "e5m2"), ("s8", "u8")
_FRAGMENT_BITS = (128, 256)
"""Bits of K in the smaller and the larger shape of each type."""
_LEAST, _MOST = -(1 << 31), (1 << 31) - 1


@instruction("mma.sync", pipe=Pipe.TENSOR, isa="9.7.14.5.14")
def mma(b: Builder) -> Op:
    """``D = A B + C`` of 16 x K, K x 8 and 16 x 8."""
    k = _take_shape(b)
    saturate = b.mods.flag("satfinite")
    d_type, a_type, b_type, c_type = (b.mods.type() for _ in range(4))
    _check_types(b, k, (d_type, a_type, b_type, c_type))
    if saturate and a_type not in _INTEGER:
        b.fail(".satfinite belongs to integers")
    bits = _BITS[a_type]
    a_map, b_map = operand_a(k, bits), operand_b(k, bits)
    d_map = accumulator(8, 16 if d_type == "f16" else 32)
    target, *sources = b.expect(4)
    into = b.dsts(target, 32)
    slots = [b.srcs(each, 32) for each in sources]
    for what, found, wanted in (
        ("D", into, d_map),
        ("A", slots[0], a_map),
        ("B", slots[1], b_map),
        ("C", slots[2], d_map),
    ):
        if len(found) != wanted.registers:
            b.fail(f"got {len(found)} registers of {what}, m16n8k{k} has {wanted.registers}")
    maps = (a_map, b_map, d_map)
    if a_type in _INTEGER:
        multiply = _integers(a_type, b_type, saturate)
    else:
        multiply = _floats(a_type, b_type, "f16" if d_type == "f16" else "f32")

    def run(warp: Warp) -> Signal | None:
        if (wait := whole_warp(warp)) is not None:
            return wait
        a, b_transposed, c = (
            fragment_to_matrix(each, np.stack([warp.regs[slot] for slot in part]))
            for each, part in zip(maps, slots, strict=True)
        )
        fused = warp.cta.cluster.grid.tensor_core == "fused"
        result = matrix_to_fragment(d_map, multiply(a, b_transposed, c, fused))
        for slot, value in zip(into, result, strict=True):
            warp.write(slot, value)
        return None

    return run


def _take_shape(b: Builder) -> int:
    """K of ``m16n8k{K}``."""
    for name in ("aligned", "row", "col"):
        if not b.mods.flag(name):
            b.fail("known with .aligned, .row and .col")
    shape = b.mods.one_of(*(f"m16n8k{k}" for k in (4, 8, 16, 32)))
    match = _SHAPE.fullmatch(shape)
    if match is None:
        b.fail("known with the shapes m16n8k4, m16n8k8, m16n8k16 and m16n8k32")
    return int(match[1])


def _check_types(b: Builder, k: int, types: tuple[str, str, str, str]) -> None:
    d_type, a_type, b_type, c_type = types
    fine = d_type == c_type and a_type in _BITS and k * _BITS[a_type] in _FRAGMENT_BITS
    if a_type in _INTEGER:
        fine = fine and b_type in _INTEGER and d_type == "s32"
    elif a_type in _NARROW:
        fine = fine and b_type in _NARROW and d_type in {"f32", "f16"}
    else:
        fine = fine and b_type == a_type
        fine = fine and d_type in ({"f32", "f16"} if a_type == "f16" else {"f32"})
    if not fine:
        b.fail(f"got K = {k} and the types {', '.join(map(repr, types))}, which do not go together")


def _floats(a_type: str, b_type: str, output: Literal["f32", "f16"]) -> Product:
    how = tcgen05_accumulation(a_type, b_type, output)

    def multiply(a: Codes, b: Codes, c: Codes, fused: bool) -> Codes:
        values = decode(a, a_type), decode(b, b_type), decode(c, output)
        if not fused:
            total = dot_f64(*values)
        elif a_type in _NARROW:
            total = mma_of_bytes(*values, output)
        else:
            total = fused_dot(*values, how)
        return total.view(np.uint32) if output == "f32" else to_half(total, "f16")

    return multiply


def _integers(a_type: str, b_type: str, saturate: bool) -> Product:
    a_seen, b_seen = (np.dtype(f"{'i' if kind == 's8' else 'u'}1") for kind in (a_type, b_type))

    def multiply(a: Codes, b: Codes, c: Codes, _: bool) -> Codes:
        first, second = a.view(a_seen).astype(np.int64), b.view(b_seen).astype(np.int64)
        total = first @ second.T + c.view(np.int32).astype(np.int64)
        if saturate:
            total = np.clip(total, _LEAST, _MOST)
        return np.asarray(total.astype(np.uint64).astype(np.uint32))

    return multiply
