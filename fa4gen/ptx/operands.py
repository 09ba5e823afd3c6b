"""Operands: from their text to the IR.

Source: PTX ISA 9.1, sections 4.5 (constants), 6.4 (operand forms); the forms NVVM was seen to emit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from fa4gen.ptx.ir import (
    Address,
    Immediate,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)
from fa4gen.ptx.lexer import Mistake
from fa4gen.ptx.scopes import PREDEFINED, SPECIALS, Scope

F32, F64 = 32, 64
"""Bits of a float literal."""

_MAX_DIGITS = 64
_TOO_LARGE = 1 << 64

UNRESOLVED = -1
"""Target of a label until the whole entry is read."""

_NAME = r"[A-Za-z_$%][\w$]*"
NAME = re.compile(_NAME, re.ASCII)

_ITEM = re.compile(r"(?:[^,{\[(}\])]|\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\))+")
"""An operand with the blanks round it; brackets hold commas, and brackets of another kind."""

_INTEGER = re.compile(
    r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0([0-7]+)|(0|[1-9][0-9]*))U?", re.ASCII
)
_HEX_FLOAT = re.compile(r"0([fFdD])([0-9a-fA-F]*)")
_DECIMAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?", re.ASCII)

_ADDRESS = re.compile(
    rf"\s*({_NAME}(?:\.[a-z])?|[+-]?\d\w*)\s*(?:([+-])\s*([+-]?)\s*(\w+)\s*)?(?:,\s*(\{{.*\}})\s*)?",
    re.ASCII | re.DOTALL,
)

_ANY_FORM = (
    "a register, a literal, a variable, '_', '{...}', '[...]', '!p' or 'd|p' (is a ';' missing?)"
)


def split(text: str) -> list[str]:
    """``text`` at the commas outside brackets, blanks kept.

    Raises:
        Mistake: a bracket without its partner, or nothing between two commas.
    """
    parts = _ITEM.findall(text)
    if not parts or ",".join(parts) != text or not all(map(str.strip, parts)):
        raise Mistake("a list of operands", text, "operands between commas, every bracket closed")
    return parts


def operand(text: str, scope: Scope) -> Operand:
    """The operand that ``text`` spells; kept in the scope's cache.

    Raises:
        Mistake: no operand, or an unknown name.
    """
    made = scope.cache[text] = _operand(text.strip(), scope)
    return made


def _operand(text: str, scope: Scope) -> Operand:
    if "|" in text:
        return _pair(text, scope)
    form = _FORMS.get(text[:1], _named)
    return form(text, scope)


def _named(name: str, scope: Scope) -> Operand:
    if found := scope.find(name):
        return found
    if name in SPECIALS:
        return Special(name)
    if name in PREDEFINED:
        return PREDEFINED[name]
    if NAME.fullmatch(name.partition(".")[0]) and re.fullmatch(r"[\w$%.]+", name, re.ASCII):
        raise Mistake("an unknown name", name, "a register or variable declared in this scope")
    raise Mistake("an operand", name, _ANY_FORM)


def _vector(text: str, scope: Scope) -> Vector:
    return Vector(tuple(_items(text, scope)))


def _negated(text: str, scope: Scope) -> Negated:
    return Negated(predicate(text[1:].strip(), scope))


def _literal(text: str, _: Scope) -> Immediate:
    return literal(text)


def _items(text: str, scope: Scope) -> list[Operand]:
    """The elements of ``{a, b}``."""
    if not text.endswith("}"):
        raise Mistake("a vector", text, "'}' at its end")
    cache = scope.cache
    inner = text[1:-1]
    return [cache.get(item) or operand(item, scope) for item in split(inner)]


def predicate(name: str, scope: Scope) -> Register:
    """The predicate register called ``name``.

    Raises:
        Mistake: there is none.
    """
    found = _named(name, scope)
    if not isinstance(found, Register) or found.type != "pred":
        raise Mistake("a predicate", name, "a register of type .pred")
    return found


def _pair(text: str, scope: Scope) -> Pair:
    left, _, right = text.partition("|")
    first, second = _operand(left.strip(), scope), _operand(right.strip(), scope)
    if not isinstance(first, Register | Sink) or not isinstance(second, Register | Sink):
        raise Mistake("a pair of results", text, "a register or '_' on either side of '|'")
    return Pair(first, second)


def _address(text: str, scope: Scope) -> Address:
    match = _ADDRESS.fullmatch(text, 1, len(text) - 1)
    if match is None or not text.endswith("]"):
        raise Mistake(
            "an address", text, "[base], [base+offset], [base-offset] or [base, {coordinates}]"
        )
    name, sign, minus, offset, coordinates = match.groups()
    base = integer(name) if name[0] in "+-0123456789" else _named(name, scope)
    if not isinstance(base, Register | Symbol | Immediate):
        raise Mistake("an address", text, "a register, a variable or an integer as its base")
    distance = 0
    if offset:
        distance = integer(offset).value
        if (sign == "-") != (minus == "-"):
            distance = -distance
    items = tuple(_items(coordinates, scope)) if coordinates else ()
    return Address(base, distance, items)


def label(text: str) -> Label:
    """A branch target by name, not yet resolved.

    Raises:
        Mistake: ``text`` is no name.
    """
    name = text.strip()
    if not NAME.fullmatch(name):
        raise Mistake("a branch target", name, "a label")
    return Label(name, UNRESOLVED)


def called(text: str, scope: Scope) -> Operand:
    """An operand of ``call``: ``(a, b)``, a function, or a register that holds its address.

    Raises:
        Mistake: none of these.
    """
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        inner = text[1:-1]
        return Vector(tuple(operand(item, scope) for item in split(inner)) if inner.strip() else ())
    if found := scope.find(text):
        return found
    if not NAME.fullmatch(text):
        raise Mistake("an operand of a call", text, "(results), a function or (arguments)")
    return Symbol(text, "func")


def literal(text: str) -> Immediate:
    """An integer, or a float spelt by its bits (``0f3F800000``) or in decimals (64 bits).

    Raises:
        Mistake: it is none of these, or does not fit.
    """
    if match := _HEX_FLOAT.fullmatch(text):
        bits = F32 if match[1] in "fF" else F64
        if len(match[2]) != bits // 4:
            raise Mistake(f"an f{bits} literal", text, f"{bits // 4} hexadecimal digits")
        return Immediate(int(match[2], 16), is_float=True, bits=bits)
    if _DECIMAL.fullmatch(text):
        value = int.from_bytes(struct.pack("<d", float(text)), "little")
        return Immediate(value, is_float=True, bits=F64)
    return integer(text)


def integer(text: str) -> Immediate:
    """A signed or unsigned 64-bit integer: decimal, ``0x``, ``0b``, or octal with a leading 0.

    Raises:
        Mistake: it is none, or needs more than 64 bits.
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise Mistake("a literal", text, "an integer, 0f and 8 digits, or 0d and 16 digits")
    sign, hexadecimal, binary, octal, decimal = match.groups()
    digits, base = next(
        (digits, base)
        for digits, base in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10))
        if digits
    )
    # Even in binary 64 digits suffice; Python refuses to convert thousands of them.
    value = int(digits, base) if len(digits.lstrip("0")) <= _MAX_DIGITS else _TOO_LARGE
    if value >= _TOO_LARGE or (sign == "-" and value > _TOO_LARGE >> 1):
        raise Mistake("an integer", text, "one of 64 bits, -2**63 to 2**64 - 1")
    return Immediate(-value if sign == "-" else value)


