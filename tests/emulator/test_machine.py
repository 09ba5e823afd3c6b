"""Grids, clusters, special registers, and runs that do not end well."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernel import run_ptx

from fa4gen.core.errors import InputError, PtxError, UnsupportedInstruction
from fa4gen.emulator.emulate import Emulation, emulate
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.machine import GridShape

INDEX = """
.reg .b32 %r<20>; .reg .b64 %rd<8>; .reg .pred %p<4>;
ld.param.b64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;
mad.lo.u32 %r4, %r2, %r3, %r1; mul.wide.u32 %rd2, %r4, 4; add.s64 %rd3, %rd1, %rd2;
"""


def special(name: str, grid: int = 4, block: int = 64, cluster: int = 2) -> list[list[int]]:
    """The value of a special register by CTA and thread."""
    out = np.zeros((grid, block), np.uint32)
    body = INDEX + f"mov.u32 %r5, {name}; st.global.b32 [%rd3], %r5; ret;"
    found = run_ptx(body, {"out": out}, grid=grid, block=block, cluster=cluster)
    assert found.findings == ()
    return out.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "by_cta"),
    [
        ("%ctaid.x", [0, 1, 2, 3]),
        ("%nctaid.x", [4] * 4),
        ("%ntid.x", [64] * 4),
        ("%cluster_ctarank", [0, 1, 0, 1]),
        ("%cluster_nctarank", [2] * 4),
        ("%clusterid.x", [0, 0, 1, 1]),
        ("%nclusterid.x", [2] * 4),
        ("%cluster_ctaid.x", [0, 1, 0, 1]),
        ("%nwarpid", [2] * 4),
    ],
)
def test_special_registers_of_a_cta(name: str, by_cta: list[int]) -> None:
    assert special(name) == [[value] * 64 for value in by_cta]


def test_special_registers_of_a_thread() -> None:
    threads = list(range(64))
    assert special("%tid.x")[3] == threads
    assert special("%laneid")[1] == [thread % 32 for thread in threads]
    assert special("%warpid")[2] == [thread // 32 for thread in threads]
    assert special("%lanemask_lt")[0] == [(1 << thread % 32) - 1 for thread in threads]


def test_threads_in_three_dimensions() -> None:
    text = """
