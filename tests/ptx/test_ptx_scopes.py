"""Scopes of registers and labels, blocks of inline assembly, lines."""

from __future__ import annotations

import pytest
from ptx_text import entry, wrap

from fa4gen.core.errors import PtxError
from fa4gen.ptx import Entry, Instruction, Label, Origin, Register, Vector, parse

WAIT = """\
// begin inline asm
{
.reg .pred       P1;
LAB_WAIT:
mbarrier.try_wait.parity.shared.b64 P1, [%r1], %r2, 10000000;
@P1 bra.uni DONE;
bra.uni     LAB_WAIT;
DONE:
}
// end inline asm
"""


def registers(each: Instruction) -> list[Register]:
    return [operand for operand in each.operands if isinstance(operand, Register)]


def target(each: Instruction) -> int:
    (label,) = each.operands
    assert isinstance(label, Label)
    return label.target


def test_the_same_block_many_times() -> None:
    got = entry(".reg .b32 %r<3>;\n" + WAIT * 300)
    waits, leaves, loops = (got.instructions[n::3] for n in range(3))
    assert [target(each) for each in leaves] == [3 * n + 3 for n in range(300)]
    assert [target(each) for each in loops] == [3 * n for n in range(300)]
    predicates = [registers(each)[0] for each in waits]
    assert {p.name for p in predicates} == {"P1"}
    assert len({p.slot for p in predicates}) == 300
    assert [each.guard.register for each in leaves if each.guard] == predicates
    assert [r.slot for r in got.registers] == list(range(302))
    assert got.instructions[-1].operands == (Label("LAB_WAIT", 897),)
    assert target(leaves[-1]) == len(got.instructions), "a label may end the body"


def test_origins_are_numbered_and_know_their_line() -> None:
    got = entry(
        "op;\n"
        "// begin inline asm\nop;\nop;\n// end inline asm\n"
        "// a comment\n"
        "//begin inline asm of nothing\n// end inline asm\n"
        "op; /* begin inline asm */ op;\n"
        "\t// begin inline asm\n\t{ op; }\n\t// end inline asm\n"
        "op;"
    )
    first, third = Origin(0, 6), Origin(2, 14)
    assert [each.origin for each in got.instructions] == [
        *(None, first, first),
        *(None, None),
        *(third, None),
    ]


def test_blocks_without_braces_share_their_registers() -> None:
    got = entry(
        """
        // begin inline asm
        .reg .b64 fa_desc_<3>; .reg .b32 lo, hi;
        mov.b64 {lo, hi}, fa_desc_2;
        // end inline asm
        { .reg .b32 lo; op lo, hi; }
        // begin inline asm
        add.u32 lo, lo, 2048;
        mov.b64 fa_desc_2, {lo, hi};
        // end inline asm
        """
    )
    unpack, inner, step, pack = got.instructions
    lo, hi = Register("lo", 0, "b32"), Register("hi", 1, "b32")
    desc = Register("fa_desc_2", 2, "b64")
    assert unpack.operands == (Vector((lo, hi)), desc)
    assert inner.operands == (Register("lo", 3, "b32"), hi)
    assert registers(step) == [lo, lo]
    assert pack.operands == (desc, Vector((lo, hi)))


def test_a_scope_hides_what_it_declares_from_then_on() -> None:
    got = entry(
        """
        .reg .b32 x;
        op x;
        { op x; .reg .b16 x; op x; { op x; .reg .pred x; op x; } op x; }
        op x;
        """
    )
    slots = [registers(each)[0].slot for each in got.instructions]
    kinds = [registers(each)[0].type for each in got.instructions]
    assert slots == [0, 0, 1, 1, 2, 1, 0]
    assert kinds == ["b32", "b32", "b16", "b16", "pred", "b16", "b32"]


def test_what_a_scope_declared_ends_with_it() -> None:
    with pytest.raises(PtxError, match=r"^PTX line 7: an unknown name: got 'x', expected "):
        entry("{\n.reg .b32 x; op x; }\nop x;")


def test_labels_of_inner_and_outer_scopes() -> None:
    got = entry(
        """
        L: bra L;
        { bra L; { bra L; bra M; } L: bra L; }
        bra M;
        M:
        """
    )
    assert [target(each) for each in got.instructions] == [0, 4, 4, 6, 4, 6]


