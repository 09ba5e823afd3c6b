"""Printing and parsing again: random programs, edited ones, and NVIDIA's assembler as a witness."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_text import HEADER, assemble, entry, find_ptxas, without_lines, wrap

from fa4gen.codegen import render
from fa4gen.compile import ArtifactCache, CompilePool
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import load_arch
from fa4gen.ptx import Label, Module, Operand, Register, Vector, parse, to_text

PTXAS = find_ptxas()
needs_ptxas = pytest.mark.skipif(
    PTXAS is None, reason="no ptxas: neither a CUDA toolkit nor Triton"
)

NAMES = ("a", "P1", "%r1", "%r2", "L")


@dataclass
class Program:
    """A random body, and what each of its instructions must name."""

    lines: list[str] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    """For each instruction, the number of the declaration of its register; -1 if it branches."""
    branches: list[tuple[int, str, list[dict[str, int]]]] = field(default_factory=list)
    """Instruction, label, and the labels of its scope and of those round it, innermost first."""
    declared: int = 0


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Scopes in scopes, each with registers, labels, uses and branches of a few shared names."""
    program = Program()
    choose = random.Random(draw(st.integers(0, 2**32)))
    _scope(program, choose, [{}], [{}], depth=0)
    return program


def _scope(
    program: Program,
    choose: random.Random,
    registers: list[dict[str, int]],
    labels: list[dict[str, int]],
    depth: int,
) -> None:
    asm = choose.random() < 0.5
    body = ["// begin inline asm"] if asm else []
    program.lines += body
    for _ in range(choose.randrange(1, 7)):
        what = choose.random()
        visible = {name: number for scope in reversed(registers) for name, number in scope.items()}
        if what < 0.25 and (name := choose.choice(NAMES)) not in registers[0]:
            registers[0][name] = program.declared
            program.declared += 1
            program.lines.append(f".reg .b32 {name};")
        elif what < 0.4 and (name := choose.choice(NAMES)) not in labels[0]:
            labels[0][name] = len(program.used)
            program.lines.append(f"{name}:")
        elif what < 0.7 and visible:
            name = choose.choice(sorted(visible))
            program.lines.append(f"op.b32 {name}, 1;")
            program.used.append(visible[name])
        elif what < 0.85:
            program.branches.append((len(program.used), choose.choice(NAMES), labels))
            program.lines.append(f"bra {program.branches[-1][1]};")
            program.used.append(-1)
        elif depth < 4:
            program.lines.append("{")
            _scope(program, choose, [{}, *registers], [{}, *labels], depth + 1)
            program.lines.append("}")
    if asm:
        program.lines.append("// end inline asm")


def finished(program: Program) -> tuple[str, dict[int, int]]:
    """Its text, with labels at the end for branches that found none, and the target of each."""
    targets, missing = {}, {}
    outermost = len(program.used)
    for index, name, scopes in program.branches:
        found = [scope[name] for scope in scopes if name in scope]
        if not found:
            missing[name] = outermost
        targets[index] = found[0] if found else outermost
    return "\n".join([*program.lines, *(f"{name}:" for name in missing)]), targets


@given(programs())
def test_scopes_mean_what_a_simple_model_says(program: Program) -> None:
    text, targets = finished(program)
    got = entry(text)
    assert len(got.instructions) == len(program.used)
    slots: dict[int, int] = {}
    for each, number in zip(got.instructions, program.used, strict=True):
        (first, *_) = each.operands
        if number < 0:
            assert isinstance(first, Label)
            assert first.target == targets[each.index]
        else:
            assert isinstance(first, Register)
            assert slots.setdefault(number, first.slot) == first.slot
    assert sorted(slots.values()) == list(range(len(got.registers)))


