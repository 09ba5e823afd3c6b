"""FlashAttention-4's own Blackwell kernels through the trace-driven model, beside published times.

    python benchmarks/blackwell_model.py [--no-ablations]

The kernels are compiled here (extra ``peers``) and run in the emulator; no GPU takes part. What is
compared with is in ``tests/perf/published_blackwell.toml``, and nobody of us has measured it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from traced_kernels import Ours, Theirs, traced

from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.hardware import Sku, load_sku
from fa4gen.perf.trace import TileTiming, hand_out, load_timing, predict_traced, time_tile
from fa4gen.perf.work import count_work
from fa4gen.space import space_for

PUBLISHED = Path(__file__).resolve().parents[1] / "tests" / "perf" / "published_blackwell.toml"
PAIRED_DIMS = 128
"""Head dimensions from which FlashAttention-4 pairs CTAs, of dense problems."""


@dataclass(frozen=True)
class Point:
    """One published time."""

    series: str
    """``llama``, ``deepseek`` or ``tokens``: 32768 tokens of 2048 dimensions."""
    sku: str
    problem: AttentionProblem
    tflops: float

    @property
    def config(self) -> KernelConfig:
        """Knobs of ours with the tiles and the order of FlashAttention-4's kernel."""
        return geometry(self.problem.signature)

    @property
    def kernel(self) -> Theirs:
        """FlashAttention-4's."""
        return theirs(self.problem.signature, load_sku(self.sku).arch.name)


def geometry(signature: KernelSignature) -> KernelConfig:
    """Knobs of ours that have the tiles of FlashAttention-4's kernel, and its order.

    Dense: pairs of CTAs where heads are wide, persistent. Causal: single CTAs, the longest tiles
    first.
    """
    paired = not signature.causal and signature.head_dim >= PAIRED_DIMS
    changes: dict[str, KnobValue] = {
        "num_q_stages": 2,
        "tile_m": 128,
        "tile_n": 128,
        "cta_group": 2 if paired else 1,
        "scheduler": "lpt" if signature.causal else "persistent",
        "pack_gqa": False,
    }
    return space_for("sm100").default(signature).vary(changes)


def theirs(signature: KernelSignature, arch: str, config: KernelConfig | None = None) -> Theirs:
    """FlashAttention-4's kernel of a signature; its heads are not packed."""
    alone = KernelSignature(
        signature.dtype, signature.head_dim, signature.head_dim_v, signature.causal, 1
    )
    return Theirs(alone, config or geometry(alone), arch)


@cache
def published() -> tuple[Point, ...]:
    """Every published time."""
    found = []
    for series in tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["series"]:
        name = next(n for word, n in _SERIES.items() if word in series["source"])
        for seqlen, tflops in zip(series["seqlens"], series["tflops"], strict=True):
            asked = parse_problem([f"s{seqlen}", *series["problem"].split()])
            found.append(Point(name, series["sku"], asked, tflops))
    return tuple(found)


_SERIES = {"Llama": "llama", "DeepSeek": "deepseek", "request 2605": "tokens"}


@cache
def tile_of(kernel: Theirs | Ours, sku: Sku) -> TileTiming:
    """What a tile of a kernel takes."""
    return time_tile(traced(kernel).sass, load_timing(sku.arch))


@dataclass(frozen=True)
class Predicted:
    """A published time with ours."""

    point: Point
    tflops: float
    block: float
    clock_mhz: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.tflops / self.point.tflops - 1.0


def points(series: str | None = None) -> Iterator[Predicted]:
    """Every published time with ours, or those of one series, such as ``llama``."""
    for point in published():
        if series not in (None, point.series):
            continue
        sku = load_sku(point.sku)
        tile = tile_of(point.kernel, sku)
        found = predict_traced(point.problem, point.config, sku, tile)
        tflops = point.problem.flops / found.time_us * 1e-6
        yield Predicted(point, tflops, tile.block, found.clock_mhz)


PAPER = "FlashAttention-4 paper"
LLAMA = "b2 s8192 h64/8 d128"
TOKENS = 32768
"""Of every problem of the FlashAttention-4 paper, with 16 heads of 128 dimensions."""


@dataclass(frozen=True)
class Ablation:
    """One thing changed alone."""

    name: str
    sku: str
    gain: float
    """How many times as long it takes with the change as without."""
    said: str
    """What has been published about it."""


