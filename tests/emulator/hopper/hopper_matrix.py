"""``ldmatrix``, ``stmatrix``, ``movmatrix`` and ``mma.sync``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from hopper_draw import Draw
from hopper_kernel import Agreement, Array, Arrays, Kernel, Launch, Output
from hopper_numbers import REGIMES, codes, whole_numbers
from hopper_pieces import copy_in, copy_out, fill

MODEL = "PTX ISA 9.7.14.5: order and precision of the sums are open; the model is MMA-Sim's"


def small_matrices() -> Iterator[Kernel]:
    """8 x 8 matrices of 16-bit elements, at rows that lie all over shared memory."""
    rows = np.argsort(Draw("rows").u64(128), kind="stable")[:32].astype(np.uint32) * 16
    for transposed in ("", ".trans"):
        for count in (1, 2, 4):
            registers = ", ".join(f"%r{10 + i}" for i in range(count))
            where = (
                "{ .reg .b64 %at; mad.wide.u32 %at, %lane, 4, %rows; ld.global.b32 %r9, [%at]; }\n"
            )
            where += "add.u32 %r9, %r9, %base;\n.reg .b64 %to; mad.wide.u32 %to, %id, 16, %out;\n"
            stores = "".join(f"st.global.b32 [%to+{4 * i}], %r{10 + i};\n" for i in range(count))
            opcode = f"sync.aligned.m8n8.x{count}{transposed}.shared.b16"
            name = f"x{count}{transposed.replace('.', '-')}"
            data = Draw(f"ldmatrix {count}").u32(512)
            yield Kernel(
                name=f"matrix/ldmatrix-{name}",
                question="ldmatrix: which lane holds which element",
                body=copy_in("%data", 0, 2048, 32)
                + where
                + f"ldmatrix.{opcode} {{{registers}}}, [%r9];\n"
                + stores,
                arguments={"data": data, "rows": rows},
                outputs={"out": Output((32, 4), "uint32")},
                launch=Launch(smem=2048),
                expected=partial(_loaded, count=count, transposed=bool(transposed)),
            )
            loads = "{ .reg .b64 %at; mad.wide.u32 %at, %id, 16, %data;\n"
            loads += (
                "".join(f"ld.global.b32 %r{10 + i}, [%at+{4 * i}];\n" for i in range(count)) + "}\n"
            )
            body = fill(0, 2048, 32) + "bar.sync 0;\n" + loads + where.partition(".reg .b64 %to")[0]
            body += f"stmatrix.{opcode} [%r9], {{{registers}}};\nbar.sync 0;\n"
            yield Kernel(
                name=f"matrix/stmatrix-{name}",
                question="stmatrix is the inverse of ldmatrix",
                body=body + copy_out("%out", 0, 2048, 32),
                arguments={"data": data[:128], "rows": rows},
                outputs={"out": Output((512,), "uint32")},
                launch=Launch(smem=2048),
            )
    body = "{ .reg .b64 %at; mad.wide.u32 %at, %id, 4, %data; ld.global.b32 %r10, [%at]; }\n"
    body += "movmatrix.sync.aligned.m8n8.trans.b16 %r11, %r10;\n"
    body += "{ .reg .b64 %at; mad.wide.u32 %at, %id, 4, %out; st.global.b32 [%at], %r11; }\n"
    yield Kernel(
        name="matrix/movmatrix",
        question="movmatrix transposes",
        body=body,
        arguments={"data": Draw("movmatrix").u32(32)},
        outputs={"out": Output((32,), "uint32")},
    )


def _loaded(inputs: Arrays, count: int, transposed: bool) -> Arrays:
    """PTX ISA 9.7.14.5.15, element by element."""
    halves = inputs["data"].view(np.uint16)
    out = np.full((32, 4), 0xEEEEEEEE, np.uint32)
    for lane in range(32):
        for matrix in range(count):
            found = []
            for half in (0, 1):
                row, column = lane // 4, 2 * (lane % 4) + half
                row, column = (column, row) if transposed else (row, column)
                found.append(int(halves[int(inputs["rows"][8 * matrix + row]) // 2 + column]))
            out[lane, matrix] = found[0] | found[1] << 16
    return {"out": out}


SHAPES = [
    ("m16n8k16", "f32", "bf16", "bf16"), ("m16n8k8", "f32", "bf16", "bf16"),
    ("m16n8k16", "f32", "f16", "f16"), ("m16n8k8", "f32", "f16", "f16"),
    ("m16n8k16", "f16", "f16", "f16"), ("m16n8k8", "f16", "f16", "f16"),
    ("m16n8k8", "f32", "tf32", "tf32"), ("m16n8k4", "f32", "tf32", "tf32"),
    ("m16n8k32", "f32", "e4m3", "e4m3"), ("m16n8k32", "f32", "e5m2", "e4m3"),
    ("m16n8k16", "f32", "e4m3", "e5m2"), ("m16n8k32", "f16", "e4m3", "e4m3"),
    ("m16n8k32", "s32", "s8", "s8"), ("m16n8k16", "s32", "u8", "s8"),
    ("m16n8k32", "s32", "u8", "u8"),
]  # fmt: skip
BITS = {"bf16": 16, "f16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8}
SETS = 24
"""Products a warp computes, each of registers of its own."""


def products() -> Iterator[Kernel]:
    """mma.sync on registers of any contents: fragments by whole numbers, sums by any numbers."""
    for shape, d_type, a_type, b_type in SHAPES:
        k = int(shape.partition("k")[2])
        a_count, b_count = k * BITS[a_type] // 64, k * BITS[a_type] // 128
        d_count = 2 if d_type == "f16" else 4
        name = f"{shape}-{d_type}-{a_type}-{b_type}"
        opcode = f"mma.sync.aligned.{shape}.row.col.{d_type}.{a_type}.{b_type}.{d_type}"
        counts = (a_count, b_count, d_count)
        kinds = (a_type, b_type, d_type)
        draw = Draw(name)
        whole = [
            whole_numbers(draw, kind, SETS * n * 32 * _per(kind)).view(np.uint32)
            for kind, n in zip(kinds, counts, strict=True)
        ]
        question = f"{shape} {d_type} += {a_type} x {b_type}: fragments, by sums that are exact"
        yield _product(f"mma-{name}", question, opcode, counts, whole, Agreement.BITS)
        if d_type == "s32":
            whole[2] = draw.u32(len(whole[2])) | np.uint32(0x7F000000)
            question = "integer sums that saturate"
            full = opcode.replace(".row.col.", ".row.col.satfinite.")
            yield _product(f"mma-satfinite-{name}", question, full, counts, whole, Agreement.BITS)
            continue
        any_numbers = []
        for kind, n, operand in zip(kinds, counts, "abc", strict=True):
            size = n * 32 * _per(kind)
            parts = [
                codes(draw, kind, REGIMES[i % len(REGIMES)], size, operand) for i in range(SETS)
            ]
            any_numbers.append(np.concatenate(parts).view(np.uint32))
        question = f"{shape} {d_type} += {a_type} x {b_type}: how the sums are cut and rounded"
        yield _product(f"mma-sums-{name}", question, opcode, counts, any_numbers, Agreement.MODEL)


def _per(kind: str) -> int:
    """Elements of a register."""
    return 32 // BITS.get(kind, {"f32": 32, "s32": 32}.get(kind, 16))


def _product(
    name: str,
    question: str,
    opcode: str,
    counts: tuple[int, int, int],
    registers: list[Array],
    agreement: Agreement,
) -> Kernel:
    """Each warp multiplies one set; registers are stored as (set, register, lane)."""
    names, body = ("a", "b", "c"), ""
    vectors = []
    for letter, count in zip(names, counts, strict=True):
        found = [f"%{letter}v{i}" for i in range(count)]
        vectors.append("{" + ", ".join(found) + "}")
        body += f".reg .b32 {', '.join(found)};\n"
        body += f"{{ .reg .b64 %at; .reg .b32 %n; mad.lo.u32 %n, %warp, {32 * count}, %lane;"
        body += f" mad.wide.u32 %at, %n, 4, %{letter};\n"
        body += (
            "".join(f"ld.global.b32 {r}, [%at+{128 * i}];\n" for i, r in enumerate(found)) + "}\n"
        )
    results = [f"%dv{i}" for i in range(counts[2])]
    body += f".reg .b32 {', '.join(results)};\n"
    body += f"{opcode} {{{', '.join(results)}}}, {', '.join(vectors)};\n"
    body += f"{{ .reg .b64 %at; .reg .b32 %n; mad.lo.u32 %n, %warp, {32 * counts[2]}, %lane;"
    body += " mad.wide.u32 %at, %n, 4, %d;\n"
    body += "".join(f"st.global.b32 [%at+{128 * i}], {r};\n" for i, r in enumerate(results)) + "}\n"
    return Kernel(
        name=f"matrix/{name}",
        question=question,
        body=body,
        arguments=dict(zip(names, registers, strict=True)),
        outputs={"d": Output((SETS, counts[2], 32), "uint32", agreement)},
        launch=Launch(block=32 * SETS),
        why=MODEL if agreement is Agreement.MODEL else "",
    )


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    yield from small_matrices()
    yield from products()