def meaning(module: Module) -> list[object]:
    """All of a module but lines and the names of registers and labels."""
    found: list[object] = [module.version, module.target, module.variables]
    for each in module.entries:
        found += [each.name, each.params, each.variables, [r.type for r in each.registers]]
        for code in each.instructions:
            operands = [
                operand.target
                if isinstance(operand, Label)
                else operand.slot
                if isinstance(operand, Register)
                else operand
                for operand in code.operands
            ]
            number = code.origin.number if code.origin else None
            found.append((code.opcode, code.guard, operands, number))
    return found


def test_a_range_hides_no_register_of_a_scope_round_it() -> None:
    """``%r<3>`` for ``%r2`` alone would declare another ``%r1``."""
    inner = ("{", "L:", "op.b32 %r1, 1;", "bra L;", ".reg .b32 %r2;", "op.b32 %r2, 1;", "}")
    outer = ("bra L;", "op.b32 %r1, 1;", ".reg .b32 %r2;", "op.b32 %r2, 1;", "L:")
    module = parse(wrap("\n".join((".reg .b32 %r1;", *inner, *outer))))
    assert meaning(parse(to_text(module))) == meaning(module)


@given(programs())
def test_a_random_program_comes_back(program: Program) -> None:
    module = parse(wrap(finished(program)[0]))
    text = to_text(module)
    again = parse(text)
    assert meaning(again) == meaning(module)
    assert to_text(again) == text


EVERYTHING = (
    HEADER
    + """
.extern .shared .align 1024 .b8 dynamic[];
.global .align 1 .b8 format[3] = {37, 100, 0};
.const .align 4 .f32 table[2] = {0f3F800000, 0fBF800000};
.visible .entry k(.param .align 64 .b8 k_0[128], .param .u32 k_1, .param .u64 k_2)
.reqntid 128, 1, 1
.minnctapersm 1
.maxnreg 128
{
    .shared .align 16 .b8 fixed[64];
    .local .align 16 .b8 depot[32];
    .reg .pred %p<4>; .reg .b16 %rs<9>; .reg .b32 %r<40>; .reg .b64 %rd<20>;
    .reg .v4 .f32 v;
    ld.param.b64 %rd1, [k_2];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %tid.x;
    mov.b32 %r2, dynamic;
    mov.b64 %rd2, k_0;
    cvta.param.u64 %rd2, %rd2;
    ld.const.v2.b32 {%r3, _}, [table];
    ld.global.v4.f32 v, [%rd1];
    add.f32 v.x, v.y, 0f40490FDB;
    add.f32 v.r, v.w, 1.5;
    st.global.v4.b32 [%rd1+16], {0, 0x10, -1, 017};
    mov.b64 {%r4, %r5}, %rd1;
    mov.b32 %r6, {%rs1, %rs2};
    setp.lt.and.s32 %p1|%p2, %r4, %r5, !%p3;
    elect.sync _|%p3, -1;
    @!%p3 bra $skip;
    // begin inline asm
    // end inline asm
    // begin inline asm
    { .reg .pred P1; LAB_WAIT: mbarrier.try_wait.parity.shared.b64 P1, [%r2+8], %r1, 10000000;
      @P1 bra.uni DONE; bra.uni LAB_WAIT; DONE: }
    // end inline asm
    // begin inline asm
    { .reg .pred P1; LAB_WAIT: mbarrier.try_wait.parity.shared.b64 P1, [fixed+16], 0, 10000000;
      @P1 bra.uni DONE; bra.uni LAB_WAIT; DONE: }
    // end inline asm
$skip:
    { .reg .b128 handle; mov.b128 handle, {%rd1, %rd2}; mov.b128 {%rd3, %rd4}, handle; }
    { .reg .b128 handle; mov.b128 handle, {%rd3, %rd4}; mov.b128 {%rd1, %rd5}, handle; }
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
        [%r2+1024], [%rd2, {%r4, %r5}], [%r2];
    cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes
        [%r2+1024], [%rd2, {%r4, %r5, %r5, %r4}], [%r2], {%rs1, %rs2};
    mbarrier.arrive.shared::cluster.b64 _, [%r2];
    and.b32 %r7, %r1, 1;
    ts: .branchtargets $a, $b;
    brx.idx %r7, ts;
$a: st.local.b32 [depot+-0], %r6;
    st.global.f32 [%rd1+-8], v.x;
$b: st.global.b32 [%rd1], %r3;
    bar.sync 0;
    @%p1 bra $a;
    ret;
}
"""
)


