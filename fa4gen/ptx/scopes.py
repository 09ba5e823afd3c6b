"""What names mean: registers, variables and labels, per ``{ }``.

A register gets its slot when it is first used, so that slots number what a kernel uses in the order
of its text, and ``.reg .b32 %r<5000>`` costs nothing.

Source: PTX ISA 9.1, sections 4.5 (predefined names), 5.4 (variables), 10 (special registers).
"""

from __future__ import annotations

from fa4gen.ptx.ir import Immediate, Operand, Register, Sink, Symbol, Vector
from fa4gen.ptx.lexer import Mistake

_AXES = ("x", "y", "z", "w")
_VECTOR_SPECIALS = (
    *("tid", "ntid", "ctaid", "nctaid"),
    *("clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid"),
)
_SCALAR_SPECIALS = (
    *("laneid", "warpid", "nwarpid", "smid", "nsmid", "gridid"),
    *("is_explicit_cluster", "cluster_ctarank", "cluster_nctarank"),
    *("lanemask_eq", "lanemask_le", "lanemask_lt", "lanemask_ge", "lanemask_gt"),
    *("clock", "clock_hi", "clock64", "globaltimer", "globaltimer_lo", "globaltimer_hi"),
    *("total_smem_size", "aggr_smem_size", "dynamic_smem_size", "current_graph_exec"),
    *("reserved_smem_offset_begin", "reserved_smem_offset_end", "reserved_smem_offset_cap"),
    *(f"reserved_smem_offset_{n}" for n in range(2)),
    *(f"pm{n}" for n in range(8)),
    *(f"pm{n}_64" for n in range(8)),
    *(f"envreg{n}" for n in range(32)),
)
SPECIALS = frozenset(
    [f"%{name}" for name in _SCALAR_SPECIALS]
    + [f"%{name}.{axis}" for name in _VECTOR_SPECIALS for axis in _AXES]
)
"""Special registers, as they are written."""

PREDEFINED: dict[str, Operand] = {"_": Sink(), "WARP_SZ": Immediate(32)}
"""What PTX names itself, special registers apart."""

_ELEMENTS = {"x": "x", "y": "y", "z": "z", "w": "w", "r": "x", "g": "y", "b": "z", "a": "w"}
"""The two spellings of the elements of a vector register."""

MAX_DIGITS = 9
"""Of the number in the name of a register."""

_DIGITS = "0123456789"


class Scope:
    """The names that one ``{ }`` declares, the module being the outermost."""

    def __init__(self, parent: Scope | None, registers: list[Register]) -> None:
        self.parent = parent
        self.cache: dict[str, Operand] = {}
        """Operands by their text, for whoever parses them; cleared by every declaration."""
        self.labels: dict[str, int] = {}
        """Index of the instruction behind each label."""
        self.tables: dict[str, tuple[str, ...]] = {}
        """Labels that each ``.branchtargets`` lists."""
        self._all = registers
        self._known: dict[str, Register | Symbol | Vector] = {}
        self._types: dict[str, str] = {}
        self._numbered: dict[str, tuple[int, str]] = {}
        self._vectors: dict[str, int] = {}

    def add_register(self, name: str, kind: str, length: int = 1) -> None:
        """``.reg .kind name``, or ``.reg .v4 .kind name`` with ``length`` 4.

        Raises:
            Mistake: this scope has that name already.
        """
        self._claim(name)
        if length == 1:
            self._types[name] = kind
            return
        self._vectors[name] = length
        self._types |= {f"{name}.{axis}": kind for axis in _AXES[:length]}

    def add_registers(self, prefix: str, count: int, kind: str) -> None:
        """``.reg .kind prefix<count>``: ``prefix0`` and so on.

        Raises:
            Mistake: this scope has one of those names already.
        """
        taken = [*self._types, *self._vectors, *self._known]
        if prefix in self._numbered or any(_is_one_of(name, prefix, count) for name in taken):
            raise Mistake(
                "a register declared twice", f"{prefix}<{count}>", "names new in this scope"
            )
        self.cache.clear()
        self._numbered[prefix] = (count, kind)

    def add_variable(self, name: str, symbol: Symbol) -> None:
        """Let ``name`` mean a variable.

        Raises:
            Mistake: this scope has that name already.
        """
        self._claim(name)
        self._known[name] = symbol

    def find(self, name: str) -> Register | Symbol | Vector | None:
        """What ``name`` means here: the innermost declaration, or None."""
        scope: Scope | None = self
        while scope is not None:
            if found := scope._own(name):
                return found
            scope = scope.parent
        return None

    def has_variable(self, name: str) -> bool:
        """Whether a variable of that name is declared here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if isinstance(scope._known.get(name), Symbol):
                return True
            scope = scope.parent
        return False

    def label(self, name: str) -> int | None:
        """Index of the instruction behind label ``name``, or None."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.labels:
                return scope.labels[name]
            scope = scope.parent
        return None

    def table(self, name: str) -> tuple[str, ...] | None:
        """The labels of the ``.branchtargets`` called ``name``, or None."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.tables:
                return scope.tables[name]
            scope = scope.parent
        return None

    def _claim(self, name: str) -> None:
        if (
            name in self._types
            or name in self._vectors
            or name in self._known
            or self._number(name)
        ):
            raise Mistake("a name declared twice", name, "a name new in this scope")
        self.cache.clear()

    def _own(self, name: str) -> Register | Symbol | Vector | None:
        if found := self._known.get(name):
            return found
        kind = self._types.get(name) or self._number(name)
        if kind is not None:
            register = Register(name, len(self._all), kind)
            self._all.append(register)
            self._known[name] = register
            return register
        stem, dot, element = name.partition(".")
        if stem in self._vectors:
            return self._element(stem, element if dot else None)
        return None

    def _element(self, stem: str, element: str | None) -> Register | Vector | None:
        """``stem.x`` of a vector register, or all of it."""
        if element is None:
            axes = _AXES[: self._vectors[stem]]
            parts = [self._own(f"{stem}.{axis}") for axis in axes]
            return Vector(tuple(part for part in parts if isinstance(part, Register)))
        canonical = _ELEMENTS.get(element)
        if canonical is None or canonical == element:
            return None
        found = self._own(f"{stem}.{canonical}")
        return found if isinstance(found, Register) else None

    def _number(self, name: str) -> str | None:
        """The type of ``name`` if a ``prefix<count>`` declares it.

        Prefixes may end with digits themselves, so every way to split the name is tried.
        """
        stem = name.rstrip(_DIGITS)
        if len(stem) == len(name):
            return None
        for cut in range(len(stem), len(name)):
            declared = self._numbered.get(name[:cut])
            if declared and _is_one_of(name, name[:cut], declared[0]):
                return declared[1]
        return None


def _is_one_of(name: str, prefix: str, count: int) -> bool:
    """Whether ``prefix<count>`` declares ``name``."""
    number = name.removeprefix(prefix)
    if len(number) == len(name) or not number.isdecimal() or len(number) > MAX_DIGITS:
        return False
    return int(number) < count and (number == "0" or number[0] != "0")
