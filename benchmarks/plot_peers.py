"""Draw what benchmarks/peers.py measured.

    python benchmarks/plot_peers.py peers.csv peers.png others.png

The first figure is the grid: TFLOP/s of every kernel, and fa4gen over the best peer. The second has
all other cells: fa4gen over the best peer and over its own default, and what decode reads a second
beside a copy of as many bytes.
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

COLOURS = {
    "fa4gen": "#d1495b",
    "fa4-cute": "#2e86ab",
    "cudnn": "#76b041",
    "fa2": "#9a9a9a",
    "triton": "#e0a030",
}
DEFAULT, COPY = "fa4gen-default", "copy"
Line = dict[str, str]


def is_peer(line: Line) -> bool:
    """Whether the row is another library's kernel."""
    return line["kernel"] in COLOURS and line["kernel"] != "fa4gen"


def advantage(line: Line) -> tuple[float, float, float]:
    """fa4gen's speed over this row's, and the 95 % interval."""
    names = ("ratio_to_fa4gen", "ratio_high", "ratio_low")
    ratio, low, high = (1 / float(line[name]) for name in names)
    return ratio, low, high


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
        if is_peer(line):
            cells[int(line["seqlen_q"])].append(line)
    for seqlen, others in sorted(cells.items()):
        best = max(others, key=lambda line: float(line["ratio_to_fa4gen"]))
        ratio, low, high = advantage(best)
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
    axis.set_ylim(0.6, 1.5)
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


def cell_name(line: Line) -> str:
    """The problem in a few words."""
    seqlen = line["seqlen_q"]
    if line["seqlen_k"] != seqlen:
        seqlen += f"x{line['seqlen_k']}"
    heads, dims = (
        each if each == other else f"{each}/{other}"
        for each, other in (
            (line["num_heads_q"], line["num_heads_kv"]),
            (line["head_dim"], line["head_dim_v"]),
        )
    )
    mask = " causal" if line["causal"] == "True" else ""
    return f"b{line['batch']} s{seqlen} h{heads} d{dims}{mask}"


def draw_cells(axis: Any, cells: dict[str, list[Line]]) -> None:
    """fa4gen over the best peer (dots) and over its own default (crosses), a line for each cell."""
    for place, cell in enumerate(cells.values()):
        best = max(filter(is_peer, cell), key=lambda line: float(line["ratio_to_fa4gen"]))
        ratio, low, high = advantage(best)
        error = [[ratio - low], [high - ratio]]
        axis.errorbar(ratio, place, xerr=error, fmt="o", ms=5, color=COLOURS[best["kernel"]])
        for line in cell:
            if line["kernel"] == DEFAULT:
                axis.plot(advantage(line)[0], place, "x", color="black", ms=5)
    axis.set_yticks(range(len(cells)), list(cells), fontsize=7)
    axis.axvline(1.0, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.set_xticks(
        [0.9, 1, 1.2, 1.5, 2, 3, 5, 10], ["0.9", "1", "1.2", "1.5", "2", "3", "5", "10"]
    )
    axis.minorticks_off()
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    axis.set_xlabel("fa4gen over the best peer (dot, its colour) and over its own default (x)")


def draw_decode(axis: Any, cells: dict[str, list[Line]]) -> None:
    """TB/s of K and V, and four fifths of a copy's."""
    for place, cell in enumerate(cells.values()):
        for line in cell:
            rate = float(line["kv_gbps"]) / 1e3
            if line["kernel"] in COLOURS:
                axis.plot(rate, place, "o", color=COLOURS[line["kernel"]], ms=6)
            elif line["kernel"] == COPY:
                axis.plot([0.8 * rate] * 2, [place - 0.35, place + 0.35], color="black", lw=1.2)
                axis.plot([rate] * 2, [place - 0.35, place + 0.35], color="black", lw=1.2, ls=":")
    axis.set_yticks(range(len(cells)), list(cells), fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0)
    axis.grid(alpha=0.3)
    axis.set_xlabel("TB/s of K and V (dotted: a copy of as many bytes; line: 80 % of it)")


def draw_others(lines: list[Line], target: Path) -> None:
    """All cells outside the grid."""
    cells: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["group"] != "grid":
            cells[cell_name(line)].append(line)
    decode = {name: cell for name, cell in cells.items() if cell[0]["group"] == "decode"}
    figure, axes = plt.subplots(1, 2, figsize=(13.5, 6.2), width_ratios=(5, 4))
    draw_cells(axes[0], cells)
    draw_decode(axes[1], decode)
    taking_part = {line["kernel"] for line in lines}
    for kernel, colour in COLOURS.items():
        if kernel in taking_part:
            axes[1].plot([], [], "o", color=colour, label=kernel)
    axes[1].legend(fontsize=8, loc="lower left")
    figure.suptitle(f"{lines[0]['gpu']}, {lines[0]['date']}, bf16 forward", fontsize=10)
    figure.tight_layout()
    figure.savefig(target, dpi=75)


def main() -> int:
    """CSV in, PNGs out."""
    source, target, others = map(Path, sys.argv[1:4])
    with source.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    draw_others(lines, others)
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
    figure.savefig(target, dpi=75)
    return 0


if __name__ == "__main__":
    sys.exit(main())
