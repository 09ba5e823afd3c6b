"""PTX: text to frozen values and back."""

from fa4gen.ptx.ir import (
    Address,
    Entry,
    Guard,
    Immediate,
    Instruction,
    Label,
    Module,
    Negated,
    Operand,
    Origin,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)
from fa4gen.ptx.parser import parse
from fa4gen.ptx.printer import to_text

__all__ = [
    "Address",
    "Entry",
    "Guard",
    "Immediate",
    "Instruction",
    "Label",
    "Module",
    "Negated",
    "Operand",
    "Origin",
    "Pair",
    "Register",
    "Sink",
    "Special",
    "Symbol",
    "Variable",
    "Vector",
    "parse",
    "to_text",
]
