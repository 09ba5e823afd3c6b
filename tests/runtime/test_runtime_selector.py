"""Which row is taken, in which order, and what is said about it."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_fakes import TEMPLATE, configs, problem, row

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import NoFeasibleKernel
from fa4gen.core.evaluation import Execution, MeasurementPolicy
from fa4gen.core.outcome import Source
from fa4gen.db import DispatchRow, Origin
from fa4gen.feasibility import check
from fa4gen.hardware import load_sku
from fa4gen.runtime import Rung, RuntimeSettings, Selection
from fa4gen.runtime.selector import MAX_REMEMBERED, Selector, distance_log2

H200 = load_sku("h200")
PICK = KernelConfig(num_kv_stages=1)
EAGER = MeasurementPolicy(Execution.EAGER)
A, B, C, D = configs(4)


def select(rows: list[DispatchRow], asked: Any = None, **options: Any) -> Selection:
    selector = Selector(
        rows, options.pop("sku", H200), pick=lambda _: PICK, template_hash=TEMPLATE, **options
    )
    return selector.select(problem() if asked is None else asked)


def test_an_exact_row_goes_first() -> None:
    near = problem(seqlen_q=1040)
    taken = select([row(near, B), row(problem(), A), row(problem(), C, sku="h100_sxm5")])
    assert (taken.config, taken.rung, taken.source) == (A, Rung.EXACT, Source.MEASURED)
    assert taken.row is not None
    assert taken.row.problem == problem()
    assert taken.rejected == ()
    assert taken.notes == ()


def test_without_an_exact_row_the_nearest_of_the_signature() -> None:
    rows = [row(problem(seqlen_q=n), c) for n, c in ((512, A), (1500, B), (2048, C))]
    taken = select(rows)
    assert (taken.config, taken.rung) == (B, Rung.BUCKET)
    assert taken.distance_log2 == pytest.approx(distance_log2(problem(), problem(seqlen_q=1500)))


@pytest.mark.parametrize(
    "change",
    [
        {"causal": True},
        {"num_heads_kv": 4},
        {"dtype": "fp16"},
        {"head_dim": 120},
        {"head_dim_v": 64},
    ],
)
def test_a_row_of_another_signature_never_stands_in(change: dict[str, Any]) -> None:
    taken = select([row(problem(**change), A)])
    assert (taken.config, taken.rung) == (PICK, Rung.MODEL)


def test_rows_beyond_the_radius_are_refused_with_the_distance() -> None:
    decode = problem(seqlen_q=1, seqlen_k=1024)
    taken = select([row(problem(), A)], decode)
    assert taken.rung is Rung.MODEL
    assert [each.rung for each in taken.rejected] == [Rung.BUCKET]
    assert "got 10.00, allowed: up to 2" in taken.rejected[0].reason


def test_another_split_of_batch_and_heads_is_near_but_not_exact() -> None:
    taken = select([row(problem(batch=4, num_heads_q=8), A)])
    assert (taken.rung, taken.distance_log2) == (Rung.BUCKET, 0.0)


def test_a_sibling_comes_after_a_bucket_and_before_the_model() -> None:
    sibling = row(problem(), B, sku="h100_sxm5")
    assert select([sibling, row(problem(seqlen_q=1500), A)]).config == A
    taken = select([sibling])
    assert (taken.config, taken.rung) == (B, Rung.SIBLING)
    assert "h100_sxm5" in taken.summary


def test_rows_of_another_arch_are_no_siblings() -> None:
    assert select([row(problem(), A, sku="b200")]).rung is Rung.MODEL


def test_measured_goes_before_modelled_on_whatever_rung() -> None:
    modelled = row(problem(), A, source=Source.MODELLED)
    far = row(problem(), C, sku="gh200")
    assert select([modelled, row(problem(seqlen_q=1500), B)]).config == B
    assert select([modelled, far]).config == C
    taken = select([modelled])
    assert (taken.config, taken.rung, taken.source) == (A, Rung.EXACT, Source.MODELLED)
    assert "modelled, not measured" in taken.notes[0]


def test_the_user_goes_before_the_shipped_table() -> None:
    eager = row(problem(), B, policy=EAGER, origin=Origin.USER)
    assert select([row(problem(), A, policy=EAGER), eager]).config == B


def test_the_preferred_policy_goes_first_and_another_is_noted() -> None:
    graph, eager = row(problem(), A), row(problem(), B, policy=EAGER, origin=Origin.USER)
    assert select([graph, eager]).config == A
    taken = select([graph, eager], settings=RuntimeSettings(policy=EAGER))
    assert taken.config == B
    other = select([eager])
    assert other.config == B
    assert "timed under eager-cold-sustained, preferred is graph-cold-sustained" in other.notes[0]


def test_an_infeasible_row_is_passed_over_with_the_rule() -> None:
    too_big = KernelConfig(tile_m=192, tile_n=256, num_kv_stages=8)
    assert not check(problem().signature, too_big, H200.arch)
    taken = select([row(problem(), too_big), row(problem(seqlen_q=1500), B)])
    assert (taken.config, taken.rung) == (B, Rung.BUCKET)
    assert taken.rejected[0].rung is Rung.EXACT
    assert "smem" in taken.rejected[0].reason


def test_a_row_of_an_older_template_is_taken_with_a_note() -> None:
    taken = select([row(problem(), A, template="older")])
    assert taken.config == A
    assert "timed with template older" in taken.notes[0]


def test_a_stand_in_sku_has_no_rows_of_its_own() -> None:
    taken = select([row(problem(), A)], stand_in=True)
    assert (taken.config, taken.rung) == (A, Rung.SIBLING)


def test_require_exact_takes_an_exact_row_only() -> None:
    exact = RuntimeSettings(require_exact=True)
    assert select([row(problem(), A)], settings=exact).config == A
    with pytest.raises(NoFeasibleKernel, match=r"FA4GEN_REQUIRE_EXACT.*s1500.*fa4gen tune"):
        select([row(problem(seqlen_q=1500), A)], settings=exact)
    with pytest.raises(NoFeasibleKernel, match="no exact row"):
        select([], settings=exact)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(
            st.sampled_from([1, 8]), st.sampled_from([1, 1000, 1024, 4096]), st.integers(0, 3)
        ),
        max_size=12,
    ),
    asked=st.tuples(st.sampled_from([1, 8, 16]), st.sampled_from([1, 1024, 3000])),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_order_of_rows_does_not_matter(
    shapes: list[tuple[int, int, int]], asked: tuple[int, int], shuffle: random.Random
) -> None:
    skus, sources = ("h200", "h100_sxm5"), (Source.MEASURED, Source.MODELLED)
    rows = {
        (batch, seqlen, kind): row(
            problem(batch=batch, seqlen_q=seqlen),
            configs(8)[(batch + seqlen + kind) % 8],
            sku=skus[kind % 2],
            source=sources[kind // 2],
        )
        for batch, seqlen, kind in shapes
    }
    one = list(rows.values())
    other = one.copy()
    shuffle.shuffle(other)
    wanted = problem(batch=asked[0], seqlen_q=asked[1])
    first, second = select(one, wanted), select(other, wanted)
    assert first == second
    assert check(wanted.signature, first.config, H200.arch)
    assert first.distance_log2 <= 2.0
    if first.source is Source.MODELLED and first.row is not None:
        assert not any(
            each.source is Source.MEASURED and distance_log2(each.problem, wanted) <= 2.0
            for each in one
        )


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20), st.integers(1, 64))
def test_the_distance_is_a_metric_in_factors_of_two(left: int, right: int, batch: int) -> None:
    one, two = problem(seqlen_q=left, batch=batch), problem(seqlen_q=right, batch=batch)
    assert distance_log2(one, one) == 0.0
    assert distance_log2(one, two) == distance_log2(two, one)
    assert distance_log2(one, replace(one, batch=2 * batch)) == pytest.approx(1.0)


def test_selections_are_remembered_within_bounds() -> None:
    asked = []

    def pick(of: Any) -> KernelConfig:
        asked.append(of)
        return PICK

    selector = Selector([], H200, pick=pick)
    assert selector.select(problem()) is selector.select(problem())
    assert len(asked) == 1
    for seqlen in range(1, MAX_REMEMBERED + 10):
        selector.select(problem(seqlen_q=seqlen))
    assert len(selector._selections) <= MAX_REMEMBERED


def test_threads_get_the_same_selection() -> None:
    rows = [row(problem(seqlen_q=n), A) for n in (512, 1024, 2048)]
    selector = Selector(rows, H200, pick=lambda _: PICK)
    found: list[Selection] = []
    threads = [
        threading.Thread(target=lambda: found.append(selector.select(problem(seqlen_q=1100))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(repr, found))) == 1


def test_the_selector_needs_neither_torch_nor_a_database() -> None:
    code = (
        "import sys, fa4gen.runtime, fa4gen.runtime.selector, fa4gen.runtime.settings\n"
        "print([n for n in ('torch', 'sqlalchemy', 'cutlass', 'optuna') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
