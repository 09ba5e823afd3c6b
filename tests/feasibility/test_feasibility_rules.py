"""One statement per constraint: what each rule refuses, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4gen.core.config import Exp2Placement, KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import UnknownName
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import (
    canonicalise,
    check,
    l2_section_bytes,
    num_threads,
    rows_per_query,
    rule_knobs,
    smem_bytes,
)
from fa4gen.feasibility.sm90_footprint import accumulator_regs, full_regs_consumer, launch_regs
from fa4gen.hardware import load_arch
from fa4gen.space import space_for

SM90 = load_arch("sm90")
HD128 = KernelSignature(DType.BF16, 128, 128, causal=False, qhead_per_kvhead=1)
GQA4 = replace(HD128, qhead_per_kvhead=4)
HD64 = replace(HD128, head_dim=64, head_dim_v=64)
HD256 = replace(HD128, head_dim=256, head_dim_v=256)
THREE_CONSUMERS = KernelConfig(tile_m=192, regs_consumer=160)


def rules(signature: KernelSignature, config: KernelConfig) -> set[str]:
    return {reason.rule for reason in check(signature, config, SM90).reasons}


@pytest.mark.parametrize(
    ("signature", "config"),
    [
        (HD128, KernelConfig()),
        (HD128, KernelConfig(tile_n=176)),
        (HD128, KernelConfig(tile_n=192)),
        (HD64, THREE_CONSUMERS),
        (HD64, replace(THREE_CONSUMERS, regs_producer=32)),
        (replace(HD128, head_dim=192), KernelConfig()),
        (replace(HD128, head_dim=192, head_dim_v=192), KernelConfig(tile_n=112)),
        (HD256, KernelConfig(tile_n=80, pingpong=False)),
        (HD128, KernelConfig(tile_m=64, pingpong=False, regs_producer=56, regs_consumer=256)),
    ],
)
def test_shapes_known_to_run_on_hopper(signature: KernelSignature, config: KernelConfig) -> None:
    """Tiles and registers that FlashAttention-4 ships or sweeps on the H200."""
    verdict = check(signature, config, SM90)
    assert verdict, str(verdict)


def test_smem_by_hand() -> None:
    # Q 128*128*2, K and V 2 stages of 128*128*2 each, no P, 1 KiB of barriers.
    assert smem_bytes(HD128, KernelConfig(), SM90) == 32768 + 65536 + 65536 + 1024
    in_smem = KernelConfig(p_in_registers=False)
    assert smem_bytes(HD128, in_smem, SM90) == 164864 + 128 * 128 * 2
    # O is wider than Q and takes its place.
    wide_v = replace(HD128, head_dim=64)
    assert smem_bytes(wide_v, KernelConfig(), SM90) == 32768 + 32768 + 65536 + 1024
    # One stage of K at tile_n 16 and head_dim 8 is 512 B, rounded up to the swizzle period.
    tiny = KernelSignature(DType.BF16, 8, 8, causal=False, qhead_per_kvhead=1)
    one = KernelConfig(tile_m=64, tile_n=16, num_kv_stages=1)
    assert smem_bytes(tiny, one, SM90) == 2048 + 1024 + 1024 + 1024


def test_smem_rule_shows_the_arithmetic() -> None:
    verdict = check(HD128, KernelConfig(num_kv_stages=4), SM90)
    assert [reason.rule for reason in verdict.reasons] == ["smem"]
    needed = smem_bytes(HD128, KernelConfig(num_kv_stages=4), SM90)
    message = verdict.reasons[0].message
    assert str(needed) in message
    assert str(SM90.smem_per_cta_bytes) in message
    assert "K 131072" in message
    assert "num_kv_stages" in message
    assert verdict.reasons[0].excess == pytest.approx(needed / SM90.smem_per_cta_bytes - 1)


def test_accumulators_by_hand() -> None:
    assert accumulator_regs(HD128, KernelConfig()) == 64 + 64 + 32
    assert accumulator_regs(HD128, KernelConfig(p_in_registers=False)) == 128
    assert accumulator_regs(HD128, KernelConfig(intra_warpgroup_overlap=False)) == 128


def test_register_rule() -> None:
    hd96 = replace(HD128, head_dim=96, head_dim_v=96)
    spills = KernelConfig(tile_m=192, tile_n=144, regs_consumer=160)
    assert rules(hd96, spills) == {"registers"}  # 72 + 48 + 36 + 28 = 184 > 160
    assert rules(hd96, replace(spills, p_in_registers=False)) == set()
    assert rules(HD256, KernelConfig(tile_n=128, num_kv_stages=1)) == {"registers"}


def test_a_few_registers_too_few_are_refused() -> None:
    """Measured: 192x128 at head_dim 64 loses 21 to 48 % with 152 registers, nothing with 160."""
    shy = replace(THREE_CONSUMERS, regs_producer=40, regs_consumer=152)
    assert rules(HD64, shy) == {"registers"}  # 64 + 32 + 32 + 28 = 156 > 152
    assert rules(HD64, THREE_CONSUMERS) == set()
    assert rules(HD128, replace(shy, tile_n=80)) == set()  # 40 + 64 + 20 + 28 = 152


def test_launch_registers_and_pool() -> None:
    one, two = KernelConfig(tile_m=64), KernelConfig(tile_m=128)
    assert (num_threads(one, SM90), launch_regs(one, SM90)) == (256, 256)
    assert (num_threads(two, SM90), launch_regs(two, SM90)) == (384, 168)
    assert (num_threads(THREE_CONSUMERS, SM90), launch_regs(THREE_CONSUMERS, SM90)) == (512, 128)
    # 24 + 2 * 240 = 504 = 3 * 168 just fits, one step more hangs at setmaxnreg.
    assert rules(HD128, KernelConfig(regs_producer=24, regs_consumer=240)) == set()
    assert rules(HD128, KernelConfig(regs_producer=32, regs_consumer=240)) == {"register_pool"}
    assert rules(HD64, replace(THREE_CONSUMERS, regs_consumer=168)) == {"register_pool"}


@given(
    tile_m=st.sampled_from([64, 128, 192]),
    regs_producer=st.integers(3, 32).map(lambda step: 8 * step),
)
def test_full_registers_fill_the_pool(tile_m: int, regs_producer: int) -> None:
    config = KernelConfig(tile_m=tile_m, regs_producer=regs_producer, pingpong=tile_m > 64)
    full = full_regs_consumer(HD64, config, SM90)
    pool_rule = {"register_pool"}
    assert not rules(HD64, replace(config, regs_consumer=full)) & pool_rule
    if full < 256:
        assert rules(HD64, replace(config, regs_consumer=full + 8)) & pool_rule


def test_too_many_consumers() -> None:
    assert "consumer_warpgroups" in rules(HD64, KernelConfig(tile_m=256, regs_consumer=112))


def test_head_dim_limit() -> None:
    assert "head_dim" in rules(replace(HD128, head_dim=264), KernelConfig(tile_n=64))
    assert "head_dim" in rules(replace(HD128, head_dim_v=512), KernelConfig(tile_n=64))
    assert "head_dim" not in rules(HD256, KernelConfig(tile_n=64))


def test_pingpong_needs_two() -> None:
    assert rules(HD128, KernelConfig(tile_m=64)) == {"pingpong"}


@pytest.mark.parametrize(("group", "fits"), [(1, False), (4, True), (3, False), (7, False)])
def test_pack_gqa(group: int, fits: bool) -> None:
    signature = replace(HD128, qhead_per_kvhead=group)
    assert ("pack_gqa" not in rules(signature, KernelConfig(pack_gqa=True))) == fits
    assert rules(signature, KernelConfig(pack_gqa=False)) == set()


@pytest.mark.parametrize(("group", "fits"), [(3, True), (5, True), (33, True), (65, False)])
def test_heads_that_do_not_divide_a_tile_are_packed_where_keys_are_split(
    group: int, fits: bool
) -> None:
    """Else TMA would store the rows between two queries over the next KV head's."""
    signature = replace(HD128, qhead_per_kvhead=group)
    packed = replace(THREE_CONSUMERS, tile_m=128, regs_consumer=240, pack_gqa=True)
    packed = replace(packed, scheduler=Scheduler.PERSISTENT)
    assert ("pack_gqa" not in rules(signature, replace(packed, num_splits=2))) == fits
    message = str(check(signature, packed, SM90))
    assert ("num_splits of 2 or more" if fits else "a multiple of qhead_per_kvhead") in message
    assert canonicalise(signature, packed, SM90).num_splits == 2
    assert rows_per_query(signature, packed) == {3: 4, 5: 8, 33: 64, 65: 128}[group]