def test_a_label_of_an_inner_scope_is_not_seen_outside() -> None:
    with pytest.raises(PtxError, match=r"^PTX line 6: a branch to an unknown label: got 'IN', "):
        entry("{ IN: op; }\nbra IN;")


def test_slots_number_the_registers_that_are_used() -> None:
    got = entry(".reg .b32 %r<5000>; .reg .pred %p<9>;\n@%p3 op %r7, [%r4999], {%r0, %r7};")
    assert got.registers == (
        Register("%p3", 0, "pred"),
        Register("%r7", 1, "b32"),
        Register("%r4999", 2, "b32"),
        Register("%r0", 3, "b32"),
    )


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        (".pred x", "pred"),
        (".b8 x", "b8"),
        (".u8 x", "b8"),
        (".s16 x", "b16"),
        (".f16 x", "b16"),
        (".bf16 x", "b16"),
        (".f32 x", "b32"),
        (".u32 a, x, b", "b32"),
        (".f16x2 x", "b32"),
        (".f64 x", "b64"),
        (".s64  \tx", "b64"),
        (".b128 x", "b128"),
    ],
)
def test_register_types_are_widths(declared: str, kind: str) -> None:
    got = entry(f".reg {declared}; op x;")
    assert got.registers == (Register("x", 0, kind),)


def test_prefixes_that_end_with_digits() -> None:
    got = entry(".reg .b32 d<2>, e; .reg .b64 d1_<3>; .reg .b16 f1<12>; op d1, d1_2, f10, f111;")
    assert [(each.name, each.type) for each in got.registers] == [
        ("d1", "b32"),
        ("d1_2", "b64"),
        ("f10", "b16"),
        ("f111", "b16"),
    ]


@pytest.mark.parametrize("name", ["%r3", "%r01", "%r", "%r-1", "%R1", "%r1x", "%r" + "1" * 5000])
def test_names_that_a_range_does_not_declare(name: str) -> None:
    with pytest.raises(PtxError, match="got '%"):
        entry(f".reg .b32 %r<3>; op {name};")


@pytest.mark.parametrize(
    "body",
    [
        ".reg .b32 x; .reg .b16 x;",
        ".reg .b32 x, y, x;",
        ".reg .b32 %r<3>; .reg .b32 %r2;",
        ".reg .b32 %r2; .reg .b32 %r<3>;",
        ".reg .b32 %r<3>; .reg .b64 %r<2>;",
        ".reg .b32 x; .shared .b32 x;",
        ".reg .v2 .b32 x; .reg .b32 x;",
        "L: op; L: op;",
    ],
)
def test_nothing_is_declared_twice_in_a_scope(body: str) -> None:
    with pytest.raises(PtxError, match="twice"):
        entry(body)


def test_variables_of_scopes_have_names_of_their_own() -> None:
    got = entry(
        """
        .reg .b32 %r<4>;
        .shared .align 16 .b8 tile[64];
        mov.b32 %r0, tile;
        { .shared .align 16 .b8 tile[64]; mov.b32 %r1, tile; }
        { mov.b32 %r2, tile; }
        """
    )
    assert [v.name for v in got.variables] == ["tile", "tile_2"]
    assert [str(each.operands[1]) for each in got.instructions] == [
        "Symbol(name='tile', space='shared')",
        "Symbol(name='tile_2', space='shared')",
        "Symbol(name='tile', space='shared')",
    ]


def test_lines_count_through_comments_and_line_ends() -> None:
    text = wrap("op.a; // one\n/* two\nthree */ op.b;\n\n\n op.c\n;\nop.d; op.e;")
    for ending in ("\n", "\r\n"):
        (got,) = parse(text.replace("\n", ending)).entries
        assert {each.opcode: each.line for each in got.instructions} == {
            "op.a": 5,
            "op.b": 7,
            "op.c": 10,
            "op.d": 12,
            "op.e": 12,
        }
        assert got.line == 4


def test_comments_end_where_they_should() -> None:
    got = entry(
        'op /* ; } */ .b32; // ; { "\n.pragma "// no comment; {";\nop2; // begin inline\nop3;'
    )
    assert [each.opcode for each in got.instructions] == ["op.b32", "op2", "op3"]
    assert all(each.origin is None for each in got.instructions)


def test_an_empty_body() -> None:
    assert entry("") == Entry("k", entry("").params, (), (), line=4)