def knob_gain(sku_name: str, change: dict[str, KnobValue], words: str = LLAMA) -> float:
    """Of our kernel, with some knobs changed."""
    asked, sku = parse_problem(words.split()), load_sku(sku_name)
    default = space_for(sku.arch.name).default(asked.signature)
    times = []
    for config in (default, default.vary(change)):
        tile = tile_of(Ours(asked.signature, config, sku.arch.name), sku)
        times.append(predict_traced(asked, config, sku, tile).time_us)
    return times[1] / times[0]


def single_cta_gain(sku_name: str = "b200") -> float:
    """Of FlashAttention-4's kernel, kept from pairing its CTAs."""
    asked, sku = parse_problem(LLAMA.split()), load_sku(sku_name)
    times = []
    for group in (2, 1):
        config = geometry(asked.signature).vary({"cta_group": group})
        tile = tile_of(theirs(asked.signature, sku.arch.name, config), sku)
        times.append(predict_traced(asked, config, sku, tile).time_us)
    return times[1] / times[0]


def order_gain(seqlen: int, sku_name: str = "h200") -> float:
    """How many times as long the paper's causal problems take with the shortest tiles first.

    The paper measured it on an H200. The tiles are those of our Hopper kernel, 128 by 128 as
    FlashAttention-3's.
    """
    sku = load_sku(sku_name)
    asked = parse_problem([f"b{TOKENS // seqlen}", f"s{seqlen}", "h16", "d128", "causal"])
    config = space_for(sku.arch.name).default(asked.signature).vary({"scheduler": "lpt"})
    work = count_work(asked, config, sku.arch)
    tile = tile_of(Ours(asked.signature, config, sku.arch.name), sku)
    longest_first = [n for n in work.blocks_per_tile for _ in range(work.num_groups)]
    head_by_head = [n for _ in range(work.num_groups) for n in reversed(work.blocks_per_tile)]
    times = [hand_out(order, tile, sku.sm_count) for order in (longest_first, head_by_head)]
    return times[1] / times[0]


def ablations() -> Iterator[Ablation]:
    """What the paper and others changed alone, by the model."""
    slower = f"{PAPER}: slower"
    yield Ablation(
        "exp emulation left out, dense",
        "b200",
        knob_gain("b200", {"exp2_poly_fraction": 0.0}),
        "cudnn-frontend pull request 1178: 3.9 % slower",
    )
    yield Ablation(
        "exp emulation put in, dense",
        "b300",
        knob_gain("b300", {"exp2_poly_fraction": 0.1875}),
        "cudnn-frontend pull request 1178: 6 to 10 % slower where MUFU is doubled",
    )
    one: dict[str, KnobValue] = {"cta_group": 1, "num_kv_stages": 3}
    yield Ablation("one CTA for each MMA (ring of 3)", "b200", knob_gain("b200", one), slower)
    yield Ablation("the same, FlashAttention-4's kernel", "b200", single_cta_gain(), slower)
    yield Ablation(
        "O rescaled in every block",
        "b200",
        knob_gain("b200", {"rescale_threshold_log2": 0.0}),
        slower,
    )
    for seqlen in (2048, 4096, 8192, 16384):
        name = f"head by head, shortest tile first, {seqlen} causal"
        yield Ablation(name, "h200", order_gain(seqlen), f"{PAPER}: 4 to 8 % slower (MHA)")


def markdown(found: Iterable[Predicted], changes: Iterable[Ablation]) -> Iterator[str]:
    """The tables of docs/trace-model.md."""
    yield "| machine | problem | published | predicted | error | cycles a block | MHz |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    rows = list(found)
    for row in rows:
        yield (
            f"| {row.point.sku} | {row.point.problem} | {row.point.tflops:.0f} | "
            f"{row.tflops:.0f} | {row.error:+.1%} | {row.block:.0f} | {row.clock_mhz:.0f} |"
        )
    errors = [abs(row.error) for row in rows]
    yield ""
    yield f"Error: median {statistics.median(errors):.1%}, largest {max(errors):.1%}."
    yield ""
    yield "| changed alone | machine | times as long | published |"
    yield "|---|---|---:|---|"
    for change in changes:
        yield f"| {change.name} | {change.sku} | {change.gain:.3f} | {change.said} |"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-ablations", action="store_true")
    options = parser.parse_args()
    chosen = () if options.no_ablations else ablations()
    for line in markdown(points(), chosen):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
