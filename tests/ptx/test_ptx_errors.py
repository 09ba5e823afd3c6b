"""What is refused, and with which words."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_text import HEADER, REGISTERS, entry, wrap

from fa4gen.core.errors import EmulationError, PtxError
from fa4gen.ptx import parse

FIRST = 5 + REGISTERS.count("\n")
"""Line of the statement after ``REGISTERS``."""


def message(text: Any) -> str:
    with pytest.raises(PtxError) as caught:
        parse(text)
    assert isinstance(caught.value, EmulationError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "PTX: got an empty text, expected one that starts with .version"),
        (" \n\0\0", "PTX: got an empty text, expected one that starts with .version"),
        (
            "\x7fELF\x02\x01\x01",
            "PTX: got an ELF file (a cubin: machine code), expected text that starts with "
            ".version; keep the PTX when compiling",
        ),
        (b"\x7fELF", "PTX: got an object of type bytes, expected the text as a str"),
        (HEADER + "\n\x00abc", "PTX line 5: got the control byte '\\x00', expected plain text"),
        ("hello world", "PTX line 1: the text ends inside a statement: got 'hello world', "
         "expected ';' (is the file truncated?)"),
        ("x = 1;", "PTX line 1: the start of the file: got 'x = 1', expected .version"),
        (".target sm_90a", "PTX line 1: the start of the file: got '.target sm_90a', "
         "expected .version"),
        ("\n.version 8.8\n.entry k() {}", "PTX line 3: the second directive: got "
         "'.entry k() {', expected .target"),
        (".version eight", "PTX line 1: the start of the file: got '.version eight', "
         "expected .version"),
        (HEADER, "PTX: got a file without .entry, expected a kernel (is it truncated?)"),
        (".version 8.8\n.target sm_90a\n.address_size 32",
         "PTX line 3: .address_size: got '32', expected 64"),
        (HEADER + "ret;", "PTX line 4: outside of any entry: got 'ret', expected "
         ".entry, .func or a variable"),
        (HEADER + ".entry k();", "PTX line 4: an entry without a body: got 'k()', expected '{'"),
        (HEADER + ".entry k(.param .b32 a, .param .b32 a) {}",
         "PTX line 4: a parameter declared twice: got 'a', expected a name for each"),
        (HEADER + ".entry k() {}\n.entry k() {}",
         "PTX line 5: an entry defined twice: got 'k', expected a name of its own for each"),
        (HEADER + ".reg .b32 x;", "PTX line 4: a declaration outside of any entry: got "
         "'.reg .b32 x', expected .shared, .global or .const"),
        (HEADER + ".global .b32 x = y;", "PTX line 4: an initialiser: got 'y', expected a number "
         "(addresses and nested braces are not known)"),
        (HEADER + ".global .u8 x = 256;", "PTX line 4: an initialiser of type .u8: got '256', "
         "expected a value of 8 bits"),
        (HEADER + ".global .u8 x[1] = {1, 2};", "PTX line 4: an initialiser: got "
         "'x[1] = {1, 2}', expected at most the 1 bytes of the variable"),
        (HEADER + ".shared .align 3 .b8 x[4];",
         "PTX line 4: .align: got '3', expected a power of two"),
        (HEADER + ".shared .b8 x[];", "PTX line 4: an array without a length: got 'x[]', "
         "expected a length, or an initialiser"),
    ],
)  # fmt: skip
def test_files(text: object, expected: str) -> None:
    assert message(text) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("add.s32 %r1, %r2, x;", "an unknown name: got 'x', expected a register or variable "
         "declared in this scope"),
        ("mov.u32 %r1, %tid.q;", "an unknown name: got '%tid.q', expected a register or variable "
         "declared in this scope"),
        ("op %r1 %r2;", "an operand: got '%r1 %r2', expected a register, a literal, a variable, "
         "'_', '{...}', '[...]', '!p' or 'd|p' (is a ';' missing?)"),
        ("op %r1, %r2\nsub.s32 %r1, %r2;", "an operand: got '%r2 sub.s32 %r1', expected a "
         "register, a literal, a variable, '_', '{...}', '[...]', '!p' or 'd|p' (is a ';' "
         "missing?)"),
        ("op {%r1, %r2;", "a list of operands: got '{%r1, %r2', expected operands between "
         "commas, every bracket closed"),
        ("op [%r1, {%r2];", "an address: got '[%r1, {%r2]', expected [base], [base+offset], "
         "[base-offset] or [base, {coordinates}]"),
        ("op {%r1,, %r2};", "a list of operands: got '%r1,, %r2', expected operands between "
         "commas, every bracket closed"),
        ("op {};", "a list of operands: got '', expected operands between commas, every bracket "
         "closed"),
        ("op %r1,;", "an operand: got '', expected a register"),
        ("op [%r1*4];", "an address: got '[%r1*4]', expected [base], [base+offset], "
         "[base-offset] or [base, {coordinates}]"),
        ("op [_+4];", "an address: got '[_+4]', expected a register, a variable or an integer "
         "as its base"),
        ("op [%r1+%r2];", "an address: got '[%r1+%r2]', expected [base]"),
        ("op [%r1+x];", "a literal: got 'x', expected an integer, 0f and 8 digits, or 0d and 16 "
         "digits"),
        ("op !%r1;", "a predicate: got '%r1', expected a register of type .pred"),
        ("@%r1 op;", "a predicate: got '%r1', expected a register of type .pred"),
        ("@q op;", "an unknown name: got 'q', expected a register or variable declared in"),
        ("op %r1|5;", "a pair of results: got '%r1|5', expected a register or '_' on either "
         "side of '|'"),
        ("op 0f3F8;", "an f32 literal: got '0f3F8', expected 8 hexadecimal digits"),
        ("op 0d3F800000;", "an f64 literal: got '0d3F800000', expected 16 hexadecimal digits"),
        ("op.f32 1e39;", "an f32 literal: got '1e+39', expected a number below 2**128"),
        ("op 0x1g;", "a literal: got '0x1g', expected an integer, 0f and 8 digits, or 0d and"),
        ("op 09;", "a literal: got '09', expected an integer, 0f and 8 digits, or 0d and 16"),
        ("op 18446744073709551616;", "an integer: got '18446744073709551616', expected one of 64 "
         "bits, -2**63 to 2**64 - 1"),
        ("op -9223372036854775809;", "an integer: got '-9223372036854775809', expected one of 64 "
         "bits, -2**63 to 2**64 - 1"),
        (f"op {'9' * 6000};", f"an integer: got '{'9' * 90}...', expected one of 64 bits"),
        ("bra;", "bra: got '', expected one label"),
        ("brx.idx;", "brx.idx: got '', expected an index and the name of a .branchtargets"),
        ("call.uni;", "call.uni: got '', expected a function, its results before it and "
         "arguments behind it"),
        ("call.uni [%r1];", "an operand of a call: got '[%r1]', expected (results), a function "
         "or (arguments)"),
        ("bra %r1, %r2;", "bra: got '%r1, %r2', expected one label"),
        ("bra [%r1];", "a branch target: got '[%r1]', expected a label"),
        ("bra NOWHERE;", "a branch to an unknown label: got 'NOWHERE', expected a label of this "
         "scope or around it"),
        ("brx.idx %r1;", "brx.idx: got '%r1', expected an index and the name of a .branchtargets"),
        ("L: brx.idx %r1, L;", "brx.idx: got 'L', expected the name of a .branchtargets of this "
         "scope"),
        ("L: t: .branchtargets L; bra t;", "a branch to an unknown label: got 't', expected a "
         "label of this scope or around it"),
        ("t: .branchtargets M; brx.idx %r1, t;", "a branch to an unknown label: got 'M', "
         "expected a label of this scope or around it"),
        (".branchtargets A;", ".branchtargets: got 'A', expected a label in front of it"),
        ("p: .callprototype _;", "an indirect call: got '.callprototype _', expected calls by "
         "name"),
        ("Op.b32 %r1;", "an instruction: got 'Op.b32 %r1', expected [@[!]predicate] opcode "
         "operands;"),
        ("@%p1;", "an instruction: got '@%p1', expected [@[!]predicate] opcode operands;"),
        ("?;", "not a statement: got '?;', expected a label, a directive, an instruction, "
         "'{' or '}'"),
        (".reg .f31 x;", "a declaration: got '.f31', expected a state space or one of pred, b8,"),
        (".reg x;", "a declaration: got '.reg x', expected a state space and a type"),
        (".reg .b32 x[4];", "a declaration of registers: got 'x[4]', expected name or "
         "name<count>"),
        (".shared .pred x;", "a declaration of a variable: got 'x', expected name, name[count]"),
        (".section .s { }", "a directive inside a body: got '.section .s { }', expected a "
         "declaration or an instruction"),
        (".entry j() {", "a directive inside a body: got '.entry j() {', expected a declaration"),
        ("/* never closed", "a comment that does not end: got '/* never closed', expected '*/'"),
    ],
)  # fmt: skip
def test_statements(statement: str, expected: str) -> None:
    got = message(wrap(REGISTERS + statement))
    assert got.startswith(f"PTX line {FIRST}: {expected}")


def test_a_body_without_its_end() -> None:
    text = wrap(REGISTERS + "{ op %r1;")
    assert message(text) == (
        "PTX line 4: the body of k: got the end of the text with 1 open '{', expected as many '}' "
        "(is the file truncated?)"
    )
    cut = text[: text.rindex(" op")]
    assert "with 2 open '{'" in message(cut)
    assert message(text[: text.rindex(";")]) == (
        f"PTX line {FIRST}: the text ends inside a statement: got 'op %r1', expected ';' "
        "(is the file truncated?)"
    )


def test_a_directive_that_no_entry_has() -> None:
    got = message(wrap("ret;").replace("{\n", ".fast 3 {\n"))
    assert got.startswith("PTX line 4: a directive of an entry: got '.fast 3', expected .reqntid")


@given(st.integers(0, len(wrap(REGISTERS)) + 200))
def test_cut_anywhere_is_an_error(size: int) -> None:
    text = wrap(
        REGISTERS
        + "// begin inline asm\n{ .reg .pred P; L: @P bra L; /* c */ op.b32 {%r1, _}, [%rd1+8]; }\n"
        '// end inline asm\n.pragma "nounroll"; op %r1|%p1, 0f3F800000;'
    )
    if size < len(text) - 2:
        message(text[:size])


@given(st.text(alphabet="{}[]()<>;:,.|!@_%$\"'/*\\ \n0x1fabr", max_size=40))
def test_no_text_does_worse_than_ptx_error(noise: str) -> None:
    with suppress(PtxError):
        entry(f"{REGISTERS}{noise};op %r1;")
