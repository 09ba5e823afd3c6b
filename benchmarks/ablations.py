"""What each part of the Hopper kernel costs: the kernel beside itself with that part taken away.

    python benchmarks/ablations.py "b4 s4096 h32 d64" "b1 s1x8192 h32/8 d128" [--set tile_n=64 ...]

Most variants are wrong on purpose, and say so: they are what the part costs at most, not kernels to
use. All of a problem are timed in interleaved rounds on rotating inputs, as CUDA graphs, under
sustained load; a ratio is taken inside a round. The kernel is the default with the knobs that are
set by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from fa4gen.cli.kernels import by_hand
from fa4gen.cli.problem_text import parse_problem
from fa4gen.codegen import GeneratedKernel, render
from fa4gen.compile import CompilePool, launchable, load
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.gpu_bench import interleave
from fa4gen.evaluate.gpu_check import Output, make_inputs, softmax_scale
from fa4gen.evaluate.gpu_device import CudaDevice, bench_on
from fa4gen.evaluate.gpu_worker import input_bytes
from fa4gen.evaluate.timing import TimingPlan, buffers_past_l2, summarise
from fa4gen.hardware import Sku, sku_for_gpu
from fa4gen.space import space_for

PLAN = TimingPlan(min_rounds=20, max_rounds=60, budget_s=0.2, hopeless_below=None)


@dataclass(frozen=True)
class Ablation:
    """A change to the text of a kernel."""

    name: str
    what: str
    right: bool
    """Whether the results stay right."""
    changes: tuple[tuple[str, str], ...]
    """(passage, what stands there instead)."""
    knob: str = ""
    """Kernels without this knob set have nothing to change."""
    causal: bool = False
    """Whether kernels without a mask have nothing to change."""

    def apply(self, source: str) -> str:
        """The changed text.

        Raises:
            ValueError: the kernel has no such passage; the ablation is older than the template.
        """
        for old, new in self.changes:
            if old not in source:
                raise ValueError(f"ablation {self.name}: got a kernel without {old.strip()!r}")
            source = source.replace(old, new)
        return source


ABLATIONS = (
    Ablation(
        "no-exponentials",
        "P is the exponent itself",
        right=False,
        changes=(
            (
                "S[x, r, j] = cute.math.exp2(exponent, fastmath=True)",
                "S[x, r, j] = exponent",
            ),
        ),
    ),
    Ablation(
        "no-maxima",
        "no row is ever looked at again after its first block",
        right=False,
        changes=(
            (
                "integer_peak(S, 0) > t.limit[0] or integer_peak(S, 1) > t.limit[1]",
                "t.limit[0] > 1e30",
            ),
        ),
        knob="lazy_row_max",
    ),
    Ablation(
        "late-wait",
        "PV is waited for when all exponentials are done: a vote on the sums holds the wait back",
        right=True,
        changes=(
            (
                "        t.row_sum[r] = sums[0] + sums[1]\n",
                "        t.row_sum[r] = sums[0] + sums[1]\n"
                "    cute.arch.inline_ptx(\n"
                '        "{ .reg .pred p; .reg .f32 m; min.f32 m, {$r0}, {$r1}; "\n'
                '        "setp.lt.f32 p, m, 0f00000000; vote.sync.any.pred p, p, -1; "\n'
                '        "@p bar.warp.sync -1; }",\n'
                "        read_only_args=[t.row_sum[0], t.row_sum[1]],\n"
                "    )\n",
            ),
        ),
    ),
    Ablation(
        "no-combine",
        "the splits are left as they are",
        right=False,
        changes=(
            ("    combine(mO_splits, mRows_splits, mO, mLSE, divisors).launch(", "    dict("),
        ),
        knob="num_splits",
    ),
    Ablation(
        "keep-in-l2",
        "K and V are never marked to leave the L2 first",
        right=True,
        changes=(("Int64(EVICT_FIRST) if num_readers == 1 else ", ""),),
    ),
    Ablation(
        "longest-first",
        "tiles head by head, the shortest first, as FlashAttention-4's paper compares",
        right=True,
        changes=(
            ("LONGEST_FIRST = CAUSAL and TILES_PER_PLACE == 1", "LONGEST_FIRST = False"),
            ("            m_block = longest\n", "            pass\n"),
        ),
        causal=True,
    ),
)


def variants(
    generated: GeneratedKernel, config: KernelConfig
) -> Iterator[tuple[str, GeneratedKernel]]:
    """The kernel itself, then what can be taken from it, with a name each."""
    yield "whole", generated
    plain = KernelConfig()
    for number, ablation in enumerate(ABLATIONS):
        if ablation.knob and getattr(config, ablation.knob) == getattr(plain, ablation.knob):
            continue
        if ablation.causal and not generated.signature.causal:
            continue
        changed = ablation.apply(generated.source)
        name = f"{generated.module_name}_without_{number}"
        yield ablation.name, replace(generated, source=changed, module_name=name)


def timed(problem: AttentionProblem, config: KernelConfig, sku: Sku, device: CudaDevice) -> None:
    """Compile and time the variants of one problem, and print a line for each."""
    generated = render(problem.signature, config, sku.arch)
    names, kernels = zip(*variants(generated, config), strict=True)
    with CompilePool() as pool:
        builds = [pool.submit(kernel) for kernel in kernels]
        functions = [launchable(load(build.result()), config, problem.dtype) for build in builds]
    buffers = buffers_past_l2(input_bytes(problem), device.identity.l2_bytes, most=16)
    sets = [make_inputs(problem, Distribution.NORMAL, i, device.name) for i in range(buffers)]
    output, scale = Output(problem, device.name), softmax_scale(problem)

    def launch(index: int, function: Any) -> None:
        def kernel(*arguments: Any) -> None:
            function(*arguments, sku.sm_count)

        sets[index % buffers].launch(kernel, output, scale)

    launches = [(lambda i, function=function: launch(i, function)) for function in functions]
    samples = interleave(launches, PLAN, bench_on(device), buffers=buffers)
    print(f"{problem}, {config.tile_m}x{config.tile_n}")
    wrong = {ablation.name for ablation in ABLATIONS if not ablation.right}
    for name, times in zip(names, samples.times_us, strict=True):
        timing = summarise(samples.times_us[0], times)
        note = " (wrong on purpose)" if name in wrong else ""
        print(f"  {name:16} {timing.median_us:9.1f} us  x {timing.gain:.3f}{note}", flush=True)


def main() -> int:
    """Every problem in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="+", help="such as 'b4 s4096 h32 d64'")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="words")
    options = parser.parse_args()
    device = CudaDevice(0)
    sku = sku_for_gpu(device.identity.gpu_name, device.identity.sm_count)
    print(f"{device.identity.gpu_name}, torch {torch.__version__}")
    for text in options.problems:
        problem = parse_problem(text.split())
        config = space_for(sku.arch.name).default(problem.signature)
        if options.words:
            config = by_hand(config, options.words, problem, sku)
        timed(problem, config, sku, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
