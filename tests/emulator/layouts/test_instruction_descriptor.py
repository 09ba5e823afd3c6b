"""The instruction descriptor of tcgen05.mma: words seen in kernels, fields, shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4gen.core.errors import KernelFault, UnknownName, UnsupportedInstruction
from fa4gen.emulator.layouts.instruction_descriptor import (
    KINDS,
    InstructionDescriptor,
    decode,
    encode,
    validate,
)

BF16 = InstructionDescriptor("f16", 128, 128, "bf16", "bf16")


@pytest.mark.parametrize(
    ("kind", "word", "expected", "cta_group"),
    [
        ("f16", 0x8200490, BF16, 1),
        ("f16", 0x8210490, replace(BF16, b_mn_major=True), 1),
        ("f16", 0x8110490, replace(BF16, n=64, b_mn_major=True), 1),
        ("f16", 0x10200490, replace(BF16, m=256), 2),
        ("f16", 0x10410490, replace(BF16, m=256, n=256, b_mn_major=True), 2),
        ("f8f6f4", 0x8200010, InstructionDescriptor("f8f6f4", 128, 128, "e4m3", "e4m3"), 1),
    ],
)
def test_words_seen_in_kernels(
    kind: str, word: int, expected: InstructionDescriptor, cta_group: int
) -> None:
    assert decode(kind, word) == expected
    assert encode(expected) == word
    validate(expected, cta_group)


def test_fields_of_a_block_scaled_kind() -> None:
    word = 1 << 4 | 1 << 7 | 1 << 10 | 16 << 17 | 1 << 23 | 1 << 27 | 2 << 29
    desc = decode("mxf4nvf4", word)
    assert (desc.m, desc.n, desc.k) == (128, 128, 64)
    assert (desc.scale_format, desc.a_scale_id, desc.b_scale_id) == ("ue8m0", 2, 1)
    assert encode(desc) == word
    # CUTLASS writes M >> 4 to bits 24-28; for M = 256 that is the same word.
    assert decode("mxf8f6f4", 16 << 24 | 16 << 17).m == 256


@given(st.data())
def test_descriptors_round_trip(data: st.DataObject) -> None:
    kind = KINDS[data.draw(st.sampled_from(sorted(KINDS)))]
    flag = st.booleans()
    scaled = kind.block_scaled
    mn = st.just(False) if kind.name in {"mxf4", "mxf4nvf4"} else flag
    desc = InstructionDescriptor(
        kind.name,
        m=data.draw(st.sampled_from([128, 256] if scaled else range(0, 512, 16))),
        n=data.draw(st.integers(0, 63)) * 8,
        a_format=data.draw(st.sampled_from(sorted(kind.operands))),
        b_format=data.draw(st.sampled_from(sorted(kind.operands))),
        d_format=data.draw(st.sampled_from(sorted(kind.results))),
        a_mn_major=data.draw(mn),
        b_mn_major=data.draw(mn),
        negate_a=data.draw(flag),
        negate_b=data.draw(flag),
        sparse=data.draw(flag),
        saturate=not scaled and data.draw(flag),
        sparsity_selector=0 if scaled else data.draw(st.integers(0, 3)),
        max_shift=0 if scaled else data.draw(st.sampled_from([0, 8, 16, 32])),
        scale_format=data.draw(st.sampled_from(["ue4m3", "ue8m0"])) if scaled else "ue8m0",
        a_scale_id=data.draw(st.integers(0, 3)) if scaled else 0,
        b_scale_id=data.draw(st.integers(0, 3)) if scaled else 0,
    )
    word = encode(desc)
    assert 0 <= word < 1 << 32
    assert decode(kind.name, word) == desc


def test_k_of_every_kind() -> None:
    ks = {"f16": 16, "tf32": 8, "f8f6f4": 32, "i8": 32, "mxf8f6f4": 32, "mxf4": 64, "mxf4nvf4": 64}
    assert {name: kind.k for name, kind in KINDS.items()} == ks
    assert replace(BF16, sparse=True).k == 32


def legal_n(kind: str, m: int, cta_group: int, **fields: object) -> list[int]:
    name = sorted(KINDS[kind].operands)[0]
    if fields.pop("eight_bit", False):
        name = "e4m3"
    found = []
    d_format = sorted(KINDS[kind].results)[-1]
    for n in range(0, 512, 8):
        desc = InstructionDescriptor(kind, m, n, name, name, d_format)
        try:
            validate(replace(desc, **fields), cta_group)
        except KernelFault:
            continue
        found.append(n)
    return found


def test_shapes() -> None:
    assert legal_n("f16", 64, 1) == legal_n("f16", 128, 1) == list(range(8, 257, 8))
    assert legal_n("f16", 128, 2) == legal_n("f16", 256, 2) == list(range(16, 257, 16))
    assert legal_n("f16", 256, 1) == legal_n("f16", 64, 2) == legal_n("tf32", 32, 1) == []
    assert legal_n("i8", 128, 1) == [8, 16, 24, *range(32, 257, 16)]
    assert legal_n("i8", 256, 2) == list(range(32, 257, 32))
    assert legal_n("mxf8f6f4", 64, 1) == []
    assert legal_n("mxf4", 128, 1)[:2] == [8, 16]
    fp8 = {"b_mn_major": True, "eight_bit": True}
    assert legal_n("f8f6f4", 128, 1, **fp8) == list(range(16, 257, 16))
    assert legal_n("f8f6f4", 256, 2, **fp8) == list(range(32, 257, 32))


def test_the_weight_stationary_form() -> None:
    for m in (32, 64, 128):
        validate(replace(BF16, m=m, max_shift=16), 1, ws=True)
    with pytest.raises(KernelFault, match=r"N is 12 \* 8 = 96, allowed with \.ws: 64, 128, 256"):
        validate(replace(BF16, n=96), 1, ws=True)
    with pytest.raises(KernelFault, match=r"cta_group::2 and \.ws: nothing"):
        validate(BF16, 2, ws=True)
    with pytest.raises(KernelFault, match="maximum shift 16"):
        validate(replace(BF16, max_shift=16), 1)


@pytest.mark.parametrize(
    ("desc", "cta_group", "message"),
    [
        (replace(BF16, m=256), 1, r"M is 16 \* 16 = 256, allowed with cta_group::1: 64, 128"),
        (replace(BF16, n=72), 2, r"N is 9 \* 8 = 72, allowed with cta_group::2: multiples of 16 f"),
        (replace(BF16, n=0), 1, "N is 0"),
        (replace(BF16, saturate=True), 1, "saturate"),
        (replace(BF16, d_format="f16"), 1, "D is f16 with bf16 operands"),
        (
            InstructionDescriptor("f8f6f4", 128, 64, "e2m1", "e4m3", a_mn_major=True),
            1,
            "A of e2m1 is MN-major, allowed: K-major only",
        ),
        (
            InstructionDescriptor("i8", 128, 64, "u8", "s8", "s32", negate_b=True),
            1,
            "negate bit",
        ),
    ],
)
def test_faults_show_the_arithmetic(
    desc: InstructionDescriptor, cta_group: int, message: str
) -> None:
    with pytest.raises(KernelFault, match=message):
        validate(desc, cta_group)


@pytest.mark.parametrize("kind", ["mxf4", "mxf4nvf4"])
def test_the_sparsity_version_of_4_bit_kinds_is_no_format(kind: str) -> None:
    """The word that CuTe-DSL builds in CUTLASS's 2cta_mma_blockscale_m128: bit 12 is set."""
    found = decode(kind, 0x08401480)
    assert (found.m, found.n, found.b_format, found.scale_format) == (128, 256, "e2m1", "ue4m3")
    assert found == decode(kind, 0x08400480)


def test_words_that_mean_nothing() -> None:
    for bit in (6, 23, 29):
        with pytest.raises(KernelFault, match=rf"reserved bits \[{bit}\]"):
            decode("f16", 0x8200490 | 1 << bit)
    with pytest.raises(KernelFault, match="format 1 of A, allowed: 2 tf32"):
        decode("tf32", 0x8200490)
    with pytest.raises(KernelFault, match="format 2 of D, allowed: 0 f16, 1 f32"):
        decode("f16", 0x8200480 | 2 << 4)
    with pytest.raises(KernelFault, match="format 2 of A"):
        decode("f8f6f4", 2 << 7)
    with pytest.raises(UnknownName, match="'fp16'"):
        decode("fp16", 0)
    with pytest.raises(UnsupportedInstruction, match="K = 96"):
        decode("mxf4", 1 << 31)
    with pytest.raises(KernelFault, match="got format tf32, allowed: f16, bf16"):
        encode(replace(BF16, a_format="tf32"))
