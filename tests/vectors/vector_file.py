"""Files of vectors: what instructions must give, bit for bit.

``<family>/<mnemonic>.jsonl.gz`` has a line for every opcode and form of operands: some lines of PTX
on registers ``%s0``, ``%s1``... (sources) and ``%d0``... (results), the types of these, and cases:
the bits of the sources and, behind a colon, of the results, in hexadecimal. ``nan`` is any NaN.
``zcat`` shows a file.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SUFFIX = ".jsonl.gz"
CASES = 24

Draw = Callable[[random.Random], int]
Compute = Callable[..., "Sequence[int | str]"]

BITS = {"pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64, "b128": 128}


@dataclass(frozen=True)
class Vector:
    """One form of an instruction, with its cases.

    Attributes:
        text: The opcode stands in one of the lines.
        results, sources: Types of the registers.
        cases: ``"source source:result"``.
        max_ulp: How far from the expected bits a float may be: 1 where the exact result may be so
            close to the middle of two floats that a math library rounds it wrongly, else 0.
    """

    opcode: str
    text: tuple[str, ...]
    results: tuple[str, ...]
    sources: tuple[str, ...]
    cases: tuple[str, ...] = field(repr=False)
    max_ulp: int = 0

    @property
    def line(self) -> str:
        """The vector as a line of its file."""
        fields: dict[str, object] = {
            "opcode": self.opcode,
            "text": " ".join(self.text),
            "results": " ".join(self.results),
            "sources": " ".join(self.sources),
        }
        if self.max_ulp:
            fields["max_ulp"] = self.max_ulp
        return json.dumps({**fields, "cases": ", ".join(self.cases)})


@dataclass(frozen=True)
class VectorFile:
    """The vectors of one opcode."""

    family: str
    opcode: str
    vectors: tuple[Vector, ...]


def paths() -> list[Path]:
    """The files on disk."""
    return sorted(HERE.glob(f"*/*{SUFFIX}"))


def name_of(path: Path) -> str:
    """``family-mnemonic``."""
    return f"{path.parent.name}-{path.name.removesuffix(SUFFIX)}"


def texts(files: Iterable[VectorFile]) -> dict[Path, str]:
    """The text of every file, by its path.

    Raises:
        ValueError: an opcode was made twice.
    """
    found: dict[Path, list[str]] = {}
    opcodes: set[str] = set()
    for file in files:
        if file.opcode in opcodes:
            raise ValueError(f"{file.opcode}: made twice")
        opcodes.add(file.opcode)
        path = HERE / file.family / f"{file.opcode.partition('.')[0]}{SUFFIX}"
        found.setdefault(path, []).extend(vector.line for vector in file.vectors)
    return {path: "\n".join(lines) + "\n" for path, lines in found.items()}


def write(path: Path, text: str) -> None:
    """Write a file; the same text gives the same bytes, and a file that has it is left alone."""
    if not path.exists() or read_text(path) != text:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_text(path: Path) -> str:
    """The lines of a file."""
    return gzip.decompress(path.read_bytes()).decode()


def read(path: Path) -> list[Vector]:
    """The vectors of a file."""
    return [
        Vector(
            data["opcode"],
            tuple(f"{line};" for line in data["text"].rstrip(";").split("; ")),
            tuple(data["results"].split()),
            tuple(data["sources"].split()),
            tuple(data["cases"].split(", ")),
            data.get("max_ulp", 0),
        )
        for data in map(json.loads, read_text(path).splitlines())
    ]


@dataclass(frozen=True)
class Form:
    """How to make a vector: its PTX, and the function that its results are."""

    text: str | tuple[str, ...]
    results: str
    sources: str
    draws: Sequence[Draw]
    compute: Compute
    special: tuple[tuple[int, ...], ...] = ()
    """Sources that have to be among the cases."""
    max_ulp: int = 0
    count: int = CASES


def make(family: str, opcode: str, *forms: Form) -> VectorFile:
    """The file of an opcode, its cases drawn by a generator that the opcode seeds."""
    return VectorFile(family, opcode, tuple(_vector(opcode, form) for form in forms))


def _vector(opcode: str, form: Form) -> Vector:
    dice = random.Random(f"{opcode} {form.text}")
    given = list(form.special)
    given += [tuple(draw(dice) for draw in form.draws) for _ in range(form.count - len(given))]
    sources, results = tuple(form.sources.split()), tuple(form.results.split())
    cases = []
    for values in dict.fromkeys(given):
        found = form.compute(*values)
        left = " ".join(_hex(v, s) for v, s in zip(values, sources, strict=True))
        right = " ".join(
            r if isinstance(r, str) else _hex(r, s) for r, s in zip(found, results, strict=True)
        )
        cases.append(f"{left}:{right}")
    text = (form.text,) if isinstance(form.text, str) else form.text
    return Vector(opcode, text, results, sources, tuple(cases), form.max_ulp)


def _hex(value: int, kind: str) -> str:
    bits = BITS[kind]
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{value:#x} does not fit in {bits} bits")
    return f"{value:0{-(-bits // 4)}x}"
