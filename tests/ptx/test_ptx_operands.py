"""Every form of operand, guard and opcode."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_text import REGISTERS, entry, only, operands

from fa4gen.ptx import (
    Address,
    Guard,
    Immediate,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)


def r(name: str, slot: int, kind: str = "b32") -> Register:
    return Register(name, slot, kind)


R1, R2, R3 = r("%r1", 0), r("%r2", 1), r("%r3", 2)
D0 = r("%rd0", 0, "b64")

FORMS: dict[str, tuple[Operand, ...]] = {
    "%r1, %r2": (R1, R2),
    "%tid.x, %laneid": (Special("%tid.x"), Special("%laneid")),
    "%cluster_ctaid.y, %globaltimer": (Special("%cluster_ctaid.y"), Special("%globaltimer")),
    "WARP_SZ": (Immediate(32),),
    "[%r1]": (Address(R1),),
    "[%r1+88]": (Address(R1, 88),),
    "[%r1+-8]": (Address(R1, -8),),
    "[%r1-8]": (Address(R1, -8),),
    "[ %r1 + 0x8 ]": (Address(R1, 8),),
    "[P_0]": (Address(Symbol("P_0", "param")),),
    "[P_0+8]": (Address(Symbol("P_0", "param"), 8),),
    "[P_0+-8]": (Address(Symbol("P_0", "param"), -8),),
    "[64]": (Address(Immediate(64)),),
    "[0x40+4]": (Address(Immediate(64), 4),),
    "P_0": (Symbol("P_0", "param"),),
    "{%r1, %r2}": (Vector((R1, R2)),),
    "{_, %r1}": (Vector((Sink(), r("%r1", 0))),),
    "{%r1, _}": (Vector((R1, Sink())),),
    "{0,0,0,0}": (Vector((Immediate(0),) * 4),),
    "{%r1, 0x40004040}": (Vector((R1, Immediate(0x40004040))),),
    "{%r1}, [%r2]": (Vector((R1,)), Address(R2)),
    "%r1|%p0": (Pair(R1, r("%p0", 1, "pred")),),
    "_|%p0, -1": (Pair(Sink(), r("%p0", 0, "pred")), Immediate(-1)),
    "%p0 | %p1": (Pair(r("%p0", 0, "pred"), r("%p1", 1, "pred")),),
    "_, [%r1], %r2": (Sink(), Address(R1), R2),
    "%r1, !%p2": (R1, Negated(r("%p2", 1, "pred"))),
    "[%rd0, {%r1}]": (Address(D0, 0, (r("%r1", 1),)),),
    "[%r3], [%rd0, {%r1, 0, %r2}], [%r1]": (
        Address(r("%r3", 0)),
        Address(r("%rd0", 1, "b64"), 0, (r("%r1", 2), Immediate(0), r("%r2", 3))),
        Address(r("%r1", 2)),
    ),
    # im2col: the offsets follow the barrier.
    "[%r1], [%rd0, {%r2,%r2,%r2}], [%r3], {%rs1, %rs2}, %rd0": (
        Address(R1),
        Address(r("%rd0", 1, "b64"), 0, (r("%r2", 2),) * 3),
        Address(r("%r3", 3)),
        Vector((r("%rs1", 4, "b16"), r("%rs2", 5, "b16"))),
        r("%rd0", 1, "b64"),
    ),
    "[%rd0 + 64, {%r1, %r2}]": (Address(D0, 64, (r("%r1", 1), r("%r2", 2))),),
    "%big, {%rd0, %rd1}": (
        r("%big", 0, "b128"),
        Vector((r("%rd0", 1, "b64"), r("%rd1", 2, "b64"))),
    ),
}


@pytest.mark.parametrize("text", FORMS)
def test_form(text: str) -> None:
    assert operands(text) == FORMS[text]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1", -1),
        ("+7", 7),
        ("4611686293305360386", 4611686293305360386),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0x40004040", 0x40004040),
        ("0X8200490U", 0x8200490),
        ("-0x10", -16),
        ("017", 15),
        ("00", 0),
        ("0b1011", 11),
        ("0B11U", 3),
        ("12U", 12),
    ],
)
def test_integers(text: str, value: int) -> None:
    assert operands(text) == (Immediate(value),)


@given(st.integers(-(2**63), 2**64 - 1), st.sampled_from(["d", "#x", "#X", "#b"]))
def test_any_integer_in_any_base(value: int, base: str) -> None:
    sign = "-" if value < 0 else ""
    text = sign + format(abs(value), base).replace("X", "x")
    assert operands(text) == (Immediate(value),)


@given(st.integers(0, 2**64 - 1))
def test_any_octal(value: int) -> None:
    assert operands(f"0{value:o}") == (Immediate(value),)


@given(st.floats(width=32), st.booleans(), st.booleans())
def test_f32_bits(value: float, upper_prefix: bool, upper_digits: bool) -> None:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    digits = f"{bits:08X}" if upper_digits else f"{bits:08x}"
    text = ("0F" if upper_prefix else "0f") + digits
    assert operands(text, "mov.f32") == (Immediate(bits, is_float=True, bits=32),)


@given(st.floats(), st.sampled_from("dD"))
def test_f64_bits(value: float, letter: str) -> None:
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    assert operands(f"0{letter}{bits:016x}", "mov.f64") == (Immediate(bits, True, 64),)


@given(st.floats(-3e38, 3e38))
def test_decimals_take_the_width_of_the_instruction(value: float) -> None:
    text = f"{value:.20e}"
    (wide,) = struct.unpack("<Q", struct.pack("<d", value))
    (narrow,) = struct.unpack("<I", struct.pack("<f", value))
    assert operands(text, "add.f64") == (Immediate(wide, True, 64),)
    assert operands(text, "add.f32") == (Immediate(narrow, True, 32),)
    assert operands(f"{{{text}, 0}}", "st.v2.f32") == (
        Vector((Immediate(narrow, True, 32), Immediate(0))),
    )
    assert operands(f"0d{wide:016X}", "add.f32") == (Immediate(narrow, True, 32),)


@pytest.mark.parametrize("text", [".5", "0.5", "+.5", "5e-1", "50.E-2", "0d3FE0000000000000"])
def test_spellings_of_a_half(text: str) -> None:
    assert operands(f"%r1,{text}", "add.f32")[1] == Immediate(0x3F000000, True, 32)


def test_a_fraction_of_createpolicy_is_an_f32() -> None:
    got = operands("%rd1, 1.0", "createpolicy.fractional.L2::evict_last.b64")
    assert got[1] == Immediate(0x3F800000, True, 32)


@pytest.mark.parametrize(
    ("text", "guard"),
    [
        ("@%p1 op;", Guard(r("%p1", 0, "pred"))),
        ("@!%p1 op;", Guard(r("%p1", 0, "pred"), negated=True)),
        ("@ ! %p1\n\top;", Guard(r("%p1", 0, "pred"), negated=True)),
        ("op;", None),
    ],
)
def test_guards(text: str, guard: Guard | None) -> None:
    got = only(text)
    assert (got.opcode, got.guard, got.operands) == ("op", guard, ())


def test_named_registers_and_guards() -> None:
    got = only(
        "@leader_thread tcgen05.mma.cta_group::1.kind::f16 [tmem_acc], [tmem_a + 0x8], d, i, 1;",
        ".reg .pred leader_thread; .reg .b32 tmem_acc, tmem_a, i; .reg .b64 d;",
    )
    assert got.guard == Guard(Register("leader_thread", 0, "pred"))
    assert got.opcode == "tcgen05.mma.cta_group::1.kind::f16"
    assert got.parts == ("tcgen05", "mma", "cta_group::1", "kind::f16")
    assert got.operands[:2] == (
        Address(Register("tmem_acc", 1, "b32")),
        Address(Register("tmem_a", 2, "b32"), 8),
    )


def test_opcode_and_operands_over_several_lines() -> None:
    got = only(
        "cp.async.bulk.tensor.2d\n\t.shared::cluster .global\n.mbarrier::complete_tx ::bytes\n"
        "   [%r1],\n [%rd0,\n {%r2,\n %r3}],\n [%r1]\n;"
    )
    assert got.opcode == (
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
    )
    assert len(got.operands) == 3
    assert got.line == 5 + REGISTERS.count("\n")


@pytest.mark.parametrize(
    "opcode",
    [
        "tcgen05.cp.cta_group::1.128x256b.b8x16.b4x16_p64",
        "st.global.L1::no_allocate.v4.b32",
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16",
        "cp.async.bulk.tensor.4d.shared::cta.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint",
    ],
)
def test_opcodes_as_they_are(opcode: str) -> None:
    assert only(f"{opcode} %r1;").opcode == opcode
    assert only(f"{opcode}[%r1];").operands == (Address(R1),)


def test_vector_registers_select_their_elements() -> None:
    got = entry(
        ".reg .v4 .f32 v; .reg .v2 .b16 w; .reg .b32 x;\n"
        "op.b32 v.y, v.b, w.r; op.v4.b32 v; op.b32 x, v.w;"
    )
    y, z = r("v.y", 0), r("v.z", 1)
    first, second, third = got.instructions
    assert first.operands == (y, z, r("w.x", 2, "b16"))
    assert second.operands == (Vector((r("v.x", 3), y, z, r("v.w", 4))),)
    assert third.operands == (r("x", 5), r("v.w", 4))


def test_a_call_and_the_block_round_it() -> None:
    got = entry(
        """
        .reg .b64 %rd<3>; .reg .b32 %r<2>;
        { // callseq 0, 0
        .param .b64 param0;
        .param .align 16 .b8 param1[32];
        .param .b32 retval0;
        st.param.b64 [param0+0], %rd1;
        call.uni (retval0),
        vprintf,
        (
        param0,
        param1
        );
        ld.param.b32 %r1, [retval0];
        } // callseq 0
        { .param .b64 param0; call.uni other, (param0); call.uni plain; }
        { .param .b32 param0; call.uni (param0), third, (); }
        """
    )
    calls = [each for each in got.instructions if each.opcode == "call.uni"]
    first = Symbol("param0", "param")
    assert [each.operands for each in calls] == [
        (
            Vector((Symbol("retval0", "param"),)),
            Symbol("vprintf", "func"),
            Vector((first, Symbol("param1", "param"))),
        ),
        (Symbol("other", "func"), Vector((first,))),
        (Symbol("plain", "func"),),
        (Vector((Symbol("param0_2", "param"),)), Symbol("third", "func"), Vector(())),
    ]
    # Equal areas of calls are one variable; the one of 4 bytes is another.
    assert [(v.name, v.space, v.align, v.size) for v in got.variables] == [
        ("param0", "param", 8, 8),
        ("param1", "param", 16, 32),
        ("retval0", "param", 4, 4),
        ("param0_2", "param", 4, 4),
    ]


def test_a_table_of_branches() -> None:
    got = entry(
        """
        .reg .b32 %r<3>;
        ts: .branchtargets L1, L2, L1;
        brx.idx.uni %r1, ts;
        L1: op;
        L2: ret;
        """
    )
    assert got.instructions[0].operands == (
        r("%r1", 0),
        Vector((Label("L1", 1), Label("L2", 2), Label("L1", 1))),
    )
