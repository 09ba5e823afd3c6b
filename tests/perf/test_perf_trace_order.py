"""Loops in the order of ptxas: found in the SASS, put in the place of the PTX's, and replayed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.emulator.decode import Program, decode
from fa4gen.emulator.emulate import Options, emulate
from fa4gen.emulator.machine import GridShape
from fa4gen.hardware import load_arch
from fa4gen.perf.trace import ClusterSteps, Replay, Tape, Timing, load_timing, replay, steps_of
from fa4gen.perf.trace.dataflow import Step, WarpSteps
from fa4gen.perf.trace.kinds import Kind, machine_kind
from fa4gen.perf.trace.machine_code import Control, MachineCode, MachineInstruction
from fa4gen.perf.trace.refine import compared
from fa4gen.perf.trace.sass import CONTROL_SHIFT, control_of, parse_sass
from fa4gen.perf.trace.sm import Pipe
from fa4gen.perf.trace.tape import Recorder
from fa4gen.ptx import parse

TIMING = replace(load_timing(load_arch("sm100")), issue_slots=1.0, wake=20.0, arrive=10.0)
MUFU_OVER = 8 + TIMING.latency("mufu")
"""32 lanes at 4 a clock of the sub-core, then the latency."""


def encoded(control: Control) -> int:
    """The upper half of an instruction with these fields."""
    bits = control.stall | (control.writes & 7) << 5 | (control.reads & 7) << 8
    return (bits | sum(1 << each for each in control.waits) << 11) << CONTROL_SHIFT


def text(*lines: str | tuple[str, Control]) -> str:
    """Labels and instructions as nvdisasm writes them."""
    found = ['\t.section\t.text.k,"ax",@progbits', ".text.k:"]
    for at, line in enumerate(lines):
        if isinstance(line, str):
            found.append(line)
            continue
        opcode, control = line
        found.append(f"        /*{at:04x}*/    {opcode} ;    /* 0x0000000018057308 */")
        found.append(f"                            /* 0x{encoded(control):016x} */")
    return "\n".join(found) + "\n"


def one(
    opcode: str, stall: int = 1, writes: int = -1, waits: tuple[int, ...] = (), reads: int = -1
) -> MachineInstruction:
    return MachineInstruction(opcode, Control(stall, writes, reads, waits))


def warp(*machine: MachineInstruction, index: int = 0, program: Program | None = None) -> WarpSteps:
    made = program or decode(parse(PTX))
    return WarpSteps(0, index, tuple(Step(machine_kind(made, each), ()) for each in machine))


def run(*warps: WarpSteps, timing: Timing = TIMING) -> Replay:
    return replay(ClusterSteps(warps, (), 1), timing)


# A loop of 3 turns with an arrival.
PTX = """.version 8.8
.target sm_100a
.address_size 64
.visible .entry k() {
.reg .b32 %r<9>; .reg .f32 %f<99>; .reg .pred %p<9>; .reg .b64 %rd<3>;
.shared .align 8 .b64 bar;
mov.u32 %r5, %tid.x; mov.u32 %r6, bar; mov.b32 %r2, 0;
setp.eq.u32 %p2, %r5, 0;
@%p2 mbarrier.init.shared::cta.b64 [%r6], 32;
bar.sync 0;
LOOP:
ex2.approx.ftz.f32 %f1, 0f3F000000;
mbarrier.arrive.shared::cta.b64 %rd1, [%r6];
ex2.approx.ftz.f32 %f2, 0f3F000000;
add.f32 %f3, %f1, %f2;
add.s32 %r2, %r2, 1;
setp.lt.s32 %p1, %r2, 3;
@%p1 bra LOOP;
ret;
}"""
BODY = (
    ("MUFU.EX2 R1, R1", Control(8, 0)),
    ("MUFU.EX2 R2, R2", Control(8, 1)),
    ("UIADD3 UR4, UPT, UPT, UR4, 0x1, URZ", Control(1)),
    ("UISETP.LT UP0, UPT, UR4, 0x3", Control(2)),
    ("FADD R3, R1, R2", Control(4, waits=(0, 1))),
    ("SYNCS.ARRIVE.TRANS64.ART0 RZ, [UR5], R7", Control(2, reads=2)),
)
LOOP = text(".L_x_1:", *BODY, ("BRA.U UP0, `(.L_x_1)", Control(5)), ("EXIT", Control(5)))


def tape() -> Tape:
    recorder = Recorder()
    shape = GridShape((1, 1, 1), (32, 1, 1))
    found = emulate(PTX, shape, [], [], Options(observer=recorder.observer()))
    assert found.findings == ()
    ((tapes, counts),) = recorder.tapes
    return Tape(found.program, shape, tapes, counts)


def test_the_fields_of_an_instruction() -> None:
    control = Control(stall=11, writes=3, reads=5, waits=(0, 2, 5))
    assert control_of(encoded(control)) == control
    assert control_of(encoded(Control(1))) == Control(1)
    assert parse_sass(LOOP).controls[4] == Control(4, waits=(0, 1))


def test_a_loop_without_branches_is_found_in_the_machine_s_order() -> None:
    program = decode(parse(PTX))
    code = compared(program, parse_sass(LOOP))
    assert code.note == "instruction counts: SASS (1 loops found again, 1 in its order)"
    (loop,) = code.loops
    opcodes = [inst.opcode for inst in program.entry.instructions]
    assert opcodes[loop.start] == "ex2.approx.ftz.f32"
    assert opcodes[loop.end].startswith("bra")
    events = {each.opcode: opcodes[each.event] for each in loop.instructions if each.event >= 0}
    assert events == {"SYNCS.ARRIVE.TRANS64.ART0": "mbarrier.arrive.shared::cta.b64"}


@pytest.mark.parametrize(
    "lines",
    [
        # Part of it may be left out.
        (".L_x_1:", *BODY[:2], ("@P0 BRA `(.L_x_2)", Control(5)), *BODY[2:4], ".L_x_2:", *BODY[4:]),
        # An arrival that the PTX has not.
        (".L_x_1:", *BODY, BODY[-1]),
        # Code that is elsewhere.
        (".L_x_1:", *BODY, ("CALL.REL.NOINC `(.L_x_9)", Control(5))),
    ],
)
def test_other_loops_keep_the_order_of_the_ptx(
    lines: tuple[str | tuple[str, Control], ...],
) -> None:
    whole = text(*lines, ("BRA.U UP0, `(.L_x_1)", Control(5)), ("EXIT", Control(5)))
    code = compared(decode(parse(PTX)), parse_sass(whole))
    assert code.shares != {}
    assert code.loops == ()


def test_a_branch_to_itself_is_a_wait_and_no_branch() -> None:
    spin = (".L_x_2:", ("NOP", Control(1)), ("BRA.U !UP1, `(.L_x_2)", Control(5)))
    whole = text(".L_x_1:", *BODY, *spin, ("BRA.U UP0, `(.L_x_1)", Control(5)))
    sass = parse_sass(whole)
    assert sass.is_straight(range(9))
    assert not sass.is_straight(range(8))  # does not end with its own branch


def test_the_machine_s_instructions_stand_for_those_of_the_ptx() -> None:
    recorded = tape()
    code = compared(recorded.program, parse_sass(LOOP))
    (steps,) = steps_of(recorded, code).warps
    machine = [step for step in steps.steps if step.kind.control is not None]
    assert len(machine) == 3 * 7
    assert [s.kind.opcode for s in machine[:3]] == ["MUFU.EX2", "MUFU.EX2", "UIADD3"]
    # One arrival a turn, each at a phase of its own.
    arrivals = [step.signals for step in machine if step.signals]
    assert len({phase for each in arrivals for phase in each}) == len(arrivals) == 3
    plain = steps_of(recorded, MachineCode("PTX")).warps[0]
    assert all(step.kind.control is None for step in plain.steps)


def test_a_warp_that_does_not_go_round_keeps_the_ptx() -> None:
    recorded = tape()
    code = compared(recorded.program, parse_sass(LOOP))
    (loop,) = code.loops
    (first,) = recorded.warps
    cut = max(at for at, index in enumerate(first.code) if index == loop.end)
    first.code[cut:] = []  # the last turn has no branch
    (steps,) = steps_of(recorded, code).warps
    assert sum(step.kind.control is not None for step in steps.steps) == 2 * 7


def test_a_turn_takes_what_its_fields_say() -> None:
    """No pipe is counted twice: the stall behind an exponential is the time of its pipe."""
    turn = (one("MUFU.EX2", 8), one("FADD"), one("FADD"), one("FADD", 2), one("UIADD3", 4))
    more, fewer = (run(warp(*turn * count)).cycles for count in (20, 10))
    assert more - fewer == pytest.approx(10 * 16)


def test_a_scoreboard_holds_what_comes_behind() -> None:
    wait = (one("MUFU.EX2", 1, writes=2), one("FADD", 1, waits=(2,)))
    behind = tuple(one("IADD3", 2) for _ in range(10))
    # The additions need nothing, but a warp issues in order.
    assert run(warp(*wait, *behind)).cycles == pytest.approx(MUFU_OVER + 1 + 10 * 2, abs=5)
    free = (one("MUFU.EX2", 1, writes=2), one("FADD", 1))
    assert run(warp(*free, *behind)).cycles == pytest.approx(2 + 10 * 2, abs=6)


def test_operands_of_a_store_are_free_when_they_are_read() -> None:
    store = Kind("STTM.x16", "tmem", 32 * 16 * 4, True, False, False, 0, control=Control(1, -1, 4))
    after = Kind("FADD", "fma", 32, True, False, False, 0, control=Control(1, waits=(4,)))
    steps = WarpSteps(0, 0, (Step(store, ()), Step(after, ())))
    reading = TIMING.occupancy("tmem", 32 * 16 * 4)
    assert reading == 16
    # Not only when the store is over, 24 cycles later.
    assert run(steps).ends[0, 0] == pytest.approx(reading + TIMING.latency("tmem"), abs=4)
    issued_last = reading + 1 + TIMING.latency("fma")
    assert run(WarpSteps(0, 0, (*steps.steps, Step(after, ())))).ends[0, 0] >= issued_last


def test_a_fence_of_tensor_memory_is_over_when_the_stores_are() -> None:
    store = Kind("STTM.x16", "tmem", 32 * 16 * 4, True, False, False, 0, control=Control(1))
    fence = Kind("FENCE.VIEW.ASYNC.T", "control", 0, True, False, False, 0, control=Control(2, 3))
    after = Kind("UIADD3", "control", 0, True, False, False, 0, control=Control(1, waits=(3,)))
    found = run(WarpSteps(0, 0, tuple(Step(each, ()) for each in (store, fence, after))))
    stored = 16 + TIMING.latency("tmem")
    assert found.ends[0, 0] == pytest.approx(stored + TIMING.latency("control"))


def test_exponentials_wait_in_a_queue_and_not_their_warp() -> None:
    pipe, plain = Pipe(2), Pipe()
    assert [pipe.take(0.0, 8.0) for _ in range(3)] == [8.0, 16.0, 24.0]
    assert pipe.free == 8.0  # the second has begun, the third waits: there is room for one more
    assert [plain.take(time, 8.0) for time in (0.0, 8.0)] == [8.0, 16.0]
    assert plain.free == 16.0


def test_two_warps_share_the_exponentials() -> None:
    """A warp with other work behind its exponential gets to it while another's are at work."""
    at_it = warp(*(one("MUFU.EX2", 8) for _ in range(20)))
    other = warp(*(one("MUFU.EX2"), *(one("FADD", 2),) * 4) * 4, index=4)
    ends = [
        run(at_it, other, timing=replace(TIMING, mufu_queue=places)).ends[0, 4]
        for places in (0, TIMING.mufu_queue)
    ]
    assert ends[0] > 20 * 8  # it waits for the other to be through
    assert ends[1] == pytest.approx(4 * (1 + 4 * 2) + MUFU_OVER, abs=16)


def test_more_places_in_the_queue_make_no_difference() -> None:
    turn: tuple[MachineInstruction, ...] = ()
    for own, other in ((0, 1), (1, 0)):  # as ptxas has it: packed are the two before
        turn += (one("MUFU.EX2", 8), one("MUFU.EX2", 1, own), one("F2FP", 7, waits=(other,)))
    found = [
        run(warp(*turn * 10), warp(*turn * 10, index=4), timing=replace(TIMING, mufu_queue=places))
        for places in (TIMING.mufu_queue, 16)
    ]
    assert found[0].cycles == pytest.approx(found[1].cycles, abs=8)
    # Two warps of one sub-core keep its MUFU busy, though each alone leaves gaps.
    assert found[0].cycles == pytest.approx(2 * 40 * 8, rel=0.1)