def converted(value: Operand, opcode: str) -> Operand:
    """A 64-bit float literal as ``opcode`` takes it: rounded to f32 unless its type has 64 bits.

    Raises:
        Mistake: it overflows an f32.
    """
    if isinstance(value, Vector):
        return Vector(tuple(converted(item, opcode) for item in value.items))
    if not isinstance(value, Immediate) or not value.is_float or value.bits == F32:
        return value
    # createpolicy names the type of its result; the fraction it takes is an f32.
    if opcode.endswith("64") and not opcode.startswith("createpolicy"):
        return value
    return Immediate(rounded(value.value), is_float=True, bits=F32)


def rounded(bits: int) -> int:
    """The bits of the f32 nearest to the f64 of these bits (PTX ISA 9.1, 4.5.2).

    Raises:
        Mistake: it overflows.
    """
    (number,) = struct.unpack("<d", struct.pack("<Q", bits))
    try:
        return int.from_bytes(struct.pack("<f", number), "little")
    except OverflowError:
        raise Mistake("an f32 literal", repr(number), "a number below 2**128") from None


_FORMS: dict[str, Callable[[str, Scope], Operand]] = {
    "{": _vector,
    "[": _address,
    "!": _negated,
    **dict.fromkeys("+-.0123456789", _literal),
}
"""What the first character of an operand says of its form; all others start a name."""
