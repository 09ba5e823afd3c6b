"""Draw what benchmarks/peers.py measured: TFLOP/s of every kernel, and fa4gen over the best peer.

python benchmarks/plot_peers.py peers.csv peers.png
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file is all we want; there may be no display
from matplotlib import pyplot as plt

COLOURS = {"fa4gen": "#d1495b", "fa4-cute": "#2e86ab", "cudnn": "#76b041", "fa2": "#9a9a9a"}
Line = dict[str, str]


def panels(lines: list[Line]) -> dict[tuple[str, str], list[Line]]:
    """The grid's rows by (head_dim, causal)."""
    found: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line["group"] == "grid":
            found[line["head_dim"], line["causal"]].append(line)
    return found


def draw_speed(axis: Any, lines: list[Line], title: str) -> None:
    """TFLOP/s over seqlen, a line for each kernel."""
    for kernel, colour in COLOURS.items():
        own = sorted(
            (int(r["seqlen_q"]), float(r["tflops"])) for r in lines if r["kernel"] == kernel
        )
        if own:
            axis.plot(*zip(*own, strict=True), "o-", color=colour, label=kernel, ms=3, lw=1.4)
    axis.set_title(title, fontsize=9)
    axis.set_xscale("log", base=2)
    axis.grid(alpha=0.3)


def draw_ratio(axis: Any, lines: list[Line]) -> None:
    """fa4gen over the best peer, with the 95 % interval."""
    cells: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if line["kernel"] != "fa4gen":
            cells[int(line["seqlen_q"])].append(line)
    for seqlen, others in sorted(cells.items()):
        best = max(others, key=lambda line: float(line["ratio_to_fa4gen"]))
        ratio, low, high = (
            1 / float(best[name]) for name in ("ratio_to_fa4gen", "ratio_high", "ratio_low")
        )
        axis.errorbar(
            seqlen,
            ratio,
            [[ratio - low], [high - ratio]],
            fmt="o",
            ms=4,
            color=COLOURS[best["kernel"]],
        )
    axis.axhline(1.0, color="black", lw=0.8)
    axis.axhline(0.8, color="black", lw=0.8, ls=":")
    axis.set_xscale("log", base=2)
    axis.set_ylim(0.6, 1.4)
    axis.grid(alpha=0.3)


def draw_state(axis: Any, lines: list[Line]) -> None:
    """SM clock and board power of each cell: what its speed has to be read against."""
    power = axis.twinx()
    own = sorted(
        (int(line["seqlen_q"]), float(line["sm_clock_mhz"] or 0), float(line["power_w"] or 0))
        for line in lines
        if line["kernel"] == "fa4gen"
    )
    seqlens, clocks, powers = zip(*own, strict=True)
    axis.plot(seqlens, clocks, "s-", color="#444444", ms=3, lw=1)
    power.plot(seqlens, powers, "^:", color="#e08e0b", ms=3, lw=1)
    axis.set_xscale("log", base=2)
    axis.set_ylim(1400, 2050)
    power.set_ylim(0, 750)
    power.tick_params(labelsize=7, colors="#e08e0b")
    axis.grid(alpha=0.3)


def main() -> int:
    """CSV in, PNG out."""
    source, target = map(Path, sys.argv[1:3])
    with source.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = panels(lines)
    keys = sorted(found, key=lambda key: (key[1], int(key[0])))
    columns = len(keys)
    figure, axes = plt.subplots(
        3, columns, figsize=(2.4 * columns, 7.2), sharex=True, sharey="row", squeeze=False
    )
    for column, key in enumerate(keys):
        title = f"head_dim {key[0]}, {'causal' if key[1] == 'True' else 'dense'}"
        draw_speed(axes[0][column], found[key], title)
        draw_ratio(axes[1][column], found[key])
        draw_state(axes[2][column], found[key])
        axes[2][column].set_xlabel("seqlen (16384 tokens)", fontsize=8)
    axes[0][0].set_ylabel("TFLOP/s")
    axes[0][0].set_ylim(0, 1.05 * max(float(line["tflops"]) for line in lines))
    axes[1][0].set_ylabel("fa4gen / best peer\n(colour: which peer)")
    axes[2][0].set_ylabel("SM clock, MHz (grey)\npower, W (orange)")
    axes[0][0].legend(fontsize=8)
    figure.suptitle(
        f"{lines[0]['gpu']}, {lines[0]['date']}, bf16 forward, sustained load", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
