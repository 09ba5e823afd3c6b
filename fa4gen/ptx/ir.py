"""PTX as frozen values: what the parser makes and everything else reads.

Names are resolved: a register is a slot number, unique over the entry whatever scope declared it,
and a branch target is the index of an instruction. A float literal is its bits, because PTX
registers are untyped and the opcode alone says what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Register:
    """A virtual register."""

    name: str
    """As written; registers of different scopes may share it."""
    slot: int
    """Number of the register in its entry, from 0, in the order of first use."""
    type: str
    """``pred``, ``b8``, ``b16``, ``b32``, ``b64`` or ``b128``: the declared type, by width."""


@dataclass(frozen=True, slots=True)
class Immediate:
    """A literal."""

    value: int
    """An integer as written (may be negative), or the bits of a float."""
    is_float: bool = False
    """Whether ``value`` holds the bits of an f32 (``0f...``) or f64 (``0d...``)."""
    bits: int = 64
    """Width of a float literal: 32 or 64. Integers take the width of their instruction."""


@dataclass(frozen=True, slots=True)
class Special:
    """A special register such as ``%tid.x``."""

    name: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """The address of a parameter or of a variable in memory."""

    name: str
    space: str
    """``param``, ``shared``, ``local``, ``global``, ``const``, or ``func`` of a called function."""


@dataclass(frozen=True, slots=True)
class Label:
    """A branch target."""

    name: str
    target: int
    """Index of the instruction it stands before."""


@dataclass(frozen=True, slots=True)
class Sink:
    """``_``: a result nobody wants."""


@dataclass(frozen=True, slots=True)
class Vector:
    """``{a, b, ...}``; element 0 is the least significant."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """``d|p``: two results of one instruction."""

    first: Register | Sink
    second: Register | Sink


@dataclass(frozen=True, slots=True)
class Negated:
    """``!p``: a predicate operand turned round."""

    register: Register


@dataclass(frozen=True, slots=True)
class Address:
    """``[base + offset]``, or ``[base, {c0, c1, ...}]`` of a tensor copy."""

    base: Register | Symbol | Immediate
    offset: int = 0
    """Bytes."""
    coordinates: tuple[Operand, ...] = ()
    """Of a tensor copy, innermost dimension first."""


Operand: TypeAlias = (
    Register | Immediate | Special | Symbol | Label | Sink | Vector | Pair | Negated | Address
)


@dataclass(frozen=True, slots=True)
class Guard:
    """``@p`` or ``@!p``."""

    register: Register
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """The block of inline assembly an instruction came from."""

    number: int
    """Blocks of an entry counted from 0."""
    first_line: int
    """Line of its ``begin inline asm``, from 1."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One statement."""

    index: int
    """Position in :attr:`Entry.instructions`."""
    opcode: str
    """With every modifier, as written: ``cp.async.bulk.commit_group``."""
    operands: tuple[Operand, ...]
    line: int
    """Line of the PTX text, from 1."""
    guard: Guard | None = None
    origin: Origin | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The opcode at its dots; ``shared::cta`` stays one part."""
        return tuple(self.opcode.split("."))


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in shared, local, constant or global memory, or a parameter."""

    name: str
    space: str
    align: int
    """Bytes."""
    size: int
    """Bytes; 0 for ``.extern .shared x[]``, whose size the launch gives."""
    is_extern: bool = False
    initial: bytes = b""
    """What a ``.global`` or ``.const`` variable starts with; empty if not given."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One kernel."""

    name: str
    params: tuple[Variable, ...]
    instructions: tuple[Instruction, ...]
    registers: tuple[Register, ...]
    """Every register that an instruction names, by slot."""
    variables: tuple[Variable, ...] = ()
    """Declared in the body: ``.local`` depots, ``.shared`` arrays."""
    reqntid: tuple[int, int, int] | None = None
    minnctapersm: int | None = None
    line: int = 1
    directives: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Further directives of the entry with their numbers: ``("maxnreg", (168,))``."""


@dataclass(frozen=True, slots=True)
class Module:
    """One PTX file."""

    version: str
    """As written: ``8.8``."""
    target: str
    """``sm_90a``, ``sm_100a``, ..."""
    entries: tuple[Entry, ...]
    variables: tuple[Variable, ...] = ()
    """Declared outside the entries: dynamic shared memory, constants."""

    def entry(self, name: str) -> Entry:
        """The kernel of that name.

        Raises:
            KeyError: there is none.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)
