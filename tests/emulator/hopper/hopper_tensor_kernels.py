"""Tensor copies: swizzles, ranks, bounds, element strides, fills, reductions, multicast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from hopper_draw import Draw, f32_codes, half_codes, integer_codes
from hopper_kernel import Agreement, Array, Arrays, Kernel, Launch, MapOf, Output
from hopper_pieces import CLUSTER_SYNC, PROXY_FENCE, copy_out, fill, init, lead, wait
from hopper_tensor import (
    DATA,
    FILL,
    LANES,
    Coordinates,
    Load,
    Store,
    box_bytes,
    boxed,
    buffer_bytes,
    load,
    tensor_map,
)

from fa4gen.emulator.launch.tensormap import TensorMap

ILLEGAL_INSTRUCTION = 715
"""``CUDA_ERROR_ILLEGAL_INSTRUCTION``: what an H200 says of a tensor copy that it cannot do."""
RANKS: dict[int, tuple[Coordinates, Coordinates, list[Coordinates]]] = {
    1: ((200,), (64,), [(0,), (104,), (152,), (-40,), (200,)]),
    2: ((72, 20), (32, 6), [(0, 0), (40, 14), (48, 17), (-8, -3), (72, 0), (0, 20), (-32, 5)]),
    3: ((40, 9, 7), (16, 4, 3), [(0, 0, 0), (24, 5, 4), (32, 7, 6), (-8, -2, -1), (8, 3, 7)]),
    4: ((20, 5, 6, 4), (8, 3, 2, 2), [(0, 0, 0, 0), (16, 3, 5, 3), (16, 4, -1, -1), (0, 0, 0, 4)]),
    5: (
        (12, 3, 4, 3, 5),
        (8, 2, 3, 2, 2),
        [(0, 0, 0, 0, 0), (8, 2, 2, 2, 4), (-8, -1, -2, -1, -1), (8, 2, 1, 2, 3), (0, -1, 2, 0, 0)],
    ),
}
"""Tensors of f16, boxes, and where they lie; inner coordinates are multiples of 16 bytes."""

NARROW = ((32, 16), (64, 16), (64, 32), (128, 16), (128, 32), (128, 64), (128, 96))
"""Swizzles, and inner bytes of boxes that are narrower."""


def loads() -> Iterator[Kernel]:
    """Swizzles, types, ranks."""
    boxes = [(0, 0), (64, 3), (-8, -2), (120, 30), (200, 0), (72, 37)]
    wide = [(0, 0), (64, 3), (-16, -2), (112, 30), (208, 0), (144, 37)]
    for span in (0, 32, 64, 128):
        for dtype, size in (("bf16", 2), ("u8", 1), ("f32", 4), ("u64", 8)):
            inner = (span or 128) // size
            t = tensor_map(dtype, (150, 40), (min(inner, 256), 12), swizzle=span)
            question = f"where a box of {dtype} lies with a swizzle of {span}, bounds included"
            places = wide if size == 1 else boxes
            yield Load(f"load-{dtype}-swizzle{span}", question, t, places).kernel()
    for span, inner in NARROW:
        t = tensor_map("bf16", (150, 40), (inner // 2, 12), swizzle=span)
        question = f"a box of {inner} bytes, narrower than its swizzle of {span}"
        yield Load(f"load-narrow{inner}-swizzle{span}", question, t, boxes).kernel()
    for span in (0, 32, 64, 128):
        t = tensor_map("bf16", (150, 40), ((span or 128) // 2, 12), swizzle=span)
        question = f"a swizzle of {span} is one of addresses, not of places in the box"
        for shift in (128, 640):
            name = f"load-behind{shift}-swizzle{span}"
            yield Load(name, question, t, [(0, 0), (64, 3)], shift=shift).kernel()
    for rank, (dims, box, places) in RANKS.items():
        t = tensor_map("f16", dims, box)
        question = f"rank {rank}: negative and outer coordinates; complete_tx counts the full box"
        yield Load(f"load-{rank}d", question, t, places).kernel()
    for dtype in ("u16", "u32", "s32", "s64", "f16", "f64"):
        t = tensor_map(dtype, (64, 10), (16, 4))
        yield Load(f"load-{dtype}", f"elements of {dtype}", t, [(0, 0), (56, 8)]).kernel()
    t = tensor_map("bf16", (64, 10), (64, 8), swizzle=128)
    for space in ("shared::cta", "shared::cluster"):
        name = f"load-{space.replace('::', '-')}"
        hinted = ".L2::cache_hint"
        question = f"to .{space}, with a cache hint"
        yield Load(name, question, t, [(0, 0), (8, 4)], space=space, modifiers=hinted).kernel()


def strides() -> Iterator[Kernel]:
    """Strides of the tensor, and of elements."""
    t = tensor_map("bf16", (64, 8), (64, 4), strides=(2, 0), swizzle=128)
    yield Load("load-stride-0", "a stride of 0 repeats a row", t, [(0, 0), (0, 6)]).kernel()
    t = tensor_map("bf16", (64, 8, 4), (32, 2, 2), strides=(2, 1024, 128))
    question = "strides need not grow with the dimension"
    yield Load("load-strides-crossed", question, t, [(0, 0, 0), (48, 7, 3)]).kernel()
    boxes = [(0, 0), (8, 3), (-8, -2), (48, 33), (-16, -1), (56, 36)]
    for steps in ((1, 2), (1, 3), (1, 8), (2, 1), (4, 3)):
        t = tensor_map("bf16", (64, 40), (32, 12), element_strides=steps)
        name = f"load-element-strides-{steps[0]}-{steps[1]}"
        question = (
            f"element strides {steps}: how many elements a box has, which, and what is counted"
        )
        yield Load(name, question, t, boxes).kernel()
    t = tensor_map("f32", (64, 40), (16, 10), element_strides=(1, 4), swizzle=64)
    yield Load("load-element-strides-swizzle", "element strides and a swizzle", t, boxes).kernel()


def fills() -> Iterator[Kernel]:
    """What elements out of bounds become."""
    boxes: list[Coordinates] = [(-8, -2), (56, 8), (64, 0), (0, 0)]
    for dtype in ("f16", "bf16", "f32", "f32.ftz"):
        t = tensor_map(dtype, (64, 10), (16, 4), oob_fill="nan")
        question = f"the NaN that fills {dtype} out of bounds"
        data = _finite(f"nan {dtype}", dtype, buffer_bytes(t))
        yield _claimed(f"load-nan-{dtype}", question, t, boxes, data, "which NaN is not told")


def _claimed(
    name: str, question: str, t: TensorMap, boxes: list[Coordinates], data: Array, why: str
) -> Kernel:
    """A load whose bits the ISA does not tell: a model."""
    why = f"CUDA driver API: {why}"
    return Load(name, question, t, boxes, Agreement.MODEL, why, data).kernel()


def _finite(name: str, dtype: str, size: int) -> Array:
    """Ordinary numbers, so that the only NaN are fills."""
    if dtype.startswith("f32"):
        return Draw(name).wide(size // 4, -20, 20).view(np.uint32)
    return Draw(name).u16(size // 2) & np.uint16(0xBBFF)


def roundings() -> Iterator[Kernel]:
    """Types that change numbers on their way."""
    codes = f32_codes(Draw("rounded"), 1, 2048)[0]
    halfway = codes & np.uint32(0xFFFFE000) | np.uint32(0x1000)
    near = halfway + (Draw("near halfway").u32(2048) % np.uint32(3)) - np.uint32(1)
    data = np.concatenate([codes, halfway, near])
    boxes: list[Coordinates] = [(0, i) for i in range(0, 96, 8)]
    for name, more in (("f32", {}), ("f32.ftz", {}), ("tf32", {"tf32": True})):
        dtype = "f32" if name == "tf32" else name
        t = tensor_map(dtype, (64, 96), (64, 8), strides=(4, 256), **more)
        question = f"what a load of {name} makes of f32: rounding, NaN, subnormals"
        if name == "f32":
            yield Load("load-as-f32", question, t, boxes, data=data).kernel()
        else:
            yield _claimed(f"load-as-{name}", question, t, boxes, data, "rounding is not told")
    t = tensor_map("f32.ftz", (64, 96), (64, 8), strides=(4, 256), tf32=True)
    question = "tf32 with subnormals flushed"
    yield _claimed("load-as-tf32.ftz", question, t, boxes, data, "rounding is not told")


def stores() -> Iterator[Kernel]:
    """Stores: swizzles, ranks, bounds."""
    boxes = [(0, 0), (64, 12), (8, 36), (120, 24)]
    for span in (0, 32, 64, 128):
        for dtype, size in (("bf16", 2), ("f32", 4)):
            t = tensor_map(dtype, (150, 40), ((span or 128) // size, 12), swizzle=span)
            question = f"stores of {dtype} with a swizzle of {span} leave out what is out of bounds"
            yield Store(f"store-{dtype}-swizzle{span}", question, t, boxes).kernel()
    for rank, (dims, box, places) in RANKS.items():
        t = tensor_map("f16", dims, box)
        begin = [at for at in places if all(0 <= c < d for c, d in zip(at, dims, strict=True))]
        yield Store(f"store-{rank}d", f"stores of rank {rank}", t, begin).kernel()
    t = tensor_map("f16", (72, 20), (32, 6))
    for name, place in (("inner", (72, 0)), ("outer", (8, 20))):
        question = f"a store that begins behind the end of the {name} dimension changes nothing"
        yield Store(f"store-behind-{name}", question, t, [place]).kernel()
    for span, inner in NARROW:
        t = tensor_map("bf16", (150, 40), (inner // 2, 12), swizzle=span)
        question = f"stores of {inner} bytes, narrower than the swizzle of {span}"
        yield Store(f"store-narrow{inner}-swizzle{span}", question, t, boxes).kernel()
    t = tensor_map("bf16", (64, 40), (32, 12), element_strides=(1, 3))
    question = "stores with element strides"
    yield Store("store-element-strides", question, t, [(0, 0), (32, 1), (40, 35)]).kernel()


FLOATS = "PTX ISA 9.7.9.25.5.3 does not tell what becomes of subnormals and NaN"
INTEGER = ("add", "min", "max", "inc", "dec", "and", "or", "xor")
REDUCTIONS = {
    "u32": INTEGER,
    "s32": ("add", "min", "max"),
    "u64": ("add", "min", "max", "and", "or", "xor"),
    "s64": ("min", "max"),
    "f32": ("add",),
    "f32.ftz": ("add",),
    "f16": ("add", "min", "max"),
    "bf16": ("add", "min", "max"),
    "f64": ("add",),
}


def reductions() -> Iterator[Kernel]:
    """Every operation of every type, on special values."""
    for dtype, operations in REDUCTIONS.items():
        for operation in operations:
            size = 8 if "64" in dtype else 2 if dtype in ("f16", "bf16") else 4
            t = tensor_map(dtype, (64, 24), (128 // size // 2, 10), swizzle=64)
            before, given = _operands(f"{operation} {dtype}", dtype, buffer_bytes(t), 4 * 2560)
            boxes = (
                [(0, 0), (60, 10), (4, 20), (0, 11)] if size == 8 else [(0, 0), (56, 10), (8, 20)]
            )
            room = -(-box_bytes(t) // 512) * 512
            data = np.resize(given.view(np.uint8), len(boxes) * room)
            question = f"reduction {operation} of {dtype} into global memory: NaN, subnormals"
            name = f"reduce-{operation}-{dtype}"
            how = (Agreement.MODEL, FLOATS) if "f" in dtype else (Agreement.BITS, "")
            yield Store(name, question, t, boxes, operation, data, before, *how).kernel()


def ragged() -> Iterator[Kernel]:
    """Reductions into rows that end within 16 bytes."""
    for dtype in ("u32", "bf16"):
        size = 4 if dtype == "u32" else 2
        t = tensor_map(dtype, (61, 12), (64 // size, 10))
        before, given = _operands(f"ragged {dtype}", dtype, buffer_bytes(t), 3 * 1024)
        question = f"does a reduction of {dtype} end where the rows of the tensor do?"
        name, boxes = f"reduce-ragged-{dtype}", [(0, 0), (56, 2), (48, 8)]
        how = (Agreement.MODEL, "PTX ISA 9.7.9.25.5.3 does not tell")
        yield Store(name, question, t, boxes, "add", given, before, *how).kernel()


def _operands(name: str, dtype: str, *sizes: int) -> list[Array]:
    draw = Draw(name)
    if dtype.startswith("f32"):
        made: list[Array] = list(f32_codes(draw, 2, 4608))
    elif dtype in ("f16", "bf16"):
        made = list(half_codes(draw, dtype, 2, 9216))
    elif dtype == "f64":
        made = [draw.normal(2048), draw.normal(2048)]
    else:
        bits = int(dtype[1:])
        made = [v.astype(f"uint{bits}") for v in integer_codes(draw, bits, 2, 2048)]
    return [np.resize(each.view(np.uint8), size) for each, size in zip(made, sizes, strict=True)]


def faults() -> Iterator[Kernel]:
    """Boxes that tensor copies cannot begin at."""
    inner = "the inner coordinate is no multiple of 16 bytes"
    for dtype, name, place in (
        ("u8", "u8", (8, 0)),
        ("bf16", "bf16", (1, 0)),
        ("f32", "f32", (2, 0)),
        ("u8", "before", (-8, 0)),
        ("bf16", "behind", (500, 0)),
    ):
        t = tensor_map(dtype, (64, 10), (32, 4))
        made = Load(f"load-unaligned-{name}", inner, t, [place], faults=ILLEGAL_INSTRUCTION)
        yield made.kernel()
    t = tensor_map("bf16", (64, 10), (32, 4))
    negative = "a store does not begin before the tensor"
    for name, question, place in (
        ("store-unaligned", inner, (4, 0)),
        ("store-before-inner", negative, (-8, 0)),
        ("store-before-outer", negative, (0, -1)),
        ("store-before-all", negative, (-64, 0)),
    ):
        yield Store(name, question, t, [place], faults=ILLEGAL_INSTRUCTION).kernel()
    question = "a reduction does not begin before the tensor"
    add = Store("reduce-before", question, t, [(0, -1)], "add", faults=ILLEGAL_INSTRUCTION)
    yield add.kernel()


def transactions() -> Iterator[Kernel]:
    """What is counted of boxes that are partly, or not at all, in bounds (question 3)."""
    t = tensor_map("bf16", (64, 10), (32, 4))
    boxes = [(0, 0), (48, 8), (64, 0), (-40, -9), (504, 500)]
    body = init(1, 1) + fill(DATA, 512, LANES, FILL * 0x01010101) + PROXY_FENCE + "bar.sync 0;\n"
    body += "mov.u32 %r20, 0;\n"
    # Sixteen bytes more are expected than the box has: the phase stays open until they come.
    for number, box in enumerate(boxes):
        parity = number & 1
        body += lead(
            f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {box_bytes(t) + 16};\n"
            + load(t, box, f"%base+{DATA}")
            # This copy tells the other mbarrier, and so lets time pass.
            + f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base+8], {box_bytes(t)};\n"
            + load(t, box, f"%base+{DATA + 512}", "%base+8")
        )
        body += wait("%base+8", parity, 10 + number)
        body += (
            "nanosleep.u32 20000; "
            f"mbarrier.test_wait.parity.shared::cta.b64 %p1, [%base], {parity};\n"
        )
        body += f"selp.b32 %r10, {1 << number}, 0, %p1; or.b32 %r20, %r20, %r10;\n"
        body += "bar.sync 0;\n"
        body += lead("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%base], 16;\n")
        body += wait("%base", parity, 20 + number)
    body += "{ .reg .b64 %at; mad.wide.u32 %at, %thr, 4, %early; st.global.u32 [%at], %r20; }\n"
    data = Draw("transactions").u16(buffer_bytes(t) // 2)
    yield Kernel(
        name="tensor/complete-tx-out-of-bounds",
        question="ptx.md question 3: complete_tx counts the full box, wherever it lies",
        body=body,
        arguments={"data": data, "map": MapOf("data", t)},
        outputs={"early": Output((LANES,), "uint32")},
        launch=Launch(block=LANES, smem=DATA + 1024),
        expected=lambda inputs: {"early": np.zeros(LANES, np.uint32)},
        waits=True,
    )


def multicasts() -> Iterator[Kernel]:
    """One load for several CTAs of a cluster, each with its own mbarrier."""
    t = tensor_map("bf16", (128, 40), (64, 8), swizzle=128)
    for size, masks in ((2, (3, 2, 1)), (4, (15, 10, 5, 8))):
        body = init(1, cluster=True)
        data = Draw("multicast").u16(buffer_bytes(t) // 2)
        room = 1024
        for number, mask in enumerate(masks):
            mine = (
                f"shr.u32 %r10, {mask}, %rank; and.b32 %r10, %r10, 1; setp.eq.u32 %p7, %r10, 1;\n"
            )
            body += mine + fill(DATA, room, LANES, FILL * 0x01010101) + PROXY_FENCE + CLUSTER_SYNC
            body += "setp.eq.and.u32 %p8, %thr, 0, %p7;\n"
            body += f"@%p8 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {box_bytes(t)};\n"
            body += "setp.eq.and.u32 %p8, %thr, 0, !%p7;\n"
            body += "@%p8 mbarrier.arrive.shared::cta.b64 _, [%base];\n"
            body += (
                CLUSTER_SYNC
                + f"setp.eq.u32 %p8, %rank, {number % size}; setp.eq.and.u32 %p8, %thr, 0, %p8;\n"
            )
            body += f"@%p8 {_multicast(t, (8 * number, 3 * number), mask)}"
            body += wait("%base", number & 1, number + 1) + "bar.sync 0;\n"
            body += f"mad.lo.u32 %r11, %rank, {room * len(masks)}, {room * number};\n"
            body += "cvt.u64.u32 %rd20, %r11; add.u64 %rd20, %rd20, %out;\n"
            body += copy_out("%rd20", DATA, room, LANES)
        body += CLUSTER_SYNC
        yield Kernel(
            name=f"tensor/multicast-{size}",
            question=f"a multicast in a cluster of {size}: same offsets of data and mbarrier",
            body=body,
            arguments={"data": data, "map": MapOf("data", t)},
            outputs={"out": Output((size, len(masks), room), "uint8")},
            launch=Launch(block=LANES, grid=(size, 1, 1), cluster=(size, 1, 1), smem=DATA + room),
            expected=partial(_received, t=t, size=size, masks=masks),
            waits=True,
        )


def _received(inputs: Arrays, t: TensorMap, size: int, masks: tuple[int, ...]) -> Arrays:
    """What the CTAs of a mask find, and the others do not."""
    raw = inputs["data"].view(np.uint8)
    out = np.full((size, len(masks), box_bytes(t)), FILL, np.uint8)
    for number, mask in enumerate(masks):
        shared, where, inside = boxed(t, (8 * number, 3 * number))
        box = np.zeros(box_bytes(t), np.uint8)
        for byte in range(t.element_bytes):
            box[shared + byte] = np.where(inside, raw[np.where(inside, where, 0) + byte], 0)
        out[[rank for rank in range(size) if mask >> rank & 1], number] = box
    return {"out": out}


def _multicast(t: TensorMap, box: Coordinates, mask: int) -> str:
    at = ", ".join(map(str, box))
    return (
        f"cp.async.bulk.tensor.{t.rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        f".multicast::cluster [%base+{DATA}], [%map, {{{at}}}], [%base], {mask};\n"
    )


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    parts = (loads, strides, fills, roundings, stores, reductions, ragged, faults)
    parts += (transactions, multicasts)
    for part in parts:
        yield from part()
