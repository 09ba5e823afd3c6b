"""The Blackwell forward kernel in the emulator: its numbers, its barriers, its resources.

Pairs of a configuration and a problem, chosen so that every value of every knob comes up at least
twice (``make_sm100_matrix.py``) and every kind of problem with every scheduler.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fa4gen.codegen import render
from fa4gen.compile import Artifact, compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.emulator import run
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import (
    Trial,
    compare,
    emulate_attention,
    make_inputs,
    poisoned_outputs,
)
from fa4gen.feasibility import canonicalise, check, rows_per_cta, smem_bytes
from fa4gen.feasibility.sm100_footprint import tmem_columns_allocated
from fa4gen.hardware import load_arch
from fa4gen.numerics import exp2_error
from fa4gen.space import space_for

MATRIX = Path(__file__).with_name("sm100_matrix.toml")
POLICIES = ("eager", "lazy", "seed:1")
LSE_ERROR = 1e-3
PROBLEMS_PER_KERNEL = 2
LEAST_PAIRS = 60
EXTENDED_KERNELS = 90


@dataclass(frozen=True)
class Kernel:
    """One row of the matrix."""

    arch_name: str
    signature: KernelSignature
    config: KernelConfig

    @property
    def rows(self) -> int:
        """Query rows of a tile, packed or not."""
        arch = load_arch(self.arch_name)
        rows = rows_per_cta(self.config, arch) * self.config.cta_group
        group = self.signature.qhead_per_kvhead
        return max(1, rows // (group if self.config.pack_gqa else 1))

    def problem(
        self, seqlen_q: int, seqlen_k: int, batch: int = 1, heads: int = 1
    ) -> AttentionProblem:
        group = self.signature.qhead_per_kvhead
        return AttentionProblem(
            batch=batch,
            seqlen_q=seqlen_q,
            seqlen_k=seqlen_k,
            num_heads_q=heads * group,
            num_heads_kv=heads,
            head_dim=self.signature.head_dim,
            head_dim_v=self.signature.head_dim_v,
            dtype=self.signature.dtype,
            causal=self.signature.causal,
        )


def read_matrix() -> list[Kernel]:
    entries = tomllib.loads(MATRIX.read_text())["kernel"]
    return [
        Kernel(
            entry["arch"],
            KernelSignature(**{**entry["signature"], "dtype": DType(entry["signature"]["dtype"])}),
            KernelConfig.from_dict(entry["config"]),
        )
        for entry in entries
    ]


KINDS: dict[str, Callable[[Kernel], Trial]] = {
    # Neither length a multiple of anything, a second tile that is almost empty.
    "ragged": lambda k: Trial(k.problem(k.rows + 37, 2 * k.config.tile_n + 29)),
    # Maxima that grow block after block, past every threshold, and fall in other rows.
    "growing": lambda k: Trial(
        k.problem(max(1, k.rows // 2), 4 * k.config.tile_n), Distribution.GROWING, seed=2
    ),
    # Maxima that jump up at random keys.
    "large": lambda k: Trial(k.problem(97, 3 * k.config.tile_n + 5), Distribution.LARGE, seed=3),
    # One row, not even one block of keys.
    "short": lambda k: Trial(k.problem(1, k.config.tile_n // 2 + 3), seed=4),
    # Fewer queries than keys: a causal diagonal starts inside a block.
    "more_keys": lambda k: Trial(k.problem(75, 75 + 2 * k.config.tile_n + 29), seed=5),
    # More queries than keys: under a causal mask whole rows see nothing.
    "more_queries": lambda k: Trial(k.problem(k.rows // 2 + 90, 61), seed=6),
    # Several tiles for a persistent CTA, several heads and batches.
    "several": lambda k: Trial(k.problem(50, 90, batch=3, heads=2), seed=7),
}


def trials_of(index: int, kernel: Kernel) -> list[tuple[str, Trial]]:
    """Problems for the kernel of this position; persistent ones always get several tiles."""
    kinds = list(KINDS)
    picked = [kinds[(2 * index + i) % len(kinds)] for i in range(PROBLEMS_PER_KERNEL)]
    return [(kind, KINDS[kind](kernel)) for kind in picked]


@cache
def compiled(kernel: Kernel) -> Artifact:
    arch = load_arch(kernel.arch_name)
    assert check(kernel.signature, kernel.config, arch)
    return compile_kernel(render(kernel.signature, kernel.config, arch))


def prove(kernel: Kernel, trials: list[tuple[str, Trial]]) -> None:
    arch, config = load_arch(kernel.arch_name), kernel.config
    host = host_of_artifact(compiled(kernel), arch.target)
    error = exp2_error(config)
    for index, (kind, trial) in enumerate(trials):
        # Every order of completion for the first problem, a random one for the others.
        policies = POLICIES if index == 0 else POLICIES[-1:]
        report = emulate_attention(host, trial, policies=policies, exp2_error=error)
        findings = "\n".join(map(str, report.report.findings))
        assert not findings, f"{kind}: {trial.problem}\n{findings}"
        out, lse = report.accuracies
        assert out.ok, f"{kind}: {trial.problem}: {out}"
        assert lse.ok, f"{kind}: {trial.problem}: {lse}"
        assert lse.max_error <= LSE_ERROR + error, f"{kind}: {trial.problem}: {lse}"


def check_resources(kernel: Kernel) -> None:
    """What ptxas and the PTX say, against what feasibility foretold."""
    arch, config, artifact = load_arch(kernel.arch_name), kernel.config, compiled(kernel)
    resources, ptx = artifact.resources, artifact.ptx()
    assert resources.smem_bytes == smem_bytes(kernel.signature, config, arch)
    asked = {
        int(count) for count in re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", ptx)
    }
    assert asked == {config.regs_softmax, config.regs_correction, config.regs_other}
    (columns,) = set(re.findall(r"tcgen05\.alloc\.[\w.:]+\s+\[\S+\], ([\w%]+);", ptx))
    if columns.startswith("%"):
        (columns,) = re.findall(rf"mov\.\w+ \t?{columns}, (\d+);", ptx)
    assert int(columns) == tmem_columns_allocated(kernel.signature, config)


KERNELS = read_matrix()


def name_of(kernel: Kernel) -> str:
    s = kernel.signature
    mask = "causal" if s.causal else "dense"
    return f"{kernel.arch_name}-d{s.head_dim}-{mask}-{kernel.config.config_id[:6]}"


def test_the_matrix_has_every_value_of_every_knob_twice() -> None:
    knobs = space_for("sm103").knobs  # all of the family
    seen = Counter(
        (knob.name, getattr(kernel.config, knob.name)) for kernel in KERNELS for knob in knobs
    )
    missing = {
        (knob.name, value) for knob in knobs for value in knob.values if seen[knob.name, value] < 2
    }
    assert not missing
    assert len(KERNELS) * PROBLEMS_PER_KERNEL >= LEAST_PAIRS
    pairs = [trials_of(i, kernel) for i, kernel in enumerate(KERNELS)]
    assert {kind for trials in pairs for kind, _ in trials} == set(KINDS)
    assert {kernel.config.cta_group for kernel in KERNELS} == {1, 2}
    # The search leaves degree 1 to studies.
    polynomials = [kernel.config for kernel in KERNELS if kernel.config.exp2_poly_fraction]
    degrees = Counter(config.exp2_poly_degree for config in polynomials)
    assert {degree for degree in range(1, 6) if degrees[degree] >= 2} == {1, 2, 3, 4, 5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "kernel"), list(enumerate(KERNELS)), ids=[name_of(kernel) for kernel in KERNELS]
)
def test_kernel_is_right(index: int, kernel: Kernel) -> None:
    prove(kernel, trials_of(index, kernel))
    check_resources(kernel)


@pytest.mark.slow
def test_heads_of_a_large_group_that_is_not_packed_find_their_keys() -> None:
    """The kernels above have two heads to an unpacked group."""
    signature = KernelSignature(DType.BF16, 64, 64, False, 4)
    config = space_for("sm100").default(signature).vary({"pack_gqa": False, "num_q_stages": 1})
    kernel = Kernel("sm100", signature, config)
    prove(kernel, [("heads", Trial(kernel.problem(1, 40, heads=2), seed=9))])


DEFAULTS = [
    Kernel(arch_name, signature, space_for(arch_name).default(signature))
    for arch_name in ("sm100", "sm103")
    for signature in (
        KernelSignature(DType.BF16, 64, 64, True, 1),
        KernelSignature(DType.BF16, 96, 96, False, 1),
        KernelSignature(DType.BF16, 128, 128, False, 1),
        KernelSignature(DType.BF16, 128, 128, True, 4),
        KernelSignature(DType.FP16, 192, 128, True, 1),
        KernelSignature(DType.BF16, 192, 128, False, 1),
        KernelSignature(DType.BF16, 256, 256, True, 1),
        KernelSignature(DType.BF16, 128, 80, False, 1),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", DEFAULTS, ids=[name_of(kernel) for kernel in DEFAULTS])
def test_defaults_spill_nothing(kernel: Kernel) -> None:
    assert compiled(kernel).resources.spill_bytes == 0
    check_resources(kernel)


def test_slots_of_no_whole_kibibyte_are_counted_as_they_are() -> None:
    """head_dim 80 in two CTAs: 48 rows of 160 bytes for K in each, one slot behind the other."""
    signature = KernelSignature(DType.FP16, 80, 64, False, 1)
    config = space_for("sm100").default(signature)
    config = config.vary({"tile_n": 96, "num_kv_stages": 3, "num_q_stages": 1, "cta_group": 2})
    check_resources(Kernel("sm100", signature, canonicalise(signature, config, load_arch("sm100"))))


@pytest.mark.extended
@pytest.mark.parametrize("seed", range(EXTENDED_KERNELS))
def test_random_kernels_are_right(seed: int) -> None:
    rng = random.Random(seed)
    base = rng.choice(KERNELS)
    arch_name = rng.choice(("sm100", "sm103"))
    config = space_for(arch_name).sample(rng, base.signature, load_arch(arch_name))
    kernel = replace(base, arch_name=arch_name, config=config)
    prove(kernel, [(kind, make(kernel)) for kind, make in KINDS.items()])
    check_resources(kernel)


@pytest.mark.slow
def test_strided_views_and_any_scale() -> None:
    """K and V side by side in one tensor, Q with a gap after each head, another softmax scale."""
    signature = KernelSignature(DType.BF16, 64, 64, True, 2)
    kernel = Kernel("sm100", signature, space_for("sm100").default(signature))
    problem = kernel.problem(150, 190, batch=2, heads=2)
    q, k, v = make_inputs(problem, Distribution.NORMAL, 8)
    wide_q = np.full((*q.shape[:3], 96), np.nan, q.dtype)
    both = np.empty((*k.shape[:2], 2, *k.shape[2:]), k.dtype)
    wide_q[..., :64], both[:, :, 0], both[:, :, 1] = q, k, v
    out, lse = poisoned_outputs(problem)
    views = (wide_q[..., :64], both[:, :, 0], both[:, :, 1], out, lse)
    host = host_of_artifact(compiled(kernel), load_arch("sm100").target)
    report = run(host, *views, 0.3, 2, policies=POLICIES)
    assert report.ok, "\n".join(map(str, report.findings))
    error = exp2_error(kernel.config)
    for accuracy in compare(problem, (q, k, v), (out, lse), 0.3, error):
        assert accuracy.ok, accuracy
