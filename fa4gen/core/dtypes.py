"""Element types of Q, K, V and O."""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """An element type; its value is the spelling used in TOML files and in the database."""

    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 2

    @property
    def torch_name(self) -> str:
        """Attribute of the ``torch`` module."""
        return {"bf16": "bfloat16", "fp16": "float16"}[self.value]

    @property
    def cutlass_name(self) -> str:
        """Attribute of the ``cutlass`` module."""
        return {"bf16": "BFloat16", "fp16": "Float16"}[self.value]

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number: 2**-8 for bf16, 2**-11 for fp16."""
        return {"bf16": 2.0**-8, "fp16": 2.0**-11}[self.value]
