"""The fast paths, and f64 in every rounding mode, against exact rationals."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import exact_reals as exact
import numpy as np
import pytest
from exact_reals import FORMATS, Real, pack, unpack
from scalar_approx import exp2
from scalar_float import MODES, code, fused, operations, rounded

from fa4gen.numerics import double, fast, ieee, minmax, mufu, narrow

WARP = 32
F32 = FORMATS["f32"]


def bits(values: Any) -> list[int]:
    return [
        int(v) for v in values.view({4: np.uint32, 8: np.uint64, 2: np.uint16}[values.itemsize])
    ]


def f32(codes: list[int]) -> Any:
    return np.array(codes, np.uint32).view(np.float32)


def check(function: Callable[..., Any], wanted: Callable[..., int], rows: list[list[int]]) -> None:
    """``function`` of columns of 32 codes each, and of each code alone: alarms differ."""
    with np.errstate(all="ignore"):
        for first in range(0, len(rows), WARP):
            part = rows[first : first + WARP]
            got = bits(function(*map(f32, map(list, zip(*part, strict=True)))))
            assert got == [wanted(*row) for row in part]


def draw(count: int, sources: int, seed: int) -> list[list[int]]:
    dice = random.Random(seed)
    one = code("f32")
    return [[one(dice) for _ in range(sources)] for _ in range(count)]


def halfway(count: int) -> list[list[int]]:
    """Sums that differ from the middle of two float32 by less than a float64 shows."""
    dice = random.Random(5)
    rows = []
    for _ in range(count):
        exponent, mantissa = dice.randrange(90, 160), dice.randrange(1 << 23)
        half_ulp = (exponent - 24) << 23
        tiny = dice.randrange(2) << 31 | (exponent - dice.randrange(55, 85)) << 23
        # Half an ulp times 1 makes a tie, half an ulp times a hair more does not.
        one_and_a_hair = 0x3F800000 | dice.randrange(2)
        rows.append([half_ulp, one_and_a_hair, exponent << 23 | mantissa])
        rows.append([exponent << 23 | mantissa | 1, 0x3F000001, tiny])
    return rows


def test_fma_rounds_once() -> None:
    wanted = rounded("f32", partial(fused, mode="rn"))
    check(fast.fma32_rn, wanted, draw(3000, 3, 1) + halfway(1000))


def test_fma_ties_decided_by_what_float64_drops() -> None:
    """(1 + 2^-23) (1 - 2^-23) is 2^-46 short of 1; times 2^-24, beside 1, it looks like a tie."""
    rows = []
    for half_ulp in (0x33800001, 0xB3800001, 0x34000001, 0xB4000001):
        for c in (0x3F800000, 0x3F800001, 0x3F800002, 0x3FFFFFFF, 0xBF800001, 0x40000001):
            rows.append([half_ulp, 0x3F7FFFFE, c])
    check(fast.fma32_rn, rounded("f32", partial(fused, mode="rn")), rows * 4)


def test_fma_rounds_once_in_every_lane_by_itself() -> None:
    """One lane that needs care among 31 that do not."""
    dice = random.Random(2)
    plain = [[0x3FC00001 + dice.randrange(1 << 20) for _ in range(3)] for _ in range(WARP)]
    wanted = rounded("f32", partial(fused, mode="rn"))
    for odd in (
        [0x33800000, 0x3F800001, 0x3F800000],
        [0x7FC00000, 1, 1],
        [0x00800000, 0x3F000001, 1],
    ):
        for lane in (0, 17, 31):
            rows = [*plain]
            rows[lane] = odd
            check(fast.fma32_rn, wanted, rows)


def test_add_toward_minus_infinity() -> None:
    wanted = rounded("f32", partial(exact.add, mode="rm"), "rm")
    check(fast.add32_rm, wanted, draw(3000, 2, 3))
    # What software exponentials do: x + 1.5 * 2^23 is the floor of x, in the low bits.
    magic = 0x4B400000
    dice = random.Random(4)
    floors = [[dice.randrange(0x80000000, 0xC2FE0001), magic] for _ in range(500)]
    floors += [[0, magic], [0x80000000, magic], [1, magic], [0x80000001, magic]] * 8
    check(fast.add32_rm, wanted, floors)
    check(fast.add32_rm, wanted, [row[::-1] for row in floors])
    # The float64 sum of 1 and -2^-60 is 1, but the floor is below.
    check(fast.add32_rm, wanted, [[0xA1800000, 0x3F800000], [0x3F800000, 0xA1800000]] * 16)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_fma_of_short_factors_rounds_once(name: str) -> None:
    """Products that leave the range of float32, too."""
    form, dice = FORMATS[name], random.Random(name)
    one, addend = code(name), code("f32")

    def widened(code_: int) -> int:
        return pack(unpack(code_, form), F32)

    rows = [[widened(one(dice)), widened(one(dice)), addend(dice)] for _ in range(3000)]
    large, small = widened(form.largest), widened(1)
    rows += [[large, large, 0xFF7FFFFF], [small, small, 0x80000001], [large, small, 0]] * 11
    wanted = rounded("f32", partial(fused, mode="rn"))
    check(fast.fma32_rn_short, wanted, rows)
    for row in rows[:400]:
        check(fast.fma32_rn_short, wanted, [row] * 2)


@pytest.mark.parametrize("name", ["min", "max"])
@pytest.mark.parametrize("sources", [2, 3])
def test_extremes(name: str, sources: int) -> None:
    def wanted(*codes: int) -> int:
        return pack(exact.choose(name, [unpack(c, F32) for c in codes]), F32)

    function = fast.extreme32(name, sources)
    check(function, wanted, draw(2000, sources, 6))
    specials = [0, 1 << 31, 0x7FC00000, 0xFF800000, 0x3F800000, 0xFFC00001]
    dice = random.Random(7)
    check(function, wanted, [[dice.choice(specials) for _ in range(sources)] for _ in range(800)])


def test_exponential_is_that_of_all_values() -> None:
    dice = random.Random(8)
    rows = [
        [dice.randrange(2) << 31 | dice.randrange(100, 134) << 23 | dice.randrange(1 << 23)]
        for _ in range(400)
    ]
    rows += [[dice.randrange(1 << 32)] for _ in range(320)]
    rows += [
        [c] for c in (0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7FC00000, 0xC2FC0000, 0xC2FC0001)
    ]
    with np.errstate(all="ignore"):
        known = {c: bits(mufu.ex2(f32([c, 0x7FC00000])))[0] for (c,) in rows}
    check(fast.ex2_ftz, known.__getitem__, rows)
    for small in range(20):
        part = [[dice.randrange(0x3F000000, 0x40000000) | small % 2 << 31] for _ in range(WARP)]
        right = rounded("f32", exp2, ftz=True)
        got = bits(fast.ex2_ftz(f32([c for (c,) in part])))
        assert all(abs(g - right(c)) <= 2 for g, (c,) in zip(got, part, strict=True))


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_conversions_to_half(name: Any) -> None:
    def wanted(code_: int) -> int:
        return pack(unpack(code_, F32), FORMATS[name])

    check(partial(fast.half, name=name), wanted, draw(3000, 1, 9))
    check(
        partial(fast.half_pair, name=name),
        lambda a, b: wanted(a) << 16 | wanted(b),
        draw(2000, 2, 10),
    )


def test_fast_paths_agree_with_the_general_functions_on_any_bits() -> None:
    generator = np.random.default_rng(11)
    with np.errstate(all="ignore"):
        for _ in range(300):
            a, b, c = generator.integers(0, 1 << 32, (3, 64), np.uint32).view(np.float32)
            for got, wanted in (
                (fast.fma32_rn(a, b, c), ieee.fma32(a, b, c)),
                (fast.add32_rm(a, b), ieee.add32(a, b, "rm")),
                (fast.extreme32("max", 2)(a, b), minmax.max32(a, b)),
                (fast.clean(a * b), ieee.mul32(a, b)),
            ):
                assert bits(got) == bits(wanted)
            assert bits(fast.half(a, "bf16")) == bits(narrow.to_half(a, "bf16"))


DOUBLE: dict[str, Callable[..., Any]] = {
    "add": double.add64,
    "sub": double.sub64,
    "mul": double.mul64,
    "fma": double.fma64,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DOUBLE)
def test_f64_rounds_in_every_mode(name: str, mode: Any) -> None:
    sources, compute = operations(mode)[name]
    form = FORMATS["f64"]
    dice = random.Random(f"{name} {mode}")
    one = code("f64")
    rows = [[one(dice) for _ in range(sources)] for _ in range(600)]
    rows += [
        [0, 1 << 63, 0][:sources],
        [1 << 63] * sources,
        [1, 1, 0][:sources],
        [1, 1 << 63 | 1, 1 << 63][:sources],
    ]
    with np.errstate(all="ignore"):
        columns = [np.array(c, np.uint64).view(np.float64) for c in zip(*rows, strict=True)]
        got = DOUBLE[name](*columns, rounding=mode)
    for found, row in zip(bits(got), rows, strict=True):
        value: Real = compute(*(unpack(c, form) for c in row))
        if value.kind == "nan":
            assert unpack(found, form).kind == "nan"
        else:
            assert found == pack(value, form, mode), [hex(c) for c in row]
