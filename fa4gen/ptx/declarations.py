"""Directives that declare: registers, variables, parameters, and the head of an entry.

Source: PTX ISA 9.1, sections 5.1 to 5.4 (state spaces, types, variables, arrays, initialisers),
11.1 (kernel and function directives), 11.4 (performance-tuning directives).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from fa4gen.ptx.ir import Immediate, Variable
from fa4gen.ptx.lexer import Mistake
from fa4gen.ptx.operands import F32, F64, integer, literal, rounded
from fa4gen.ptx.scopes import MAX_DIGITS, Scope

BITS = {
    "pred": 1,
    **{f"{kind}{bits}": bits for kind in "bsu" for bits in (8, 16, 32, 64)},
    **{"b128": 128, "f16": 16, "f16x2": 32, "bf16": 16, "bf16x2": 32, "tf32": 32},
    **{"f32": 32, "f64": 64},
}
"""Bits of each type that a register or variable may have."""

SPACES = ("param", "shared", "local", "global", "const")
_LINKAGE = ("extern", "visible", "weak", "common")
_LENGTHS = {"v2": 2, "v4": 4}
_FLOATS = {"f32": F32, "f64": F64}

_MODIFIER = re.compile(r"\s*\.(\w+)(?:\s*\([^()]*\)|\s+(\d+)\b)?", re.ASCII)
_DECLARATOR = re.compile(
    r"\s*([A-Za-z_$%][\w$]*)\s*(?:<\s*(\d+)\s*>)?\s*((?:\[\s*\w*\s*\]\s*)*)(?:=(.*))?",
    re.ASCII | re.DOTALL,
)
_DIMENSION = re.compile(r"\[\s*(\w*)\s*\]", re.ASCII)
_HEAD = re.compile(
    r"\s*([A-Za-z_$%][\w$]*)\s*(?:\(([^()]*)\))?\s*(.*)",
    re.ASCII | re.DOTALL,
)
_DIRECTIVE = re.compile(r"\.(\w+)\s*(\d+(?:\s*,\s*\d+)*)?\s*", re.ASCII)
_PRAGMA = re.compile(r'\.pragma\s*("[^"]*"\s*,?\s*)+;?\s*')

DIRECTIVES = (
    *("reqntid", "maxntid", "minnctapersm", "maxnctapersm", "maxnreg", "noreturn"),
    *("reqnctapercluster", "maxclusterrank", "explicitcluster", "blocksareclusters"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the body of an entry."""

    name: str
    params: tuple[Variable, ...]
    directives: dict[str, tuple[int, ...]]


class Kind(NamedTuple):
    """The modifiers of a declaration, ``.shared .align 16 .b8`` and the like."""

    space: str
    type: str
    align: int | None
    vector: int
    """Elements of a vector type, else 1."""
    is_extern: bool


def declaration_kind(text: str) -> tuple[Kind, str]:
    """The modifiers that start a declaration, and what follows them.

    Raises:
        Mistake: no state space, no type or an unknown word among them.
    """
    words: list[str] = []
    align, at, pointee = None, 0, False
    while match := _MODIFIER.match(text, at):
        word = match[1]
        pointee |= word == "ptr"  # what follows tells of the memory pointed to
        if word == "align" and not pointee:
            align = integer(match[2] or "").value
        if word not in {"align", "attribute", "ptr"}:
            words.append(word)
        at = match.end()
    spaces = [word for word in words if word in ("reg", *SPACES)]
    types = [word for word in words if word in BITS]
    vectors = [_LENGTHS[word] for word in words if word in _LENGTHS]
    known = {*_LINKAGE, "reg", *SPACES, *BITS, *_LENGTHS}
    if unknown := next((word for word in words if word not in known), None):
        raise Mistake("a declaration", f".{unknown}", f"a state space or one of {', '.join(BITS)}")
    if not spaces or not types:
        raise Mistake("a declaration", text, "a state space and a type")
    if align is not None and (align < 1 or align & (align - 1)):
        raise Mistake(".align", str(align), "a power of two")
    vector = vectors[0] if vectors else 1
    return Kind(spaces[0], types[0], align, vector, "extern" in words), text[at:]


