"""The driver's own tensor maps: they settle the fields that CuTe-DSL never sets."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

import pytest

from fa4gen.emulator.launch.tensormap import TensorMap, decode, encode

pytestmark = pytest.mark.gpu

ADDRESS = 0x7F00_0000_0000
L2_PROMOTION_128B = 2
DATA_TYPES = {"u8": 0, "u16": 1, "u32": 2, "f16": 6, "f32": 7, "f64": 8, "bf16": 9, "f32.ftz": 10}
SWIZZLES = {
    (0, "16B"): 0, (32, "16B"): 1, (64, "16B"): 2, (128, "16B"): 3,
    (128, "32B"): 4, (128, "32B+8B"): 5, (128, "64B"): 6,
}  # fmt: skip
TF32 = 11
PLAIN = TensorMap(
    address=ADDRESS, dtype="f16", dims=(256, 512, 3), strides=(2, 512, 1 << 18), box=(64, 32, 1)
)
CASES = {
    "plain": PLAIN,
    **{
        f"{name}": replace(
            PLAIN, dtype=name, strides=(size, 256 * size, 1 << 20), box=(128 // size, 16, 2)
        )
        for name, size in {"u8": 1, "u32": 4, "f64": 8, "bf16": 2, "f32.ftz": 4}.items()
    },
    **{
        f"swizzle {span} {atoms}": replace(PLAIN, swizzle=span, swizzle_atomicity=atoms, box=box)
        for (span, atoms) in SWIZZLES
        for box in [((span or 128) // 2, 8, 1)]
    },
    "nan": replace(PLAIN, oob_fill="nan"),
    "tf32": replace(PLAIN, dtype="f32", strides=(4, 1024, 1 << 19), box=(32, 8, 1), tf32=True),
    **{
        f"element stride {axis}": replace(
            PLAIN, element_strides=tuple(3 if i == axis else 1 for i in range(3))
        )
        for axis in range(3)
    },
    "far apart": replace(PLAIN, strides=(2, 16 + (1 << 38), 16 + (1 << 37))),
    "one dimension": TensorMap(
        address=ADDRESS, dtype="u8", dims=(1 << 32,), strides=(1,), box=(256,)
    ),
}

Encode = Callable[..., int]


@pytest.fixture(scope="module")
def driver_encode() -> Encode:
    driver = ctypes.CDLL("libcuda.so.1")
    assert driver.cuInit(0) == 0
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    encode_tiled = driver.cuTensorMapEncodeTiled
    encode_tiled.argtypes = (pointer, number, number, *(pointer,) * 5, *(number,) * 4)
    return encode_tiled  # type: ignore[no-any-return]


def made_by(encode_tiled: Encode, wanted: TensorMap) -> bytes:
    """The 128 bytes of the driver for the same tensor."""
    rank = wanted.rank
    space = (ctypes.c_uint8 * 192)()
    at = -(-ctypes.addressof(space) // 64) * 64  # the driver wants 64-byte alignment
    code = encode_tiled(
        at,
        TF32 if wanted.tf32 else DATA_TYPES[wanted.dtype],
        rank,
        wanted.address,
        (ctypes.c_uint64 * rank)(*wanted.dims),
        (ctypes.c_uint64 * max(1, rank - 1))(*wanted.strides[1:]),
        (ctypes.c_uint32 * rank)(*wanted.box),
        (ctypes.c_uint32 * rank)(*wanted.element_strides),
        wanted.interleave,
        SWIZZLES[wanted.swizzle, wanted.swizzle_atomicity],
        L2_PROMOTION_128B,
        int(wanted.oob_fill == "nan"),
    )
    assert code == 0, f"the driver refuses it with error {code}"
    return ctypes.string_at(at, 128)


@pytest.mark.parametrize("name", CASES)
def test_the_driver_encodes_as_we_do(driver_encode: Encode, name: str) -> None:
    wanted = CASES[name]
    raw = made_by(driver_encode, wanted)
    assert decode(raw) == wanted
    unknown = 1 << 1  # of w1, bit 1: set by CuTe-DSL; what it means is not known
    words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, 64, 8)]
    ours = [int.from_bytes(encode(wanted)[i : i + 8], "little") for i in range(0, 64, 8)]
    words[1] |= unknown
    assert [f"{word:016x}" for word in words] == [f"{word:016x}" for word in ours]