.version 8.8
.target sm_100a
.address_size 64
.visible .entry k(.param .u64 out) {
.reg .b32 %r<9>; .reg .b64 %rd<4>;
ld.param.b64 %rd1, [out];
mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ntid.x;
mov.u32 %r5, %ntid.y; mad.lo.u32 %r6, %r3, %r5, %r2; mad.lo.u32 %r6, %r6, %r4, %r1;
mul.wide.u32 %rd2, %r6, 4; add.s64 %rd2, %rd1, %rd2; mad.lo.u32 %r7, %r3, 100, %r2;
mad.lo.u32 %r7, %r7, 100, %r1; st.global.b32 [%rd2], %r7; ret; }
"""
    out = np.zeros(4 * 6 * 2, np.uint32)
    address = out.__array_interface__["data"][0]
    from fa4gen.emulator.memory import Buffer

    shape = GridShape((1, 1, 1), (4, 6, 2))
    params = [address.to_bytes(8, "little")]
    assert emulate(text, shape, params, [Buffer(address, out.nbytes, "out")]).ok
    z, y, x = np.indices((2, 6, 4))
    assert np.array_equal(out.reshape(2, 6, 4), (z * 100 + y) * 100 + x)


def test_a_deadlock_names_every_warp_and_its_barrier() -> None:
    body = """
    .reg .b32 %r<9>; .reg .b64 %rd<3>; .reg .pred %p<3>;
    mov.b32 %r1, smem; mov.u32 %r2, %tid.x; setp.ne.u32 %p1, %r2, 0;
    @%p1 bra $READY;
    mbarrier.init.shared.b64 [%r1], 2; fence.mbarrier_init.release.cluster;
    $READY: bar.sync 0;
    setp.ge.u32 %p1, %r2, 32; @%p1 bra $OTHER;
    setp.ne.u32 %p2, %r2, 0; @%p2 bra $WAIT;
    mbarrier.arrive.shared.b64 _, [%r1];
    $WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [%r1], 0; @!%p1 bra $WAIT; ret;
    $OTHER: bar.sync 3, 64; ret;
    """
    for policy in ("eager", "lazy", "seed:4"):
        (found,) = run_ptx(body, block=64, smem=64, policy=policy).findings
        assert found.kind is FindingKind.DEADLOCK
        assert "2 of 2 warps wait for what cannot happen" in found.message
        assert "mbarrier.try_wait.parity.shared.b64" in found.message
        assert "phase 0, 1 of 2 arrivals pending, 0 bytes outstanding" in found.message
        assert "barrier 3 (32 of 64 threads are there: warps 1)" in found.message


def test_a_kernel_that_never_ends_shows_where_it_spends_its_time() -> None:
    body = ".reg .b32 %r<3>; mov.b32 %r1, 0;\n$L: add.s32 %r1, %r1, 1;\nbra $L;"
    (found,) = run_ptx(body, max_instructions=5000).findings
    assert found.kind is FindingKind.FAULT
    assert "got more than 5000 warp instructions; it may never end" in found.message
    assert "add.s32" in found.message
    assert "bra" in found.message


def one(text: str, params: list[bytes] | None = None) -> Emulation:
    return emulate(text, GridShape((1, 1, 1), (32, 1, 1)), params or [], [])


def entry(body: str, target: str = "sm_90a", params: str = "") -> str:
    head = f".version 8.8\n.target {target}\n.address_size 64\n"
    return f"{head}.visible .entry k({params}) {{ {body} }}\n"


def test_another_architecture_is_refused() -> None:
    with pytest.raises(PtxError, match=r"\.target: got sm_80, emulated: sm_90, sm_90a, sm_100"):
        one(entry("ret;", "sm_80"))


def test_an_unknown_opcode_stops_with_its_line_and_its_block() -> None:
    with pytest.raises(UnsupportedInstruction, match=r"PTX line 4: wibble\.f32: the opcode is not"):
        one(entry("wibble.f32 1;"))
    asm = "// begin inline asm\nwobble;\n// end inline asm\n"
    with pytest.raises(UnsupportedInstruction, match="PTX line 6, inline assembly at line 5"):
        one(entry("\n" + asm))


def test_an_unknown_modifier_stops() -> None:
    body = ".reg .b32 %r<3>; mov.b32 %r1, 1; add.rainbow.s32 %r2, %r1, %r1;"
    with pytest.raises(UnsupportedInstruction, match=r"modifier \.rainbow"):
        one(entry(body))


def test_parameters_that_do_not_match() -> None:
    text = entry("ret;", params=".param .u32 a")
    with pytest.raises(InputError, match="parameters: got 0, kernel k has 1"):
        one(text)
    with pytest.raises(InputError, match="parameter a: got 2 bytes, it has 4"):
        one(text, [b"xx"])


def test_memory_outside_every_tensor() -> None:
    out = np.zeros(31, np.uint32)
    (found,) = run_ptx(INDEX + "st.global.b32 [%rd3], %r1; ret;", {"out": out}).findings
    assert found.kind is FindingKind.FAULT
    assert "past the end of out" in found.message
    assert not out.any()


def test_counts_by_warp() -> None:
    body = """
    .reg .b32 %r<3>; .reg .pred %p<2>;
    mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; @%p1 bra $END; mov.b32 %r2, 1;
    $END: ret;
    """
    found = run_ptx(body, block=64, grid=3)
    assert found.opcode_counts(0)["ret"] == 3
    assert "mov.b32" not in found.opcode_counts(0)
    assert found.opcode_counts(1)["mov.b32"] == 3
    assert found.opcode_counts()["bra"] == 6
    assert found.executed == found.warp_counts.sum() == 3 * (4 + 5)


@pytest.mark.parametrize(
    "body",
    [
        "mov.b32 %r1, 1;",
        "bra $END; $END:",
        "mov.u32 %r1, %laneid; setp.lt.u32 %p1, %r1, 5; @%p1 ret;",
        "ret; $END: bra $END;",
    ],
)
def test_a_body_without_ret_at_its_end(body: str) -> None:
    assert run_ptx(".reg .b32 %r<2>; .reg .pred %p<2>;" + body).ok