def test_a_second_q_tile_takes_shared_memory_and_needs_a_next_tile() -> None:
    persistent = KernelConfig(scheduler=Scheduler.PERSISTENT)
    early = replace(persistent, q_prefetch=True)
    assert smem_bytes(HD128, early, SM90) - smem_bytes(HD128, persistent, SM90) == 128 * 128 * 2
    assert rules(HD128, early) == set()
    assert rules(HD128, replace(early, scheduler=Scheduler.LPT)) == {"q_prefetch"}
    wide = check(replace(HD128, head_dim=192), early, SM90)
    assert "turn q_prefetch off" in wide.reasons[0].message


def test_dynamic_tiles_have_a_next_one_and_no_splits() -> None:
    dynamic = KernelConfig(scheduler=Scheduler.DYNAMIC)
    assert rules(HD128, dynamic) == set()
    assert rules(HD128, replace(dynamic, q_prefetch=True)) == set()
    # Pointless with three tiles for all SMs, or without a mask, but right.
    assert rules(replace(HD128, causal=True), dynamic) == set()
    verdict = check(HD128, replace(dynamic, num_splits=4), SM90)
    (reason,) = verdict.reasons
    assert reason.rule == "num_splits"
    assert reason.excess == 3.0
    subject, got, allowed, remedy = (
        "num_splits: ",
        "got 4 with scheduler dynamic",
        "allowed: 1",
        "choose persistent or lpt",
    )
    assert reason.message.startswith(subject)
    assert all(part in reason.message for part in (got, allowed, remedy))
    for scheduler in (Scheduler.PERSISTENT, Scheduler.LPT):
        assert rules(HD128, KernelConfig(scheduler=scheduler, num_splits=4)) == set()


