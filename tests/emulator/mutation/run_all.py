"""Sabotage every kernel with every operator, and write down what the emulator noticed.

For example with ``--seed 1 --per-operator 3 --out docs/emulator-mutations.md``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE.parents[1] / "peers")]

from fa4gen.versions import installed  # noqa: E402
from mutation.benches import BENCHES, compile_all  # noqa: E402 - needs the path
from mutation.machine import machine  # noqa: E402
from mutation.operators import OPERATORS  # noqa: E402
from mutation.report import document  # noqa: E402
from mutation.suite import Part, digest, outcomes, run_part, share_noticed  # noqa: E402

_PACKAGES = ("nvidia-cutlass-dsl", "flash-attn-4", "quack-kernels", "numpy")
Job = tuple[str, tuple[str, ...], int, int]
"""A kernel, operators, mutants of each, a seed."""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-operator", type=int, default=4, metavar="K")
    parser.add_argument("--kernels", nargs="*", default=list(BENCHES), choices=BENCHES)
    parser.add_argument("--operators", nargs="*", default=list(OPERATORS), choices=OPERATORS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = perf_counter()
    compile_all()
    jobs: list[Job] = [
        (kernel, tuple(options.operators[half::2]), options.per_operator, options.seed)
        for kernel in options.kernels
        for half in range(2)
    ]
    parts: list[Part] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for found in pool.map(_work, jobs):
            parts += found
            _tell(found)
    minutes = (perf_counter() - start) / 60
    print(f"{100 * share_noticed(parts):.1f} % noticed, {minutes:.0f} min")
    if options.out is not None:
        text = document(parts, f"python {' '.join(_command())}", _surroundings(minutes))
        options.out.write_text(text, encoding="utf-8")


def _work(job: Job) -> list[Part]:
    kernel, operators, count, seed = job
    parts = [run_part(operator, kernel, count, seed) for operator in operators]
    print(f"{kernel} (PTX {digest(machine(kernel))}): {len(operators)} operators", flush=True)
    return [part for part in parts if part.drawn.sites]


def _tell(parts: list[Part]) -> None:
    for each in outcomes(parts):
        if each.survives:
            site = each.mutant.site
            print(
                f"  survives: {each.mutant.name}, PTX line {site.line}, {site.opcode}: "
                f"{each.mutant.what} {each.verdict.message}{each.limit and ' (known limit)'}",
                flush=True,
            )


def _command() -> list[str]:
    script = os.path.relpath(sys.argv[0], _HERE.parents[2])
    return [script, *sys.argv[1:]]


def _surroundings(minutes: float) -> str:
    versions = ", ".join(f"{name} {installed(name)}" for name in _PACKAGES)
    today = datetime.date.today().isoformat()
    return f"{today}, Python {platform.python_version()}, {versions}; {minutes:.0f} minutes."


if __name__ == "__main__":
    main()
