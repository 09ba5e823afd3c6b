"""Registers that a kernel reads and nothing writes: what compilers may leave so, and what not."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernel import run_ptx

from fa4gen.emulator.findings import FindingKind

HEAD = """
.reg .b16 %rs<4>; .reg .b32 %r<8>; .reg .b64 %rd<8>;
ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4;
add.u64 %rd1, %rd1, %rd2;
"""
LANES = np.arange(32, dtype=np.float32)


def test_the_other_half_of_a_packed_pair_may_be_undefined() -> None:
    """As NVVM compiles CUTLASS's basic_types example for sm_100a: %r3 is the compiler's undef."""
    out = np.zeros(32, np.float32)
    body = """
    cvt.rn.f32.u32 %r2, %r1; mov.b64 %rd3, {%r2, %r3}; add.f32x2 %rd4, %rd3, %rd3;
    mov.b64 {%r4, _}, %rd4; st.global.b32 [%rd1], %r4; ret;
    """
    emulation = run_ptx(HEAD + body, {"out": out})
    assert emulation.findings == ()
    np.testing.assert_array_equal(out, LANES * 2)


def test_the_undefined_half_holds_no_number() -> None:
    """So that a kernel which does use it cannot come out right by chance."""
    out = np.zeros(32, np.float32)
    body = "mov.b64 %rd3, {%r1, %r3}; mov.b64 {_, %r4}, %rd3; st.global.b32 [%rd1], %r4; ret;"
    assert run_ptx(HEAD + body, {"out": out}).findings == ()
    assert np.isnan(out).all()
    body = """
    mov.u16 %rs1, 7; mov.b32 %r3, {%rs1, %rs2}; st.global.b32 [%rd1], %r3; ret;
    """
    assert run_ptx(HEAD + body, {"out": out}).findings == ()
    np.testing.assert_array_equal(out.view(np.uint32), np.full(32, 0xFFFF0007, np.uint32))


@pytest.mark.parametrize(
    "body",
    [
        "add.u32 %r4, %r1, %r3; mov.b64 %rd3, {%r1, %r1};",
        "mov.b64 %rd3, {%r1, %r3}; @%p1 bra $L; $L: mov.u32 %r4, %r1;",
        "@!%p2 bra $L; mov.u32 %r3, 1; $L: mov.b64 %rd3, {%r1, %r3}; mov.b64 {_, %r4}, %rd3;",
    ],
)
def test_any_other_use_is_a_fault(body: str) -> None:
    """Arithmetic; a predicate; and a register that has a writer, whom control has passed by."""
    out = np.zeros(32, np.float32)
    head = HEAD + ".reg .pred %p<3>; setp.eq.u32 %p2, %r1, 99;\n"
    (found,) = run_ptx(head + body + "st.global.b32 [%rd1], %r4; ret;", {"out": out}).findings
    assert found.kind is FindingKind.FAULT
    assert "read before anything wrote it" in found.message
