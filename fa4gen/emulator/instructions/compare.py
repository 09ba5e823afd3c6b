"""Comparisons: ``setp`` and ``set`` (PTX ISA 9.7.6, 9.7.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import (
    F32,
    F64,
    RAW,
    SIGNED,
    Array,
    Function,
    floats,
    lanewise,
    negatable,
    results,
    sources,
    store,
    target,
)
from fa4gen.emulator.instructions import packed
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import flush
from fa4gen.numerics.minmax import flush16

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_EQUAL: dict[str, Function] = {"eq": np.equal, "ne": np.not_equal}
_ORDER: dict[str, Function] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_UNSIGNED: dict[str, Function] = {
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def _differ(x: Array, y: Array) -> Array:
    return (x < y) | (x > y)


_FLOAT: dict[str, Function] = {
    "eq": np.equal,
    "ne": _differ,
    **_ORDER,
    "equ": lambda x, y: ~_differ(x, y),
    "neu": np.not_equal,
    "ltu": lambda x, y: ~(x >= y),
    "leu": lambda x, y: ~(x > y),
    "gtu": lambda x, y: ~(x <= y),
    "geu": lambda x, y: ~(x < y),
    "num": lambda x, y: ~(np.isnan(x) | np.isnan(y)),
    "nan": lambda x, y: np.isnan(x) | np.isnan(y),
}
"""Without ``u`` a comparison with a NaN fails, ``ne`` too."""

_ALL = tuple(dict.fromkeys((*_FLOAT, *_UNSIGNED)))
_COMBINE: dict[str, Function] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
_FLOAT_BITS = {"f32": 32, "f64": 64, **packed.TYPES}
_ONES = {16: 0x3C00, 32: 0x3F800000}
_BF16_ONE = 0x3F80


class _Comparison:
    """What follows the mnemonic, and the slots that are compared.

    Attributes:
        function: Of the raw sources: bool, an element a lane, or for a packed type two a lane.
        combine: With the third source; ``None`` if there is none.
    """

    def __init__(self, b: Builder, kind: str) -> None:
        operator = b.mods.one_of(*_ALL)
        joined = b.mods.one_of(*_COMBINE)
        _, x, y, *rest = b.expect(4) if joined else b.expect(3)
        if kind in _FLOAT_BITS:
            width = _FLOAT_BITS[kind]
            read = floats if kind in ("f32", "f64") else sources
            self.slots = read(b, (x, y), width)
            self.function = _compare_floats(b, operator, kind)
        else:
            bits = _integer_bits(b, kind)
            self.slots = sources(b, (x, y), bits)
            self.function = _compare_integers(b, operator, kind, bits)
        self.combine = _COMBINE.get(joined)
        self.third = negatable(b, rest[0]) if rest else None
        self.packed = kind.endswith("x2")

    def joined(self, warp: Warp, truth: Array) -> Array:
        """``truth`` combined with the predicate source, if there is one."""
        if self.combine is None or self.third is None:
            return truth
        return self.combine(truth, self.third(warp))


def _integer_bits(b: Builder, kind: str) -> int:
    if kind[:1] not in "bus" or kind[1:] not in ("16", "32", "64"):
        b.fail(f"got the type .{kind or '(none)'}, which {b.inst.parts[0]} does not take")
    return int(kind[1:])


def _compare_integers(b: Builder, operator: str, kind: str, bits: int) -> Function:
    if operator in _EQUAL:
        return _EQUAL[operator]
    if operator in _UNSIGNED and kind[0] == "u":
        return _UNSIGNED[operator]
    if operator not in _ORDER or kind[0] == "b":
        b.fail(f"got the comparison .{operator or '(none)'}, which .{kind} does not take")
    compare, signed = _ORDER[operator], SIGNED[bits]
    if kind[0] == "u":
        return compare
    return lambda x, y: compare(x.getfield(signed), y.getfield(signed))


def _compare_floats(b: Builder, operator: str, kind: str) -> Function:
    if operator not in _FLOAT:
        b.fail(f"got the comparison .{operator or '(none)'}, which .{kind} does not take")
    compare = _FLOAT[operator]
    ftz = kind in ("f32", "f16", "f16x2") and b.mods.flag("ftz")
    if kind in ("f32", "f64"):
        view = F32 if kind == "f32" else F64
        if ftz:
            return lambda x, y: compare(flush(x.view(view)), flush(y.view(view)))
        return lambda x, y: compare(x.getfield(view), y.getfield(view))
    form, raw = packed.element(kind), RAW[16]

    def value(x: Array) -> Array:
        codes = x.view(raw)
        return decode(flush16(codes) if ftz else codes, form)

    return lambda x, y: compare(value(x), value(y))


@instruction("setp", pipe=Pipe.ALU, isa="9.7.6.2, 9.7.7.2")
def setp(b: Builder) -> Op:
    """A predicate, or two: of the comparison and of its opposite, or of the two halves."""
    comparison = _Comparison(b, b.mods.type())
    p, q = results(b, b.inst.operands[0], 1)
    if comparison.packed:
        return _setp_packed(comparison, p, q)
    if q < 0 and comparison.combine is None and p >= 0:
        return lanewise(comparison.function, p, comparison.slots)
    function, (x, y), joined = comparison.function, comparison.slots, comparison.joined

    def run(warp: Warp) -> None:
        truth = function(warp.regs[x], warp.regs[y])
        value, opposite = joined(warp, truth), joined(warp, ~truth)
        store(warp, p, value)
        store(warp, q, opposite)

    return run


def _setp_packed(comparison: _Comparison, p: int, q: int) -> Op:
    function, (x, y), joined = comparison.function, comparison.slots, comparison.joined

    def run(warp: Warp) -> None:
        truth = function(warp.regs[x], warp.regs[y])
        lower, upper = joined(warp, truth[0::2].copy()), joined(warp, truth[1::2].copy())
        store(warp, p, lower)
        store(warp, q, upper)

    return run


@instruction("set", pipe=Pipe.ALU, isa="9.7.6.1, 9.7.7.1")
def set_(b: Builder) -> Op:
    """The comparison as 1.0 or 0.0, or as all ones or zero."""
    target_kind, kind = b.mods.type(), b.mods.type()
    if not kind:
        b.fail("got one type, wanted that of the result and that of the sources")
    comparison = _Comparison(b, kind)
    bits, yes = _truth_value(b, target_kind, kind)
    d = target(b, b.inst.operands[0], 32 if comparison.packed else bits)
    function, (x, y), joined = comparison.function, comparison.slots, comparison.joined
    one, zero = np.array(yes, RAW[bits]), np.zeros((), RAW[bits])

    def run(warp: Warp) -> None:
        truth = function(warp.regs[x], warp.regs[y])
        store(warp, d, np.where(joined(warp, truth), one, zero))

    def run_packed(warp: Warp) -> None:
        truth = function(warp.regs[x], warp.regs[y]).reshape(-1, 2)
        halves = [np.where(joined(warp, truth[:, at]), one, zero) for at in (0, 1)]
        store(warp, d, np.stack(halves, axis=1).view(RAW[32])[:, 0])

    return run_packed if comparison.packed else run


def _truth_value(b: Builder, target_kind: str, kind: str) -> tuple[int, int]:
    """Bits of an element of the result, and the element for "true"."""
    if kind.endswith("x2"):
        if target_kind == kind:
            return 16, _BF16_ONE if kind == "bf16x2" else _ONES[16]
        if target_kind in ("u32", "s32"):
            return 16, 0xFFFF
    elif target_kind in ("f16", "bf16") or (target_kind == "f32" and kind not in ("f16", "bf16")):
        bits = 32 if target_kind == "f32" else 16
        return bits, _BF16_ONE if target_kind == "bf16" else _ONES[bits]
    elif target_kind in (("u16", "s16") if kind in ("f16", "bf16") else ()) + ("u32", "s32"):
        bits = int(target_kind[1:])
        return bits, (1 << bits) - 1
    return b.fail(f"got a result of type .{target_kind} for sources of type .{kind}")
