"""The order in which ptxas put the instructions of a loop, for loops without branches.

An SM issues the instructions of a warp one after the other, and checks nothing: every instruction
says how many cycles the next has to wait, and which scoreboards have to be free before it. So with
that order and those fields a warp's time in a loop needs no assumption about dependences. What
others can see (waits, arrivals, copies, tensor memory) is known again by its place in the order,
which ptxas keeps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fa4gen.emulator.decode import Program
from fa4gen.perf.trace.machine_code import MachineInstruction, MachineLoop
from fa4gen.perf.trace.sass import Sass

_EVENTS = (
    ("wait", ("mbarrier.try_wait", "mbarrier.test_wait"), ("SYNCS.PHASECHK",)),
    ("arrive", ("mbarrier.arrive",), ("SYNCS.ARRIVE",)),
    ("named arrive", ("bar.arrive", "barrier.arrive", "barrier.cta.arrive"), ("BAR.ARV",)),
    ("named", ("bar.sync", "barrier.sync", "bar.cta.sync", "barrier.cta.sync"), ("BAR.SYNC",)),
    ("load", ("tcgen05.ld",), ("LDTM",)),
    ("store", ("tcgen05.st",), ("STTM",)),
    ("mma", ("tcgen05.mma",), ("UTCHMMA", "UTCQMMA", "UTCIMMA", "UTCOMMA")),
    ("commit", ("tcgen05.commit",), ("UTCBAR",)),
    ("copy", ("cp.async.bulk.tensor",), ("UTMALDG", "UTMASTG")),
)
"""What can be seen from outside a warp: its name, beginnings of opcodes in PTX and in SASS."""

_ELSEWHERE = (
    *("wgmma", "cp.", "atom", "red.", "st.async", "mbarrier.", "bar.", "barrier.", "tcgen05."),
    "clusterlaunch",
)
"""What can be seen, too, or has a clock of its own; a loop with it keeps the order of the PTX."""
_ALLOWED = ("bar.warp", "tcgen05.wait", "tcgen05.fence")
"""But not these: scoreboards stand for them, or nothing does."""


def ordered_loop(
    program: Program, sass: Sass, ptx: Sequence[int], machine: Sequence[int]
) -> MachineLoop | None:
    """The machine's order of a loop, or ``None`` where it cannot be told.

    Args:
        program: The kernel.
        sass: Its machine code.
        ptx: The instructions of the loop in the one.
        machine: The instructions of the loop in the other.
    """
    if len(ptx) != ptx[-1] - ptx[0] + 1 or not sass.is_straight(machine):
        return None
    if sass.controls[machine[0]].stall == 0:
        return None  # the text came without encodings
    ours: dict[str, list[int]] = defaultdict(list)
    for at in ptx:
        opcode = program.entry.instructions[at].opcode
        name = next((n for n, starts, _ in _EVENTS if opcode.startswith(starts)), None)
        if name is not None:
            ours[name].append(at)
        elif opcode.startswith(_ELSEWHERE) and not opcode.startswith(_ALLOWED):
            return None
    theirs: dict[str, list[int]] = defaultdict(list)
    for at in machine:
        name = next((n for n, _, starts in _EVENTS if sass.opcodes[at].startswith(starts)), None)
        if name is not None:
            theirs[name].append(at)
    if {n: len(found) for n, found in ours.items()} != {n: len(f) for n, f in theirs.items()}:
        return None
    stands_for = {
        there: here
        for name, found in theirs.items()
        for there, here in zip(found, ours[name], strict=True)
    }
    instructions = tuple(
        MachineInstruction(sass.opcodes[at], sass.controls[at], stands_for.get(at, -1))
        for at in machine
    )
    return MachineLoop(ptx[0], ptx[-1], instructions)
