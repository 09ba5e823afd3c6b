"""Views as plain JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem


def plain(value: Any) -> Any:
    """``value`` with dataclasses, enums, paths and tuples turned into what JSON has.

    A problem also carries its short ``text``, a configuration its ``config_id``; a number that
    JSON cannot carry (infinite, not a number) becomes ``None``.

    Raises:
        TypeError: something that has no plain form.
    """
    if isinstance(value, AttentionProblem):
        return {"text": str(value), **value.to_dict()}
    if isinstance(value, KernelConfig):
        return {"config_id": value.config_id, **value.to_dict()}
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _container(value)


def _container(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no plain form for {type(value).__name__}")


def to_json(view: Any) -> str:
    """A view as indented JSON."""
    return json.dumps(plain(view), indent=2, ensure_ascii=False, allow_nan=False)
