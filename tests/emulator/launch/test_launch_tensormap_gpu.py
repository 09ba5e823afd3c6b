"""The driver's own tensor maps: they settle the fields that CuTe-DSL never sets.

What driver 580.159.04 of an H200 made of such calls on 2026-11-21 is in tests/vectors/hopper, so
that without a GPU as well the comparison is tried.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fa4gen.emulator.launch.tensormap import TensorMap, decode, encode

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
            PLAIN, dtype=name, strides=(size, 256 * size, 1 << 20), box=(64 // size, 16, 2)
        )
        for name, size in {"u8": 1, "u32": 4, "f64": 8, "bf16": 2, "f32.ftz": 4}.items()
    },
    **{
        f"swizzle {span} {atoms}": replace(PLAIN, swizzle=span, swizzle_atomicity=atoms, box=box)
        for (span, atoms) in SWIZZLES
        for box in [((span or 128) // 2, 8 if atoms == "16B" else 32, 1)]
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

RECORDED = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors" / "hopper" / "driver-map.json").read_text()
)
SAME_CALLS = {
    name: f"driver-map/{name.replace(' ', '-').removesuffix('-16B')}"
    for name in CASES
    if name != "swizzle 0 16B"
}
"""Cases of the recording with the same fields."""
NO_ATOMICITY_BELOW, INVALID_VALUE = 10, 1
"""The driver refuses swizzle atomicities other than 16 bytes on sm_90, with this error."""
UNKNOWN_BIT, LARGE_BIT = 1 << 1, 1 << 21
"""Of w1: CuTe-DSL sets the first always, the second for large tensors; the driver neither."""

Encode = Callable[..., int]


@pytest.fixture(scope="module")
def driver_encode() -> Encode:
    driver = ctypes.CDLL("libcuda.so.1")
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    context = pointer()
    assert driver.cuInit(0) == 0
    # Encoding asks the driver about its device, so there has to be a context.
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxSetCurrent(context) == 0
    encode_tiled = driver.cuTensorMapEncodeTiled
    encode_tiled.argtypes = (pointer, number, number, *(pointer,) * 5, *(number,) * 4)
    return encode_tiled  # type: ignore[no-any-return]


def made_by(encode_tiled: Encode, wanted: TensorMap) -> tuple[int, bytes]:
    """The driver's error, 0 for none, and its 128 bytes for the same tensor."""
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
    return code, ctypes.string_at(at, 128)


def same(raw: bytes, wanted: TensorMap) -> bool:
    """Whether a map of the driver is ours but for the two bits that it leaves at 0."""
    words, ours = (
        [int.from_bytes(each[i : i + 8], "little") for i in range(0, 64, 8)]
        for each in (raw, encode(wanted))
    )
    assert words[1] & (UNKNOWN_BIT | LARGE_BIT) == 0
    ours[1] &= ~(UNKNOWN_BIT | LARGE_BIT)
    return decode(raw) == wanted and words == ours


def refused(wanted: TensorMap, capability: int) -> bool:
    """Whether the driver takes no such map for a GPU of that capability's major number."""
    return wanted.swizzle_atomicity != "16B" and capability < NO_ATOMICITY_BELOW


@pytest.fixture(scope="module")
def capability(driver_encode: Encode) -> int:
    """The major number of the GPU's."""
    driver, major, attribute = ctypes.CDLL("libcuda.so.1"), ctypes.c_int32(), 75
    assert driver.cuDeviceGetAttribute(ctypes.byref(major), attribute, 0) == 0
    return major.value


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_the_driver_encodes_as_we_do(driver_encode: Encode, capability: int, name: str) -> None:
    wanted = CASES[name]
    code, raw = made_by(driver_encode, wanted)
    if refused(wanted, capability):
        assert code == INVALID_VALUE
        return
    assert code == 0, f"the driver refuses it with error {code}"
    assert same(raw, wanted)


@pytest.mark.parametrize("name", SAME_CALLS)
def test_what_the_driver_made_before_is_as_expected(name: str) -> None:
    kept, wanted = RECORDED[SAME_CALLS[name]], CASES[name]
    if refused(wanted, int(RECORDED["head"]["compute_capability"].partition(".")[0])):
        assert kept["error"].endswith(f"error {INVALID_VALUE}")
        return
    raw = b"".join(int(word, 16).to_bytes(8, "little") for word in kept["words"])
    assert same(raw, wanted)
