"""fa4gen: generate, check, time and dispatch FlashAttention-4-style attention kernels.

The names below are the public API. What needs torch, Optuna, SQLAlchemy or CuTe-DSL is imported
when it is first asked for, so that ``import fa4gen`` costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import Fa4genError
from fa4gen.core.lazy import lazy_names
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem, KernelSignature

if TYPE_CHECKING:
    from fa4gen.codegen import render
    from fa4gen.db import TuningStore
    from fa4gen.hardware import load_arch, load_sku
    from fa4gen.perf import predict
    from fa4gen.runtime import flash_attn_func

__version__ = "0.1.0"

_LAZY = {
    "TuningStore": "fa4gen.db",
    "flash_attn_func": "fa4gen.runtime",
    "load_arch": "fa4gen.hardware",
    "load_sku": "fa4gen.hardware",
    "predict": "fa4gen.perf",
    "render": "fa4gen.codegen",
}
"""Public name -> the package that defines it."""

__all__ = [
    "AttentionProblem",
    "DType",
    "Fa4genError",
    "KernelConfig",
    "KernelSignature",
    "Outcome",
    "Source",
    "TuningStore",
    "__version__",
    "flash_attn_func",
    "load_arch",
    "load_sku",
    "predict",
    "render",
]


__getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
