"""Tensor copies: every byte of a box, held to loops over its elements."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from async_kernels import (
    COMMIT,
    FENCE,
    FEW,
    WAIT_READ,
    aligned,
    check,
    init,
    wait,
)
from tensor_cases import (
    CASES,
    START,
    Case,
    into_shared,
    load,
    loaded,
    out_of_shared,
    store,
)

from fa4gen.emulator.launch.tensormap import ELEMENT_BYTES


@pytest.mark.parametrize("name", CASES)
def test_loads(name: str) -> None:
    """Every byte of the box, and that the full box is what the mbarrier hears of."""
    case = CASES[name]
    memory = case.memory()
    # What lies between narrow rows is zero before and after.
    body = into_shared(case.start, case.room) + FENCE + init(1) + load(case) + wait("%base", 0)
    body += out_of_shared(case.start, case.room)
    args = {"map": case.map(memory), "in": memory, "image": aligned(case.room, "u1")}
    expected = loaded(case, memory)
    check(body, aligned(case.room, "u1"), expected, args, policies=FEW, block=64, smem=8192)


STORED = [
    name
    for name, case in CASES.items()
    if not case.steps and case.fill == "zero" and min(case.coords) >= 0
]


@pytest.mark.parametrize("name", STORED)
def test_stores(name: str) -> None:
    """Elements out of bounds are skipped but for the rest of 16 bytes; nothing else is touched."""
    case = CASES[name]
    image, memory = (
        np.random.default_rng(7).integers(0, 256, case.room, np.uint8),
        case.memory(),
    )
    source = aligned(case.room, "u1")
    source[:] = image
    expected = memory.copy()
    for shared, offset in case.elements(stored=True):
        if offset is not None:
            at = shared - case.start
            expected[offset : offset + case.size] = image[at : at + case.size]
    body = (
        into_shared(case.start, case.room)
        + FENCE
        + "bar.sync 0;"
        + store(case)
        + COMMIT
        + WAIT_READ
    )
    args = {"map": case.map(memory), "image": source}
    check(body, memory, expected, args, policies=FEW, block=64, smem=8192)


def test_a_store_reads_nothing_out_of_bounds() -> None:
    """Of 16 rows the tensor has 10 left, and the kernel has written no more."""
    case = Case("bf16", (64, 30), (64, 16), (0, 20), 128)
    image, memory = aligned(10 * 128, "u1"), case.memory()
    image[:] = np.random.default_rng(7).integers(0, 256, len(image), np.uint8)
    expected = memory.copy()
    for shared, offset in case.elements():
        if offset is not None:
            at = shared - case.start
            expected[offset : offset + case.size] = image[at : at + case.size]
    body = into_shared(case.start, len(image)) + FENCE + "bar.sync 0;"
    body += store(case) + COMMIT + WAIT_READ
    args = {"map": case.map(memory), "image": image}
    check(body, memory, expected, args, block=64, smem=8192)


@pytest.mark.parametrize(
    ("dtype", "operation"),
    [
        ("f32", "add"),
        ("f16", "add"),
        ("bf16", "add"),
        ("u32", "add"),
        ("s32", "min"),
        ("u64", "max"),
        ("bf16", "max"),
        ("u32", "xor"),
        ("s64", "and"),
    ],
)
def test_reductions(dtype: str, operation: str) -> None:
    """The box reaches over two edges; small numbers, whose sums are exact."""
    inner = 32 // ELEMENT_BYTES[dtype]
    case = Case(dtype, (2 * inner, 12), (inner, 8), (inner // 2, 9), 32)
    names = {"f16": np.float16, "f32": np.float32, "bf16": ml_dtypes.bfloat16}
    kind = np.dtype(names.get(dtype, f"{'i' if dtype[0] == 's' else 'u'}{case.size}"))
    rng = np.random.default_rng(3)
    memory, source = case.memory(), aligned(case.box_bytes, "u1")
    memory.view(kind)[:] = rng.integers(-20 if kind.kind != "u" else 0, 20, memory.view(kind).shape)
    source.view(kind)[:] = rng.integers(-20 if kind.kind != "u" else 0, 20, source.view(kind).shape)
    combine = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "xor": np.bitwise_xor,
        "and": np.bitwise_and,
    }[operation]
    expected = memory.copy()
    for shared, offset in case.elements():
        if offset is not None:
            old = expected[offset : offset + case.size].view(kind)
            at = shared - case.start
            old[:] = combine(old, source[at : at + case.size].view(kind))
    body = into_shared(case.start, case.box_bytes) + FENCE + "bar.sync 0;"
    body += store(case, f".{operation}") + COMMIT + WAIT_READ
    args = {"map": case.map(memory), "image": source}
    check(body, memory, expected, args, policies=FEW, block=64, smem=8192)


def test_two_reductions_into_one_box_add_up() -> None:
    case = Case("f32", (8, 8), (8, 8), (0, 0))
    memory, source = case.memory(), aligned(case.box_bytes, "u1")
    memory.view(np.float32)[:], source.view(np.float32)[:] = 1, np.arange(64)
    expected = (1 + 3 * np.arange(64, dtype=np.float32)).view(np.uint8)
    body = (
        into_shared(START, case.box_bytes)
        + FENCE
        + "bar.sync 0;"
        + 3 * store(case, ".add")
        + COMMIT
        + WAIT_READ
    )
    check(body, memory, expected, {"map": case.map(memory), "image": source}, block=64, smem=8192)
