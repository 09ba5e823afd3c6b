"""Which scalar instructions are known and refused, and what moves and carries do to registers."""

from __future__ import annotations

import numpy as np
import pytest
from single import Single, integers, lanes
from vector_file import paths, read

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.pending import UNSET, InFlight
from fa4gen.emulator.registry import Pipe

SEEN = """
add.f16 add.f32 add.f32x2 add.rm.f32x2 add.rn.f32.f16 add.rn.f32x2 add.s16 add.s32 add.s64 add.u32
add.u64 and.b16 and.b32 and.b64 and.pred cvt.f32.bf16 cvt.f32.f16 cvt.f64.f32 cvt.rn.bf16.f32
cvt.rn.bf16x2.f32 cvt.rn.f16x2.f32 cvt.rn.f32.s32 cvt.rn.satfinite.e2m1x2.f32
cvt.rn.satfinite.e4m3x2.f32 cvt.s16.s8 cvt.s32.s16 cvt.s32.s8 cvt.s64.s32 cvt.s8.s32 cvt.u16.u32
cvt.u32.u16 cvt.u32.u64 cvt.u64.u32 cvta.global.u64 cvta.local.u64 cvta.param.u64 cvta.shared.u64
cvta.to.shared::cluster.u64 div.rn.f32 div.s32 div.u32 div.u64 ex2.approx.ftz.f32 fma.rn.f32
fma.rn.f32.bf16 fma.rn.f32x2 lg2.approx.ftz.f32 mad.lo.s32 mad.lo.s64 max.NaN.f32 max.f32 max.s32
max.u16 max.u32 min.s32 min.s64 min.u64 mov.b128 mov.b16 mov.b32 mov.b64 mov.pred mov.u32 mul.f16x2
mul.f32 mul.f32x2 mul.hi.s32 mul.hi.u32 mul.lo.s32 mul.lo.s64 mul.rn.f32x2 mul.wide.s16 mul.wide.s32
mul.wide.u16 mul.wide.u32 neg.f32 neg.s16 neg.s32 not.b16 not.b32 not.pred or.b16 or.b32 or.b64
or.pred popc.b32 rcp.approx.ftz.f32 rcp.rn.f32 selp.b16 selp.b32 selp.b64 selp.f32 setp.eq.b32
setp.eq.f32 setp.equ.f32 setp.ge.f32 setp.ge.s32 setp.ge.u32 setp.gt.s32 setp.gt.u32 setp.le.f32
setp.le.s32 setp.le.s64 setp.leu.f32 setp.lt.f32 setp.lt.s32 setp.lt.s64 setp.lt.u32 setp.ltu.f32
setp.nan.f32 setp.ne.b16 setp.ne.b32 setp.ne.b64 setp.ne.f32 setp.neu.f32 shl.b16 shl.b32 shl.b64
shr.s16 shr.s32 shr.u16 shr.u32 shr.u64 sub.f32 sub.rn.f32x2 sub.s16 sub.s32 sub.s64 xor.b32
xor.pred
"""
"""The scalar instructions that CuTe-DSL was seen to emit for attention, GEMM and its examples."""

REGISTERS = {
    **{f"%r{n}": "b32" for n in range(5)},
    **{f"%rd{n}": "b64" for n in range(4)},
    **{f"%rs{n}": "b16" for n in range(4)},
    **{"%p": "pred", "%q": "pred", "%wide": "b128", "%byte": "b8"},
}


