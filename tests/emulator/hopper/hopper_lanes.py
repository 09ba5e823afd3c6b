"""Lanes of a warp: shuffles, votes, matches, reductions, elections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hopper_draw import Draw
from hopper_kernel import Array, Arrays, Kernel, Launch, Output
from hopper_pieces import Lanewise

WARPS = 32
"""Each with a membermask of its own."""


def masks() -> Array:
    """Membermasks: single lanes, halves, alternating ones, any."""
    draw = Draw("masks")
    chosen = [0xFFFFFFFF, 1, 0x80000000, 0x00010000, 0xFFFF0000, 0x0000FFFF, 0xAAAAAAAA, 0x55555555]
    chosen += [0xFFFFFFFE, 0x7FFFFFFF, 0x00F0F000, 0x80000001, 0x40000010, 0x3, 0xC0000000, 0x100]
    return np.concatenate([np.array(chosen, np.uint32), draw.u32(WARPS - len(chosen)) | 0x10])


def members(body: str) -> str:
    """``body`` for the lanes of each warp that are in the warp's mask, ``%r10``."""
    return f"""
{{ .reg .b64 %at; .reg .b32 %bit; .reg .pred %gone;
mad.wide.u32 %at, %warp, 4, %masks; ld.global.b32 %r10, [%at];
shr.u32 %bit, %r10, %lane; and.b32 %bit, %bit, 1; setp.eq.u32 %gone, %bit, 0;
@%gone bra SKIP;
{body}
SKIP: }}
bar.warp.sync 0xffffffff;
"""


def result(register: str, row: int) -> str:
    """Store a word a thread to row ``row`` of ``out``."""
    return (
        f"{{ .reg .b64 %at; mad.wide.u32 %at, %id, 4, %out;"
        f" st.global.b32 [%at+{row * WARPS * 32 * 4}], {register}; }}\n"
    )


def of_members(name: str, question: str, forms: list[str], values: Array) -> Kernel:
    """Forms of ``%r11``, the thread's value, and ``%r10``, the mask, that make ``%r12``."""
    body = "".join(f"mov.u32 %r12, 0;\n{form}\n{result('%r12', i)}" for i, form in enumerate(forms))
    body = (
        "{ .reg .b64 %at; mad.wide.u32 %at, %id, 4, %values; ld.global.b32 %r11, [%at]; }"
        + members(body)
    )
    return Kernel(
        name=f"lanes/{name}",
        question=question,
        body=body,
        arguments={"masks": masks(), "values": values},
        outputs={"out": Output((len(forms), WARPS * 32), "uint32")},
        launch=Launch(block=WARPS * 32),
    )


def elections() -> Kernel:
    """Question 2."""
    forms = [
        "elect.sync %r12|%p1, %r10;",
        "elect.sync %r13|%p1, %r10; selp.b32 %r12, 1, 0, %p1;",
        "elect.sync _|%p1, %r10; @%p1 mov.u32 %r12, %laneid;",
        "activemask.b32 %r12;",
    ]
    made = of_members(
        "elect",
        "ptx.md question 2: elect.sync elects the lowest lane of its mask",
        forms,
        np.zeros(WARPS * 32, np.uint32),
    )
    return replace(made, expected=_elected)


def _elected(inputs: Arrays) -> Arrays:
    lanes = np.arange(32)
    rows = np.full((4, WARPS * 32), 0xEEEEEEEE, np.uint32)
    for warp, mask in enumerate(inputs["masks"].tolist()):
        inside = (mask >> lanes & 1) == 1
        lowest = int(np.flatnonzero(inside)[0])
        at = 32 * warp + np.flatnonzero(inside)
        rows[0, at], rows[3, at] = lowest, mask
        rows[1, at] = (lanes == lowest)[inside]
        rows[2, at] = np.where(lanes == lowest, lowest, 0)[inside]
    return {"out": rows}


