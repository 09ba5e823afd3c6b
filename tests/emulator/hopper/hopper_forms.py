"""The vector files of tests/vectors on a GPU: every form that sm_90a has, every case."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hopper_driver import Buffers, DriverError, Gpu, Module
from hopper_kernel import TARGET, VERSION
from hopper_mufu import SIZES, decoded

from fa4gen.numerics.approx import BOUNDS

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
SUFFIX = ".jsonl.gz"
BITS = {"pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64}
PLACES = ("move/cvta", "move/isspacep")
"""Files about the windows of generic addresses, which lie elsewhere on a GPU."""
_MOST = 25
"""Differences of one file that are kept."""
SLOT = 8
"""Bytes of each source and result."""
BLOCK = 32
_ATTEMPTS = 40


@dataclass(frozen=True)
class Form:
    """One line of a vector file."""

    text: str
    results: tuple[str, ...]
    sources: tuple[str, ...]
    cases: tuple[str, ...] = field(repr=False)
    max_ulp: int = 0

    @property
    def runs(self) -> bool:
        """Whether its registers are of types that this module moves."""
        return all(kind in BITS for kind in (*self.results, *self.sources))

    def inputs(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        """``(cases, sources)``, cases filled up to whole warps."""
        rows = [[int(word, 16) for word in case.split(":")[0].split()] for case in self.cases]
        rows += [rows[-1]] * (-len(rows) % BLOCK)
        return np.array(rows, np.uint64).reshape(len(rows), len(self.sources))

    def entry(self, name: str) -> str:
        """A kernel that reads sources and stores results, a thread a case."""
        lines = [f".visible .entry {name}(.param .u64 data, .param .u64 out)", "{"]
        lines.append(".reg .b64 %at, %to; .reg .b32 %n, %m; .reg .b16 %bit;")
        lines += [f".reg .{kind} %s{i};" for i, kind in enumerate(self.sources)]
        lines += [f".reg .{kind} %d{i};" for i, kind in enumerate(self.results)]
        lines.append("mov.u32 %n, %ctaid.x; mov.u32 %m, %ntid.x; mul.lo.u32 %n, %n, %m;")
        lines.append("mov.u32 %m, %tid.x; add.u32 %n, %n, %m; ld.param.u64 %at, [data];")
        lines.append(
            f"ld.param.u64 %to, [out]; mad.wide.u32 %at, %n, {SLOT * len(self.sources)}, %at;"
        )
        lines.append(f"mad.wide.u32 %to, %n, {SLOT * len(self.results)}, %to;")
        for i, kind in enumerate(self.sources):
            if kind == "pred":
                lines.append(f"ld.global.u8 %bit, [%at+{SLOT * i}]; setp.ne.u16 %s{i}, %bit, 0;")
            else:
                lines.append(f"ld.global.{kind} %s{i}, [%at+{SLOT * i}];")
        lines += self.text.split("\n")
        for i, kind in enumerate(self.results):
            if kind == "pred":
                lines.append(f"selp.b16 %bit, 1, 0, %d{i}; st.global.u8 [%to+{SLOT * i}], %bit;")
            else:
                lines.append(f"st.global.{kind} [%to+{SLOT * i}], %d{i};")
        return "\n".join([*lines, "ret;", "}"])

    def differences(self, got: np.ndarray[Any, np.dtype[np.uint64]]) -> list[list[str]]:
        """Cases whose results are others, and beyond the bound of an approximate instruction:
        sources, and what was got."""
        found = []
        for case, row in zip(self.cases, got.tolist(), strict=False):
            left, right = case.split(":")
            pairs = zip(right.split(), row, self.results, strict=True)
            if not all(self._agrees(wanted, value, BITS[kind]) for wanted, value, kind in pairs):
                words = " ".join(
                    f"{value:0{-(-BITS[kind] // 4)}x}"
                    for value, kind in zip(row, self.results, strict=True)
                )
                if not in_bounds(self.text, right, words):
                    found.append([left, words])
        return found

    def _agrees(self, wanted: str, got: int, bits: int) -> bool:
        if wanted == "nan":
            mantissa, exponent = {64: (52, 0x7FF), 32: (23, 0xFF)}[bits]
            return got >> mantissa & exponent == exponent and got & ((1 << mantissa) - 1) != 0
        value = int(wanted, 16)
        if got == value or not self.max_ulp:
            return got == value
        half = 16 if "x2" in self.text.partition(" ")[0] else bits
        parts = zip(_split(got, bits, half), _split(value, bits, half), strict=True)
        return all(abs(x - y) <= self.max_ulp for x, y in parts)


def in_bounds(text: str, wanted: str, got: str) -> bool:
    """Whether a result of an approximate instruction is as close to a file's as its bound says."""
    opcode = text.partition(" ")[0].split(".")
    if not {"approx", "full"} & set(opcode):
        return False
    kind = opcode[-1]
    half, bits = {"f32": ("", 32), "f64": ("f64", 32)}.get(kind, (kind.removesuffix("x2"), 16))
    codes = [
        np.array(_split(int(word, 16) >> (32 if kind == "f64" else 0), 32, bits), f"uint{bits}")
        for word in (wanted, got)
    ]
    model, measured = (decoded(each, half) for each in codes)
    sort = {"": "", "f64": ".f64"}.get(half, ".half")
    mantissa = SIZES[half][0]
    return bool(BOUNDS[opcode[0] + sort].holds(model, measured, mantissa).all())


