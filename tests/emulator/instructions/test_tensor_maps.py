"""tensormap.replace and tensormap.cp_fenceproxy: kernels that make their own tensor maps."""

from __future__ import annotations

import numpy as np
import pytest
from async_kernels import aligned, always, check, init, wait

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.launch.tensormap import TensorMap, encode

FROM = TensorMap(1 << 20, "u8", (256, 4), (1, 512), (64, 2))
TO = TensorMap(
    address=0x7F00_1234_5670,
    dtype="bf16",
    dims=(1000, 70, 3, 4, 5),
    strides=(2, 2048, 1 << 36 | 4096, 3 << 37, 16),
    box=(32, 256, 2, 1, 7),
    element_strides=(1, 2, 3, 4, 8),
    swizzle=64,
    oob_fill="nan",
)


def replaces(space: str, base: str) -> str:
    """Every field of ``FROM`` made that of ``TO``."""
    fields = [
        ("global_address", "b64", "%rd20"),
        ("rank", "b32", str(TO.rank - 1)),
        ("elemtype", "b32", "10"),
        ("swizzle_mode", "b32", "2"),
        ("interleave_layout", "b32", "0"),
        ("fill_mode", "b32", "1"),
        ("swizzle_atomicity", "b32", "0"),
    ]
    text = f"mov.u64 %rd20, {TO.address};\n"
    for field, kind, value in fields:
        text += f"@%lead tensormap.replace.tile.{field}{space}.b1024.{kind} [{base}], {value};\n"
    for i in range(5):
        text += f"mov.u32 %r20, {TO.dims[i]}; mov.u32 %r21, {TO.box[i]};"
        text += f"mov.u32 %r22, {TO.element_strides[i]}; mov.u64 %rd21, {TO.strides[i]};\n"
        for field, register in (("global_dim", 20), ("box_dim", 21), ("element_stride", 22)):
            opcode = f"tensormap.replace.tile.{field}{space}.b1024.b32"
            text += f"@%lead {opcode} [{base}], {i}, %r{register};\n"
        if i:
            opcode = f"tensormap.replace.tile.global_stride{space}.b1024.b64"
            text += f"@%lead {opcode} [{base}], {i - 1}, %rd21;\n"
    return text


def as_array(raw: bytes) -> np.ndarray:
    array = aligned(len(raw), "u1")
    array[:] = np.frombuffer(raw, np.uint8)
    return array


def expected() -> np.ndarray:
    """All but the bit for tensors of 128 KiB and more, which no field names."""
    array = as_array(encode(TO))
    array.view(np.uint64)[1] &= ~np.uint64(1 << 21)
    return array


@pytest.mark.parametrize("space", [".global", ""])
def test_every_field_in_global_memory(space: str) -> None:
    body = "ld.param.u64 %rd10, [out];" + replaces(space, "%rd10")
    check(body, as_array(encode(FROM)), expected(), smem=64)


def test_every_field_in_shared_memory_and_back() -> None:
    """32 lanes bring the map, one changes it, the warp copies it to global memory."""
    body = (
        "ld.param.u64 %rd10, [in]; ld.param.u64 %rd12, [out]; mul.wide.u32 %rd11, %lane, 4;"
        + "add.u64 %rd11, %rd10, %rd11; ld.global.u32 %r1, [%rd11];"
        + "shl.b32 %r2, %lane, 2; add.u32 %r2, %r2, %base; st.shared.u32 [%r2], %r1;"
        + "bar.warp.sync 0xffffffff;"
        + replaces(".shared::cta", "%base")
        + "bar.warp.sync 0xffffffff;"
        + "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned"
        + " [%rd12], [%base], 128;"
    )
    check(body, aligned(128, "u1"), expected(), {"in": as_array(encode(FROM))}, smem=128)


