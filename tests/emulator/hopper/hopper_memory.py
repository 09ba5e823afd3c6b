"""Loads, stores, atomics, ordinary asynchronous copies, generic addresses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hopper_draw import Draw, f32_codes, f64_codes, half_codes, integer_codes
from hopper_kernel import Agreement, Array, Kernel, Launch, Output
from hopper_pieces import copy_in, copy_out, fill

LANES = 256


def at(register: str, name: str, size: int, index: str = "%id") -> str:
    """The address of a thread's element of an array."""
    return f".reg .b64 {register}; mad.wide.u32 {register}, {index}, {size}, %{name};\n"


def loads() -> Kernel:
    """Loads narrower than their register."""
    kinds = ("u8", "s8", "u16", "s16", "u32", "s32", "b64")
    body = at("%to", "out", 8) + ".reg .b64 %from;\n"
    rows = 0
    for space in ("global", "shared", ""):
        if space == "shared":
            body += copy_in("%data", 0, 8 * LANES, LANES)
            body += ".reg .b32 %near; mad.lo.u32 %near, %thr, 8, %base;\n"
        body += (
            "cvta.shared.u64 %rd20, smem; mad.wide.u32 %rd20, %thr, 8, %rd20;\n"
            if not space
            else ""
        )
        place = {"global": "%from", "shared": "%near", "": "%rd20"}[space]
        body += "mad.wide.u32 %from, %id, 8, %data;\n" if space == "global" else ""
        dot = f".{space}" if space else ""
        for kind in kinds:
            register = "%rd10"
            last = 0 if kind == "b64" else 8 - int(kind[1:]) // 8
            body += f"ld{dot}.{kind} {register}, [{place}+{last}];\n"
            body += f"st.global.b64 [%to+{8 * LANES * rows}], {register};\n"
            rows += 1
    return Kernel(
        name="memory/loads",
        question="loads extend by their type to the register; generic, global and shared",
        body=body,
        arguments={"data": Draw("loads").u64(LANES)},
        outputs={"out": Output((rows, LANES), "uint64")},
        launch=Launch(block=LANES, smem=8 * LANES),
    )


def vectors() -> Kernel:
    """Vectors of every shape through shared memory."""
    body = (
        ".reg .b64 %from, %to; mad.wide.u32 %from, %id, 16, %data; "
        "mad.wide.u32 %to, %id, 16, %out;\n"
    )
    body += ".reg .b32 %near; mad.lo.u32 %near, %thr, 16, %base;\n"
    words, longs = "{%r10, %r11, %r12, %r13}", "{%rd10, %rd11}"
    two, four = "{%h0, %h1}", "{%h0, %h1, %h2, %h3}"
    forms = [("v4.b32", words), ("v2.b64", longs), ("v4.b16", four), ("v2.b32", "{%r10, %r11}")]
    forms += [("v4.b8", four), ("v2.b16", two), ("v2.b8", two)]
    for row, (kind, registers) in enumerate(forms):
        body += "st.shared.v4.b32 [%near], {0, 0, 0, 0};\n"
        body += f"ld.global.{kind} {registers}, [%from]; st.shared.{kind} [%near], {registers};\n"
        body += "ld.shared.v4.b32 {%r20, %r21, %r22, %r23}, [%near];\n"
        body += f"st.global.v4.b32 [%to+{16 * LANES * row}], {{%r20, %r21, %r22, %r23}};\n"
    return Kernel(
        name="memory/vectors",
        question="vectors: element 0 at the lowest address; stores take the low bits",
        body=body,
        arguments={"data": Draw("vectors").u32(4 * LANES)},
        outputs={"out": Output((len(forms), 4 * LANES), "uint32")},
        launch=Launch(block=LANES, smem=16 * LANES),
    )


OPERATIONS = {
    32: ["and.b32", "or.b32", "xor.b32", "exch.b32", "add.u32", "add.s32", "inc.u32", "dec.u32"]
    + [f"{n}.{k}32" for n in ("min", "max") for k in "us"] + ["add.f32", "cas.b32"],
    64: ["and.b64", "or.b64", "xor.b64", "exch.b64", "add.u64"]
    + [f"{n}.{k}64" for n in ("min", "max") for k in "us"] + ["add.f64", "cas.b64"],
    16: ["add.noftz.f16", "add.noftz.bf16", "cas.b16"],
}  # fmt: skip
PACKED = ["add.noftz.f16x2", "add.noftz.bf16x2"]


