"""fa4gen's tuned kernels beside flash-attn-4, cuDNN and FlashAttention-2, in one process.

    python benchmarks/peers.py --out peers.csv [--group GROUP] [--workload FILE] [--triton]
    python benchmarks/plot_peers.py peers.csv peers.png

In each cell all kernels are timed in interleaved rounds on the same rotating inputs, as CUDA
graphs, under sustained load; a ratio is taken inside a round. Before that the fa4gen kernel is
checked against float64 on fresh random inputs, with poisoned outputs. Two more take part that are
no peers: fa4gen's default kernel, where the table picks another (what tuning is worth), and in
decode a copy that moves as many bytes as K and V have, on the same rotating inputs (what the memory
gives in so short a time). With --triton torch's compiled FlexAttention takes part, which takes some
seconds to compile for each cell.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from flex_peer import flex
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fa4gen.codegen import render
from fa4gen.compile import CompilePool, compile_kernel, launchable, load
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution, own_case
from fa4gen.evaluate.gpu_bench import Bench, Samples, interleave
from fa4gen.evaluate.gpu_check import Inputs, make_inputs, run_case
from fa4gen.evaluate.gpu_device import CudaDevice, bench_on
from fa4gen.evaluate.timing import TimingPlan, buffers_past_l2, summarise
from fa4gen.hardware import Sku, sku_for_gpu
from fa4gen.numerics import exp2_error
from fa4gen.runtime import explain
from fa4gen.runtime.api import flash_attn_func
from fa4gen.runtime.ops import engine
from fa4gen.space import space_for
from fa4gen.tune import load_workload

Attention = Callable[[Any, Any, Any], Any]
"""``attention(q, k, v)`` on ``(batch, seqlen, heads, head_dim)`` tensors."""

OURS, DEFAULT, COPY = "fa4gen", "fa4gen-default", "copy"
NO_PEERS = frozenset({OURS, DEFAULT, COPY})
PLAN = TimingPlan(min_rounds=20, max_rounds=60, budget_s=0.12, hopeless_below=None)


@dataclass(frozen=True)
class Row:
    """One kernel in one cell."""

    group: str
    problem: AttentionProblem
    kernel: str
    time_us: float
    spread_us: float
    tflops: float
    kv_gbps: float
    ratio_to_fa4gen: float
    ratio_low: float
    ratio_high: float
    rounds: int
    sm_clock_mhz: int | None
    power_w: float | None
    throttle: str
    error: str
    config: str


def group_of(problem: AttentionProblem) -> str:
    """Which mean a cell counts in."""
    if problem.seqlen_q < problem.seqlen_k:
        return "decode"
    if problem.qhead_per_kvhead > 1:
        return "gqa"
    if problem.head_dim != problem.head_dim_v:
        return "latent"
    return "ragged" if problem.seqlen_q % 64 else "grid"


def sdpa(backend: SDPBackend, causal: bool) -> Attention:
    """torch's scaled_dot_product_attention through one backend."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                is_causal=causal, enable_gqa=q.shape[2] != k.shape[2],
            )  # fmt: skip

    return attention


def default_kernel(problem: AttentionProblem, sku: Sku) -> Attention:
    """The kernel that no tuning has chosen."""
    config = space_for(sku.arch.name).default(problem.signature)
    built = compile_kernel(render(problem.signature, config, sku.arch))
    function = launchable(load(built), config, problem.dtype)

    def attention(q: Any, k: Any, v: Any) -> None:
        out = q.new_empty(*q.shape[:3], v.shape[3])
        lse = q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
        function(q, k, v, out, lse, q.shape[3] ** -0.5, sku.sm_count)

    return attention


def copy_of(sets: list[Inputs]) -> Attention:
    """A copy that reads V and writes as much: what K and V have, and past the L2."""
    targets = {each.v.data_ptr(): torch.empty_like(each.v) for each in sets}
    return lambda q, k, v: targets[v.data_ptr()].copy_(v)


def kv_bytes(problem: AttentionProblem) -> int:
    """Bytes of K and V."""
    columns = problem.head_dim + problem.head_dim_v
    rows = problem.batch * problem.seqlen_k * problem.num_heads_kv
    return problem.dtype.itemsize * rows * columns


