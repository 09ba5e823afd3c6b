"""The linker on hand-made objects: every relocation is executed, every defect is refused."""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from object_file import ABSOLUTE, CODE, DATA, GLOBAL, WEAK, ObjectFile

from fa4gen.core.errors import CaptureFailed
from fa4gen.emulator.launch.linker import LoadedObject

ANSWER = ctypes.CFUNCTYPE(ctypes.c_uint64)(lambda: 4242)
ANSWER_AT = ctypes.cast(ANSWER, ctypes.c_void_p).value
RIP = b"\x48\x8d\x05\x00\x00\x00\x00"  # lea rax, [rip]
TO_R11 = b"\x49\xbb" + bytes(8)  # mov r11, imm64
ADD = b"\x4c\x01\xd8"  # add rax, r11
LOAD = b"\x48\x8b\x00"  # mov rax, [rax]
RET = b"\xc3"


def resolve(name: str) -> int | None:
    return ANSWER_AT if name == "answer" else None


def run(made: ObjectFile) -> tuple[int, LoadedObject]:
    loaded = LoadedObject(made.build(), resolve)
    entry = loaded.address("entry")
    assert entry is not None
    return ctypes.CFUNCTYPE(ctypes.c_uint64)(entry)(), loaded


SYMBOLS = [("entry", CODE, 0, GLOBAL), ("value", DATA, 4, GLOBAL), ("answer", 0, 0, GLOBAL)]
VALUE, EXTERNAL, GOT = 2, 3, 4
"""Indices of symbols: of the last two above, and of the table's."""


def got_symbols() -> list[tuple[str, int, int, int]]:
    return [*SYMBOLS, ("_GLOBAL_OFFSET_TABLE_", 0, 0, GLOBAL)]


@pytest.mark.parametrize("kind", [2, 4], ids=["PC32", "PLT32"])
def test_32_bit_distance_to_data(kind: int) -> None:
    # lea rax, [rip + value]; ret
    code = b"\x48\x8d\x05" + bytes(4) + RET
    got, loaded = run(ObjectFile(code, symbols=SYMBOLS, relocations=[(CODE, 3, kind, VALUE, -4)]))
    assert got == loaded.address("value")


def test_call_of_a_function_that_is_far_away() -> None:
    # sub rsp, 8; call answer; add rsp, 8; ret
    code = b"\x48\x83\xec\x08\xe8" + bytes(4) + b"\x48\x83\xc4\x08" + RET
    got, loaded = run(ObjectFile(code, symbols=SYMBOLS, relocations=[(CODE, 5, 4, EXTERNAL, -4)]))
    assert got == 4242
    entry = loaded.address("entry") or 0
    (distance,) = struct.unpack_from("<i", loaded.bytes_from(entry), 5)
    # Not called itself, which works only where it happens to be near, but by a jump of the object.
    assert loaded.bytes_from(entry + 9 + distance).startswith(b"\xff\x25")


@pytest.mark.parametrize("kind", [9, 41, 42], ids=["GOTPCREL", "GOTPCRELX", "REX_GOTPCRELX"])
def test_slot_of_the_offset_table(kind: int) -> None:
    # mov rax, [rip + slot of answer]; ret
    code = b"\x48\x8b\x05" + bytes(4) + RET
    got, _ = run(ObjectFile(code, symbols=SYMBOLS, relocations=[(CODE, 3, kind, EXTERNAL, -4)]))
    assert got == ANSWER_AT


def test_64_bit_address_in_code_and_data() -> None:
    # mov rax, imm64; mov rax, [rax]; ret, with the address of `value` in data and of data in code
    code = b"\x48\xb8" + bytes(8) + LOAD + RET
    relocations = [(CODE, 2, 1, VALUE, -4), (DATA, 0, 1, EXTERNAL, 5)]
    got, _ = run(ObjectFile(code, symbols=SYMBOLS, relocations=relocations))
    assert ANSWER_AT is not None
    assert got == ANSWER_AT + 5


def test_64_bit_distance() -> None:
    code = RIP + TO_R11 + ADD + RET
    # rax is the address behind the lea, at 7; the place of the number is at 9
    got, loaded = run(ObjectFile(code, symbols=SYMBOLS, relocations=[(CODE, 9, 24, VALUE, 2)]))
    assert got == loaded.address("value")


def test_large_model_reaches_a_function_by_its_slot() -> None:
    code = RIP + TO_R11 + ADD + TO_R11 + ADD + LOAD + RET
    relocations = [(CODE, 9, 29, GOT, 2), (CODE, 22, 27, EXTERNAL, 0)]
    got, _ = run(ObjectFile(code, symbols=got_symbols(), relocations=relocations))
    assert got == ANSWER_AT


def test_large_model_reaches_data_by_its_distance_from_the_table() -> None:
    code = RIP + TO_R11 + ADD + TO_R11 + ADD + RET
    relocations = [(CODE, 9, 29, GOT, 2), (CODE, 22, 25, VALUE, 3)]
    got, loaded = run(ObjectFile(code, symbols=got_symbols(), relocations=relocations))
    address = loaded.address("value")
    assert address is not None
    assert got == address + 3


