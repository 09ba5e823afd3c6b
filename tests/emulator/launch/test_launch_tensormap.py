"""Tensor maps: bytes that CuTe-DSL made, every field on its own, and what must be refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.core.errors import KernelFault
from fa4gen.emulator.launch.tensormap import (
    ELEMENT_BYTES,
    TENSOR_MAP_BYTES,
    TensorMap,
    decode,
    encode,
)
from fa4gen.emulator.layouts.swizzle import Swizzle

GARBAGE = bytes(range(64))


def raw(*words: int) -> bytes:
    return struct.pack("<8Q", *words) + GARBAGE


# Words of a (512, 128) float16 tensor with a (128, 128) box, from the host code of a tutorial
# kernel, captured on a CPU with another stub than ours.
TUTORIAL = (
    0x561F4F50B740, 0x1000240312, 0, 0, 0x1FF0000007F, 0, 0x7F00000000000000, 0x7F,
)  # fmt: skip


def test_a_descriptor_captured_elsewhere() -> None:
    assert decode(raw(*TUTORIAL)) == TensorMap(
        address=0x561F4F50B740, dtype="f16", dims=(128, 512), strides=(2, 256), box=(128, 128)
    )
    assert encode(decode(raw(*TUTORIAL)))[:64] == raw(*TUTORIAL)[:64]


def varied(word: int, low: int, bits: int, value: int) -> TensorMap:
    """The tutorial's map with one field of its words set."""
    words = list(TUTORIAL)
    words[word] = words[word] & ~((1 << bits) - 1 << low) | value << low
    return decode(raw(*words))


# PTX ISA 9.7.9.27, table of element types of tensormap.replace, for 0 to 10.
ISA_DTYPES = (
    "u8", "u16", "u32", "s32", "u64", "s64", "f16", "f32", "f32.ftz", "f64", "bf16",
)  # fmt: skip


@pytest.mark.parametrize(("number", "dtype"), list(enumerate(ISA_DTYPES)))
def test_element_types(number: int, dtype: str) -> None:
    made = varied(1, 7, 4, number)
    assert made.dtype == dtype
    digits = {"f32.ftz": 32}.get(dtype) or int(dtype.lstrip("usbf"))
    assert made.strides[0] == made.element_bytes == digits // 8
    assert made.box_bytes == 128 * 128 * digits // 8


def test_modes() -> None:
    plain = decode(raw(*TUTORIAL))
    assert (plain.swizzle, plain.oob_fill, plain.tf32) == (0, "zero", False)
    assert varied(1, 15, 1, 1).oob_fill == "nan"
    assert varied(1, 16, 1, 1).tf32
    assert varied(6, 32, 3, 3).element_strides == (4, 1)
    assert varied(6, 35, 3, 7).element_strides == (1, 8)
    for bit in (1, 17, 18, 21):  # unknown, L2 promotion, large tensor: of no effect
        words = list(TUTORIAL)
        words[1] ^= 1 << bit
        assert decode(raw(*words)) == plain