def test_every_form_comes_back_exactly() -> None:
    module = parse(EVERYTHING)
    text = to_text(module)
    assert without_lines(parse(text)) == without_lines(module)
    assert "P1_2" not in text
    assert text.count("LAB_WAIT:") == 2


def test_calls_come_back() -> None:
    module = parse(
        wrap(".reg .b64 d; { .param .b64 p; .param .b32 r; st.param.b64 [p], d; "
             "call.uni (r), vprintf, (p, p); call.uni f, (p); call.uni g; }")
    )  # fmt: skip
    assert without_lines(parse(to_text(module))) == without_lines(module)


def test_namesakes_that_no_braces_can_part_get_a_suffix() -> None:
    module = parse(
        wrap("{ .reg .b32 x; op x; { .reg .b32 x; op x; } op x; }"
             "{ .reg .b16 x; op x; { .reg .b32 x; op x; } op x; }")
    )  # fmt: skip
    again = parse(to_text(module))
    assert meaning(again) == meaning(module)
    assert [each.name for each in again.entries[0].registers] == ["x", "x", "x_2", "x"]


def test_registers_called_like_a_variable_or_numbered_strangely() -> None:
    many = "%r" + "9" * 5000
    module = parse(
        wrap(
            ".reg .b32 %r<9>, %r07, %r1000000000, x; .reg .b64 %q3; .reg .b32 %q4;"
            f".reg .b32 {many}; op %r3, %r07, %r1000000000, x, %q3, %q4, {many};"
            "{ .shared .b32 x, %r3; op x, %r3; } { .reg .b64 P_0; op P_0, %r3; } op P_0, g;",
            module=".global .b32 g;\n",
        )
    )
    again = parse(to_text(module))
    assert [[type(o) for o in each.operands] for each in again.entries[0].instructions] == [
        [type(o) for o in each.operands] for each in module.entries[0].instructions
    ]
    assert meaning(again) == meaning(module)


def without(module: Module, dropped: int) -> Module:
    """``module`` with one instruction less; labels move up."""

    def moved(operand: Operand) -> Operand:
        if isinstance(operand, Vector):
            return Vector(tuple(map(moved, operand.items)))
        if isinstance(operand, Label) and operand.target > dropped:
            return Label(operand.name, operand.target - 1)
        return operand

    (kernel,) = module.entries
    kept = [each for each in kernel.instructions if each.index != dropped]
    code = tuple(
        replace(each, index=index, operands=tuple(map(moved, each.operands)))
        for index, each in enumerate(kept)
    )
    return replace(module, entries=(replace(kernel, instructions=code),))


def test_every_kernel_with_an_instruction_dropped_can_be_printed() -> None:
    module = parse(EVERYTHING)
    for dropped in range(len(module.entries[0].instructions)):
        mutant = without(module, dropped)
        text = to_text(mutant)
        again = parse(text)
        (wanted,), (got,) = mutant.entries, again.entries
        assert [each.opcode for each in got.instructions] == [
            each.opcode for each in wanted.instructions
        ]
        assert [each.origin and each.origin.number for each in got.instructions] == [
            each.origin and each.origin.number for each in wanted.instructions
        ]
        slots = {}
        for old, new in zip(wanted.instructions, got.instructions, strict=True):
            for one, other in zip(old.operands, new.operands, strict=True):
                if isinstance(one, Register) and isinstance(other, Register):
                    assert slots.setdefault(one.slot, other.slot) == other.slot
                elif isinstance(one, Label):
                    assert one == other
        assert to_text(again) == text