def test_constructors_run() -> None:
    counted: list[int] = []
    hook = ctypes.CFUNCTYPE(None)(lambda: counted.append(1))
    relocations = [(DATA, 0, 1, 1, 0), (DATA, 8, 1, 1, 0)]
    made = ObjectFile(RET, bytes(16), [("hook", 0, 0, GLOBAL)], relocations, ".init_array")
    LoadedObject(made.build(), lambda name: ctypes.cast(hook, ctypes.c_void_p).value)
    assert counted == [1, 1]


def test_a_symbol_out_of_reach_is_refused() -> None:
    symbols = [("entry", CODE, 0, GLOBAL), ("far", ABSOLUTE, 1 << 62, GLOBAL)]
    made = ObjectFile(bytes(16), symbols=symbols, relocations=[(CODE, 0, 2, 2, 0)])
    with pytest.raises(CaptureFailed, match="position-independent"):
        LoadedObject(made.build(), resolve)


def test_code_is_not_writable_while_it_runs() -> None:
    code = b"\x48\x8d\x05" + bytes(4) + RET
    _, loaded = run(ObjectFile(code, symbols=SYMBOLS, relocations=[(CODE, 3, 2, VALUE, -4)]))
    rights = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, flags, *_ = line.split()
        low, high = (int(end, 16) for end in span.split("-"))
        for name in ("entry", "value"):
            if low <= (loaded.address(name) or 0) < high:
                rights[name] = flags[:3]
    assert rights == {"entry": "r-x", "value": "rw-"}


def test_weak_symbols_may_be_missing_others_may_not() -> None:
    code = b"\x48\xb8" + bytes(8) + RET
    made = ObjectFile(code, symbols=[("entry", CODE, 0, GLOBAL), ("maybe", 0, 0, WEAK)])
    made.relocations = [(CODE, 2, 1, 2, 0)]
    assert run(made)[0] == 0
    made.symbols[1] = ("surely", 0, 0, GLOBAL)
    with pytest.raises(CaptureFailed, match="calls surely, which launch capture does not answer"):
        run(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": 183}, "for machine 183, allowed: type 1 .* for machine 62"),
        ({"kind": 3}, "ELF type 3"),
        ({"relocations": [(CODE, 0, 23, 1, 0)]}, "relocation type 23 in .text"),
        ({"relocations": [(CODE, 0, 1, 9, 0)]}, "relocation outside"),
        ({"relocations": [(CODE, 4000, 1, 1, 0)]}, "relocation outside"),
        ({"data_flags": 0x403}, "thread-local"),
        ({"symbols": [("pool", 0xFFF2, 8, GLOBAL)]}, "pool as a common symbol"),
    ],
)
def test_objects_that_cannot_be_linked(change: dict[str, object], message: str) -> None:
    made = ObjectFile(bytes(16), symbols=list(SYMBOLS))
    for name, value in change.items():
        setattr(made, name, value)
    with pytest.raises(CaptureFailed, match=message):
        LoadedObject(made.build(), resolve)


def test_every_truncation_is_refused() -> None:
    whole = ObjectFile(RET * 16, symbols=list(SYMBOLS), relocations=[(DATA, 0, 1, 1, 0)]).build()
    LoadedObject(whole, resolve)
    for size in range(len(whole)):
        with pytest.raises(CaptureFailed, match="host object"):
            LoadedObject(whole[:size], resolve)


def _scrambled(at: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, at, value)


@pytest.mark.parametrize(
    "damage",
    [
        _scrambled(4, "<B", 1),  # 32-bit
        _scrambled(5, "<B", 2),  # big-endian
        _scrambled(0x28, "<Q", 1 << 40),  # where the section headers are
        _scrambled(0x3C, "<H", 9999),  # how many
        _scrambled(0x3E, "<H", 77),  # which one has the names
    ],
)
def test_damaged_headers_are_refused(damage: Callable[[bytearray], None]) -> None:
    data = bytearray(ObjectFile(RET, symbols=list(SYMBOLS)).build())
    damage(data)
    with pytest.raises(CaptureFailed, match="host object"):
        LoadedObject(bytes(data), resolve)


def test_other_machines_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(CaptureFailed, match="type aarch64, allowed: x86_64"):
        LoadedObject(ObjectFile(RET).build(), resolve)


def test_memory_outside_of_the_object_is_not_read() -> None:
    loaded = LoadedObject(ObjectFile(RET, b"12345678", list(SYMBOLS)).build(), resolve)
    address = loaded.address("value")
    assert address is not None
    assert loaded.bytes_from(address - 4).startswith(b"12345678")
    for outside in (address - (1 << 20), address + (1 << 20)):
        with pytest.raises(CaptureFailed, match="outside of its object"):
            loaded.bytes_from(outside)
