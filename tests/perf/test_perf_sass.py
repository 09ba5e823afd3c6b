"""Machine code: read from nvdisasm's text, and compared with the PTX loop by loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4gen.core.errors import EvaluationError
from fa4gen.emulator.decode import Program, decode
from fa4gen.perf.trace import machine_code_of
from fa4gen.perf.trace.kinds import kinds_of
from fa4gen.perf.trace.refine import compared
from fa4gen.perf.trace.sass import class_of, disassemble, find_nvdisasm, parse_sass
from fa4gen.ptx import parse

PTX = """.version 8.8
.target sm_100a
.address_size 64
.visible .entry k() {
.reg .b32 %r<9>; .reg .f32 %f<99>; .reg .pred %p<9>;
mov.b32 %r1, 0;
OUTER:
mov.b32 %r2, 0;
ex2.approx.ftz.f32 %f1, %f1;
INNER:
ex2.approx.ftz.f32 %f1, %f1;
ex2.approx.ftz.f32 %f2, %f2;
add.f32 %f3, %f1, %f2;
fma.rn.f32 %f3, %f1, %f2, %f3;
max.f32 %f4, %f3, %f4;
shl.b32 %r3, %r2, 23;
add.s32 %r4, %r3, %r2;
add.s32 %r2, %r2, 1;
setp.lt.s32 %p1, %r2, 7;
@%p1 bra INNER;
add.s32 %r1, %r1, 1;
setp.lt.s32 %p2, %r1, 7;
@%p2 bra OUTER;
ret;
}"""

HEAD = '\t.section\t.text.k,"ax",@progbits\n.text.k:\n'


def sass(*lines: str) -> str:
    """Lines of instructions and labels as nvdisasm writes them."""
    text = []
    for at, line in enumerate(lines):
        if line.startswith(".L"):
            text.append(line)
            continue
        text.append(f"        /*{at:04x}*/    {line} ;    /* 0x0000000018057308 */")
        text.append(
            f"                                      /* 0x{0x7F0 << 41 | stall(line):016x} */"
        )
    return HEAD + "\n".join(text) + "\n"


def stall(line: str) -> int:
    """The field with the stall: 8 cycles for an exponential, 2 for all else."""
    return (8 if line.startswith("MUFU") else 2) << 41


INNER = (
    *("MUFU.EX2 R1, R1", "MUFU.EX2 R2, R2", "FFMA2 R4, R1, R2, R4", "FMNMX R6, R6, R4, !PT"),
    *(
        "LEA R7, R8, R8, 0x17",
        "UIADD3 UR4, UPT, UPT, UR4, 0x1, URZ",
        "UISETP.LT UP0, UPT, UR4, 0x7",
    ),
)
HOPPER = sass(
    "MOV R1, c[0x0][0x28]",
    ".L_x_1:",
    "MUFU.EX2 R1, R1",
    ".L_x_2:",
    *INNER,
    "@P0 BRA `(.L_x_2)",
    ".L_x_3:",
    "@P1 BRA `(.L_x_1)",
    "EXIT",
    ".L_x_4:",
    "NANOSLEEP 0x20",
    "BRA `(.L_x_3)",
)


def program() -> Program:
    return decode(parse(PTX))


def test_loops_are_branches_back_under_a_predicate() -> None:
    found = parse_sass(HOPPER)
    assert [(loop.start, loop.end) for loop in found.loops] == [(1, 10), (2, 9)]
    assert [dict(loop.anchors) for loop in found.loops] == [{"ex2": 3}, {"ex2": 2}]
    blackwell = HOPPER.replace("@P0 BRA `", "BRA.U UP0, `").replace("@P1 BRA `", "BRA.U !UP1, `")
    assert parse_sass(blackwell).loops == found.loops


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [
        ("MUFU.EX2", "mufu"),
        ("FFMA2", "fma"),
        ("IMAD.MOV.U32", "fma"),
        ("FMNMX3.FTZ", "minmax"),
        ("F2FP.BF16.F32.PACK_AB", "convert"),
        ("LOP3.LUT", "integer"),
        ("UIADD3", "other"),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT", "other"),
    ],
)
def test_classes(opcode: str, expected: str) -> None:
    assert class_of(opcode) == expected


def test_a_loop_s_instructions_share_what_the_machine_has() -> None:
    ptx = program()
    code = compared(ptx, parse_sass(HOPPER))
    assert code.note == "instruction counts: SASS (2 loops found again, 1 in its order)"
    by_opcode = {inst.opcode: code.share(inst.index) for inst in ptx.entry.instructions}
    # Of the inner loop: two multiply-adds became a packed one; 5 instructions, of which 4 on the
    # ALU, became 4 (with the branch), of which one on the ALU.
    assert by_opcode["fma.rn.f32"].slots == by_opcode["fma.rn.f32"].work == 0.5
    assert by_opcode["max.f32"].slots == 1.0
    assert by_opcode["shl.b32"].slots == pytest.approx(4 / 5)
    assert by_opcode["shl.b32"].work == pytest.approx(1 / 4)
    kinds = {kind.opcode: kind for kind in kinds_of(ptx, code)}
    assert kinds["fma.rn.f32"].quantity == 16
    assert kinds["fma.rn.f32"].slots == 0.5
    # Before the loops nothing is known.
    assert code.share(0).slots == 1.0


def test_stalls_are_those_of_the_loops_with_exponentials() -> None:
    found = parse_sass(HOPPER)
    assert [found.controls[at].stall for at in (0, 1, 9)] == [2, 8, 2]
    # The outer loop's exponential and branch, and the 8 of the inner one, two exponentials in them.
    mean = (8 + 2 + 8 + 8 + 6 * 2) / 10
    assert compared(program(), found).stall == pytest.approx(mean)
    plain = HOPPER.replace("/* 0x", "/* ")
    assert compared(program(), parse_sass(plain)).stall == 0.0


def test_loops_that_are_not_found_again_are_left_as_they_are() -> None:
    unrolled = sass(".L_x_1:", *INNER, *INNER, "@P0 BRA `(.L_x_1)", "EXIT")
    code = compared(program(), parse_sass(unrolled))
    assert code.shares == {}
    assert code.note == "instruction counts: PTX (no loop found again in the SASS)"


def test_without_nvdisasm_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4GEN_NVDISASM", "/nowhere/nvdisasm")
    code = machine_code_of(b"a cubin", program())
    assert code.note == "instruction counts: PTX (nvdisasm not found)"
    assert code.shares == {}


def test_an_nvdisasm_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvdisasm"
    tool.write_text("#!/bin/sh\necho 'not a supported file' >&2\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("FA4GEN_NVDISASM", str(tool))
    assert find_nvdisasm() == tool
    with pytest.raises(EvaluationError, match=r"exit status 3: not a supported file"):
        disassemble(b"a cubin", tool)
    assert "exit status 3: not a supported file" in machine_code_of(b"a cubin", program()).note
