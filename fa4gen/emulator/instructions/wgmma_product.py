"""What one warp computes of a ``wgmma``: its 16 rows of ``D = A B + C``.

Source: PTX ISA 9.1, section 9.7.15.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.layouts.fragments import (
    accumulator,
    fragment_to_matrix,
    matrix_to_fragment,
    operand_a,
)
from fa4gen.emulator.layouts.operand import CHUNK_BYTES, check_operand, operand_chunks, read_operand
from fa4gen.emulator.layouts.smem_descriptor import decode_wgmma
from fa4gen.emulator.shadow import Access
from fa4gen.emulator.shared import CELL_BYTES, RESERVED
from fa4gen.emulator.warp import Warp
from fa4gen.numerics.formats import decode
from fa4gen.numerics.tensor_core import dot_f64, fused_dot, wgmma_accumulation

ROWS = 16
"""Rows of the 64 that one warp computes."""
K_BYTES = 32
"""Bytes of K in one instruction, whatever the type."""
ELEMENT_BITS = {"bf16": 16, "f16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8}


@dataclass(frozen=True, slots=True)
class Shape:
    """What does not change from one execution of an instruction to the next."""

    n: int
    k: int
    d_type: Literal["f32", "f16"]
    a_type: str
    b_type: str
    a_in_registers: bool
    a_sign: int
    b_sign: int
    a_mn_major: bool
    b_mn_major: bool


def multiply(
    warp: Warp,
    shape: Shape,
    access: Access,
    a_value: Any,
    b_value: int,
    start: npt.NDArray[np.uint32] | None,
) -> npt.NDArray[np.uint32]:
    """This warp's 16 rows of D, as its registers: ``(registers, 32)``."""
    bits = ELEMENT_BITS[shape.a_type]
    if shape.a_in_registers:
        a = decode(fragment_to_matrix(operand_a(shape.k, bits), a_value), shape.a_type)
    else:
        raw = _from_shared(warp, access, a_value, (64, shape.k, bits), shape.a_mn_major, own=True)
        a = decode(raw, shape.a_type)
    raw = _from_shared(warp, access, b_value, (shape.n, shape.k, bits), shape.b_mn_major)
    b = decode(raw, shape.b_type)
    a, b = a * np.float32(shape.a_sign), b * np.float32(shape.b_sign)
    fragment = accumulator(shape.n, 32 if shape.d_type == "f32" else 16)
    if start is None:
        c = np.zeros((ROWS, shape.n), np.float32)
    else:
        c = fragment_to_matrix(fragment, start).view(
            np.float32 if shape.d_type == "f32" else np.float16
        )
        c = c.astype(np.float32)
    if warp.cta.cluster.grid.tensor_core == "fused":
        d = fused_dot(a, b, c, wgmma_accumulation(shape.a_type, shape.b_type, shape.d_type))
    else:
        d = dot_f64(a, b, c)
    codes = d.view(np.uint32) if shape.d_type == "f32" else d.astype(np.float16).view(np.uint16)
    return matrix_to_fragment(fragment, codes)


def _from_shared(
    warp: Warp,
    access: Access,
    descriptor: int,
    size: tuple[int, int, int],
    mn_major: bool,
    *,
    own: bool = False,
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The raw elements ``(rows, k)`` of an operand in shared memory.

    With ``own`` only the 16 rows of A that this warp multiplies. FlashAttention-3 and 4 rely on a
    warp reading no others: its part of P is guarded by no more than a ``bar.warp.sync``.
    """
    rows, k, bits = size
    shared = warp.cta.shared
    decoded = decode_wgmma(descriptor)
    check_operand(decoded, bits, mn_major, "wgmma")
    chunks = operand_chunks(decoded, rows, k, bits, mn_major)
    if int(chunks.min()) < RESERVED:
        raise warp.fault(f"wgmma: descriptor {descriptor:#x} begins below the kernel's memory")
    codes = read_operand(shared.data, decoded, rows, k, bits, mn_major)
    if own:
        first = ROWS * (warp.index % 4)
        codes = codes[first : first + ROWS]
        per_chunk = 8 * CHUNK_BYTES // bits
        columns = slice(first // per_chunk, (first + ROWS) // per_chunk)
        chunks = chunks[:, columns] if mn_major else chunks[first : first + ROWS]
    cells = chunks.reshape(-1, 1) // CELL_BYTES + np.arange(CHUNK_BYTES // CELL_BYTES)
    shared.shadow.read(cells.ravel(), access)
    return codes
