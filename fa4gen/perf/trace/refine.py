"""Machine code beside PTX: the same loops found in both, and what one has more of than the other.

A loop is known again by what ptxas neither adds nor leaves out: exponentials, MMAs, loads and
stores of tensor memory, copies. Within it the PTX's instructions of a class (multiply-adds, maxima,
conversions, ...) share the machine's of that class, so that the issue slots and the work of each
pipe are the machine's, while the order stays that of the PTX.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fa4gen.core.errors import EvaluationError
from fa4gen.emulator.decode import Program
from fa4gen.emulator.registry import OpcodeSpec, Pipe
from fa4gen.perf.trace.folding import folded
from fa4gen.perf.trace.machine_code import MachineCode, Share
from fa4gen.perf.trace.order import ordered_loop
from fa4gen.perf.trace.sass import (
    CONVERT,
    EXPONENTIAL,
    FMA,
    INTEGER,
    MINMAX,
    MUFU,
    NVDISASM,
    OTHER,
    Sass,
    class_of,
    disassemble,
    find_nvdisasm,
    parse_sass,
)
from fa4gen.ptx.ir import Instruction, Label

BOUNDS = 0.1, 4.0
"""Ratios beyond are a loop taken for another."""

_ANCHORS = {
    "ex2": "ex2",
    "wgmma.mma_async": "mma",
    "tcgen05.mma": "mma",
    "tcgen05.ld": "tmem load",
    "tcgen05.st": "tmem store",
    "cp.async.bulk.tensor": "copy",
}
_CLASSES = {Pipe.MUFU: MUFU, Pipe.FMA: FMA, Pipe.CONVERT: CONVERT}
Anchors = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class _Region:
    """The instructions of a loop that are in no loop within it that was found again, too."""

    ptx: tuple[int, ...]
    machine: tuple[int, ...]


def machine_code_of(cubin: bytes, program: Program) -> MachineCode:
    """What nvdisasm says of a compiled kernel; a note without counts where it cannot say."""
    tool = find_nvdisasm()
    if tool is None:
        return MachineCode(f"instruction counts: PTX ({NVDISASM} not found)")
    try:
        return compared(program, parse_sass(disassemble(cubin, tool)))
    except EvaluationError as error:
        return MachineCode(f"instruction counts: PTX ({error})")


def compared(program: Program, sass: Sass) -> MachineCode:
    """The shares of every PTX instruction in a loop that both have."""
    shares: dict[int, Share] = {}
    gone = folded(program)
    regions = list(_regions(program, sass))
    loops = []
    for region in regions:
        found = _shares(region, program, sass, gone)
        shares |= found
        ordered = ordered_loop(program, sass, region.ptx, region.machine) if found else None
        if ordered is not None:
            loops.append(ordered)
    if not shares:
        return MachineCode("instruction counts: PTX (no loop found again in the SASS)")
    note = f"instruction counts: SASS ({len(regions)} loops found again)"
    if loops:
        note = f"{note[:-1]}, {len(loops)} in its order)"
    return MachineCode(note, shares, _mean_stall(regions, sass), tuple(loops))


def _mean_stall(regions: Sequence[_Region], sass: Sass) -> float:
    """Of the instructions of loops that have exponentials."""
    stalls = [
        sass.controls[at].stall
        for region in regions
        if any(_is_exponential(sass.opcodes[at]) for at in region.machine)
        for at in region.machine
    ]
    return sum(stalls) / len(stalls) if stalls else 0.0


def _is_exponential(opcode: str) -> bool:
    return opcode.startswith(EXPONENTIAL)


def _shares(
    region: _Region, program: Program, sass: Sass, gone: frozenset[int]
) -> dict[int, Share]:
    kept = [at for at in region.ptx if at not in gone]
    classes = {at: _class(program.entry.instructions[at], program.specs[at]) for at in kept}
    ours = Counter(classes.values())
    theirs = Counter(class_of(sass.opcodes[at]) for at in region.machine)
    slots, work = {}, {}
    for name in (MUFU, FMA, MINMAX, CONVERT):
        if ours[name]:
            slots[name] = work[name] = theirs[name] / ours[name]
        else:
            theirs[OTHER] += theirs[name]
    # Integers go to the uniform datapath or the ALU as ptxas likes, so they share their slots with
    # the rest; the ALU has what is left on it.
    rest = ours[INTEGER] + ours[OTHER]
    slots[INTEGER] = slots[OTHER] = (theirs[INTEGER] + theirs[OTHER]) / max(1, rest)
    work[INTEGER], work[OTHER] = theirs[INTEGER] / max(1, ours[INTEGER]), 1.0
    low, high = BOUNDS
    if any(not low <= slots[name] <= high for name in set(classes.values())):
        return {}
    return {at: Share(slots[name], work[name]) for at, name in classes.items()}


def _class(inst: Instruction, spec: OpcodeSpec) -> str:
    if spec.pipe in _CLASSES:
        return _CLASSES[spec.pipe]
    if spec.pipe is not Pipe.ALU:
        return OTHER
    is_float = any(part in {"f32", "ftz"} for part in inst.parts)
    return MINMAX if is_float and inst.parts[0] in {"max", "min"} else INTEGER


def _regions(program: Program, sass: Sass) -> Iterator[_Region]:
    """Loops with the same anchors, in the order in which they stand."""
    ours: dict[Anchors, list[tuple[int, int]]] = defaultdict(list)
    for start, end in _loops(program):
        ours[_anchors(program, start, end)].append((start, end))
    theirs: dict[Anchors, list[tuple[int, int]]] = defaultdict(list)
    for loop in sass.loops:
        theirs[loop.anchors].append((loop.start, loop.end))
    pairs = [
        pair
        for anchors, found in ours.items()
        if anchors and len(found) == len(theirs[anchors])
        for pair in zip(found, theirs[anchors], strict=True)
    ]
    for our, their in pairs:
        ptx = _without(our, [inner for inner, _ in pairs if inner != our])
        machine = _without(their, [inner for _, inner in pairs if inner != their])
        yield _Region(ptx, machine)


def _without(loop: tuple[int, int], others: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The positions of a loop that are in none within it."""
    start, end = loop
    inner = [(a, b) for a, b in others if start <= a and b <= end]
    return tuple(at for at in range(start, end + 1) if not any(a <= at <= b for a, b in inner))


def _loops(program: Program) -> list[tuple[int, int]]:
    """First and last instruction of every loop of the PTX, as of the SASS."""
    found: dict[int, int] = {}
    for inst in program.entry.instructions:
        if inst.opcode.startswith("bra"):
            for operand in inst.operands:
                if isinstance(operand, Label) and operand.target <= inst.index:
                    found[operand.target] = max(inst.index, found.get(operand.target, 0))
    return sorted(found.items())


def _anchors(program: Program, start: int, end: int) -> Anchors:
    count: Counter[str] = Counter()
    for inst in program.entry.instructions[start : end + 1]:
        count.update(name for first, name in _ANCHORS.items() if inst.opcode.startswith(first))
    return tuple(sorted(count.items()))
