"""What e4m3 changes in the rules: granules, registers, shared memory, the range of P."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.feasibility import canonicalise, check, smem_bytes
from fa4gen.feasibility.sm90_footprint import accumulator_regs
from fa4gen.hardware import load_arch
from fa4gen.numerics import LINE, max_relative_error
from fa4gen.space import space_for

SM90, SM100 = load_arch("sm90"), load_arch("sm100")
HD128 = KernelSignature(DType.E4M3, 128, 128, causal=False, qhead_per_kvhead=1)
HD256 = replace(HD128, head_dim=256, head_dim_v=256)


def refusals(signature: KernelSignature, **knobs: Any) -> list[str]:
    return [each.message for each in check(signature, KernelConfig(**knobs), SM90).reasons]


def test_head_dims_are_padded_to_k_of_an_8_bit_product() -> None:
    assert [replace(HD128, head_dim=n).head_dim_padded for n in (16, 32, 80, 128)] == [
        32,
        32,
        96,
        128,
    ]
    assert replace(HD128, dtype=DType.BF16, head_dim=80).head_dim_padded == 80


def test_o_is_bf16() -> None:
    assert (DType.E4M3.out, DType.BF16.out, DType.FP16.out) == ("bf16", "bf16", "fp16")
    assert DType.E4M3.itemsize == 1
    assert 1 + DType.E4M3.unit_roundoff * 2 == 1.125  # the number after 1


def test_a_problem_of_e4m3_reads_as_it_prints() -> None:
    values = {"batch": 4, "seqlen_q": 4096, "num_heads_q": 16, "head_dim": 128, "dtype": "e4m3"}
    problem = AttentionProblem.from_dict({**values, "causal": True})
    assert str(problem) == "b4 s4096 h16 d128 e4m3 causal"
    assert AttentionProblem.from_dict(problem.to_dict()) == problem


def test_smem_by_hand() -> None:
    # O of 2 bytes over Q of 1, K, the transpose of V, and V as loaded, 2 stages of 128*128 each.
    assert smem_bytes(HD128, KernelConfig(), SM90) == 32768 + 3 * 2 * 16384 + 1024
    # A wide V as loaded has one slot.
    config = KernelConfig(pingpong=False)
    assert smem_bytes(HD256, config, SM90) == 65536 + 2 * 2 * 32768 + 32768 + 1024
    three = KernelConfig(num_kv_stages=3, tile_n=64)
    assert smem_bytes(HD128, three, SM90) == 32768 + 3 * 3 * 8192 + 1024


def test_p_takes_half_the_registers() -> None:
    wide = replace(HD128, dtype=DType.BF16)
    assert accumulator_regs(wide, KernelConfig()) == 64 + 64 + 32
    assert accumulator_regs(HD128, KernelConfig()) == 64 + 64 + 16


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"tile_n": 80},
            "tile_n: got 80, allowed in e4m3: multiples of 32, K of one wgmma (80 % 32 = 16); "
            "change tile_n",
        ),
        (
            {"p_in_registers": False},
            "p_in_registers: got false in e4m3, allowed: true, since keys are in the order in "
            "which registers hold P; turn p_in_registers on",
        ),
        (
            {"rescale_threshold_log2": 14.0},
            "rescale_threshold_log2: got 14, which lets P reach 2 ** 14, allowed: up to 4 in "
            "e4m3; lower it",
        ),
    ],
)
def test_refusals_say_why(knobs: dict[str, Any], message: str) -> None:
    assert refusals(HD128, **knobs) == [message]
    assert not check(replace(HD128, dtype=DType.E4M3), KernelConfig(**knobs), SM90)
    assert check(replace(HD128, dtype=DType.BF16), KernelConfig(**knobs), SM90)


def test_a_line_through_each_octave_is_for_8_bits_only() -> None:
    line = {"exp2_poly_fraction": 0.5, "exp2_poly_degree": LINE}
    assert not refusals(HD128, **line)
    wide = replace(HD128, dtype=DType.BF16)
    assert refusals(wide, **line) == [
        "exp2_poly_degree: got 1, which errs by up to 6.1 %, allowed in bf16: 2 or more (0.2 %); "
        "raise it"
    ]
    assert [f"{max_relative_error(degree):.1%}" for degree in (LINE, 2)] == ["6.1%", "0.2%"]
    config = KernelConfig(**line)
    assert canonicalise(wide, config, SM90).exp2_poly_degree == 2
    assert canonicalise(HD128, config, SM90).exp2_poly_degree == LINE
    assert not refusals(wide, exp2_poly_fraction=0.0, exp2_poly_degree=LINE)


def test_blackwell_refuses_it() -> None:
    config = space_for("sm100").default(replace(HD128, dtype=DType.BF16))
    config = replace(config, rescale_threshold_log2=4.0)
    reasons = check(HD128, config, SM100).reasons
    assert [reason.message for reason in reasons] == [
        "dtype: got e4m3, allowed on sm100: bf16, fp16, as its kernel has no 8-bit form; convert "
        "Q, K and V"
    ]


@pytest.mark.parametrize("head_dim", [16, 64, 96, 128, 192, 256])
@pytest.mark.parametrize("head_dim_v", [32, 64, 128, 256])
def test_every_signature_has_a_default_of_its_own(head_dim: int, head_dim_v: int) -> None:
    signature = replace(HD128, head_dim=head_dim, head_dim_v=head_dim_v)
    space = space_for("sm90")
    assert space.default_row(signature).dtype is DType.E4M3
    config = space.default(signature)
    assert check(signature, config, SM90), str(check(signature, config, SM90))
    assert canonicalise(signature, config, SM90) == config


def test_draws_of_the_space_are_feasible() -> None:
    for seed in range(20):
        drawn = space_for("sm90").sample(random.Random(seed), HD256, SM90)
        assert check(HD256, drawn, SM90)


def test_16_bit_defaults_are_not_those_of_e4m3() -> None:
    for head_dim in (64, 128, 256):
        wide = replace(HD128, dtype=DType.BF16, head_dim=head_dim, head_dim_v=head_dim)
        assert space_for("sm90").default_row(wide).dtype is None


@pytest.mark.parametrize("needed", ["intra_warpgroup_overlap", "p_in_registers"])
def test_a_second_p_has_no_place_without_a_first_in_flight(needed: str) -> None:
    config = KernelConfig(**{"p_buffers": 2, needed: False})
    assert canonicalise(HD128, config, SM90).p_buffers == 1


def test_a_second_p_takes_registers() -> None:
    assert accumulator_regs(HD128, KernelConfig(p_buffers=2)) == 64 + 64 + 2 * 16
    assert refusals(HD256, p_buffers=2, pingpong=False) == [
        "registers: a consumer thread needs 252 (S, O and P 224 + 28), allowed: 240; lower "
        "tile_n, or turn off p_in_registers or intra_warpgroup_overlap, or set p_buffers to 1"
    ]