def test_a_copy_through_a_map_that_the_kernel_changed() -> None:
    """The box moves to another tensor and loses two rows to its bounds."""
    first, second = aligned((8, 64), "u1"), aligned((8, 64), "u1")
    second[:] = np.random.default_rng(1).integers(1, 255, (8, 64))
    address, other = (a.__array_interface__["data"][0] for a in (first, second))
    descriptor = as_array(encode(TensorMap(address, "u8", (64, 8), (1, 64), (64, 8))))
    body = (
        init(1)
        + "ld.param.u64 %rd10, [descriptor]; ld.param.u64 %rd11, [second]; mov.u32 %r20, 6;"
        + "@%lead tensormap.replace.tile.global_address.global.b1024.b64 [%rd10], %rd11;"
        + "@%lead tensormap.replace.tile.global_dim.global.b1024.b32 [%rd10], 1, %r20;"
        + "@%lead fence.proxy.tensormap::generic.release.gpu;"
        + "@%lead fence.proxy.tensormap::generic.acquire.gpu [%rd10], 128;"
        + "@%lead mbarrier.arrive.expect_tx.shared.b64 _, [%base], 512;"
        + "@%lead cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes"
        + " [%base+128], [%rd10, {0, 0}], [%base];"
        + wait("%base", 0)
        + "shl.b32 %r1, %thr, 4; add.u32 %r2, %r1, %base;"
        + "ld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%r2+128];"
        + "cvt.u64.u32 %rd2, %r1; ld.param.u64 %rd1, [out]; add.u64 %rd1, %rd1, %rd2;"
        + "st.global.v4.u32 [%rd1], {%r4,%r5,%r6,%r7};"
    )
    assert other % 16 == 0
    wanted = second.copy()
    wanted[6:] = 0
    # The map itself changes with each run, to the same.
    args = {"descriptor": descriptor, "first": first, "second": second}
    check(body, aligned((8, 64), "u1"), wanted, args, smem=1024)


@pytest.mark.parametrize(
    ("field", "word", "bits"),
    [
        ("elemtype.global.b1024.b32 [%rd10], 10", 0x500, 0x780),
        ("elemtype.global.b1024.b32 [%rd10], 11", 0x10380, 0x10780),
        ("elemtype.global.b1024.b32 [%rd10], 12", 0x10400, 0x10780),
        ("elemtype.global.b1024.b32 [%rd10], 13", 0x580, 0x780),
        ("elemtype.global.b1024.b32 [%rd10], 15", 0x680, 0x780),
        ("interleave_layout.global.b1024.b32 [%rd10], 2", 0x1000, 0x1800),
        ("swizzle_mode.global.b1024.b32 [%rd10], 3", 0x6000, 0x406000),
        ("fill_mode.global.b1024.b32 [%rd10], 1", 0x8000, 0x8000),
        ("swizzle_atomicity.global.b1024.b32 [%rd10], 3", 0x180000, 0x380000),
    ],
)
@pytest.mark.parametrize("before", [0, 0xFFFFFFFF])
def test_modes_write_the_bits_that_ptxas_writes(
    field: str, word: int, bits: int, before: int
) -> None:
    """Constants and masks of the LOP3 that ptxas 13.0 makes for sm_100a, at byte 8 of the map."""
    out = aligned(128, "u1")
    out.view(np.uint32)[2] = before
    wanted = out.copy()
    wanted.view(np.uint32)[2] = before & ~bits & 0xFFFFFFFF | word
    body = f"ld.param.u64 %rd10, [out]; @%lead tensormap.replace.tile.{field};"
    check(body, out, wanted, policies=("eager",), smem=64)


@pytest.mark.parametrize(
    "instruction",
    [
        "tensormap.replace.tile.elemtype.global.b1024.b32 [%rd10], 16;",
        "tensormap.replace.tile.swizzle_mode.global.b1024.b32 [%rd10], 4;",
        "tensormap.replace.tile.global_stride.global.b1024.b64 [%rd10], 4, %rd11;",
        "tensormap.replace.tile.global_stride.global.b1024.b32 [%rd10], 0, %r1;",
        "tensormap.replace.tile.colour.global.b1024.b32 [%rd10], 0;",
    ],
    ids=range(5),
)
def test_what_is_not_known_is_refused(instruction: str) -> None:
    body = "ld.param.u64 %rd10, [out];" + instruction
    with pytest.raises(UnsupportedInstruction):
        check(body, aligned(128, "u1"), aligned(128, "u1"), smem=64)


def test_a_misaligned_map_is_a_fault() -> None:
    body = (
        "ld.param.u64 %rd10, [out]; mov.u64 %rd11, 64;"
        + "tensormap.replace.tile.global_address.global.b1024.b64 [%rd10+32], %rd11;"
    )
    always(FindingKind.FAULT, body, {"out": aligned(512, "u1")}, smem=64)
