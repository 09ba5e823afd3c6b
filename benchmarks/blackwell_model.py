"""FlashAttention-4's own Blackwell kernels through the trace-driven model, beside published times.

    python benchmarks/blackwell_model.py [--markdown FILE]

The kernels are compiled here (extra ``peers``) and run in the emulator; no GPU takes part. What is
compared with is in ``tests/perf/published_blackwell.toml``, and nobody of us has measured it.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import make_inputs, poisoned_outputs
from fa4gen.evaluate.traced import predict_by_trace
from fa4gen.hardware import Sku, load_sku
from fa4gen.perf.trace import (
    Tape,
    TileTiming,
    hand_out,
    load_timing,
    predict_traced,
    record,
    time_tile,
    trace_tiles,
)
from fa4gen.perf.work import count_work
from fa4gen.space import space_for

TESTS = Path(__file__).resolve().parents[1] / "tests"
SHAPE = {"batch": 2, "num_heads_q": 64, "num_heads_kv": 8, "head_dim": 128}
"""Llama-3.1's, of which there are times for four lengths or more on two machines."""
TILE_ROWS = 256
"""Query rows of a CTA in FlashAttention-4's kernels."""


@dataclass(frozen=True)
class Point:
    """One published time."""

    sku: str
    causal: bool
    seqlen: int
    published: float
    """TFLOP/s."""
    predicted: float
    """TFLOP/s."""
    block: float
    clock_mhz: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.predicted / self.published - 1.0


def problem(seqlen: int, *, causal: bool, **changes: int) -> AttentionProblem:
    """Of the shape, for one length."""
    fields = {**SHAPE, "seqlen_q": seqlen, "causal": causal, **changes}
    return AttentionProblem.from_dict(fields)


def geometry(*, causal: bool) -> KernelConfig:
    """Knobs of ours that have the tiles of FlashAttention-4's kernel, and its order.

    Dense: pairs of CTAs, persistent. Causal: single CTAs, the longest tiles first.
    """
    changes: dict[str, KnobValue] = {
        "cta_group": 1 if causal else 2,
        "scheduler": "lpt" if causal else "persistent",
        "pack_gqa": False,
    }
    return space_for("sm100").default(problem(8192, causal=causal).signature).vary(changes)


@cache
def theirs(target: str, *, causal: bool) -> Any:
    """FlashAttention-4's kernel for a target, compiled as the tests do."""
    sys.path.insert(0, str(TESTS / "peers"))
    fa4, kernels = (importlib.import_module(n) for n in ("flash_attention_4", "peer_kernels"))
    group = geometry(causal=causal).cta_group
    rows = TILE_ROWS * group
    asked = problem(rows, causal=causal, batch=1, num_heads_q=1, num_heads_kv=1)
    request = fa4.forward_request(asked, target, cta_group=group, num_sms=group)
    return kernels.compile_peer(request)


@cache
def tile_of(sku: Sku, *, causal: bool) -> TileTiming:
    """What a tile of FlashAttention-4's kernel takes."""
    kernel, config = theirs(sku.arch.target, causal=causal), geometry(causal=causal)

    def run(asked: AttentionProblem, num_sms: int) -> list[Tape]:
        assert num_sms == config.cta_group  # what it was compiled for
        q, k, v = make_inputs(asked, Distribution.NORMAL, seed=0)
        out, lse = poisoned_outputs(asked)
        return record(kernel.host(), *kernel.bind({"q": q, "k": k, "v": v, "out": out, "lse": lse}))

    dims = SHAPE["head_dim"]
    signature = KernelSignature(problem(128, causal=causal).dtype, dims, dims, causal, 1)
    tapes = trace_tiles(run, signature, config, sku.arch)
    return time_tile(tapes, load_timing(sku.arch))