def _split(value: int, bits: int, size: int) -> list[int]:
    return [value >> at & (1 << size) - 1 for at in range(0, bits, size)]


def files() -> list[str]:
    """The vector files, as ``family/mnemonic``."""
    found = [
        f"{path.parent.name}/{path.name.removesuffix(SUFFIX)}"
        for path in sorted(VECTORS.glob(f"*/*{SUFFIX}"))
    ]
    return [name for name in found if name not in PLACES]


def read(name: str) -> list[Form]:
    """The forms of a file."""
    packed = (VECTORS / f"{name}{SUFFIX}").read_bytes()
    return [
        Form(
            data["text"].replace("; ", ";\n"),
            tuple(data["results"].split()),
            tuple(data["sources"].split()),
            tuple(data["cases"].split(", ")),
            data.get("max_ulp", 0),
        )
        for data in map(json.loads, gzip.decompress(packed).decode().splitlines())
    ]


def run(gpu: Gpu, name: str) -> dict[str, Any]:
    """All forms of a file on a GPU: how many, what the assembler refuses, what differs."""
    forms = [form for form in read(name) if form.runs]
    refused: list[str] = []
    for _ in range(_ATTEMPTS):
        text, lines = module(forms)
        try:
            with Module(gpu, text) as made:
                differ = [
                    [form.text, *each]
                    for number, form in enumerate(forms)
                    for each in _launch(gpu, made, number, form)
                ]
            break
        except DriverError as error:
            bad = {lines[int(n)] for n in re.findall(r"line (\d+)", error.log) if int(n) in lines}
            if not bad:
                raise
            refused += [forms[number].text for number in sorted(bad)]
            forms = [form for number, form in enumerate(forms) if number not in bad]
    return {
        "forms": len(forms),
        "cases": sum(len(form.cases) for form in forms),
        "refused": refused,
        "differ": differ[:_MOST],
        "different": len(differ),
    }


def module(forms: list[Form]) -> tuple[str, dict[int, int]]:
    """PTX with an entry for each form, and which form each line belongs to."""
    lines = [f".version {VERSION}", f".target {TARGET}", ".address_size 64"]
    owner = {}
    for number, form in enumerate(forms):
        for line in form.entry(f"k{number}").split("\n"):
            lines.append(line)
            owner[len(lines)] = number
    return "\n".join(lines) + "\n", owner


def _launch(gpu: Gpu, made: Module, number: int, form: Form) -> Iterator[list[str]]:
    given = form.inputs()
    results = np.zeros((len(given), len(form.results)), np.uint64)
    with Buffers(gpu, {"data": given, "out": results}) as buffers:
        params = [buffers.address(each).to_bytes(8, "little") for each in ("data", "out")]
        gpu.launch(made.function(f"k{number}"), (len(given) // BLOCK, 1, 1), BLOCK, params)
        yield from form.differences(buffers.read("out"))