def atomics() -> Iterator[Kernel]:
    """Old and new values of each operation, at addresses of the threads' own."""
    for bits, names in OPERATIONS.items():
        draw = Draw(f"atomics {bits}")
        old, given, third = (v.astype(f"uint{bits}") for v in integer_codes(draw, bits, 3, LANES))
        given[::5] = old[::5]
        yield from atomic(
            f"{bits}",
            bits,
            [n for n in names if ".f" not in n and ".bf" not in n],
            old,
            given,
            third,
        )
    a, b = f32_codes(Draw("atomic f32"), 2, LANES)
    yield from atomic("f32", 32, ["add.f32"], a, b, b)
    wide = [codes[~np.isnan(codes.view("f8"))] for codes in f64_codes(Draw("atomic f64"), 2, 900)]
    finite = [
        np.where(np.isinf(codes[:LANES].view("f8")), np.uint64(5), codes[:LANES]) for codes in wide
    ]
    yield from atomic("f64", 64, ["add.f64"], finite[0], finite[1], finite[1])
    for name in ("f16", "bf16"):
        a16, b16 = half_codes(Draw(f"atomic {name}"), name, 2, 2 * LANES)
        yield from atomic(name, 16, [f"add.noftz.{name}"], a16[:LANES], b16[:LANES], b16[:LANES])
        pair, other = a16.view(np.uint32), b16.view(np.uint32)
        yield from atomic(f"{name}x2", 32, [f"add.noftz.{name}x2"], pair, other, other)


def atomic(
    name: str, bits: int, operations: list[str], old: Array, given: Array, third: Array
) -> Iterator[Kernel]:
    """A kernel for global and one for shared memory, a row for each operation."""
    size = bits // 8
    register = {16: "%h", 32: "%r", 64: "%rd"}[bits]
    a, b, c = (f"{register}{i}" for i in (30, 31, 32))
    floating = name if name in ("f32", "f64") else ""
    for space in ("global", "shared"):
        body = at("%of", "old", size) + at("%with", "given", size) + at("%other", "third", size)
        body += at("%was", "before", size) + at("%is", "after", size)
        body += f".reg .b32 %near; mad.lo.u32 %near, %thr, {size}, %base;\n"
        body += f"ld.global.b{bits} {b}, [%with]; ld.global.b{bits} {c}, [%other];\n"
        for row, operation in enumerate(operations):
            at_row = size * LANES * row
            place = f"[%is+{at_row}]" if space == "global" else "[%near]"
            body += f"ld.global.b{bits} {a}, [%of]; st.{space}.b{bits} {place}, {a};\n"
            operands = f"{b}, {c}" if operation.startswith("cas") else b
            body += f"atom.{space}.{operation} {a}, {place}, {operands};\n"
            body += f"st.global.b{bits} [%was+{at_row}], {a};\n"
            if space == "shared":
                body += f"ld.shared.b{bits} {a}, {place}; st.global.b{bits} [%is+{at_row}], {a};\n"
        shape = (len(operations), LANES)
        how = "subnormals flushed" if space == "global" else "subnormals kept"
        yield Kernel(
            name=f"memory/atom-{space}-{name}",
            question=f"atomics on {space} memory, old and new values"
            + (f"; {how} in f32 additions" if floating == "f32" else ""),
            body=body,
            arguments={"old": old, "given": given, "third": third},
            outputs={n: Output(shape, f"uint{bits}") for n in ("before", "after")},
            launch=Launch(block=LANES, smem=size * LANES),
        )


def contended() -> Kernel:
    """Many threads at one address: the result does not depend on the order."""
    operations = ["add.u32", "min.u32", "max.s32", "and.b32", "or.b32", "xor.b32", "inc.u32"]
    body = at("%with", "given", 4) + "ld.global.b32 %r31, [%with];\n"
    for row, operation in enumerate(operations):
        value = "1000" if operation.startswith("inc") else "%r31"
        body += f"red.global.{operation} [%out+{4 * row}], {value};\n"
    return Kernel(
        name="memory/red-contended",
        question="reductions of many threads and CTAs at one address",
        body=body,
        arguments={"given": Draw("contended").u32(4 * LANES)},
        outputs={
            "out": Output(
                (len(operations),), "uint32", start=np.full(len(operations), 77, np.uint32)
            )
        },
        launch=Launch(block=LANES, grid=(4, 1, 1)),
    )


