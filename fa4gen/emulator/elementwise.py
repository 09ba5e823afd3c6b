"""Instructions that compute each lane by itself: how a function of arrays becomes an operation.

The functions get the sources as the register file holds them, or seen as another type of the same
or a smaller width (a packed register is then so many more elements), and give a fresh array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fa4gen.emulator.builder import Builder, Lanes
from fa4gen.ptx.ir import Immediate, Negated, Operand, Pair, Sink

if TYPE_CHECKING:
    from fa4gen.emulator.registry import Op
    from fa4gen.emulator.warp import Warp

Array: TypeAlias = Any
"""A NumPy array whose type the width in the opcode decides, at decode time."""
Function: TypeAlias = Callable[..., Array]
DType: TypeAlias = "np.dtype[Any]"

RAW = {
    1: np.dtype(np.bool_),
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
    32: np.dtype(np.uint32),
    64: np.dtype(np.uint64),
}
"""What a register of so many bits is made of."""
SIGNED = {bits: np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)}
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def target(b: Builder, operand: Operand, width: int) -> int:
    """The slot of a result of ``width`` bits, which must be wanted."""
    if isinstance(operand, Sink):
        b.fail("got _ as its only result")
    return b.dst(operand, width)


def results(b: Builder, operand: Operand, width: int) -> tuple[int, int]:
    """The slots of ``p`` or ``p|q``; -1 for the one that is not wanted."""
    if isinstance(operand, Pair):
        return b.dst(operand.first, width), b.dst(operand.second, width)
    return target(b, operand, width), -1


def sources(b: Builder, operands: tuple[Operand, ...], width: int) -> tuple[int, ...]:
    """The slots of sources that all are ``width`` bits wide."""
    return tuple(b.src(operand, width) for operand in operands)


def floats(b: Builder, operands: tuple[Operand, ...], width: int) -> tuple[int, ...]:
    """As :func:`sources`, where a literal has to be a float of ``width`` bits."""
    for operand in operands:
        if isinstance(operand, Immediate) and not (operand.is_float and operand.bits == width):
            b.fail(f"got the literal {operand.value} where an f{width} belongs")
    return sources(b, operands, width)


def negatable(b: Builder, operand: Operand) -> Callable[[Warp], Array]:
    """A predicate source: ``p``, ``!p`` or a literal."""
    if not isinstance(operand, Negated) and b.width(operand) not in (0, 1):
        b.fail(f"got {operand} where a predicate belongs")
    return b.predicate(operand)


def lanewise(
    function: Function,
    d: int,
    slots: tuple[int, ...],
    view: DType | None = None,
    raw: DType | None = None,
) -> Op:
    """The operation that gives slot ``d`` ``function`` of the sources.

    Args:
        function: Of as many arrays as there are ``slots``, one to three; NumPy's own functions
            are the fastest.
        view: What the sources are seen as; ``None`` for the unsigned integers they are.
        raw: What the result is to be seen as, with ``view``: an entry of :data:`RAW`.
    """
    if view is None or raw is None:
        return _PLAIN[len(slots)](function, d, *slots)
    if view.itemsize == raw.itemsize:
        return _SEEN[len(slots)](function, d, view, raw, *slots)
    return _VIEWED[len(slots)](function, d, view, raw, *slots)


def store(warp: Warp, d: int, value: Lanes) -> None:
    """Write a result that may be one nobody wants."""
    if d >= 0 and warp.mask is None:
        warp.regs[d] = value
    else:
        warp.write(d, value)


def _plain1(function: Function, d: int, a: int) -> Op:
    def run(warp: Warp) -> None:
        value = function(warp.regs[a])
        if warp.mask is None:
            warp.regs[d] = value
        else:
            warp.write(d, value)

    return run


def _plain2(function: Function, d: int, a: int, b: int) -> Op:
    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(regs[a], regs[b])
        if warp.mask is None:
            regs[d] = value
        else:
            warp.write(d, value)

    return run


def _plain3(function: Function, d: int, a: int, b: int, c: int) -> Op:
    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(regs[a], regs[b], regs[c])
        if warp.mask is None:
            regs[d] = value
        else:
            warp.write(d, value)

    return run


def _viewed1(function: Function, d: int, view: DType, raw: DType, a: int) -> Op:
    def run(warp: Warp) -> None:
        value = function(warp.regs[a].view(view)).view(raw)
        if warp.mask is None:
            warp.regs[d] = value
        else:
            warp.write(d, value)

    return run


def _viewed2(function: Function, d: int, view: DType, raw: DType, *slots: int) -> Op:
    a, b = slots

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(regs[a].view(view), regs[b].view(view)).view(raw)
        if warp.mask is None:
            regs[d] = value
        else:
            warp.write(d, value)

    return run


def _viewed3(function: Function, d: int, view: DType, raw: DType, *slots: int) -> Op:
    a, b, c = slots

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(regs[a].view(view), regs[b].view(view), regs[c].view(view)).view(raw)
        if warp.mask is None:
            regs[d] = value
        else:
            warp.write(d, value)

    return run


# The same for elements of the register's size: reading a field is faster than making a view.


def _seen1(function: Function, d: int, view: DType, raw: DType, a: int) -> Op:
    def run(warp: Warp) -> None:
        value = function(warp.regs[a].getfield(view)).getfield(raw)
        if warp.mask is None:
            warp.regs[d] = value
        else:
            warp.write(d, value)

    return run


def _seen2(function: Function, d: int, view: DType, raw: DType, *slots: int) -> Op:
    a, b = slots

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(regs[a].getfield(view), regs[b].getfield(view)).getfield(raw)
        if warp.mask is None:
            regs[d] = value
        else:
            warp.write(d, value)

    return run


def _seen3(function: Function, d: int, view: DType, raw: DType, *slots: int) -> Op:
    a, b, c = slots

    def run(warp: Warp) -> None:
        regs = warp.regs
        value = function(
            regs[a].getfield(view), regs[b].getfield(view), regs[c].getfield(view)
        ).getfield(raw)
        if warp.mask is None:
            regs[d] = value
        else:
            warp.write(d, value)

    return run


_PLAIN: dict[int, Callable[..., Op]] = {1: _plain1, 2: _plain2, 3: _plain3}
_VIEWED: dict[int, Callable[..., Op]] = {1: _viewed1, 2: _viewed2, 3: _viewed3}
_SEEN: dict[int, Callable[..., Op]] = {1: _seen1, 2: _seen2, 3: _seen3}
