"""What an emulation found, as plain data and as a drawing."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from fa4gen.emulator.coverage import coverage
from fa4gen.emulator.emulate import Emulation
from fa4gen.emulator.session import Report
from fa4gen.report.tables import grid

OPCODES_SHOWN = 12
"""Rows of the instruction table; ``--coverage`` shows all."""


@dataclass(frozen=True, slots=True)
class AccuracyView:
    """One output against float64."""

    output: str
    max_error: float
    """Absolute."""
    allowed: float
    ok: bool


@dataclass(frozen=True, slots=True)
class FindingView:
    """One thing that is wrong."""

    kind: str
    message: str
    where: str
    """PTX line, CTA and warp; empty if it is not one place's fault."""
    other: str
    """The access it collided with, or empty."""


@dataclass(frozen=True, slots=True)
class OpcodeView:
    """One opcode of the kernel."""

    opcode: str
    pipe: str
    isa: str
    """Section of the PTX ISA."""
    written: int
    reached: int
    executed: int


@dataclass(frozen=True, slots=True)
class LaunchView:
    """One kernel as it was launched."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    dynamic_smem: int
    """Bytes."""
    executed: int
    """Warp instructions."""


@dataclass(frozen=True, slots=True)
class EmulationView:
    """A host function under several policies."""

    subject: str
    target: str
    policies: tuple[str, ...]
    launches: tuple[LaunchView, ...]
    accuracies: tuple[AccuracyView, ...]
    findings: tuple[FindingView, ...]
    coverage: float
    """Share of the kernels' instructions that ran."""
    missed_lines: tuple[tuple[int, int], ...]
    """PTX lines (first, last) of what never ran; only with ``--coverage``."""
    opcodes: tuple[OpcodeView, ...]
    seconds: float
    """Of emulation, all policies together."""

    @property
    def ok(self) -> bool:
        """Whether the numbers are right and nothing else is wrong."""
        return not self.findings and all(accuracy.ok for accuracy in self.accuracies)


def view_of(
    subject: tuple[str, str],
    report: Report,
    accuracies: tuple[AccuracyView, ...],
    seconds: float,
) -> EmulationView:
    """The view of a report.

    Args:
        subject: What was emulated, and for which architecture.
        seconds: What the emulation took.
    """
    launches = [launch for run in report.runs for launch in run.launches]
    reached, total, missed, opcodes = _coverage(launches)
    return EmulationView(
        subject=subject[0],
        target=subject[1],
        policies=tuple(run.policy for run in report.runs),
        launches=tuple(
            LaunchView(
                e.program.entry.name,
                e.shape.grid,
                e.shape.block,
                e.shape.cluster,
                e.shape.dynamic_smem,
                e.executed,
            )
            for e in launches
        ),
        accuracies=accuracies,
        findings=tuple(
            FindingView(f.kind.value, f.message, str(f.place or ""), str(f.other or ""))
            for f in report.findings
        ),
        coverage=reached / max(total, 1),
        missed_lines=tuple(missed),
        opcodes=tuple(opcodes),
        seconds=seconds,
    )


def _coverage(
    launches: list[Emulation],
) -> tuple[int, int, list[tuple[int, int]], list[OpcodeView]]:
    """Reached and all instructions, lines never reached and opcodes, over all kernels."""
    by_kernel: dict[int, list[Emulation]] = {}
    for launch in launches:
        by_kernel.setdefault(id(launch.program), []).append(launch)
    found = [coverage(runs) for runs in by_kernel.values()]
    opcodes = [
        OpcodeView(u.opcode, u.pipe.value, u.isa, u.written, u.reached, u.executed)
        for one in found
        for u in one.opcodes
    ]
    total = sum(one.instructions for one in found)
    missed = [span for one in found for span in one.missed_lines()]
    return total - sum(len(one.missed) for one in found), total, missed, opcodes


def drawing(view: EmulationView, *, whole: bool = False) -> RenderableType:
    """The view for a terminal; with ``whole`` every opcode and every line that never ran."""
    parts: list[RenderableType] = [_verdict(view), *_launches(view)]
    parts += [_accuracy(accuracy) for accuracy in view.accuracies]
    parts += [_finding(found) for found in view.findings]
    parts += [Text(""), _opcodes(view, whole=whole)]
    if whole and view.missed_lines:
        spans = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in view.missed_lines)
        parts.append(Text(f"never ran, PTX lines: {spans}"))
    return Group(*parts)


def _verdict(view: EmulationView) -> Text:
    executed = sum(launch.executed for launch in view.launches)
    rate = executed / view.seconds if view.seconds else 0.0
    return Text.assemble(
        ("right", "green") if view.ok else ("wrong", "red"),
        f": {view.subject}, {view.target}, emulated under {', '.join(view.policies)}; "
        f"{executed} warp instructions in {view.seconds:.1f} s ({rate / 1000:.0f} thousand/s), "
        f"{view.coverage:.0%} of the kernel reached",
    )


def _launches(view: EmulationView) -> list[Text]:
    shapes = dict.fromkeys(
        f"  {launch.kernel[:48]}: grid {_size(launch.grid)}, block {_size(launch.block)}, cluster "
        f"{_size(launch.cluster)}, {launch.dynamic_smem} bytes of shared memory"
        for launch in view.launches
    )
    return [Text(shape) for shape in shapes]


def _size(index: tuple[int, int, int]) -> str:
    return "x".join(map(str, index))


def _accuracy(accuracy: AccuracyView) -> Text:
    style = "" if accuracy.ok else "red"
    return Text(
        f"  {accuracy.output}: error {accuracy.max_error:.2e} against float64, allowed "
        f"{accuracy.allowed:.2e}",
        style=style,
    )


def _finding(found: FindingView) -> Text:
    text = Text.assemble((f"  {found.kind}", "red"), f": {found.message}")
    if found.where:
        text.append(f"\n      at {found.where}")
    if found.other:
        text.append(f"\n    with {found.other}")
    return text


def _opcodes(view: EmulationView, *, whole: bool) -> RenderableType:
    table = grid("opcode", "pipe", "written", "reached", "executed", right=frozenset(_NUMBERS))
    shown = view.opcodes if whole else view.opcodes[:OPCODES_SHOWN]
    for use in shown:
        numbers = (str(use.written), str(use.reached), str(use.executed))
        table.add_row(use.opcode, use.pipe, *numbers)
    if len(shown) < len(view.opcodes):
        table.add_row(f"and {len(view.opcodes) - len(shown)} more; --coverage shows all")
    return table


_NUMBERS = ("written", "reached", "executed")
