"""Numbers and dates as the page writes them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

DASH = "\N{EN DASH}"
"""What stands for a number that there is none of."""
DIGITS = 4
"""Of a time."""
SMALL_SHARE = 0.01
"""Below it a share keeps a decimal."""


def microseconds(value: float | None) -> str:
    """``22.42``, ``219.8``, ``4,125``: four digits."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{max(0, DIGITS - len(str(int(abs(value)))))}f}"


def tflops(value: float | None) -> str:
    """``533.0``, ``6.7``: one decimal."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.1f}"


def factor(value: float | None) -> str:
    """``1.083``."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.3f}"


def percent(value: float | None) -> str:
    """``71 %``, ``0.3 %``."""
    if value is None or not math.isfinite(value):
        return DASH
    digits = 1 if 0 < value < SMALL_SHARE else 0
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def error_size(value: float | None) -> str:
    """``7.19e-03``; a wrong kernel's may be infinite."""
    return DASH if value is None else f"{value:.2e}"


def when(text: str) -> str:
    """``2026-11-21 09:29``, in UTC; what is not a date stays as it is."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (date.astimezone(UTC) if date.tzinfo else date).strftime("%Y-%m-%d %H:%M")
