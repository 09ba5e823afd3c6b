"""``atom`` and ``red``: every operation and type, against lanes that act one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from per_lane import fault, kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction

RNG = np.random.default_rng(22)
CELLS = 5
"""Few, so that lanes meet."""


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def integer_step(operation: str, kind: str, bits: int) -> Callable[..., int]:
    """What one lane makes of the old value, on Python integers."""

    def order(value: int) -> int:
        return signed(value, bits) if kind == "s" else value

    steps: dict[str, Callable[..., int]] = {
        "and": lambda old, b, c: old & b,
        "or": lambda old, b, c: old | b,
        "xor": lambda old, b, c: old ^ b,
        "exch": lambda old, b, c: b,
        "cas": lambda old, b, c: c if old == b else old,
        "add": lambda old, b, c: (old + b) % (1 << bits),
        "inc": lambda old, b, c: 0 if old >= b else old + 1,
        "dec": lambda old, b, c: b if old == 0 or old > b else old - 1,
        "min": lambda old, b, c: min(old, b, key=order),
        "max": lambda old, b, c: max(old, b, key=order),
    }
    return steps[operation]


INTEGERS = [
    *((name, "b", bits) for name in ("and", "or", "xor", "exch") for bits in (32, 64)),
    *(("cas", "b", bits) for bits in (16, 32, 64)),
    *(("add", kind, bits) for kind, bits in (("u", 32), ("s", 32), ("u", 64))),
    *((name, "u", 32) for name in ("inc", "dec")),
    *((name, kind, bits) for name in ("min", "max") for kind in "us" for bits in (32, 64)),
]


@pytest.mark.parametrize(("operation", "kind", "bits"), INTEGERS)
def test_integers_lane_by_lane(operation: str, kind: str, bits: int) -> None:
    dtype = np.dtype(f"u{bits // 8}")
    high = 6 if operation in {"inc", "dec", "cas"} else 1 << bits
    memory = RNG.integers(0, high, CELLS, dtype=np.uint64).astype(dtype)
    where = RNG.integers(0, CELLS, 32).astype(np.uint32)
    b, c = (RNG.integers(0, high, 32, dtype=np.uint64).astype(dtype) for _ in range(2))
    takes_part = RNG.integers(0, 4, 32) > 0
    cells, expected, results = memory.tolist(), [0] * 32, memory.copy()
    step = integer_step(operation, kind, bits)
    for lane in np.flatnonzero(takes_part):
        at = int(where[lane])
        expected[lane] = cells[at]
        cells[at] = step(cells[at], int(b[lane]), int(c[lane]))
    third = ", c" if operation == "cas" else ""
    body = f"""mov.b{bits} old, 0; mad.wide.u32 at, where, {bits // 8}, mem;
    @takes_part atom.global.{operation}.{kind}{bits} old, [at], b{third};"""
    inputs = {"where": where, "b": b, "c": c, "takes_part": takes_part}
    out, run = run_lanes(body, inputs, {"old": dtype}, {"mem": results})
    assert run.ok, run.findings
    assert out["old"].tolist() == expected
    assert results.tolist() == cells


@pytest.mark.parametrize(
    ("opcode", "bits"),
    [
        ("red.relaxed.gpu.global.add.s32", 32),
        ("red.global.add.u32", 32),
        ("red.add.u32", 32),
        ("red.release.sys.global.max.s32", 32),
        ("red.global.min.u64", 64),
        ("red.global.relaxed.cluster.xor.b32", 32),
        ("red.global.or.b64", 64),
    ],
)
def test_red(opcode: str, bits: int) -> None:
    parts = opcode.split(".")
    operation, kind = parts[-2], parts[-1][0]
    dtype = np.dtype(f"u{bits // 8}")
    memory = RNG.integers(0, 1 << bits, CELLS, dtype=np.uint64).astype(dtype)
    where = RNG.integers(0, CELLS, 32).astype(np.uint32)
    b = RNG.integers(0, 1 << bits, 32, dtype=np.uint64).astype(dtype)
    cells, step = memory.tolist(), integer_step(operation, kind, bits)
    for lane in range(32):
        at = int(where[lane])
        cells[at] = step(cells[at], int(b[lane]), 0)
    body = f"mad.wide.u32 at, where, {bits // 8}, mem; {opcode} [at], b;"
    _, run = run_lanes(body, {"where": where, "b": b}, {}, {"mem": memory})
    assert run.ok, run.findings
    assert memory.tolist() == cells


SHARED = """mov.b32 word, smem; .reg .pred first; setp.eq.u32 first, tid, 0;
@first st.shared.b32 [word], {start}; bar.warp.sync -1;"""


@pytest.mark.parametrize("space", ["shared", "shared::cta", "shared::cluster", ""])
def test_shared_memory(space: str) -> None:
    where = f".{space}" if space else ""
    generic = "" if space else "cvt.u64.u32 at, word; cvta.shared.u64 at, at;"
    address = "at" if not space else "word"
    body = f"""{SHARED.format(start=100)} {generic}
    atom.relaxed.cta{where}.add.s32 old, [{address}], 1; bar.warp.sync -1;
    ld.shared.b32 total, [word];"""
    out, run = run_lanes(body, {}, {"old": "u4", "total": "u4"}, smem=64)
    assert run.ok, run.findings
    assert out["old"].tolist() == list(range(100, 132))
    assert set(out["total"]) == {132}


def test_a_peer_s_shared_memory() -> None:
    body = """mov.b32 word, smem; .reg .pred first; .reg .b32 rank; mov.u32 rank, %cluster_ctarank;
    setp.eq.u32 first, tid, 0; @first st.shared.b32 [word], 0; bar.warp.sync -1;
    barrier.cluster.arrive; barrier.cluster.wait; and.b32 old, tid, 1;
    mapa.shared::cluster.u32 old, word, old;
    red.relaxed.cluster.shared::cluster.add.s32 [old], 1;
    barrier.cluster.arrive; barrier.cluster.wait; ld.shared.b32 old, [word];
    mad.wide.u32 at, rank, 4, sum; @first st.global.b32 [at], old;"""
    total = np.zeros(2, np.uint32)
    _, run = run_lanes(
        body, {}, {"old": "u4"}, {"sum": total}, smem=64, grid=2, cluster=2, policy="seed:1"
    )
    assert run.ok, run.findings
    assert total.tolist() == [32, 32]


def exact_sum(first: np.float32, second: np.float32, flush: bool) -> np.float32:
    """A sum of two f32, rounded once: doubles hold the exact one for these values."""
    numbers = [float(value) for value in (first, second)]
    if flush:
        numbers = [math.copysign(0.0, x) if abs(x) < 2.0**-126 else x for x in numbers]
    total = numbers[0] + numbers[1]
    assert Fraction(total) == sum(map(Fraction, numbers))
    rounded = np.float32(total)
    return np.copysign(np.float32(0), rounded) if flush and abs(rounded) < 2.0**-126 else rounded


@pytest.mark.parametrize("space", ["global", "shared"])
def test_f32_additions_flush_subnormals_in_global_memory_only(space: str) -> None:
    special = np.array([1e-39, -1e-39, 3e-37, 1e-45, 1.5e-38, -1.4e-38, 0.0, -0.0], np.float32)
    start, b = RNG.choice(special, 32), RNG.choice(special, 32)
    memory = start.copy()
    body = {
        "global": """mad.wide.u32 at, tid, 4, mem; red.global.add.f32 [at], b;
        ld.global.b32 x, [at];""",
        "shared": """mov.b32 word, smem; mad.lo.u32 word, tid, 4, word;
        st.shared.b32 [word], start; red.shared.add.f32 [word], b; ld.shared.b32 x, [word];""",
    }[space]
    inputs = {"start": start, "b": b}
    out, run = run_lanes(body, inputs, {"x": "u4"}, {"mem": memory}, smem=128)
    assert run.ok, run.findings
    expected = [exact_sum(*pair, flush=space == "global") for pair in zip(start, b, strict=True)]
    assert out["x"].tolist() == np.array(expected, np.float32).view(np.uint32).tolist()
    assert any(0 < abs(float(value)) < 2.0**-126 for value in expected) == (space == "shared")


def test_f32_and_f64_additions_round_each_lane_s_sum() -> None:
    for dtype, kind in ((np.float32, "f32"), (np.float64, "f64")):
        memory = np.array([1e8], dtype)
        b = RNG.standard_normal(32).astype(dtype)
        total = memory[0]
        before = []
        for value in b:
            before.append(total)
            total = dtype(total + value)
        size = np.dtype(dtype).itemsize
        out, run = run_lanes(
            f"atom.global.add.{kind} old, [mem], b;", {"b": b}, {"old": dtype}, {"mem": memory}
        )
        assert run.ok
        assert out["old"].tolist() == before
        assert memory[0] == total, size


def test_a_nan_is_canonical() -> None:
    memory = np.array([0xFFC12345], np.uint32)
    _, run = run_lanes(
        "red.global.add.f32 [mem], b;", {"b": np.ones(32, np.float32)}, {}, {"mem": memory}
    )
    assert run.ok
    assert memory[0] == 0x7FFFFFFF


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("count", [1, 2])
def test_halves(name: str, count: int) -> None:
    dtype = np.float16 if name == "f16" else ml_dtypes.bfloat16
    memory = RNG.standard_normal((CELLS, count)).astype(dtype)
    memory[0] = 1e-7 if name == "f16" else 1e-40
    b = (RNG.standard_normal((32, count)) * 0.1).astype(dtype)
    where = RNG.integers(0, CELLS, 32)
    expected = memory.copy()
    for lane in range(32):
        at = int(where[lane])
        wide = expected[at].astype(np.float64) + b[lane].astype(np.float64)
        expected[at] = wide.astype(np.float32).astype(dtype)
    packed = "x2" if count == 2 else ""
    body = f"""mad.wide.u32 at, where, {2 * count}, mem;
    red.global.add.noftz.{name}{packed} [at], b;"""
    inputs = {"where": where.astype(np.uint32), "b": b.view(f"u{2 * count}").ravel()}
    _, run = run_lanes(body, inputs, {}, {"mem": memory.view(np.uint16)})
    assert run.ok, run.findings
    assert (memory.view(np.uint16) == expected.view(np.uint16)).all()


def on_boundary(shape: tuple[int, ...], dtype: object, align: int) -> np.ndarray:
    """Zeros at an address that is a multiple of ``align``."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + align, np.uint8)
    start = -room.ctypes.data % align
    return room[start : start + size].view(dtype).reshape(shape)


@pytest.mark.parametrize("count", [2, 4])
def test_vectors_of_f32(count: int) -> None:
    memory = on_boundary((3, count), np.float32, 16)
    memory[:] = RNG.standard_normal((3, count))
    b = RNG.standard_normal((32, count)).astype(np.float32)
    where = RNG.integers(0, 3, 32).astype(np.uint32)
    expected, before = memory.copy(), np.zeros((32, count), np.float32)
    for lane in range(32):
        before[lane] = expected[where[lane]]
        expected[where[lane]] += b[lane]
    names = [f"b{i}" for i in range(count)]
    olds = [f"old{i}" for i in range(count)]
    body = f"""mad.wide.u32 at, where, {4 * count}, mem;
    atom.global.v{count}.f32.add {{{", ".join(olds)}}}, [at], {{{", ".join(names)}}};"""
    inputs = {"where": where} | {name: b[:, i].copy() for i, name in enumerate(names)}
    out, run = run_lanes(body, inputs, dict.fromkeys(olds, "f4"), {"mem": memory})
    assert run.ok, run.findings
    assert (memory == expected).all()
    assert all((out[name] == before[:, i]).all() for i, name in enumerate(olds))


@pytest.mark.parametrize(("operation", "name"), [("min", "f16"), ("max", "bf16"), ("add", "bf16")])
def test_vectors_of_halves(operation: str, name: str) -> None:
    dtype = np.float16 if name == "f16" else ml_dtypes.bfloat16
    memory = on_boundary((1, 4), np.uint16, 8)
    memory[:] = RNG.standard_normal((1, 4)).astype(dtype).view(np.uint16)
    b = RNG.standard_normal((32, 4)).astype(dtype)
    expected = memory.view(dtype)[0].copy()
    step = {"min": np.minimum, "max": np.maximum, "add": np.add}[operation]
    for lane in range(32):
        wide = step(expected.astype(np.float32), b[lane].astype(np.float32))
        expected = wide.astype(dtype)
    words = b.view(np.uint32)
    body = f"red.global.{operation}.noftz.v2.{name}x2 [mem], {{b0, b1}};"
    inputs = {"b0": words[:, 0].copy(), "b1": words[:, 1].copy()}
    _, run = run_lanes(body, inputs, {}, {"mem": memory})
    assert run.ok, run.findings
    assert (memory.view(dtype)[0] == expected).all()


def test_b128_changes_as_one() -> None:
    memory = on_boundary((1, 2), np.uint64, 16)
    memory[:] = (7, 8)
    b = np.tile(np.array([[7, 9]], np.uint64), (32, 1))
    b[5], b[6:] = (7, 8), (1, 2)
    c = np.stack([np.arange(32), np.arange(32) + 100], axis=1).astype(np.uint64)
    out, run = run_lanes(
        "atom.global.cas.b128 old, [mem], b, c;", {"b": b, "c": c}, {"old": "b128"}, {"mem": memory}
    )
    assert run.ok, run.findings
    assert memory.tolist() == [[5, 105]]
    assert out["old"].tolist() == [[7, 8]] * 6 + [[5, 105]] * 26
    out, run = run_lanes(
        "atom.global.exch.b128 old, [mem], c;", {"c": c}, {"old": "b128"}, {"mem": memory}
    )
    assert run.ok
    assert memory.tolist() == [[31, 131]]
    assert out["old"].tolist() == [[5, 105], *c[:-1].tolist()]


@pytest.mark.parametrize(
    "line",
    [
        "atom.global.add.s64 at, [mem], at;",
        "atom.global.min.f32 word, [mem], word;",
        "atom.global.min.noftz.f16x2 word, [mem], word;",
        "atom.global.add.f16x2 word, [mem], word;",
        "atom.global.add.noftz.f32 word, [mem], word;",
        "atom.global.inc.s32 word, [mem], word;",
        "atom.local.add.u32 word, [mem], word;",
        "red.async.relaxed.cluster.global.add.u32 [mem], word;",
        "red.global.cas.b32 [mem], word, word;",
        "atom.global.cas.b32 word, [mem], word;",
        "atom.global.nand.b32 word, [mem], word;",
    ],
)
def test_what_ptxas_refuses_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line, {}, {}, {"mem": np.zeros(4, np.uint32)})


