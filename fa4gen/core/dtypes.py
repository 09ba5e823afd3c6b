"""Element types of Q, K and V, and what goes with each."""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """An element type; its value is the spelling used in TOML files and in the database."""

    BF16 = "bf16"
    FP16 = "fp16"
    E4M3 = "e4m3"
    """8 bits: 4 of exponent, 3 of mantissa, largest 448, no infinity. Q, K and V come with a
    float32 descale for every batch entry and KV head, which gives their true size."""

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 1 if self is DType.E4M3 else 2

    @property
    def out(self) -> DType:
        """The type of O where Q, K and V are of this one."""
        return DType.BF16 if self is DType.E4M3 else self

    @property
    def head_dim_granule(self) -> int:
        """Head dimensions are padded to a multiple of this: K of one wgmma or tcgen05 MMA.

        Source: PTX ISA, wgmma.mma_async and tcgen05.mma shape tables: 32 bytes.
        """
        return 32 // self.itemsize

    @property
    def torch_name(self) -> str:
        """Attribute of the ``torch`` module."""
        return {"bf16": "bfloat16", "fp16": "float16", "e4m3": "float8_e4m3fn"}[self.value]

    @property
    def cutlass_name(self) -> str:
        """Attribute of the ``cutlass`` module."""
        return {"bf16": "BFloat16", "fp16": "Float16", "e4m3": "Float8E4M3FN"}[self.value]

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number: 2**-8 for bf16, 2**-11 for fp16, 2**-4 for
        e4m3."""
        return {"bf16": 2.0**-8, "fp16": 2.0**-11, "e4m3": 2.0**-4}[self.value]
