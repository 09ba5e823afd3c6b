"""fa4gen's e4m3 forward beside its own bf16 one and cuDNN's fp8, in one process.

    python benchmarks/fp8.py --out fp8.csv [--head-dim 128] [--set tile_n=192 ...]

Every e4m3 kernel is first checked against float64 on fresh random inputs with random descales.
Then the kernels of a cell are timed in interleaved rounds on rotating inputs, as CUDA graphs,
under sustained load; a ratio is taken inside a round. e4m3 and bf16 are the kernels that the table
picks. cuDNN takes part where its module can be imported and has an fp8 plan for the problem, with
one descale a tensor; otherwise the reason is printed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from cudnn_fp8 import CudnnMissing, plan

from fa4gen.cli.kernels import by_hand
from fa4gen.codegen import render
from fa4gen.compile import CompilePool, compile_kernel, launchable, load
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution, check_cases
from fa4gen.evaluate.gpu_bench import Bench, interleave
from fa4gen.evaluate.gpu_check import Inputs, Output, make_inputs, run_case, softmax_scale
from fa4gen.evaluate.gpu_device import CudaDevice, bench_on
from fa4gen.evaluate.gpu_worker import input_bytes
from fa4gen.evaluate.timing import TimingPlan, buffers_past_l2, summarise
from fa4gen.hardware import Sku, sku_for_gpu
from fa4gen.numerics import exp2_error
from fa4gen.runtime import explain
from fa4gen.space import space_for

PLAN = TimingPlan(min_rounds=20, max_rounds=60, budget_s=0.12, hopeless_below=None)
TOKENS, HIDDEN = 16384, 2048
"""Queries of a cell in all, and heads times head_dim: the grid of the FlashAttention papers."""
SEQLENS = (2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class Entry:
    """A kernel of ours in a cell."""

    label: str
    problem: AttentionProblem
    config: KernelConfig


@dataclass(frozen=True)
class Runner:
    """What is timed."""

    label: str
    launch: Callable[[int], None]
    config: str


def grid(head_dims: list[int], seqlens: list[int]) -> Iterator[AttentionProblem]:
    """e4m3 problems: dense and causal."""
    for head_dim in head_dims:
        for causal in (False, True):
            for seqlen in seqlens:
                yield AttentionProblem.from_dict(
                    {
                        "batch": TOKENS // seqlen,
                        "seqlen_q": seqlen,
                        "num_heads_q": HIDDEN // head_dim,
                        "head_dim": head_dim,
                        "dtype": "e4m3",
                        "causal": causal,
                    }
                )


def entries(problem: AttentionProblem, sku: Sku, words: list[str]) -> list[Entry]:
    """Our kernels of a cell: e4m3's and bf16's best of the table, e4m3's default, one by hand."""
    wide = replace(problem, dtype=DType.BF16)
    narrow, best = (
        space_for(sku.arch.name).default(problem.signature),
        explain(problem, sku).selection.config,
    )
    found = [
        Entry("e4m3", problem, best),
        Entry("bf16", wide, explain(wide, sku).selection.config),
    ]
    if best != narrow:
        found.append(Entry("e4m3 default", problem, narrow))
    if words:
        found.append(Entry("e4m3 by hand", problem, by_hand(narrow, words, problem, sku)))
    return found


def kernel_of(entry: Entry, sku: Sku, num_sms: int) -> Callable[..., None]:
    """A compiled kernel as the checks call it."""
    signature = entry.problem.signature
    loaded = load(compile_kernel(render(signature, entry.config, sku.arch)))
    function = launchable(loaded, entry.config, signature.dtype)

    def kernel(*arguments: Any) -> None:
        function(*arguments, num_sms)

    return kernel


def wrong(entry: Entry, kernel: Callable[..., None], device: CudaDevice) -> str:
    """Empty where the kernel is right on small shapes and its own, else what is wrong."""
    config = entry.config
    error = exp2_error(config)
    for number, case in enumerate(check_cases(entry.problem, config, seed=1)):
        inputs = make_inputs(case.problem, case.distribution, number, device.name, config.tile_n)
        found = run_case(kernel, case, inputs=inputs, launch=device.launch, exp2_error=error)
        if found.message:
            return f"{found.message}: {found.error:.3g}, allowed {found.allowed:.3g}"
    return ""


