"""What all conversions share: the opcode's parts, and registers wider than its types.

A register may be wider than the type in the opcode: a source then gives its low bits, and a
destination is extended, by the sign where the type is signed (PTX ISA 9.4.1).
"""

from __future__ import annotations

from typing import NoReturn, cast

import numpy as np

from fa4gen.emulator.builder import Builder
from fa4gen.emulator.elementwise import RAW, SIGNED, Array, DType, Function, lanewise
from fa4gen.emulator.registry import Op
from fa4gen.numerics.arrays import Rounding
from fa4gen.numerics.integers import IntegerRounding
from fa4gen.ptx.ir import Immediate, Operand, Register, Sink

INTEGERS = {f"{sign}{bits}": bits for sign in "us" for bits in (8, 16, 32, 64)}
FLOATS = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}
PAIRS = {"f16x2": 32, "bf16x2": 32}
NARROW = {"e4m3x2": 16, "e5m2x2": 16, "e2m3x2": 16, "e3m2x2": 16, "e2m1x2": 8}
SCALES = {"ue8m0x2": 16}
BITS = {**INTEGERS, **FLOATS, **PAIRS, **NARROW, **SCALES, "tf32": 32}
"""Types, with the bits of their registers."""

ROUNDINGS = ("rn", "rz", "rm", "rp")
INTEGRAL: dict[str, Function] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
"""Rounding to a whole number."""


class Request:
    """The modifiers of one ``cvt``."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        take = b.mods.one_of
        self.integral = cast(IntegerRounding, take(*INTEGRAL))
        self.rounding = cast(Rounding, take(*ROUNDINGS, "rna", "rs"))
        self.ftz, self.sat = b.mods.flag("ftz"), b.mods.flag("sat")
        self.relu, self.satfinite = b.mods.flag("relu"), b.mods.flag("satfinite")
        self.to, self.of = take(*BITS), take(*BITS)
        if not self.to or not self.of:
            b.fail("got fewer than two types that are known")

    def allow(self, *names: str) -> None:
        """Refuse the modifiers that are set but not among ``names``."""
        for name in ("integral", "rounding", "ftz", "sat", "relu", "satfinite"):
            value = getattr(self, name)
            if value and name not in names:
                self.refuse(f"got .{value if isinstance(value, str) else name}")

    def round_by(self, *modes: str) -> None:
        """Refuse a rounding other than ``modes``, none at all too."""
        found = self.rounding or self.integral
        if found not in modes:
            self.refuse(f"got .{found}" if found else "got no rounding")

    def refuse(self, why: str) -> NoReturn:
        """The form does not exist."""
        self.b.fail(f"{why}, which a conversion of {self.of} to {self.to} does not take")


def emit(b: Builder, request: Request, function: Function) -> Op:
    """``function`` of the raw sources, each of the source type's bits, to the target type's."""
    d, *operands = b.inst.operands
    bits = BITS[request.of]
    slots, chops = [], []
    for operand in operands:
        width = b.width(operand) or bits
        if width < bits:
            b.fail(f"got a register of {width} bits for {request.of}")
        if isinstance(operand, Immediate) and operand.is_float != (request.of in ("f32", "f64")):
            b.fail(f"got the literal {operand.value} where {request.of} belongs")
        slots.append(b.src(operand, width))
        chops.append(RAW[bits] if width != bits else None)
    if any(chops):
        function = _chopped(function, chops)
    d_slot, extend = _destination(b, d, request.to)
    if extend is not None:
        function = _then(function, extend)
    return lanewise(function, d_slot, tuple(slots))


def _destination(b: Builder, operand: Operand, kind: str) -> tuple[int, Function | None]:
    """The slot of a result of ``kind``, and how to extend it to the register."""
    if isinstance(operand, Sink) or not isinstance(operand, Register):
        b.fail(f"got {operand} as a destination")
    width, bits = b.width(operand), BITS[kind]
    if width < bits or width not in RAW:
        b.fail(f"got a register of {width} bits for {kind}")
    slot = b.dst(operand)
    if width == bits:
        return slot, None
    raw = RAW[width]
    if kind in INTEGERS and kind[0] == "s":
        signed, wide = SIGNED[bits], SIGNED[width]
        return slot, lambda x: x.view(signed).astype(wide).view(raw)
    return slot, lambda x: x.astype(raw)


def _chopped(function: Function, chops: list[DType | None]) -> Function:
    def run(*values: Array) -> Array:
        return function(
            *(v if raw is None else v.astype(raw) for v, raw in zip(values, chops, strict=True))
        )

    return run


def _then(first: Function, second: Function) -> Function:
    return lambda *values: second(first(*values))
