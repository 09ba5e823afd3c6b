"""The runtime: which kernel a call gets, and the call itself.

``flash_attn_func``, ``warm_up`` and ``reset`` need torch and import it when first asked for; the
selector and ``explain`` do not. Environment variables: :mod:`fa4gen.runtime.settings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fa4gen.core.lazy import lazy_names
from fa4gen.runtime.selection import Rejected, Rung, Selection
from fa4gen.runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from fa4gen.runtime.api import flash_attn_func, reset, warm_up
    from fa4gen.runtime.explanation import Explanation, explain
    from fa4gen.runtime.selector import Selector

_LAZY = {
    "Explanation": "fa4gen.runtime.explanation",
    "Selector": "fa4gen.runtime.selector",
    "explain": "fa4gen.runtime.explanation",
    "flash_attn_func": "fa4gen.runtime.api",
    "reset": "fa4gen.runtime.api",
    "warm_up": "fa4gen.runtime.api",
}
"""Public name -> the module that defines it."""

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


__getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