def runners(
    cell: list[Entry], kernels: list[Callable[..., None]], device: CudaDevice
) -> tuple[list[Runner], int]:
    """Launches on rotating inputs, and how many sets of them there are."""
    size = min(input_bytes(entry.problem) for entry in cell)
    buffers = buffers_past_l2(size, device.identity.l2_bytes, most=16)
    sets: dict[DType, list[tuple[Inputs, Output]]] = {}
    for entry in cell:
        problem = entry.problem
        if problem.dtype not in sets:
            sets[problem.dtype] = [
                (
                    make_inputs(problem, Distribution.NORMAL, i, device.name),
                    Output(problem, device.name),
                )
                for i in range(buffers)
            ]
    scale = softmax_scale(cell[0].problem)

    def ours(entry: Entry, kernel: Callable[..., None]) -> Runner:
        rotating = sets[entry.problem.dtype]

        def launch(index: int) -> None:
            inputs, output = rotating[index % buffers]
            inputs.launch(kernel, output, scale)

        return Runner(entry.label, launch, entry.config.config_id)

    found = [ours(entry, kernel) for entry, kernel in zip(cell, kernels, strict=True)]
    narrow = sets[DType.E4M3]
    try:
        peer = plan(cell[0].problem, narrow[0][0], narrow[0][1].out)
        peer(narrow[0][0], narrow[0][1].out)
        torch.cuda.synchronize()
    except (CudnnMissing, RuntimeError) as error:
        print(f"  cuDNN's fp8 left out: {str(error).splitlines()[0]}", file=sys.stderr)
    else:

        def launch(index: int) -> None:
            inputs, output = narrow[index % buffers]
            peer(inputs, output.out)

        found.append(Runner("cudnn fp8", launch, ""))
    return found, buffers


def rows_of(cell: list[Entry], sku: Sku, bench: Bench, device: CudaDevice) -> list[dict[str, Any]]:
    """Check and time one cell; a row for each kernel."""
    kernels = [kernel_of(entry, sku, device.identity.sm_count) for entry in cell]
    errors = {
        entry.label: wrong(entry, kernel, device)
        for entry, kernel in zip(cell, kernels, strict=True)
        if entry.problem.dtype is DType.E4M3
    }
    timed, buffers = runners(cell, kernels, device)
    samples = interleave([each.launch for each in timed], PLAN, bench, buffers=buffers)
    problem, rows = cell[0].problem, []
    for each, times in zip(timed, samples.times_us, strict=True):
        speed = summarise(times, samples.times_us[0])  # of the first over this one
        own = summarise(samples.times_us[0], times)
        rows.append(
            {
                **problem.to_dict(),
                "kernel": each.label,
                "time_us": round(own.median_us, 2),
                "tflops": round(problem.tflops(own.median_us), 1),
                "e4m3_over_it": round(speed.gain, 4),
                "low": round(speed.gain_low, 4),
                "high": round(speed.gain_high, 4),
                "rounds": own.n,
                "sm_clock_mhz": samples.conditions.sm_clock_mhz,
                "power_w": samples.conditions.power_w,
                "config": each.config,
                "error": errors.get(each.label, ""),
            }
        )
    return rows


def main() -> int:
    """Run the cells, write the CSV; 1 if any kernel was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--head-dim", type=int, action="append", choices=(64, 128, 256))
    parser.add_argument("--seqlen", type=int, action="append")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="words")
    options = parser.parse_args()
    device = CudaDevice(0)
    bench = bench_on(device)
    identity = device.identity
    sku = sku_for_gpu(identity.gpu_name, identity.sm_count)
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{identity.gpu_name}, torch {torch.__version__}, {stamp}")
    problems = grid(options.head_dim or [64, 128, 256], options.seqlen or list(SEQLENS))
    cells = [entries(problem, sku, options.words) for problem in problems]
    with CompilePool() as pool:  # side by side; found on disk afterwards
        kernels = {(e.problem.signature, e.config) for cell in cells for e in cell}
        for build in [pool.submit(render(*each, sku.arch)) for each in kernels]:
            build.result()
    faults = 0
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for cell in cells:
            rows = rows_of(cell, sku, bench, device)
            for row in rows:
                line = {**row, "gpu": identity.gpu_name, "date": stamp}
                if writer is None:
                    writer = csv.DictWriter(file, list(line))
                    writer.writeheader()
                writer.writerow(line)
                faults += bool(row["error"])
            file.flush()
            text = "  ".join(
                f"{row['kernel']} {row['tflops']} ({row['e4m3_over_it']})" for row in rows
            )
            worst = next((row["error"] for row in rows if row["error"]), "right")
            print(f"{cell[0].problem!s:34} {text}  {worst}", flush=True)
    print(f"{faults} wrong kernels")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
