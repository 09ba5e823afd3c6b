"""Recordings of whole kernels, small enough to be committed.

A file for each family: of every case, the launch, and of each output a digest, a check of each row
and some elements, or all bits if there are few. ``ptx.json.xz`` has the very text that ran, so what
is emulated does not change with the compiler or a template.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hopper_kernel import Array
from hopper_recording import read, write

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "hopper" / "whole"
_TEXTS = "ptx.json.xz"
_SMALL, _LARGE = 1200, 12_000
"""Bytes, compressed, up to which an output is kept whole, and if it is not what was emulated."""
_SAMPLES = 256
Entry = dict[str, Any]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Difference:
    """How two arrays of the same type differ.

    Attributes:
        elements: That were compared.
        wrong: Of these, that are not the same bits.
        ulps: The largest distance; 2^32 where one is NaN.
        rows: Which differ, where more is known of rows than of elements; else empty.
    """

    elements: int
    wrong: int
    ulps: int
    rows: tuple[int, ...] = ()
    row_count: int = 0

    @property
    def share(self) -> float:
        """Of the elements that were compared."""
        return self.wrong / self.elements

    def __str__(self) -> str:
        text = f"{self.wrong} of {self.elements} elements differ, by at most {self.ulps} ulp"
        if not self.row_count:
            return text
        first = ", ".join(map(str, self.rows[:8]))
        return f"{len(self.rows)} of {self.row_count} rows differ ({first}...); of a sample, {text}"


def keep(value: Array, equal: bool) -> Entry:
    """What is kept of an output.

    Args:
        equal: Whether the emulator gave the same bits.
    """
    raw = np.ascontiguousarray(value)
    found: Entry = {"sha256": _digest(raw)}
    packed = zlib.compress(raw.tobytes(), 9)
    if len(packed) <= (_SMALL if equal else _LARGE):
        found["data"] = base64.b64encode(packed).decode()
        return found
    found["rows"] = base64.b64encode(_row_checks(raw).tobytes()).decode()
    flat = raw.reshape(-1)
    sample = flat[_places(flat.size)].tobytes()
    found["sample"] = base64.b64encode(zlib.compress(sample, 9)).decode()
    return found


def compare(kept: Entry, value: Array) -> Difference | None:
    """How an output differs from what was kept; ``None`` if it does not."""
    raw = np.ascontiguousarray(value)
    if kept["sha256"] == _digest(raw):
        return None
    flat = raw.reshape(-1)
    if "data" in kept:
        return difference(_unpacked(kept["data"], raw), flat)
    found = difference(_unpacked(kept["sample"], raw), flat[_places(flat.size)])
    theirs = np.frombuffer(base64.b64decode(kept["rows"]), np.uint8)
    rows = tuple(np.flatnonzero(theirs != _row_checks(raw)).tolist())
    elements, wrong, ulps = (
        (found.elements, found.wrong, found.ulps) if found else (len(flat), 0, 0)
    )
    return Difference(elements, wrong, ulps, rows, len(theirs))


def difference(wanted: Array, got: Array) -> Difference | None:
    """How two arrays differ; ``None`` if all bits are the same."""
    bits = f"uint{8 * wanted.dtype.itemsize}"
    wrong = int((wanted.view(bits) != got.view(bits)).sum())
    if not wrong:
        return None
    one, other = (_ordered(each.reshape(-1)) for each in (wanted, got))
    ulps = int(np.abs(one - other).max())
    if (np.isnan(wanted.astype(np.float64)) ^ np.isnan(got.astype(np.float64))).any():
        ulps = 1 << 32
    return Difference(wanted.size, wrong, ulps)


def _ordered(value: Array) -> npt.NDArray[np.int64]:
    """Floats as integers in the same order, neighbours one apart."""
    width = 8 * value.dtype.itemsize
    bits = value.view(f"uint{width}").astype(np.int64)
    top = np.int64(1 << (width - 1))
    return np.where(bits >= top, top - bits, bits)


def _row_checks(value: Array) -> npt.NDArray[np.uint8]:
    rows = value.reshape(-1, value.shape[-1])
    return np.array([zlib.crc32(row.tobytes()) & 0xFF for row in rows], np.uint8)


def _places(count: int) -> npt.NDArray[np.int64]:
    """Spread so that every column and every row has its turn."""
    step = max(1, count // _SAMPLES) | 1
    return np.arange(0, count, step)


def _unpacked(data: str, like: Array) -> Array:
    return np.frombuffer(zlib.decompress(base64.b64decode(data)), like.dtype)


def _digest(value: Array) -> str:
    return hashlib.sha256(value.tobytes()).hexdigest()[:24]


def write_all(
    folder: Path, head: Mapping[str, Any], entries: Mapping[str, Entry], texts: Mapping[str, str]
) -> int:
    """Write every family, and the PTX of all.

    Returns:
        Bytes of all files.
    """
    families = {name.partition("-")[0] for name in entries}
    total = 0
    for family in sorted(families):
        mine = {n: e for n, e in entries.items() if n.partition("-")[0] == family}
        total += write(folder, family, head, mine)
    shortened = {name: with_steps(text) for name, text in texts.items()}
    for name, text in texts.items():
        if with_numbers(shortened[name]) != text:
            raise ValueError(f"{name}: got PTX whose registers are not numbered as expected")
    raw = json.dumps(shortened, sort_keys=True).encode()
    packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
    (folder / _TEXTS).write_bytes(packed)
    return total + len(packed)


def read_all(folder: Path = FOLDER) -> tuple[dict[str, Entry], dict[str, str]]:
    """Recordings and PTX by case; empty if there are none."""
    path = folder / _TEXTS
    if not path.exists():
        return {}, {}
    texts: dict[str, str] = json.loads(lzma.decompress(path.read_bytes()))
    return read(folder), {name: with_numbers(text) for name, text in texts.items()}


def with_steps(ptx: str) -> str:
    """PTX with each register's number as the step from the last one of its kind: ``%r+1``.

    Compressed, that is two thirds of what the text is.
    """
    last: dict[str, int] = {}

    def step(found: re.Match[str]) -> str:
        kind, number = found[1], int(found[2])
        before, last[kind] = last.get(kind, 0), number
        return f"%{kind}{number - before:+d}"

    return re.sub(r"%([A-Za-z]+)(\d+)", step, ptx)


def with_numbers(text: str) -> str:
    """The PTX that :func:`with_steps` was given."""
    last: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        kind = found[1]
        last[kind] = last.get(kind, 0) + int(found[2])
        return f"%{kind}{last[kind]}"

    return re.sub(r"%([A-Za-z]+)([+-]\d+)", number, text)
