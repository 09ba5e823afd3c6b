"""The mutation operators, by name."""

from __future__ import annotations

from mutation.code import Operator
from mutation.operators import barriers, control, numbers, waits

OPERATORS: dict[str, Operator] = (
    barriers.OPERATORS | waits.OPERATORS | numbers.OPERATORS | control.OPERATORS
)
