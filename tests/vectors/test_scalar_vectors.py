"""Every scalar instruction, through parser and decoder, against its vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_scalar
import numpy as np
import pytest
from single import Single, integers, lanes, module
from vector_file import BITS, Vector, name_of, paths, read, read_text, texts

from fa4gen.emulator.decode import decode
from fa4gen.emulator.elementwise import RAW
from fa4gen.emulator.pending import InFlight

FILES = paths()
WARP = 32
FLOAT_BITS = {16: ("f16", "bf16"), 32: ("f32",), 64: ("f64",)}


def registers(vector: Vector) -> dict[str, str]:
    sources = {f"%s{at}": kind for at, kind in enumerate(vector.sources)}
    return sources | {f"%d{at}": kind for at, kind in enumerate(vector.results)}


def kernels(path: Path) -> Iterator[tuple[Vector, Single]]:
    vectors = read(path)
    made = module((" ".join(v.text), registers(v)) for v in vectors)
    for at, vector in enumerate(vectors):
        yield vector, Single(decode(made, f"k{at}"))


def batches(vector: Vector) -> Iterator[tuple[list[list[int]], list[list[int | str]], int]]:
    """Sources and results by register, 32 cases each, the last one repeated to fill."""
    for first in range(0, len(vector.cases), WARP):
        cases = list(vector.cases[first : first + WARP])
        used = len(cases)
        cases += [cases[-1]] * (WARP - used)
        halves = [case.split(":") for case in cases]
        sources = [[int(word, 16) for word in left.split()] for left, _ in halves]
        results = [
            [word if word == "nan" else int(word, 16) for word in right.split()]
            for _, right in halves
        ]
        yield (
            list(map(list, zip(*sources, strict=True))),
            list(map(list, zip(*results, strict=True))),
            used,
        )


def fill(kernel: Single, vector: Vector, sources: list[list[int]]) -> None:
    for at, (kind, values) in enumerate(zip(vector.sources, sources, strict=True)):
        kernel[f"%s{at}"] = lanes(values, kind)


def agrees(got: int, wanted: int | str, bits: int, max_ulp: int) -> bool:
    if wanted == "nan":
        form = {64: (52, 0x7FF), 32: (23, 0xFF)}[bits]
        return got >> form[0] & form[1] == form[1] and got & ((1 << form[0]) - 1) != 0
    assert isinstance(wanted, int)
    return got == wanted or (max_ulp > 0 and _close(got, wanted, bits, max_ulp))


def _close(got: int, wanted: int, bits: int, max_ulp: int) -> bool:
    """Zero, infinity and NaN have to be met."""
    top = (1 << bits) - 1
    exponents = {16: (0x7C00, 0x7F80), 32: (0x7F800000,), 64: (0x7FF << 52,)}[bits]
    special = any(wanted & e == e for e in exponents) or wanted & (top >> 1) == 0
    return not special and abs(got - wanted) <= max_ulp


def elements(vector: Vector, value: int | str, bits: int) -> list[int | str]:
    """A packed result is compared element by element."""
    if not vector.max_ulp or not vector.opcode.endswith("x2") or not isinstance(value, int):
        return [value]
    half = bits // 2
    return [value & (1 << half) - 1, value >> half]


def mistakes(vector: Vector, kernel: Single, wanted: list[list[int | str]], used: int) -> list[str]:
    found = []
    for at, (kind, expected) in enumerate(zip(vector.results, wanted, strict=True)):
        value = kernel[f"%d{at}"]
        assert value.dtype == (np.uint64 if kind == "b128" else RAW[BITS[kind]]), vector.text
        assert value.flags.c_contiguous, vector.text
        assert len(value) == WARP, vector.text
        for lane, (got, want) in enumerate(zip(integers(value)[:used], expected, strict=False)):
            parts = zip(
                elements(vector, got, BITS[kind]), elements(vector, want, BITS[kind]), strict=True
            )
            bits = BITS[kind] // len(elements(vector, got, BITS[kind]))
            if not all(agrees(int(g), w, bits, vector.max_ulp) for g, w in parts):
                shown = want if isinstance(want, str) else f"{want:#x}"
                found.append(f"{' '.join(vector.text)} case {lane}: got {got:#x}, wanted {shown}")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_vectors(path: Path) -> None:
    wrong = []
    for vector, kernel in kernels(path):
        for sources, wanted, used in batches(vector):
            fill(kernel, vector, sources)
            kernel.run()
            bad = mistakes(vector, kernel, wanted, used)
            wrong += [
                f"{m}; sources {[hex(s[int(m.split('case ')[1].split(':')[0])]) for s in sources]}"
                for m in bad
            ]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_inactive_lanes_keep_their_values(path: Path) -> None:
    mask = np.arange(WARP) % 3 == 1
    for vector, kernel in kernels(path):
        sources, _, _ = next(batches(vector))
        fill(kernel, vector, sources)
        kernel.run()
        whole = [kernel[f"%d{at}"] for at in range(len(vector.results))]
        fresh = {
            f"%d{at}": lanes([5 % (1 << BITS[k])] * WARP, k) for at, k in enumerate(vector.results)
        }
        for name, value in fresh.items():
            kernel[name] = value
        kernel.warp.mask = mask
        kernel.run()
        for at, full in enumerate(whole):
            got, before = kernel[f"%d{at}"], fresh[f"%d{at}"]
            assert got.dtype == full.dtype
            assert np.array_equal(got[mask], full[mask]), vector.text
            assert np.array_equal(got[~mask], before[~mask]), vector.text


class Late:
    """What will write a register: it brings the value when it is asked to."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def deliver(self, _: Any, __: InFlight) -> Any:
        return self.value


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_values_that_are_still_to_come_are_waited_for(path: Path) -> None:
    """Whichever source is not there, the instruction notices, and gives the same in the end."""
    for vector, kernel in kernels(path):
        sources, wanted, used = next(batches(vector))
        for at, kind in enumerate(vector.sources):
            fill(kernel, vector, sources)
            name = f"%s{at}"
            kernel[name] = InFlight(Late(lanes(sources[at], kind)), 0)
            kernel.warp.pc, kernel.warp.done = 0, False
            kernel.warp.alive = np.ones(WARP, bool)
            kernel.warp.state.clear()
            with np.errstate(all="ignore"):
                kernel.warp.run(100)
            given = [kernel[f"%d{at}"] for at in range(len(vector.results))]
            if vector.opcode.startswith("mov.") and any(isinstance(g, InFlight) for g in given):
                continue  # a move hands the promise on
            assert mistakes(vector, kernel, wanted, used) == []


def test_the_files_are_what_the_script_writes() -> None:
    made = texts(make_scalar.files())
    assert sorted(made) == FILES
    changed = [path.name for path, text in made.items() if read_text(path) != text]
    assert changed == [], "run tests/vectors/make_scalar.py"
