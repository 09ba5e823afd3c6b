"""Tensor maps changed by the kernel itself.

Where each field lies in the 128 bytes is told in :mod:`fa4gen.emulator.launch.tensormap`. Sizes of
dimensions and boxes and element strides are given as they are and stored less 1; the rank is given
less 1; strides are given in bytes. The fields are those that ptxas 13.0 writes for these
instructions, which it makes loads, LOP3 and stores of.

Source: PTX ISA 9.1, sections 9.7.9.26 (tensormap.replace; table 33 has the numbers of types and
modes) and 9.7.13.4 (tensormap.cp_fenceproxy).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fa4gen.emulator.access import take_space
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.launch.tensormap import TENSOR_MAP_BYTES
from fa4gen.emulator.ordering import WEAK
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.spaces import GLOBAL, SHARED, active, note_read, note_write
from fa4gen.emulator.tiles import MAP_ALIGNMENT
from fa4gen.emulator.warp import Signal, Warp
from fa4gen.ptx.ir import Immediate

_Words = np.ndarray[tuple[int], np.dtype[np.uint64]]
_LONG = {"global_address", "global_stride"}
_BY_DIMENSION = {"box_dim": 5, "global_dim": 5, "global_stride": 4, "element_stride": 5}
"""Fields that exist once a dimension, and how often; strides begin with that of dimension 1."""
_LESS_ONE = {"box_dim", "global_dim", "element_stride"}
_MODES = {
    "elemtype": (7, 4, 16),
    "interleave_layout": (11, 2, 3),
    "swizzle_mode": (13, 2, 4),
    "fill_mode": (15, 1, 2),
    "swizzle_atomicity": (19, 3, 4),
}
"""Literal fields of the second word: first bit, bits, how many values there are."""
_STORED_TYPES = {11: 7, 12: 8, 13: 11, 14: 12, 15: 13}
"""Types whose number is another in the map: tf32, tf32.ftz, and those below a byte."""
_SWIZZLE_96_BIT = 22
_TF32, _TF32_BIT = (11, 12), 16
"""tf32 is f32 and a bit, which other types leave as it is."""


@instruction("tensormap.replace", pipe=Pipe.LSU, isa="9.7.9.26")
def replace(b: Builder) -> Op:
    """Change one field of a tensor map in global or shared memory."""
    if not b.mods.flag("tile") or not b.mods.flag("b1024"):
        b.fail("known with .tile and .b1024 only")
    field = b.mods.one_of("global_address", "rank", *_BY_DIMENSION, *_MODES)
    if not field:
        b.fail("got no field that is known")
    space = take_space(b, "global", "shared::cta")
    width = 64 if field in _LONG else 32
    if not b.mods.flag(f"b{width}"):
        b.fail(f".{field} has {width} bits")
    operands = b.expect(3 if field in _BY_DIMENSION else 2)
    address, value = b.address(operands[0]), b.reader(operands[-1], width)
    number = _literal(b, operands[1], _BY_DIMENSION[field]) if field in _BY_DIMENSION else 0
    if field in _MODES:
        _literal(b, operands[1], _MODES[field][2])
    change = _changer(field, number)

    def run(warp: Warp) -> None:
        addresses, values = address(warp), value(warp)
        for lane in warp.lanes():
            block, offsets = space.locate(
                warp, addresses[lane : lane + 1], TENSOR_MAP_BYTES, MAP_ALIGNMENT
            )
            note_read(warp, block, offsets, TENSOR_MAP_BYTES, WEAK)
            note_write(warp, block, offsets, TENSOR_MAP_BYTES, WEAK)
            at = int(offsets[0])
            change(block.data[at : at + TENSOR_MAP_BYTES].view(np.uint64), int(values[lane]))

    return run


@instruction(
    "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic", pipe=Pipe.LSU, isa="9.7.13.4"
)
def copy_and_fence(b: Builder) -> Op:
    """Copy a tensor map from shared to global memory, and make it visible to tensor copies."""
    if not (b.mods.flag("release") and b.mods.flag("sync") and b.mods.flag("aligned")):
        b.fail("known with .release and .sync.aligned only")
    b.mods.ignore("cta", "cluster", "gpu", "sys")
    to, of, size = b.expect(3)
    if not isinstance(size, Immediate) or size.value != TENSOR_MAP_BYTES:
        b.fail(f"got {size} bytes, allowed: {TENSOR_MAP_BYTES}")
    dst, src = b.address(to), b.address(of)

    def run(warp: Warp) -> Signal | None:
        if (wait := warp.together()) is not None:
            return wait
        to_block, tos = GLOBAL.locate(
            warp, active(warp, dst(warp))[:1], TENSOR_MAP_BYTES, TENSOR_MAP_BYTES
        )
        of_block, ofs = SHARED.locate(
            warp, active(warp, src(warp))[:1], TENSOR_MAP_BYTES, TENSOR_MAP_BYTES
        )
        note_read(warp, of_block, ofs, TENSOR_MAP_BYTES, WEAK)
        note_write(warp, to_block, tos, TENSOR_MAP_BYTES, WEAK)
        data = of_block.data[int(ofs[0]) :][:TENSOR_MAP_BYTES]
        to_block.data[int(tos[0]) :][:TENSOR_MAP_BYTES] = data
        return None

    return run


def _literal(b: Builder, operand: object, count: int) -> int:
    if not isinstance(operand, Immediate) or not 0 <= operand.value < count:
        b.fail(f"got {operand}, allowed: a literal from 0 to {count - 1}")
    return operand.value


def _changer(field: str, number: int) -> Callable[[_Words, int], None]:
    """What puts a value into a field of the eight words."""
    if field == "global_stride":
        return lambda words, value: _put_stride(words, number, value)
    if field == "elemtype":
        return _put_type
    if field == "swizzle_mode":
        return _put_swizzle
    box = (7, 8 * (number - 1), 8) if number else (6, 56, 8)
    fields = {
        "global_address": (0, 0, 64),
        "rank": (1, 4, 3),
        "global_dim": (4 + number // 2, 32 * (number % 2), 32),
        "element_stride": (6, 32 + 3 * number, 3),
        "box_dim": box,
        **{name: (1, low, bits) for name, (low, bits, _) in _MODES.items()},
    }
    word, low, bits = fields[field]
    less = field in _LESS_ONE
    return lambda words, value: _put(words, word, low, bits, value - less)


def _put_stride(words: _Words, number: int, value: int) -> None:
    """Bits 4 to 35 of stride ``number + 1`` lie in one place and bits 36 to 39 in another."""
    word, low = ((1, 32), (2, 0), (2, 32), (3, 0))[number]
    _put(words, word, low, 32, value >> 4)
    _put(words, 3, 32 + 4 * number, 4, value >> 36)


def _put_swizzle(words: _Words, value: int) -> None:
    """Two bits, and one elsewhere that stands for mode 4, 96 bytes, of sm_103a (ptxas 13.0)."""
    low, bits, _ = _MODES["swizzle_mode"]
    _put(words, 1, low, bits, value)
    _put(words, 1, _SWIZZLE_96_BIT, 1, 0)


def _put_type(words: _Words, value: int) -> None:
    low, bits, _ = _MODES["elemtype"]
    _put(words, 1, low, bits, _STORED_TYPES.get(value, value))
    if value in _TF32:
        _put(words, 1, _TF32_BIT, 1, 1)


def _put(words: _Words, word: int, low: int, bits: int, value: int) -> None:
    field = (1 << bits) - 1
    old = int(words[word]) & ~(field << low)
    words[word] = np.uint64(old | (value & field) << low)