def test_canonical_splits_are_not_handed_out_one_by_one() -> None:
    early = KernelConfig(scheduler=Scheduler.DYNAMIC, q_prefetch=True)
    assert canonicalise(HD128, early, SM90, derive=False) == early
    split = canonicalise(HD128, replace(early, num_splits=4), SM90, derive=False)
    assert split == replace(early, num_splits=4, scheduler=Scheduler.PERSISTENT)
    assert rules(HD128, split) == set()
    late = canonicalise(HD128, replace(early, scheduler=Scheduler.LPT), SM90, derive=False)
    assert late.q_prefetch is False


def test_what_canonical_forms_repair_decides_nothing() -> None:
    """Else a search would ask for every number of splits with every shape: six times as many."""
    assert "num_splits" not in rule_knobs(SM90)
    assert "scheduler" not in rule_knobs(SM90)
    assert "q_prefetch" in rule_knobs(SM90), "of it depends the shared memory"


def test_long_tiles_of_many_heads_stand_side_by_side() -> None:
    section = {each: l2_section_bytes(KernelConfig(scheduler=each), SM90) for each in Scheduler}
    assert section[Scheduler.LPT] == section[Scheduler.DYNAMIC] == 32 << 20
    assert section[Scheduler.PERSISTENT] == 0


def test_lazy_maxima_need_a_threshold() -> None:
    lazy = KernelConfig(lazy_row_max=True, rescale_threshold_log2=1.0)
    assert rules(HD128, lazy) == set()
    assert rules(HD128, replace(lazy, rescale_threshold_log2=0.0)) == {"lazy_row_max"}


@pytest.mark.parametrize(
    ("dtype", "limit"), [(DType.FP16, 14.0), (DType.BF16, 64.0), (DType.E4M3, 4.0)]
)
@pytest.mark.parametrize("arch", ["sm90", "sm100"])
def test_a_threshold_keeps_p_in_its_type(dtype: DType, limit: float, arch: str) -> None:
    def refused(threshold: float) -> bool:
        verdict = check(signature, KernelConfig(rescale_threshold_log2=threshold), load_arch(arch))
        return "rescale_threshold" in {reason.rule for reason in verdict.reasons}

    signature = replace(HD128, dtype=dtype)
    assert not refused(limit)
    if limit < 64.0:  # beyond that the type of the knob ends
        assert refused(limit + 1.0)


@pytest.mark.parametrize(("arch", "refused"), [("sm90", False), ("sm100", True), ("sm103", True)])
def test_only_hopper_splits_keys(arch: str, refused: bool) -> None:
    verdict = check(HD128, KernelConfig(num_splits=4), load_arch(arch))
    assert ("num_splits" in {reason.rule for reason in verdict.reasons}) is refused


def test_all_reasons_are_given() -> None:
    bad = KernelConfig(tile_m=64, num_kv_stages=8, pack_gqa=True)
    assert rules(HD128, bad) >= {"smem", "pingpong", "pack_gqa"}


def test_an_arch_without_kernels_is_refused_not_guessed() -> None:
    future = replace(SM90, name="sm70", family="sm70")
    verdict = check(HD128, KernelConfig(), future)
    assert [reason.rule for reason in verdict.reasons] == ["arch"]
    for question in (smem_bytes, num_threads):
        with pytest.raises(UnknownName, match="sm70"):
            question(*([HD128] if question is smem_bytes else []), KernelConfig(), future)