def points() -> Iterator[Point]:
    """Every published time of the shape, with ours."""
    text = (TESTS / "perf" / "published_blackwell.toml").read_text(encoding="utf-8")
    for series in tomllib.loads(text)["series"]:
        shape, _, mask = series["problem"].rpartition(" ")
        if shape != "b2 h64/8 d128":
            continue
        causal, sku = mask == "causal", load_sku(series["sku"])
        tile, config = tile_of(sku, causal=causal), geometry(causal=causal)
        for seqlen, published in zip(series["seqlens"], series["tflops"], strict=True):
            asked = problem(seqlen, causal=causal)
            found = predict_traced(asked, config, sku, tile)
            predicted = asked.flops / found.time_us * 1e-6
            yield Point(sku.name, causal, seqlen, published, predicted, tile.block, found.clock_mhz)


@dataclass(frozen=True)
class Ablation:
    """One knob of our kernel, changed alone."""

    name: str
    sku: str
    causal: bool
    change: dict[str, KnobValue]
    said: str
    """What has been published about it."""

    def gain(self, seqlen: int = 8192) -> float:
        """How many times as long it takes with the change as without."""
        asked, sku = problem(seqlen, causal=self.causal, num_heads_kv=64), load_sku(self.sku)
        default = space_for(sku.arch.name).default(asked.signature)
        times = [
            predict_by_trace(asked, default.vary(change), sku).prediction.time_us
            for change in ({}, self.change)
        ]
        return times[1] / times[0]


def order_gain(seqlen: int, heads: int = 16, batch: int = 4) -> float:
    """How many times as long causal MHA takes with the shortest tiles first, on a B200."""
    sku, config = load_sku("b200"), geometry(causal=True)
    asked = problem(seqlen, causal=True, num_heads_q=heads, num_heads_kv=heads, batch=batch)
    work, tile = count_work(asked, config, sku.arch), tile_of(sku, causal=True)
    longest_first = [n for n in work.blocks_per_tile for _ in range(work.num_groups)]
    head_by_head = [n for _ in range(work.num_groups) for n in reversed(work.blocks_per_tile)]
    times = [hand_out(order, tile, sku.sm_count) for order in (longest_first, head_by_head)]
    return times[1] / times[0]


PAPER = "FlashAttention-4 paper"
ABLATIONS = (
    Ablation(
        "exp emulation left out", "b200", False, {"exp2_poly_fraction": 0.0}, f"{PAPER}: slower"
    ),
    Ablation(
        "exp emulation put in",
        "b300",
        False,
        {"exp2_poly_fraction": 0.1875},
        "cudnn-frontend pull request 1178: 6 to 10 % slower where MUFU is doubled",
    ),
    Ablation(
        "one CTA for each MMA (and a ring of 3)",
        "b200",
        False,
        {"cta_group": 1, "num_kv_stages": 3},
        f"{PAPER}: slower",
    ),
    Ablation(
        "O rescaled in every block",
        "b200",
        False,
        {"rescale_threshold_log2": 0.0},
        f"{PAPER}: slower",
    ),
)


def markdown(found: Iterable[Point], ablations: Iterable[tuple[Ablation, float]]) -> Iterator[str]:
    """The tables of docs/trace-model.md."""
    yield "| machine | mask | seqlen | published | predicted | error | cycles a block | MHz |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    rows = list(found)
    for point in rows:
        mask = "causal" if point.causal else "dense"
        yield (
            f"| {point.sku} | {mask} | {point.seqlen} | {point.published:.0f} | "
            f"{point.predicted:.0f} | {point.error:+.1%} | {point.block:.0f} | "
            f"{point.clock_mhz:.0f} |"
        )
    errors = [abs(point.error) for point in rows]
    yield ""
    yield f"Error: median {statistics.median(errors):.1%}, largest {max(errors):.1%}."
    yield ""
    yield "| changed alone | machine | times as long | published |"
    yield "|---|---|---:|---|"
    for ablation, gain in ablations:
        yield f"| {ablation.name} | {ablation.sku} | {gain:.3f} | {ablation.said} |"
    for seqlen in (2048, 4096, 8192):
        gain = order_gain(seqlen)
        said = f"{PAPER}: 4 to 8 % slower (MHA)"
        yield f"| head by head, shortest tile first, {seqlen} causal | b200 | {gain:.3f} | {said} |"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-ablations", action="store_true")
    options = parser.parse_args()
    chosen = () if options.no_ablations else ABLATIONS
    for line in markdown(points(), ((each, each.gain()) for each in chosen)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
