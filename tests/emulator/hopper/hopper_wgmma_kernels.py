"""``wgmma``: fragments, layouts, sources, signs, numerics, and what descriptors address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
from hopper_kernel import Array, Arrays, Kernel, Launch, Output
from hopper_pieces import PROXY_FENCE, copy_in
from hopper_wgmma import (
    SWIZZLE_CODES,
    THREADS,
    Place,
    Product,
    a_places,
    in_vectors,
    make_descriptor,
    regimes,
    swizzled,
    to_registers,
)

PAIRS = [
    ("f32", "bf16", "bf16"), ("f32", "f16", "f16"), ("f16", "f16", "f16"), ("f32", "tf32", "tf32"),
    ("f32", "e4m3", "e4m3"), ("f32", "e5m2", "e5m2"), ("f32", "e4m3", "e5m2"),
    ("f32", "e5m2", "e4m3"), ("f16", "e4m3", "e4m3"), ("f16", "e5m2", "e4m3"),
]  # fmt: skip
COMPACT_A = Place(swizzle=0, lbo=128, sbo=256)
COMPACT_B = Place(swizzle=0, lbo=128, sbo=256, at=4096)


def fragments() -> Iterator[Kernel]:
    """Every N, and every pair of types."""
    question = "D's fragment: exact sums, every element another"
    for n in range(8, 257, 8):
        yield Product(f"n{n}", question, n, a=COMPACT_A, b=COMPACT_B).kernel()
    for types in PAIRS[1:]:
        for n in (8, 40, 256):
            name = f"{'-'.join(types)}-n{n}"
            yield Product(name, question, n, types, COMPACT_A, COMPACT_B).kernel()


def layouts() -> Iterator[Kernel]:
    """A and B in every canonical layout, with gaps between their parts."""
    for swizzle in (0, 32, 64, 128):
        span = swizzle or 16
        k_major = Place("k", swizzle, lbo=16, sbo=8 * span)
        mn_major = Place("mn", swizzle, lbo=4096, sbo=8 * span)
        if not swizzle:
            k_major, mn_major = replace(k_major, lbo=4112, sbo=144), Place("mn", 0, 4112, 144)
        wide = Place("k", swizzle, lbo=0 if swizzle else 8192 + 32, sbo=8 * span + 1024)
        far = Place("mn", swizzle, lbo=16 * span + 1024, sbo=24 * span + 2048)
        for which, place in (("k", k_major), ("mn", mn_major), ("k-gaps", wide), ("mn-gaps", far)):
            name = "f16" if which == "mn" else "bf16"
            types = ("f32", name, name)
            question = f"operands {which}-major with a swizzle of {swizzle}"
            part = f"{which}-swizzle{swizzle}-{name}"
            plain = Place(at=24576)
            yield Product(f"a-{part}", question, 16, types, place, plain).kernel()
            at_b = replace(place, at=8192)
            yield Product(f"b-{part}", question, 128, types, Place(), at_b).kernel()
        for types in PAIRS[3:6]:
            name = f"{types[1]}-swizzle{swizzle}"
            question = f"{types[1]}, K-major, swizzle {swizzle}"
            yield Product(
                f"k-{name}", question, 24, types, k_major, replace(k_major, at=16384)
            ).kernel()


def chains() -> Iterator[Kernel]:
    """Several instructions along K: start addresses inside the swizzle's atom."""
    question = "K steps inside a swizzle's atom: the exclusive or is on the address"
    for swizzle in (64, 128):
        steps = swizzle // 32
        place = Place("k", swizzle, sbo=8 * swizzle)
        at_b = replace(place, at=16384)
        yield Product(f"steps-k{swizzle}", question, 96, a=place, b=at_b, steps=steps).kernel()
        types = ("f32", "e4m3", "e4m3")
        name = f"steps-e4m3-k{swizzle}"
        yield Product(name, question, 16, types, place, at_b, steps=steps).kernel()
    place = Place("mn", 128, lbo=16384, sbo=1024, step=2048)
    a, b = replace(place, lbo=8192), replace(place, at=16384)
    yield Product("steps-mn", "K steps MN-major", 128, a=a, b=b, steps=4).kernel()


