"""``call`` of ``vprintf``, the one function of the system that kernels use.

What it prints is kept in ``Grid.printed``, a text for each active lane, lowest first.

Source: PTX ISA 9.1, section 9.7.12.5 (call); CUDA C++ programming guide, "Formatted Output"
(arguments lie in a buffer, each aligned to its own size; the result is their number).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np

from fa4gen.emulator.builder import LANES, Builder
from fa4gen.emulator.memory import Block
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.spaces import GENERIC, PARAM, read, write
from fa4gen.emulator.warp import Warp
from fa4gen.ptx.ir import Operand, Symbol, Vector

FORMAT = re.compile(r"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+)?)?(hh|h|ll|l|j|z|t|L)?([a-zA-Z%])")
_WIDE = ("l", "ll", "j", "z", "t")
"""Lengths of integers of 64 bits; all others have 32."""
_LONGEST = 1 << 16
"""Bytes of a string in which its end is looked for."""

Fetch = Callable[[int, int], bytes]
"""``fetch(address, size)``: bytes at a generic address, as one lane sees them."""


@instruction("call", pipe=Pipe.CONTROL, isa="9.7.12.5")
def call(b: Builder) -> Op:
    """Call ``vprintf(format, arguments)``."""
    b.mods.ignore("uni")
    results, function, arguments = _parts(b)
    if not isinstance(function, Symbol) or function.name != "vprintf":
        name = function.name if isinstance(function, Symbol) else "a function by its address"
        b.fail(f"got {name}, known: vprintf (inline all other functions)")
    if len(arguments) != 2 or len(results) > 1:  # noqa: PLR2004  # vprintf has two
        b.fail(f"got {len(arguments)} arguments, vprintf has a format and a buffer")
    form, buffer = (b.src(each, 64) for each in arguments)
    result = b.src(results[0], 64) if results else None

    def run(warp: Warp) -> None:
        forms = read(warp, PARAM, warp.regs[form], 64, 1)[0]
        buffers = read(warp, PARAM, warp.regs[buffer], 64, 1)[0]
        counts = np.zeros((1, LANES), np.uint32)
        outer = warp.mask
        printed = warp.cta.cluster.grid.printed
        for lane in warp.lanes():
            warp.mask = np.arange(LANES) == lane
            try:
                text, counts[0, lane] = _print(warp, int(forms[lane]), int(buffers[lane]))
            finally:
                warp.mask = outer
            printed.append(text)
        if result is not None:
            write(warp, PARAM, warp.regs[result], 32, counts)

    return run


def _parts(b: Builder) -> tuple[tuple[Operand, ...], Operand, tuple[Operand, ...]]:
    """Results, function and arguments."""
    operands = b.inst.operands
    results: tuple[Operand, ...] = ()
    if operands and isinstance(operands[0], Vector):
        results, operands = operands[0].items, operands[1:]
    if not operands:
        b.fail("got no function")
    arguments = operands[1].items if len(operands) > 1 and isinstance(operands[1], Vector) else ()
    return results, operands[0], arguments


def _print(warp: Warp, form: int, buffer: int) -> tuple[str, int]:
    """What one lane prints, and how many arguments that took. The lane is the warp's mask."""

    def fetch(address: int, size: int) -> bytes:
        block, at = _find(warp, address, size)
        return block.data[at : at + size].tobytes()

    def text(address: int) -> str:
        block, at = _find(warp, address, 1)
        until = block.data[at : at + _LONGEST].tobytes().partition(b"\0")[0]
        return until.decode("utf-8", "replace")

    arguments = _Arguments(fetch, buffer)
    pieces, last, template = [], 0, text(form)
    for match in FORMAT.finditer(template):
        pieces += [template[last : match.start()], _convert(match, arguments, text)]
        last = match.end()
    return "".join([*pieces, template[last:]]), arguments.taken


def _find(warp: Warp, address: int, size: int) -> tuple[Block, int]:
    block, offsets = GENERIC.locate(warp, np.array([address], np.uint64), size, 1)
    return block, int(offsets[0])


class _Arguments:
    """The arguments in their buffer, one after the other."""

    def __init__(self, fetch: Fetch, address: int) -> None:
        self._fetch, self._base, self._at = fetch, address, 0
        self.taken = 0

    def take(self, kind: str) -> int | float:
        """The next one, of a ``struct`` type."""
        size = struct.calcsize(kind)
        self._at = -(-self._at // size) * size
        (value,) = struct.unpack(f"<{kind}", self._fetch(self._base + self._at, size))
        self._at += size
        self.taken += 1
        number: int | float = value
        return number


def _convert(match: re.Match[str], arguments: _Arguments, text: Callable[[int], str]) -> str:
    """One conversion of the format; one that C does not know is printed as it stands."""
    flags, width, precision, length, kind = match.groups()
    if kind == "%":
        return "%"
    if kind not in _CONVERSIONS:
        return match[0]
    width, precision = (arguments.take("i") if each == "*" else each for each in (width, precision))
    narrow, wide, shown = _CONVERSIONS[kind]
    value: int | float | str = arguments.take(wide if length in _WIDE else narrow)
    if kind == "s":
        value = text(int(value))
    elif kind == "c":
        value = int(value) & 0xFF
    elif kind == "p":
        value = hex(int(value))
    elif kind in "aA":
        value = float(value).hex()
    point = f".{precision or 0}" if "." in match[0] and kind not in "aApc" else ""
    formatted = f"%{flags}{'' if width is None else width}{point}{shown}" % value
    return formatted.upper() if kind == "A" else formatted


_CONVERSIONS = {
    **dict.fromkeys("di", ("i", "q", "d")),
    "u": ("I", "Q", "d"),
    **{kind: ("I", "Q", kind) for kind in "oxX"},
    **{kind: ("d", "d", kind) for kind in "eEfFgG"},
    **dict.fromkeys("aA", ("d", "d", "s")),
    "c": ("i", "i", "c"),
    **dict.fromkeys("sp", ("Q", "Q", "s")),
}
"""Types of the argument, short and long, and the conversion in Python."""
