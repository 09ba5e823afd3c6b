"""The tables of the FlashAttention-4 paper, and what was derived from them."""

from __future__ import annotations

import pytest

from fa4gen.core.dtypes import DType
from fa4gen.hardware import load_arch
from fa4gen.perf import backward_roofline, forward_roofline

B200, B300, HOPPER = (load_arch(name) for name in ("sm100", "sm103", "sm90"))


@pytest.mark.parametrize(
    ("arch", "tile", "head_dim", "cycles"),
    [
        (B200, (128, 128), 128, (1024, 768, 1024)),  # table 1
        (B200, (256, 128), 128, (2048, 1536, 2048)),  # table 1
        (B200, (128, 128), 64, (512, 384, 1024)),
        (B300, (128, 128), 128, (1024, 768, 512)),
        (HOPPER, (192, 128), 64, (1536, 960, 1536)),
        (HOPPER, (128, 128), 128, (2048, 1280, 1024)),
        (HOPPER, (128, 192), 128, (3072, 1792, 1536)),
        (HOPPER, (128, 80), 256, (2560, 1792, 640)),
    ],
)
def test_forward(arch, tile, head_dim, cycles) -> None:
    got = forward_roofline(tile, (head_dim, head_dim), arch)
    assert (got.mma, got.smem, got.exp) == cycles
    assert got.cycles == max(cycles)


def test_forward_with_8_bits_and_two_head_dims() -> None:
    narrow = forward_roofline((128, 128), (128, 128), B200, dtype=DType.E4M3)
    assert (narrow.mma, narrow.smem, narrow.exp) == (512, 384, 1024)
    assert narrow.bound == "exp"
    mixed = forward_roofline((128, 128), (192, 128), B200)
    # By hand: (128 x 192 of Q + 128 x 192 of K + 128 x 128 of V) x 2 bytes / 128 bytes per cycle.
    assert (mixed.mma, mixed.smem, mixed.exp) == (1280, 1024, 1024)


def test_a_pair_of_ctas_reads_half_of_k_and_v_each() -> None:
    alone = forward_roofline((128, 128), (128, 128), B200)
    pair = forward_roofline((128, 128), (128, 128), B200, cta_group=2)
    assert pair.smem == alone.smem - (128 * 256 / 2) * DType.BF16.itemsize / 128
    assert pair.mma == alone.mma


@pytest.mark.parametrize(
    ("cta_group", "mma", "parts", "over_mma"),
    [
        (1, 2560, (2048, 256, 0, 1024), 1.30),  # table 3
        (2, 2560, (1536, 256, 384, 512), 1.05),  # table 4
    ],
)
def test_backward(cta_group, mma, parts, over_mma) -> None:
    got, traffic = backward_roofline((128, 128), 128, B200, cta_group=cta_group)
    assert (traffic.operands, traffic.ds_write, traffic.ds_exchange, traffic.dq) == parts
    assert (got.mma, got.smem, got.exp) == (mma, sum(parts), 1024)
    assert got.bound == "smem"
    assert got.smem / got.mma == pytest.approx(over_mma, abs=0.005)