def test_cluster_launch_control_is_blackwells() -> None:
    assert rules(HD128, KernelConfig(scheduler=Scheduler.CLC)) == {"scheduler"}


def test_canonical_form_drops_knobs_without_effect() -> None:
    noisy = KernelConfig(exp2_poly_degree=5, exp2_poly_placement=Exp2Placement.BACK, pack_gqa=True)
    assert canonicalise(HD128, noisy, SM90, derive=False) == KernelConfig()
    kept = replace(noisy, exp2_poly_fraction=0.25)
    assert canonicalise(GQA4, kept, SM90, derive=False) == kept
    everything = replace(noisy, exp2_poly_fraction=1.0)
    assert (
        canonicalise(GQA4, everything, SM90, derive=False).exp2_poly_placement
        is Exp2Placement.SPREAD
    )
    assert canonicalise(GQA4, everything, SM90, derive=False).exp2_poly_degree == 5
    assert canonicalise(HD128, KernelConfig(tile_m=64), SM90, derive=False).pingpong is False


def test_canonical_form_leaves_no_register_idle() -> None:
    shy = KernelConfig(regs_producer=40, regs_consumer=160)
    assert canonicalise(HD128, shy, SM90, derive=False) == shy
    assert canonicalise(HD128, shy, SM90).regs_consumer == 232
    too_many = KernelConfig(tile_m=192, regs_consumer=240)
    assert canonicalise(HD64, too_many, SM90).regs_consumer == 160


def test_a_tile_with_splits_leaves_half_of_the_registers_if_it_can() -> None:
    one = KernelConfig(tile_m=64, tile_n=64, regs_producer=24)
    assert canonicalise(HD128, one, SM90).regs_consumer == 256
    assert canonicalise(HD128, replace(one, num_splits=4), SM90).regs_consumer == 232
    wide = replace(one, num_splits=4, tile_n=256)  # 128 + 64 + 64 + 28 registers are needed
    assert canonicalise(HD128, wide, SM90).regs_consumer == 256
    assert canonicalise(HD256, replace(one, num_splits=4), SM90).regs_consumer == 256, "ptxas"
    two = replace(one, num_splits=4, tile_m=128)
    assert canonicalise(HD128, two, SM90).regs_consumer == 240


configs = st.builds(
    KernelConfig,
    tile_m=st.sampled_from([64, 128, 192]),
    tile_n=st.integers(1, 16).map(lambda step: 16 * step),
    num_kv_stages=st.integers(1, 4),
    p_in_registers=st.booleans(),
    intra_warpgroup_overlap=st.booleans(),
    pingpong=st.booleans(),
    regs_consumer=st.integers(3, 32).map(lambda step: 8 * step),
    scheduler=st.sampled_from(Scheduler),
    exp2_poly_fraction=st.integers(0, 16).map(lambda step: step / 16),
    exp2_poly_degree=st.integers(2, 5),
    exp2_poly_placement=st.sampled_from(Exp2Placement),
    rescale_threshold_log2=st.integers(0, 8).map(float),
    pack_gqa=st.booleans(),
    q_prefetch=st.booleans(),
)
splits = st.sampled_from([1, 2, 32])


@settings(deadline=None)
@given(config=configs, group=st.integers(1, 16), num_splits=splits)
def test_canonical_form_is_stable_and_never_worse(
    config: KernelConfig, group: int, num_splits: int
) -> None:
    signature = replace(HD128, qhead_per_kvhead=group)
    config = replace(config, num_splits=num_splits)
    once = canonicalise(signature, config, SM90, derive=False)
    assert canonicalise(signature, once, SM90, derive=False) == once
    before, after = rules(signature, config), rules(signature, once)
    assert after <= before


@settings(deadline=None)
@given(config=configs, group=st.integers(1, 16), num_splits=splits)
def test_only_rule_knobs_decide(config: KernelConfig, group: int, num_splits: int) -> None:
    """The space relies on it: it multiplies feasible shapes by all values of the other knobs.

    (Shapes in canonical form: heads that do not divide a tile bring splits along.)
    """
    signature = replace(HD128, qhead_per_kvhead=group)
    config = canonicalise(signature, replace(config, num_splits=num_splits), SM90)
    first = {knob.name: knob.values[0] for knob in space_for("sm90").free_knobs}
    plain = canonicalise(signature, config.vary(first), SM90)
    assert check(signature, plain, SM90) == check(signature, config, SM90)