def copies() -> Kernel:
    """cp.async with every size and with zero fill."""
    body = at("%from", "data", 16) + ".reg .b32 %near; mad.lo.u32 %near, %thr, 16, %base;\n"
    body += fill(0, 5 * 16 * LANES, LANES) + "bar.sync 0;\n"
    body += "and.b32 %r10, %thr, 15;\n"
    step = 16 * LANES
    body += "cp.async.cg.shared.global [%near], [%from], 16;\n"
    body += f"cp.async.cg.shared.global [%near+{step}], [%from], 16, %r10;\n"
    body += f"cp.async.ca.shared.global [%near+{2 * step}], [%from], 4;\n"
    body += f"cp.async.ca.shared.global [%near+{3 * step}], [%from], 8, 5;\n"
    body += "cp.async.commit_group;\n"
    body += f"cp.async.ca.shared.global [%near+{4 * step}], [%from], 16, 0;\n"
    body += "cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;\n"
    body += copy_out("%out", 0, 5 * step, LANES)
    return Kernel(
        name="memory/cp-async",
        question="cp.async: bytes beyond src-size become zero, up to the size of the copy",
        body=body,
        arguments={"data": Draw("copies").u32(4 * LANES)},
        outputs={"out": Output((5, 4 * LANES), "uint32")},
        launch=Launch(block=LANES, smem=5 * step),
    )


def addresses() -> Iterator[Kernel]:
    """Where variables lie."""
    out = ".reg .b64 %to; mad.wide.u32 %to, %cta, 64, %out;\n"
    body = ".shared .align 16 .b8 first[100]; .shared .align 4 .b8 second[12];\n" + out
    body += "mov.u32 %r10, smem; mov.u32 %r11, first; mov.u32 %r12, second;\n"
    body += "@%lead st.global.v2.b32 [%to], {%r10, %r11}; @%lead st.global.b32 [%to+8], %r12;\n"
    body += (
        "cvta.shared.u64 %rd10, smem; cvta.to.shared.u64 %rd11, %rd10; cvt.u32.u64 %r13, %rd11;\n"
    )
    body += "@%lead st.global.b32 [%to+12], %r13;\n"
    # Uses keep the variables alive.
    body += "st.shared.b8 [%r11], 1; st.shared.b8 [%r12], 1; st.shared.b8 [%r10], 1;\n"
    yield Kernel(
        name="memory/static-and-dynamic",
        question="where static and dynamic shared memory lie: the address of the dynamic part",
        body="{\n" + body + "}\n",
        outputs={"out": Output((2, 16), "uint32", Agreement.FACT)},
        launch=Launch(grid=(2, 1, 1), smem=4096),
        why="PTX leaves the order of variables to the assembler",
    )
    kinds = ("global", "shared", "shared::cta", "shared::cluster", "local", "param", "const")
    body = ".local .align 8 .b8 mine[16]; .reg .b64 %to; mad.wide.u32 %to, %id, 1, %out;\n"
    body += "cvta.shared.u64 %rd10, smem; cvta.local.u64 %rd11, mine; mov.b64 %rd12, %out;\n"
    body += "st.local.b64 [mine], %rd10;\n"
    for row, place in enumerate(("%rd10", "%rd11", "%rd12")):
        for column, kind in enumerate(kinds):
            at_byte = 32 * (len(kinds) * row + column)
            body += f"isspacep.{kind} %p1, {place}; selp.b16 %h0, 1, 0, %p1;\n"
            body += f"st.global.b8 [%to+{at_byte}], %h0;\n"
    yield Kernel(
        name="memory/isspacep",
        question="which windows generic addresses of shared, local and global memory lie in",
        body="{\n" + body + "}\n",
        outputs={"out": Output((3, len(kinds), 32), "uint8")},
        launch=Launch(smem=1024),
    )
    body = out + "cvta.shared.u64 %rd10, smem; cvt.u32.u64 %r10, %rd10; mov.u32 %r11, smem;\n"
    body += "@%lead st.global.v2.b32 [%to], {%r10, %r11};\n"
    yield Kernel(
        name="memory/shared-base",
        question="dynamic shared memory begins at 0x400 of the window, below it is the system's",
        body=body,
        outputs={"out": Output((4, 16), "uint32")},
        launch=Launch(grid=(4, 1, 1), smem=1024),
    )


def no_effect() -> Kernel:
    """Instructions that change nothing here."""
    body = at("%to", "out", 4)
    body += "griddepcontrol.wait; griddepcontrol.launch_dependents; nanosleep.u32 20;\n"
    body += "prefetch.global.L2 [%to]; fence.acq_rel.gpu; membar.cta; fence.proxy.async;\n"
    body += "mov.b64 %rd10, 0x14f0000000000000;\n"
    body += "st.global.L2::cache_hint.b32 [%to], %id, %rd10;\n"
    return Kernel(
        name="memory/no-effect",
        question="griddepcontrol without a dependent launch, hints and fences change no values",
        body=body,
        outputs={"out": Output((64,), "uint32")},
        launch=Launch(block=32, grid=(2, 1, 1)),
        expected=lambda inputs: {"out": np.arange(64, dtype=np.uint32)},
    )


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    yield loads()
    yield vectors()
    yield from atomics()
    yield contended()
    yield copies()
    yield from addresses()
    yield no_effect()