def sources() -> Iterator[Kernel]:
    """A from registers, signs, and C left out."""
    for types in PAIRS:
        question = f"A from registers, {types[1]}"
        name = f"registers-{'-'.join(types)}"
        yield Product(name, question, 32, types, None, COMPACT_B).kernel()
    at_b = Place("mn", 128, lbo=4096, sbo=1024, at=1024, step=2048)
    question = "A from registers, B N-major, as in P V of attention"
    yield Product("registers-b-mn", question, 128, a=None, b=at_b, steps=2).kernel()
    for signs in ((-1, 1), (1, -1), (-1, -1)):
        for types in (PAIRS[0], PAIRS[2]):
            name = f"signs{signs[0]}{signs[1]}-{'-'.join(types)}"
            yield Product(name, "negated operands", 16, types, signs=signs).kernel()
    question = "scale-d 0: what D held, here NaN, does not count"
    yield Product("scale-d-0", question, 64, scale_d=False).kernel()
    yield Product("scale-d-0-f16", question, 64, PAIRS[2], scale_d=False).kernel()


def numerics() -> Iterator[Kernel]:
    """How one instruction cuts its products, adds them and rounds."""
    for types in PAIRS:
        name = f"sums-{'-'.join(types)}"
        question = f"sums of {types[1]} x {types[2]} into {types[0]}: bits kept, rounding, specials"
        yield Product(name, question, 16, types, COMPACT_A, COMPACT_B, regimes=regimes()).kernel()
        if types in (PAIRS[0], PAIRS[4]):
            name = f"sums-registers-{types[1]}"
            question = f"sums of {types[1]}: the same with A from registers"
            yield Product(name, question, 16, types, None, COMPACT_B, regimes=regimes(1)).kernel()


