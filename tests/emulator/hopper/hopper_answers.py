"""The open questions of ptx.md that recordings answer, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from hopper_kernel import Array, Kernel
from hopper_maps import driver_cases
from hopper_matrix import BITS, SETS, SHAPES
from hopper_recording import Entry, unpacked
from hopper_registry import kernels
from hopper_tensor import boxed
from hopper_wgmma import SWIZZLE_CODES, Place
from hopper_wgmma_kernels import Probe

from fa4gen.emulator.launch.tensormap import encode
from fa4gen.emulator.layouts.fragments import (
    accumulator,
    fragment_to_matrix,
    matrix_to_fragment,
    operand_a,
    operand_b,
)
from fa4gen.numerics.formats import decode
from fa4gen.numerics.ieee import canonical
from fa4gen.numerics.tensor_core import fused_dot, tcgen05_accumulation

Lines = Iterator[str]
BYTE = 8
BASE_OFFSETS: dict[str, Callable[[Array, int], Array]] = {
    "is ignored": lambda line, base: line,
    "is subtracted from the line of the swizzle": lambda line, base: line - base,
    "is added to the line of the swizzle": lambda line, base: line + base,
    "is xored with the line of the swizzle": lambda line, base: line ^ base,
}
"""The line is bits 7 and up of the address."""


def answers(recorded: dict[str, Entry]) -> Lines:
    """A line for everything that the recordings say beside equal or not."""
    first = (base_offsets, images, byte_products, rounded_loads)
    for part in (*first, nan_fills, undefined, driver_maps, sweeps):
        yield from part(recorded)


def _whole(recorded: dict[str, Entry], name: str, output: str) -> tuple[Kernel, Array] | None:
    if name not in recorded or "error" in recorded[name]:
        return None
    value = unpacked(kernels()[name], recorded[name], output)
    return None if value is None else (kernels()[name], value)


def base_offsets(recorded: dict[str, Entry]) -> Lines:
    """Question 1."""
    for major in ("k", "mn"):
        found = _whole(recorded, f"wgmma/probe-base-offset-{major}", "places")
        if found is None:
            continue
        kernel, places = found
        words = kernel.inputs["words"].tolist()
        for claim, rule in BASE_OFFSETS.items():
            right = [
                np.array_equal(places[i], _addressed(word, major, rule))
                for i, word in enumerate(words)
            ]
            count = f"{sum(right)} of {len(right)} cases"
            yield f"question 1, {major}-major: base_offset {claim}: {count}"


def _addressed(word: int, major: str, rule: Callable[[Array, int], Array]) -> Array:
    """Elements that a descriptor names if the swizzle's line is ``rule``'s."""
    span = {code: size for size, code in SWIZZLE_CODES.items()}[word >> 62]
    start, base = (word & 0x3FFF) << 4, word >> 49 & 7
    lbo, sbo = (word >> 16 & 0x3FFF) << 4, (word >> 32 & 0x3FFF) << 4
    linear = Place(major, span, lbo, sbo).linear(Probe.N, 16, 2) + start
    line = rule(linear >> 7, base) & (span // 16 - 1)
    at = linear ^ line << 4
    lane, register = np.arange(32), np.arange(Probe.N // 2)[:, None]
    k = lane // 4 + 8 * (register >> 1 & 1)
    n = 8 * (register >> 2) + 2 * (lane % 4) + (register & 1)
    found: Array = (at[n, k] // 2).astype(np.uint16)
    return found


def images(recorded: dict[str, Entry]) -> Lines:
    """The bits of an mbarrier."""
    found = _whole(recorded, "barriers/memory-image", "out")
    if found is not None:
        yield "mbarrier images: " + " ".join(f"{v:016x}" for v in found[1].tolist())
    found = _whole(recorded, "barriers/bytes", "states")
    if found is not None:
        yield "states with bytes outstanding: " + " ".join(f"{v:016x}" for v in found[1].tolist())


def byte_products(recorded: dict[str, Entry]) -> Lines:
    """How mma.sync of 8-bit floats adds up.

    ptxas 13.0 makes two products of f16 of it for sm_90a, of bytes 0 and 1 of each register and
    then of bytes 2 and 3, starting from zero, and adds C in the end: SASS F2FP.F16.E4M3.UNPACK_B,
    HMMA and FADD, or HADD2.
    """
    for shape, d_type, a_type, b_type in SHAPES:
        found = _whole(recorded, f"matrix/mma-sums-{shape}-{d_type}-{a_type}-{b_type}", "d")
        if found is None or BITS[a_type] != BYTE or a_type in ("s8", "u8"):
            continue
        wanted = two_products(found[0], (d_type, a_type, b_type), int(shape.partition("k")[2]))
        right = int((found[1] == wanted).sum())
        yield f"mma.sync {shape} of {a_type} x {b_type} into {d_type} is two products of f16 and a "
        yield f"    sum: {right} of {wanted.size} registers"


def two_products(kernel: Kernel, types: tuple[str, str, str], k: int) -> Array:
    """D of each set of registers, ``(set, register, lane)``, added up as SASS does."""
    d_type, a_type, b_type = types
    output: Literal["f32", "f16"] = "f16" if d_type == "f16" else "f32"
    how = tcgen05_accumulation("f16", "f16", output)
    a_map, b_map = operand_a(k, BYTE), operand_b(k, BYTE)
    d_map = accumulator(8, 16 if d_type == "f16" else 32)
    found = []
    for at in range(SETS):
        values = []
        for name, fragment, kind in (
            ("a", a_map, a_type),
            ("b", b_map, b_type),
            ("c", d_map, output),
        ):
            words = kernel.inputs[name].reshape(SETS, fragment.registers, 32)[at]
            matrix = fragment_to_matrix(fragment, words)
            values.append(decode(np.ascontiguousarray(matrix), kind))
        a, b, c = values
        first = np.arange(k) % 4 < 2
        total = fused_dot(a[:, first], b[:, first], np.zeros_like(c), how)
        total = fused_dot(a[:, ~first], b[:, ~first], total, how)
        with np.errstate(all="ignore"):
            if output == "f16":
                total, c = total.astype(np.float16), c.astype(np.float16)
            raw = canonical(total + c) if output == "f32" else total + c
        if output == "f32":
            found.append(matrix_to_fragment(d_map, raw.view(np.uint32)))
        else:
            halves = np.where(np.isnan(raw), np.uint16(0x7FFF), raw.view(np.uint16))
            found.append(matrix_to_fragment(d_map, halves))
    return np.stack(found)


def _nearest_even(bits: Array) -> Array:
    return bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1)) & np.uint32(0xFFFFE000)


ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "is left as it is": lambda bits: bits,
    "is cut": lambda bits: bits & np.uint32(0xFFFFE000),
    "is rounded to nearest, ties to even": _nearest_even,
    "is rounded to nearest, ties away": lambda bits: (
        bits + np.uint32(0x1000) & np.uint32(0xFFFFE000)
    ),
}


def rounded_loads(recorded: dict[str, Entry]) -> Lines:
    """What loads of f32.ftz and tf32 make of f32."""
    for kind in ("f32.ftz", "tf32", "tf32.ftz"):
        name = f"tensor/load-as-{kind}"
        found = _whole(recorded, name, "out")
        if found is None:
            continue
        kernel, out = found
        given = kernel.inputs["data"]
        got = out.view(np.uint32).reshape(-1)[: len(given)]
        exponent = given >> np.uint32(23) & np.uint32(0xFF)
        small, special = (exponent == 0) & (given << np.uint32(1) != 0), exponent == 255
        usual = ~small & ~special
        for claim, rule in ROUNDINGS.items():
            right = int((got[usual] == rule(given[usual])).sum())
            yield f"{kind}: a number {claim}: {right} of {int(usual.sum())}"
        signed = given[small] & np.uint32(1 << 31)
        yield (
            f"{kind}: a subnormal is a zero of its sign: {int((got[small] == signed).sum())}; "
            + (f"+0: {int((got[small] == 0).sum())} of {int(small.sum())}")
        )
        nan = special & (given << np.uint32(9) != 0)
        pairs = sorted(
            {
                (f"{a:08x}", f"{b:08x}")
                for a, b in zip(given[nan].tolist(), got[nan].tolist(), strict=True)
            }
        )
        yield f"{kind}: NaN: {pairs[:6]}"


def nan_fills(recorded: dict[str, Entry]) -> Lines:
    """Which NaN fills what is out of bounds."""
    for dtype in ("f16", "bf16", "f32", "f32.ftz"):
        found = _whole(recorded, f"tensor/load-nan-{dtype}", "out")
        if found is None:
            continue
        t = kernels()[f"tensor/load-nan-{dtype}"].arguments["map"].map  # type: ignore[union-attr]
        shared, _, inside = boxed(t, (64, 0))
        assert not inside.any()
        row = found[1][2].view(np.uint16 if t.element_bytes == 2 else np.uint32)
        yield f"fill of {dtype}: {sorted({f'{int(v):x}' for v in row[shared // t.element_bytes]})}"


def undefined(recorded: dict[str, Entry]) -> Lines:
    """What the ISA leaves open, as it was seen."""
    found = _whole(recorded, "integer/divide-undefined", "d")
    if found is not None:
        kernel, rows = found
        pairs = list(zip(kernel.inputs["a"].tolist(), kernel.inputs["b"].tolist(), strict=True))[
            :16
        ]
        for form, row in zip(("div.u32", "div.s32", "rem.u32", "rem.s32"), rows, strict=True):
            shown = ", ".join(
                f"{a:x}/{b:x}={int(r):x}" for (a, b), r in zip(pairs, row, strict=False)
            )
            yield f"{form}: {shown}"
    for name in ("memory/static-and-dynamic", "cluster/addresses"):
        output = "windows" if name.startswith("cluster") else "out"
        found = _whole(recorded, name, output)
        if found is not None:
            yield f"{name}: {[f'{int(v):x}' for v in found[1].reshape(-1)[:6]]}"
    found = _whole(recorded, "barriers/test-wait-state", "old")
    if found is not None:
        yield f"test_wait on states of 3, 2 and 1 phases ago: {found[1].tolist()}"


def driver_maps(recorded: dict[str, Entry]) -> Lines:
    """Question 5: where the driver's maps are others than ours."""
    for case in driver_cases():
        made = recorded.get(f"driver-map/{case.name}")
        if made is None:
            continue
        if "error" in made:
            yield f"map {case.name}: refused: {made['error']}"
            continue
        theirs = made["words"]
        raw = encode(case.map)
        ours = [f"{int.from_bytes(raw[i : i + 8], 'little'):016x}" for i in range(0, 64, 8)]
        other = [
            f"w{i} {t} not {o}"
            for i, (t, o) in enumerate(zip(theirs, ours, strict=False))
            if t != o
        ]
        tail = [f"w{i + 8} {t}" for i, t in enumerate(theirs[8:]) if int(t, 16)]
        yield f"map {case.name}: {', '.join(other + tail) or 'as ours'}"


def sweeps(recorded: dict[str, Entry]) -> Lines:
    """Errors of the approximate functions."""
    for name, made in recorded.items():
        if name.startswith("sweep/") and "error" not in made:
            yield f"{name}: {made['statistics']}"
