"""What the order of causal tiles is worth on a GPU, to flash-attn-4's kernel and to ours.

    python benchmarks/tile_order.py [--policy graph-cold-burst] [--seqlens 2048 4096 8192 16384]

The FlashAttention-4 paper (section 3.3) gains 4 to 8 % on an H200, and 7 to 14 % with 8 query heads
to a KV head, by starting the longest tiles first. Here each kernel, with 32768 tokens of 16 heads,
is beside itself with head after head, each from the shortest tile to the longest, in interleaved
rounds. flash-attn-4's gets that order from its own scheduler for dense problems.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from ablations import ABLATIONS

from fa4gen.cli.problem_text import parse_problem
from fa4gen.codegen import render
from fa4gen.compile import CompilePool, launchable, load
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.gpu_bench import interleave
from fa4gen.evaluate.gpu_check import Inputs, Output, make_inputs, softmax_scale
from fa4gen.evaluate.gpu_device import CudaDevice, bench_on
from fa4gen.evaluate.gpu_worker import input_bytes
from fa4gen.evaluate.timing import TimingPlan, buffers_past_l2, summarise
from fa4gen.hardware import Sku, sku_for_gpu
from fa4gen.space import space_for

TOKENS, HEADS, KV_HEADS, SEQLENS = 32768, 16, (16, 2), (2048, 4096, 8192, 16384)
PLAN = TimingPlan(min_rounds=20, max_rounds=60, budget_s=0.3, hopeless_below=None)
Launch = Callable[[Inputs], object]


def ours(problem: AttentionProblem, sku: Sku, output: Output) -> Iterator[Launch]:
    """fa4gen's default kernel with one CTA to a tile: longest first, then shortest first."""
    config = space_for(sku.arch.name).default(problem.signature).vary({"scheduler": "lpt"})
    generated = render(problem.signature, config, sku.arch)
    (ablation,) = (each for each in ABLATIONS if each.name == "longest-first")
    changed = replace(
        generated,
        source=ablation.apply(generated.source),
        module_name=f"{generated.module_name}_shortest_first",
    )
    with CompilePool() as pool:
        builds = [pool.submit(each) for each in (generated, changed)]
        functions = [launchable(load(each.result()), config, problem.dtype) for each in builds]
    scale = softmax_scale(problem)
    for function in functions:

        def launch(inputs: Inputs, function: Any = function) -> None:
            inputs.launch(lambda *given: function(*given, sku.sm_count), output, scale)

        yield launch


def theirs(problem: AttentionProblem) -> Iterator[Launch]:
    """flash-attn-4's kernel: longest first, then shortest first."""
    from flash_attn.cute import flash_fwd_sm90 as module
    from flash_attn.cute import interface

    forward = interface._flash_attn_fwd  # which keeps what it has compiled, by arguments alone
    longest_first = module.SingleTileLPTScheduler
    for scheduler in (longest_first, module.SingleTileScheduler):
        compiled = type(forward.compile_cache)()

        def launch(inputs: Inputs, scheduler: Any = scheduler, compiled: Any = compiled) -> None:
            forward.compile_cache = compiled
            module.SingleTileLPTScheduler = scheduler
            interface.flash_attn_func(*inputs[:3], causal=problem.causal)
            module.SingleTileLPTScheduler = longest_first

        yield launch


def timed(problem: AttentionProblem, device: CudaDevice, policy: MeasurementPolicy) -> None:
    """Time the four kernels of one problem and print a line for each pair."""
    sku = sku_for_gpu(device.identity.gpu_name, device.identity.sm_count)
    buffers = buffers_past_l2(input_bytes(problem), device.identity.l2_bytes, most=16)
    sets = [make_inputs(problem, Distribution.NORMAL, i, device.name) for i in range(buffers)]
    kernels = [*theirs(problem), *ours(problem, sku, Output(problem, device.name))]
    for kernel in kernels:
        kernel(sets[0])  # compiles
    launches = [(lambda i, run=run: run(sets[i % buffers])) for run in kernels]
    samples = interleave(launches, PLAN, bench_on(device, policy), buffers=buffers)
    for name, first in (("flash-attn-4", 0), ("fa4gen", 2)):
        longest, shortest = samples.times_us[first : first + 2]
        timing = summarise(shortest, longest)
        print(
            f"{problem!s:36} {name:13} {timing.median_us:8.1f} us  x {timing.gain:.3f} "
            f"[{timing.gain_low:.3f}, {timing.gain_high:.3f}]  "
            f"{samples.conditions.sm_clock_mhz} MHz",
            flush=True,
        )


def main() -> int:
    """Every length, with a KV head to each query head and to eight."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", default=str(MeasurementPolicy()), help="%(default)s")
    parser.add_argument("--seqlens", nargs="+", type=int, default=SEQLENS)
    options = parser.parse_args()
    policy, device = MeasurementPolicy.parse(options.policy), CudaDevice(0)
    print(f"{device.identity.gpu_name}, torch {torch.__version__}, {policy}")
    for heads in KV_HEADS:
        for seqlen in options.seqlens:
            words = [f"b{TOKENS // seqlen}", f"s{seqlen}", f"h{HEADS}/{heads}", "d128", "causal"]
            timed(parse_problem(words), device, policy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
