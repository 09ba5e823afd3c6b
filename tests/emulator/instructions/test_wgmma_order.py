"""What orders a ``wgmma``: fences for its registers, groups for its operands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from async_kernels import POLICIES
from ptx_kernel import run_ptx

from fa4gen.emulator.emulate import Emulation
from fa4gen.emulator.findings import FindingKind

A_BYTES, B_BYTES = 64 * 16 * 2, 8 * 16 * 2
ONES = 0x3C003C00
"""Two f16 of 1."""
STRIDES = (256 >> 4) << 32 | (128 >> 4) << 16
"""Of a matrix descriptor: 256 bytes from 8 rows to the next, 128 from 8 columns to the next."""
HEAD = f"""
.reg .pred %p<4>; .reg .b32 %r<24>; .reg .b64 %rd<8>;
mov.u32 %r0, %tid.x; mov.u32 %r1, smem; shl.b32 %r2, %r0, 2; add.u32 %r2, %r1, %r2;
mov.u32 %r3, {ONES:#x}; mov.u32 %r4, 0;
FILL: st.shared.u32 [%r2], %r3; add.u32 %r2, %r2, 512; add.u32 %r4, %r4, 512;
setp.lt.u32 %p0, %r4, {A_BYTES + 512}; @%p0 bra FILL;
fence.proxy.async.shared::cta; bar.sync 0;
shr.u32 %r4, %r1, 4; cvt.u64.u32 %rd1, %r4; or.b64 %rd1, %rd1, {STRIDES};
add.s64 %rd2, %rd1, {A_BYTES >> 4};
"""
FENCE, COMMIT = "wgmma.fence.sync.aligned;\n", "wgmma.commit_group.sync.aligned;\n"
WAIT = "wgmma.wait_group.sync.aligned 0;\n"
D = "{%r10, %r11, %r12, %r13}"
OUT = """
ld.param.u64 %rd3, [out]; mul.wide.u32 %rd4, %r0, 16; add.s64 %rd3, %rd3, %rd4;
st.global.v4.b32 [%rd3], {%r10, %r11, %r12, %r13}; ret;
"""


def wgmma(accumulate: int) -> str:
    """D = A B, or D = A B + D; A is 64 x 16 and B 16 x 8, all ones: the product is 16."""
    return f"""
setp.ne.b32 %p1, {accumulate}, 0;
wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {D}, %rd1, %rd2, %p1, 1, 1, 0, 0;
"""


START = FENCE + wgmma(0) + COMMIT + WAIT


def run(body: str, policy: str = "eager") -> tuple[npt.NDArray[np.float32], Emulation]:
    out = np.zeros((128, 4), np.float32)
    emulation = run_ptx(
        HEAD + body + OUT, {"out": out}, block=128, smem=4096, target="sm_90a", policy=policy
    )
    return out, emulation


@pytest.mark.parametrize("policy", POLICIES)
def test_no_fence_is_due_while_nobody_touches_the_accumulator(policy: str) -> None:
    """As in the main loop of CUTLASS's dense_gemm_persistent, which fences once for each tile."""
    out, emulation = run(START + wgmma(1) + COMMIT + WAIT + wgmma(1) + COMMIT + WAIT, policy)
    assert emulation.findings == ()
    assert (out == 48).all()


@pytest.mark.parametrize("touch", ["add.f32 %r10, %r10, %r10;", "add.f32 %r20, %r11, %r11;"])
def test_a_fence_is_due_when_somebody_has(touch: str) -> None:
    """Written or only read: the next product must not overtake it (PTX ISA 9.7.15.7.1)."""
    again = wgmma(1) + COMMIT + WAIT
    _, emulation = run(START + touch + again)
    assert {f.kind for f in emulation.findings} == {FindingKind.RACE}
    assert "was touched since the last wgmma.fence" in str(emulation.findings[0])
    _, emulation = run(START + touch + FENCE + again)
    assert emulation.findings == ()


def test_clearing_behind_the_fence_is_let_pass() -> None:
    """NVVM moves it there, whatever the source says."""
    clear = "mov.b32 %r10, 0; mov.b32 %r11, %r10; mov.b32 %r12, %r10; mov.b32 %r13, %r10;\n"
    out, emulation = run(FENCE + clear + wgmma(1) + COMMIT + WAIT)
    assert emulation.findings == ()
    assert (out == 16).all()
    computed = clear + "cvt.rn.f32.u32 %r10, %r0;\n"
    _, emulation = run(FENCE + computed + wgmma(1) + COMMIT + WAIT)
    assert "%r10 was touched since the last wgmma.fence" in str(emulation.findings[0])


def test_the_first_one_needs_a_fence() -> None:
    _, emulation = run(wgmma(0) + COMMIT + WAIT)
    assert "no wgmma.fence before" in str(emulation.findings[0])


def test_an_accumulator_is_not_there_before_the_wait() -> None:
    _, emulation = run(FENCE + wgmma(0) + COMMIT)
    assert {f.kind for f in emulation.findings} >= {FindingKind.FAULT}
    assert "before wgmma.wait_group has waited for it" in str(emulation.findings[0])


NEIGHBOUR = """
add.u32 %r5, %r0, 32; and.b32 %r5, %r5, 127; shl.b32 %r5, %r5, 4; add.u32 %r5, %r1, %r5;
mov.u32 %r6, 0; st.shared.v4.u32 [%r5], {%r6, %r6, %r6, %r6};
"""
"""Each warp clears the 512 bytes of A behind its own 512 bytes, which another warp multiplies."""


@pytest.mark.parametrize("policy", POLICIES)
def test_a_group_is_over_for_all_warps_at_once(policy: str) -> None:
    """As CUTLASS's fmha for Hopper overwrites Q with O, each warp behind its own wait."""
    out, emulation = run(START + NEIGHBOUR, policy)
    assert emulation.findings == ()
    assert (out == 16).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_it_is_not_over_without_the_wait(policy: str) -> None:
    _, emulation = run(FENCE + wgmma(0) + COMMIT + NEIGHBOUR + WAIT, policy)
    assert {f.kind for f in emulation.findings} & {FindingKind.RACE, FindingKind.NOT_COMPLETED}


def test_a_wait_wants_the_whole_warpgroup() -> None:
    """Warp 3 never commits: the others say for whom they wait."""
    absent = "setp.ge.u32 %p2, %r0, 96; @%p2 bra LATE;\n"
    late = "bra OVER; LATE: bar.sync 1, 128; OVER:\n"
    _, emulation = run(absent + FENCE + wgmma(0) + COMMIT + WAIT + "bar.sync 1, 128;\n" + late)
    (found,) = emulation.findings
    assert found.kind is FindingKind.DEADLOCK
    assert "warps [3] of its warpgroup to commit wgmma group 1" in found.message