def test_every_instruction_that_is_emitted_has_vectors() -> None:
    known = {vector.opcode for path in paths() for vector in read(path)}
    assert [opcode for opcode in SEEN.split() if opcode not in known] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("add.rn.oob.f32 %r0, %r1, %r2;", "modifier .oob"),
        ("add.f32 %r0, %r1, 1;", "literal 1 where an f32 belongs"),
        ("add.f32 %r0, %r1, %rd1;", "b64 register"),
        ("add.s32 _, %r1, %r2;", "_ as its only result"),
        ("add.s32 %r0, %r1;", "got 2 operands"),
        ("add.q32 %r0, %r1, %r2;", "type"),
        ("add.sat.u32 %r0, %r1, %r2;", "allowed: s32"),
        ("sub.u16x2 %r0, %r1, %r2;", "u16 to s64"),
        ("mul.s32 %r0, %r1, %r2;", "no .lo, .hi or .wide"),
        ("mul.wide.u64 %rd0, %rd1, %rd2;", ".wide of a 64-bit type"),
        ("fma.f32 %r0, %r1, %r2, %r3;", "no rounding"),
        ("fma.rn.f32.f64 %r0, %r1, %r2, %r3;", "do not mix"),
        ("mad.rn.f32x2 %rd0, %rd1, %rd2, %rd3;", "no f32x2 form"),
        ("fma.rz.f16 %rs0, %rs1, %rs2, %rs3;", "allowed: .rn"),
        ("max.xorsign.f32 %r0, %r1, %r2;", "only one of"),
        ("max.xorsign.abs.f32 %r0, %r1, %r2, %r3;", "three sources"),
        ("max.relu.u32 %r0, %r1, %r2;", "allowed: s32, s16x2"),
        ("shl.u32 %r0, %r1, %r2;", "type .u32"),
        ("shl.b64 %rd0, %rd1, %rd2;", "wanted 32 bits"),
        ("setp.lt.b32 %p, %r1, %r2;", "comparison .lt"),
        ("setp.lo.s32 %p, %r1, %r2;", "comparison .lo"),
        ("setp.equ.s32 %p, %r1, %r2;", "comparison .equ"),
        ("setp.lt.and.s32 %p, %r1, %r2, %r3;", "predicate"),
        ("ex2.f32 %r0, %r1;", "no .approx"),
        ("ex2.approx.ftz.f16 %rs0, %rs1;", "allowed"),
        ("cvt.f32.s32 %r0, %r1;", "no rounding"),
        ("cvt.rn.s32.f32 %r0, %r1;", ".rn"),
        ("cvt.rs.f16x2.f32 %r0, %r1, %r2, %r3;", "got .rs"),
        ("cvt.rn.e4m3x2.f32 %rs0, %r1, %r2;", "no .satfinite"),
        ("cvt.rn.satfinite.relu.f64.f32 %rd0, %r1;", "does not take"),
        ("cvt.u64.u32 %r0, %r1;", "register of 32 bits for u64"),
        ("cvt.u32.u64 %r0, %r1;", "register of 32 bits for u64"),
        ("cvt.pack.sat.u8.s32 %r0, %r1, %r2;", "third source"),
        ("mov.b64 {%r0, %r1, %r2}, %rd0;", "3 parts"),
        ("mov.b64 {_, _}, %rd0;", "every result"),
        ("mov.f32 %r0, 1;", "literal"),
        ("mov.v2.b32 %r0, %r1;", "modifier .v2"),
        ("lop3.b32 %r0, %r1, %r2, %r3, 256;", "0 to 255"),
        ("lop3.and.b32 %r0, %r1, %r2, %r3, 1, %p;", "wanted d|p"),
        ("cvta.shared.u32 %r0, %r1;", "64 bits"),
        ("selp.b8 %byte, %byte, %byte, %p;", "type .b8"),
    ],
)
def test_what_does_not_exist_is_refused(text: str, why: str) -> None:
    with pytest.raises(UnsupportedInstruction) as refused:
        Single.of(text, REGISTERS)
    assert why in str(refused.value)
    assert text.partition(" ")[0] in str(refused.value)


@pytest.mark.parametrize(
    ("text", "pipe"),
    [
        ("add.s32 %r0, %r1, %r2;", Pipe.ALU),
        ("add.f32 %r0, %r1, %r2;", Pipe.FMA),
        ("fma.rn.f32x2 %rd0, %rd1, %rd2, %rd3;", Pipe.FMA),
        ("mul.f16x2 %r0, %r1, %r2;", Pipe.FMA),
        ("fma.rn.f32.bf16 %r0, %rs1, %rs2, %r3;", Pipe.FMA),
        ("max.f32 %r0, %r1, %r2;", Pipe.ALU),
        ("div.full.f32 %r0, %r1, %r2;", Pipe.MUFU),
        ("ex2.approx.ftz.f32 %r0, %r1;", Pipe.MUFU),
        ("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", Pipe.CONVERT),
        ("mov.b64 %rd0, {%r0, %r1};", Pipe.ALU),
    ],
)
def test_the_pipe_is_that_of_the_form(text: str, pipe: Pipe) -> None:
    assert Single.of(text, REGISTERS).warp.program.specs[0].pipe is pipe


def test_a_move_shares_the_array() -> None:
    kernel = Single.of("mov.b32 %r0, %r1;", REGISTERS)
    kernel["%r1"] = lanes(list(range(32)), "b32")
    kernel.run()
    assert kernel["%r0"] is kernel["%r1"]


def test_a_move_hands_on_what_is_still_to_come() -> None:
    kernel = Single.of("mov.b32 %r0, %r1;", REGISTERS)
    promise = InFlight("something slow", 0)
    kernel["%r1"] = promise
    kernel.run()
    assert kernel["%r0"] is promise


