"""Hopper kernels that share the keys of a tile: how O of a split leaves, and what combines them."""

from __future__ import annotations

import re

import pytest

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.session import run
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import compare, kernel_tensors, make_inputs, poisoned_outputs
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import load_arch
from fa4gen.ptx.host import CompiledHost
from fa4gen.space import space_for

ARCH = load_arch("sm90")


def problem_of(seqlen_q: int) -> AttentionProblem:
    return AttentionProblem(
        dtype=DType.BF16,
        batch=1,
        seqlen_q=seqlen_q,
        seqlen_k=128,
        num_heads_q=32,
        num_heads_kv=8,
        head_dim=128,
        head_dim_v=128,
        causal=False,
    )


def built(problem: AttentionProblem, regs_consumer: int = 232) -> tuple[CompiledHost, Workspace]:
    config = space_for("sm90").default(problem.signature)
    config = config.vary(
        {
            "tile_m": 64,
            "tile_n": 64,
            "num_kv_stages": 2,
            "pingpong": False,
            "regs_consumer": regs_consumer,
            "scheduler": Scheduler.PERSISTENT,
            "q_prefetch": False,
            "num_splits": 16,
        }
    )
    assert check(problem.signature, config, ARCH)
    artifact = compile_kernel(render(problem.signature, config, ARCH))
    return host_of_artifact(artifact, ARCH.target), Workspace.of(config)


def registers(entry: str) -> int:
    """That a CTA takes at launch: an even share for as many as shall fit an SM."""
    (ctas,) = re.findall(r"\.minnctapersm (\d+)", entry)
    return ARCH.regs_per_sm // int(ctas)


@pytest.mark.parametrize(("regs_consumer", "room"), [(232, True), (240, False)])
def test_a_cta_that_combines_fits_beside_a_tile_that_leaves_half_of_the_registers(
    regs_consumer: int, room: bool
) -> None:
    """They are launched early; where there is no tile, two of them fit and not a crowd."""
    tile, combine = (ptx_of(marker, regs_consumer) for marker in ("wgmma", "griddepcontrol.wait"))
    assert re.search(r"setmaxnreg\.inc\S+\s+240", combine), "what makes ptxas allot so many"
    assert registers(combine) == ARCH.regs_per_sm // 2
    assert (registers(tile) + registers(combine) <= ARCH.regs_per_sm) == room


@pytest.mark.parametrize(("head_dim", "tile_n"), [(192, 64), (208, 64), (64, 192), (64, 208)])
def test_splits_compile_however_wide_their_products_are(head_dim: int, tile_n: int) -> None:
    """ptxas counts the registers of a product against those at launch."""
    signature = KernelSignature(DType.BF16, head_dim, head_dim, False, 1)
    knobs = {"tile_m": 64, "tile_n": tile_n, "num_kv_stages": 1, "num_splits": 2}
    config = space_for("sm90").default(signature).vary(knobs | {"regs_consumer": 232})
    config = canonicalise(signature, config, ARCH, derive=False)
    assert check(signature, config, ARCH)
    resources = compile_kernel(render(signature, config, ARCH)).resources
    assert resources.spill_bytes == 0


def ptx_of(marker: str, regs_consumer: int = 232) -> str:
    """The one of the two kernels that has this instruction."""
    host, _ = built(problem_of(16), regs_consumer)
    (text,) = set(host.ptx.values())
    (kernel,) = (part for part in re.split(r"\.entry ", text)[1:] if marker in part)
    return kernel


def test_o_of_a_split_leaves_as_the_accumulator_has_it() -> None:
    """Nothing is left to do with it after the last product, and each store takes 16 bytes."""
    text = ptx_of("wgmma")
    body = text[text.index("wgmma") :]
    after = body[body.rindex("wgmma.wait_group") :]
    assert re.findall(r"st\.global\.\w+\.?\w*", body) == 2 * ["st.global.v2.b32"] + (
        2 * 128 // 16 * ["st.global.v4.b32"]
    )
    assert after.count("st.global.v4") == 2 * 128 // 16
    assert not re.search(r"\b(rcp|lg2|shfl|fma)\.|\bmul\.(ftz\.)?f32", after)


def test_a_split_without_a_key_weighs_nothing_however_low_the_others_lie() -> None:
    """Its offset is not 0, against which exp2 of theirs would be nothing."""
    problem = problem_of(4)
    host, workspace = built(problem)
    q, k, v = make_inputs(problem, Distribution.NORMAL, seed=3)
    q, k = abs(q) * q.dtype.type(4), -abs(k) * k.dtype.type(4)
    outputs = poisoned_outputs(problem)
    scale = problem.head_dim**-0.5
    run(host, *kernel_tensors((q, k, v), outputs, workspace=workspace), scale, 132)
    assert max(map(float, outputs[1].ravel())) < -50.0
    assert all(found.ok for found in compare(problem, (q, k, v), outputs, scale, 0.0))


def test_every_load_of_the_combination_is_under_way_before_one_is_waited_for() -> None:
    """And each has a predicate, since the first pass only fetches the code."""
    text = ptx_of("griddepcontrol.wait")
    lines = [line.strip() for line in text.splitlines()]
    loads = [i for i, line in enumerate(lines) if "ld.global" in line]
    barriers = [i for i, line in enumerate(lines) if re.match(r"bar(rier)?(\.cta)?\.sync", line)]
    assert len(loads) == 16 + 16 // 4
    assert all(lines[i].startswith("@") or "@wanted" in lines[i] for i in loads)
    (barrier,) = barriers
    assert max(loads) < barrier
    assert not any("shared" in line for line in lines), "nothing goes through shared memory"
