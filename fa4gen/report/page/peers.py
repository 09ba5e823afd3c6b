"""Peers' times from the CSV files that ``benchmarks/peers.py`` writes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from fa4gen.core.errors import Fa4genError, ReportError
from fa4gen.core.problem import AttentionProblem
from fa4gen.report.page.views import PeerFileView, PeersView, PeerView

OURS = "fa4gen"
"""What the files call our kernel."""
NO_PEERS = frozenset({OURS, "fa4gen-default", "copy"})
"""Rows that stand in a file for comparison: our kernels, and a copy of as many bytes."""
PROBLEM_COLUMNS = tuple(field.name for field in fields(AttentionProblem))
NUMBER_COLUMNS = ("time_us", "tflops", "ratio_to_fa4gen", "ratio_low", "ratio_high")
COLUMNS = (*PROBLEM_COLUMNS, "kernel", *NUMBER_COLUMNS, "gpu", "date")
"""Those that must be there; ``error`` and ``config`` are read where they are."""

MAX_NAMED = 3
"""Problems that a note names."""

Key = tuple[AttentionProblem, str]
"""Problem and the GPU's name as NVML has it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One kernel in one cell, as a file has it."""

    problem: AttentionProblem
    kernel: str
    time_us: float
    tflops: float
    ratio: tuple[float, float, float]
    """Speed over fa4gen's, with its interval."""
    gpu: str
    date: str
    wrong: bool
    """Whether its result was."""
    config_id: str
    """Of fa4gen's kernel, where the file says."""


@dataclass(frozen=True, slots=True)
class Cell:
    """fa4gen and at least one peer on one problem, timed in turns."""

    ours: Line
    peers: tuple[PeerView, ...]
    """The fastest first."""
    file: str

    def view(self, config_id: str) -> PeersView:
        """The cell, for a winner with this configuration."""
        ours = self.ours
        return PeersView(
            peers=self.peers,
            ours_us=ours.time_us,
            ours_tflops=ours.tflops,
            same_config=ours.config_id == config_id if ours.config_id else None,
            gpu=ours.gpu,
            date=ours.date,
            file=self.file,
        )


@dataclass(frozen=True, slots=True)
class PeerTable:
    """All files together; of two cells for one problem and GPU the later counts."""

    cells: Mapping[Key, Cell]
    wrong: Mapping[str, int]
    """By file: cells left out, since fa4gen's own result was wrong there."""

    def files(self, used: Iterable[Key]) -> tuple[PeerFileView, ...]:
        """What became of each file, given the cells that the page shows."""
        shown = set(used)
        return tuple(self._file(name, shown) for name in self.wrong)

    def _file(self, name: str, shown: set[Key]) -> PeerFileView:
        mine = {key: cell for key, cell in self.cells.items() if cell.file == name}
        unused = sorted(str(problem) for problem, _ in mine.keys() - shown)
        notes = []
        if unused:
            some = ", ".join(unused[:MAX_NAMED]) + (", ..." if len(unused) > MAX_NAMED else "")
            notes.append(f"{len(unused)} cells have no measured winner of that GPU here: {some}")
        if self.wrong[name]:
            notes.append(f"{self.wrong[name]} cells left out: fa4gen's own result was wrong")
        return PeerFileView(
            file=name,
            cells=len(mine),
            used=len(mine) - len(unused),
            gpus=tuple(sorted({gpu for _, gpu in mine})),
            dates=tuple(sorted({cell.ours.date for cell in mine.values()})),
            note="; ".join(notes),
        )


def read_peers(paths: Iterable[Path]) -> PeerTable:
    """The peers that these files have.

    Raises:
        ReportError: a file that is not such a CSV, or has an illegal value.
        OSError: a file cannot be read.
    """
    cells: dict[Key, Cell] = {}
    wrong: dict[str, int] = {}
    for path in paths:
        found: dict[Key, list[Line]] = {}
        for line in _lines(path):
            found.setdefault((line.problem, line.gpu), []).append(line)
        wrong.setdefault(path.name, 0)
        for key, lines in found.items():
            ours = next((line for line in lines if line.kernel == OURS), None)
            peers = [
                _peer(line) for line in lines if line.kernel not in NO_PEERS and not line.wrong
            ]
            if ours is None or not peers:
                continue
            if ours.wrong:
                wrong[path.name] += 1
            elif key not in cells or ours.date >= cells[key].ours.date:
                peers.sort(key=lambda peer: peer.speedup)
                cells[key] = Cell(ours, tuple(peers), path.name)
    return PeerTable(cells, wrong)


def _peer(line: Line) -> PeerView:
    ratio, low, high = line.ratio
    return PeerView(line.kernel, line.time_us, line.tflops, 1 / ratio, 1 / high, 1 / low)


def _lines(path: Path) -> list[Line]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            given = reader.fieldnames or []
            if missing := [name for name in COLUMNS if name not in given]:
                raise ReportError(
                    f"peers file {path}: got columns {', '.join(given) or 'none'}, missing "
                    f"{', '.join(missing)}; allowed: a CSV that benchmarks/peers.py wrote"
                )
            return [_line(row, f"peers file {path}, line {reader.line_num}") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReportError(
            f"peers file {path}: got text that is no CSV ({error}), allowed: a file that "
            f"benchmarks/peers.py wrote"
        ) from None


def _line(row: Mapping[str, str | None], where: str) -> Line:
    problem = _problem(row, where)
    time_us, tflops, ratio, low, high = (
        _positive(row[name], f"{where}: {name}") for name in NUMBER_COLUMNS
    )
    return Line(
        problem=problem,
        kernel=row["kernel"] or "",
        time_us=time_us,
        tflops=tflops,
        ratio=(ratio, low, high),
        gpu=row["gpu"] or "",
        date=row["date"] or "",
        wrong=bool(row.get("error")),
        config_id=row.get("config") or "",
    )


def _problem(row: Mapping[str, str | None], where: str) -> AttentionProblem:
    values = {name: _plain(row[name] or "") for name in PROBLEM_COLUMNS}
    try:
        return AttentionProblem.from_dict(values)
    except Fa4genError as error:
        raise ReportError(f"{where}: {error}") from None


def _plain(text: str) -> int | bool | str:
    """A CSV cell of a problem as its value."""
    if text in {"True", "False"}:
        return text == "True"
    return int(text) if text.isascii() and text.isdigit() else text


def _positive(text: str | None, subject: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ReportError(f"{subject}: got {text!r}, allowed: a number above 0")
    return value
