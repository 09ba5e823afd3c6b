"""The Blackwell kernels execute no more per KV block than FlashAttention-4's own, as emulated."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from ptx_kernel import run_ptx

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
kinds = importlib.import_module("instruction_kinds")
sm100 = importlib.import_module("sm100_instructions")

CASES = {case.name: case for case in sm100.CASES}
PAIRS = (
    ("softmax", "block"),
    ("softmax", "rescaled"),
    ("softmax 0", "diagonal"),
    ("softmax 1", "diagonal"),
    ("correction", "block"),
    ("correction", "rescaled"),
    ("correction", "diagonal"),
)
AS_MANY = ("mufu", "tmem_load_kib", "tmem_store_kib")
AT_MOST = ("fma", "alu", "convert", "smem_load", "smem_store", "named_barrier", "mbarrier")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("d128 dense", {"block", "rescaled"}),
        ("d128 causal", {"block", "rescaled", "diagonal"}),
        ("d128 dense 2-CTA", {"block"}),
    ],
    ids=["dense", "causal", "2-CTA"],
)
def test_softmax_and_correction_execute_no_more(name: str, phases: set[str]) -> None:
    result = sm100.measure(CASES[name], sorted(phases))
    assert set(result.phases) == phases
    for role, phase in PAIRS:
        if phase in phases:
            no_more(result, role, phase)
    ours, theirs = result.of("block", "softmax", "all")
    assert ours <= theirs
    # An MMA takes 16 of the head dimensions for S, or 16 of the keys for PV, of one Q tile. In a
    # pair of CTAs one issues all, so it is half as many on average.
    case = CASES[name]
    mmas = 2 * (case.head_dim // 16 + sm100.KEYS // 16) / case.cta_group
    assert result.of("block", "mma", "mma") == (mmas, mmas)
    # A softmax warp reads 32 rows of S in float32.
    loaded = sm100.KEYS * 32 * 4 / 1024
    assert result.of("block", "softmax", "tmem_load_kib") == (loaded, loaded)


def no_more(result: sm100.Result, role: str, phase: str) -> None:
    where = f"{result.case.name}, {role}, {phase}"
    for quantity in AS_MANY:
        ours, theirs = result.of(phase, role, quantity)
        assert ours == theirs, f"{where}: {quantity}; another share of polynomials?"
    for quantity in AT_MOST:
        ours, theirs = result.of(phase, role, quantity)
        assert ours <= theirs, f"{where}: {quantity}"
    ours, theirs = result.of(phase, role, "kept")
    assert 0 < ours <= theirs, where


BODY = """
    .reg .pred p, q;
    .reg .b16 h;
    .reg .b32 a, b, c, d;
    .reg .b64 x, y;
    .reg .f32 f;
    mov.b32 a, 7;                       // alu: a constant
    mov.b32 b, a;                       // folded
    mov.b64 x, {a, b};                  // folded
    mov.b64 {c, d}, x;                  // folded
    mov.b32 {h, _}, a;                  // alu: 16 bits
    add.s32 c, a, 4;                    // alu: used by more than TMEM
    setp.ne.b32 p, c, 11;               // alu
    not.pred q, p;                      // folded
    @!q bra DONE;                       // other
    mov.b64 y, x;                       // folded
    add.rn.f32x2 y, x, y;               // fma, two-wide
    add.f32 f, 0f3F800000, 0f3F800000;  // fma
    ex2.approx.ftz.f32 f, f;            // mufu
    cvt.rn.bf16x2.f32 a, f, f;          // convert
    st.shared.b32 [smem], a;            // smem_store
    ld.shared.b32 a, [smem];            // smem_load
    bar.warp.sync -1;                   // other
    bar.sync 0;                         // named_barrier
DONE:
    ret;                                // other
"""


def counts(body: str, **launch: int) -> dict[str, float]:
    run = run_ptx(body, **launch)
    assert not run.findings
    (row,) = run.warp_counts @ kinds.weights(run.program)
    return {name: value for name, value in zip(kinds.QUANTITIES, row, strict=True) if value}


def test_every_instruction_is_counted_once_by_its_kind() -> None:
    said = [line.split("//")[1].split(":")[0].strip() for line in BODY.splitlines() if "//" in line]
    expected = {name: said.count(name) for name in set(said) - {"folded"}}
    expected["fma"] = expected.pop("fma, two-wide") + expected["fma"]
    expected |= {"fma_x2": 1, "all": len(said), "kept": len(said) - said.count("folded")}
    assert counts(BODY, smem=1024) == expected


TMEM = """
    .reg .b32 base, at, other, a, b;
    .reg .b32 r<4>;
    tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem], 32;
    ld.shared.b32 base, [smem];
    add.s32 at, base, 4;
    add.s32 other, base, 8;
    tcgen05.st.sync.aligned.32x32b.x4.b32 [base], {base, base, base, base};
    tcgen05.st.sync.aligned.32x32b.x1.b32 [at], {base};
    tcgen05.wait::st.sync.aligned;
    tcgen05.ld.sync.aligned.32x32b.x4.b32 {r0, r1, r2, r3}, [base];
    tcgen05.wait::ld.sync.aligned;
    st.shared.b32 [smem+4], other;
    tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;
    tcgen05.dealloc.cta_group::1.sync.aligned.b32 base, 32;
    ret;
"""


def test_bytes_of_tensor_memory_and_its_addresses() -> None:
    found = counts(TMEM, smem=1024)
    assert (found["tmem_load"], found["tmem_load_kib"]) == (1, 0.5)  # 4 columns, 32 lanes, 4 B
    assert (found["tmem_store"], found["tmem_store_kib"]) == (2, 0.625)
    assert found["alu"] == 1, "the address that shared memory gets stays, the other is an offset"
    assert found["kept"] == found["all"] - 1


def test_the_page_has_every_case_and_all_rows_are_as_wide_as_their_header() -> None:
    rng = np.random.default_rng(0)
    shape = (2, len(sm100.ROLES), len(kinds.QUANTITIES))

    def result(case: sm100.Case) -> sm100.Result:
        phases = ["block", "rescaled", "tile"] + ["diagonal"] * case.causal
        return sm100.Result(case, {phase: tuple(rng.random(shape)) for phase in phases})

    page = sm100.document([result(case) for case in CASES.values()])
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [rows[0].split("|")[1].strip() for rows in blocks[:-1]] == list(CASES)
    for rows in blocks:
        assert len({row.count("|") for row in rows}) == 1
    assert len(page.splitlines()) < 150
