"""Linear bulk copies and reductions, between global, shared and peers' shared memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hopper_draw import Draw, f32_codes, half_codes, integer_codes
from hopper_kernel import Array, Arrays, Kernel, Launch, Output
from hopper_pieces import CLUSTER_SYNC, PROXY_FENCE, copy_in, copy_out, fill, init, lead, wait

DATA = 1024
BLOCK = 32
COMPLETE = "mbarrier::complete_tx::bytes"
LOADS = ((512, 16, 16), (1008, 2032, 48), (64, 4096, 1024), (4096, 48, 1984))
"""Byte in global memory, byte behind :data:`DATA`, bytes."""


def loads() -> Kernel:
    """Global to shared memory."""
    room = 5120
    body = init(1) + fill(DATA, room, BLOCK) + PROXY_FENCE + "bar.sync 0;\n"
    total = sum(size for _, _, size in LOADS)
    body += lead(
        f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {total};\n"
        + "".join(
            f"add.u64 %rd20, %data, {of};\n"
            f"cp.async.bulk.{space}.global.{COMPLETE} [%base+{DATA + to}], [%rd20], {size},"
            " [%base];\n"
            for (of, to, size), space in zip(
                LOADS, ("shared::cluster", "shared::cta") * 2, strict=True
            )
        )
    )
    body += wait("%base", 0, 1) + copy_out("%out", DATA, room, BLOCK)
    return Kernel(
        name="bulk/load",
        question="cp.async.bulk from global to shared memory",
        body=body,
        arguments={"data": Draw("bulk load").u8(8192)},
        outputs={"out": Output((room,), "uint8")},
        launch=Launch(block=BLOCK, smem=DATA + room),
        expected=_loaded,
        waits=True,
    )


def _loaded(inputs: Arrays) -> Arrays:
    out = np.full(5120, 0xA5, np.uint8)
    for of, to, size in LOADS:
        out[to : to + size] = inputs["data"][of : of + size]
    return {"out": out}


def stores() -> Kernel:
    """Shared to global memory, in groups."""
    body = copy_in("%data", DATA, 4096, BLOCK) + PROXY_FENCE + "bar.sync 0;\n"
    body += lead(
        "".join(
            f"add.u64 %rd20, %out, {to};\n"
            f"cp.async.bulk.global.shared::cta.bulk_group [%rd20], [%base+{DATA + of}], {size};\n"
            "cp.async.bulk.commit_group;\n"
            for of, to, size in ((0, 512, 16), (64, 1024, 2048), (4080, 0, 16))
        )
        + "cp.async.bulk.wait_group.read 1;\ncp.async.bulk.wait_group 0;\n"
    )
    return Kernel(
        name="bulk/store",
        question="cp.async.bulk from shared to global memory",
        body=body,
        arguments={"data": Draw("bulk store").u8(4096)},
        outputs={"out": Output((4096,), "uint8")},
        launch=Launch(block=BLOCK, smem=DATA + 4096),
        expected=_stored,
    )


def _stored(inputs: Arrays) -> Arrays:
    out = np.full(4096, 0xEE, np.uint8)
    for of, to, size in ((0, 512, 16), (64, 1024, 2048), (4080, 0, 16)):
        out[to : to + size] = inputs["data"][of : of + size]
    return {"out": out}


TO_GLOBAL = {
    "add": ("u32", "s32", "u64", "f32", "f64", "noftz.f16", "noftz.bf16"),
    "min": ("u32", "s32", "u64", "s64", "f16", "bf16"),
    "max": ("u32", "s32", "u64", "s64", "f16", "bf16"),
    "inc": ("u32",),
    "dec": ("u32",),
    "and": ("b32", "b64"),
    "or": ("b32", "b64"),
    "xor": ("b32", "b64"),
}
TO_PEER = {
    "add": ("u32", "s32", "u64"),
    "min": ("u32", "s32"),
    "max": ("u32", "s32"),
    "inc": ("u32",),
    "dec": ("u32",),
    "and": ("b32",),
    "or": ("b32",),
    "xor": ("b32",),
}
COUNT = 4096
"""Bytes of each reduction."""


def operands(kind: str) -> tuple[Array, Array]:
    """What is there and what comes, :data:`COUNT` bytes each."""
    name = kind.rpartition(".")[2]
    draw = Draw(f"bulk {name}")
    if name == "f32":
        made: list[Array] = list(f32_codes(draw, 2, COUNT // 4))
    elif name in ("f16", "bf16"):
        made = list(half_codes(draw, name, 2, COUNT // 2))
    elif name == "f64":
        made = [draw.normal(COUNT // 8), draw.normal(COUNT // 8)]
    else:
        bits = int(name[1:])
        made = [v.astype(f"uint{bits}") for v in integer_codes(draw, bits, 2, COUNT * 8 // bits)]
    return made[0].view(np.uint8), made[1].view(np.uint8)


def reductions() -> Iterator[Kernel]:
    """Into global memory: a kernel for each type."""
    for kind in sorted({k for kinds in TO_GLOBAL.values() for k in kinds}):
        old, new = operands(kind)
        names = [operation for operation, kinds in TO_GLOBAL.items() if kind in kinds]
        body = copy_in("%data", DATA, COUNT, BLOCK) + PROXY_FENCE + "bar.sync 0;\n"
        body += lead(
            "".join(
                f"add.u64 %rd20, %out, {COUNT * row};\n"
                f"cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation}.{kind}"
                f" [%rd20], [%base+{DATA}], {COUNT};\n"
                for row, operation in enumerate(names)
            )
            + "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;\n"
        )
        start = np.stack([old] * len(names))
        plain = kind.rpartition(".")[2]
        flush = ": subnormals are flushed" if plain == "f32" else ""
        yield Kernel(
            name=f"bulk/reduce-{kind.replace('.', '-')}",
            question=f"cp.reduce.async.bulk of {kind} into global memory{flush}",
            body=body,
            arguments={"data": new},
            outputs={"out": Output(start.shape, "uint8", start=start)},
            launch=Launch(block=BLOCK, smem=DATA + COUNT),
        )


def peers() -> Iterator[Kernel]:
    """Into another CTA's shared memory, whose mbarrier hears of it."""
    size = 2048
    body = init(1, cluster=True) + fill(DATA + size, size, BLOCK)
    body += (
        f"mad.lo.u32 %r10, %rank, {size}, 0; cvt.u64.u32 %rd20, %r10; "
        "add.u64 %rd20, %rd20, %data;\n"
    )
    body += copy_in("%rd20", DATA, size, BLOCK) + PROXY_FENCE + "bar.sync 0;\n"
    body += "add.u32 %r11, %rank, 1; and.b32 %r11, %r11, 3;\n"
    body += "mapa.shared::cluster.u32 %r12, %base, %r11;\n"
    body += lead(f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {size - 256};\n")
    body += CLUSTER_SYNC
    body += lead(
        f"cp.async.bulk.shared::cluster.shared::cta.{COMPLETE}"
        f" [%r12+{DATA + size + 128}], [%base+{DATA}], {size - 256}, [%r12];\n"
    )
    body += wait("%base", 0, 1)
    body += (
        f"mad.lo.u32 %r10, %rank, {size}, 0; cvt.u64.u32 %rd20, %r10; add.u64 %rd20, %rd20, %out;\n"
    )
    body += copy_out("%rd20", DATA + size, size, BLOCK) + CLUSTER_SYNC
    yield Kernel(
        name="bulk/to-peer",
        question="cp.async.bulk into the next CTA's shared memory",
        body=body,
        arguments={"data": Draw("to peer").u8(4 * size)},
        outputs={"out": Output((4, size), "uint8")},
        launch=Launch(block=BLOCK, grid=(4, 1, 1), cluster=(4, 1, 1), smem=DATA + 2 * size),
        expected=_from_before,
        waits=True,
    )
    yield from peer_reductions()
    yield multicast()


def _from_before(inputs: Arrays) -> Arrays:
    out = np.full((4, 2048), 0xA5, np.uint8)
    for rank in range(4):
        before = inputs["data"].reshape(4, -1)[(rank - 1) % 4]
        out[rank, 128 : 2048 - 128] = before[: 2048 - 256]
    return {"out": out}


def peer_reductions() -> Iterator[Kernel]:
    """Reductions into a peer's shared memory; both CTAs of a pair send."""
    size = 1024
    for kind in sorted({k for kinds in TO_PEER.values() for k in kinds}):
        old, new = (v[:size] for v in operands(kind))
        names = [operation for operation, kinds in TO_PEER.items() if kind in kinds]
        body = init(1, cluster=True)
        for row in range(len(names)):
            body += copy_in("%old", DATA + size * (row + 1), size, BLOCK)
        body += copy_in("%data", DATA, size, BLOCK) + PROXY_FENCE
        body += "xor.b32 %r11, %rank, 1; mapa.shared::cluster.u32 %r12, %base, %r11;\n"
        body += lead(
            f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {size * len(names)};\n"
        )
        body += CLUSTER_SYNC
        body += lead(
            "".join(
                f"cp.reduce.async.bulk.shared::cluster.shared::cta.{COMPLETE}.{operation}.{kind}"
                f" [%r12+{DATA + size * (row + 1)}], [%base+{DATA}], {size}, [%r12];\n"
                for row, operation in enumerate(names)
            )
        )
        body += wait("%base", 0, 1)
        body += f"mad.lo.u32 %r10, %rank, {size * len(names)}, 0; cvt.u64.u32 %rd20, %r10;\n"
        body += "add.u64 %rd20, %rd20, %out;\n"
        body += copy_out("%rd20", DATA + size, size * len(names), BLOCK) + CLUSTER_SYNC
        yield Kernel(
            name=f"bulk/reduce-to-peer-{kind}",
            question=f"cp.reduce.async.bulk of {kind} into a peer's shared memory",
            body=body,
            arguments={"old": old, "data": new},
            outputs={"out": Output((2, len(names), size), "uint8")},
            launch=Launch(
                block=BLOCK, grid=(2, 1, 1), cluster=(2, 1, 1), smem=DATA + size * (len(names) + 1)
            ),
            waits=True,
        )


def multicast() -> Kernel:
    """A linear multicast."""
    size = 512
    body = init(1, cluster=True) + fill(DATA, size, BLOCK) + PROXY_FENCE
    body += lead(f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%base], {size};\n") + CLUSTER_SYNC
    body += "setp.eq.u32 %p8, %rank, 1; setp.eq.and.u32 %p8, %thr, 0, %p8;\n"
    body += (
        f"@%p8 cp.async.bulk.shared::cluster.global.{COMPLETE}.multicast::cluster"
        f" [%base+{DATA}], [%data], {size}, [%base], 15;\n"
    )
    body += wait("%base", 0, 1)
    body += (
        f"mad.lo.u32 %r10, %rank, {size}, 0; cvt.u64.u32 %rd20, %r10; add.u64 %rd20, %rd20, %out;\n"
    )
    body += copy_out("%rd20", DATA, size, BLOCK) + CLUSTER_SYNC
    return Kernel(
        name="bulk/multicast",
        question="a linear multicast to all four CTAs of a cluster",
        body=body,
        arguments={"data": Draw("bulk multicast").u8(size)},
        outputs={"out": Output((4, size), "uint8")},
        launch=Launch(block=BLOCK, grid=(4, 1, 1), cluster=(4, 1, 1), smem=DATA + size),
        expected=lambda inputs: {"out": np.stack([inputs["data"]] * 4)},
        waits=True,
    )


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    yield loads()
    yield stores()
    yield from reductions()
    yield from peers()
