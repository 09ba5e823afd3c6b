"""What each rule of the Blackwell kernel refuses, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.core.config import KernelConfig, MmaOrder, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import canonicalise, check, num_threads, rule_knobs, rules, smem_bytes
from fa4gen.feasibility.sm100_footprint import (
    full_regs_other,
    launch_regs,
    polynomial_room,
    tmem_columns,
    tmem_columns_allocated,
)
from fa4gen.hardware import load_arch
from fa4gen.space import space_for

SM100, SM103 = load_arch("sm100"), load_arch("sm103")
HD128 = KernelSignature(DType.BF16, 128, 128, causal=False, qhead_per_kvhead=1)
HD64 = replace(HD128, head_dim=64, head_dim_v=64)
HD192 = replace(HD128, head_dim=192)
HD256 = replace(HD128, head_dim=256, head_dim_v=256)
PLAIN = KernelConfig(num_kv_stages=3)


def broken(signature: KernelSignature, config: KernelConfig) -> set[str]:
    return {reason.rule for reason in check(signature, config, SM100).reasons}


@pytest.mark.parametrize(
    ("signature", "config"),
    [
        (HD128, PLAIN),
        (HD128, KernelConfig(num_kv_stages=6, cta_group=2)),
        (HD64, KernelConfig(num_kv_stages=10)),
        (HD64, KernelConfig(num_kv_stages=20, cta_group=2)),
        (replace(HD128, head_dim=96, head_dim_v=96), KernelConfig(num_kv_stages=5)),
        (HD192, KernelConfig(num_kv_stages=5, cta_group=2, o_aliases_q=True)),
    ],
)
def test_stages_that_flash_attention_4_ships(
    signature: KernelSignature, config: KernelConfig
) -> None:
    """Its table of stages: 224 KiB less Q and O, by the size of a slot."""
    assert check(signature, config, SM100), str(check(signature, config, SM100))
    assert "smem" in broken(signature, replace(config, num_kv_stages=config.num_kv_stages + 1))


def test_smem_by_hand() -> None:
    # Two Q tiles and two O tiles of 128 x 128 x 2 B, three slots of 32 KiB, 3 KiB of statistics.
    assert smem_bytes(HD128, PLAIN, SM100) == 4 * 32768 + 3 * 32768 + 3072
    assert smem_bytes(HD128, replace(PLAIN, o_aliases_q=True), SM100) == 5 * 32768 + 3072
    half = replace(PLAIN, cta_group=2)
    assert smem_bytes(HD128, half, SM100) == 4 * 32768 + 3 * 16384 + 3072
    # O of 128 columns fits in the place of Q of 192; a slot is as large as K.
    narrow = KernelConfig(num_kv_stages=2, o_aliases_q=True)
    assert smem_bytes(HD192, narrow, SM100) == 2 * 49152 + 2 * 49152 + 3072


def test_tensor_memory_by_hand() -> None:
    assert tmem_columns(HD128, PLAIN) == 512
    assert tmem_columns(HD64, PLAIN) == 384
    assert tmem_columns_allocated(HD64, PLAIN) == 512
    assert tmem_columns_allocated(HD64, replace(PLAIN, num_q_stages=1, tile_n=64)) == 128
    verdict = check(HD256, replace(PLAIN, num_kv_stages=2, o_aliases_q=True), SM100)
    (message,) = [reason.message for reason in verdict.reasons if reason.rule == "tmem"]
    assert "2 x (S 128 + O 256) = 768 columns" in message
    assert "has 512" in message
    assert "num_q_stages" in message


def test_registers_and_pool() -> None:
    assert (num_threads(PLAIN, SM100), launch_regs(PLAIN, SM100)) == (512, 128)
    one = replace(PLAIN, num_q_stages=1)
    assert (num_threads(one, SM100), launch_regs(one, SM100)) == (384, 168)
    assert full_regs_other(replace(PLAIN, regs_softmax=192, regs_correction=80), SM100) == 48
    assert full_regs_other(one, SM100) == 128  # of 504 - 192 - 88 = 224
    # 2 x 192 + 88 + 48 = 520 > 512
    assert broken(HD128, replace(PLAIN, regs_other=48)) == {"register_pool"}
    assert broken(HD128, replace(PLAIN, regs_softmax=160, regs_other=40)) == {"registers"}
    wide = replace(PLAIN, correction_columns=64)
    assert broken(HD128, wide) == {"registers"}
    fits = replace(wide, num_q_stages=1, regs_correction=152)
    assert broken(HD128, fits) == set()
    assert broken(HD128, replace(PLAIN, regs_other=32, regs_softmax=184)) == {"registers"}


@pytest.mark.parametrize(
    ("signature", "change", "rule"),
    [
        (HD128, {"tile_m": 64}, "tile_m"),
        (HD128, {"tile_n": 80}, "tile_n"),
        (HD128, {"tile_n": 32}, "tile_n"),
        (HD128, {"num_kv_stages": 1}, "num_kv_stages"),
        (HD128, {"fused_row_max": True}, "fused_row_max"),
        (HD128, {"pack_gqa": True}, "pack_gqa"),
        (replace(HD128, head_dim_v=80), {"cta_group": 2}, "cta_group"),
        (replace(HD128, head_dim_v=80), {"correction_columns": 32}, "correction_columns"),
        (replace(HD128, head_dim=264), {"num_kv_stages": 2, "o_aliases_q": True}, "head_dim"),
    ],
)
def test_what_is_refused(signature: KernelSignature, change: dict[str, int], rule: str) -> None:
    verdict = check(signature, PLAIN.vary(change), SM100)
    assert rule in {reason.rule for reason in verdict.reasons}
    message = next(reason.message for reason in verdict.reasons if reason.rule == rule)
    assert "got" in message
    assert "allowed" in message


def test_fused_row_max_is_sm103s() -> None:
    assert check(HD128, replace(PLAIN, fused_row_max=True), SM103)


@pytest.mark.parametrize("scheduler", [Scheduler.LPT, Scheduler.PERSISTENT, Scheduler.CLC])
def test_schedulers_that_run(scheduler: Scheduler) -> None:
    assert check(HD128, replace(PLAIN, scheduler=scheduler), SM100)


def test_the_hardware_hands_tiles_out_and_no_counter() -> None:
    counted = replace(PLAIN, scheduler=Scheduler.DYNAMIC)
    (reason,) = check(HD128, counted, SM100).reasons
    assert reason.message == "scheduler: got dynamic, allowed: lpt, persistent, clc"
    assert canonicalise(HD128, counted, SM100, derive=False).scheduler is Scheduler.CLC
    assert "scheduler" not in rule_knobs(SM100), "no canonical kernel is refused for it"


def test_canonical_form() -> None:
    def canonical(**changes: object) -> KernelConfig:
        return canonicalise(HD128, PLAIN.vary(changes), SM100)  # type: ignore[arg-type]

    nothing = canonical(exp2_poly_degree=5, exp2_poly_frequency=8, exp2_poly_start=0)
    assert nothing == canonicalise(HD128, PLAIN, SM100)
    # Fragments 1 and 2 of four hold half of the columns.
    assert polynomial_room(PLAIN) == 64
    assert canonical(exp2_poly_fraction=0.75).exp2_poly_fraction == 0.5
    assert canonical(exp2_poly_fraction=0.5, exp2_poly_frequency=8).exp2_poly_frequency == 16
    assert canonical(tile_n=64, exp2_poly_fraction=0.25).exp2_poly_fraction == 0.0
    assert canonical(tile_n=64, p_publish_columns=128).p_publish_columns == 64
    alone = canonical(num_q_stages=1, softmax_handover=True, mma_order=MmaOrder.GROUPED)
    assert (alone.softmax_handover, alone.mma_order) == (False, MmaOrder.ALTERNATE)


KNOBS = space_for("sm103").knobs
configs = st.fixed_dictionaries(
    {knob.name: st.sampled_from(knob.values) for knob in KNOBS}
    | {"tile_n": st.integers(1, 16).map(lambda step: 16 * step)}
).map(KernelConfig.from_dict)


@settings(deadline=None)
@given(config=configs, group=st.integers(1, 16))
def test_canonical_form_is_stable_and_never_worse(config: KernelConfig, group: int) -> None:
    signature = replace(HD128, qhead_per_kvhead=group)
    once = canonicalise(signature, config, SM100, derive=False)
    assert canonicalise(signature, once, SM100, derive=False) == once
    assert broken(signature, once) <= broken(signature, config)


@settings(deadline=None)
@given(config=configs, group=st.integers(1, 16))
@pytest.mark.parametrize("arch", [SM100, SM103, load_arch("sm90")], ids=lambda arch: arch.name)
def test_each_rule_looks_at_the_knobs_it_names_only(
    arch: object, config: KernelConfig, group: int
) -> None:
    """The space relies on it: a rule is asked as soon as these have their values."""
    from fa4gen.hardware import Arch

    assert isinstance(arch, Arch)
    signature = replace(HD128, qhead_per_kvhead=group)
    for rule in rules(arch):
        plain = KernelConfig(**{name: getattr(config, name) for name in rule.reads})
        answers = [rule(signature, each, arch) for each in (plain, config)]
        assert answers[0] == answers[1]
        assert rule.repaired or set(rule.reads) <= set(rule_knobs(arch))