def declare_registers(kind: Kind, rest: str, scope: Scope) -> None:
    """``.reg .b32 %r<9>, x, y``.

    Raises:
        Mistake: bad syntax, or a name that the scope has.
    """
    width = "pred" if kind.type == "pred" else f"b{BITS[kind.type]}"
    for text in rest.split(","):
        match = _DECLARATOR.fullmatch(text)
        if match is None or match[3] or match[4] is not None or len(match[2] or "") > MAX_DIGITS:
            raise Mistake("a declaration of registers", text, "name or name<count>")
        if match[2] is None:
            scope.add_register(match[1], width, kind.vector)
        else:
            scope.add_registers(match[1], int(match[2]), width)


def variables(kind: Kind, rest: str) -> list[Variable]:
    """``.shared .align 16 .b8 a[1024], b[16]``.

    Raises:
        Mistake: bad syntax, or an initialiser that is not made of numbers.
    """
    return [_variable(kind, text) for text in _declarators(rest)]


def _declarators(text: str) -> list[str]:
    """``text`` at the commas outside braces."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _variable(kind: Kind, text: str) -> Variable:
    match = _DECLARATOR.fullmatch(text)
    if match is None or match[2] or kind.type == "pred":
        raise Mistake("a declaration of a variable", text, "name, name[count] or name[count] = ...")
    name, brackets, initial = match[1], match[3], match[4]
    element = BITS[kind.type] // 8 * kind.vector
    dimensions = _DIMENSION.findall(brackets)
    values = b"" if initial is None else _initial(kind, initial)
    count = 1
    for position, dimension in enumerate(dimensions):
        if dimension:
            count *= integer(dimension).value
        elif position or (initial is None and not kind.is_extern):
            raise Mistake("an array without a length", text.strip(), "a length, or an initialiser")
        else:
            count *= -(-len(values) // element)
    size = element * count
    if len(values) > size:
        raise Mistake("an initialiser", text.strip(), f"at most the {size} bytes of the variable")
    return Variable(
        name=name,
        space=kind.space,
        align=kind.align or element,
        size=size,
        is_extern=kind.is_extern,
        initial=values.ljust(size, b"\0") if values else b"",
    )


def _initial(kind: Kind, text: str) -> bytes:
    """The bytes of ``5`` or ``{1, 2, 3}``."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    return b"".join(_number(kind.type, value.strip()) for value in inner.split(","))


def _number(type_name: str, text: str) -> bytes:
    bits = BITS[type_name]
    if not text or text[0] not in "+-.0123456789":
        raise Mistake(
            "an initialiser", text, "a number (addresses and nested braces are not known)"
        )
    value = literal(text)
    if value.is_float:
        return _float(type_name, text, value)
    if type_name in _FLOATS or not -(1 << (bits - 1)) <= value.value < 1 << bits:
        raise Mistake(f"an initialiser of type .{type_name}", text, f"a value of {bits} bits")
    return (value.value % (1 << bits)).to_bytes(bits // 8, "little")


def _float(type_name: str, text: str, value: Immediate) -> bytes:
    bits = _FLOATS.get(type_name)
    if bits is None or bits > value.bits:
        raise Mistake(
            f"an initialiser of type .{type_name}", text, f"a literal of type .{type_name}"
        )
    pattern = rounded(value.value) if bits < value.bits else value.value
    return pattern.to_bytes(bits // 8, "little")


def head(text: str) -> Head:
    """``NAME(.param ..., ...) .reqntid 384, 1, 1``, what follows ``.entry``.

    Raises:
        Mistake: bad syntax, or an unknown directive.
    """
    match = _HEAD.fullmatch(text)
    if match is None:
        raise Mistake("the head of an entry", text, "NAME(parameters) and directives")
    params: list[Variable] = []
    for part in (match[2] or "").split(","):
        if part.strip() or params:
            kind, rest = declaration_kind(part)
            if kind.space != "param":
                raise Mistake("a parameter", part.strip(), "the state space .param")
            params += variables(kind, rest)
    names = [param.name for param in params]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Mistake("a parameter declared twice", twice, "a name for each")
    return Head(match[1], tuple(params), _directives(match[3]))


def _directives(text: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    at = 0
    while at < len(text):
        if pragma := _PRAGMA.match(text, at):
            at = pragma.end()
            continue
        match = _DIRECTIVE.match(text, at)
        if match is None or match[1] not in DIRECTIVES:
            raise Mistake("a directive of an entry", text[at:], "." + ", .".join(DIRECTIVES))
        found[match[1]] = (
            tuple(integer(n.strip()).value for n in match[2].split(",")) if match[2] else ()
        )
        at = match.end()
    return found