def together() -> Iterator[Kernel]:
    """Votes, matches and reductions of the members of a mask."""
    draw = Draw("together")
    values = np.where(draw.u32(1024) & 3, draw.u32(1024) & np.uint32(0x80000007), draw.u32(1024))
    values[64:128] = 5
    forms = ["setp.gt.s32 %p1, %r11, 2; vote.sync.ballot.b32 %r12, %p1, %r10;"]
    forms += ["setp.gt.s32 %p1, %r11, 2; vote.sync.ballot.b32 %r12, !%p1, %r10;"]
    forms += [
        f"setp.ge.s32 %p1, %r11, {n}; vote.sync.{m}.pred %p2, %p1, %r10; selp.b32 %r12, 1, 0, %p2;"
        for m in ("all", "any", "uni")
        for n in (0, 3, 5, -0x7FFFFFFF)
    ]
    yield of_members("vote", "vote.sync with partial masks", forms, values)
    forms = ["match.any.sync.b32 %r12, %r11, %r10;"]
    forms += ["match.all.sync.b32 %r12|%p1, %r11, %r10;"]
    forms += ["match.all.sync.b32 %r13|%p1, %r11, %r10; selp.b32 %r12, 1, 0, %p1;"]
    forms += ["mov.b64 %rd10, {%r11, %r10}; match.any.sync.b64 %r12, %rd10, %r10;"]
    yield of_members("match", "match.sync with partial masks", forms, values)
    forms = [
        f"redux.sync.{n}.{k} %r12, %r11, %r10;"
        for n in ("add", "min", "max")
        for k in ("u32", "s32")
    ]
    forms += [f"redux.sync.{n}.b32 %r12, %r11, %r10;" for n in ("and", "or", "xor")]
    yield of_members("redux", "redux.sync with partial masks", forms, draw.u32(1024))


def shuffles() -> Iterator[Kernel]:
    """Every mode, with segments and limits."""
    clamps = (0x1F, 0, 0x181F, 0x1C1F, 0x1C07, 0x100F, 0x1000, 0x0F, 0x1E1F, 0x0715, 0x1F1F)
    steps = (0, 1, 3, 8, 16, 31, 33, 64)
    values = Draw("shuffles").u32(256)
    for mode in ("idx", "up", "down", "bfly"):
        forms = []
        for clamp in clamps:
            for step in steps:
                forms.append(
                    f"{{ .reg .b32 %x; shfl.sync.{mode}.b32 %x|%p1, %a, {step}, {clamp}, -1;"
                    " selp.b32 %d, 1, 0, %p1; xor.b32 %d, %d, %x; }"
                )
            forms.append(
                f"{{ .reg .b32 %x; and.b32 %x, %b, 63;"
                f" shfl.sync.{mode}.b32 %d, %a, %x, {clamp}, -1; }}"
            )
        forms.append(f"shfl.sync.{mode}.b32 %d, %a, %b, %c, 0xffffffff;")
        inputs = {"a": values, "b": np.roll(values, 3) & np.uint32(31), "c": np.roll(values, 9)}
        question = f"shfl.sync.{mode}: lanes, segments, limits, predicate"
        yield Lanewise(f"lanes/shfl-{mode}", question, forms, "b32", inputs).kernel()


def special_registers() -> Kernel:
    """What every thread knows of itself."""
    names = ["%tid.x", "%ntid.x", "%laneid", "%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x"]
    names += ["%nctaid.y", "%nctaid.z", "%tid.y", "%ntid.y", "%dynamic_smem_size"]
    names += [f"%lanemask_{each}" for each in ("eq", "lt", "le", "gt", "ge")]
    count = 128 * 12
    body = "".join(
        f"{{ .reg .b64 %at; mad.wide.u32 %at, %id, 4, %out; mov.u32 %r10, {name};"
        f" st.global.b32 [%at+{4 * count * i}], %r10; }}\n"
        for i, name in enumerate(names)
    )
    return Kernel(
        name="lanes/special-registers",
        question="indices and sizes of a grid of three dimensions",
        body=body,
        outputs={"out": Output((len(names), count), "uint32")},
        launch=Launch(block=128, grid=(3, 2, 2), smem=2048),
    )


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    yield elections()
    yield from together()
    yield from shuffles()
    yield special_registers()