@dataclass(frozen=True)
class Probe:
    """Which element a descriptor reads: every element of shared memory is another.

    A is the identity, from registers, so D holds B; the low and the high bytes of the elements'
    numbers lie in two copies of the memory.
    """

    name: str
    question: str
    cases: tuple[tuple[int, int], ...]
    """Descriptors without an address, and the byte the operand begins at."""
    mn_major: bool = False

    REGION = 32768
    N = 64

    def kernel(self) -> Kernel:
        """Output ``(case, register, lane)``: numbers of 16-bit elements, in warp 0's fragment."""
        number = np.arange(self.REGION // 2)
        image = np.concatenate([number & 0xFF, number >> 8]).astype(ml_dtypes.bfloat16)
        one = np.zeros((64, 16), ml_dtypes.bfloat16)
        one[np.arange(16), np.arange(16)] = 1
        count = self.N // 2
        words = np.array([word | start >> 4 for word, start in self.cases], np.uint64)
        return Kernel(
            name=f"wgmma/{self.name}",
            question=self.question,
            body=self._body(count),
            arguments={
                "image": image.view(np.uint16),
                "a": to_registers(one, a_places(2)).T.copy(),
                "words": words,
            },
            outputs={"places": Output((len(self.cases), count, 32), "uint16")},
            launch=Launch(block=THREADS, smem=2 * self.REGION),
            expected=self._expected,
        )

    def _body(self, count: int) -> str:
        accumulators = [", ".join(f"%{x}{i}" for i in range(count)) for x in ("lo", "hi")]
        body = copy_in("%image", 0, 2 * self.REGION, THREADS) + PROXY_FENCE + "bar.sync 0;\n"
        body += f".reg .b32 %lo<{count}>, %hi<{count}>, %av<4>;\n"
        body += "{ .reg .b64 %at; mad.wide.u32 %at, %thr, 16, %a;\n"
        body += in_vectors("ld", "%at", "%av", 4) + "}\n"
        body += make_descriptor("%here", Place(swizzle=0, lbo=0, sbo=0))
        body += "mov.u32 %r30, 0; mov.u64 %rd30, %words;\nmad.wide.u32 %rd31, %lane, 2, %places;\n"
        body += (
            "setp.ne.u32 %p5, %warp, 0;\nCASE: ld.global.b64 %rd32, [%rd30]; "
            "add.u64 %rd32, %rd32, %here;\n"
        )
        body += f"add.u64 %rd33, %rd32, {self.REGION >> 4};\nsetp.ne.u32 %p4, 0, 0;\n"
        for names in accumulators:
            for register in names.split(", "):
                body += f"mov.b32 {register}, 0;\n"
        body += "wgmma.fence.sync.aligned;\n"
        for names, word in zip(accumulators, ("%rd32", "%rd33"), strict=True):
            body += (
                f"wgmma.mma_async.sync.aligned.m64n{self.N}k16.f32.bf16.bf16 {{{names}}},"
                f" {{%av0, %av1, %av2, %av3}}, {word}, %p4, 1, 1, {int(self.mn_major)};\n"
            )
        body += (
            "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n@%p5 bra NEXT;\n"
        )
        for i in range(count):
            body += (
                f"cvt.rzi.u32.f32 %r10, %lo{i}; cvt.rzi.u32.f32 %r11, %hi{i};"
                f" mad.lo.u32 %r10, %r11, 256, %r10; st.global.u16 [%rd31+{64 * i}], %r10;\n"
            )
        body += f"NEXT: add.u64 %rd31, %rd31, {64 * count}; add.u64 %rd30, %rd30, 8;\n"
        return (
            body
            + f"add.u32 %r30, %r30, 1; setp.lt.u32 %p6, %r30, {len(self.cases)}; @%p6 bra CASE;\n"
        )

    def _expected(self, inputs: Arrays) -> Arrays:
        return {"places": np.stack([self.places(word, start) for word, start in self.cases])}

    def places(self, word: int, start: int) -> Array:
        """Numbers of the elements that a descriptor names; the swizzle looks at the number of the
        128-byte line less the base offset."""
        span = {code: size for size, code in SWIZZLE_CODES.items()}[word >> 62]
        lbo, sbo = (word >> 16 & 0x3FFF) << 4, (word >> 32 & 0x3FFF) << 4
        place = Place("mn" if self.mn_major else "k", span, lbo, sbo)
        at = swizzled(place.linear(self.N, 16, 2) + start, span, word >> 49 & 7)
        lane, register = np.arange(32), np.arange(self.N // 2)[:, None]
        k = lane // 4 + 8 * (register >> 1 & 1)
        n = 8 * (register >> 2) + 2 * (lane % 4) + (register & 1)
        return (at[n, k] // 2).astype(np.uint16)


def probes() -> Iterator[Kernel]:
    """Descriptors on memory whose elements tell where they are."""
    spans = (32, 64, 128)
    shifts = (0, 128, 256, 384, 512, 896, 4096 + 32, 16)
    k_major = tuple(
        (Place("k", span, 16, 8 * span).descriptor(), shift) for span in spans for shift in shifts
    )
    question = "tiles that begin anywhere: the swizzle looks at the address"
    yield Probe("probe-k", question, k_major).kernel()
    mn = tuple(
        (Place("mn", span, lbo, 8 * span).descriptor(), shift)
        for span, lbo in ((32, 2048), (64, 4096), (128, 4096))
        for shift in shifts[:6]
    )
    yield Probe("probe-mn", question, mn, mn_major=True).kernel()
    strides = tuple(
        (Place("k", span, lbo, sbo).descriptor(), 1024)
        for span in (0, *spans)
        for lbo in (0, 128, 1040)
        for sbo in (0, 128, 2064)
    )
    question = "LBO and SBO, K-major: LBO counts without a swizzle only"
    yield Probe("probe-strides-k", question, strides).kernel()
    strides = tuple(
        (Place("mn", span, lbo, sbo).descriptor(), 1024)
        for span in (0, *spans)
        for lbo in (0, 128, 1040)
        for sbo in (0, 128, 2064)
    )
    question = "LBO and SBO, MN-major: which is which, with and without a swizzle"
    yield Probe("probe-strides-mn", question, strides, mn_major=True).kernel()
    for which, is_mn in (("k", False), ("mn", True)):
        cases = tuple(
            (Place(which, span, 4096 if is_mn else 16, 8 * span).descriptor() | base << 49, shift)
            for span in spans
            for base in range(8)
            for shift in sorted({0, 128 * base, 1024 + 128 * (8 - base)})
        )
        yield Probe(
            f"probe-base-offset-{which}",
            "ptx.md question 1: what base_offset changes",
            cases,
            is_mn,
        ).kernel()


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    for part in (fragments, layouts, chains, sources, numerics, probes):
        yield from part()
