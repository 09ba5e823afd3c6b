"""How fast the emulator is: warp instructions per second on attention kernels.

    python benchmarks/emulator_speed.py [--repeat 3] [--large]

FlashAttention-4's forward for sm_90a and sm_100a (extra ``peers``), one head of head_dim 128,
dense, 256 x 256 and with ``--large`` 1024 x 1024. "first" includes parsing and decoding, "again"
only the capture of the launch and the emulation. Compiling is left out.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from fa4gen.core.problem import AttentionProblem
from fa4gen.emulator import Report, run
from fa4gen.emulator.emulate import prepare
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import make_inputs, poisoned_outputs

PEERS = Path(__file__).resolve().parents[1] / "tests" / "peers"
TARGETS = ("sm_90a", "sm_100a")


def main() -> int:
    """Print a row for each kernel and size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=3, help="timed runs; the fastest counts")
    parser.add_argument("--large", action="store_true", help="also 1024 x 1024")
    chosen = parser.parse_args()
    sys.path.insert(0, str(PEERS))
    print(f"{'kernel':34} {'first s':>8} {'again s':>8} {'instructions':>13} {'thousand/s':>11}")
    for seqlen in (256, 1024) if chosen.large else (256,):
        for target in TARGETS:
            _row(seqlen, target, chosen.repeat)
    return 0


def _row(seqlen: int, target: str, repeat: int) -> None:
    compile_forward = importlib.import_module("flash_attention_4").compile_forward
    problem = AttentionProblem.from_dict(
        {"batch": 1, "seqlen_q": seqlen, "num_heads_q": 1, "head_dim": 128}
    )
    kernel = compile_forward(problem, target)
    host = kernel.host()
    q, k, v = make_inputs(problem, Distribution.NORMAL, seed=0)
    out, lse = poisoned_outputs(problem)
    arguments = kernel.bind({"q": q, "k": k, "v": v, "out": out, "lse": lse})
    prepare.cache_clear()
    first, report = _timed(host, arguments)
    again = min(_timed(host, arguments)[0] for _ in range(repeat))
    rate = report.executed / again / 1000
    name = f"FlashAttention-4 {target} {seqlen} x {seqlen}"
    print(f"{name:34} {first:8.2f} {again:8.2f} {report.executed:13d} {rate:11.1f}")


def _timed(host: Any, arguments: list[Any]) -> tuple[float, Report]:
    start = perf_counter()
    report = run(host, *arguments, policies=["eager"])
    if not report.ok:
        raise SystemExit(f"the kernel is wrong:\n{report.findings[0]}")
    return perf_counter() - start, report


if __name__ == "__main__":
    sys.exit(main())
