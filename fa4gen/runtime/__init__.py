"""The runtime: which kernel a call gets, and the call itself.

``flash_attn_func``, ``warm_up`` and ``reset`` need torch and import it when first asked for; the
selector and ``explain`` do not. Environment variables: :mod:`fa4gen.runtime.settings`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fa4gen.runtime.selection import Rejected, Rung, Selection
from fa4gen.runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from fa4gen.runtime.api import flash_attn_func, reset, warm_up
    from fa4gen.runtime.explanation import Explanation, explain
    from fa4gen.runtime.selector import Selector

_LAZY = {
    "Explanation": "explanation",
    "Selector": "selector",
    "explain": "explanation",
    "flash_attn_func": "api",
    "reset": "api",
    "warm_up": "api",
}
"""Public name -> the module of this package that defines it."""

__all__ = [
    "Explanation",
    "Rejected",
    "Rung",
    "RuntimeSettings",
    "Selection",
    "Selector",
    "explain",
    "flash_attn_func",
    "reset",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fa4gen.runtime' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fa4gen.runtime.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