def contestants(
    problem: AttentionProblem, sku: Sku, sets: list[Inputs], triton: bool
) -> dict[str, Attention]:
    """Every kernel that claims the problem, and what it is measured by; fa4gen first."""
    causal = problem.causal
    found: dict[str, Attention] = {
        OURS: lambda q, k, v: flash_attn_func(q, k, v, causal=causal),
        "cudnn": sdpa(SDPBackend.CUDNN_ATTENTION, causal),
        "fa2": sdpa(SDPBackend.FLASH_ATTENTION, causal),
    }
    try:
        from flash_attn.cute.interface import flash_attn_func as fa4_cute
    except Exception as error:  # whatever a broken install raises
        print(f"flash-attn-4 left out: {type(error).__name__}: {error}", file=sys.stderr)
    else:
        found["fa4-cute"] = lambda q, k, v: fa4_cute(q, k, v, causal=causal)
    if triton:
        found["triton"] = flex(problem, str(sets[0].q.device))
    if selected(problem) != space_for(sku.arch.name).default(problem.signature):
        found[DEFAULT] = default_kernel(problem, sku)
    if group_of(problem) == "decode":
        found[COPY] = copy_of(sets)
    return found


def selected(problem: AttentionProblem) -> KernelConfig:
    """What the runtime runs."""
    return engine().select(problem, 0).config


def usable(attentions: dict[str, Attention], inputs: Inputs) -> dict[str, Attention]:
    """Those that run this problem at all; a peer that refuses is left out of the cell."""
    kept = {}
    for name, attention in attentions.items():
        try:
            attention(*inputs[:3])
            torch.cuda.synchronize()
        except RuntimeError as error:
            if name in NO_PEERS:
                raise
            print(f"  {name} left out: {str(error).splitlines()[0][:100]}", file=sys.stderr)
        else:
            kept[name] = attention
    return kept


def checked(problem: AttentionProblem, device: CudaDevice) -> str:
    """Empty when fa4gen's result is right on the problem's own shape, else what is wrong."""

    def kernel(q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float) -> None:
        result, result_lse = flash_attn_func(
            q, k, v, softmax_scale=scale, causal=problem.causal, return_lse=True
        )
        out.copy_(result)
        lse.copy_(result_lse)

    case = own_case(problem, seed=1)
    inputs = make_inputs(problem, Distribution.NORMAL, 1, device.name)
    error = exp2_error(selected(problem))
    result = run_case(kernel, case, inputs=inputs, launch=device.launch, exp2_error=error)
    return result.message


def timed(
    problem: AttentionProblem, bench: Bench, device: CudaDevice, triton: bool
) -> tuple[list[str], Samples]:
    """Names of the kernels of one cell and their samples, in interleaved rounds."""
    itemsize = problem.dtype.itemsize
    set_bytes = (
        itemsize
        * problem.batch
        * (
            problem.seqlen_q * problem.num_heads_q * problem.head_dim
            + problem.seqlen_k * problem.num_heads_kv * (problem.head_dim + problem.head_dim_v)
        )
    )
    buffers = buffers_past_l2(set_bytes, device.identity.l2_bytes, most=16)
    sets = [make_inputs(problem, Distribution.NORMAL, i, device.name) for i in range(buffers)]
    attentions = usable(contestants(problem, device_sku(device), sets, triton), sets[0])
    launches = [(lambda i, run=run: run(*sets[i % buffers][:3])) for run in attentions.values()]
    return list(attentions), interleave(launches, PLAN, bench, buffers=buffers)


def device_sku(device: CudaDevice) -> Sku:
    """The SKU of the GPU that is measured."""
    return sku_for_gpu(device.identity.gpu_name, device.identity.sm_count)


def rows_of(
    problem: AttentionProblem, bench: Bench, device: CudaDevice, triton: bool
) -> Iterator[Row]:
    """Check, time, and give one row for each kernel."""
    error = checked(problem, device)
    names, samples = timed(problem, bench, device, triton)
    ours = samples.times_us[0]
    for name, times in zip(names, samples.times_us, strict=True):
        timing = summarise(ours, times)
        yield Row(
            group_of(problem),
            problem,
            name,
            timing.median_us,
            timing.spread_us,
            problem.tflops(timing.median_us),
            kv_bytes(problem) / timing.median_us / 1e3,
            timing.gain,
            timing.gain_low,
            timing.gain_high,
            timing.n,
            samples.conditions.sm_clock_mhz,
            samples.conditions.power_w,
            "+".join(samples.conditions.throttle),
            error if name == OURS else "",
            selected(problem).config_id if name == OURS else "",
        )


