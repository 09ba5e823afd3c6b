"""``mma.sync``, against sums of exact fractions placed by the ISA's rule for each register."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from per_lane import kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

RNG = np.random.default_rng(25)
DTYPES: dict[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "s8": np.int8,
    "u8": np.uint8,
    "f32": np.float32,
    "s32": np.int32,
}


def pack(matrix: np.ndarray, places: list[list[list[tuple[int, int]]]]) -> dict[int, np.ndarray]:
    """Registers by number, from the (row, column) of each element of each register and lane."""
    registers = {}
    for number, lanes in enumerate(places):
        values = [[matrix[row, column] for row, column in elements] for elements in lanes]
        registers[number] = np.array(values, matrix.dtype).view(np.uint32).ravel()
    return registers


def a_places(k: int, bits: int) -> list[list[list[tuple[int, int]]]]:
    """PTX ISA 9.7.14.5.8 to .11: register i of A, of 32 / bits neighbours along k each."""
    per = 32 // bits
    return [
        [
            [
                (lane // 4 + 8 * (i % 2), per * (lane % 4) + e + 4 * per * (i // 2))
                for e in range(per)
            ]
            for lane in range(32)
        ]
        for i in range(k * bits // 64)
    ]


def b_places(k: int, bits: int) -> list[list[list[tuple[int, int]]]]:
    """Of B: (k, n)."""
    per = 32 // bits
    return [
        [
            [(per * (lane % 4) + e + 4 * per * i, lane // 4) for e in range(per)]
            for lane in range(32)
        ]
        for i in range(k * bits // 128)
    ]


def c_places(bits: int) -> list[list[list[tuple[int, int]]]]:
    """Of C and D."""
    if bits == 32:
        return [
            [[(lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2)] for lane in range(32)]
            for i in range(4)
        ]
    return [
        [[(lane // 4 + 8 * i, 2 * (lane % 4) + e) for e in range(2)] for lane in range(32)]
        for i in range(2)
    ]


def multiply(
    opcode: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, **options: Any
) -> np.ndarray:
    """D of the instruction, ``(16, 8)`` of the type of C."""
    bits = a.dtype.itemsize * 8
    k = a.shape[1]
    parts = {
        "a": pack(a, a_places(k, bits)),
        "b": pack(b, b_places(k, bits)),
        "c": pack(c, c_places(c.dtype.itemsize * 8)),
    }
    inputs = {f"{name}{i}": value for name, found in parts.items() for i, value in found.items()}
    vectors = {n: "{" + ", ".join(f"{n}{i}" for i in found) + "}" for n, found in parts.items()}
    results = [f"d{i}" for i in parts["c"]]
    body = f"{opcode} {{{', '.join(results)}}}, {vectors['a']}, {vectors['b']}, {vectors['c']};"
    out, run = run_lanes(body, inputs, dict.fromkeys(results, "u4"), **options)
    assert run.ok, run.findings
    d = np.zeros((16, 8), c.dtype)
    for name, lanes in zip(results, c_places(c.dtype.itemsize * 8), strict=True):
        elements = out[name].view(c.dtype).reshape(32, -1)
        for lane, places in enumerate(lanes):
            for value, place in zip(elements[lane], places, strict=True):
                d[place] = value
    return d


def exact(value: Any) -> Fraction:
    return Fraction(float(value))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("k", "a_type", "b_type", "d_type"),
    [
        (16, "f16", "f16", "f32"),
        (16, "f16", "f16", "f16"),
        (8, "f16", "f16", "f32"),
        (16, "bf16", "bf16", "f32"),
        (8, "bf16", "bf16", "f32"),
        (8, "tf32", "tf32", "f32"),
        (4, "tf32", "tf32", "f32"),
        (32, "e4m3", "e5m2", "f32"),
        (16, "e5m2", "e4m3", "f32"),
        (32, "e4m3", "e4m3", "f16"),
    ],
)
def test_floats(k: int, a_type: str, b_type: str, d_type: str, fused: bool) -> None:
    """Numbers small enough that every sum is exact, so that any order of adding is right."""
    a = RNG.integers(-8, 9, (16, k)).astype(np.float32).astype(DTYPES[a_type])
    b = RNG.integers(-8, 9, (k, 8)).astype(np.float32).astype(DTYPES[b_type])
    c = RNG.integers(-64, 65, (16, 8)).astype(DTYPES[d_type])
    opcode = f"mma.sync.aligned.m16n8k{k}.row.col.{d_type}.{a_type}.{b_type}.{d_type}"
    mode = "fused" if fused else "float64"
    d = multiply(opcode, a, b, c, tensor_core=mode)
    for m in range(16):
        for n in range(8):
            total = sum((exact(a[m, i]) * exact(b[i, n]) for i in range(k)), exact(c[m, n]))
            assert exact(d[m, n]) == total


def test_a_sum_is_rounded_once() -> None:
    a = RNG.standard_normal((16, 16)).astype(ml_dtypes.bfloat16)
    b = RNG.standard_normal((16, 8)).astype(ml_dtypes.bfloat16)
    c = (RNG.standard_normal((16, 8)) * 1e-3).astype(np.float32)
    d = multiply("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", a, b, c)
    for m in range(16):
        for n in range(8):
            total = sum((exact(a[m, i]) * exact(b[i, n]) for i in range(16)), exact(c[m, n]))
            step = Fraction(float(np.spacing(np.abs(d[m, n]))))
            assert abs(exact(d[m, n]) - total) <= step / 2 * Fraction(1001, 1000)


def test_tf32_drops_the_low_bits() -> None:
    a, b = np.ones((16, 8), np.float32), np.ones((8, 8), np.float32)
    a.view(np.uint32)[:] |= 0x1FFF
    d = multiply(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", a, b, np.zeros((16, 8), np.float32)
    )
    assert (d == 8).all()


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize(("a_type", "b_type"), [("s8", "s8"), ("u8", "s8"), ("u8", "u8")])
@pytest.mark.parametrize("k", [16, 32])
def test_integers(k: int, a_type: str, b_type: str, saturate: bool) -> None:
    a = RNG.integers(0, 256, (16, k)).astype(np.uint8).view(DTYPES[a_type])
    b = RNG.integers(0, 256, (k, 8)).astype(np.uint8).view(DTYPES[b_type])
    c = RNG.choice(np.array([-(1 << 31), (1 << 31) - 1, 5], np.int32), (16, 8))
    satfinite = "satfinite." if saturate else ""
    d = multiply(
        f"mma.sync.aligned.m16n8k{k}.row.col.{satfinite}s32.{a_type}.{b_type}.s32", a, b, c
    )
    for m in range(16):
        for n in range(8):
            total = sum((int(a[m, i]) * int(b[i, n]) for i in range(k)), int(c[m, n]))
            if saturate:
                total = max(-(1 << 31), min((1 << 31) - 1, total))
            assert int(d[m, n]) == (total + (1 << 31)) % (1 << 32) - (1 << 31)


def test_half_a_warp_is_reported() -> None:
    body = """.reg .pred low; setp.lt.u32 low, tid, 16; @low mma.sync.aligned.m16n8k8.row.col.f32.
    bf16.bf16.f32 {word, word, word, word}, {tid, tid}, {tid}, {tid, tid, tid, tid};"""
    _, run = run_lanes(body.replace("\n    ", ""))
    assert kinds(run) == ["convergence"]


@pytest.mark.parametrize(
    "shape",
    [
        "m16n8k32.row.col.f32.bf16.bf16.f32",
        "m16n8k16.row.col.f32.f16.bf16.f32",
        "m16n8k16.row.col.f32.f16.f16.f16",
        "m16n8k16.row.col.f16.bf16.bf16.f16",
        "m16n8k16.row.row.f32.f16.f16.f32",
        "m8n8k4.row.col.f32.f16.f16.f32",
        "m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e2m1.f32",
        "m16n8k16.row.col.satfinite.f32.f16.f16.f32",
        "m16n8k8.row.col.f32.tf32.tf32.f32",
    ],
)
def test_what_is_not_known_is_refused(shape: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(
            f"mma.sync.aligned.{shape} {{tid, tid, tid, tid}}, {{tid, tid}}, {{tid, tid}}, "
            "{tid, tid, tid, tid};"
        )
