"""What the operators change, and that editing keeps the rest of a kernel as it was."""

from __future__ import annotations

import pytest

from fa4gen.ptx import parse
from fa4gen.ptx.ir import Immediate, Label
from mutation.code import Code
from mutation.edits import Edit, apply
from mutation.operators import OPERATORS

EVERYTHING = """
.version 8.8
.target sm_100a
.address_size 64
.visible .entry kernel(.param .u64 out, .param .align 64 .b8 map[128])
.reqntid 128, 1, 1
{
.reg .pred %p<9>;
.reg .b16 %rs<9>;
.reg .b32 %r<99>;
.reg .b64 %rd<9>;
mbarrier.init.shared.b64 [%r1], 1;
fence.mbarrier_init.release.cluster;
bar.sync 0;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
bar.sync 2, 128;
bar.arrive 3, 128;
elect.sync %r2|%p1, -1;
@%p1 bra BEHIND;
mbarrier.arrive.expect_tx.shared.b64 _, [%r1], 4096;
mapa.shared::cluster.u32 %r3, %r1, 0;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster
    [%r4], [%rd1, {%r5, %r6}], [%r3], %rs1;
BEHIND:
WAIT: mbarrier.try_wait.parity.shared.b64 %p2, [%r1], 0;
@%p2 bra OVER;
bra.uni WAIT;
OVER:
ld.shared.b32 %r7, [%r4];
selp.b32 %r8, %r5, %r6, %p1;
fma.rn.f32 %r9, %r7, 0f3D6249DE, 0f3F317218;
st.shared.b32 [%r4], %r9;
mbarrier.arrive.shared.b64 _, [%r1+8];
fence.proxy.async.shared::cta;
cp.async.bulk.commit_group;
cp.async.bulk.wait_group.read 0;
setmaxnreg.inc.sync.aligned.u32 232;
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r10, %r11, %r12, %r13}, %rd2, %rd3, %p1, 1, 1,
    0, 0;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
tcgen05.mma.cta_group::1.kind::f16 [%r14], %rd2, %rd3, %r15, %p1;
tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r1];
tcgen05.ld.sync.aligned.32x32b.x1.b32 {%r16}, [%r14];
tcgen05.wait::ld.sync.aligned;
tcgen05.st.sync.aligned.32x32b.x1.b32 [%r14], {%r16};
tcgen05.wait::st.sync.aligned;
tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r14, 32;
ret;
}
"""


@pytest.fixture(scope="module")
def code() -> Code:
    return Code(parse(EVERYTHING))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_finds_something_and_changes_that_only(code: Code, operator: str) -> None:
    changes = list(OPERATORS[operator](code))
    assert changes
    for change in changes:
        edited = apply(code.module, change.edit).entries[0].instructions
        old = [inst for inst in code.instructions if inst.index not in change.edit.places]
        kept = [inst for inst in edited if inst.line in {each.line for each in old}]
        assert [(inst.line, inst.opcode) for inst in kept] == [
            (inst.line, inst.opcode) for inst in old
        ]
        assert change.site.line not in {inst.line for inst in old}
        assert [inst.index for inst in edited] == list(range(len(edited)))
        whole = [(i.opcode, i.operands, i.guard) for i in edited]
        assert whole != [(i.opcode, i.operands, i.guard) for i in code.instructions]


def test_branches_follow_what_is_dropped_and_put_before(code: Code) -> None:
    """To BEHIND, to WAIT and to OVER; the third has one instruction less before, then two more."""
    named = {"BEHIND": "mbarrier.try_wait", "WAIT": "mbarrier.try_wait", "OVER": "ld.shared"}
    init = code.instructions[0]
    for places in ((), (init, init, init)):
        edited = apply(code.module, Edit({0: places})).entries[0].instructions
        for inst in edited:
            if inst.parts[0] == "bra":
                (label,) = inst.operands
                assert isinstance(label, Label)
                name = label.name.rpartition("$")[2]
                target = edited[label.target].opcode
                assert any(target.startswith(each) for key, each in named.items() if key in name)


def test_a_branch_to_a_dropped_instruction_goes_to_the_next(code: Code) -> None:
    (wait,) = code.find("mbarrier.try_wait")
    edited = apply(code.module, Edit({wait.index: ()})).entries[0].instructions
    targets = [inst.operands[0] for inst in edited if inst.parts[0] == "bra"]
    assert [each.target for each in targets if isinstance(each, Label)] == [
        wait.index, wait.index + 2, wait.index
    ]  # fmt: skip


def test_a_moved_wait_loops_where_it_is_now(code: Code) -> None:
    (change,) = OPERATORS["move-wait"](code)
    edited = apply(code.module, change.edit).entries[0].instructions
    (at,) = (inst.index for inst in edited if "try_wait" in inst.parts)
    assert edited[at - 1].opcode == "ld.shared.b32"
    out, back = edited[at + 1 : at + 3]
    assert isinstance(out.operands[0], Label)
    assert isinstance(back.operands[0], Label)
    assert (out.operands[0].target, back.operands[0].target) == (at + 3, at)


def test_numbers_are_changed_as_said(code: Code) -> None:
    (shrunk,) = OPERATORS["shrink-expect-tx"](code)
    ((new,),) = shrunk.edit.places.values()
    assert new.operands[-1] == Immediate(4080)
    (weaker,) = OPERATORS["weaken-bulk-wait"](code)
    ((new,),) = weaker.edit.places.values()
    assert new.operands == (Immediate(1),)
    first, second = OPERATORS["coefficient"](code), code.find("fma")
    assert {change.site for change in first} == set(second)