def columns(row: Row) -> dict[str, Any]:
    """The row as CSV columns, floats with six digits; the problem's fields one by one."""
    own = {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in vars(row).items()
        if name != "problem"
    }
    return {"group": own.pop("group"), **row.problem.to_dict(), **own}


def report(rows: list[Row]) -> None:
    """One line: fa4gen, each peer, and fa4gen over the best peer."""
    ours = next(row for row in rows if row.kernel == OURS)
    others = [row for row in rows if row.kernel not in NO_PEERS]
    best = max(others, key=lambda row: row.ratio_to_fa4gen)
    text = "  ".join(f"{row.kernel} {row.tflops:6.1f}" for row in rows)
    verdict = f"WRONG {ours.error}" if ours.error else "right"
    for row in rows:
        if row.kernel == COPY:
            text += f"  {1 / row.ratio_to_fa4gen:.2f} of the copy's rate"
    print(
        f"{ours.problem!s:42} {text}  ours/best {1 / best.ratio_to_fa4gen:.3f} ({best.kernel}) "
        f"{ours.sm_clock_mhz} MHz {verdict}",
        flush=True,
    )


def geometric_mean(rows: list[Row], group: str) -> float:
    """fa4gen's speed over that of the best peer, over the cells of a group."""
    logs = []
    for problem in {row.problem for row in rows if row.group == group}:
        cell = [row for row in rows if row.problem == problem and row.kernel not in NO_PEERS]
        logs.append(-math.log(max(row.ratio_to_fa4gen for row in cell)))
    return math.exp(sum(logs) / len(logs))


def prebuild(problems: list[AttentionProblem], sku: Sku) -> None:
    """Compile all kernels that will be called, side by side; they are found on disk afterwards."""
    space = space_for(sku.arch.name)
    chosen = [(each.signature, explain(each, sku).selection.config) for each in problems]
    defaults = [(each.signature, space.default(each.signature)) for each in problems]
    with CompilePool() as pool:
        builds = [
            pool.submit(render(signature, config, sku.arch))
            for signature, config in dict.fromkeys([*chosen, *defaults])
        ]
        for build in builds:
            build.result()


def main() -> int:
    """Run the cells, write the CSV, print the means; 1 if any cell was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--workload", default="peers", help="cells: a name or a TOML file")
    parser.add_argument(
        "--group", choices=("grid", "gqa", "latent", "ragged", "decode"), help="only these cells"
    )
    parser.add_argument("--triton", action="store_true", help="compiled FlexAttention as well")
    options = parser.parse_args()
    problems = [
        problem
        for problem in load_workload(options.workload).problems
        if options.group in (None, group_of(problem))
    ]
    device = CudaDevice(0)
    bench = bench_on(device)
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{device.identity.gpu_name}, torch {torch.__version__}, {stamp}")
    prebuild(problems, device_sku(device))
    rows: list[Row] = []
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for problem in problems:
            cell = list(rows_of(problem, bench, device, options.triton))
            rows += cell
            for row in cell:
                line = {**columns(row), "gpu": device.identity.gpu_name, "date": stamp}
                if writer is None:
                    writer = csv.DictWriter(file, list(line))
                    writer.writeheader()
                writer.writerow(line)
            file.flush()
            report(cell)
    for group in dict.fromkeys(row.group for row in rows):
        print(f"{group}: geometric mean of fa4gen / best peer {geometric_mean(rows, group):.3f}")
    regrets = [1 / row.ratio_to_fa4gen for row in rows if row.kernel == DEFAULT]
    print(f"the default is picked in {len(problems) - len(regrets)} cells; elsewhere tuning gains")
    print("  " + " ".join(f"{regret:.2f}" for regret in sorted(regrets)))
    wrong = sum(bool(row.error) for row in rows)
    print(f"{wrong} wrong cells")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
