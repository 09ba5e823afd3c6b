"""The cycle model's pick: feasible, repeatable, careful."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_fakes import problem

from fa4gen.core.errors import NoFeasibleKernel
from fa4gen.feasibility import check
from fa4gen.hardware import load_sku
from fa4gen.perf import predict
from fa4gen.runtime.model_picker import MIN_GAIN, ModelPicker, representative
from fa4gen.space import space_for

H200 = load_sku("h200")
PICKER = ModelPicker(H200)


@settings(max_examples=8, deadline=None)
@given(
    head_dim=st.sampled_from([8, 64, 96, 128, 192, 256]),
    seqlen=st.integers(1, 20000),
    heads=st.sampled_from([(1, 1), (16, 16), (32, 8), (8, 1)]),
    causal=st.booleans(),
)
def test_a_pick_is_feasible_and_clearly_better_or_the_default(
    head_dim: int, seqlen: int, heads: tuple[int, int], causal: bool
) -> None:
    asked = problem(
        batch=1, seqlen_q=seqlen, num_heads_q=heads[0], num_heads_kv=heads[1],
        head_dim=head_dim, causal=causal,
    )  # fmt: skip
    pick = PICKER.pick(asked)
    assert check(asked.signature, pick.config, H200.arch)
    assert pick.config == pick.default or pick.predicted_us * MIN_GAIN <= pick.default_us
    assert pick.predicted_us == predict(representative(asked), pick.config, H200).time_us


def test_a_pick_keeps_the_numerics_of_the_default() -> None:
    for head_dim in (64, 128):
        pick = PICKER.pick(problem(head_dim=head_dim, batch=1, seqlen_q=1, seqlen_k=2048))
        assert pick.config != pick.default, "this shape should have something better"
        for name in ("exp2_poly_fraction", "exp2_poly_degree", "rescale_threshold_log2"):
            assert getattr(pick.config, name) == getattr(pick.default, name)


def test_two_processes_would_pick_alike() -> None:
    asked = [problem(head_dim=d, seqlen_q=s) for d in (64, 128) for s in (1, 100, 5000)]
    other = ModelPicker(H200)
    assert [PICKER.pick(each) for each in asked] == [other.pick(each) for each in reversed(asked)][
        ::-1
    ]


def test_ragged_lengths_share_their_picks() -> None:
    picks = {id(PICKER.pick(problem(seqlen_q=n, seqlen_k=n))) for n in range(750, 1400, 7)}
    assert len(picks) == 1


@given(st.integers(1, 1 << 30))
def test_a_representative_is_near(seqlen: int) -> None:
    near = representative(problem(seqlen_q=seqlen, seqlen_k=1)).seqlen_q
    assert near.bit_count() == 1
    assert near / seqlen <= 2**0.5 + 1e-9
    assert seqlen / near <= 2**0.5 + 1e-9


def test_the_default_of_the_space_is_the_anchor() -> None:
    pick = PICKER.pick(problem())
    assert pick.default == space_for("sm90").default(problem().signature)


def test_an_arch_without_kernels_is_named() -> None:
    old = replace(H200, name="v100", arch=replace(H200.arch, name="sm70", family="sm70"))
    with pytest.raises(NoFeasibleKernel, match=r"got sm70 \(v100\), allowed: sm100, sm103, sm90"):
        ModelPicker(old).pick(problem())


def test_a_pick_for_blackwell_can_run() -> None:
    sku = load_sku("b300")
    pick = ModelPicker(sku).pick(problem())
    assert check(problem().signature, pick.config, sku.arch)


def test_a_head_dim_beyond_the_arch_has_its_reason() -> None:
    with pytest.raises(NoFeasibleKernel, match="head_dim"):
        PICKER.pick(problem(head_dim=512))