@pytest.mark.parametrize("truth", [True, False])
def test_a_selection_on_which_all_lanes_agree_shares_the_array(truth: bool) -> None:
    kernel = Single.of("selp.b32 %r0, %r1, %r2, %p;", REGISTERS)
    kernel["%r1"], kernel["%r2"] = lanes([1] * 32, "b32"), lanes([2] * 32, "b32")
    kernel["%p"] = np.full(32, truth)
    kernel.run()
    assert kernel["%r0"] is kernel["%r1" if truth else "%r2"]


def test_a_register_that_nothing_has_written_is_a_fault() -> None:
    kernel = Single.of("add.s32 %r0, %r1, %r2;", REGISTERS)
    kernel["%r1"] = lanes([1] * 32, "b32")
    kernel["%r2"] = UNSET
    with pytest.raises(KernelFault, match=r"%r2: read before anything wrote it"):
        kernel.warp.run(10)


def test_a_literal_is_as_wide_as_the_type() -> None:
    kernel = Single.of("add.u16 %rs0, %rs1, -1; add.s64 %rd0, %rd1, -1;", REGISTERS)
    kernel["%rs1"], kernel["%rd1"] = lanes([3] * 32, "b16"), lanes([0] * 32, "b64")
    kernel.run()
    assert integers(kernel["%rs0"]) == [2] * 32
    assert integers(kernel["%rd0"]) == [(1 << 64) - 1] * 32


def test_a_special_register_can_be_a_source() -> None:
    text = "mov.u32 %r0, %laneid; add.s32 %r1, %tid.x, 1; cvt.u64.u32 %rd0, %laneid;"
    kernel = Single.of(text, REGISTERS)
    kernel.run()
    assert integers(kernel["%r0"]) == list(range(32))
    assert integers(kernel["%r1"]) == list(range(1, 33))
    assert integers(kernel["%rd0"]) == list(range(32))


def test_the_clock_counts_what_the_cluster_has_executed() -> None:
    kernel = Single.of(
        "mov.u32 %r0, %clock; mov.u64 %rd0, %clock64; mov.u32 %r1, %clock_hi;", REGISTERS
    )
    kernel.warp.cta.cluster.now = (7 << 32) + 5
    kernel.run()
    assert integers(kernel["%r0"]) == [5] * 32
    assert integers(kernel["%rd0"]) == [(7 << 32) + 5] * 32
    assert integers(kernel["%r1"]) == [7] * 32


def test_the_carry_flag_has_to_be_set_before_it_is_read() -> None:
    kernel = Single.of("addc.u32 %r0, 0, 0;", REGISTERS)
    with pytest.raises(KernelFault, match=r"carry flag: read before"):
        kernel.run()


def test_lanes_that_are_off_keep_their_carry() -> None:
    text = "add.cc.u32 %r0, %r1, %r2; addc.u32 %r3, 0, 0;"
    kernel = Single.of(text, REGISTERS)
    kernel["%r1"], kernel["%r2"] = lanes([0xFFFFFFFF] * 32, "b32"), lanes([1] * 32, "b32")
    kernel["%r0"] = kernel["%r3"] = lanes([9] * 32, "b32")
    with np.errstate(all="ignore"):
        kernel.warp.program.ops[0](kernel.warp)
        kernel["%r2"] = lanes([0] * 32, "b32")
        kernel.warp.mask = np.arange(32) < 8
        kernel.warp.program.ops[0](kernel.warp)
        kernel.warp.mask = None
        kernel.warp.program.ops[1](kernel.warp)
    assert integers(kernel["%r3"]) == [0] * 8 + [1] * 24


def test_a_division_by_zero_gives_all_ones() -> None:
    """The ISA leaves it open; this is what the code of ptxas 13.0 gives."""
    kernel = Single.of("div.u32 %r0, %r1, 0; rem.s32 %r2, %r1, 0;", REGISTERS)
    kernel["%r1"] = lanes(list(range(32)), "b32")
    kernel.run()
    assert integers(kernel["%r0"]) == integers(kernel["%r2"]) == [0xFFFFFFFF] * 32


def test_an_address_outside_of_shared_memory_becomes_one_that_is_nowhere() -> None:
    kernel = Single.of("cvta.to.shared.u64 %rd0, %rd1;", REGISTERS)
    kernel["%rd1"] = lanes([0x7F1234567000, 0xA000000000000400] * 16, "b64")
    kernel.run()
    assert integers(kernel["%rd0"]) == [(1 << 64) - 1, 0x400] * 16
