"""Draw what benchmarks/fp8.py measured.

    python benchmarks/plot_fp8.py fp8.csv fp8.png

TFLOP/s of fa4gen in e4m3, of cuDNN's fp8 and of fa4gen's tuned bf16, and below them e4m3 over the
other two, in the same rounds.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file is all we want; there may be no display
from matplotlib import pyplot as plt

COLOURS = {"e4m3": "#d1495b", "cudnn fp8": "#76b041", "bf16": "#9a9a9a"}

Line = dict[str, str]


def draw_column(axes: Any, lines: list[Line]) -> None:
    """One head dimension and mask: speeds above, ratios below."""
    for kernel, colour in COLOURS.items():
        own = sorted((line for line in lines if line["kernel"] == kernel), key=seqlen)
        style = {"color": colour, "marker": "o", "markersize": 4, "label": kernel}
        axes[0].plot(*zip(*((seqlen(x), float(x["tflops"])) for x in own), strict=True), **style)
        if kernel != "e4m3":
            ratios = [(seqlen(x), float(x["e4m3_over_it"])) for x in own]
            axes[1].plot(*zip(*ratios, strict=True), **style)
    first = lines[0]
    mask = "causal" if first["causal"] == "True" else "dense"
    axes[0].set_title(f"head_dim {first['head_dim']}, {mask}", fontsize=9)
    axes[0].set_ylim(0, 1200)
    axes[1].set_ylim(0.9, 1.75)
    axes[1].axhline(1.0, color="black", linewidth=0.8)
    axes[1].axhline(1.3, color="black", linewidth=0.8, linestyle=":")
    axes[1].set_xlabel("seqlen (16384 tokens)", fontsize=8)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)


def seqlen(line: Line) -> int:
    """Of queries and keys."""
    return int(line["seqlen_q"])


def main(source: Path, target: Path) -> None:
    """Read the CSV, write the picture."""
    with source.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    columns: dict[tuple[bool, int], list[Line]] = {}
    for line in lines:
        columns.setdefault((line["causal"] == "True", int(line["head_dim"])), []).append(line)
    figure, axes = plt.subplots(2, len(columns), figsize=(13.5, 5.2), sharex=True, sharey="row")
    for index, key in enumerate(sorted(columns)):
        draw_column(axes[:, index], columns[key])
    axes[0][0].set_ylabel("TFLOP/s", fontsize=9)
    axes[1][0].set_ylabel("e4m3 over it", fontsize=9)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{source.stem}: fa4gen in e4m3, cuDNN's fp8, fa4gen in bf16", fontsize=10)
    figure.tight_layout()
    figure.savefig(target, dpi=75)


if __name__ == "__main__":
    _, csv_path, png_path = sys.argv
    main(Path(csv_path), Path(png_path))
