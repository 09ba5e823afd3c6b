"""``vprintf``, against the C library's own formatting."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest
from per_lane import run_lanes

from fa4gen.core.errors import UnsupportedInstruction

LIBC = ctypes.CDLL(None)
CALL = """{{ .param .b64 param0; .param .b64 param1; .param .b32 retval0;
st.param.b64 [param0], {form}; st.param.b64 [param1], {buffer};
call.uni (retval0), vprintf, (param0, param1); ld.param.b32 count, [retval0]; }}"""


def printed(text: str, stores: str, lanes: str = "") -> tuple[list[str], np.ndarray]:
    """What lane 0 to 31 print, their buffer filled by ``stores`` to ``[sp+...]``."""
    raw = text.encode() + b"\0"
    body = f""".global .align 1 .b8 form[{len(raw)}] = {{{", ".join(map(str, raw))}}};
    .local .align 8 .b8 depot[64]; .reg .b64 spl, sp, format; mov.b64 spl, depot;
    cvta.local.u64 sp, spl; {stores} mov.b64 format, form; cvta.global.u64 format, format;
    mov.b32 count, 99; {lanes} {CALL.format(form="format", buffer="sp")}
    SKIP:"""
    out, run = run_lanes(body, {}, {"count": "u4"})
    assert run.ok, run.findings
    return list(run.printed), out["count"]


def c_text(text: str, *arguments: object) -> str:
    """What ``snprintf`` makes of it."""
    room = ctypes.create_string_buffer(500)
    LIBC.snprintf(room, 500, text.encode(), *arguments)
    return room.value.decode()


def double(value: float) -> str:
    return f"0d{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%d|", -5),
        ("%5d|", -5),
        ("%-6i|", 17),
        ("%05d|", 42),
        ("%+d|", 42),
        ("%.4d|", 42),
        ("%u|", -1),
        ("%x|", -1),
        ("%#X|", 48879),
        ("%o|", 64),
        ("%c|", 65),
        ("%3c|", 65),
        ("%hhd|", 5),
    ],
)
def test_integers_of_32_bits(text: str, value: int) -> None:
    lines, counts = printed(text, f"st.b32 [sp], {value};")
    assert lines == [c_text(text, ctypes.c_int(value))] * 32
    assert set(counts) == {1}


@pytest.mark.parametrize(
    ("text", "value"), [("%ld|", -(1 << 40)), ("%llu|", 1 << 63), ("%zx|", 0xDEADBEEF5)]
)
def test_integers_of_64_bits(text: str, value: int) -> None:
    lines, _ = printed(text, f"st.b64 [sp], {value};")
    assert set(lines) == {c_text(text, ctypes.c_longlong(value))}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%f|", 1.5),
        ("%.3f|", -2.0625),
        ("%10.2e|", 12345.678),
        ("%g|", 1e-7),
        ("%G|", 1e20),
        ("%.f|", 2.5),
        ("% .1f|", 3.25),
        ("%f|", float("inf")),
    ],
)
def test_floats(text: str, value: float) -> None:
    lines, _ = printed(text, f"st.b64 [sp], {double(value)};")
    assert set(lines) == {c_text(text, ctypes.c_double(value))}


def test_arguments_lie_at_multiples_of_their_size() -> None:
    stores = f"st.b32 [sp], tid; st.b64 [sp+8], {double(0.5)}; st.b32 [sp+16], 7;"
    lines, counts = printed("lane %d: %.1f%% of %u\n", stores)
    assert lines == [f"lane {lane}: 0.5% of 7\n" for lane in range(32)]
    assert set(counts) == {3}


def test_widths_and_precisions_from_the_arguments() -> None:
    stores = f"st.b32 [sp], 8; st.b32 [sp+4], 2; st.b64 [sp+8], {double(3.14159)};"
    lines, counts = printed("%*.*f|", stores)
    assert set(lines) == {"    3.14|"}
    assert set(counts) == {3}


def test_strings_and_addresses() -> None:
    stores = """.global .align 1 .b8 name[4] = {97, 98, 99}; .reg .b64 s; mov.b64 s, name;
    cvta.global.u64 s, s; st.b64 [sp], s; st.b64 [sp+8], 4096;"""
    lines, _ = printed("<%5s> %p", stores)
    assert set(lines) == {"<  abc> 0x1000"}


def test_only_active_lanes_print() -> None:
    lanes = ".reg .pred p; setp.gt.u32 p, tid, 2; @p bra SKIP;"
    lines, counts = printed("hello %d", "st.b32 [sp], tid;", lanes)
    assert lines == ["hello 0", "hello 1", "hello 2"]
    assert counts.tolist() == [1, 1, 1, *[99] * 29]


def test_what_c_does_not_know_is_printed_as_it_stands() -> None:
    lines, counts = printed("%q %%", "")
    assert set(lines) == {"%q %"}
    assert set(counts) == {0}


@pytest.mark.parametrize("line", ["call.uni helper, ();", "call.uni (word), vprintf, (at);"])
def test_other_functions_are_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)