@pytest.mark.parametrize(
    ("swizzle", "atomicity", "permutation", "span"),
    [
        (0, 0, Swizzle.NONE, 256),
        (1, 0, Swizzle.B32, 32),
        (2, 0, Swizzle.B64, 64),
        (3, 0, Swizzle.B128, 128),
        (3, 1, Swizzle.B128_ATOM32, 128),
        (3, 2, Swizzle.B128_ATOM32_FLIP8, 128),
        (3, 3, Swizzle.B128_ATOM64, 128),
    ],
)
def test_swizzles(swizzle: int, atomicity: int, permutation: Swizzle, span: int) -> None:
    words = list(TUTORIAL)
    words[1] |= swizzle << 13 | atomicity << 19
    words[6] = (span // 2 - 1) << 56
    made = decode(raw(*words))
    assert made.permutation is permutation
    assert made.swizzle == (0, 32, 64, 128)[swizzle]
    words[6] = span // 2 + 7 << 56  # 16 bytes more than the span
    if swizzle:
        with pytest.raises(KernelFault, match="inner box"):
            decode(raw(*words))


def test_garbage_is_never_read() -> None:
    words = struct.pack("<8Q", *TUTORIAL)
    assert decode(words + bytes(64)) == decode(words + b"\xff" * 64)


DTYPES = st.sampled_from(sorted(ELEMENT_BYTES))


@st.composite
def tensor_maps(draw: st.DrawFn) -> TensorMap:
    """Valid maps over the whole range of every field."""
    rank = draw(st.integers(1, 5))
    dtype = draw(DTYPES)
    size = ELEMENT_BYTES[dtype]
    swizzle = draw(st.sampled_from((0, 32, 64, 128)))
    widest = min(256, (swizzle or 256 * size) // size)
    inner = draw(st.integers(1, max(1, widest * size // 16))) * 16 // size
    outer = draw(st.lists(st.integers(1, 256), min_size=rank - 1, max_size=rank - 1))
    steps = st.integers(0, (1 << 36) - 1).map(lambda n: 16 * n)
    strides = draw(st.lists(steps, min_size=rank - 1, max_size=rank - 1))
    return TensorMap(
        address=draw(st.integers(1, (1 << 60) - 1)) * 16,
        dtype=dtype,
        dims=tuple(draw(st.lists(st.integers(1, 1 << 32), min_size=rank, max_size=rank))),
        strides=(size, *strides),
        box=(inner, *outer),
        element_strides=tuple(draw(st.lists(st.integers(1, 8), min_size=rank, max_size=rank))),
        swizzle=swizzle,
        swizzle_atomicity=draw(st.sampled_from(("16B", "32B", "32B+8B", "64B"))),
        oob_fill=draw(st.sampled_from(("zero", "nan"))),
        tf32=draw(st.booleans()),
    )


@settings(max_examples=100)
@given(tensor_maps())
def test_decode_undoes_encode(made: TensorMap) -> None:
    assert len(encode(made)) == TENSOR_MAP_BYTES
    assert decode(encode(made)) == made


@settings(max_examples=50)
@given(tensor_maps(), tensor_maps())
def test_different_maps_have_different_bytes(one: TensorMap, other: TensorMap) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@settings(max_examples=50)
@given(tensor_maps())
def test_span_is_that_of_numpy(made: TensorMap) -> None:
    small = replace(made, dims=tuple(min(size, 1 << 10) for size in made.dims))
    array = np.lib.stride_tricks.as_strided(
        np.empty(1, f"V{made.element_bytes}"), small.dims, small.strides
    )
    low, high = np.lib.array_utils.byte_bounds(array)
    assert small.span_bytes == high - low


def test_box_bytes_count_whole_boxes() -> None:
    made = TensorMap(
        address=16, dtype="f32", dims=(5, 5), strides=(4, 32), box=(8, 5), element_strides=(1, 2)
    )
    assert made.box_bytes == 8 * 3 * 4  # every second of five rows: 0, 2, 4


NARROW = {"b4x16": 64, "b4x16_p64": 64, "b6x16_p32": 96}
"""Bytes of 128 elements in global memory."""


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("swizzle", [0, 128])
def test_elements_of_less_than_a_byte(dtype: str, swizzle: int) -> None:
    """What copies count, and the distance to the end, are without the padding in shared memory."""
    row = 2 * NARROW[dtype]
    made = TensorMap(
        address=1 << 20,
        dtype=dtype,
        dims=(256, 100),
        strides=(0, row + 32),
        box=(128, 8),
        swizzle=swizzle,
    )
    assert decode(encode(made)) == made
    assert made.box_bytes == 8 * NARROW[dtype]
    assert made.span_bytes == 99 * (row + 32) + row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": (192, 100)}, r"dims \(192, 100\)"),
        ({"box": (64, 8)}, "a box of 128 there"),
        ({"strides": (0, 208)}, "multiples of 32"),
        ({"address": (1 << 20) + 16}, "multiples of 32"),
        ({"swizzle": 64}, "swizzle 64"),
        ({"oob_fill": "nan"}, "fill 'nan'"),
        ({"strides": (1, 192)}, "allowed: 0"),
        ({"dtype": "b4x16", "dims": (255, 100), "swizzle": 0}, "allowed: even"),
    ],
)
def test_what_narrow_elements_do_not_allow(change: dict[str, object], message: str) -> None:
    good = TensorMap(
        address=1 << 20, dtype="b6x16_p32", dims=(256, 100), strides=(0, 192), box=(128, 8)
    )
    with pytest.raises(KernelFault, match=message):
        replace(good, **change)


@pytest.mark.parametrize("size", [0, 64, 127, 129])
def test_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(KernelFault, match=f"got {size} bytes, allowed: 128"):
        decode(bytes(size))


@pytest.mark.parametrize(
    ("word", "low", "bits", "value", "message"),
    [
        (1, 4, 3, 5, "rank 6, allowed: 1 to 5"),
        (1, 4, 3, 7, "rank 8"),
        (1, 7, 4, 14, "element type 14"),
        (1, 7, 4, 15, "element type 15"),
        (1, 11, 2, 1, "interleave 1"),
        (0, 0, 4, 8, "address .*8, allowed: multiples of 16"),
        (0, 0, 64, 0, "address 0x0"),
        (6, 56, 8, 6, "inner box of 7 x 16 bits = 14 bytes"),
    ],
)
def test_impossible_fields(word: int, low: int, bits: int, value: int, message: str) -> None:
    with pytest.raises(KernelFault, match=message):
        varied(word, low, bits, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (2, 24)}, "multiples of 16"),
        ({"strides": (4, 256)}, "size of f16"),
        ({"strides": (2, 1 << 40)}, "strides"),
        ({"strides": (2,)}, "2 values"),
        ({"dims": (0, 4)}, "dims"),
        ({"dims": (1 << 33, 4)}, "dims"),
        ({"dims": ()}, "rank 0"),
        ({"box": (64, 257)}, "box"),
        ({"box": (64, 0)}, "box"),
        ({"element_strides": (9, 1)}, "element strides"),
        ({"dtype": "fp4"}, "element type 'fp4'"),
        ({"swizzle": 16}, "swizzle 16"),
        ({"swizzle_atomicity": "8B"}, "'8B'"),
        ({"oob_fill": "one"}, "fill 'one'"),
        ({"interleave": 2}, "interleave 2"),
        ({"swizzle": 64}, "= 128 bytes, allowed: multiples of 16 up to 64"),
    ],
)
def test_impossible_maps(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "address": 4096, "dtype": "f16", "dims": (64, 64), "strides": (2, 128), "box": (64, 8),
    }  # fmt: skip
    TensorMap(**fields)
    with pytest.raises(KernelFault, match=message):
        TensorMap(**fields | change)