def test_a_branch_into_an_inner_scope_takes_its_braces_away() -> None:
    module = parse(EVERYTHING)
    (kernel,) = module.entries
    inside = next(each for each in kernel.instructions if each.guard and each.origin).index
    code = list(kernel.instructions)
    code[-2] = replace(code[-2], operands=(Label("$inside", inside),))
    again = parse(to_text(replace(module, entries=(replace(kernel, instructions=tuple(code)),))))
    got = again.entries[0]
    assert got.instructions[-2].operands == (Label("$inside", inside),)
    assert [each.slot for each in got.registers] == [each.slot for each in kernel.registers]
    (wait, _, _, other_wait) = got.instructions[inside - 1 : inside + 3]
    assert wait.operands[0] != other_wait.operands[0]


@needs_ptxas
@pytest.mark.parametrize("edit", ["as it is", "a namesake outside"])
def test_the_assembler_makes_the_same_of_both(edit: str, tmp_path: Path) -> None:
    text = EVERYTHING
    if edit != "as it is":
        text = text.replace(".reg .v4", ".reg .b128 handle; .reg .v4").replace(
            "bar.sync 0;", "mov.b128 handle, {%rd1, %rd5}; mov.b128 {%rd1, %rd2}, handle;"
        )
    assert PTXAS
    printed = to_text(parse(text))
    assert assemble(PTXAS, printed, tmp_path) == assemble(PTXAS, text, tmp_path)


@needs_ptxas
def test_the_assembler_notices_a_wrong_print(tmp_path: Path) -> None:
    assert PTXAS
    printed = to_text(parse(EVERYTHING))
    for old, new in (("+1024]", "+1040]"), ("[%rd1+16]", "[%rd1+32]"), ("@!%p3", "@%p3")):
        assert old in printed
        wrong = printed.replace(old, new, 1)
        assert assemble(PTXAS, wrong, tmp_path) != assemble(PTXAS, printed, tmp_path)


def test_many_statements_take_little_time() -> None:
    chunk = (
        "\tadd.s32 \t%r{0}, %r{1}, 32;\n\tld.shared.v4.b32 \t{{%r{0}, %r{1}, _, 0}}, [%r{0}+{0}];\n"
        "\t// begin inline asm\n\t{{\n.reg .pred P1;\nW: op P1, [%r{0}];\n@P1 bra D;\nbra W;\nD:\n"
        "}}\n\t// end inline asm\n\tmov.f32 %r{0}, 0f{0:08X};\n"
    )
    body = ".reg .b32 %r<2000>;\n" + "".join(chunk.format(n, n + 1) for n in range(1050))
    started = time.process_time()
    got = entry(body)
    assert len(got.instructions) == 6300
    assert time.process_time() - started < 1.0  # 0.15 s on a free core


@pytest.mark.slow
def test_our_own_kernel_comes_back(tmp_path: Path) -> None:
    signature = KernelSignature(DType.BF16, 64, 64, True, 1)
    generated = render(signature, KernelConfig(), load_arch("sm90"))
    with CompilePool(1, 60.0, ArtifactCache(tmp_path / "cache")) as pool:
        text = pool.submit(generated).result().ptx()
    module = parse(text, target="sm_90a")
    (kernel,) = module.entries
    assert without_lines(parse(to_text(module))) == without_lines(module)
    # Counted in the text, by the semicolons that end statements.
    code = [line.partition("//")[0] for line in text[text.index("{\n") :].splitlines()]
    ended = [statement for line in code for statement in line.split(";")[:-1]]
    wanted = [each for each in ended if not each.strip("{} \t").startswith(".")]
    assert len(kernel.instructions) == len(wanted) > 1000
    lines = text.splitlines()
    for each in kernel.instructions:
        assert each.opcode in lines[each.line - 1]
        assert each.line >= (each.origin.first_line if each.origin else 0)
    blocks = {each.origin.number for each in kernel.instructions if each.origin}
    assert len(blocks) == text.count("// begin inline asm")
    assert any("wgmma.mma_async" in each.opcode for each in kernel.instructions)
    assert kernel.variables == ()
    assert module.variables[0].is_extern