def test_a_result_may_be_dropped_and_a_policy_given() -> None:
    memory = np.zeros(1, np.uint32)
    body = """.reg .b64 policy; mov.b64 policy, 0; atom.global.add.u32 _, [mem], 1;
    red.global.add.L2::cache_hint.u32 [mem], 1, policy;"""
    _, run = run_lanes(body, {}, {}, {"mem": memory})
    assert run.ok
    assert memory[0] == 64


@pytest.mark.parametrize(
    "opcode", ["red.shared.add.u32 [word], 1", "atom.shared.add.u32 _, [word], 1"]
)
def test_uninitialised_shared_memory_is_noticed(opcode: str) -> None:
    _, run = run_lanes(f"mov.b32 word, smem; {opcode};", smem=64)
    assert kinds(run) == ["uninitialised"]


def test_an_exchange_may_initialise() -> None:
    _, run = run_lanes("mov.b32 word, smem; atom.shared.exch.b32 _, [word], 1;", smem=64)
    assert run.ok


def test_misaligned() -> None:
    _, run = run_lanes(
        "add.u64 at, mem, 2; red.global.add.u32 [at], 1;", {}, {}, {"mem": np.zeros(4, np.uint32)}
    )
    assert "2 past a multiple of 4" in fault(run)


def test_atomics_of_two_warps_are_no_race_but_an_early_read_is() -> None:
    body = """mov.b32 word, smem; .reg .pred p; setp.eq.u32 p, tid, 0;
    @p st.shared.b32 [word], 0; bar.sync 0; red.shared.add.u32 [word], 1; {sync}
    ld.shared.b32 x, [word];"""
    out, run = run_lanes(body.format(sync="bar.sync 0;"), {}, {"x": "u4"}, smem=64, block=96)
    assert run.ok
    assert set(out["x"]) == {96}
    _, run = run_lanes(body.format(sync=""), {}, {"x": "u4"}, smem=64, block=96)
    assert "race" in kinds(run)
