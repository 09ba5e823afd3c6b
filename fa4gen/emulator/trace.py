"""A timeline of a run, for chrome://tracing or ui.perfetto.dev.

One process per CTA, one row per warp, and a row each for copies and MMAs under way. Arrows lead
from the event that completed a phase of an mbarrier to the warps that had waited for it. There is
no clock in an emulation: one microsecond of the timeline is one warp instruction of the cluster.

Format: "Trace Event Format" of the Chromium project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fa4gen.emulator.asynchronous import AsyncOp
from fa4gen.emulator.barriers import MBarrier, PhaseWait
from fa4gen.emulator.machine import Cluster, Observer
from fa4gen.emulator.warp import Wait, Warp

COPIES, PRODUCTS = 900, 901
"""Rows of asynchronous work, behind those of the warps."""
_ROWS = {COPIES: "copies under way", PRODUCTS: "MMAs under way"}


class Timeline:
    """Collects the events of one or several launches.

    Args:
        max_events: Events kept; what comes later is left out, and the file says so.
    """

    def __init__(self, max_events: int = 200_000) -> None:
        self._events: list[dict[str, Any]] = []
        self._max, self.dropped = max_events, 0
        self._offset, self._flow = 0, 0
        self._completed: dict[int, tuple[int, int, int]] = {}
        self._named: set[tuple[int, int]] = set()

    def observer(self) -> Observer:
        """To be given to a run; several runs follow each other on the timeline."""
        return Observer(
            on_async=self._on_async,
            on_barrier=self._on_barrier,
            on_turn=self._on_turn,
            on_end=self._on_end,
        )

    def write(self, path: Path) -> None:
        """Write the trace as JSON.

        Raises:
            OSError: the file cannot be written.
        """
        about = {"unit": "1 us = 1 warp instruction of the cluster", "dropped events": self.dropped}
        with path.open("w", encoding="utf-8") as file:
            json.dump({"traceEvents": self._events, "otherData": about}, file)

    def _on_turn(self, warp: Warp, start: int, end: int, waited: Wait | None) -> None:
        cta = warp.cta.linear_index
        code = warp.program.entry.instructions
        now = ", ".join(f"{i.opcode} for {w.describe()}" for i, w in warp.waits())
        arguments = {"last PTX line": code[min(warp.pc, len(code) - 1)].line, "then waits": now}
        name = "ends" if warp.done else (now.partition(" for ")[0] or "runs")
        self._name_row(cta, warp.index, f"warp {warp.index}")
        if isinstance(waited, PhaseWait) and (at := self._completed.get(id(waited.barrier))):
            self._arrow(at, (cta, warp.index, self._offset + start))
        self._slice((cta, warp.index), name, start, end, arguments)

    def _on_async(self, cluster: Cluster, op: AsyncOp) -> None:
        row = PRODUCTS if "mma" in op.place.instruction.opcode else COPIES
        self._name_row(op.place.cta, row, _ROWS[row])
        name = op.label or op.place.instruction.opcode
        arguments = {"issued by warp": op.place.warp, "PTX line": op.place.instruction.line}
        self._slice((op.place.cta, row), name, op.issued, cluster.now, arguments)

    def _on_barrier(self, cluster: Cluster, barrier: MBarrier) -> None:
        place = barrier.arrivals[-1] if barrier.arrivals else barrier.place
        self._completed[id(barrier)] = (place.cta, place.warp, self._offset + cluster.now)

    def _on_end(self, cluster: Cluster) -> None:
        self._offset += cluster.now
        self._completed.clear()

    def _arrow(self, start: tuple[int, int, int], end: tuple[int, int, int]) -> None:
        self._flow += 1
        for phase, (cta, row, at) in (("s", start), ("f", end)):
            event = {"ph": phase, "id": self._flow, "name": "mbarrier", "cat": "mbarrier"}
            self._add({**event, "pid": cta, "tid": row, "ts": at, "bp": "e"})

    def _slice(
        self, row: tuple[int, int], name: str, start: int, end: int, arguments: dict[str, Any]
    ) -> None:
        at = {"ts": self._offset + start, "dur": max(end - start, 1)}
        self._add({"ph": "X", "name": name, "pid": row[0], "tid": row[1], **at, "args": arguments})

    def _name_row(self, cta: int, row: int, name: str) -> None:
        if (cta, row) not in self._named:
            self._named.add((cta, row))
            self._events.extend(_labels(cta, row, name))

    def _add(self, event: dict[str, Any]) -> None:
        if len(self._events) < self._max:
            self._events.append(event)
        else:
            self.dropped += 1


def _labels(cta: int, row: int, name: str) -> Iterator[dict[str, Any]]:
    for kind, text in (("process_name", f"CTA {cta}"), ("thread_name", name)):
        yield {"ph": "M", "name": kind, "pid": cta, "tid": row, "args": {"name": text}}
    order = {"name": "thread_sort_index", "args": {"sort_index": row}}
    yield {"ph": "M", "pid": cta, "tid": row, **order}
